//! The half of a queue pair that answers: what it does with requests that come, and what it says to them.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | the half itself: its life, its receives, what it sends |
//! | `rc` | requests on a reliable connection: which is expected, which is repeated, how one is refused |
//! | `uc`, `ud` | messages of an unreliable connection; datagrams |
//! | `message` | the packets of SEND and WRITE, the same on both connections |
//! | `grants` | how many messages an unreliable sender that waits for receives may send |
//! | `landing` | the receive that a message goes to |
//! | `answers` | what a reliable responder has to say, in order, and what it keeps to say again |
//!
//! Every rule is checked before anything of a packet takes effect (IBTA volume 1, sections 9.7.4 and 9.8).

mod answers;
mod grants;
mod landing;
mod message;
mod rc;
mod uc;
mod ud;

use core::time::Duration;
use std::collections::VecDeque;

use self::answers::{Answers, Kind, MSN_MASK, Reply, What};
use self::grants::Grants;
use self::landing::Landing;
use self::message::Message;
use super::receive_queue::ReceiveQueue;
use super::shared::{Fatal, Shared};
use super::{Action, Counters, Half, Host, Incoming, Payload, Pending, PostFault, QpConfig, To, Transmit};
use crate::event::AsyncEventKind;
use crate::flags::Access;
use crate::ident::Psn;
use crate::planted::{self, Bug};
use crate::qp::{QpState, QpType};
use crate::time::Time;
use crate::wire::{Aeth, CREDITS_UNUSED, Headers, NakCode, PacketOpcode, Service, Syndrome, credit_code};
use crate::work::{Sge, WcOpcode, WcStatus, WorkCompletion};

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// There is no receive for it.
    NoReceive,
    /// It makes no sense here.
    Invalid,
    /// A remote key, its bounds or its rights are wrong.
    Access,
    /// The message is longer than its receive.
    TooLong,
    /// The receive names memory that may not be written.
    Protection,
}

/// The responding half of a queue pair.
#[derive(Debug)]
pub(super) struct Responder {
    /// What it has counted.
    pub(super) counters: Counters,
    queue: ReceiveQueue,
    landing: Landing,
    /// The PSN of the next request.
    expected: Psn,
    /// PSNs before `expected` that belong to this connection, as far as they can be told apart.
    behind: u32,
    /// Requests completed, 24 bits.
    msn: u32,
    message: Message,
    /// The requester was told to go back to `expected`; what comes before it does so is not answered.
    told: bool,
    answers: Answers,
    /// The connection ended with a refusal, the last thing that the peer is told.
    refusing: bool,
    /// Found while sending; see [`take_fatal`](Self::take_fatal).
    fatal: Option<Fatal>,
    /// The requester was last told that there is no receive for it.
    starved: bool,
    /// The end of a shared queue's use was reported.
    reported_last: bool,
    /// By when what nobody asked to acknowledge is acknowledged, so that the requester does not take it for lost.
    owed: Option<Time>,
    grants: Grants,
}

/// How long an acknowledgement that was not asked for may wait for one that is: well below what any requester takes for silence.
const UNASKED: Duration = Duration::from_micros(500);

impl Responder {
    /// The half of a queue pair in RESET.
    pub(super) fn new(config: &QpConfig) -> Self {
        let depth = if config.shared_receives { 0 } else { config.cap.max_recv_wr };
        Self {
            counters: Counters::default(),
            queue: ReceiveQueue::new(config.pd, depth, config.cap.max_recv_sge),
            landing: Landing::default(),
            expected: Psn::default(),
            behind: 0,
            msn: 0,
            message: Message::None,
            told: false,
            answers: Answers::default(),
            refusing: false,
            fatal: None,
            starved: false,
            reported_last: false,
            owed: None,
            grants: Grants::default(),
        }
    }

    /// To RESET: everything is forgotten but the counters.
    pub(super) fn reset(&mut self) {
        self.queue.clear();
        self.landing.forget();
        self.answers.reset(0);
        self.refusing = false;
        self.fatal = None;
        self.starved = false;
        self.reported_last = false;
        self.owed = None;
        self.grants.stop();
    }

    /// To RTR.
    pub(super) fn connect(&mut self, ctx: &Shared) {
        self.expected = ctx.attr.rq_psn;
        self.behind = 0;
        self.msn = 0;
        self.message = Message::None;
        self.told = false;
        self.owed = None;
        self.grants = Grants::default();
        self.answers.reset(if ctx.qp_type == QpType::Rc { ctx.attr.max_dest_rd_atomic } else { 0 });
    }

    /// The PSN of the next request.
    pub(super) const fn expected_psn(&self) -> Psn {
        self.expected
    }

