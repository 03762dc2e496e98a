//! Two queue pairs joined by a queue of packets in each direction, as fast as one processor can carry them. No memory
//! is moved.

use super::{Keys, Setup, sge, wr};
use std::collections::VecDeque;
use tbrdma_proto::transport::{Action, Half, Incoming, Qp, Transmit};
use tbrdma_proto::wire::Packet;
use tbrdma_proto::{Opcode, Sge, Time, WcStatus};

/// Packets on their way in one direction.
const WIRE: usize = 256;
static PAYLOAD: [u8; 4096] = [0; 4096];

/// A requester and a responder.
pub(crate) struct Duplex {
    qps: [Qp; 2],
    wires: [VecDeque<Transmit>; 2],
    host: Keys,
    now: Time,
    /// One packet of so many is lost; none if 0.
    loss: u32,
    carried: u32,
    posted: u64,
    completed: u64,
    pub(crate) packets: u64,
}

impl Duplex {
    pub(crate) fn new(loss: u32) -> Self {
        // Both expect 5 first.
        let setup = Setup { sq_psn: 5, ..Setup::default() };
        let connect = || setup.rts().qp;
        Self {
            qps: [connect(), connect()],
            wires: [VecDeque::with_capacity(WIRE), VecDeque::with_capacity(WIRE)],
            host: Keys::default(),
            now: Time(1),
            loss,
            carried: 0,
            posted: 0,
            completed: 0,
            packets: 0,
        }
    }

    /// Carries out `count` requests, up to 16 at once.
    pub(crate) fn run(&mut self, opcode: Opcode, length: u32, count: u64) {
        let end = self.completed + count;
        let request = wr(1, opcode);
        let list = [Sge { length, ..sge(0) }];
        while self.completed < end {
            while self.posted < end && self.posted - self.completed < 16 {
                if opcode.consumes_receive() {
                    self.qps[1].post_recv(self.now, 2, &list).unwrap();
                }
                self.qps[0].post_send(self.now, &request, &list, &[]).unwrap();
                self.posted += 1;
            }
            if !self.carry() {
                let deadlines = self.qps.iter().filter_map(Qp::poll_timeout);
                self.now = deadlines.min().expect("nothing moves, and no timer runs").max(self.now);
                for at in 0..2 {
                    self.qps[at].handle_timeout(self.now, &mut self.host);
                    self.act(at);
                }
            }
        }
    }

    /// Moves what can be moved; false if that was nothing.
    fn carry(&mut self) -> bool {
        let mut moved = false;
        for from in 0..2 {
            while self.wires[from].len() < WIRE {
                let Some(transmit) = self.qps[from].poll_transmit(self.now, &mut self.host) else { break };
                self.wires[from].push_back(transmit);
                moved = true;
            }
            self.act(from);
            while let Some(transmit) = self.wires[from].pop_front() {
                self.carried += 1;
                self.packets += 1;
                if self.loss > 0 && self.carried.is_multiple_of(self.loss) {
                    continue;
                }
                self.now = Time(self.now.0 + 100);
                let payload = &PAYLOAD[..transmit.payload.len() as usize];
                let packet = Packet { headers: transmit.headers, payload };
                let incoming = Incoming { packet: &packet, grh: &[0; 40], congestion: false };
                self.qps[1 - from].handle_packet(self.now, &incoming, &mut self.host);
                self.act(1 - from);
            }
        }
        moved
    }

    fn act(&mut self, at: usize) {
        while let Some(action) = self.qps[at].poll_action() {
            match action {
                Action::Complete { half, wc, .. } => {
                    assert_eq!(wc.status, WcStatus::Success);
                    self.completed += u64::from(half == Half::Send);
                }
                Action::Atomic { .. } => self.qps[at].atomic_done(1),
                Action::Event(event) => panic!("{event:?}"),
                Action::Place { .. } | Action::Write { .. } => {}
            }
        }
    }
}
