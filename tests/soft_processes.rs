//! The software NIC between processes, over loopback: every operation, sleepers, targets that never call in, many at once, the end of a peer.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::duplicate_mod, reason = "each of the files says for itself what it shares with the others")]

#[path = "common/foreign.rs"]
mod foreign;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/process.rs"]
mod process;
#[path = "process_events.rs"]
mod process_events;
#[path = "process_operations.rs"]
mod process_operations;
#[path = "common/puppet.rs"]
mod puppet;
#[path = "common/seccomp.rs"]
mod seccomp;

use process::Child;
use puppet::{Obey, Puppet, meet, pair};
use std::time::{Duration, Instant};
use tbrdma::Connection;

/// All children of this binary, whichever file's test started them.
#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

#[test]
fn a_target_that_never_calls_in_is_served() {
    // While it waits for the parent's next line, the child polls nothing.
    let (mut here, mut there) = pair("open rc");
    there.ok("fill 1 0 100000");
    for round in 0..20_u64 {
        here.ok("post read 1 200000 100000 0");
        assert_eq!(here.run("wait"), "1 Success RdmaRead 100000 0");
        here.ok("check 1 200000 100000");
        here.ok(&format!("fill {round} 0 70000"));
        here.ok("post write 2 0 70000 500000");
        assert_eq!(here.run("wait"), "2 Success RdmaWrite 70000 0");
        here.ok("post faa 3 0 8 1000000 1");
        assert_eq!(here.run("wait"), "3 Success FetchAdd 8 0");
        assert_eq!(here.run("load 0"), round.to_string());
        there.ok(&format!("check {round} 500000 70000"));
    }
}

#[test]
fn the_end_of_a_peer_is_an_error_within_its_timers() {
    let (mut here, mut there) = (Puppet::default(), Child::start("puppet"));
    let (ours, theirs) = (here.run("open rc"), there.run("open rc"));
    here.end.as_mut().unwrap().with = Connection::default();
    here.ok(&format!("connect {theirs}"));
    there.ok(&format!("connect {ours}"));
    here.ok("recv 9 0 64");
    there.bury();
    let begun = Instant::now();
    here.ok("post send 1 0 64");
    here.ok("post send 2 0 64");
    let mut ends = [here.run("wait"), here.run("wait"), here.run("wait")];
    // Eight times 67 ms, and whatever a busy machine adds.
    assert!(begun.elapsed() > Duration::from_millis(400), "{:?} is too soon", begun.elapsed());
    ends.sort_unstable();
    assert_eq!(ends, ["1 RetryExcErr Send 0 0", "2 WrFlushErr Send 0 0", "9 WrFlushErr Recv 0 0"]);
    assert_eq!(here.run("state"), "Err");
}

#[test]
fn a_peer_that_stands_still_for_a_moment_is_waited_for() {
    let (mut here, mut there) = pair("open rc");
    there.ok("recv 1 0 64");
    there.stop();
    here.ok("fill 7 0 64");
    here.ok("post send 2 0 64");
    here.ok("idle 100");
    there.signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(here.run("wait"), "2 Success Send 64 0");
    assert_eq!(there.run("wait"), "1 Success Recv 64 0");
    there.ok("check 7 0 64");
}

#[test]
fn several_processes_use_the_device_at_once() {
    let mut pairs: Vec<(Child, Child)> =
        (0..4).map(|_| (Child::start("puppet"), Child::start("puppet"))).collect();
    for (a, b) in &mut pairs {
        meet(a, b, "open rc");
        b.ok("store 0 0");
    }
    for (a, _) in &mut pairs {
        a.say("times 2000 post faa 1 64 8 0 1");
    }
    for (number, (a, b)) in pairs.iter_mut().enumerate() {
        assert_eq!(a.hear(), "ok", "pair {number}");
        assert_eq!(b.run("load 0"), "2000", "pair {number}");
    }
    // One more comes, and one goes.
    drop(pairs.pop());
    let mut here = Puppet::default();
    let (_, b) = &mut pairs[0];
    let mut late = Child::start("puppet");
    meet(&mut here, &mut late, "open rc");
    here.ok("post faa 1 64 8 8 5");
    assert_eq!(here.run("wait"), "1 Success FetchAdd 8 0");
    assert_eq!(b.run("load 0"), "2000");
}
