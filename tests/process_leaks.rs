//! After any number of connections made and ended, the survivor holds what it held before: descriptors, mappings, threads,
//! memory. One test: it counts what belongs to the whole process.

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

use process::Child;
use puppet::{End, Obey, Puppet, card, meet, patient};
use tbrdma::{QpInit, QpType};

#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

/// Descriptors, mappings, threads.
fn holdings() -> (Vec<String>, usize, usize) {
    (census::descriptors(), census::segments(), census::threads())
}

/// Waits until the process holds what it did then; a thread of the test harness may have ended since.
fn back_to(before: &(Vec<String>, usize, usize)) {
    let is_back =
        |now: &(Vec<String>, usize, usize)| (&now.0, now.1) == (&before.0, before.1) && now.2 <= before.2;
    let begun = std::time::Instant::now();
    loop {
        let now = holdings();
        if is_back(&now) {
            return;
        }
        assert!(begun.elapsed() < process::PATIENCE, "{now:?} instead of {before:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn many_rounds_leave_nothing() {
    let before = holdings();
    for rounds in [one_child_many_contexts, many_children_one_context, a_context_opened_and_closed] {
        rounds();
        back_to(&before);
    }
}

/// A peer process that lives on, opening and closing contexts, while ours stays open.
fn one_child_many_contexts() {
    let here = End::new(QpType::Rc, false);
    let mut there = Child::start("puppet");
    let before = holdings();
    let mut memory = 0;
    for round in 0..60 {
        let mut qp = here.pd.create_qp(QpInit::rc(&here.cq)).unwrap();
        let theirs = there.run("open rc events");
        // Either side may be the one that says hello first.
        let ours = format!("connect {}", card(&qp.address(), &here.mr.remote()));
        if round % 2 == 0 {
            there.ok(&ours);
        }
        qp.connect_with(&theirs.split(' ').next().unwrap().parse().unwrap(), &patient()).unwrap();
        if round % 2 == 1 {
            there.ok(&ours);
        }
        there.ok("post write 1 0 64 0");
        assert_eq!(there.run("wait"), "1 Success RdmaWrite 64 0");
        drop(qp);
        there.ok("close");
        if round == 1 {
            back_to(&before);
            memory = census::status_kib("VmRSS");
        }
    }
    back_to(&before);
    let grown = census::status_kib("VmRSS").saturating_sub(memory);
    assert!(grown < 4096, "memory grew by {grown} KiB in 58 rounds");
}

/// Peers that die, each in its own process.
fn many_children_one_context() {
    let here = End::new(QpType::Rc, false);
    let before = holdings();
    for round in 0..20 {
        let mut there = Child::start("puppet");
        let mut qp = here.pd.create_qp(QpInit::rc(&here.cq)).unwrap();
        let theirs = there.run("open rc");
        let ours = format!("connect {}", card(&qp.address(), &here.mr.remote()));
        if round % 2 == 0 {
            there.ok(&ours);
        }
        qp.connect_with(&theirs.split(' ').next().unwrap().parse().unwrap(), &patient()).unwrap();
        if round % 2 == 1 {
            there.ok(&ours);
        }
        if round % 4 < 2 {
            there.bury();
        } else {
            there.say("exit");
            assert!(there.reap().success());
        }
    }
    back_to(&before);
}

/// Contexts of ours, to a child that stays.
fn a_context_opened_and_closed() {
    let mut there = Child::start("puppet");
    let mut here = Puppet::default();
    let before = holdings();
    for _ in 0..30 {
        meet(&mut here, &mut there, "open rc events");
        here.ok("post send 1 0 64");
        here.ok("close");
        there.ok("close");
    }
    back_to(&before);
}
