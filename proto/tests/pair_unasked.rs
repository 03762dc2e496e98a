//! Acknowledgements that nobody asks for: unsignaled requests cost no second packet, and are acknowledged all the same before anyone worries.

use std::time::Duration;

use tbrdma_proto::testing::{Pair, PairSpec};
use tbrdma_proto::{Opcode, SendFlags};

const AT: u64 = 64 << 10;

fn pair() -> Pair {
    let mut pair = Pair::new(&PairSpec::default()).unwrap();
    for node in 0..2 {
        for id in 0..16 {
            let sge = pair.sge(node, id * 64, 64);
            pair.post_recv(node, id, &[sge]).unwrap();
        }
    }
    pair
}

/// Sends 64 bytes and waits until they have arrived.
fn send(pair: &mut Pair, node: usize, signaled: bool) {
    let mut wr = pair.request(node, 1, Opcode::Send, 0);
    wr.flags.set(SendFlags::SIGNALED, signaled);
    let sge = pair.sge(node, AT, 64);
    pair.post_send(node, &wr, &[sge]).unwrap();
    while !pair.poll(1 - node).is_some_and(|wc| wc.opcode.is_recv()) {
        assert!(pair.fabric.step().unwrap(), "the message never arrives");
    }
}

#[test]
fn a_ping_pong_of_unsignaled_sends_is_one_packet_a_message() {
    let mut pair = pair();
    for round in 0..5 {
        send(&mut pair, 0, false);
        send(&mut pair, 1, false);
        assert_eq!(pair.fabric.totals().packets, 2 * (round + 1));
    }
}

#[test]
fn what_nobody_asked_for_is_acknowledged_in_time_and_nothing_is_sent_again() {
    let mut pair = pair();
    send(&mut pair, 0, false);
    send(&mut pair, 0, false);
    let begun = pair.fabric.now();
    while pair.fabric.next_time().is_some() {
        assert!(pair.fabric.step().unwrap());
    }
    // The two messages and one acknowledgement; then nobody has anything to wait for.
    assert_eq!(pair.fabric.totals().packets, 3);
    assert!(pair.fabric.now().since(begun) < Duration::from_millis(1));
}

#[test]
fn a_signaled_send_is_acknowledged_at_once_with_what_came_before() {
    let mut pair = pair();
    send(&mut pair, 0, false);
    let begun = pair.fabric.now();
    send(&mut pair, 0, true);
    while pair.poll(0).is_none() {
        assert!(pair.fabric.step().unwrap(), "the send never completes");
    }
    assert!(pair.fabric.now().since(begun) < Duration::from_micros(400));
    while pair.fabric.next_time().is_some() {
        assert!(pair.fabric.step().unwrap());
    }
    assert_eq!(pair.fabric.totals().packets, 3);
}
