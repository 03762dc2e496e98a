//! One queue pair that answers, with memory behind it, and requests made by hand.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "a test may fail; no file uses everything")]

use tbrdma_proto::testing::ToyMemory;
use tbrdma_proto::transport::*;
use tbrdma_proto::wire::*;
use tbrdma_proto::*;

/// Bytes of the routing header area.
pub(crate) const GRH: usize = 40;

pub(crate) const PD: PdHandle = PdHandle(7);
/// The domain of shared queues.
pub(crate) const SRQ_PD: PdHandle = PdHandle(8);
pub(crate) const QPN: u32 = 0x11;
pub(crate) const PEER_QPN: u32 = 0x22;
pub(crate) const QKEY: u32 = 0x1234_5678;
pub(crate) const RNR_TIMER: u8 = 14;
pub(crate) const ALL: Access =
    Access::LOCAL_WRITE.union(Access::REMOTE_WRITE).union(Access::REMOTE_READ).union(Access::REMOTE_ATOMIC);

/// What the queue pair asks while it decides.
pub(crate) struct World {
    pub(crate) memory: ToyMemory,
    pub(crate) srq: Option<Srq>,
    /// Every access that was allowed.
    pub(crate) checks: std::cell::Cell<u32>,
}

impl Host for World {
    fn check(&self, pd: PdHandle, key: u32, needed: Access, addr: u64, len: u64) -> Result<(), RegionError> {
        self.checks.set(self.checks.get() + 1);
        self.memory.check(pd, key, needed, addr, len)
    }

    fn invalidate(&mut self, pd: PdHandle, key: u32) -> Result<(), RegionError> {
        self.memory.invalidate(pd, key)
    }

    fn take_shared_receive(&mut self, receive: &mut Receive) -> bool {
        self.srq.as_mut().unwrap().take(receive)
    }
}

/// The base header of a request to the queue pair.
pub(crate) fn bth(opcode: PacketOpcode, psn: Psn) -> Bth {
    Bth::new(opcode, Qpn::new(QPN).unwrap(), psn)
}

/// How the queue pair is made.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) qp_type: QpType,
    pub(crate) rq_psn: u32,
    pub(crate) mtu: Mtu,
    pub(crate) access: Access,
    pub(crate) reads: u8,
    pub(crate) depth: u32,
    pub(crate) srq: bool,
    /// Bytes of the longest message.
    pub(crate) max_msg: u32,
    /// Whether it goes on to RTS.
    pub(crate) rts: bool,
    pub(crate) habits: Habits,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            qp_type: QpType::Rc,
            rq_psn: 100,
            mtu: Mtu::B256,
            access: ALL,
            reads: 4,
            depth: 8,
            srq: false,
            max_msg: 1 << 31,
            rts: true,
            habits: Habits::default(),
        }
    }
}

/// A region of the queue pair's domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mr {
    pub(crate) key: u32,
    pub(crate) addr: u64,
}

impl Mr {
    pub(crate) fn sge(&self, at: u64, length: u32) -> Sge {
        Sge { addr: self.addr + at, length, lkey: self.key }
    }
}

pub(crate) struct Side {
    pub(crate) qp: Qp,
    pub(crate) world: World,
    pub(crate) setup: Setup,
    /// The PSN of the next request.
    pub(crate) psn: Psn,
    pub(crate) completions: Vec<WorkCompletion>,
    /// Of each completion.
    pub(crate) solicited: Vec<bool>,
    pub(crate) events: Vec<AsyncEventKind>,
    /// Bytes placed.
    pub(crate) placed: u64,
    pub(crate) atomics: u32,
    /// Whether atomics are answered at once.
    pub(crate) hold_atomics: bool,
    pub(crate) held: Vec<u64>,
}

/// A packet that the queue pair sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) opcode: PacketOpcode,
    pub(crate) psn: u32,
    pub(crate) aeth: Option<Aeth>,
    pub(crate) old: Option<u64>,
    pub(crate) payload: Vec<u8>,
}

impl Answer {
    pub(crate) fn msn(&self) -> u32 {
        self.aeth.unwrap().msn
    }

