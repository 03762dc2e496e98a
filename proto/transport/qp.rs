//! A queue pair: its state, and the two halves that do the work.

use core::time::Duration;
use std::collections::VecDeque;

use super::requester::{Requester, Spans};
use super::responder::Responder;
use super::shared::{Fatal, Shared};
use super::{Action, Counters, Host, Incoming, Payload, Pending, Span, Transmit};
use crate::event::AsyncEventKind;
use crate::ident::Qpn;
use crate::limits::{DEFAULT_PKEY, DeviceAttr, PortAttr};
use crate::profile::Habits;
use crate::qp::{ModifyError, QpAttr, QpAttrMask, QpCap, QpState, QpType, check_modify, check_values};
use crate::region::PdHandle;
use crate::rules::{PostErrorKind, SendRules};
use crate::time::Time;
use crate::wire::{Headers, Service};
use crate::work::{SendWr, Sge};

/// What a queue pair is made with.
#[derive(Clone, Debug)]
pub struct QpConfig {
    /// Its number.
    pub qpn: Qpn,
    /// Its transport service.
    pub qp_type: QpType,
    /// Its protection domain.
    pub pd: PdHandle,
    /// The sizes of its queues, as granted.
    pub cap: QpCap,
    /// Whether its receives come from a shared queue, through [`Host::take_shared_receive`].
    pub shared_receives: bool,
    /// What the device can do.
    pub device: DeviceAttr,
    /// What the port can do.
    pub port: PortAttr,
    /// What the device does otherwise than others.
    pub habits: Habits,
}

/// Why a work request was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostFault {
    /// The queue pair's state does not take work.
    #[error("a queue pair in state {state} takes no such work: bring it to a later state first")]
    State {
        /// The state.
        state: QpState,
    },
    /// The queue is full.
    #[error("the queue holds {depth} work requests and they are all in use: poll completions first")]
    Full {
        /// Its depth.
        depth: u32,
    },
    /// The request itself is wrong.
    #[error(transparent)]
    Request(#[from] PostErrorKind),
    /// A receive has more scatter entries than granted.
    #[error("the receive has {count} scatter entries, the queue pair allows {max}")]
    TooManySges {
        /// Entries given.
        count: u32,
        /// Entries allowed.
        max: u32,
    },
    /// The queue pair takes its receives from a shared queue.
    #[error("the queue pair takes its receives from a shared queue: post them there")]
    SharedReceives,
}

/// Packets that one half may send before it is the other's turn.
const BURST: u8 = 16;
/// The shortest time between two congestion notifications to a peer.
const CNP_INTERVAL: Duration = Duration::from_micros(50);

/// A queue pair: a value that is told what happened and says what to do.
///
/// **After every call that takes `&mut self`, drain [`poll_action`](Self::poll_action) until it says `None`**; an
/// [`Action::Place`] is about the packet that was just handled. Then call [`poll_transmit`](Self::poll_transmit)
/// while the link has room, taking each packet's bytes by [`spans`](Self::spans) before the next call, and drain the
/// actions once more: a datagram is complete when it has been sent. At last ask [`poll_timeout`](Self::poll_timeout),
/// and call [`handle_timeout`](Self::handle_timeout) when that moment has come. Packets that have arrived are handled
/// before timeouts: what they say may make the timeout void.
#[derive(Debug)]
pub struct Qp {
    shared: Shared,
    rules: SendRules,
    device: DeviceAttr,
    port: PortAttr,
    requester: Requester,
    responder: Responder,
    actions: VecDeque<Action>,
    /// What neither half counts.
    counters: Counters,
    /// Packets the half whose turn it is has sent in this burst; the requester's up to `BURST`, then the responder's.
    turn: u8,
    /// A packet came while in RTR, and that was reported.
    established: bool,
    /// In SQD: the queue was found drained, and that was reported if asked for.
    drained: bool,
    /// A congestion notification must be sent.
    owes_cnp: bool,
    last_cnp: Option<Time>,
}

