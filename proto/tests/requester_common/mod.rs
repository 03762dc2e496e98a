//! What the tests of the requester share: one queue pair, a peer made of answers written by hand, and time that only
//! moves when told.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

pub(crate) mod duplex;

use core::time::Duration;
use tbrdma_proto::transport::{Action, Half, Host, Incoming, Pending, Qp, QpConfig, Receive, Span, Transmit};
use tbrdma_proto::wire::{Aeth, Bth, Headers, NakCode, Packet, PacketOpcode, Syndrome};
use tbrdma_proto::{
    Access, AsyncEventKind, DeviceAttr, Gid, Habits, Mtu, Opcode, PdHandle, PortAttr, Psn, QpAttr,
    QpAttrMask, QpCap, QpState, QpType, Qpn, RegionError, RemoteAddr, SendFlags, SendWr, Sge, Time,
    UdDestination, WcStatus, WorkCompletion,
};

/// The key of all local memory.
pub(crate) const LKEY: u32 = 0x100;
/// The key of the peer's memory.
pub(crate) const RKEY: u32 = 0x200;
/// Where the peer's memory begins.
pub(crate) const REMOTE: u64 = 0x7000_0000;
/// The peer's queue pair.
pub(crate) const PEER: u32 = 0x222;
/// Our queue pair.
pub(crate) const OWN: u32 = 0x111;
/// Our first PSN, unless a test says otherwise.
pub(crate) const SQ_PSN: u32 = 1000;
/// The acknowledgement timeout of the test queue pairs: code 14.
pub(crate) const TIMEOUT: Duration = Duration::from_nanos(4096 << 14);

/// A host with keys that are good or bad.
#[derive(Default)]
pub(crate) struct Keys {
    /// Local keys that are refused.
    pub(crate) bad: Vec<u32>,
    /// Keys that were invalidated.
    pub(crate) invalidated: Vec<u32>,
}

impl Host for Keys {
    fn check(&self, _: PdHandle, key: u32, _: Access, _: u64, _: u64) -> Result<(), RegionError> {
        if self.bad.contains(&key) { Err(RegionError::KeyMismatch { key }) } else { Ok(()) }
    }

    fn invalidate(&mut self, _: PdHandle, key: u32) -> Result<(), RegionError> {
        self.check(PdHandle(0), key, Access::empty(), 0, 0)?;
        self.invalidated.push(key);
        Ok(())
    }

    fn take_shared_receive(&mut self, _: &mut Receive) -> bool {
        false
    }
}

/// The queue pair under test and all it did.
pub(crate) struct Rig {
    pub(crate) qp: Qp,
    pub(crate) host: Keys,
    pub(crate) now: Time,
    /// Everything it asked for, in order, since it was last looked at.
    pub(crate) actions: Vec<Action>,
}

/// How the queue pair is made.
pub(crate) struct Setup {
    pub(crate) qp_type: QpType,
    pub(crate) mtu: Mtu,
    pub(crate) sq_psn: u32,
    pub(crate) max_rd_atomic: u8,
    pub(crate) timeout: u8,
    pub(crate) retry_cnt: u8,
    pub(crate) rnr_retry: u8,
    pub(crate) depth: u32,
    pub(crate) habits: Habits,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            qp_type: QpType::Rc,
            mtu: Mtu::B1024,
            sq_psn: SQ_PSN,
            max_rd_atomic: 16,
            timeout: 14,
            retry_cnt: 7,
            rnr_retry: 7,
            depth: 64,
            habits: Habits::default(),
        }
    }
}

impl Setup {
    pub(crate) fn of(qp_type: QpType) -> Self {
        Self { qp_type, ..Self::default() }
    }

    /// A queue pair in RTS.
    pub(crate) fn rts(&self) -> Rig {
        let mut rig = self.rtr();
        let mut mask = QpAttrMask::STATE | QpAttrMask::SQ_PSN;
        if self.qp_type == QpType::Rc {
            mask |= QpAttrMask::TIMEOUT
                | QpAttrMask::RETRY_CNT
                | QpAttrMask::RNR_RETRY
                | QpAttrMask::MAX_QP_RD_ATOMIC;
        }
        let attr = QpAttr {
            qp_state: QpState::Rts,
            sq_psn: Psn::masked(self.sq_psn),
            timeout: self.timeout,
            retry_cnt: self.retry_cnt,
            rnr_retry: self.rnr_retry,
            max_rd_atomic: self.max_rd_atomic,
            ..QpAttr::default()
        };
        rig.qp.modify(rig.now, &attr, mask).unwrap();
        rig.drain();
        rig
    }

