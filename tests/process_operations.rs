//! Two processes, reliable connections: every operation in both directions, with the bytes looked at on both sides.

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

use process::Child;
use puppet::{End, Obey, card, pair, patient};
use tbrdma::{QpInit, QpType};

#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

/// Sizes on both sides of what the data path treats differently.
const SIZES: [usize; 9] = [1, 7, 8, 64, 511, 4096, 4097, 65_537, 1 << 20];

/// Runs a scenario with the parent as initiator, then with the child.
fn both_ways(open: &str, scenario: impl Fn(&mut dyn Obey, &mut dyn Obey)) {
    let (mut here, mut there) = pair(open);
    scenario(&mut here, &mut there);
    scenario(&mut there, &mut here);
}

#[test]
fn sends_of_every_size_arrive_in_order() {
    both_ways("open rc", |from, to| {
        for (id, size) in SIZES.into_iter().enumerate() {
            from.ok(&format!("fill {id} 0 {size}"));
            to.ok(&format!("fill 99 0 {}", size + 8));
            to.ok(&format!("recv {} 0 {size}", 100 + id));
            from.ok(&format!("post send {id} 0 {size}"));
            assert_eq!(from.run("wait"), format!("{id} Success Send {size} 0"));
            assert_eq!(to.run("wait"), format!("{} Success Recv {size} 0", 100 + id));
            to.ok(&format!("check {id} 0 {size}"));
        }
        // Many at once: they meet the receives in order.
        for n in 0..32 {
            to.ok(&format!("recv {n} {} 256", n * 256));
        }
        for n in 0..32 {
            from.ok(&format!("fill {n} {} 256", n * 256));
            from.ok(&format!("post send {n} {} 256", n * 256));
        }
        for n in 0..32 {
            assert_eq!(to.run("wait"), format!("{n} Success Recv 256 0"));
            assert_eq!(from.run("wait"), format!("{n} Success Send 256 0"));
            to.ok(&format!("check {n} {} 256", n * 256));
        }
    });
}

#[test]
fn immediate_data_and_inline_bytes_arrive() {
    both_ways("open rc", |from, to| {
        from.ok("fill 5 0 48");
        for op in ["send-imm", "send-inline"] {
            to.ok("fill 6 0 48");
            to.ok("recv 1 0 48");
            from.ok(&format!("post {op} 2 0 48 0 4026531841"));
            let imm = if op == "send-imm" { 4_026_531_841_u32 } else { 0 };
            assert_eq!(from.run("wait"), "2 Success Send 48 0");
            assert_eq!(to.run("wait"), format!("1 Success Recv 48 {imm}"));
            to.ok("check 5 0 48");
        }
        to.ok("recv 3 0 0");
        from.ok("fill 7 0 5000");
        from.ok("post write-imm 4 0 5000 9000 77");
        assert_eq!(from.run("wait"), "4 Success RdmaWrite 5000 0");
        assert_eq!(to.run("wait"), "3 Success RecvRdmaWithImm 5000 77");
        to.ok("check 7 9000 5000");
    });
}

#[test]
fn writes_and_reads_move_exactly_the_bytes_named() {
    both_ways("open rc", |from, to| {
        for (id, size) in SIZES.into_iter().enumerate() {
            to.ok(&format!("fill 50 0 {}", size + 200));
            from.ok(&format!("fill {id} 1000 {size}"));
            from.ok(&format!("post write {id} 1000 {size} 100"));
            assert_eq!(from.run("wait"), format!("{id} Success RdmaWrite {size} 0"));
            to.ok(&format!("check {id} 100 {size}"));
            // What lies in front is untouched.
            to.ok("check 50 0 100");

            to.ok(&format!("fill {} 3000 {size}", 60 + id));
            from.ok(&format!("post read {id} 1000 {size} 3000"));
            assert_eq!(from.run("wait"), format!("{id} Success RdmaRead {size} 0"));
            from.ok(&format!("check {} 1000 {size}", 60 + id));
        }
        from.ok("fill 8 0 33");
        from.ok("post write-inline 9 0 33 555");
        assert_eq!(from.run("wait"), "9 Success RdmaWrite 33 0");
        to.ok("check 8 555 33");
    });
}