impl Qp {
    /// A queue pair in RESET. All storage it ever needs for its work is made here.
    pub fn new(config: QpConfig) -> Self {
        let QpConfig { qpn, qp_type, pd, ref cap, shared_receives, ref device, ref port, habits } = config;
        let rules = SendRules {
            qp_type,
            max_send_sge: cap.max_send_sge,
            max_inline_data: cap.max_inline_data,
            max_msg_size: port.max_msg_sz.into(),
            path_mtu: port.active_mtu,
            habits,
        };
        let shared = Shared {
            qpn,
            qp_type,
            pd,
            shared_receives,
            state: QpState::Reset,
            attr: QpAttr { cap: *cap, ..QpAttr::default() },
            mtu: port.active_mtu.bytes(),
            pkey: DEFAULT_PKEY,
            max_msg_size: rules.max_msg_size,
            habits,
            writes_apart: false,
            delivers: false,
        };
        Self {
            shared,
            rules,
            device: device.clone(),
            port: *port,
            requester: Requester::new(&config),
            responder: Responder::new(&config),
            actions: VecDeque::with_capacity(64),
            counters: Counters::default(),
            turn: 0,
            established: false,
            drained: false,
            owes_cnp: false,
            last_cnp: None,
        }
    }

    /// Whether each packet of a WRITE of four packets and more, without immediate data, is to be a WRITE of its own, on a reliable connection;
    /// at first it is not. Say so before anything is posted.
    ///
    /// Then all full packets of long WRITEs are equally long, as those of SENDs are, and links have a quicker way for such. Each says in its header how
    /// many bytes there are with all that follow, so that a WRITE which runs out of its region is refused before its first byte is placed. Only a
    /// peer that was told the same understands that.
    pub const fn write_apart(&mut self, apart: bool) {
        self.shared.writes_apart = apart && matches!(self.shared.qp_type, QpType::Rc);
    }

    /// Whether the way to the peer loses, doubles and reorders nothing while it is there, as a cable or a byte stream does not and a network does; at
    /// first it does. Say so before the queue pair is connected, and tell a reliable one with [`path_is_back`](Self::path_is_back) of an interruption.
    ///
    /// Silence then says nothing of packets, only that the peer is slow or gone. Nothing is sent again sooner than the queue pair's timeout says, and
    /// then one packet is, which asks the peer how far it is; and there is no congestion to make room for. `timeout` and `retry_cnt` bound the
    /// wait for a peer that is gone as they do anywhere.
    pub const fn path_delivers(&mut self, delivers: bool) {
        self.shared.delivers = delivers;
    }

    /// The way to the peer was interrupted, and is there again: what has not been acknowledged is sent again at once. Afterwards there may be packets to
    /// send. The time that a silence may take does not begin anew.
    pub fn path_is_back(&mut self) {
        if matches!(self.shared.state, QpState::Rts | QpState::Sqd) {
            self.requester.resume(&self.shared);
        }
    }

    /// Changes attributes and state (`ibv_modify_qp(3)`; IBTA volume 1, section 11.2.5.3). Afterwards there may be
    /// actions, packets to send, and another deadline.
    ///
    /// # Errors
    /// No such transition, or attributes that are missing, out of place or out of range. Nothing was changed.
    pub fn modify(&mut self, _now: Time, attr: &QpAttr, mask: QpAttrMask) -> Result<(), ModifyError> {
        let current = self.shared.state;
        let next = if mask.contains(QpAttrMask::STATE) { attr.qp_state } else { current };
        if mask.contains(QpAttrMask::CUR_STATE) && attr.cur_qp_state != current {
            return Err(ModifyError::WrongCurrentState { current, believed: attr.cur_qp_state });
        }
        check_modify(self.shared.qp_type, current, next, mask)?;
        check_values(attr, mask, &self.device, &self.port)?;
        self.store(attr, mask);
        self.requester.configure(&self.shared);
        match (current, next) {
            (_, QpState::Reset) => self.reset(),
            (_, QpState::Err) => self.fail(Fatal { event: None }),
            (QpState::Init, QpState::Rtr) => {
                self.shared.state = next;
                self.responder.connect(&self.shared);
            }
            (QpState::Rtr, QpState::Rts) => {
                self.shared.state = next;
                self.requester.connect(&self.shared);
            }
            _ => {
                self.drained &= current == QpState::Sqd;
                self.shared.state = next;
            }
        }
        self.settle();
        Ok(())
    }

