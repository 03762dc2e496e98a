//! Application memory registered in place, between two processes: every operation, every kind of memory, by each of the ways to reach it.

#[path = "common/foreign.rs"]
mod foreign;
#[path = "common/operations.rs"]
mod operations;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/process.rs"]
mod process;
#[path = "common/puppet.rs"]
mod puppet;
#[path = "common/seccomp.rs"]
mod seccomp;

use foreign::{FOREIGN, Kind};
use operations::{atomics, everything};
use process::{Child, skip};
use puppet::Obey;

#[test]
fn child() {
    match process::role().as_deref() {
        Some("forbidden") => match seccomp::forbid_foreign_memory() {
            Ok(()) => puppet::play(),
            Err(error) => process::say(format!("skip {error}")),
        },
        Some(_) => puppet::play(),
        None => {}
    }
}

/// How each of the two processes reaches the other's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The kernel allows it.
    Direct,
    /// They were told not to.
    Told,
    /// The kernel forbids it to both.
    Forbidden,
}

impl Way {
    const ALL: [Self; 3] = [Self::Direct, Self::Told, Self::Forbidden];

    fn path(self) -> &'static str {
        if self == Self::Direct { "ProcessVm" } else { "Agent" }
    }

    fn start(self) -> Child {
        match self {
            Self::Direct => Child::start("puppet"),
            Self::Told => Child::start_with("puppet", &[("TBRDMA_SHM_FOREIGN", "agent")]),
            Self::Forbidden => Child::start("forbidden"),
        }
    }
}

/// Two processes whose memory is of these kinds (`None`: the library's own), connected. `None` where the machine has no such memory.
fn pair(way: Way, kinds: [Option<Kind>; 2]) -> Option<[Child; 2]> {
    let mut ends = [way.start(), way.start()];
    let mut cards = Vec::new();
    for (end, kind) in ends.iter_mut().zip(kinds) {
        let mut card = end.run("open rc");
        if let Some(kind) = kind {
            card = end.run(&format!("memory {kind:?}"));
        }
        if let Some(reason) = card.strip_prefix("skip ") {
            skip(format!("{way:?} {kind:?}: {reason}"));
            return None;
        }
        assert!(!card.starts_with("error"), "{kind:?}: {card}");
        cards.push(card);
    }
    let [a, b] = &mut ends;
    a.ok(&format!("connect {}", cards[1]));
    b.ok(&format!("connect {}", cards[0]));
    for (end, kind) in ends.iter_mut().zip(kinds) {
        let path = if kind.is_some() { way.path() } else { "Mapped" };
        assert_eq!(end.run("path"), path, "{way:?} {kind:?}");
    }
    Some(ends)
}

fn every_kind(way: Way) {
    for kind in Kind::WRITABLE.into_iter().chain([Kind::Odd]) {
        // As target, then as source too.
        for kinds in [[None, Some(kind)], [Some(kind), None], [Some(kind), Some(kind)]] {
            let Some([mut a, mut b]) = pair(way, kinds) else { break };
            everything(&mut a, &mut b);
            if kind != Kind::Odd {
                atomics(&mut a, &mut b);
            }
            for (end, kind) in [&mut a, &mut b].into_iter().zip(kinds) {
                if kind.is_some() {
                    end.ok("canaries");
                }
            }
        }
    }
}

#[test]
fn every_operation_reaches_memory_directly() {
    every_kind(Way::Direct);
}

#[test]
fn every_operation_reaches_memory_through_the_agent() {
    every_kind(Way::Told);
}

#[test]
fn every_operation_reaches_memory_where_the_kernel_forbids_the_direct_way() {
    every_kind(Way::Forbidden);
}

#[test]
fn each_process_decides_for_itself() {
    // Only the first may not look into the other: so only the other's memory is reached by agent.
    let (mut a, mut b) = (Child::start("forbidden"), Child::start("puppet"));
    let (_, _) = (a.run("open rc"), b.run("open rc"));
    let (a_card, b_card) = (a.run("memory Heap"), b.run("memory Heap"));
    if a_card.starts_with("skip") {
        return skip(a_card);
    }
    a.ok(&format!("connect {b_card}"));
    b.ok(&format!("connect {a_card}"));
    assert_eq!([a.run("path"), b.run("path")], ["ProcessVm", "Agent"]);
    everything(&mut a, &mut b);
    everything(&mut b, &mut a);
}

