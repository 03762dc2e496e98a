//! What must hold for a queue pair whatever its peer sends and its owner does: one function a fuzz target, as in checks.rs.

#[path = "qp_world.rs"]
mod world;

use std::cell::RefCell;
use std::collections::VecDeque;

use tbrdma_proto::testing::ToyMemory;
use tbrdma_proto::transport::{
    Action, Half, Incoming, Payload, Pending, Qp, QpConfig, Receive, Span, Srq, Transmit,
};
use tbrdma_proto::wire::{
    Aeth, AtomicEth, Bth, Deth, Headers, MAX_HEADER_BYTES, NakCode, Packet, PacketOpcode, Reth, Syndrome,
};
use tbrdma_proto::{
    Access, AddressVector, DeviceAttr, Habits, Mtu, Opcode, PdHandle, PortAttr, Psn, QpAttr, QpAttrMask,
    QpCap, QpState, QpType, Qpn, RemoteAddr, SendFlags, SendWr, Sge, Time, UdDestination, WcStatus,
    WorkCompletion, transition,
};

use super::case::Case;
use world::World;

const PD: PdHandle = PdHandle(1);
const QKEY: u32 = 5;
const DEPTH: u32 = 4;
/// Bytes of each region.
const REGION: usize = 4096;
const ALL: Access =
    Access::LOCAL_WRITE.union(Access::REMOTE_WRITE).union(Access::REMOTE_READ).union(Access::REMOTE_ATOMIC);

/// A queue pair and what its owner knows of it.
struct Run {
    qp: Qp,
    world: World,
    now: Time,
    qp_type: QpType,
    shared: bool,
    mtu: Mtu,
    first: Psn,
    reads: u8,
    /// Receives that were posted and not completed, with their room.
    receives: VecDeque<(u32, u64, u64)>,
    /// Sends likewise, and whether each completes even if it succeeds.
    sends: VecDeque<(u32, u64, bool)>,
    /// Refusals sent since the connection was made.
    refusals: u32,
    packets: u32,
}

impl Run {
    fn new(case: &mut Case<'_>, types: &[QpType]) -> Self {
        let qp_type = case.of(types);
        let flags = case.byte();
        let shared = flags & 1 != 0;
        let mtu = if flags & 2 != 0 { Mtu::B1024 } else { Mtu::B256 };
        let mut memory = ToyMemory::new(3);
        let mut keys = vec![];
        for (pd, access) in [(PD, ALL), (PD, ALL), (PD, Access::REMOTE_READ), (PdHandle(2), ALL)] {
            keys.push(memory.register(pd, access, REGION).unwrap());
        }
        keys.push(keys[0]);
        let cap = QpCap {
            max_send_wr: DEPTH,
            max_recv_wr: DEPTH,
            max_send_sge: 3,
            max_recv_sge: 3,
            max_inline_data: 16,
        };
        let config = QpConfig {
            qpn: Qpn::masked(9),
            qp_type,
            pd: PD,
            cap,
            shared_receives: shared,
            device: DeviceAttr::default(),
            port: PortAttr { active_mtu: mtu, ..PortAttr::default() },
            habits: Habits::default(),
        };
        let srq = shared.then(|| Srq::new(PD, DEPTH, 3));
        let world = World { memory, srq, allowed: RefCell::default(), keys };
        let mut run = Self {
            qp: Qp::new(config),
            world,
            now: Time(1),
            qp_type,
            shared,
            mtu,
            first: Psn::masked(if flags & 4 != 0 { 0xff_fff0 } else { 77 }),
            reads: flags >> 4,
            receives: VecDeque::new(),
            sends: VecDeque::new(),
            refusals: 0,
            packets: 0,
        };
        run.connect();
        run
    }

    fn connect(&mut self) {
        for state in [QpState::Reset, QpState::Init, QpState::Rtr, QpState::Rts] {
            self.enter(state);
        }
    }

