//! A peer that ends, politely or not, leaves nothing behind, and the survivor learns of it.

#[path = "common/census.rs"]
mod census;
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

use process::{Child, until};
use puppet::{Obey, Puppet, meet, pair};

#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

/// The socket name's end of the context behind a card.
fn suffix(card: &str) -> String {
    let lid = card.split('/').nth(1).unwrap();
    lid.replace("0x", "/")
}

#[test]
fn a_peer_that_closes_politely_fails_what_is_sent_to_it_and_flushes_what_waits_for_it() {
    let (mut here, mut there) = pair("open rc");
    here.ok("recv 1 0 64");
    there.ok("close");
    here.ok("post send 2 0 64");
    assert_eq!(here.run("wait"), "2 RetryExcErr Send 0 0");
    assert_eq!(here.run("wait"), "1 WrFlushErr Recv 0 0");
    assert_eq!(here.run("state"), "Err");
}

#[test]
fn a_receiver_learns_that_its_peer_has_ended() {
    for violent in [false, true] {
        let (mut here, mut there) = pair("open rc");
        here.ok("recv 1 0 64");
        // A message sent just before the end is not lost.
        there.ok("fill 4 0 64");
        there.ok("post send 3 0 64");
        if violent {
            there.bury();
        } else {
            there.say("exit");
            assert!(there.reap().success());
        }
        here.ok("recv 2 64 64");
        assert_eq!(here.run("wait"), "1 Success Recv 64 0");
        here.ok("check 4 0 64");
        assert_eq!(here.run("wait"), "2 WrFlushErr Recv 0 0");
        assert_eq!(here.run("event 20000"), "QpFatal");
        // What is posted afterwards comes back as well.
        here.ok("recv 3 0 64");
        assert_eq!(here.run("wait"), "3 WrFlushErr Recv 0 0");
        here.ok("post send 4 0 64");
        assert_eq!(here.run("wait"), "4 WrFlushErr Send 0 0");
    }
}

#[test]
fn connecting_to_a_process_that_has_ended_says_so() {
    let mut there = Child::start("puppet");
    let card = there.run("open rc");
    there.bury();
    let mut here = Puppet::default();
    here.run("open rc");
    let said = here.run(&format!("connect {card}"));
    assert!(said.contains("still running"), "{said}");
    assert_eq!(here.run("state"), "Init");
}

#[test]
fn nothing_is_left_of_ended_processes() {
    let files = census::dev_shm();
    let mut suffixes = Vec::new();
    for violent in [false, true] {
        let mut there = Child::start("puppet");
        let mut here = Puppet::default();
        meet(&mut here, &mut there, "open rc events");
        suffixes.push(suffix(&there.run("card")));
        assert!(!census::sockets(&suffixes[suffixes.len() - 1..]).is_empty(), "{suffixes:?}");
        if violent {
            there.bury();
        } else {
            there.say("exit");
            assert!(there.reap().success());
        }
    }
    until("the sockets are gone", || census::sockets(&suffixes).is_empty());
    let new = |name: &String| !files.contains(name) && name.contains("tbrdma");
    assert!(!census::dev_shm().iter().any(new));
}

#[test]
fn the_survivor_s_other_connections_go_on() {
    let (mut here, mut dying) = pair("open rc");
    let (mut other, mut living) = pair("open rc");
    here.ok("recv 1 0 64");
    other.ok("recv 1 0 64");
    dying.ok("fill 1 0 64");
    dying.kill();
    assert_eq!(here.run("wait"), "1 WrFlushErr Recv 0 0");
    living.ok("fill 7 0 64");
    living.ok("post send 5 0 64");
    assert_eq!(other.run("wait"), "1 Success Recv 64 0");
    other.ok("check 7 0 64");
}
