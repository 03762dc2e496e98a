//! Faults on a live link: reliable connections deliver all the same, what was done to packets is counted, and a link that is cut ends in an error.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use tbrdma::{Connection, Context, OpenOptions, QpType, WcStatus};

mod common;
use common::{Node, connection, join, pattern};

const MESSAGE: usize = 20_000;

fn open(plan: &str) -> Context {
    OpenOptions::new().fault(plan).seed(7).open("udp:lo").unwrap()
}

/// Two nodes, of which both send over a link with these faults.
fn pair(plan: &str, with: &Connection) -> (Node, Node) {
    let node = || Node::of(&open(plan), QpType::Rc, |init| init);
    let (mut a, mut b) = (node(), node());
    join(&mut a, &mut b, with);
    (a, b)
}

fn counter(node: &Node, name: &str) -> u64 {
    node.ctx.counters().into_iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
}

#[test]
fn everything_arrives_over_a_bad_link() {
    let plan = "loss=2%,delay=20us~10us,reorder=2%:100us,dup=2%,corrupt=2%";
    let (mut a, mut b) = pair(plan, &common::patient());
    assert!(a.ctx.describe().contains("seed 7"), "{}", a.ctx.describe());
    for round in 0..50 {
        let bytes = pattern(round, MESSAGE);
        a.mr.write(0, &bytes);
        b.post_recv(round, 0..MESSAGE);
        a.post_send(round, 0..MESSAGE);
        // First the sender: if it gives up, nothing will ever arrive.
        a.expect(round, WcStatus::Success);
        b.expect(round, WcStatus::Success);
        assert!(b.bytes(0..MESSAGE) == bytes, "message {round} is damaged");
    }
    for name in ["fault_dropped", "fault_corrupted", "fault_duplicated", "fault_delayed"] {
        assert!(counter(&a, name) > 0, "{name}");
    }
    assert!(counter(&a, "retransmitted_pkts") > 0);
}

#[test]
fn a_link_that_is_cut_ends_in_an_error() {
    let with = connection(|connection| (connection.timeout, connection.retry_cnt) = (10, 2));
    let (mut a, _b) = pair("partition=0s..", &with);
    a.post_send(1, 0..64);
    a.expect(1, WcStatus::RetryExcErr);
    assert!(counter(&a, "fault_dropped") >= 3);
}

#[test]
fn what_has_left_arrives_though_its_sender_closes() {
    let [mut a, mut b] = ["none", "delay=150ms"].map(|plan| Node::of(&open(plan), QpType::Rc, |init| init));
    // Patient enough for a machine that wakes the other end late.
    join(&mut a, &mut b, &connection(|connection| connection.timeout = 17));
    b.post_recv(1, 0..64);
    a.post_send(1, 0..64);
    b.expect(1, WcStatus::Success);
    // The acknowledgement leaves, and so does its sender.
    b.expect_nothing();
    drop(b);
    a.expect(1, WcStatus::Success);
}

#[test]
fn a_plan_that_makes_no_sense_is_refused() {
    for plan in ["loss=banana", "delay", "wrath=1%"] {
        let error = OpenOptions::new().fault(plan).open("udp:lo").err().unwrap().to_string();
        assert!(error.contains(plan), "{error}");
    }
    let nowhere = OpenOptions::new().capture("/nonexistent/file.pcapng").open("udp:lo");
    assert!(nowhere.err().unwrap().to_string().contains("/nonexistent/file.pcapng"));
}