    fn enter(&mut self, state: QpState) {
        let Some(attrs) = transition(self.qp_type, self.qp.state(), state) else { return };
        let attr = QpAttr {
            qp_state: state,
            path_mtu: self.mtu,
            qkey: QKEY,
            rq_psn: self.first,
            sq_psn: self.first,
            dest_qp_num: Qpn::masked(8),
            qp_access_flags: ALL,
            ah_attr: AddressVector { is_global: true, port_num: 1, ..AddressVector::default() },
            max_rd_atomic: self.reads,
            max_dest_rd_atomic: self.reads,
            min_rnr_timer: 1,
            port_num: 1,
            timeout: 1,
            retry_cnt: 2,
            rnr_retry: 2,
            ..QpAttr::default()
        };
        let mask = attrs.required | QpAttrMask::STATE;
        self.begin();
        self.qp.modify(self.now, &attr, mask).unwrap();
        assert_eq!(self.qp.state(), state);
        if state == QpState::Reset {
            // Forgotten, without a word. What was taken from a shared queue stays taken.
            self.receives.clear();
            self.sends.clear();
            if let Some(srq) = &mut self.world.srq {
                while srq.take(&mut Receive::default()) {}
            }
            self.refusals = 0;
        }
        self.settle(&[]);
    }

    /// Forgets what was allowed before.
    fn begin(&self) {
        self.world.allowed.borrow_mut().clear();
    }

    fn handle(&mut self, packet: Packet<'_>) {
        self.begin();
        let incoming = Incoming { packet: &packet, grh: &[7; 40], congestion: false };
        self.qp.handle_packet(self.now, &incoming, &mut self.world);
        self.settle(packet.payload);
    }

    fn post_recv(&mut self, case: &mut Case<'_>) {
        let sges = self.world.sges(case);
        let room = sges.iter().map(|sge| u64::from(sge.length)).sum();
        let wr_id = u64::from(case.byte());
        self.begin();
        let posted = match &mut self.world.srq {
            Some(srq) => srq.post(wr_id, &sges),
            None => self.qp.post_recv(self.now, wr_id, &sges),
        };
        if let Ok(number) = posted {
            self.receives.push_back((number, wr_id, room));
        }
        self.settle(&[]);
    }

    /// Does what is to be done, and holds it against what may be done.
    fn settle(&mut self, payload: &[u8]) {
        let mut actions = 0;
        while let Some(action) = self.qp.poll_action() {
            actions += 1;
            assert!(actions < 1000);
            let memory_writes = [Access::LOCAL_WRITE, Access::REMOTE_WRITE];
            match action {
                Action::Place { key, addr, offset, len } => {
                    assert!(len > 0);
                    self.world.must_be_allowed(key, &memory_writes, addr, len.into());
                    let bytes = &payload[offset as usize..][..len as usize];
                    if self.world.memory.has(key) {
                        self.world.memory.place(PD, key, addr, bytes).unwrap();
                    }
                }
                Action::Write { key, addr, bytes, len } => {
                    assert!((1..=40).contains(&len));
                    self.world.must_be_allowed(key, &memory_writes, addr, len.into());
                    self.world.memory.place(PD, key, addr, &bytes[..usize::from(len)]).unwrap();
                }
                Action::Atomic { key, addr, op } => {
                    self.world.must_be_allowed(key, &[Access::REMOTE_ATOMIC], addr, 8);
                    let old = self.world.memory.atomic(PD, key, addr, op).unwrap();
                    self.qp.atomic_done(old);
                }
                Action::Complete { half: Half::Receive, wc, .. } => self.receive_completed(&wc),
                Action::Complete { half: Half::Send, wc, .. } => self.send_completed(&wc),
                Action::Event(_) => {}
            }
        }
        // In an error state nothing is left. An unsignaled send may have succeeded before.
        if self.qp.state() == QpState::Err {
            assert!(self.shared || self.receives.is_empty(), "{:?}", self.receives);
        }
        if matches!(self.qp.state(), QpState::Err | QpState::Sqe) {
            assert!(!self.sends.iter().any(|&(_, _, signaled)| signaled), "{:?}", self.sends);
        }
    }