    pub(crate) fn is_ack(&self) -> bool {
        self.opcode == PacketOpcode::RcAcknowledge
            && matches!(self.aeth, Some(Aeth { syndrome: Syndrome::Ack { .. }, .. }))
    }

    pub(crate) fn nak(&self) -> Option<NakCode> {
        match self.aeth?.syndrome {
            Syndrome::Nak(code) => Some(code),
            _ => None,
        }
    }

    pub(crate) fn rnr(&self) -> Option<u8> {
        match self.aeth?.syndrome {
            Syndrome::RnrNak { timer } => Some(timer),
            _ => None,
        }
    }
}

impl Side {
    /// A queue pair that is connected and has no receives.
    pub(crate) fn new(setup: Setup) -> Self {
        let cap = QpCap {
            max_send_wr: 4,
            max_recv_wr: setup.depth,
            max_send_sge: 2,
            max_recv_sge: 4,
            max_inline_data: 0,
        };
        let config = QpConfig {
            qpn: Qpn::new(QPN).unwrap(),
            qp_type: setup.qp_type,
            pd: PD,
            cap,
            shared_receives: setup.srq,
            device: DeviceAttr::default(),
            port: PortAttr { max_msg_sz: setup.max_msg, ..PortAttr::default() },
            habits: setup.habits,
        };
        let srq = setup.srq.then(|| Srq::new(SRQ_PD, setup.depth, 4));
        let world = World { memory: ToyMemory::new(1), srq, checks: std::cell::Cell::new(0) };
        let mut side = Self {
            qp: Qp::new(config),
            world,
            psn: Psn::masked(setup.rq_psn),
            setup,
            completions: vec![],
            solicited: vec![],
            events: vec![],
            placed: 0,
            atomics: 0,
            hold_atomics: false,
            held: vec![],
        };
        side.connect();
        side
    }

    pub(crate) fn rc() -> Self {
        Self::new(Setup::default())
    }

    pub(crate) fn uc() -> Self {
        Self::new(Setup { qp_type: QpType::Uc, ..Setup::default() })
    }

    pub(crate) fn ud() -> Self {
        Self::new(Setup { qp_type: QpType::Ud, ..Setup::default() })
    }

    pub(crate) fn connect(&mut self) {
        self.enter_init();
        self.enter_rtr();
        if self.setup.rts {
            self.enter_rts();
        }
    }

    fn step(&mut self, attr: QpAttr, state: QpState) {
        let qp_type = self.setup.qp_type;
        let given = transition(qp_type, self.qp.state(), state).unwrap().required;
        let attr = QpAttr { qp_state: state, ..attr };
        self.qp.modify(Time::ZERO, &attr, given | QpAttrMask::STATE).unwrap();
        self.run_actions(&[]);
    }

    pub(crate) fn enter_init(&mut self) {
        let attr =
            QpAttr { port_num: 1, qp_access_flags: self.setup.access, qkey: QKEY, ..QpAttr::default() };
        self.step(attr, QpState::Init);
    }

    pub(crate) fn enter_rtr(&mut self) {
        let ah_attr = AddressVector {
            is_global: true,
            dgid: "::ffff:10.0.0.2".parse().unwrap(),
            port_num: 1,
            ..AddressVector::default()
        };
        let attr = QpAttr {
            path_mtu: self.setup.mtu,
            dest_qp_num: Qpn::new(PEER_QPN).unwrap(),
            rq_psn: Psn::masked(self.setup.rq_psn),
            ah_attr,
            max_dest_rd_atomic: self.setup.reads,
            min_rnr_timer: RNR_TIMER,
            qp_access_flags: self.setup.access,
            port_num: 1,
            ..QpAttr::default()
        };
        self.step(attr, QpState::Rtr);
        self.psn = Psn::masked(self.setup.rq_psn);
    }

    pub(crate) fn enter_rts(&mut self) {
        self.step(QpAttr { timeout: 14, retry_cnt: 7, rnr_retry: 7, ..QpAttr::default() }, QpState::Rts);
    }

    pub(crate) fn enter_error(&mut self) {
        self.step(QpAttr::default(), QpState::Err);
    }

    pub(crate) fn reset(&mut self) {
        self.step(QpAttr::default(), QpState::Reset);
    }

