//! Connections over links that lose nothing: no packet is sent twice because the peer is slow, and what RC promises holds when the link is cut,
//! comes back, or leads to nobody.

use std::time::Duration;

use tbrdma_proto::fault::FaultPlan;
use tbrdma_proto::testing::{Connection, Pair, PairSpec};
use tbrdma_proto::transport::Counters;
use tbrdma_proto::{Opcode, QpState, Time, WcStatus, ack_timeout};

const SLOT: u64 = 8 << 10;
const MESSAGES: u64 = 40;

/// A pair whose queue pairs believe in their link, with receives posted at node 1.
fn pair(plan: &str, timeout: u8, retry_cnt: u8) -> Pair {
    let connection = Connection { delivers: true, timeout, retry_cnt, ..Connection::default() };
    let spec = PairSpec { plan: plan.parse().unwrap(), connection, ..PairSpec::default() };
    let mut pair = Pair::new(&spec).unwrap();
    for number in 0..MESSAGES {
        let sge = pair.sge(1, number * SLOT, SLOT as u32);
        pair.post_recv(1, number, &[sge]).unwrap();
    }
    pair
}

/// Posts SENDs of five packets each, then a READ of twenty, an atomic, and one SEND more.
fn post(pair: &mut Pair) -> Vec<u64> {
    for number in 0..MESSAGES {
        let opcode = match number {
            37 => Opcode::RdmaRead,
            38 => Opcode::AtomicFetchAndAdd,
            _ => Opcode::Send,
        };
        let length = match opcode {
            Opcode::RdmaRead => 20 << 10,
            Opcode::AtomicFetchAndAdd => 8,
            _ => 5 << 10,
        };
        let mut request = pair.request(0, number, opcode, 512 << 10);
        request.compare_add = 1;
        let sge = pair.sge(0, 256 << 10, length);
        pair.post_send(0, &request, &[sge]).unwrap();
    }
    (0..MESSAGES).collect()
}

/// What has completed at a node, all of it with success.
fn completed(pair: &mut Pair, node: usize) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(wc) = pair.poll(node) {
        assert_eq!(wc.status, WcStatus::Success, "{wc:?}");
        all.push(wc.wr_id);
    }
    all
}

fn counters(pair: &Pair, node: usize) -> Counters {
    pair.fabric.node(node).qps[&pair.qpn[node]].qp.counters()
}

/// Runs until all that was posted has completed; every message was received once.
fn finish(pair: &mut Pair, posted: &[u64]) {
    pair.run(Time::NEVER).unwrap();
    assert_eq!(completed(pair, 0), posted);
    // A READ and an atomic take no receive.
    assert_eq!(completed(pair, 1), (0..MESSAGES - 2).collect::<Vec<_>>());
    assert_eq!(pair.fabric.next_time(), None);
}

fn cut(pair: &mut Pair) {
    pair.fabric.set_plans(&"loss=100%".parse().unwrap());
}

#[test]
fn a_slow_link_carries_nothing_twice() {
    // Answers take two seconds, the timeout is above that.
    let mut pair = pair("delay=1s", 19, 7);
    let posted = post(&mut pair);
    finish(&mut pair, &posted);
    for node in 0..2 {
        let Counters { retransmitted_pkts, duplicate_request, ack_timeout_err, .. } = counters(&pair, node);
        assert_eq!((retransmitted_pkts, duplicate_request, ack_timeout_err), (0, 0, 0));
    }
}

#[test]
fn the_window_is_wide_from_the_beginning() {
    let mut pair = pair("delay=1s", 19, 7);
    post(&mut pair);
    // 39 messages of five packets and one request more, up to the READ: two round trips would show.
    assert!(pair.fabric.flying() > 185, "{} packets on their way", pair.fabric.flying());
}

