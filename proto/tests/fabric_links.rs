//! The simulated network: what arrives, what is thrown away and why, and that a seed decides it all.

use std::time::Duration;

use tbrdma_proto::fault::{Fate, FaultPlan};
use tbrdma_proto::testing::{Discard, Happening, Pair, PairSpec};
use tbrdma_proto::{Opcode, QpState, Time, WcStatus};

fn pair(plan: &str, seed: u64) -> Pair {
    let plan: FaultPlan = plan.parse().unwrap();
    let mut pair = Pair::new(&PairSpec { plan, seed, ..PairSpec::default() }).unwrap();
    pair.fabric.observe();
    pair
}

/// Posts a WRITE of so many bytes at node 0.
fn write(pair: &mut Pair, wr_id: u64, len: u32) {
    pair.bytes(0, 0, len as usize).unwrap().fill(wr_id as u8);
    let wr = pair.request(0, wr_id, Opcode::RdmaWrite, 4096);
    let sge = pair.sge(0, 0, len);
    pair.post_send(0, &wr, &[sge]).unwrap();
}

fn seen(pair: &mut Pair) -> Vec<Happening> {
    let mut seen = Vec::new();
    pair.fabric.take_seen(&mut seen);
    seen.into_iter().map(|(_, _, happening)| happening).collect()
}

#[test]
fn a_write_arrives_whole_and_the_trace_tells_it() {
    let mut pair = pair("delay=10us", 1);
    write(&mut pair, 5, 3000);
    pair.run(Time::NEVER).unwrap();
    assert_eq!(pair.poll(0).map(|wc| (wc.wr_id, wc.status)), Some((5, WcStatus::Success)));
    assert!(pair.bytes(1, 4096, 3000).unwrap().iter().all(|&byte| byte == 5));
    assert_eq!(pair.fabric.now(), Time(20_000), "one round trip");
    let text = pair.fabric.trace().to_string();
    for word in ["post wr 5 RdmaWrite 3000 bytes", "RDMA_WRITE_FIRST", "[952]", "place 1024", "ack"] {
        assert!(text.contains(word), "{word} is missing from\n{text}");
    }
}

#[test]
fn a_damaged_packet_is_thrown_away() {
    let mut pair = pair("corrupt=100%", 1);
    write(&mut pair, 1, 10);
    pair.fabric.run_until(Time(1_000_000)).unwrap();
    let seen = seen(&mut pair);
    let bad = |happening: &Happening| matches!(happening, Happening::Discarded { why: Discard::BadIcrc, .. });
    assert!(seen.iter().any(bad));
    assert!(!seen.iter().any(|happening| matches!(happening, Happening::Arrived { .. })));
}

#[test]
fn a_packet_for_what_is_gone_is_thrown_away() {
    let mut pair = pair("delay=10us", 1);
    write(&mut pair, 1, 10);
    let qpn = pair.qpn[1];
    pair.fabric.destroy_qp(1, qpn);
    pair.fabric.run_until(Time(15_000)).unwrap();
    let gone =
        |happening: &Happening| matches!(happening, Happening::Discarded { why: Discard::NoQueuePair, .. });
    assert!(seen(&mut pair).iter().any(gone));
}

#[test]
fn a_cut_link_delivers_nothing_and_a_whole_one_goes_on() {
    let mut pair = pair("none", 1);
    pair.fabric.set_plan(0, 1, &"loss=100%".parse().unwrap());
    write(&mut pair, 1, 10);
    pair.fabric.run_until(Time(1_000_000)).unwrap();
    assert_eq!(pair.poll(0), None);
    let lost = |happening: &Happening| matches!(happening, Happening::Sent { fate: Fate::Dropped(_), .. });
    assert!(seen(&mut pair).iter().any(lost));
    pair.fabric.set_plans(&FaultPlan::default());
    pair.run(Time::NEVER).unwrap();
    assert_eq!(pair.poll(0).map(|wc| wc.status), Some(WcStatus::Success));
}

#[test]
fn a_restarted_node_has_lost_everything_and_its_peer_finds_out() {
    let mut pair = pair("delay=1us", 1);
    pair.fabric.restart(1);
    assert_eq!(pair.fabric.state(1, pair.qpn[1]), QpState::Reset);
    write(&mut pair, 9, 10);
    pair.run(Time::NEVER).unwrap();
    assert_eq!(pair.poll(0).map(|wc| wc.status), Some(WcStatus::RetryExcErr));
    assert_eq!(pair.fabric.state(0, pair.qpn[0]), QpState::Err);
    assert!(pair.bytes(1, 0, 1).is_err(), "its region is gone");
}

#[test]
fn an_acknowledgement_that_may_wait_waits_and_no_longer() {
    let mut pair = pair("none", 1);
    pair.fabric.ack_delay = Duration::from_micros(7);
    write(&mut pair, 1, 10);
    pair.run(Time::NEVER).unwrap();
    assert_eq!(pair.poll(0).map(|wc| wc.status), Some(WcStatus::Success));
    assert_eq!(pair.fabric.now(), Time(7_000));
}

#[test]
fn marks_of_congestion_are_answered_with_notices() {
    use tbrdma_proto::fault::Chance;
    let mut pair = pair("delay=5us", 1);
    pair.fabric.marks = Chance::ALWAYS;
    write(&mut pair, 1, 10);
    pair.run(Time::NEVER).unwrap();
    assert_eq!(pair.poll(0).map(|wc| wc.status), Some(WcStatus::Success));
    assert!(pair.fabric.trace().to_string().contains("CNP"), "{}", pair.fabric.trace());
}

#[test]
fn the_same_seed_and_calls_make_the_same_run() {
    let run = |seed| {
        let mut pair = pair("loss=10%,dup=5%,reorder=5%:50us,corrupt=5%,delay=10us~5us", seed);
        for wr_id in 0..50 {
            write(&mut pair, wr_id, 2000);
        }
        pair.run(Time::NEVER).unwrap();
        (pair.fabric.trace().hash(), pair.fabric.totals(), pair.fabric.now())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}