    pub(crate) fn region(&mut self, access: Access, length: usize) -> Mr {
        self.region_of(PD, access, length)
    }

    pub(crate) fn region_of(&mut self, pd: PdHandle, access: Access, length: usize) -> Mr {
        let (key, addr) = self.world.memory.register(pd, access, length).unwrap();
        Mr { key, addr }
    }

    pub(crate) fn bytes(&self, mr: Mr, at: u64, len: usize) -> Vec<u8> {
        self.world.memory.bytes(mr.key, mr.addr + at, len).unwrap().to_vec()
    }

    pub(crate) fn fill(&mut self, mr: Mr, bytes: &[u8]) {
        self.world.memory.bytes_mut(mr.key, mr.addr, bytes.len()).unwrap().copy_from_slice(bytes);
    }

    pub(crate) fn post(&mut self, wr_id: u64, sges: &[Sge]) {
        if let Some(srq) = &mut self.world.srq {
            srq.post(wr_id, sges).unwrap();
        } else {
            self.qp.post_recv(Time::ZERO, wr_id, sges).unwrap();
        }
        self.run_actions(&[]);
    }

    /// A request with the next PSN.
    pub(crate) fn request(&mut self, opcode: PacketOpcode) -> Request<'_> {
        Request { headers: Headers::new(bth(opcode, self.psn)), payload: vec![], grh: [0; GRH], side: self }
    }

    /// What it sends, until it has nothing to send.
    pub(crate) fn answers(&mut self) -> Vec<Answer> {
        let mut answers = vec![];
        while let Some(answer) = self.answer() {
            answers.push(answer);
        }
        answers
    }

    /// The next packet it sends.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let transmit = self.qp.poll_transmit(Time::ZERO, &mut self.world)?;
        let Transmit { headers, payload, to } = transmit;
        assert_eq!(to, To::Peer);
        assert_eq!(headers.bth.dest_qpn.get(), PEER_QPN);
        let mut bytes = vec![];
        match payload {
            Payload::Empty => {}
            Payload::Region { key, addr, len } => {
                assert!(self.world.memory.gather(PD, key, addr, len as usize, &mut bytes).unwrap());
            }
            Payload::Message { .. } => panic!("a responder sends no message"),
        }
        assert_eq!((bytes.len() + usize::from(headers.bth.pad)) % 4, 0);
        assert!(headers.bth.pad < 4 && headers.bth.pkey == 0xffff && !headers.bth.ack_req);
        assert_eq!(headers.aeth.is_some(), headers.bth.opcode.has_aeth());
        self.run_actions(&[]);
        Some(Answer {
            opcode: headers.bth.opcode,
            psn: headers.bth.psn.get(),
            aeth: headers.aeth,
            old: headers.atomic_ack_eth,
            payload: bytes,
        })
    }

    pub(crate) fn pending(&self) -> Pending {
        self.qp.pending(Time::ZERO)
    }

    pub(crate) fn run_actions(&mut self, packet: &[u8]) {
        let memory = &mut self.world.memory;
        let domain = |memory: &ToyMemory, key, addr| {
            if memory.check(PD, key, Access::empty(), addr, 0).is_ok() { PD } else { SRQ_PD }
        };
        while let Some(action) = self.qp.poll_action() {
            match action {
                Action::Place { key, addr, offset, len } => {
                    assert!(len > 0);
                    let bytes = &packet[offset as usize..][..len as usize];
                    memory.place(domain(memory, key, addr), key, addr, bytes).unwrap();
                    self.placed += u64::from(len);
                }
                Action::Write { key, addr, bytes, len } => {
                    assert!(len > 0);
                    memory.place(domain(memory, key, addr), key, addr, &bytes[..usize::from(len)]).unwrap();
                    self.placed += u64::from(len);
                }
                Action::Atomic { key, addr, op } => {
                    self.atomics += 1;
                    let old = memory.atomic(PD, key, addr, op).unwrap();
                    if self.hold_atomics {
                        self.held.push(old);
                    } else {
                        self.qp.atomic_done(old);
                    }
                }
                Action::Complete { half, wc, solicited } => {
                    assert_eq!(half, Half::Receive);
                    assert_eq!(wc.qp_num.get(), QPN);
                    self.completions.push(wc);
                    self.solicited.push(solicited);
                }
                Action::Event(kind) => self.events.push(kind),
            }
        }
        memory.check_guards().unwrap();
    }

    /// The completions since the last call, as (wr_id, status, byte_len of those that succeeded).
    pub(crate) fn completed(&mut self) -> Vec<(u64, WcStatus, u32)> {
        self.solicited.clear();
        self.completions
            .drain(..)
            .map(|wc| (wc.wr_id, wc.status, if wc.status == WcStatus::Success { wc.byte_len } else { 0 }))
            .collect()
    }

    /// A request and all it leads to: a single answer, or none.
    pub(crate) fn only_answer(&mut self) -> Option<Answer> {
        let mut answers = self.answers();
        assert!(answers.len() < 2, "{answers:?}");
        answers.pop()
    }

    /// Asserts that the connection was ended with this refusal.
    pub(crate) fn expect_refused(&mut self, code: NakCode, psn: u32, event: Option<AsyncEventKind>) {
        let answers = self.answers();
        assert_eq!(self.qp.state(), QpState::Err);
        let last = answers.last().expect("a refusal");
        assert_eq!((last.nak(), last.psn), (Some(code), psn));
        assert_eq!(self.events, Vec::from_iter(event));
        assert_eq!(self.answers(), []);
    }
}