    /// Queues a receive and answers its running number. In ERR, [`flush`](Self::flush) afterwards.
    pub(super) fn post_recv(&mut self, ctx: &Shared, wr_id: u64, sges: &[Sge]) -> Result<u32, PostFault> {
        if ctx.shared_receives {
            return Err(PostFault::SharedReceives);
        }
        if !ctx.state.may_post_recv() {
            return Err(PostFault::State { state: ctx.state });
        }
        let number = self.queue.post(wr_id, sges)?;
        if core::mem::take(&mut self.starved) && ctx.state != QpState::Err {
            // A requester without credits learns that there are some (IBTA volume 1, section 9.7.7.2).
            self.answers.say_again(self.expected, self.msn);
        }
        self.consider_granting(ctx);
        Ok(number)
    }

    /// Takes in a request. The packet's service, partition key and state have been checked.
    ///
    /// # Errors
    /// The connection has ended: the queue pair goes to ERR.
    pub(super) fn handle_request(
        &mut self,
        now: Time,
        incoming: &Incoming<'_>,
        ctx: &Shared,
        host: &mut impl Host,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Fatal> {
        match (ctx.qp_type, incoming.packet.headers.bth.opcode.service()) {
            (QpType::Rc, Service::Rc) => self.handle_reliable(now, incoming, ctx, host, actions),
            (QpType::Uc, Service::Uc) => self.handle_unreliable(incoming, ctx, host, actions),
            (QpType::Ud, Service::Ud) => self.handle_datagram(incoming, ctx, host, actions),
            _ => {
                self.counters.dropped_pkts += 1;
                Ok(())
            }
        }
    }

    /// The old value of the oldest atomic that was asked for and not answered yet.
    pub(super) fn atomic_done(&mut self, old: u64) {
        self.answers.atomic_done(old);
    }

    /// In ERR: every receive completes as flushed, in order, the one taken for a message first. Of what was to be sent only a refusal,
    /// and what must come before it, is kept.
    pub(super) fn flush(&mut self, ctx: &Shared, actions: &mut VecDeque<Action>) {
        if !self.refusing {
            self.answers.drop_replies();
        }
        self.owed = None;
        self.grants.stop();
        self.message = Message::None;
        while !(planted::is(Bug::ReceiveNotFlushed) && self.queue.len() == 1) && self.hold_own_receive() {
            self.complete(ctx, actions, WcStatus::WrFlushErr, true, WorkCompletion::default());
        }
        if ctx.shared_receives && !self.reported_last {
            self.reported_last = true;
            actions.push_back(Action::Event(AsyncEventKind::QpLastWqeReached));
        }
    }

    /// Whether there is something to send. Ask again after anything else was called.
    pub(super) fn pending(&self, _now: Time) -> Pending {
        match self.answers.front() {
            None if self.grants.is_owed() => Pending::AckOnly,
            None => Pending::Nothing,
            Some(Reply { what: What::Ack, .. }) if self.answers.len() == 1 => Pending::AckOnly,
            Some(Reply { what: What::Atomic, psn, .. }) if self.answers.old_value(psn).is_none() => {
                Pending::Nothing
            }
            Some(_) => Pending::More,
        }
    }

    /// The next packet to send. In ERR there is one as long as a refusal has not left. Look at [`take_fatal`](Self::take_fatal)
    /// afterwards.
    pub(super) fn poll_transmit(&mut self, _now: Time, ctx: &Shared, host: &impl Host) -> Option<Transmit> {
        let Some(mut reply) = self.answers.front() else {
            let grant = self.grants.is_owed().then(|| self.grant(ctx));
            self.counters.sent_pkts += u64::from(grant.is_some());
            return grant;
        };
        if let What::Read { rkey, addr, left, .. } = reply.what {
            let len = u64::from(left.min(ctx.mtu));
            if len > 0 && host.check_remote(ctx.pd, rkey, Access::REMOTE_READ, addr, len).is_err() {
                // The region has gone since the request was checked. What comes after cannot be answered any more.
                self.answers.drop_replies();
                self.fatal = Some(self.refuse(reply.psn, Refusal::Access));
                reply = self.answers.front()?;
            }
        }
        let transmit = self.packet(ctx, &reply)?;
        if matches!(reply.what, What::Ack) && reply.psn.next() == self.expected {
            self.owed = None;
        }
        self.answers.sent(transmit.payload.len());
        self.counters.sent_pkts += 1;
        Some(transmit)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[inline]
    pub(super) const fn poll_timeout(&self) -> Option<Time> {
        self.owed
    }

    /// Acknowledges what nobody asked to acknowledge, if its time has come.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        if self.owed.take_if(|due| *due <= now).is_some() {
            self.answers.say_again(self.expected, self.msn);
        }
    }