    /// A queue pair in RTR.
    pub(crate) fn rtr(&self) -> Rig {
        let mut rig = self.reset();
        let mut mask = QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT;
        mask |= if self.qp_type == QpType::Ud { QpAttrMask::QKEY } else { QpAttrMask::ACCESS_FLAGS };
        let attr = QpAttr {
            qp_state: QpState::Init,
            port_num: 1,
            qkey: 0x77,
            qp_access_flags: Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC,
            ..QpAttr::default()
        };
        rig.qp.modify(rig.now, &attr, mask).unwrap();
        let mut mask = QpAttrMask::STATE;
        if self.qp_type != QpType::Ud {
            mask |= QpAttrMask::AV | QpAttrMask::PATH_MTU | QpAttrMask::DEST_QPN | QpAttrMask::RQ_PSN;
        }
        if self.qp_type == QpType::Rc {
            mask |= QpAttrMask::MAX_DEST_RD_ATOMIC | QpAttrMask::MIN_RNR_TIMER;
        }
        let mut attr = QpAttr {
            qp_state: QpState::Rtr,
            path_mtu: self.mtu,
            dest_qp_num: Qpn::new(PEER).unwrap(),
            rq_psn: Psn::masked(5),
            max_dest_rd_atomic: 16,
            min_rnr_timer: 12,
            ..QpAttr::default()
        };
        attr.ah_attr.port_num = 1;
        attr.ah_attr.is_global = true;
        attr.ah_attr.dgid = Gid::default();
        rig.qp.modify(rig.now, &attr, mask).unwrap();
        rig
    }

    /// A queue pair as created.
    pub(crate) fn reset(&self) -> Rig {
        let config = QpConfig {
            qpn: Qpn::new(OWN).unwrap(),
            qp_type: self.qp_type,
            pd: PdHandle(3),
            cap: QpCap {
                max_send_wr: self.depth,
                max_recv_wr: 64,
                max_send_sge: 4,
                max_recv_sge: 4,
                max_inline_data: 128,
            },
            shared_receives: false,
            device: DeviceAttr::default(),
            port: PortAttr::default(),
            habits: self.habits,
        };
        Rig { qp: Qp::new(config), host: Keys::default(), now: Time(1_000_000), actions: Vec::new() }
    }
}

/// A signaled work request without operands.
pub(crate) fn wr(wr_id: u64, opcode: Opcode) -> SendWr {
    SendWr {
        wr_id,
        opcode,
        flags: SendFlags::SIGNALED,
        imm_data: 0,
        remote: RemoteAddr { addr: REMOTE, rkey: RKEY },
        compare_add: 0,
        swap: 0,
        ud: None,
        first_sge: 0,
        num_sge: 0,
    }
}

/// One entry of `length` bytes.
pub(crate) fn sge(length: u32) -> Sge {
    Sge { addr: 0x1000, length, lkey: LKEY }
}

impl Rig {
    /// An RC queue pair in RTS.
    pub(crate) fn rc() -> Self {
        Setup::default().rts()
    }

    pub(crate) fn post(&mut self, wr: &SendWr, sges: &[Sge]) -> u32 {
        let number = self.qp.post_send(self.now, wr, sges, &[]).unwrap();
        self.drain();
        number
    }

    /// Posts a SEND of so many bytes.
    pub(crate) fn send(&mut self, wr_id: u64, length: u32) -> u32 {
        self.post(&wr(wr_id, Opcode::Send), &[sge(length)])
    }

    /// Posts a READ of so many bytes.
    pub(crate) fn read(&mut self, wr_id: u64, length: u32) -> u32 {
        self.post(&wr(wr_id, Opcode::RdmaRead), &[sge(length)])
    }

    /// Everything it sends now.
    pub(crate) fn sent(&mut self) -> Vec<Transmit> {
        let mut sent = Vec::new();
        while let Some(transmit) = self.qp.poll_transmit(self.now, &mut self.host) {
            sent.push(transmit);
            assert!(sent.len() < 100_000, "it never stops sending");
        }
        assert_eq!(self.qp.pending(self.now), Pending::Nothing, "it says that there is more");
        self.drain();
        sent
    }

    /// The next packet, or none.
    pub(crate) fn one(&mut self) -> Option<Transmit> {
        let transmit = self.qp.poll_transmit(self.now, &mut self.host);
        self.drain();
        transmit
    }

    /// PSNs of what it sends now, counted from [`SQ_PSN`].
    pub(crate) fn sent_psns(&mut self) -> Vec<i32> {
        self.sent().iter().map(|transmit| index(transmit.headers.bth.psn)).collect()
    }

    /// Takes in an answer with these headers and payload.
    pub(crate) fn answer(&mut self, headers: Headers, payload: &[u8]) {
        let incoming = Incoming { packet: &Packet { headers, payload }, grh: &[0; 40], congestion: false };
        self.qp.handle_packet(self.now, &incoming, &mut self.host);
        self.drain();
    }