#[test]
fn read_only_memory_can_be_read_from_afar_and_not_written() {
    for way in Way::ALL {
        let Some([mut a, mut b]) = pair(way, [None, Some(Kind::ReadOnly)]) else { continue };
        a.ok("fill 1 0 300000");
        a.ok(&format!("post read 1 0 300000 {}", FOREIGN - 300_000));
        assert_eq!(a.run("wait"), "1 Success RdmaRead 300000 0");
        a.ok(&format!("all {} 0 300000", 0xca));
        a.ok("post write 2 0 8 0");
        assert_eq!(a.run("wait"), "2 RemAccessErr RdmaWrite 0 0");
        b.ok(&format!("all {} 0 64", 0xca));
    }
}

#[test]
fn memory_unmapped_while_registered_is_an_error_for_the_peer_and_harms_nobody() {
    for way in Way::ALL {
        for (op, opcode) in
            [("write", "RdmaWrite"), ("write-inline", "RdmaWrite"), ("read", "RdmaRead"), ("faa", "FetchAdd")]
        {
            let Some([mut a, mut b]) = pair(way, [None, Some(Kind::Anonymous)]) else { continue };
            b.ok("unmap");
            a.ok(&format!("post {op} 1 0 8 128 1"));
            assert_eq!(a.run("wait"), format!("1 RemAccessErr {opcode} 0 0"), "{way:?} {op}");
            assert_eq!(b.run("event 20000"), "QpAccessErr");
        }
        let Some([mut a, mut b]) = pair(way, [None, Some(Kind::Anonymous)]) else { continue };
        b.ok("recv 2 0 4096");
        b.ok("unmap");
        a.ok("post send 1 0 100");
        assert_eq!(a.run("wait"), "1 RemOpErr Send 0 0");
        assert_eq!(b.run("wait"), "2 LocProtErr Recv 0 0");
    }
}

#[test]
fn a_process_that_is_locked_down_later_is_reached_by_agent_from_then_on() {
    // What was allowed when the two met is forbidden afterwards.
    let (mut a, mut b) = (Child::start("puppet"), Child::start("puppet"));
    let (_, _) = (a.run("open rc"), b.run("open rc"));
    let (a_card, b_card) = (a.run("memory Heap"), b.run("memory Heap"));
    a.ok(&format!("connect {b_card}"));
    b.ok(&format!("connect {a_card}"));
    everything(&mut a, &mut b);
    let said = a.run("lock");
    if said != "ok" {
        return skip(said);
    }
    everything(&mut a, &mut b);
    atomics(&mut a, &mut b);
}

#[test]
fn deregistered_memory_is_out_of_reach_at_once() {
    for way in Way::ALL {
        let Some([mut a, mut b]) = pair(way, [None, Some(Kind::Heap)]) else { continue };
        a.ok("post write 1 0 64 0");
        assert_eq!(a.run("wait"), "1 Success RdmaWrite 64 0");
        // Another registration takes its place: the old keys are dead.
        assert!(!b.run("memory Heap").starts_with("error"));
        a.ok("fill 3 0 64");
        a.ok("post write 2 0 64 0");
        assert_eq!(a.run("wait"), "2 RemAccessErr RdmaWrite 0 0");
        b.ok(&format!("all {} 0 64", 0xca));
    }
}

#[test]
fn a_whole_pipeline_of_operations_waits_for_the_agent_in_order() {
    let Some([mut a, mut b]) = pair(Way::Told, [None, Some(Kind::Heap)]) else { return };
    for n in 0..32 {
        a.ok(&format!("fill {n} {} 20000", n * 20_000));
        b.ok(&format!("recv {n} {} 20000", n * 20_000));
    }
    // Posted faster than the agent copies.
    for n in 0..32 {
        a.ok(&format!("post send {n} {} 20000", n * 20_000));
    }
    a.ok("post read 50 1000000 5000 60000");
    for n in 0..32 {
        assert_eq!(a.run("wait"), format!("{n} Success Send 20000 0"));
        assert_eq!(b.run("wait"), format!("{n} Success Recv 20000 0"));
        b.ok(&format!("check {n} {} 20000", n * 20_000));
    }
    assert_eq!(a.run("wait"), "50 Success RdmaRead 5000 0");
    a.ok("check 3 1000000 5000");
}

#[test]
fn both_sides_may_use_each_other_s_agents_at_once() {
    let Some([mut a, mut b]) = pair(Way::Told, [Some(Kind::Heap), Some(Kind::Heap)]) else { return };
    a.say("times 300 post write 1 0 100000 200000");
    b.say("times 300 post read 1 0 100000 200000");
    assert_eq!((a.hear(), b.hear()), ("ok".to_owned(), "ok".to_owned()));
}
