//! A completion queue: not a queue at all, but the set of queues whose completions it collects.
//!
//! Completions lie where they were made: a send's in its queue pair's own ring, a receive's in the receive slot itself. The
//! completion queue looks there. It looks at a few *hot* sources every time; all others must tell it, through the ready set.
//! A source that keeps telling becomes hot, and its tellers then stop. So a ping-pong costs one cache line, and ten thousand
//! idle queue pairs cost nothing.

use super::core::{Core, cq_words, lock, ready_set};
use super::qp::{Receives, ShmQp};
use super::srq::ShmSrq;
use super::wire::Wire;
use crate::backoff::Backoff;
use crate::device::{CqRequest, DeviceCq, check_unpolled};
use crate::error::Result;
use crate::mem::Held;
use crate::ring::arm::{Arm, TellMe};
use crate::ring::guard::SpinLock;
use crate::ring::layout::{self, CqWords};
use crate::ring::ready::{ReadySet, SLOTS};
use crate::sync::{AtomicU32, Ordering};
use crate::sys::eventfd::EventFd;
use std::collections::HashMap;
use std::sync::Arc;
use tbrdma_proto::{WcFlags, WorkCompletion};

/// Sources looked at in every poll.
const HOT: usize = 4;
/// Times a source must tell before it becomes hot.
const WARM: u32 = 4;

/// Something that completes into a completion queue.
#[derive(Clone)]
pub(crate) enum Source {
    /// A queue pair's sends.
    Send(Arc<ShmQp>),
    /// A connected queue pair's own receives.
    Receive(Arc<ShmQp>),
    /// A receive queue with many senders, as far as its messages belong here.
    Shared(Arc<ShmSrq>),
}

/// Whose source is meant.
#[derive(Clone, Copy)]
pub(crate) enum Of<'a> {
    Qp(&'a ShmQp),
    Srq(&'a ShmSrq),
}

impl Of<'_> {
    fn is(self, source: &Source) -> bool {
        match (self, source) {
            (Self::Qp(qp), Source::Send(other) | Source::Receive(other)) => std::ptr::eq(&**other, qp),
            (Self::Srq(srq), Source::Shared(other)) => std::ptr::eq(&**other, srq),
            _ => false,
        }
    }
}

struct Attached {
    source: Source,
    bit: u32,
    told: u32,
}

/// What only the polling thread touches.
#[derive(Default)]
struct PollState {
    sources: Vec<Option<Attached>>,
    free: Vec<usize>,
    /// Sources looked at every time, with their index.
    hot: Vec<(usize, Source)>,
    /// Sources by bit of the ready set.
    by_bit: HashMap<u32, Vec<usize>>,
    next_bit: u32,
    /// Bits taken from the ready set whose sources have not been emptied yet.
    pending: Vec<u32>,
    /// Hot source to look at first.
    turn: usize,
    next_victim: usize,
    /// Those that told come before the hot ones in the next poll.
    ready_first: bool,
    backoff: Backoff,
}

/// A completion queue.
pub(crate) struct ShmCq {
    pub(crate) core: Arc<Core>,
    pub(crate) slot: u32,
    words: Held<CqWords>,
    cqe: AtomicU32,
    channel: Option<Arc<EventFd>>,
    state: SpinLock<PollState>,
    /// Numbers of the ready set that have been given to sources; outside the lock, for the service thread.
    bits: AtomicU32,
}

impl ShmCq {
    pub(crate) fn create(core: &Arc<Core>, request: CqRequest) -> Result<Arc<Self>> {
        let (slot, _) = lock(&core.cqs).claim("create_cq", "completion queues")?;
        let words = cq_words(&core.segment, slot);
        words.arm.store(0, Ordering::Relaxed);
        words.event.store(0, Ordering::Relaxed);
        words.has_channel.store(u64::from(request.channel.is_some()), Ordering::Release);
        let cq = Arc::new(Self {
            core: Arc::clone(core),
            slot,
            words: Held::one(&core.segment, layout::cq_at(slot))
                .expect("the layout lies within every segment"),
            cqe: AtomicU32::new(request.cqe),
            channel: request.counter(),
            state: SpinLock::new(PollState::default()),
            bits: AtomicU32::new(0),
        });
        lock(&core.cqs).fill(slot, Arc::downgrade(&cq));
        Ok(cq)
    }

