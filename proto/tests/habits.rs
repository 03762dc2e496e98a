//! What devices do with messages otherwise than network cards: WRITEs and empty SENDs that are lost, frames that must match.

use tbrdma_proto::testing::{Pair, PairSpec};
use tbrdma_proto::{Habits, Opcode, QpType, Time, WcStatus, WorkCompletion};

const END: Time = Time(1_000_000_000);

fn pair(habits: Habits) -> Pair {
    Pair::new(&PairSpec { qp_type: QpType::Uc, habits: [habits; 2], ..PairSpec::default() }).unwrap()
}

/// Sends `len` bytes of node 0 to node 1, and runs until nothing happens: the sender's completion.
fn send(pair: &mut Pair, opcode: Opcode, len: u32) -> WorkCompletion {
    let wr = pair.request(0, 7, opcode, 0);
    pair.post_send(0, &wr, &[pair.sge(0, 0, len)]).unwrap();
    pair.run(END).unwrap();
    pair.poll(0).unwrap()
}

#[test]
fn a_lost_write_completes_and_writes_nothing() {
    let mut pair = pair(Habits::LOSES_WRITES);
    pair.bytes(0, 0, 64).unwrap().fill(5);
    pair.post_recv(1, 1, &[]).unwrap();
    for opcode in [Opcode::RdmaWrite, Opcode::RdmaWriteWithImm] {
        let wc = send(&mut pair, opcode, 64);
        assert_eq!((wc.status, wc.byte_len), (WcStatus::Success, 64));
    }
    assert_eq!(pair.bytes(1, 0, 64).unwrap(), [0; 64]);
    assert_eq!(pair.poll(1), None);
}

#[test]
fn a_lost_empty_send_completes_and_no_receive_does() {
    let mut pair = pair(Habits::LOSES_EMPTY_SENDS);
    let room = pair.sge(1, 0, 64);
    pair.post_recv(1, 1, &[room]).unwrap();
    assert_eq!(send(&mut pair, Opcode::Send, 0).status, WcStatus::Success);
    assert_eq!(pair.poll(1), None);
    // The receive is there for the next.
    assert_eq!(send(&mut pair, Opcode::Send, 1).status, WcStatus::Success);
    assert_eq!(pair.poll(1).map(|wc| (wc.wr_id, wc.byte_len)), Some((1, 1)));
}

#[test]
fn a_receive_of_another_number_of_frames_fails_and_the_connection_goes_on() {
    let mut pair = pair(Habits::MATCHES_FRAMES);
    for (sent, room, fits) in [
        (16_384, 16_384, true),
        (16_384, 4096, false),
        (16_384, 32_768, false),
        (12_289, 16_384, true),
        (4096, 4095, false),
        (1, 4096, true),
        (0, 4096, true),
        (0, 4097, false),
        (4097, 4096, false),
    ] {
        let room_sge = pair.sge(1, 0, room);
        pair.post_recv(1, 1, &[room_sge]).unwrap();
        assert_eq!(send(&mut pair, Opcode::Send, sent).status, WcStatus::Success);
        let expected = if fits { WcStatus::Success } else { WcStatus::LocLenErr };
        assert_eq!(pair.poll(1).map(|wc| wc.status), Some(expected), "{sent} into {room}");
    }
}
