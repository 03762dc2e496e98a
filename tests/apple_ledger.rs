//! What a killed program held of a Mac's port stays taken, until the ledger is cleared; what an orderly one held does not.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::path::PathBuf;
use tbrdma::{OpenOptions, QpInit, QueuePair, ledger};

#[path = "common/process.rs"]
mod process;
use process::{Child, hear, role, say};

/// The device, whose name is one for all processes.
const DEVICE: &str = "rdma_en2=shm";

/// A file that goes with the test.
struct Ledger(PathBuf);

impl Ledger {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tbrdma-test-{}-{test}", std::process::id()));
        Self(folder.join("ledger"))
    }

    fn child(&self) -> Child {
        Child::start_with("program", &[("TBRDMA_LEDGER", self.0.to_str().unwrap())])
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// A program that does as it is told.
#[test]
fn child() {
    if role().is_none() {
        return;
    }
    let ctx = OpenOptions::new().profile("apple-tb5,ledger=on").open(DEVICE).unwrap();
    let pd = ctx.alloc_pd();
    let cq = ctx.create_cq(16);
    let mut qps: Vec<QueuePair> = Vec::new();
    loop {
        match hear().split_once(' ').unwrap() {
            ("create", count) => {
                let (pd, cq) = (pd.as_ref().unwrap(), cq.as_ref().unwrap());
                let errno = (0..count.parse().unwrap()).find_map(|_| match pd.create_qp(QpInit::uc(cq)) {
                    Ok(qp) => {
                        qps.push(qp);
                        None
                    }
                    Err(error) => Some(error.errno()),
                });
                say(format!("{} {}", qps.len(), errno.unwrap_or(0)));
            }
            ("drop", _) => {
                qps.clear();
                say("dropped");
            }
            ("held", _) => {
                let held = ledger::held().unwrap();
                say(held
                    .iter()
                    .map(|one| format!("{}:{}:{}", one.pid, one.alive, one.qps))
                    .collect::<Vec<_>>()
                    .join(" "));
            }
            ("clear", _) => say(ledger::clear().unwrap()),
            ("end", _) => break,
            (other, _) => panic!("{other}"),
        }
    }
}

const EBUSY: i32 = nix::libc::EBUSY;

#[test]
fn what_the_living_hold_is_taken_and_comes_back() {
    let ledger = Ledger::new("living");
    let (mut one, mut two) = (ledger.child(), ledger.child());
    assert_eq!(one.ask("create 4"), "4 0");
    assert_eq!(two.ask("create 10"), format!("6 {EBUSY}"));
    assert_eq!(one.ask("create 1"), format!("4 {EBUSY}"));
    assert_eq!(two.ask("drop all"), "dropped");
    assert_eq!(one.ask("create 10"), format!("10 {EBUSY}"));
    // One that ends in order leaves nothing, and clearing takes nothing from the living.
    one.say("end now");
    assert!(one.reap().success());
    assert_eq!(two.ask("create 2"), "2 0");
    assert_eq!(two.ask("clear now"), "0");
    let pid = two.pid();
    assert_eq!(two.ask("held now"), format!("{pid}:true:2"));
}

#[test]
fn what_the_killed_held_stays_taken_until_it_is_cleared() {
    let ledger = Ledger::new("killed");
    let mut victim = ledger.child();
    assert_eq!(victim.ask("create 7"), "7 0");
    let pid = victim.pid();
    victim.bury();
    let mut next = ledger.child();
    assert_eq!(next.ask("create 10"), format!("3 {EBUSY}"));
    assert!(next.ask("held now").contains(&format!("{pid}:false:7")));
    assert_eq!(next.ask("clear now"), "1");
    assert_eq!(next.ask("create 10"), format!("10 {EBUSY}"));
}

#[test]
fn a_ledger_full_of_nonsense_is_read_as_far_as_it_makes_sense() {
    let ledger = Ledger::new("nonsense");
    std::fs::create_dir_all(ledger.0.parent().unwrap()).unwrap();
    let text = "\n1 2 3\nx 1 1 1 1 1 rdma_en2\n4294967295 1 9 0 0 0 rdma_en2\n1 1 99999999999999999999 0 0 0 rdma_en2\n\u{fffd}\0";
    std::fs::write(&ledger.0, text).unwrap();
    let mut program = ledger.child();
    assert_eq!(program.ask("create 2"), format!("1 {EBUSY}"));
    assert_eq!(program.ask("clear now"), "1");
    assert_eq!(program.ask("create 1"), "2 0");
}
