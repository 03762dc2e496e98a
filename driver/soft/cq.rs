//! A completion queue: a bounded ring. Polling it drives the whole device, so a program that polls needs no other thread.

use super::core::{Core, lock};
use super::ledger::Ledger;
use super::signals::CqEvent;
use crate::backoff::Backoff;
use crate::device::{CqRequest, DeviceCq, check_unpolled};
use crate::error::Result;
use crate::sync::{AtomicU32, Ordering};
use crate::verbs::event::{AsyncEvent, EventSource};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use tbrdma_proto::transport::Half;
use tbrdma_proto::{AsyncEventKind, WorkCompletion};

/// A completion that nobody has polled yet.
struct Entry {
    wc: WorkCompletion,
    half: Half,
    /// Who wants to know when it has been polled.
    ledger: Arc<Ledger>,
}

/// For which completion an event is wanted.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Armed {
    #[default]
    No,
    Solicited,
    Any,
}

#[derive(Default)]
struct Ring {
    entries: VecDeque<Entry>,
    armed: Armed,
    /// A completion has been lost. It is said once.
    overrun: bool,
    backoff: Backoff,
}

/// A completion queue.
pub(crate) struct SoftCq {
    core: Arc<Core>,
    slot: u32,
    cqe: AtomicU32,
    /// Entries in the ring, to look at without its lock.
    filled: AtomicU32,
    ring: Mutex<Ring>,
    event: Arc<CqEvent>,
}

impl SoftCq {
    pub(crate) fn create(core: &Arc<Core>, request: CqRequest) -> Result<Arc<Self>> {
        let (slot, _) = lock(&core.cqs).claim("create_cq", "completion queues")?;
        let ring = Ring { entries: VecDeque::with_capacity(request.cqe as usize), ..Ring::default() };
        let cq = Arc::new(Self {
            core: Arc::clone(core),
            slot,
            cqe: AtomicU32::new(request.cqe),
            filled: AtomicU32::new(0),
            ring: Mutex::new(ring),
            event: CqEvent::new(request.counter()),
        });
        lock(&core.cqs).fill(slot, Arc::downgrade(&cq));
        Ok(cq)
    }

    /// The queue of this context behind the trait object.
    pub(crate) fn own(core: &Core, cq: &Arc<dyn DeviceCq>) -> Option<Arc<Self>> {
        let own = lock(&core.cqs).get(cq.index()).and_then(Weak::upgrade);
        own.filter(|own| own.core.context == cq.context())
    }

    /// Adds a completion. With no room it is lost, as on hardware, and an event says so.
    pub(crate) fn push(&self, half: Half, wc: WorkCompletion, solicited: bool, ledger: &Arc<Ledger>) {
        let mut ring = lock(&self.ring);
        if ring.entries.len() >= self.cqe() as usize {
            if !std::mem::replace(&mut ring.overrun, true) {
                let source = EventSource::CompletionQueue(self.slot);
                self.core.events.push(AsyncEvent { kind: AsyncEventKind::CqErr, source });
            }
            drop(ring);
            ledger.forget(half, wc.wq_index);
            return;
        }
        ring.entries.push_back(Entry { wc, half, ledger: Arc::clone(ledger) });
        self.filled.store(ring.entries.len() as u32, Ordering::Release);
        let fires = ring.armed == Armed::Any || (ring.armed == Armed::Solicited && solicited);
        if fires {
            ring.armed = Armed::No;
            self.core.armed.fetch_sub(1, Ordering::SeqCst);
        }
        drop(ring);
        if fires {
            lock(&self.core.signals).raise(&self.event);
        }
    }

    /// Drops what a queue pair's work requests left here: it is being reset or destroyed.
    pub(crate) fn purge(&self, ledger: &Arc<Ledger>) {
        let mut gone = Vec::new();
        let mut ring = lock(&self.ring);
        ring.entries.retain(|entry| {
            let leaves = Arc::ptr_eq(&entry.ledger, ledger);
            if leaves {
                gone.push((entry.half, entry.wc.wq_index));
            }
            !leaves
        });
        self.filled.store(ring.entries.len() as u32, Ordering::Release);
        drop(ring);
        for (half, number) in gone {
            ledger.forget(half, number);
        }
    }

    fn take(&self, out: &mut [WorkCompletion]) -> usize {
        if self.filled.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let mut guard = lock(&self.ring);
        let ring = &mut *guard;
        let mut count = 0;
        for place in out {
            let Some(entry) = ring.entries.pop_front() else { break };
            entry.ledger.retire(entry.half, entry.wc.wq_index);
            *place = entry.wc;
            count += 1;
        }
        if ring.entries.is_empty() {
            // Begin at the front again: a queue that is kept empty stays in a few cache lines.
            ring.entries.clear();
        }
        if count > 0 {
            ring.backoff.reset();
        }
        self.filled.store(ring.entries.len() as u32, Ordering::Release);
        count
    }
}

impl DeviceCq for SoftCq {
    fn cqe(&self) -> u32 {
        self.cqe.load(Ordering::Relaxed)
    }

    fn unpolled(&self) -> usize {
        self.filled.load(Ordering::Acquire) as usize
    }

    fn resize(&self, cqe: u32) -> Result<()> {
        let mut ring = lock(&self.ring);
        let unpolled = ring.entries.len();
        check_unpolled(unpolled, cqe)?;
        ring.entries.reserve(cqe as usize - unpolled);
        self.cqe.store(cqe, Ordering::Relaxed);
        Ok(())
    }

    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        if out.is_empty() {
            return 0;
        }
        let count = self.take(out);
        if count > 0 {
            self.core.is_polled();
            return count;
        }
        self.core.poll_once();
        let count = self.take(out);
        if count == 0 && lock(&self.ring).backoff.idle() {
            crate::sys::process::yield_now();
        }
        count
    }

    fn arm(&self, solicited_only: bool) -> Result<()> {
        self.core.somebody_arms();
        let mut ring = lock(&self.ring);
        let was = ring.armed;
        // The wider wish stands.
        if was != Armed::Any {
            ring.armed = if solicited_only { Armed::Solicited } else { Armed::Any };
        }
        if was == Armed::No {
            self.core.armed.fetch_add(1, Ordering::SeqCst);
        }
        drop(ring);
        self.core.somebody_waits();
        Ok(())
    }

    fn event_order(&self) -> Option<u64> {
        self.event.order()
    }

    fn take_event(&self) -> bool {
        self.event.take()
    }

    fn index(&self) -> u32 {
        self.slot
    }

    fn context(&self) -> u64 {
        self.core.context
    }
}

impl Drop for SoftCq {
    fn drop(&mut self) {
        if lock(&self.ring).armed != Armed::No {
            self.core.armed.fetch_sub(1, Ordering::SeqCst);
        }
        lock(&self.core.cqs).release(self.slot);
    }
}
