//! Adopted memory between two processes: every operation reaches it, and peers store into it themselves.

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

use foreign::Kind;
use nix::libc;
use operations::{atomics, everything};
use process::{Child, skip};
use puppet::Obey;
use std::os::unix::process::ExitStatusExt;

#[test]
fn child() {
    if process::role().is_some() {
        process::go_on_alone();
        puppet::play();
    }
}

/// Two connected processes, the memory of each as said (`None`: the library's own). `None` where the machine has no such memory.
fn pair(env: &[(&str, &str)], memories: [Option<&str>; 2]) -> Option<[Child; 2]> {
    let mut ends = [Child::start_with("puppet", env), Child::start_with("puppet", env)];
    let mut cards = Vec::new();
    for (end, memory) in ends.iter_mut().zip(memories) {
        let mut card = end.run("open rc");
        if let Some(memory) = memory {
            card = end.run(&format!("memory {memory}"));
        }
        if let Some(reason) = card.strip_prefix("skip ") {
            skip(format!("{memory:?}: {reason}"));
            return None;
        }
        assert!(!card.starts_with("error"), "{memory:?}: {card}");
        cards.push(card);
    }
    let [a, b] = &mut ends;
    a.ok(&format!("connect {}", cards[1]));
    b.ok(&format!("connect {}", cards[0]));
    Some(ends)
}

/// What becomes of memory of this kind when adoption is wished for.
fn path_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Pages => "Mapped",
        kind if kind.is_adoptable() => "Partly",
        _ => "ProcessVm",
    }
}

#[test]
fn every_operation_reaches_adopted_memory() {
    for kind in Kind::WRITABLE.into_iter().chain([Kind::Odd, Kind::Pages]) {
        let adopted = format!("{kind:?} adopt");
        for memories in [[None, Some(&*adopted)], [Some(&*adopted), None], [Some(&*adopted), Some(&*adopted)]]
        {
            let Some([mut a, mut b]) = pair(&[], memories) else { break };
            for (end, memory) in [&mut a, &mut b].into_iter().zip(memories) {
                // A thread has the stack, so there nothing is adopted either.
                let expected = if memory.is_some() { path_of(kind) } else { "Mapped" };
                assert_eq!(end.run("path"), expected, "{kind:?}");
            }
            everything(&mut a, &mut b);
            if kind != Kind::Odd {
                atomics(&mut a, &mut b);
            }
            for (end, memory) in [&mut a, &mut b].into_iter().zip(memories) {
                if memory.is_some() {
                    end.ok("canaries");
                    // The region goes, the memory stays, with what was written.
                    end.ok("fill 77 1000 50000");
                    end.ok("return 77 1000 50000");
                    end.ok("canaries");
                }
            }
        }
    }
}

#[test]
fn adoption_can_be_forbidden() {
    for (way, path) in [("process_vm", "ProcessVm"), ("agent", "Agent")] {
        let memories = [Some("Pages adopt"), Some("Heap adopt")];
        let Some([mut a, mut b]) = pair(&[("TBRDMA_SHM_FOREIGN", way)], memories) else { return };
        assert_eq!([a.run("path"), b.run("path")], [path, path]);
        everything(&mut a, &mut b);
    }
}

/// Operations of a process that would die of a system call.
fn confined(memory: &str) -> Option<Result<(), std::process::ExitStatus>> {
    let [mut a, mut b] = pair(&[], [Some(memory), Some(memory)])?;
    // Both have met, and know each other's regions.
    for op in ["write", "read", "faa"] {
        a.ok(&format!("times 10 post {op} 1 4096 8 8192 1"));
    }
    let confined = a.run("confine");
    if confined != "ok" {
        skip(confined);
        return None;
    }
    for line in [
        "times 1000 post write 1 4096 64 8192",
        "times 1000 post write-inline 1 4096 64 8192",
        "times 100 post write 1 4096 200000 8192",
        "times 1000 post read 1 4096 64 8192",
        "times 1000 post faa 1 4096 8 8192 1",
    ] {
        a.say(line);
        if a.try_hear().as_deref() != Some("ok") {
            return Some(Err(a.reap()));
        }
    }
    b.ok("canaries");
    Some(Ok(()))
}

#[test]
fn operations_on_adopted_memory_make_no_system_call() {
    for memory in ["Pages adopt", "Heap adopt"] {
        let Some(done) = confined(memory) else { return };
        assert_eq!(done, Ok(()), "{memory}");
    }
}

#[test]
fn a_system_call_would_be_noticed() {
    let Some(done) = confined("Pages") else { return };
    assert_eq!(done.map_err(|status| status.signal()), Err(Some(libc::SIGSYS)));
}

#[test]
fn memory_without_a_whole_page_stays_where_it_is() {
    let Some([mut a, _]) = pair(&[], [Some("Small adopt"), None]) else { return };
    assert_eq!(a.run("path"), "ProcessVm");
    a.ok("canaries");
}

#[test]
fn memory_unmapped_while_adopted_can_still_be_written_and_is_forgotten_in_the_end() {
    let Some([mut a, mut b]) = pair(&[], [None, Some("Anonymous adopt")]) else { return };
    b.ok("unmap");
    // As with an adapter, which keeps the pages that it was given.
    a.ok("post write 1 4096 64 8192");
    assert_eq!(a.run("wait"), "1 Success RdmaWrite 64 0");
    // Something else comes to where it was, and stays what it is when the region goes.
    assert!(!b.run("memory Anonymous adopt").starts_with("error"));
    b.ok("canaries");
    a.ok("post write 2 4096 64 8192");
    assert_eq!(a.run("wait"), "2 RemAccessErr RdmaWrite 0 0");
    b.ok("canaries");
}

#[test]
fn a_peer_that_is_killed_leaves_adopted_memory_whole() {
    for _ in 0..20 {
        let Some([mut a, mut b]) = pair(&[], [None, Some("Pages adopt")]) else { return };
        a.say("times 1000000 post write 1 0 100000 200000");
        std::thread::yield_now();
        a.bury();
        b.ok("fill 9 0 1048576");
        b.ok("return 9 0 1048576");
        b.ok("canaries");
        assert!(!b.run("memory Heap adopt").starts_with("error"));
        assert_eq!(b.run("path"), "Partly");
    }
}