    pub(crate) fn words(&self) -> &CqWords {
        &self.words
    }

    #[inline]
    pub(crate) fn ready(&self) -> ReadySet<'_> {
        ready_set(&self.words().ready)
    }

    /// The descriptor that wakes the channel.
    pub(crate) fn channel(&self) -> Option<&Arc<EventFd>> {
        self.channel.as_ref()
    }

    /// Does something that must not happen while somebody polls.
    pub(crate) fn while_nobody_polls(&self, act: impl FnOnce()) {
        let _state = self.state.lock();
        act();
    }

    /// Numbers of the ready set that have been given to sources.
    pub(crate) fn bits_in_use(&self) -> u32 {
        self.bits.load(Ordering::Acquire)
    }

    /// Something was published for this queue by a thread of this process.
    #[inline]
    pub(crate) fn wake(&self, solicited_or_error: bool) {
        let arm = Arm(&self.words().arm);
        if arm.is_armed() && arm.fire(solicited_or_error) {
            self.signal();
        }
    }

    /// Raises a completion event.
    pub(crate) fn signal(&self) {
        self.words().event.store(1, Ordering::Release);
        if let Some(channel) = &self.channel {
            let _ = channel.signal();
        }
    }

    /// Wakes who waits for the event that a peer has raised and could not tell of. It is not raised anew: who looked before we did has it already, and a
    /// second one would have no completion.
    pub(crate) fn pass_on_event(&self) {
        if self.words().event.load(Ordering::Acquire) != 0
            && let Some(channel) = &self.channel
        {
            let _ = channel.signal();
        }
    }

    /// Starts to collect a source's completions; the number by which it is told.
    pub(crate) fn attach(&self, source: Source) -> u32 {
        let mut state = self.state.lock();
        let state = &mut *state;
        let bit = state.next_bit;
        state.next_bit = (bit + 1) % SLOTS;
        self.bits.fetch_max(bit + 1, Ordering::Release);
        let attached = Attached { source, bit, told: 0 };
        let index = state.free.pop().unwrap_or(state.sources.len());
        if state.hot.len() < HOT && !matches!(attached.source, Source::Shared(_)) {
            state.hot.push((index, attached.source.clone()));
        } else {
            attached.source.tell(bit);
        }
        state.by_bit.entry(bit).or_default().push(index);
        if index == state.sources.len() {
            state.sources.push(Some(attached));
        } else {
            state.sources[index] = Some(attached);
        }
        bit
    }

    /// Forgets the source that was attached under this number for this queue pair or receive queue, with what it had not yet handed out.
    pub(crate) fn detach(&self, bit: u32, of: Of<'_>) {
        // Dropped after the lock is open again.
        let mut gone = Vec::new();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(same_bit) = state.by_bit.get_mut(&bit) else { return };
        let sources = &mut state.sources;
        same_bit.retain(|&index| {
            let leaves = sources[index].as_ref().is_some_and(|attached| of.is(&attached.source));
            if leaves {
                gone.extend(sources[index].take());
                state.free.push(index);
                state.hot.retain(|(hot, _)| *hot != index);
            }
            !leaves
        });
        state.turn = 0;
        drop(guard);
        drop(gone);
    }

    #[inline(always)]
    fn poll_sources(&self, state: &mut PollState, out: &mut [WorkCompletion]) -> usize {
        let mut count = 0;
        if state.ready_first {
            // The hot sources filled the caller's array last time: the others come first now.
            state.ready_first = false;
            count = self.poll_ready(state, out);
        }
        // The one after the last that filled the caller's array comes first, so that none is starved.
        let mut next = state.turn;
        for _ in 0..state.hot.len() {
            let Some((_, source)) = state.hot.get(next) else { break };
            next = if next + 1 < state.hot.len() { next + 1 } else { 0 };
            if source.is_empty() {
                continue;
            }
            count += source.poll(self, &mut out[count..]);
            if count == out.len() {
                state.turn = next;
                state.ready_first = !state.pending.is_empty() || !self.ready().is_empty();
                return count;
            }
        }
        if state.pending.is_empty() && self.ready().is_empty() {
            return count;
        }
        count + self.poll_ready(state, &mut out[count..])
    }

    /// Looks at the sources that told.
    #[cold]
    fn poll_ready(&self, state: &mut PollState, out: &mut [WorkCompletion]) -> usize {
        let mut count = 0;
        let pending = &mut state.pending;
        self.ready().drain(|bit| pending.push(bit));
        let mut looked_at = 0;
        let mut warmed = None;
        let mut unfinished = None;
        'bits: for &bit in &*pending {
            looked_at += 1;
            for &index in state.by_bit.get(&bit).map_or(&[][..], Vec::as_slice) {
                let Some(attached) = &mut state.sources[index] else { continue };
                let polled = attached.source.poll(self, &mut out[count..]);
                count += polled;
                if polled > 0 && !matches!(attached.source, Source::Shared(_)) {
                    attached.told += 1;
                    if attached.told >= WARM && !state.hot.iter().any(|(hot, _)| *hot == index) {
                        attached.told = 0;
                        warmed = Some(index);
                    }
                }
                if count == out.len() {
                    // There may be more here: it comes again, after the others.
                    unfinished = Some(bit);
                    break 'bits;
                }
            }
        }
        pending.drain(..looked_at);
        pending.extend(unfinished);
        if let Some(index) = warmed {
            Self::warm(state, index);
        }
        count
    }

    /// Makes a source hot in place of another.
    fn warm(state: &mut PollState, index: usize) {
        let Some(source) = state.sources[index].as_ref().map(|attached| attached.source.clone()) else {
            return;
        };
        source.hush();
        if state.hot.len() < HOT {
            state.hot.push((index, source));
            return;
        }
        let victim = state.next_victim % HOT;
        state.next_victim = victim + 1;
        let (cold, _) = std::mem::replace(&mut state.hot[victim], (index, source));
        if let Some(attached) = &state.sources[cold] {
            attached.source.tell(attached.bit);
            // What it published before it was told to tell is found by one more look.
            state.pending.push(attached.bit);
        }
    }
}