    /// The attributes in force, and the state (`ibv_query_qp(3)`). `sq_psn` and `rq_psn` are those of the next
    /// packets, once there are any.
    pub fn query(&self) -> QpAttr {
        let state = self.shared.state;
        let mut attr = self.shared.attr;
        attr.qp_state = state;
        attr.cur_qp_state = state;
        attr.sq_draining = state == QpState::Sqd && !self.requester.is_drained();
        if matches!(state, QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe) {
            attr.rq_psn = self.responder.expected_psn();
            attr.sq_psn = self.requester.next_psn(&self.shared);
        }
        attr
    }

    /// The state it is in.
    #[inline]
    pub const fn state(&self) -> QpState {
        self.shared.state
    }

    /// What it has counted so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.merge(&self.requester.counters);
        counters.merge(&self.responder.counters);
        counters
    }

    /// Queues a send and answers its running number. `sges` or, if it is inline, `inline` are its own alone; `wr.sg`
    /// is not looked at. Afterwards there may be packets to send and, in an error state, completions.
    ///
    /// # Errors
    /// Nothing was queued, and why.
    #[inline]
    pub fn post_send(
        &mut self,
        _now: Time,
        wr: &SendWr,
        sges: &[Sge],
        inline: &[u8],
    ) -> Result<u32, PostFault> {
        self.requester.post_send(&self.shared, &self.rules, wr, sges, inline)
    }

    /// Queues a receive and answers its running number. Afterwards there may be an acknowledgement to send, which
    /// tells the peer of it, and in ERR a completion.
    ///
    /// # Errors
    /// Nothing was queued, and why.
    #[inline]
    pub fn post_recv(&mut self, _now: Time, wr_id: u64, sges: &[Sge]) -> Result<u32, PostFault> {
        let number = self.responder.post_recv(&self.shared, wr_id, sges)?;
        if self.shared.state == QpState::Err {
            self.responder.flush(&self.shared, &mut self.actions);
        }
        Ok(number)
    }

    /// Takes in a packet that was addressed to this queue pair, came from its peer (on UD: from anyone), and whose
    /// iCRC is right. Afterwards there may be actions, packets to send, and another deadline.
    #[inline]
    pub fn handle_packet(&mut self, now: Time, incoming: &Incoming<'_>, host: &mut impl Host) {
        let bth = &incoming.packet.headers.bth;
        if !self.takes(bth.opcode.service(), bth.pkey) {
            self.counters.dropped_pkts += 1;
            return;
        }
        self.counters.rcvd_pkts += 1;
        if incoming.congestion || bth.becn {
            self.handle_marks(now, incoming);
        }
        if bth.opcode.service() == Service::Cnp {
            return;
        }
        if self.shared.state == QpState::Rtr && !self.established && self.shared.qp_type.is_connected() {
            self.established = true;
            self.actions.push_back(Action::Event(AsyncEventKind::CommEst));
        }
        let Self { shared, responder, requester, actions, .. } = self;
        if bth.opcode.is_request() {
            if let Err(fatal) = responder.handle_request(now, incoming, shared, host, actions) {
                self.fail(fatal);
            }
        } else if matches!(shared.state, QpState::Rts | QpState::Sqd) {
            requester.handle_response(now, incoming, shared, host, actions);
            self.settle();
        }
    }

    /// Does what is due. Afterwards there may be actions, packets to send, and there is another deadline, or none.
    pub fn handle_timeout(&mut self, now: Time, _host: &mut impl Host) {
        self.responder.handle_timeout(now);
        if matches!(self.shared.state, QpState::Rts | QpState::Sqd) {
            self.requester.handle_timeout(now, &self.shared);
            self.settle();
        }
    }

    /// The queue pair is about to end: what it has received and not acknowledged yet, because nobody asked, is to be acknowledged. Afterwards
    /// there may be packets to send.
    pub fn acknowledge_now(&mut self) {
        self.responder.acknowledge_now();
    }

    /// The old value that the last [`Action::Atomic`] found. Afterwards there is an answer to send.
    pub fn atomic_done(&mut self, old: u64) {
        self.responder.atomic_done(old);
    }

    /// Whether [`poll_action`](Self::poll_action) has something: a quick look.
    #[inline]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty() || self.requester.has_completions()
    }

    /// The next thing to do, or `None` until something else happens.
    #[inline]
    pub fn poll_action(&mut self) -> Option<Action> {
        // A completion comes after the bytes it is about.
        match self.actions.pop_front() {
            None => self.requester.poll_completion(&self.shared),
            action => action,
        }
    }

    /// What there is to send. Ask again after anything else was called. If it is not [`Pending::Nothing`],
    /// [`poll_transmit`](Self::poll_transmit) gets on, though what it does may be to fail a work request and send
    /// nothing.
    #[inline]
    pub fn pending(&self, now: Time) -> Pending {
        if self.owes_cnp
            || self.requester.is_ready(&self.shared)
            || self.requester.is_asking(now, &self.shared)
        {
            return Pending::More;
        }
        self.responder.pending(now)
    }

    /// The next packet to send, or `None` until something else happens. The halves take turns, and a mere
    /// acknowledgement comes last. What is returned counts as sent. When there is no more, drain the actions: work
    /// requests may have completed, or failed.
    #[inline]
    pub fn poll_transmit(&mut self, now: Time, host: &mut impl Host) -> Option<Transmit> {
        if self.owes_cnp {
            return self.notify_congestion(now);
        }
        if self.turn < BURST {
            let transmit = self.poll_requester(now, host);
            if transmit.is_some() {
                self.turn += 1;
                return transmit;
            }
            self.turn = BURST;
        }
        if self.turn < 2 * BURST && self.responder.pending(now) == Pending::More {
            self.turn += 1;
            let transmit = self.poll_responder(now, host);
            if transmit.is_some() {
                return transmit;
            }
        }
        self.turn = 0;
        let transmit = self.poll_requester(now, host);
        if transmit.is_some() {
            self.turn = 1;
            return transmit;
        }
        match self.responder.pending(now) {
            Pending::Nothing => None,
            Pending::AckOnly | Pending::More => self.poll_responder(now, host),
        }
    }

    /// The runs of bytes that make up the payload of the packet that was just returned by
    /// [`poll_transmit`](Self::poll_transmit), in order.
    #[inline]
    pub fn spans(&self, payload: &Payload) -> impl Iterator<Item = Span<'_>> {
        match *payload {
            Payload::Empty => Spans::One(None),
            Payload::Message { wq_index, offset, len } => self.requester.spans(wq_index, offset, len),
            Payload::Region { key, addr, len } => Spans::One(Some(Span::Region { key, addr, len })),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), or `None` until something else happens.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Time> {
        match (self.requester.poll_timeout(&self.shared), self.responder.poll_timeout()) {
            (Some(sending), Some(answering)) => Some(sending.min(answering)),
            (sending, answering) => sending.or(answering),
        }
    }

    #[inline]
    fn poll_requester(&mut self, now: Time, host: &mut impl Host) -> Option<Transmit> {
        let transmit = self.requester.poll_transmit(now, &self.shared, host);
        self.settle();
        transmit
    }

    fn poll_responder(&mut self, now: Time, host: &impl Host) -> Option<Transmit> {
        let transmit = self.responder.poll_transmit(now, &self.shared, host);
        if let Some(fatal) = self.responder.take_fatal() {
            self.fail(fatal);
        }
        transmit
    }

    /// Whether a packet fits state, service and partition (IBTA volume 1, sections 9.6.1 and 10.9.3): the low bits of
    /// the partition keys are the same, and one of the two is a full member.
    #[inline]
    const fn takes(&self, service: Service, pkey: u16) -> bool {
        let ready = matches!(self.shared.state, QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe);
        let ours = match service {
            Service::Rc => matches!(self.shared.qp_type, QpType::Rc),
            Service::Uc => matches!(self.shared.qp_type, QpType::Uc),
            Service::Ud => matches!(self.shared.qp_type, QpType::Ud),
            Service::Cnp => return ready,
        };
        const MEMBER: u16 = 1 << 15;
        ready && ours && (pkey ^ self.shared.pkey) & !MEMBER == 0 && (pkey | self.shared.pkey) & MEMBER != 0
    }

    /// Congestion: on the way here the peer is told, on the way there our sending slows down.
    #[cold]
    fn handle_marks(&mut self, now: Time, incoming: &Incoming<'_>) {
        let bth = &incoming.packet.headers.bth;
        let is_notice = bth.opcode.service() == Service::Cnp;
        if is_notice {
            self.counters.rcvd_cnp += 1;
        }
        if bth.becn {
            self.requester.on_congestion(now);
        }
        if incoming.congestion {
            self.counters.rcvd_ecn_marked += 1;
            let due = self.last_cnp.is_none_or(|last| now.since(last) >= CNP_INTERVAL);
            self.owes_cnp |= due && !is_notice && self.shared.qp_type.is_connected();
        }
    }

    #[cold]
    fn notify_congestion(&mut self, now: Time) -> Option<Transmit> {
        self.owes_cnp = false;
        self.last_cnp = Some(now);
        self.counters.sent_cnp += 1;
        self.counters.sent_pkts += 1;
        let headers = Headers::cnp(self.shared.attr.dest_qp_num);
        Some(Transmit { headers, payload: Payload::Empty, to: super::To::Peer })
    }

    /// What follows from what the requester did: a failed work request changes the state; a drained queue is reported.
    #[inline]
    fn settle(&mut self) {
        if self.requester.take_failure() {
            self.fail_sends();
        }
        if self.shared.state == QpState::Sqd && !self.drained && self.requester.is_drained() {
            self.drained = true;
            if self.shared.attr.en_sqd_async_notify {
                self.actions.push_back(Action::Event(AsyncEventKind::SqDrained));
            }
        }
    }

    /// A work request failed. RC goes to ERR; without a connection that both sides keep, only sending stops (IBTA
    /// volume 1, section 10.3.1).
    #[cold]
    fn fail_sends(&mut self) {
        if self.shared.qp_type == QpType::Rc {
            self.fail(Fatal { event: None });
        } else {
            self.shared.state = QpState::Sqe;
            self.requester.flush();
        }
    }

    /// To ERR: both halves are flushed.
    #[cold]
    fn fail(&mut self, fatal: Fatal) {
        self.shared.state = QpState::Err;
        if let Some(event) = fatal.event {
            self.actions.push_back(Action::Event(event));
        }
        self.requester.flush();
        // What failed completes before what is flushed for it: programs look at the first completion that is no success.
        while let Some(completion) = self.requester.poll_completion(&self.shared) {
            self.actions.push_back(completion);
        }
        self.responder.flush(&self.shared, &mut self.actions);
    }

    fn reset(&mut self) {
        self.shared.state = QpState::Reset;
        self.shared.attr = QpAttr { cap: self.shared.attr.cap, ..QpAttr::default() };
        self.requester.reset();
        self.responder.reset();
        self.actions.clear();
        self.turn = 0;
        self.established = false;
        self.drained = false;
        self.owes_cnp = false;
    }

    /// Takes over the attributes that the mask names.
    fn store(&mut self, attr: &QpAttr, mask: QpAttrMask) {
        let stored = &mut self.shared.attr;
        /// Copies the fields whose bits are set.
        macro_rules! take {
            ($($bit:ident $field:ident,)*) => { $( if mask.contains(QpAttrMask::$bit) { stored.$field = attr.$field; } )* };
        }
        take! {
            EN_SQD_ASYNC_NOTIFY en_sqd_async_notify,
            ACCESS_FLAGS qp_access_flags,
            PKEY_INDEX pkey_index,
            PORT port_num,
            QKEY qkey,
            AV ah_attr,
            PATH_MTU path_mtu,
            TIMEOUT timeout,
            RETRY_CNT retry_cnt,
            RNR_RETRY rnr_retry,
            RQ_PSN rq_psn,
            MAX_QP_RD_ATOMIC max_rd_atomic,
            MIN_RNR_TIMER min_rnr_timer,
            SQ_PSN sq_psn,
            MAX_DEST_RD_ATOMIC max_dest_rd_atomic,
            DEST_QPN dest_qp_num,
        }
        if self.shared.qp_type.is_connected() && mask.contains(QpAttrMask::PATH_MTU) {
            self.shared.mtu = attr.path_mtu.bytes();
        }
    }
}
