//! Two processes, unreliable connections and datagrams: what arrives is whole, what finds no receive is dropped, nobody waits.

#[path = "common/foreign.rs"]
mod foreign;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/process.rs"]
mod process;
#[path = "common/puppet.rs"]
mod puppet;
#[path = "common/seccomp.rs"]
mod seccomp;

use puppet::{Obey, pair};

#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

fn both_ways(open: &str, scenario: impl Fn(&mut dyn Obey, &mut dyn Obey)) {
    let (mut here, mut there) = pair(open);
    scenario(&mut here, &mut there);
    scenario(&mut there, &mut here);
}

#[test]
fn an_unreliable_connection_carries_sends_and_writes() {
    both_ways("open uc", |from, to| {
        for (id, size) in [1_usize, 64, 4096, 100_000].into_iter().enumerate() {
            from.ok(&format!("fill {id} 0 {size}"));
            to.ok(&format!("recv {} 0 {size}", 10 + id));
            from.ok(&format!("post send-imm {id} 0 {size} 0 6"));
            assert_eq!(from.run("wait"), format!("{id} Success Send {size} 0"));
            assert_eq!(to.run("wait"), format!("{} Success Recv {size} 6", 10 + id));
            to.ok(&format!("check {id} 0 {size}"));
            from.ok(&format!("post write {id} 0 {size} 200000"));
            assert_eq!(from.run("wait"), format!("{id} Success RdmaWrite {size} 0"));
            to.ok(&format!("check {id} 200000 {size}"));
        }
        to.ok("recv 20 0 0");
        from.ok("fill 9 0 321");
        from.ok("post write-imm 8 0 321 7000 55");
        assert_eq!(from.run("wait"), "8 Success RdmaWrite 321 0");
        assert_eq!(to.run("wait"), "20 Success RecvRdmaWithImm 321 55");
        to.ok("check 9 7000 321");
    });
}

#[test]
fn an_unreliable_connection_drops_what_finds_no_receive() {
    both_ways("open uc", |from, to| {
        from.ok("fill 1 0 64");
        from.ok("post send 1 0 64");
        assert_eq!(from.run("wait"), "1 Success Send 64 0");
        // The next one finds a receive and does not carry the lost one's bytes.
        to.ok("recv 2 0 64");
        from.ok("fill 2 0 64");
        from.ok("post send 2 0 64");
        assert_eq!(from.run("wait"), "2 Success Send 64 0");
        assert_eq!(to.run("wait"), "2 Success Recv 64 0");
        to.ok("check 2 0 64");
        to.ok("idle 20");
    });
}

#[test]
fn datagrams_arrive_behind_their_header_area() {
    both_ways("open ud", |from, to| {
        for (id, size) in [1_usize, 64, 1000, 4096].into_iter().enumerate() {
            from.ok(&format!("fill {id} 0 {size}"));
            to.ok(&format!("fill 99 0 {}", size + 48));
            to.ok(&format!("recv {} 0 {}", 10 + id, size + 40));
            from.ok(&format!("post send-imm {id} 0 {size} 0 6"));
            assert_eq!(from.run("wait"), format!("{id} Success Send {size} 0"));
            assert_eq!(to.run("wait"), format!("{} Success Recv {} 6", 10 + id, size + 40));
            to.ok(&format!("check {id} 40 {size}"));
        }
    });
}

#[test]
fn datagrams_without_a_receive_or_with_too_small_a_one_are_dropped() {
    both_ways("open ud", |from, to| {
        from.ok("fill 1 0 64");
        from.ok("post send 1 0 64");
        assert_eq!(from.run("wait"), "1 Success Send 64 0");
        to.ok("recv 2 0 103");
        from.ok("post send 2 0 64");
        assert_eq!(from.run("wait"), "2 Success Send 64 0");
        to.ok("idle 20");
        // The receive that was too small takes a smaller one.
        from.ok("fill 3 0 63");
        from.ok("post send 3 0 63");
        assert_eq!(from.run("wait"), "3 Success Send 63 0");
        assert_eq!(to.run("wait"), "2 Success Recv 103 0");
        to.ok("check 3 40 63");
    });
}

#[test]
fn the_end_of_a_datagram_destination_disturbs_nobody() {
    let (mut here, there) = pair("open ud");
    here.ok("post send 1 0 64");
    assert_eq!(here.run("wait"), "1 Success Send 64 0");
    there.bury();
    for id in 2..200 {
        here.ok(&format!("post send {id} 0 64"));
        assert_eq!(here.run("wait"), format!("{id} Success Send 64 0"));
    }
    assert_eq!(here.run("state"), "Rts");
    // A new one is reached by a new address handle.
    let mut other = process::Child::start("puppet");
    let theirs = other.run("open ud");
    here.ok(&format!("connect {theirs}"));
    other.ok(&format!("connect {}", here.run("card")));
    other.ok("recv 1 0 104");
    here.ok("fill 5 0 64");
    here.ok("post send 3 0 64");
    assert_eq!(other.run("wait"), "1 Success Recv 104 0");
    other.ok("check 5 40 64");
}
