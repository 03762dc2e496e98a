//! PSNs wrap at 2^24, in the middle of anything.

mod requester_common;

use requester_common::{Setup, aeth, sge, wr};
use tbrdma_proto::transport::Action;
use tbrdma_proto::wire::{NakCode, PacketOpcode, Syndrome};
use tbrdma_proto::{Opcode, Psn, WcStatus};

const ACK: Syndrome = Syndrome::Ack { credits: 31 };

#[test]
fn a_message_crosses_the_end_of_the_circle() {
    for before in 0..6 {
        let mut rig = Setup { sq_psn: 0xff_ffff - before, ..Setup::default() }.rts();
        rig.send(1, 5 * 1024);
        let psns: Vec<_> = rig.sent().iter().map(|transmit| transmit.headers.bth.psn.get()).collect();
        let expected: Vec<_> = (0..5).map(|index| (0xff_ffff - before + index) & 0xff_ffff).collect();
        assert_eq!(psns, expected);
        // The middle one is missing.
        let nak = Syndrome::Nak(NakCode::PsnSequenceError);
        rig.answer(aeth(PacketOpcode::RcAcknowledge, Psn::masked(psns[2]), nak, 0), &[]);
        let again: Vec<_> = rig.sent().iter().map(|transmit| transmit.headers.bth.psn.get()).collect();
        assert_eq!(again, psns[2..]);
        rig.answer(aeth(PacketOpcode::RcAcknowledge, Psn::masked(psns[4]), ACK, 1), &[]);
        assert_eq!(rig.completed(), [(1, WcStatus::Success)]);
    }
}

#[test]
fn what_is_read_crosses_it_too() {
    let mut rig = Setup { sq_psn: 0xff_fffe, ..Setup::default() }.rts();
    rig.read(1, 4 * 1024);
    rig.send(2, 1);
    let psns: Vec<_> = rig.sent().iter().map(|transmit| transmit.headers.bth.psn.get()).collect();
    assert_eq!(psns, [0xff_fffe, 2]);
    use PacketOpcode as P;
    let opcodes =
        [P::RcReadResponseFirst, P::RcReadResponseMiddle, P::RcReadResponseMiddle, P::RcReadResponseLast];
    for (opcode, psn) in opcodes.into_iter().zip([0xff_fffe, 0xff_ffff, 0, 1]) {
        let mut headers = aeth(opcode, Psn::masked(psn), ACK, 1);
        headers.aeth = headers.aeth.filter(|_| opcode.has_aeth());
        rig.answer(headers, &[1; 1024]);
    }
    let placed: Vec<_> = rig.actions.iter().filter(|action| matches!(action, Action::Place { .. })).collect();
    assert_eq!(placed.len(), 4);
    rig.answer(aeth(P::RcAcknowledge, Psn::masked(2), ACK, 2), &[]);
    assert_eq!(rig.completed(), [(1, WcStatus::Success), (2, WcStatus::Success)]);
}

#[test]
fn the_whole_circle_is_gone_round() {
    let mut rig = Setup { sq_psn: 0x12_3456, depth: 4, ..Setup::default() }.rts();
    let mut last = Psn::masked(0x12_3456).add(0xff_ffff);
    let mut packets = 0;
    while packets < (1 << 24) + 1000 {
        rig.post(&wr(1, Opcode::RdmaWrite), &[sge(1 << 30)]);
        while rig.completed().is_empty() {
            while let Some(transmit) = rig.qp.poll_transmit(rig.now, &mut rig.host) {
                assert_eq!(transmit.headers.bth.psn, last.next());
                last = transmit.headers.bth.psn;
                packets += 1;
            }
            rig.answer(aeth(PacketOpcode::RcAcknowledge, last, ACK, 0), &[]);
        }
    }
}