    /// Acknowledges now what nobody asked to acknowledge.
    pub(super) fn acknowledge_now(&mut self) {
        self.handle_timeout(Time::NEVER);
    }

    /// What [`poll_transmit`](Self::poll_transmit) has met, once: the queue pair goes to ERR.
    pub(super) const fn take_fatal(&mut self) -> Option<Fatal> {
        self.fatal.take()
    }

    /// The next packet of a reply; none if it cannot be made yet.
    fn packet(&mut self, ctx: &Shared, reply: &Reply) -> Option<Transmit> {
        let mut aeth = Some(Aeth { syndrome: Syndrome::Ack { credits: 0 }, msn: reply.msn });
        let mut atomic_ack_eth = None;
        let mut payload = Payload::Empty;
        let opcode = match reply.what {
            What::Ack => PacketOpcode::RcAcknowledge,
            What::Nak(syndrome) => {
                aeth = Some(Aeth { syndrome, msn: reply.msn });
                PacketOpcode::RcAcknowledge
            }
            What::Atomic => {
                atomic_ack_eth = Some(self.answers.old_value(reply.psn)?);
                PacketOpcode::RcAtomicAcknowledge
            }
            What::Read { rkey, addr, left, started, .. } => {
                let len = left.min(ctx.mtu);
                if len > 0 {
                    payload = Payload::Region { key: rkey, addr, len };
                }
                match (started, len == left) {
                    (false, false) => PacketOpcode::RcReadResponseFirst,
                    (false, true) => PacketOpcode::RcReadResponseOnly,
                    (true, true) => PacketOpcode::RcReadResponseLast,
                    (true, false) => {
                        aeth = None;
                        PacketOpcode::RcReadResponseMiddle
                    }
                }
            }
        };
        if let Some(Aeth { syndrome: Syndrome::Ack { credits }, .. }) = &mut aeth {
            *credits = self.credits(ctx);
        }
        let mut headers = Headers::new(ctx.bth(opcode, reply.psn));
        headers.bth.pad = (payload.len().wrapping_neg() & 3) as u8;
        headers.aeth = aeth;
        headers.atomic_ack_eth = atomic_ack_eth;
        Some(Transmit { headers, payload, to: To::Peer })
    }

    /// How many receives there are, as acknowledgements say it. Nobody can say it of a queue that others take from.
    fn credits(&mut self, ctx: &Shared) -> u8 {
        if ctx.shared_receives {
            return CREDITS_UNUSED;
        }
        self.starved = self.queue.len() == 0;
        credit_code(self.queue.len())
    }

    /// Holds a receive for a message. False if there is none.
    fn hold_receive(&mut self, ctx: &Shared, host: &mut impl Host) -> bool {
        if ctx.shared_receives {
            return self.landing.hold(|receive| host.take_shared_receive(receive));
        }
        self.hold_own_receive()
    }

    fn hold_own_receive(&mut self) -> bool {
        let Self { landing, queue, .. } = self;
        landing.hold(|receive| queue.take(receive))
    }

    /// Completes the receive that is held. `wc` says what is particular about it.
    fn complete(
        &mut self,
        ctx: &Shared,
        actions: &mut VecDeque<Action>,
        status: WcStatus,
        solicited: bool,
        wc: WorkCompletion,
    ) {
        let (receive, filled) = self.landing.finish();
        let wc = WorkCompletion {
            wr_id: receive.wr_id,
            status,
            opcode: if wc.opcode.is_recv() { wc.opcode } else { WcOpcode::Recv },
            byte_len: if wc.opcode == WcOpcode::RecvRdmaWithImm { wc.byte_len } else { filled },
            qp_num: ctx.qpn,
            wq_index: receive.wq_index,
            ..wc
        };
        actions.push_back(Action::Complete { half: Half::Receive, wc, solicited });
    }

    /// Queues the refusal of the request at `psn`, which ends the connection.
    fn refuse(&mut self, psn: Psn, refusal: Refusal) -> Fatal {
        let (code, event) = match refusal {
            Refusal::Access => (NakCode::RemoteAccessError, Some(AsyncEventKind::QpAccessErr)),
            // The completion of the receive says it.
            Refusal::Protection => (NakCode::RemoteOperationalError, None),
            Refusal::NoReceive | Refusal::Invalid | Refusal::TooLong => {
                (NakCode::InvalidRequest, Some(AsyncEventKind::QpReqErr))
            }
        };
        self.counters.send_nak_err += 1;
        self.answers.refuse(psn, self.msn, Syndrome::Nak(code));
        self.refusing = true;
        Fatal { event }
    }

    /// One more request has been completed.
    const fn count_message(&mut self) {
        self.msn = self.msn.wrapping_add(1) & MSN_MASK;
    }
}
