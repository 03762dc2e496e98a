//! Two processes: memory windows over memory of every kind that peers reach differently, and given back by a peer's SEND.

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
use puppet::{Obey, Puppet, meet};

#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

/// The far end binds a window of this type, the near one uses it and nothing beside it.
fn use_window(from: &mut dyn Obey, to: &mut dyn Obey, mw_type: u32) {
    let window = to.run(&format!("window {mw_type} 4096 8192"));
    from.ok(&format!("aim {window}"));
    from.ok("fill 3 0 8192");
    to.ok("fill 4 0 20000");
    from.ok("post write 1 0 8192 0");
    assert_eq!(from.run("wait"), "1 Success RdmaWrite 8192 0");
    from.ok("fill 5 10000 64");
    from.ok("post read 2 10000 64 64");
    assert_eq!(from.run("wait"), "2 Success RdmaRead 64 0");
    to.ok("store 4096 5");
    from.ok("post faa 3 16384 8 0 6");
    assert_eq!(from.run("wait"), "3 Success FetchAdd 8 0");
    assert_eq!((from.run("load 16384"), to.run("load 4096")), ("5".to_owned(), "11".to_owned()));
    if mw_type == 2 {
        let rkey = u32::from_str_radix(window.rsplit(' ').next().unwrap(), 16).unwrap();
        to.ok("recv 7 0 64");
        from.ok("post send-inv 8 0 64");
        assert_eq!(from.run("wait"), "8 Success Send 64 0");
        assert_eq!(to.run("wait"), format!("7 Success Recv 64 {rkey}"));
        to.ok("check 3 0 64");
        from.ok("post write 9 0 8 0");
    } else {
        from.ok("post write 9 0 8 8185");
    }
    assert!(from.run("wait").starts_with("9 RemAccessErr"));
    assert_eq!(to.run("event 20000"), "QpAccessErr");
}

fn all(kind: Option<&str>, environment: &[(&str, &str)]) {
    for (mw_type, here_first) in [(1, true), (2, true), (2, false)] {
        let mut here = Puppet::default();
        let mut there = Child::start_with("puppet", environment);
        meet(&mut here, &mut there, "open rc");
        let (from, to): (&mut dyn Obey, &mut dyn Obey) =
            if here_first { (&mut here, &mut there) } else { (&mut there, &mut here) };
        if let Some(kind) = kind {
            to.run(&format!("memory {kind}"));
        }
        use_window(from, to, mw_type);
    }
}

#[test]
fn over_memory_that_peers_map() {
    all(None, &[]);
}

#[test]
fn over_memory_of_the_programs_own() {
    all(Some("Heap"), &[]);
}

#[test]
fn over_memory_that_only_its_owner_reaches() {
    all(Some("Heap"), &[("TBRDMA_SHM_FOREIGN", "agent")]);
}

#[test]
fn over_memory_that_was_adopted() {
    all(Some("Heap adopt"), &[]);
    all(Some("Pages adopt"), &[]);
}
