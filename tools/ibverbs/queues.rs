//! What a queue pair has to do, as far as faults and reports need to know it: kept only where somebody watches.

use crate::abi::ibv_sge;
use crate::context::lock;
use crate::watch;
use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;
use tbrdma::{PostError, RawSge, ReceiveWrs, SendWrs};
use tbrdma_proto::{Opcode, QpType, Qpn, RemoteAddr, SendFlags, SendWr, WcStatus, WorkCompletion};

/// A send request that has been posted, and whose completion the program has not seen.
#[derive(Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) wr_id: u64,
    pub(crate) opcode: Opcode,
    pub(crate) signaled: bool,
    /// The device has [something else](push_lost) in its place.
    pub(crate) lost: bool,
}

/// The send requests of a queue pair, oldest first.
#[derive(Default)]
pub(crate) struct Sending(Mutex<VecDeque<Sent>>);

impl Sending {
    /// One is about to be posted. How many there are now.
    pub(crate) fn add(&self, sent: Sent) -> usize {
        let mut list = lock(&self.0);
        list.push_back(sent);
        list.len()
    }

    /// The last so many were not posted after all.
    pub(crate) fn take_back(&self, count: usize) {
        let mut list = lock(&self.0);
        let left = list.len().saturating_sub(count);
        list.truncate(left);
    }

    /// There is none any more: the queue pair was reset.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    /// The request of a completion, and with it all before it: a success is of the first that was to report, a failure may be of another.
    fn completed(&self, wc: &WorkCompletion) -> Option<Sent> {
        let mut list = lock(&self.0);
        let is_it = |sent: &Sent| match wc.status {
            WcStatus::Success => sent.signaled,
            _ => sent.wr_id == wc.wr_id,
        };
        let at = list.iter().position(is_it)?;
        list.drain(..=at).next_back()
    }

    /// Makes the completion of a request that was lost look like one.
    pub(crate) fn correct(&self, wc: &mut WorkCompletion) {
        let Some(sent) = self.completed(wc).filter(|sent| sent.lost) else { return };
        match wc.status {
            WcStatus::Success => wc.opcode = sent.opcode.wc_opcode(),
            WcStatus::WrFlushErr => {}
            _ => wc.status = WcStatus::RetryExcErr,
        }
    }
}

/// A message that is lost, as the device gets it: something that never reaches the peer, takes its turn, and completes as it should. A reliable queue
/// pair fails at it, for a reason of its own that [`Sending::correct`] replaces.
#[cold]
pub(crate) fn push_lost(list: &mut SendWrs<'_>, qp_type: QpType, mut wr: SendWr) {
    /// More than a message can have.
    const TOO_LONG: ibv_sge = ibv_sge { addr: 0, length: u32::MAX, lkey: 0 };
    match qp_type {
        QpType::Ud => {
            if let Some(to) = &mut wr.ud {
                // Nobody has this number.
                (to.qpn, to.qkey) = (Qpn::masked(0), to.qkey & !OWN_QKEY ^ 1);
            }
            list.raw(wr, &[]);
        }
        QpType::Uc => {
            (wr.opcode, wr.remote) = (Opcode::RdmaWrite, RemoteAddr::default());
            list.raw(wr, &[]);
        }
        _ => {
            (wr.opcode, wr.remote) = (Opcode::RdmaWrite, RemoteAddr::default());
            wr.flags -= SendFlags::INLINE;
            // SAFETY: no region at all has such an entry.
            list.raw(wr, &[unsafe { RawSge::new(TOO_LONG) }]);
        }
    }
}

/// The bit of a Q_Key that says to use the queue pair's own.
const OWN_QKEY: u32 = 1 << 31;

/// The receives of a queue pair, or of a shared queue.
#[derive(Default)]
pub(crate) struct Receiving {
    /// Posted to the device, and not completed.
    outstanding: AtomicU32,
    hidden: Mutex<Hidden>,
}

/// Receives that the device does not have yet: peers find none.
#[derive(Default)]
struct Hidden {
    until: Option<Instant>,
    receives: Vec<(u64, Vec<ibv_sge>)>,
}

impl Receiving {
    /// So many were posted to the device. How many there are now.
    pub(crate) fn add(&self, count: u32) -> u32 {
        self.outstanding.fetch_add(count, Ordering::Relaxed).saturating_add(count)
    }

    /// One has completed.
    pub(crate) fn completed(&self) {
        let _ =
            self.outstanding.try_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
    }

    /// How many the program has posted, where the device has not all of them.
    pub(crate) fn count_if_hiding(&self) -> Option<usize> {
        let hidden = lock(&self.hidden);
        hidden
            .until
            .is_some()
            .then(|| self.outstanding.load(Ordering::Relaxed) as usize + hidden.receives.len())
    }

    /// There is none any more: the queue pair was reset.
    pub(crate) fn clear(&self) {
        self.outstanding.store(0, Ordering::Relaxed);
        *lock(&self.hidden) = Hidden::default();
    }

    /// Hides a receive, if the fault plan wants it or an earlier one is hidden. If a time begins with it, `later` is told when it ends.
    ///
    /// Whoever calls this, or [`shows`](Self::shows), holds the lock of the queue.
    pub(crate) fn hides(&self, wr_id: u64, entries: &[RawSge], later: impl FnOnce(Instant)) -> bool {
        let mut hidden = lock(&self.hidden);
        if let Some(time) = watch::hides() {
            let end = Instant::now() + time;
            hidden.until = hidden.until.max(Some(end));
            later(end);
        }
        if hidden.until.is_none() {
            return false;
        }
        hidden.receives.push((wr_id, entries.iter().map(|entry| entry.sge()).collect()));
        true
    }

    /// Posts what was hidden, once its time is over or where `anyway` says so.
    pub(crate) fn shows(
        &self,
        anyway: bool,
        post: impl FnOnce(&mut dyn FnMut(&mut ReceiveWrs<'_>)) -> Result<(), PostError>,
    ) {
        let mut hidden = lock(&self.hidden);
        if hidden.until.is_none_or(|until| !anyway && Instant::now() < until) {
            return;
        }
        let Hidden { receives, .. } = core::mem::take(&mut *hidden);
        drop(hidden);
        self.add(receives.len() as u32);
        let posted = post(&mut |list| {
            for (wr_id, entries) in &receives {
                // SAFETY: keys of regions that are given away as Rust slices exist only in Rust programs.
                list.raw(*wr_id, unsafe { RawSge::list(entries) });
            }
        });
        if let Err(error) = posted {
            crate::log::say(&error);
        }
    }
}