    /// The oldest receive, and no other, completes, once, with no more bytes than it has room for.
    fn receive_completed(&mut self, wc: &WorkCompletion) {
        let (number, wr_id, room) = self.receives.pop_front().expect("a completion without a receive");
        assert_eq!((wc.wq_index, wc.wr_id), (number, wr_id));
        let has_bytes = wc.status == WcStatus::Success && wc.opcode == tbrdma_proto::WcOpcode::Recv;
        assert!(!has_bytes || u64::from(wc.byte_len) <= room);
    }

    /// Sends complete in order, once; only those that need not are passed over, and only by a success.
    fn send_completed(&mut self, wc: &WorkCompletion) {
        while let Some((number, wr_id, signaled)) = self.sends.pop_front() {
            if number == wc.wq_index {
                assert_eq!(wc.wr_id, wr_id);
                assert!(signaled || wc.status != WcStatus::Success);
                return;
            }
            assert!(!signaled, "send {number} was passed over by {}", wc.wq_index);
        }
        panic!("a completion without a send: {wc:?}");
    }

    /// Sends up to `most` packets and answers whether there are more.
    fn transmit(&mut self, most: u32) {
        for _ in 0..most {
            let pending = self.qp.pending(self.now);
            self.begin();
            let Some(transmit) = self.qp.poll_transmit(self.now, &mut self.world) else {
                self.settle(&[]);
                return;
            };
            assert_ne!(pending, Pending::Nothing, "{transmit:?}");
            self.judge(&transmit);
            self.settle(&[]);
        }
    }

    /// A packet to send is one that its peer can read, and gathers only what was allowed.
    fn judge(&mut self, transmit: &Transmit) {
        // An unreliable responder only tells how many receives there are, if it is asked.
        let is_credit = transmit.headers.bth.opcode == PacketOpcode::UcCredit;
        assert!(!is_credit || self.qp_type == QpType::Uc);
        self.packets += u32::from(!is_credit);
        let Transmit { headers, payload, .. } = *transmit;
        assert!(payload.len() <= self.mtu.bytes());
        if let Payload::Region { key, addr, len } = payload {
            self.world.must_be_allowed(key, &[Access::REMOTE_READ], addr, len.into());
        }
        let mut gathered = 0;
        for span in self.qp.spans(&payload) {
            gathered += match span {
                Span::Region { len, .. } => len,
                Span::Bytes(bytes) => bytes.len() as u32,
            };
        }
        assert_eq!(gathered, payload.len());
        let mut out = [0; MAX_HEADER_BYTES];
        let len = headers.encode(&mut out);
        let mut bytes = out[..len].to_vec();
        bytes.resize(headers.packet_len(payload.len() as usize), 0);
        assert_eq!(bytes.len() % 4, 0);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.headers, packet.payload.len()), (headers, payload.len() as usize));
        if let Some(Aeth { syndrome: Syndrome::Nak(code), .. }) = headers.aeth
            && code != NakCode::PsnSequenceError
        {
            self.refusals += 1;
            assert_eq!((self.refusals, self.qp.state()), (1, QpState::Err));
        } else if self.qp.state() == QpState::Err {
            // Only what must come before a refusal is still sent.
            assert_eq!(self.refusals, 0);
            assert_ne!(self.qp.pending(self.now), Pending::Nothing);
        }
    }

    /// A packet with mostly sensible headers.
    fn packet(&mut self, case: &mut Case<'_>, opcode: PacketOpcode, psn: Psn) {
        let flags = case.byte();
        let mut headers = Headers::new(Bth {
            solicited: flags & 1 != 0,
            becn: flags & 0xc0 == 0xc0,
            ack_req: flags & 2 != 0,
            ..Bth::new(opcode, Qpn::masked(9), psn)
        });
        let len = match flags >> 2 & 3 {
            0 => self.mtu.bytes() as usize,
            1 => usize::from(case.byte()),
            2 => 0,
            _ => usize::from(case.half() % 5000),
        };
        let (key, addr) = self.world.place(case);
        if opcode.has_reth() {
            let length = if case.one_in(4) { case.word() } else { len as u32 };
            headers.reth = Some(Reth { addr, rkey: key, length });
        }
        if opcode.has_atomic_eth() {
            let addr = if case.one_in(4) { addr } else { addr & !7 };
            let (compare, swap_add) = (u64::from(case.byte() & 1), u64::from(case.byte()));
            headers.atomic_eth = Some(AtomicEth { addr, rkey: key, swap_add, compare });
        }
        if opcode.has_ieth() {
            headers.ieth = Some(key);
        }
        if opcode.has_imm() {
            headers.imm = Some(case.byte().into());
        }
        if opcode.has_deth() {
            headers.deth =
                Some(Deth { qkey: if case.one_in(4) { 0 } else { QKEY }, src_qpn: Qpn::masked(8) });
        }
        if opcode.has_aeth() {
            let syndrome = Syndrome::from_raw(case.byte()).unwrap_or(Syndrome::ACK);
            headers.aeth = Some(Aeth { syndrome, msn: case.byte().into() });
        }
        if opcode.has_atomic_ack_eth() {
            headers.atomic_ack_eth = Some(case.byte().into());
        }
        let no_payload = opcode.has_atomic_eth() || opcode == PacketOpcode::RcReadRequest;
        let len = if no_payload && !case.one_in(8) { 0 } else { len };
        headers.bth.pad = (len.wrapping_neg() & 3) as u8;
        self.handle(Packet { headers, payload: &vec![case.byte(); len] });
    }
}

