//! Completion events between processes: a sleeper is woken by the initiator itself, or through its own service thread.

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

use puppet::{Obey, Puppet, meet, pair};

#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

/// Ping-pong in which each side sleeps until the other's message is there.
fn asleep(open: &str, header: usize, rounds: usize) {
    let (mut here, mut there) = pair(open);
    let space = 256 + header;
    for round in 0..rounds {
        one_message(open, &mut here, &mut there, round, space, header);
        one_message(open, &mut there, &mut here, round, space, header);
    }
}

/// May a message be lost? At an address where processes come and go, one that nobody acknowledges may end with another process.
fn may_be_lost(open: &str) -> bool {
    process::device() != "shm" && !open.starts_with("open rc")
}

fn one_message(
    open: &str,
    from: &mut dyn Obey,
    to: &mut dyn Obey,
    round: usize,
    space: usize,
    header: usize,
) {
    to.ok(&format!("recv {round} 0 {space}"));
    from.ok(&format!("fill {round} 4096 256"));
    loop {
        from.ok(&format!("post send {round} 4096 256"));
        let heard = to.run(if may_be_lost(open) { "sleep 10000" } else { "sleep" });
        assert_eq!(from.run("sleep"), format!("{round} Success Send 256 0"));
        if heard == "nothing" && may_be_lost(open) {
            continue;
        }
        assert_eq!(heard, format!("{round} Success Recv {space} 0"));
        break;
    }
    to.ok(&format!("check {round} {header} 256"));
}

#[test]
fn a_connected_sleeper_is_woken_by_every_message() {
    asleep("open rc events", 0, 100);
    asleep("open uc events", 0, 100);
}

#[test]
fn a_datagram_sleeper_is_woken_through_its_service_thread() {
    asleep("open ud events", 40, 100);
}

/// The child sleeps before the message is posted, most of the time.
fn already_asleep(open: &str, header: usize) {
    let (mut here, mut there) = pair(open);
    for round in 0..200_usize {
        there.ok(&format!("recv {round} 0 {}", 64 + header));
        loop {
            there.say(if may_be_lost(open) { "sleep 10000" } else { "sleep" });
            if round % 2 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            here.ok(&format!("post send {round} 0 64"));
            let heard = there.hear();
            assert_eq!(here.run("wait"), format!("{round} Success Send 64 0"));
            if heard == "nothing" && may_be_lost(open) {
                continue;
            }
            assert_eq!(heard, format!("{round} Success Recv {} 0", 64 + header));
            break;
        }
    }
}

#[test]
fn a_message_to_a_sleeper_is_never_missed() {
    already_asleep("open rc events", 0);
    already_asleep("open ud events", 40);
}

#[test]
fn a_sleeper_whose_peer_connected_before_it_had_a_channel_is_woken_too() {
    // The parent polls, the child sleeps: each has what it asked for.
    let mut here = Puppet::default();
    let mut there = process::Child::start("puppet");
    let (a, b) = (here.run("open rc"), there.run("open rc events"));
    there.ok(&format!("connect {a}"));
    here.ok(&format!("connect {b}"));
    there.ok("recv 1 0 64");
    there.say("sleep");
    here.ok("post send 2 0 64");
    assert_eq!(there.hear(), "1 Success Recv 64 0");
    assert_eq!(here.run("wait"), "2 Success Send 64 0");
}

#[test]
fn a_sleeper_is_woken_by_the_death_of_its_peer() {
    if process::device() != "shm" {
        // Over a network silence is all there is to notice, and only a sender does.
        return;
    }
    let mut here = Puppet::default();
    let mut there = process::Child::start("puppet");
    meet(&mut here, &mut there, "open rc events");
    here.ok("recv 1 0 64");
    here.ok("recv 2 64 64");
    there.kill();
    assert_eq!(here.run("sleep"), "1 WrFlushErr Recv 0 0");
    assert_eq!(here.run("sleep"), "2 WrFlushErr Recv 0 0");
    assert_eq!(here.run("event 20000"), "QpFatal");
}