    /// Takes in an acknowledgement packet; `index` counts from [`SQ_PSN`].
    pub(crate) fn acknowledge(&mut self, index: i32, syndrome: Syndrome) {
        self.answer(aeth(PacketOpcode::RcAcknowledge, psn(index), syndrome, 0), &[]);
    }

    /// A positive acknowledgement without credits.
    pub(crate) fn ack(&mut self, index: i32) {
        self.acknowledge(index, Syndrome::Ack { credits: 31 });
    }

    pub(crate) fn nak(&mut self, index: i32, code: NakCode) {
        self.acknowledge(index, Syndrome::Nak(code));
    }

    pub(crate) fn rnr(&mut self, index: i32, timer: u8) {
        self.acknowledge(index, Syndrome::RnrNak { timer });
    }

    /// One packet of a READ's answer.
    pub(crate) fn response(&mut self, index: i32, opcode: PacketOpcode, len: usize) {
        let mut headers = aeth(opcode, psn(index), Syndrome::Ack { credits: 31 }, 0);
        if !opcode.has_aeth() {
            headers.aeth = None;
        }
        self.answer(headers, &vec![7; len]);
    }

    /// The answer to an atomic.
    pub(crate) fn old_value(&mut self, index: i32, old: u64) {
        let ack = Syndrome::Ack { credits: 31 };
        let mut headers = aeth(PacketOpcode::RcAtomicAcknowledge, psn(index), ack, 0);
        headers.atomic_ack_eth = Some(old);
        self.answer(headers, &[]);
    }

    /// Lets time pass, up to the next deadline and no further if there is one before the end. True if there was.
    pub(crate) fn sleep(&mut self, duration: Duration) -> bool {
        let end = self.now + duration;
        match self.qp.poll_timeout() {
            Some(deadline) if deadline <= end => {
                self.now = self.now.max(deadline);
                self.qp.handle_timeout(self.now, &mut self.host);
                self.drain();
                true
            }
            _ => {
                self.now = end;
                false
            }
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.qp.poll_action() {
            self.actions.push(action);
        }
    }

    /// The actions so far, which are then forgotten.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The send completions so far as (wr_id, status), which are then forgotten with all other actions.
    pub(crate) fn completed(&mut self) -> Vec<(u64, WcStatus)> {
        self.completions().iter().map(|wc| (wc.wr_id, wc.status)).collect()
    }

    /// The send completions so far; all actions are then forgotten.
    pub(crate) fn completions(&mut self) -> Vec<WorkCompletion> {
        let actions = self.take_actions();
        let completions = actions.iter().filter_map(|action| match action {
            Action::Complete { half: Half::Send, wc, .. } => Some(*wc),
            _ => None,
        });
        completions.collect()
    }

    /// The events so far; all actions are then forgotten.
    pub(crate) fn events(&mut self) -> Vec<AsyncEventKind> {
        let actions = self.take_actions();
        let events = actions.iter().filter_map(|action| match action {
            Action::Event(event) => Some(*event),
            _ => None,
        });
        events.collect()
    }

    /// Addresses and lengths of a packet's payload.
    pub(crate) fn gather(&self, transmit: &Transmit) -> Vec<(u64, u32)> {
        let spans = self.qp.spans(&transmit.payload);
        let runs = spans.map(|span| match span {
            Span::Region { addr, len, .. } => (addr, len),
            Span::Bytes(bytes) => (0, bytes.len() as u32),
        });
        runs.collect()
    }

    pub(crate) fn modify(&mut self, state: QpState) {
        let attr = QpAttr { qp_state: state, en_sqd_async_notify: true, ..QpAttr::default() };
        let mut mask = QpAttrMask::STATE;
        if state == QpState::Sqd {
            mask |= QpAttrMask::EN_SQD_ASYNC_NOTIFY;
        }
        self.qp.modify(self.now, &attr, mask).unwrap();
        self.drain();
    }
}

/// The PSN `index` after the first.
pub(crate) fn psn(index: i32) -> Psn {
    Psn::masked(SQ_PSN.wrapping_add_signed(index))
}

/// The reverse.
pub(crate) fn index(psn: Psn) -> i32 {
    psn.distance_from(Psn::masked(SQ_PSN))
}

/// The headers of an answer.
pub(crate) fn aeth(opcode: PacketOpcode, psn: Psn, syndrome: Syndrome, msn: u32) -> Headers {
    let mut headers = Headers::new(bth(opcode, psn));
    headers.aeth = Some(Aeth { syndrome, msn });
    headers
}

/// A base header from the peer to us.
pub(crate) fn bth(opcode: PacketOpcode, psn: Psn) -> Bth {
    Bth::new(opcode, Qpn::new(OWN).unwrap(), psn)
}

/// To a datagram queue pair.
pub(crate) fn to(ah: u32, qpn: u32, qkey: u32) -> Option<UdDestination> {
    Some(UdDestination { ah, qpn: Qpn::new(qpn).unwrap(), qkey })
}