/// A packet to be handed to the queue pair.
pub(crate) struct Request<'a> {
    side: &'a mut Side,
    pub(crate) headers: Headers,
    pub(crate) payload: Vec<u8>,
    grh: [u8; GRH],
}

impl Request<'_> {
    pub(crate) fn psn(mut self, psn: u32) -> Self {
        self.headers.bth.psn = Psn::masked(psn);
        self
    }

    pub(crate) fn ack(mut self) -> Self {
        self.headers.bth.ack_req = true;
        self
    }

    pub(crate) fn solicited(mut self) -> Self {
        self.headers.bth.solicited = true;
        self
    }

    pub(crate) fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self.headers.bth.pad = (bytes.len().wrapping_neg() & 3) as u8;
        self
    }

    pub(crate) fn reth(mut self, mr: Mr, at: u64, length: u32) -> Self {
        let addr = mr.addr.wrapping_add(at);
        self.headers.reth = Some(Reth { addr, rkey: mr.key, length });
        self
    }

    pub(crate) fn atomic(mut self, mr: Mr, at: u64, compare: u64, swap_add: u64) -> Self {
        self.headers.atomic_eth = Some(AtomicEth { addr: mr.addr + at, rkey: mr.key, swap_add, compare });
        self
    }

    pub(crate) fn imm(mut self, imm: u32) -> Self {
        self.headers.imm = Some(imm);
        self
    }

    pub(crate) fn invalidate(mut self, key: u32) -> Self {
        self.headers.ieth = Some(key);
        self
    }

    pub(crate) fn datagram(mut self, qkey: u32, grh: [u8; GRH]) -> Self {
        self.headers.deth = Some(Deth { qkey, src_qpn: Qpn::new(PEER_QPN).unwrap() });
        self.grh = grh;
        self
    }

    /// Hands it over; the next request has the PSN after it.
    pub(crate) fn go(self) {
        let psns = match self.headers.reth {
            Some(reth) if self.headers.bth.opcode == PacketOpcode::RcReadRequest => {
                reth.length.div_ceil(self.side.setup.mtu.bytes()).max(1)
            }
            _ => 1,
        };
        self.side.psn = self.headers.bth.psn.add(psns);
        self.again();
    }

    /// Hands it over, and changes nothing for later requests.
    pub(crate) fn again(self) {
        let Self { side, headers, payload, grh } = self;
        let packet = Packet { headers, payload: &payload };
        let incoming = Incoming { packet: &packet, grh: &grh, congestion: false };
        side.qp.handle_packet(Time::ZERO, &incoming, &mut side.world);
        side.run_actions(&payload);
    }
}

/// Bytes that differ by place and seed.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8).wrapping_add(seed)).collect()
}
