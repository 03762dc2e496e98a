//! `modify_qp`: finding the peer, moving through the states, starting over.

use super::core::{lock, slot_of};
use super::peer;
use super::qp::{Receives, ShmQp};
use super::remote::Remote;
use super::send::{Patience, SendState};
use super::transfer::Seen;
use crate::error::{Error, Result};
use crate::sync::Ordering;
use crate::sys::process::yield_now;
use std::time::{Duration, Instant};
use tbrdma_proto::{
    AsyncEventKind, ModifyError, QpAttr, QpAttrMask, QpState, QpType, ack_timeout, check_modify, check_values,
};

/// How long a reset waits for a peer that is in the middle of a copy.
const PATIENCE: Duration = Duration::from_secs(1);

impl ShmQp {
    pub(crate) fn modify_to(&self, attr: &QpAttr, mask: QpAttrMask) -> Result<()> {
        let refuse = |source: ModifyError| Error::Modify { qp_num: self.qpn, source };
        // Held throughout: one modification at a time.
        let mut stored = lock(&self.attr);
        let current = self.state();
        if mask.contains(QpAttrMask::CUR_STATE) && attr.cur_qp_state != current {
            let reason =
                format!("cur_qp_state is {:?}, QP {} is in {current:?}", attr.cur_qp_state, self.qpn);
            return Err(Error::InvalidArgument { call: "modify_qp", reason });
        }
        let next = if mask.contains(QpAttrMask::STATE) { attr.qp_state } else { current };
        check_modify(self.qp_type, current, next, mask).map_err(refuse)?;
        let profile = &self.core.profile;
        check_values(attr, mask, &profile.device, &profile.port).map_err(refuse)?;
        // Met before anything changes: if the peer cannot be found the queue pair stays as it was.
        let peer = if mask.contains(QpAttrMask::AV) && self.qp_type.is_connected() {
            Some(peer::find(&self.core, &attr.ah_attr, |peer| self.core.watch_peer(peer))?)
        } else {
            None
        };
        if next == QpState::Reset {
            return self.reset(&mut stored);
        }
        store(&mut stored, attr, mask);
        let words = self.words();
        let access = stored.qp_access_flags.bits();
        words.rights.store(u64::from(self.pd.0) | u64::from(access) << 32, Ordering::Relaxed);
        words.qkey.store(u64::from(stored.qkey), Ordering::Relaxed);
        let receive_to = words.receive_to.load(Ordering::Relaxed) & 0xffff_ffff_0000_ffff
            | u64::from(stored.min_rnr_timer) << 16
            | u64::from(stored.max_dest_rd_atomic) << 24;
        words.receive_to.store(receive_to, Ordering::Relaxed);
        let wake = peer.as_ref().and_then(|peer| self.wake_of(peer, stored.dest_qp_num.get()));
        let mut send = self.send.intrude();
        if let Some(peer) = &peer {
            let qpn = stored.dest_qp_num.get();
            words.peer_qp.store(u64::from(qpn) | u64::from(stored.rq_psn.get()) << 32, Ordering::Relaxed);
            words.peer_context.store(peer.context, Ordering::Relaxed);
            self.target.store(peer.context, Ordering::Relaxed);
            send.remote = Remote::new(peer, self.qp_type, qpn, wake);
            send.seen = Seen::default();
        }
        if let Some(remote) = &mut send.remote {
            remote.expect(self.core.context, self.qpn.get(), stored.sq_psn.get());
        }
        send.queue.patience = Patience {
            ack_timeout: ack_timeout(stored.timeout),
            retry_cnt: stored.retry_cnt,
            rnr_retry: if self.qp_type == QpType::Rc { stored.rnr_retry } else { 7 },
        };
        send.queue.flights.prepare(self.core.wire.as_ref(), &stored, mask);
        if self.state() != current && next != QpState::Err {
            let reason = format!("QP {} went to {:?} meanwhile; look at its events", self.qpn, self.state());
            return Err(Error::InvalidArgument { call: "modify_qp", reason });
        }
        if next == QpState::Err {
            // A fault that a peer reports leaves a reset queue pair alone; its owner does not have to.
            if current == QpState::Reset {
                self.set_state(QpState::Err);
            }
            let SendState { remote, queue, .. } = &mut *send;
            self.fail_locked(remote.as_ref(), queue, None);
            drop(send);
            self.announce_sent(true);
            return Ok(());
        }
        self.notify_drained.store(stored.en_sqd_async_notify, Ordering::Release);
        self.set_state(next);
        let resumes = next == QpState::Rts && !send.queue.pending.is_empty();
        let drained = next == QpState::Sqd && current == QpState::Rts && !send.is_draining();
        drop(send);
        if drained && stored.en_sqd_async_notify {
            self.raise(AsyncEventKind::SqDrained);
        }
        if next == QpState::Rtr
            && let Some(peer) = &peer
        {
            // Sends of its that found us not ready can go on.
            peer.wake();
        }
        if resumes {
            self.progress();
            if !self.send.intrude().queue.is_idle() {
                self.list_stalled();
            }
        }
        Ok(())
    }

