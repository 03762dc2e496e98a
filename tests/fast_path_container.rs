//! Two processes as a container has them: little locked memory, no way into each other's memory, no fancy system calls, no files.

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

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use process::{Child, skip};
use puppet::{Obey, meet};

/// What default filters of container engines refuse, and some more.
const REFUSED: [libc::c_long; 14] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
    libc::SYS_mlock,
    libc::SYS_mlockall,
    libc::SYS_mbind,
    libc::SYS_unshare,
];

#[test]
fn child() {
    let Some(role) = process::role() else { return };
    setrlimit(Resource::RLIMIT_MEMLOCK, 8 << 20, 8 << 20).unwrap();
    if role == "contained"
        && let Err(error) = seccomp::deny(&REFUSED)
    {
        return process::say(format!("skip {error}"));
    }
    puppet::play();
}

fn contained(open: &str) -> Option<[Child; 2]> {
    let mut ends = [Child::start("contained"), Child::start("contained")];
    let [a, b] = &mut ends;
    let first = a.run("pid");
    if first.starts_with("skip") {
        skip(first);
        return None;
    }
    meet(a, b, open);
    Some(ends)
}

#[test]
fn a_ping_pong_of_every_kind_works() {
    for open in ["open rc", "open uc", "open ud", "open rc events"] {
        let Some([mut a, mut b]) = contained(open) else { return };
        let header = if open == "open ud" { 40 } else { 0 };
        let wait = if open.ends_with("events") { "sleep" } else { "wait" };
        let space = 4000 + header;
        for round in 0..50 {
            for forth in [true, false] {
                let (from, to) = if forth { (&mut a, &mut b) } else { (&mut b, &mut a) };
                to.ok(&format!("recv {round} 8192 {space}"));
                from.ok(&format!("fill {round} 0 4000"));
                from.ok(&format!("post send {round} 0 4000"));
                assert_eq!(to.run(wait), format!("{round} Success Recv {space} 0"));
                assert_eq!(from.run(wait), format!("{round} Success Send 4000 0"));
                to.ok(&format!("check {round} {} 4000", 8192 + header));
            }
        }
        // All of its memory is nameless.
        for end in [&mut a, &mut b] {
            let pid = end.run("pid");
            let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
            assert!(maps.contains("/memfd:tbrdma") && !maps.contains("/dev/shm"), "{maps}");
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
            assert!(!links.any(|link| link.starts_with("/dev/shm")));
        }
    }
}

#[test]
fn memory_of_the_program_s_own_is_reached_all_the_same() {
    let mut ends = [Child::start("contained"), Child::start("contained")];
    let mut cards = Vec::new();
    for end in &mut ends {
        let said = end.run("open rc");
        if said.starts_with("skip") {
            return skip(said);
        }
        cards.push(end.run("memory Heap"));
    }
    let [a, b] = &mut ends;
    a.ok(&format!("connect {}", cards[1]));
    b.ok(&format!("connect {}", cards[0]));
    assert_eq!([a.run("path"), b.run("path")], ["Agent", "Agent"]);
    a.ok("fill 1 0 1000000");
    a.ok("post write 1 0 1000000 0");
    assert_eq!(a.run("wait"), "1 Success RdmaWrite 1000000 0");
    b.ok("check 1 0 1000000");
}

#[test]
fn a_death_is_noticed_without_process_descriptors() {
    let Some([mut a, b]) = contained("open rc") else { return };
    a.ok("recv 1 0 64");
    b.bury();
    assert_eq!(a.run("wait"), "1 WrFlushErr Recv 0 0");
    assert_eq!(a.run("event 20000"), "QpFatal");
}