impl DeviceCq for ShmCq {
    fn cqe(&self) -> u32 {
        self.cqe.load(Ordering::Relaxed)
    }

    fn unpolled(&self) -> usize {
        let state = self.state.lock();
        state.sources.iter().flatten().map(|attached| attached.source.unpolled(self)).sum()
    }

    fn resize(&self, cqe: u32) -> Result<()> {
        check_unpolled(self.unpolled(), cqe)?;
        self.cqe.store(cqe, Ordering::Relaxed);
        Ok(())
    }

    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        if out.is_empty() {
            return 0;
        }
        if let Some(wire) = &self.core.wire {
            self.core.bring_what_is_back(wire);
        }
        let mut state = self.state.lock();
        let count = self.poll_sources(&mut state, out);
        if count > 0 {
            state.backoff.reset();
            return count;
        }
        // Nothing here: look whether a send that waits can go on, and if not, whether somebody else needs the core.
        if self.core.stalled.load(Ordering::Relaxed) != 0 {
            drop(state);
            self.core.progress_stalled();
            state = self.state.lock();
            let count = self.poll_sources(&mut state, out);
            if count > 0 {
                state.backoff.reset();
                return count;
            }
        }
        let give_way = state.backoff.idle();
        drop(state);
        if give_way {
            crate::sys::process::yield_now();
        }
        0
    }

    fn arm(&self, solicited_only: bool) -> Result<()> {
        Arm(&self.words().arm).arm(solicited_only);
        if self.core.wire.as_ref().is_some_and(Wire::is_awaited) {
            self.core.kick_self();
        }
        Ok(())
    }

    fn event_order(&self) -> Option<u64> {
        // Sends complete when they are posted, so theirs comes before that of an answer in any case.
        (self.words().event.load(Ordering::Acquire) != 0).then_some(0)
    }

    fn take_event(&self) -> bool {
        self.words().event.swap(0, Ordering::AcqRel) != 0
    }

    fn index(&self) -> u32 {
        self.slot
    }

    fn context(&self) -> u64 {
        self.core.context
    }
}

