//! Datagrams into application memory of another process, by each of the ways to reach it.

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
use puppet::Obey;

#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

fn datagrams(env: &[(&str, &str)], kind: &str) {
    let (mut a, mut b) = (Child::start_with("puppet", env), Child::start_with("puppet", env));
    let (_, _) = (a.run("open ud"), b.run("open ud"));
    let (a_card, b_card) = (a.run(&format!("memory {kind}")), b.run(&format!("memory {kind}")));
    a.ok(&format!("connect {b_card}"));
    b.ok(&format!("connect {a_card}"));
    for round in 0..3 {
        for (id, size) in [1_usize, 64, 1000, 4096].into_iter().enumerate() {
            b.ok(&format!("recv {id} {} {}", 8 * round, size + 40));
            a.ok(&format!("fill {id} 0 {size}"));
            a.ok(&format!("post send-imm {id} 0 {size} 0 {round}"));
            assert_eq!(a.run("wait"), format!("{id} Success Send {size} 0"));
            assert_eq!(b.run("wait"), format!("{id} Success Recv {} {round}", size + 40));
            b.ok(&format!("check {id} {} {size}", 8 * round + 40));
        }
    }
    // A train of them, in order.
    for id in 0..64 {
        b.ok(&format!("recv {id} {} 4136", 8192 * (id % 16)));
    }
    for id in 0..16 {
        a.ok(&format!("fill {id} 8192 4096"));
        a.ok(&format!("post send {id} 8192 4096"));
        assert_eq!(a.run("wait"), format!("{id} Success Send 4096 0"));
    }
    for id in 0..16 {
        assert_eq!(b.run("wait"), format!("{id} Success Recv 4136 0"));
        b.ok(&format!("check {id} {} 4096", 8192 * id + 40));
    }
    b.ok("canaries");
    a.ok("canaries");
}

#[test]
fn datagrams_arrive_directly() {
    datagrams(&[], "Heap");
    datagrams(&[], "FileShared");
}

#[test]
fn datagrams_arrive_where_only_the_agent_may_copy() {
    datagrams(&[("TBRDMA_SHM_FOREIGN", "agent")], "Heap");
    datagrams(&[("TBRDMA_SHM_FOREIGN", "agent")], "Odd");
}