    /// The descriptor that wakes the channel on which the peer waits for our messages.
    fn wake_of(&self, peer: &peer::Peer, qpn: u32) -> Option<std::sync::Arc<crate::sys::eventfd::EventFd>> {
        let words = super::core::qp_words(&peer.segment, slot_of(qpn));
        let cq = words.receive_to.load(Ordering::Relaxed) as u32 & 0xffff;
        let has_channel = super::core::cq_words(&peer.segment, cq).has_channel.load(Ordering::Acquire) != 0;
        if !has_channel || words.identity.load(Ordering::Acquire) as u32 != qpn {
            return None;
        }
        if peer.context == self.core.context {
            let cq = lock(&self.core.cqs).get(cq)?.upgrade()?;
            return cq.channel().cloned();
        }
        peer::channel_of(&self.core, peer, cq)
    }

    /// Back to the beginning: nothing posted, nobody connected.
    fn reset(&self, stored: &mut QpAttr) -> Result<()> {
        let before = self.state();
        self.set_state(QpState::Reset);
        if !self.await_quiet() {
            self.set_state(before);
            let reason = format!(
                "the peer of QP {} is in the middle of a send and does not go on; is it stopped?",
                self.qpn
            );
            return Err(Error::Busy { call: "modify_qp", reason });
        }
        {
            let mut send = self.send.intrude();
            // Somebody may have been about to report a fault when the state was changed above.
            self.set_state(QpState::Reset);
            self.words().fault.store(0, Ordering::Relaxed);
            send.forget(&self.core);
            send.queue.posted = 0;
            self.send_cq.while_nobody_polls(|| {
                while self.sent.pop().is_some() {}
                self.sends_retired.store(0, Ordering::Release);
            });
        }
        self.core.unlist_stalled(self);
        let words = self.words();
        for word in [&words.peer_context, &words.peer_qp, &words.next_receive, &words.waiting] {
            word.store(0, Ordering::Relaxed);
        }
        match &self.receives {
            Receives::Own(own) => own.reset(),
            Receives::Shared(srq) => srq.restart(self),
        }
        self.forget_last_wqe();
        *stored = QpAttr { cap: self.cap, port_num: stored.port_num, ..QpAttr::default() };
        Ok(())
    }

    /// Heeds what the peer found here, if it found something: an event, and if it was a fault the error state. It is taken and acted on in one step, with the send queue held, so that a
    /// reset in between does not make it a fault of the next connection.
    pub(crate) fn heed_fault(&self) {
        let fault = &self.words().fault;
        if fault.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut send = self.send.intrude();
        let found = fault.swap(0, Ordering::AcqRel);
        let is_fatal = |kind: &&AsyncEventKind| {
            let harmless = [AsyncEventKind::SrqLimitReached, AsyncEventKind::CommEst];
            found & 1 << kind.raw() != 0 && !harmless.contains(kind)
        };
        if found & 1 << AsyncEventKind::SrqLimitReached.raw() != 0 {
            self.raise_srq_limit();
        }
        if found & 1 << AsyncEventKind::CommEst.raw() != 0 && self.state() != QpState::Reset {
            self.raise(AsyncEventKind::CommEst);
        }
        let Some(kind) = AsyncEventKind::ALL.iter().find(is_fatal) else { return };
        let SendState { remote, queue, .. } = &mut *send;
        self.fail_locked(remote.as_ref(), queue, Some(*kind));
        drop(send);
        self.announce_sent(true);
    }

    /// Waits until nobody places anything here. False if a peer does not let go.
    pub(crate) fn await_quiet(&self) -> bool {
        if self.qp_type == QpType::Ud {
            return self.core.await_untouched(PATIENCE).is_none();
        }
        let begun = Instant::now();
        while !self.is_untouched() {
            if begun.elapsed() > PATIENCE {
                return false;
            }
            yield_now();
        }
        true
    }
}

/// Takes over the attributes that the mask names.
fn store(stored: &mut QpAttr, attr: &QpAttr, mask: QpAttrMask) {
    macro_rules! take {
        ($($bit:ident: $($field:ident)+),+ $(,)?) => {
            $(if mask.contains(QpAttrMask::$bit) { $(stored.$field = attr.$field.clone();)+ })+
        };
    }
    take!(
        STATE: qp_state,
        EN_SQD_ASYNC_NOTIFY: en_sqd_async_notify,
        ACCESS_FLAGS: qp_access_flags,
        PKEY_INDEX: pkey_index,
        PORT: port_num,
        QKEY: qkey,
        AV: ah_attr,
        PATH_MTU: path_mtu,
        TIMEOUT: timeout,
        RETRY_CNT: retry_cnt,
        RNR_RETRY: rnr_retry,
        RQ_PSN: rq_psn,
        MAX_QP_RD_ATOMIC: max_rd_atomic,
        MIN_RNR_TIMER: min_rnr_timer,
        SQ_PSN: sq_psn,
        MAX_DEST_RD_ATOMIC: max_dest_rd_atomic,
        DEST_QPN: dest_qp_num,
    );
}
