//! Posting and polling make no system call: a process that would die of one does a hundred thousand operations.

#[path = "common/duo.rs"]
mod duo;
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

use duo::Duo;
use nix::libc;
use process::{Child, skip};
use std::os::unix::process::ExitStatusExt;

const OPERATIONS: usize = 100_000;

#[test]
fn child() {
    let Some(role) = process::role() else { return };
    let mut duo = Duo::new(if role == "two" { 2 } else { 1 });
    for round in 0..200 {
        duo.round(round);
    }
    if let Err(error) = seccomp::allow_only(&[libc::SYS_write, libc::SYS_exit_group]) {
        return process::say(format!("skip {error}"));
    }
    let mut done = 0;
    let mut round = 1000;
    while done < OPERATIONS {
        done += duo.round(round);
        round += 1;
    }
    process::say(done);
    if role == "sinner" {
        std::thread::yield_now();
    }
    // SAFETY: ends the process at once; nothing of it is used afterwards.
    unsafe { libc::_exit(0) }
}

fn run(role: &str) -> Option<std::process::ExitStatus> {
    let child = Child::start(role);
    let said = child.hear();
    if said.starts_with("skip") {
        skip(said);
        return None;
    }
    assert!(said.parse::<usize>().unwrap() >= OPERATIONS);
    Some(child.reap())
}

#[test]
fn a_hundred_thousand_operations_make_no_system_call() {
    for role in ["one", "two"] {
        let Some(status) = run(role) else { return };
        assert!(status.success(), "{role}: {status}");
    }
}

#[test]
fn a_single_system_call_would_be_noticed() {
    let Some(status) = run("sinner") else { return };
    assert_eq!(status.signal(), Some(libc::SIGSYS));
}
