//! Messages of an unreliable connection that wait for their receive: none is sent before there is one, and none waits for ever for one that
//! is there, whatever the network loses.

use tbrdma_proto::testing::{Pair, PairSpec};
use tbrdma_proto::{Habits, Opcode, QpState, QpType, Time, WcOpcode, WcStatus};

const BYTES: u32 = 3000;

fn pair(plan: &str, seed: u64, holds: [bool; 2]) -> Pair {
    let habits = holds.map(|holds| if holds { Habits::HOLDS_UC } else { Habits::empty() });
    let spec =
        PairSpec { qp_type: QpType::Uc, plan: plan.parse().unwrap(), seed, habits, ..PairSpec::default() };
    Pair::new(&spec).unwrap()
}

fn soon(pair: &Pair) -> Time {
    Time(pair.fabric.now().0 + 1_000_000_000)
}

fn send(pair: &mut Pair, id: u64) {
    let wr = pair.request(0, id, Opcode::Send, 0);
    pair.bytes(0, 8 * (id % 64), 8).unwrap().copy_from_slice(&id.to_ne_bytes());
    let sge = pair.sge(0, 8 * (id % 64), BYTES);
    pair.post_send(0, &wr, &[sge]).unwrap();
}

fn receive(pair: &mut Pair, id: u64) {
    let sge = pair.sge(1, 4096 * (id % 64), 4096);
    pair.post_recv(1, id, &[sge]).unwrap();
}

#[test]
fn a_message_waits_for_its_receive_and_then_goes_at_once() {
    let mut pair = pair("delay=5us", 1, [true, true]);
    send(&mut pair, 1);
    pair.run(soon(&pair)).unwrap();
    assert_eq!((pair.poll(0), pair.poll(1)), (None, None));
    receive(&mut pair, 2);
    let before = pair.fabric.now();
    let until = Time(before.0 + 1_000_000);
    pair.run(until).unwrap();
    // Told unasked: one way for the news, one for the message.
    assert_eq!(pair.poll(0).map(|wc| (wc.wr_id, wc.status)), Some((1, WcStatus::Success)));
    assert_eq!(pair.poll(1).map(|wc| (wc.wr_id, wc.byte_len)), Some((2, BYTES)));
}

#[test]
fn receives_posted_before_anybody_asked_count() {
    let mut pair = pair("delay=5us", 1, [true, true]);
    for id in 0..8 {
        receive(&mut pair, id);
    }
    for id in 0..12 {
        send(&mut pair, id);
    }
    pair.run(soon(&pair)).unwrap();
    let sent = std::iter::from_fn(|| pair.poll(0)).count();
    assert_eq!(sent, 8);
    assert_eq!(std::iter::from_fn(|| pair.poll(1)).count(), 8);
}

/// Sends `count` messages while receives are posted now and then: the numbers of those that arrived.
fn stream(pair: &mut Pair, count: u64, seed: u64) -> Vec<u64> {
    let mut dice = tbrdma_proto::fault::Random::new(seed);
    let (mut posted, mut room, mut taken, mut done, mut idle) = (0, 0_u64, 0, 0, 0);
    let mut arrived = Vec::new();
    while done < count {
        if posted < count && posted < done + 64 && dice.below(2) == 0 {
            send(pair, posted);
            posted += 1;
        }
        if room < taken + 16 && dice.below(2) == 0 {
            receive(pair, room);
            room += 1;
        }
        pair.fabric.run_until(Time(pair.fabric.now().0 + 3_000)).unwrap();
        while let Some(wc) = pair.poll(0) {
            assert_eq!((wc.wr_id, wc.status), (done, WcStatus::Success));
            done += 1;
            idle = 0;
        }
        while let Some(wc) = pair.poll(1) {
            assert_eq!((wc.wr_id, wc.status, wc.opcode), (taken, WcStatus::Success, WcOpcode::Recv));
            let bytes = pair.bytes(1, 4096 * (taken % 64), 8).unwrap();
            arrived.push(u64::from_ne_bytes(bytes.try_into().unwrap()));
            taken += 1;
            idle = 0;
        }
        idle += 1;
        assert!(
            idle < 100_000,
            "{done} of {count} sent, {taken} of {room} receives taken, and nothing happens"
        );
    }
    pair.run(soon(pair)).unwrap();
    while pair.poll(1).is_some() {
        let bytes = pair.bytes(1, 4096 * (taken % 64), 8).unwrap();
        arrived.push(u64::from_ne_bytes(bytes.try_into().unwrap()));
        taken += 1;
    }
    arrived
}

#[test]
fn where_the_network_loses_nothing_everything_arrives() {
    for seed in 0..20 {
        let mut pair = pair("delay=4us~3us", seed, [true, true]);
        assert_eq!(stream(&mut pair, 400, seed), (0..400).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn what_the_network_does_delays_and_loses_messages_and_stops_nothing() {
    for (seed, plan) in (0..).zip([
        "loss=10%,delay=4us",
        "loss=40%,delay=4us",
        "dup=20%:30us,delay=4us",
        "reorder=20%:50us,delay=4us",
        "loss=5%,dup=5%:100us,reorder=5%:200us,corrupt=2%,delay=10us~5us",
        "burst=2%:8,delay=4us",
    ]) {
        let mut pair = pair(plan, seed, [true, true]);
        let arrived = stream(&mut pair, 300, seed);
        assert!(arrived.windows(2).all(|two| two[0] < two[1]), "{plan}: {arrived:?}");
        assert!(!arrived.is_empty(), "{plan}");
    }
}

#[test]
fn a_device_that_does_not_hold_answers_one_that_does() {
    let mut pair = pair("delay=4us", 3, [true, false]);
    assert_eq!(stream(&mut pair, 100, 3), (0..100).collect::<Vec<_>>());
}

#[test]
fn nobody_is_told_who_has_not_asked() {
    let mut pair = pair("delay=4us", 3, [false, false]);
    for id in 0..8 {
        receive(&mut pair, id);
    }
    pair.run(soon(&pair)).unwrap();
    assert_eq!(pair.fabric.totals().packets, 0);
}

#[test]
fn a_new_connection_begins_anew() {
    let mut pair = pair("delay=4us", 3, [true, true]);
    receive(&mut pair, 1);
    send(&mut pair, 1);
    send(&mut pair, 2);
    pair.run(soon(&pair)).unwrap();
    assert_eq!((pair.poll(0).map(|wc| wc.wr_id), pair.poll(0)), (Some(1), None));
    assert!(pair.poll(1).is_some());
    for node in 0..2 {
        pair.fabric.to_state(node, pair.qpn[node], QpState::Reset).unwrap();
    }
    pair.connect().unwrap();
    send(&mut pair, 3);
    pair.run(soon(&pair)).unwrap();
    assert_eq!(pair.poll(0), None);
    receive(&mut pair, 3);
    pair.run(soon(&pair)).unwrap();
    assert_eq!(pair.poll(0).map(|wc| wc.wr_id), Some(3));
    assert_eq!(pair.poll(1).map(|wc| wc.wr_id), Some(3));
}