impl Drop for ShmCq {
    fn drop(&mut self) {
        self.words().has_channel.store(0, Ordering::Release);
        self.words().arm.store(0, Ordering::Release);
        self.ready().drain(|_| {});
        lock(&self.core.cqs).release(self.slot);
    }
}

impl Source {
    /// Would a poll find nothing? What most looks at a source come to.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        match self {
            Self::Send(qp) => qp.sent.is_empty(),
            Self::Receive(qp) => match &qp.receives {
                Receives::Own(own) => qp.is_own_empty(own),
                Receives::Shared(_) => true,
            },
            Self::Shared(_) => false,
        }
    }

    #[inline(always)]
    fn poll(&self, cq: &ShmCq, out: &mut [WorkCompletion]) -> usize {
        match self {
            Self::Send(qp) => qp.poll_sends(out),
            Self::Receive(qp) => match &qp.receives {
                Receives::Own(own) => qp.poll_own(own, out),
                Receives::Shared(_) => 0,
            },
            Self::Shared(srq) => srq.poll(cq, out),
        }
    }

    /// How many completions a poll would find.
    fn unpolled(&self, cq: &ShmCq) -> usize {
        match self {
            Self::Send(qp) => qp.sent.len() as usize,
            Self::Receive(qp) => match &qp.receives {
                Receives::Own(own) => qp.unpolled_own(own),
                Receives::Shared(_) => 0,
            },
            Self::Shared(srq) => srq.unpolled(cq),
        }
    }

    /// From now on, completions of this source must be told.
    fn tell(&self, bit: u32) {
        match self {
            Self::Send(qp) => TellMe(&qp.send_tell).set(bit),
            Self::Receive(qp) => TellMe(&qp.words().tell).set(bit),
            // Always told, by the number that the queue gave each of its completion queues.
            Self::Shared(_) => {}
        }
    }

    /// This source is looked at anyway.
    fn hush(&self) {
        match self {
            Self::Send(qp) => TellMe(&qp.send_tell).clear(),
            Self::Receive(qp) => TellMe(&qp.words().tell).clear(),
            Self::Shared(_) => {}
        }
    }
}

impl ShmQp {
    /// Polls our own send completions. Called by their completion queue, one thread at a time.
    #[inline(never)]
    pub(crate) fn poll_sends(&self, out: &mut [WorkCompletion]) -> usize {
        let mut count = 0;
        let mut retired = None;
        for wc in out.iter_mut() {
            let Some(sent) = self.sent.pop() else { break };
            *wc = WorkCompletion {
                wr_id: sent.wr_id,
                status: sent.status,
                opcode: sent.opcode,
                byte_len: sent.byte_len,
                qp_num: self.qpn,
                wc_flags: WcFlags::empty(),
                wq_index: sent.wq_index,
                ..WorkCompletion::default()
            };
            retired = Some(sent.wq_index.wrapping_add(1));
            count += 1;
        }
        if let Some(retired) = retired {
            self.sends_retired.store(retired, Ordering::Release);
        }
        count
    }
}
