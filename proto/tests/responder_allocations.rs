//! Once it is warm, a responder allocates nothing, whatever kind of request comes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod counting;
mod responder_side;

use counting::calls;
use responder_side::*;
use tbrdma_proto::transport::{Action, Incoming, Receive};
use tbrdma_proto::wire::PacketOpcode::*;
use tbrdma_proto::wire::{AtomicEth, Bth, Headers, Packet, PacketOpcode, Reth};
use tbrdma_proto::*;

/// One packet and all it leads to, without a test's own bookkeeping.
fn handle(side: &mut Side, opcode: PacketOpcode, psn: Psn, mr: Mr, payload: &[u8]) {
    let mut headers = Headers::new(Bth { ack_req: true, ..bth(opcode, psn) });
    let length = if opcode == RcReadRequest { 700 } else { 512 };
    headers.reth = Some(Reth { addr: mr.addr, rkey: mr.key, length });
    headers.atomic_eth = Some(AtomicEth { addr: mr.addr, rkey: mr.key, swap_add: 1, compare: 0 });
    headers.imm = Some(1);
    let incoming = Incoming { packet: &Packet { headers, payload }, grh: &[0; GRH], congestion: false };
    side.qp.handle_packet(Time::ZERO, &incoming, &mut side.world);
    while let Some(action) = side.qp.poll_action() {
        if let Action::Atomic { .. } = action {
            side.qp.atomic_done(7);
        }
    }
}

#[test]
fn no_request_allocates() {
    for shared in [false, true] {
        let mut side = Side::new(Setup { srq: shared, ..Setup::default() });
        let mr = side.region(ALL, 4096);
        let home = side.region_of(if shared { SRQ_PD } else { PD }, ALL, 4096);
        let sges = [home.sge(0, 100), home.sge(100, 50), home.sge(200, 1000)];
        let full = [1; 256];
        let (mut answers, mut before) = (0, 0);
        for round in 0..2000 {
            if round == 100 {
                before = calls();
            }
            for _ in 0..2 {
                match &mut side.world.srq {
                    Some(srq) => _ = srq.post(round, &sges).unwrap(),
                    None => _ = side.qp.post_recv(Time::ZERO, round, &sges).unwrap(),
                }
            }
            let start = side.qp.query().rq_psn;
            let script: [(PacketOpcode, u32, &[u8]); 15] = [
                (RcSendFirst, 0, &full),
                (RcSendMiddle, 1, &full),
                (RcSendLast, 2, &full),
                (RcWriteFirst, 3, &full),
                (RcWriteLastWithImm, 4, &full),
                (RcReadRequest, 5, &[]),
                (RcFetchAdd, 8, &[]),
                (RcCompareSwap, 9, &[]),
                // Again, and out of order.
                (RcSendLast, 2, &full),
                (RcReadRequest, 5, &[]),
                (RcFetchAdd, 8, &[]),
                (RcSendOnly, 12, &full),
                (RcSendOnly, 13, &full),
                // There is no receive for it.
                (RcSendOnly, 10, &full),
                (RcSendOnly, 11, &full),
            ];
            for (opcode, at, payload) in script {
                handle(&mut side, opcode, start.add(at), mr, payload);
                if at % 3 == 2 {
                    answers += u32::from(side.qp.poll_transmit(Time::ZERO, &mut side.world).is_some());
                }
            }
            while side.qp.poll_transmit(Time::ZERO, &mut side.world).is_some() {
                answers += 1;
            }
        }
        assert_eq!(calls() - before, 0);
        assert!(answers > 2000 * 8, "{answers}");
        assert_eq!(side.qp.state(), QpState::Rts);
        assert!(side.world.srq.is_none_or(|mut srq| !srq.take(&mut Receive::default())));
    }
}