#[test]
fn atomics_return_the_old_value_and_store_the_new_one() {
    both_ways("open rc", |from, to| {
        to.ok("store 64 41");
        from.ok("post faa 1 0 8 64 2");
        assert_eq!(from.run("wait"), "1 Success FetchAdd 8 0");
        assert_eq!((from.run("load 0"), to.run("load 64")), ("41".to_owned(), "43".to_owned()));
        from.ok("post cas 2 0 8 64 43 7");
        assert_eq!(from.run("wait"), "2 Success CompSwap 8 0");
        assert_eq!((from.run("load 0"), to.run("load 64")), ("43".to_owned(), "7".to_owned()));
        from.ok("post cas 3 0 8 64 43 9");
        assert_eq!(from.run("wait"), "3 Success CompSwap 8 0");
        assert_eq!((from.run("load 0"), to.run("load 64")), ("7".to_owned(), "7".to_owned()));
    });
}

#[test]
fn atomics_of_two_processes_on_one_word_lose_nothing() {
    let mut here = End::new(QpType::Rc, false);
    let second = here.pd.create_qp(QpInit::rc(&here.cq)).unwrap();
    let first = std::mem::replace(&mut here.qp, second);
    let mut children = [Child::start("puppet"), Child::start("puppet")];
    let mut qps = [first, here.qp];
    assert!(here.mr.store_u64(128, 0));
    for (child, qp) in children.iter_mut().zip(&mut qps) {
        let theirs = child.run("open rc");
        qp.connect_with(&theirs.split(' ').next().unwrap().parse().unwrap(), &patient()).unwrap();
        child.ok(&format!("connect {}", card(&qp.address(), &here.mr.remote())));
    }
    for child in &mut children {
        child.say("times 20000 post faa 1 0 8 128 1");
    }
    for child in &mut children {
        assert_eq!(child.hear(), "ok");
    }
    assert_eq!(here.mr.load_u64(128), 40_000);
}

#[test]
fn a_bad_key_is_refused_and_takes_both_sides_to_the_error_state() {
    both_pairs(|from, to| {
        to.ok("fill 3 0 4096");
        from.ok("fill 4 0 64");
        // Beyond the end of the region.
        from.ok("post write 1 0 64 2097120");
        assert_eq!(from.run("wait"), "1 RemAccessErr RdmaWrite 0 0");
        assert_eq!(from.run("state"), "Err");
        assert_eq!(to.run("event 20000"), "QpAccessErr");
        assert_eq!(to.run("state"), "Err");
        to.ok("check 3 0 4096");
    });
}

/// A pair for each direction: these scenarios leave nothing to go on with.
fn both_pairs(scenario: impl Fn(&mut dyn Obey, &mut dyn Obey)) {
    let (mut here, mut there) = pair("open rc");
    scenario(&mut here, &mut there);
    let (mut here, mut there) = pair("open rc");
    scenario(&mut there, &mut here);
}

#[test]
fn a_target_that_sleeps_serves_one_sided_operations() {
    // After connecting the child sits in a read of its standard input and calls the library no more.
    let (mut here, mut there) = pair("open rc");
    there.ok("store 4096 5");
    for round in 0..100_u64 {
        here.ok(&format!("fill {round} 0 3000"));
        here.ok("post write 1 0 3000 8192");
        assert_eq!(here.run("wait"), "1 Success RdmaWrite 3000 0");
        here.ok("post read 2 100000 3000 8192");
        assert_eq!(here.run("wait"), "2 Success RdmaRead 3000 0");
        here.ok(&format!("check {round} 100000 3000"));
        here.ok("post faa 3 64 8 4096 1");
        assert_eq!(here.run("wait"), "3 Success FetchAdd 8 0");
        assert_eq!(here.run("load 64"), (5 + round).to_string());
    }
    there.ok("check 99 8192 3000");
    assert_eq!(there.run("load 4096"), "105");
}

#[test]
fn a_send_waits_for_the_receive_of_the_other_process() {
    both_ways("open rc", |from, to| {
        from.ok("fill 12 0 700");
        from.ok("post send 1 0 700");
        from.ok("idle 30");
        to.ok("recv 2 0 700");
        assert_eq!(to.run("wait"), "2 Success Recv 700 0");
        assert_eq!(from.run("wait"), "1 Success Send 700 0");
        to.ok("check 12 0 700");
    });
}