/// A queue pair that is sent anything, and given any receives, does only what its rules allow.
pub(crate) fn responder(data: &[u8]) {
    let case = &mut Case(data);
    let mut run = Run::new(case, &[QpType::Rc, QpType::Rc, QpType::Uc, QpType::Ud]);
    while !case.0.is_empty() {
        match case.byte() % 32 {
            0..=15 => {
                let requests = PacketOpcode::ALL.iter().copied().filter(|opcode| opcode.is_request());
                let opcodes: Vec<_> = match case.one_in(16) {
                    true => PacketOpcode::ALL.to_vec(),
                    false => requests.filter(|opcode| fits(*opcode, run.qp_type)).collect(),
                };
                let opcode = case.of(&opcodes);
                let ahead = match case.byte() {
                    0..=0x9f => 0,
                    0xff => case.word(),
                    near => u32::from(near).wrapping_sub(0xe0),
                };
                let psn = run.qp.query().rq_psn.add(ahead);
                run.packet(case, opcode, psn);
            }
            16..=22 => run.post_recv(case),
            23..=26 => {
                let most = case.byte();
                run.transmit(most.into());
            }
            27 => {
                // Bytes as they come.
                let len = usize::from(case.byte()).min(case.0.len());
                let (bytes, rest) = case.0.split_at(len);
                case.0 = rest;
                if let Ok(packet) = Packet::parse(bytes) {
                    run.handle(packet);
                }
            }
            28 => {
                // A region goes, and another comes.
                let at = usize::from(case.byte()) % 2;
                run.world.memory.deregister(run.world.keys[at].0).unwrap();
                run.world.keys[at] = run.world.memory.register(PD, ALL, REGION).unwrap();
            }
            29 => run.enter(QpState::Sqd),
            30 => run.enter(QpState::Err),
            _ => run.connect(),
        }
    }
    run.transmit(u32::MAX);
    run.world.memory.check_guards().unwrap();
    assert_eq!(run.qp.pending(run.now), Pending::Nothing);
    assert!(run.qp_type == QpType::Rc || run.packets == 0);
    // What nobody asked to acknowledge is acknowledged all the same, once.
    run.pass_time();
    run.transmit(u32::MAX);
    assert_eq!(run.qp.poll_timeout(), None);
    run.enter(QpState::Err);
}