#[test]
fn a_timeout_asks_with_one_packet_and_needs_no_other() {
    for last in [Opcode::Send, Opcode::RdmaRead, Opcode::AtomicFetchAndAdd] {
        // Three timeouts pass before the first answer.
        let mut pair = pair("delay=1s", 17, 7);
        let posted: Vec<_> = (0..3).collect();
        for &number in &posted {
            let opcode = if number == 2 { last } else { Opcode::Send };
            let request = pair.request(0, number, opcode, 512 << 10);
            let sge = pair.sge(0, 256 << 10, if opcode.is_atomic() { 8 } else { 5 << 10 });
            pair.post_send(0, &request, &[sge]).unwrap();
        }
        pair.run(Time::NEVER).unwrap();
        assert_eq!(completed(&mut pair, 0), posted, "{last:?}");
        let counters = counters(&pair, 0);
        assert_eq!((counters.ack_timeout_err, counters.retransmitted_pkts), (3, 3), "{last:?}");
        assert_eq!(counters.completer_retry_err, 0, "nothing was taken for lost");
    }
}

#[test]
fn a_peer_that_is_gone_is_given_up_in_the_time_that_was_asked_for() {
    for (timeout, retry_cnt) in [(8, 0), (8, 1), (12, 3), (14, 7)] {
        let mut pair = pair("none", timeout, retry_cnt);
        cut(&mut pair);
        let begun = pair.fabric.now();
        post(&mut pair);
        pair.run(Time::NEVER).unwrap();
        let first = pair.poll(0).unwrap();
        assert_eq!((first.wr_id, first.status), (0, WcStatus::RetryExcErr));
        let patience = ack_timeout(timeout).unwrap() * (u32::from(retry_cnt) + 1);
        assert_eq!(pair.fabric.now(), begun + patience);
        assert_eq!(pair.fabric.state(0, pair.qpn[0]), QpState::Err);
    }
}

#[test]
fn a_link_that_comes_back_goes_on_at_once() {
    for delay in [Duration::ZERO, Duration::from_micros(20)] {
        let plan = FaultPlan { delay, ..FaultPlan::default() };
        let mut pair = pair(&plan.to_string(), 19, 1);
        let posted = post(&mut pair);
        // In the middle of it, with packets and answers on their way, and again.
        for _ in 0..3 {
            (0..60).for_each(|_| _ = pair.fabric.step().unwrap());
            cut(&mut pair);
            let back = pair.fabric.now() + Duration::from_millis(1);
            pair.fabric.run_until(back).unwrap();
            pair.fabric.set_plans(&plan);
            pair.fabric.paths_are_back();
        }
        let begun = pair.fabric.now();
        finish(&mut pair, &posted);
        assert!(pair.fabric.now().since(begun) < Duration::from_millis(1), "no timeout was waited for");
        assert!(counters(&pair, 0).retransmitted_pkts > 0);
    }
}

#[test]
fn interruptions_do_not_put_off_the_end() {
    let mut pair = pair("none", 12, 2);
    cut(&mut pair);
    let begun = pair.fabric.now();
    post(&mut pair);
    // It is there again and again, and leads to nobody.
    while pair.fabric.state(0, pair.qpn[0]) != QpState::Err {
        let next = pair.fabric.now() + Duration::from_millis(1);
        pair.fabric.run_until(next).unwrap();
        pair.fabric.paths_are_back();
    }
    let bound = ack_timeout(12).unwrap() * 3 + Duration::from_millis(1);
    assert!(pair.fabric.now().since(begun) <= bound);
}

#[test]
fn what_a_peer_dropped_that_was_not_ready_is_found_out_by_the_timeout() {
    let mut pair = pair("delay=1us", 10, 7);
    cut(&mut pair);
    let posted = post(&mut pair);
    pair.fabric.set_plans(&"delay=1us".parse().unwrap());
    let begun = pair.fabric.now();
    finish(&mut pair, &posted);
    assert!(pair.fabric.now().since(begun) < ack_timeout(10).unwrap() * 2);
    assert_eq!(counters(&pair, 0).rcvd_seq_err, 1, "the peer said what it lacked");
}

#[test]
fn the_last_try_trusts_in_nothing() {
    // The peer has said what it lacked, and nobody heard: it will not say so again.
    let mut pair = pair("delay=1us", 10, 2);
    cut(&mut pair);
    let posted = post(&mut pair);
    pair.fabric.set_plan(0, 1, &"delay=1us".parse().unwrap());
    let deaf = pair.fabric.now() + ack_timeout(10).unwrap() * 3 / 2;
    pair.fabric.run_until(deaf).unwrap();
    pair.fabric.set_plan(1, 0, &"delay=1us".parse().unwrap());
    finish(&mut pair, &posted);
}