/// Whether packets of the opcode's service go to queue pairs of the type.
fn fits(opcode: PacketOpcode, qp_type: QpType) -> bool {
    use tbrdma_proto::wire::Service;
    matches!(
        (opcode.service(), qp_type),
        (Service::Rc, QpType::Rc) | (Service::Uc, QpType::Uc) | (Service::Ud, QpType::Ud)
    )
}

/// A queue pair that gets any answers to what it sends completes each work request once, and comes to rest.
pub(crate) fn requester(data: &[u8]) {
    let case = &mut Case(data);
    let mut run = Run::new(case, &[QpType::Rc, QpType::Rc, QpType::Rc, QpType::Uc, QpType::Ud]);
    while !case.0.is_empty() {
        match case.byte() % 32 {
            0..=8 => run.post_send(case),
            9..=14 => {
                let most = case.byte();
                run.transmit(most.into());
            }
            15..=26 => {
                let answers: Vec<_> =
                    PacketOpcode::ALL.iter().copied().filter(|opcode| !opcode.is_request()).collect();
                let opcode = case.of(&answers);
                let back = match case.byte() {
                    0xff => case.word(),
                    near => u32::from(near % 16),
                };
                let psn = run.qp.query().sq_psn.add(back.wrapping_neg());
                run.packet(case, opcode, psn);
            }
            27 | 28 => run.pass_time(),
            29 => run.enter(case.of(&[QpState::Sqd, QpState::Rts])),
            30 => run.enter(QpState::Err),
            _ => run.connect(),
        }
    }
    // A peer that says nothing any more: everything ends within its retries.
    run.enter(QpState::Rts);
    for _ in 0..1000 {
        run.transmit(100_000);
        if run.qp.poll_timeout().is_none() {
            break;
        }
        run.pass_time();
    }
    run.world.memory.check_guards().unwrap();
    assert_eq!(run.qp.poll_timeout(), None);
    assert!(run.sends.iter().all(|&(_, _, signaled)| !signaled) || run.qp.state() == QpState::Sqd);
}

impl Run {
    /// To the next deadline. It must not stay where it is.
    fn pass_time(&mut self) {
        let Some(deadline) = self.qp.poll_timeout() else { return };
        self.now = self.now.max(deadline);
        self.begin();
        self.qp.handle_timeout(self.now, &mut self.world);
        self.settle(&[]);
        assert!(self.qp.poll_timeout().is_none_or(|next| next > self.now));
    }

    fn post_send(&mut self, case: &mut Case<'_>) {
        let opcode = case.of(&[
            Opcode::Send,
            Opcode::SendWithImm,
            Opcode::SendWithInv,
            Opcode::RdmaWrite,
            Opcode::RdmaWriteWithImm,
            Opcode::RdmaRead,
            Opcode::AtomicCmpAndSwp,
            Opcode::AtomicFetchAndAdd,
            Opcode::LocalInv,
        ]);
        let flags = SendFlags::from_bits_truncate(case.byte().into()) - SendFlags::IP_CSUM;
        let mut sges = if flags.contains(SendFlags::INLINE) { vec![] } else { self.world.sges(case) };
        let (rkey, addr) = self.world.place(case);
        if opcode.is_atomic() && !case.one_in(8) {
            sges = vec![Sge { addr: self.world.keys[0].1, length: 8, lkey: self.world.keys[0].0 }];
        }
        let wr = SendWr {
            wr_id: case.byte().into(),
            opcode,
            flags,
            imm_data: rkey,
            remote: RemoteAddr { addr: if opcode.is_atomic() { addr & !7 } else { addr }, rkey },
            compare_add: 1,
            swap: 2,
            ud: (!case.one_in(8)).then_some(UdDestination { ah: 1, qpn: Qpn::masked(8), qkey: QKEY }),
            first_sge: 0,
            num_sge: 0,
        };
        self.begin();
        let inline = [9; 16];
        let inline = &inline[..usize::from(case.byte() % 17)];
        if let Ok(number) = self.qp.post_send(self.now, &wr, &sges, inline) {
            self.sends.push_back((number, wr.wr_id, flags.contains(SendFlags::SIGNALED)));
        }
        self.settle(&[]);
    }
}
