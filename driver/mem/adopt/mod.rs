//! Adoption: memory of the program's own, registered in place, becomes memory that peers map.
//!
//! The whole pages of a registration are moved into the context's segment and shown at the same addresses, so that no pointer changes; when
//! the last registration of them ends they become the program's private memory again, with what is in them then. The first and the last
//! bytes, which share a page with other things, stay where they are. What may not be moved, or cannot be, stays as well, and is reached the
//! other ways: nothing ever fails because of this.
//!
//! A write to a page while it is moved would be lost. So pages are moved only if nobody can write them: no other registration has a byte of
//! them, and they were handed over by the program, or the process has no other threads. Pages are given back without that condition: other
//! threads may write them at any moment of it.
//!
//! Whoever registers memory that is not the library's says so here, adopted or not, on every device. One table serves the whole process,
//! because its addresses do; one lock guards it, taken to register, to deregister and to fork.

mod cover;
mod fork;
mod swap;

use super::{ForeignMemory, Segment};
use crate::sys::mapping::{Mappings, page_size};
use crate::sys::threads::{SignalsBlocked, alone};
use cover::Cover;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use swap::{Shown, Span};

/// A registration with more bytes is not adopted: moving them takes long (0.7 s for so many on a busy virtual machine, 0.2 ms for 64 KiB), and
/// helps little, as large transfers hardly notice a system call.
const MAX_BYTES: usize = 256 << 20;
/// Each run of adopted pages takes two of the kernel's 65,530 mappings away from the program.
const MAX_RUNS: usize = 4096;

/// A segment that pages can be moved to.
pub(crate) trait Room: Send + Sync {
    fn segment(&self) -> &Arc<Segment>;
    /// Takes zeroed bytes of it, at a multiple of `align`.
    fn take(&self, bytes: u64, align: u64) -> Option<u64>;
    /// Gives them back, with whatever is in them.
    fn give_back(&self, offset: u64, bytes: u64);
}

/// Pages that are in a segment now.
struct Run {
    span: Span,
    room: Arc<dyn Room>,
    /// The program handed them over: no thread of it writes them before it has them back.
    handed_over: bool,
}

/// Pages that no registration has any more.
struct Leaving {
    span: Span,
    room: Weak<dyn Room>,
    /// While they are in the segment.
    segment: Option<Arc<Segment>>,
    handed_over: bool,
}

struct Registry {
    /// Every registration of memory that is not the library's.
    cover: Cover,
    /// By first address. None overlaps another, and each has a byte that is covered.
    runs: BTreeMap<usize, Run>,
    /// What could not be given back yet, or still shows the holes it has left in the segment.
    leaving: Vec<Leaving>,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { cover: Cover::new(), runs: BTreeMap::new(), leaving: Vec::new() });

/// The table, locked. No signal handler runs meanwhile: it could write a page that is being moved, or fork.
struct Entered {
    registry: MutexGuard<'static, Registry>,
    _signals: SignalsBlocked,
}

fn enter() -> Entered {
    let signals = SignalsBlocked::now();
    Entered { registry: REGISTRY.lock().unwrap_or_else(PoisonError::into_inner), _signals: signals }
}

/// Where the bytes of a registration are in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adopted {
    /// Where the first byte would be, if all were.
    pub(crate) offset: u64,
    /// Bytes before the first page that is.
    pub(crate) front: u32,
    /// Bytes after the last page that is.
    pub(crate) back: u32,
}

/// A registration of memory that is not the library's. Dropped when no peer may touch it any more: then its pages come back.
#[derive(Debug)]
pub(crate) struct Claim {
    address: usize,
    len: usize,
    adopted: Option<Adopted>,
}

impl Claim {
    /// Of memory that stays what it is.
    pub(crate) fn of(memory: &ForeignMemory) -> Self {
        let (address, len) = (memory.address(), memory.len());
        enter().registry.cover.add(address, address.saturating_add(len));
        Self { address, len, adopted: None }
    }

    /// Of memory whose whole pages move to `room`, if they may and can.
    pub(crate) fn adopting(memory: &ForeignMemory, room: &Arc<dyn Room>) -> Self {
        let (address, len) = (memory.address(), memory.len());
        let mut entered = enter();
        let registry = &mut *entered.registry;
        let adopted = whole_pages(address, len).and_then(|pages| {
            let span = registry.adopt(pages.clone(), memory.is_handed_over(), room)?;
            let front = pages.start - address;
            let back = address + len - pages.end;
            // Each less than a page.
            Some(Adopted {
                offset: span.offset.wrapping_sub(front as u64),
                front: front as u32,
                back: back as u32,
            })
        });
        registry.cover.add(address, address.saturating_add(len));
        Self { address, len, adopted }
    }

    /// Where it is in the segment, if it is.
    pub(crate) fn adopted(&self) -> Option<Adopted> {
        self.adopted
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut entered = enter();
        let ended = entered.registry.release(self.address..self.address.saturating_add(self.len));
        drop(entered);
        // The last of a context may go with these.
        drop(ended);
    }
}

impl Registry {
    /// Moves these pages to the room, or finds them there.
    fn adopt(&mut self, pages: Range<usize>, handed_over: bool, room: &Arc<dyn Room>) -> Option<Span> {
        let mappings = Mappings::read().ok()?;
        self.settle(&mappings);
        if let Some(run) = self.runs_in(&pages).next() {
            let offset =
                run.span.offset.wrapping_add((pages.start as u64).wrapping_sub(run.span.address as u64));
            let span = Span { address: pages.start, len: pages.len(), offset };
            let is_inside = run.span.address <= pages.start && pages.end <= run.span.end();
            let is_same = Arc::ptr_eq(run.room.segment(), room.segment());
            // The program may have unmapped what it had registered, and this is something else.
            return (is_inside && is_same && swap::is_whole(span, room.segment(), &mappings)).then_some(span);
        }
        let is_free = !self.cover.touches(pages.start, pages.end)
            && pages.len() <= MAX_BYTES
            && self.runs.len() + self.leaving.len() < MAX_RUNS;
        if !is_free || !is_movable(&pages, &mappings) {
            return None;
        }
        // Nobody else may write them: no thread, and no kernel on behalf of a request under way.
        if !handed_over && (has_requests_under_way(&mappings) || !alone()) {
            return None;
        }
        fork::watch()?;
        let offset = room.take(pages.len() as u64, page_size() as u64)?;
        let span = Span { address: pages.start, len: pages.len(), offset };
        // SAFETY: the table says that they are private and anonymous, and we have just seen to it that nobody writes them. The room is ours.
        if unsafe { swap::move_in(span, room.segment()) }.is_err() {
            self.leave(Run { span, room: Arc::clone(room), handed_over });
            return None;
        }
        self.runs.insert(span.address, Run { span, room: Arc::clone(room), handed_over });
        Some(span)
    }

    /// Forgets a registration, and gives back what no other one has; the runs that have ended.
    fn release(&mut self, bytes: Range<usize>) -> Vec<Arc<dyn Room>> {
        self.cover.remove(bytes.start, bytes.end);
        let bare = self.runs_in(&bytes).filter(|run| !self.cover.touches(run.span.address, run.span.end()));
        let bare: Vec<usize> = bare.map(|run| run.span.address).collect();
        let ended = bare.into_iter().filter_map(|address| self.runs.remove(&address));
        ended.collect::<Vec<_>>().into_iter().map(|run| self.leave(run)).collect()
    }

    /// Gives a run's pages back, now or later.
    fn leave(&mut self, run: Run) -> Arc<dyn Room> {
        let Run { span, room, handed_over } = run;
        let segment = Some(Arc::clone(room.segment()));
        let mut leaving = Leaving { span, room: Arc::downgrade(&room), segment, handed_over };
        // A table that cannot be read is read again at the next registration.
        let is_settled = Mappings::read().is_ok_and(|mappings| leaving.settle(&mappings));
        if !is_settled {
            self.leaving.push(leaving);
        }
        room
    }

    fn settle(&mut self, mappings: &Mappings) {
        self.leaving.retain_mut(|leaving| !leaving.settle(mappings));
    }

    /// Runs that have a byte of the range.
    fn runs_in(&self, range: &Range<usize>) -> impl Iterator<Item = &Run> {
        let first = self.runs.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        let from = range.start;
        self.runs.range(first..range.end).map(|(_, run)| run).filter(move |run| run.span.end() > from)
    }
}

impl Leaving {
    /// Does what can be done. True when nothing is left to do.
    fn settle(&mut self, mappings: &Mappings) -> bool {
        let room = self.room.upgrade();
        let Some(segment) = room.as_ref().map(|room| room.segment()).or(self.segment.as_ref()) else {
            // Private pages of a file that nobody else has.
            return true;
        };
        match swap::shown(self.span, segment, mappings) {
            Shown::No => {}
            // What the program has moved stays shared where it is, until it is unmapped.
            Shown::Elsewhere => return false,
            Shown::InPlace => {
                if self.segment.is_some() {
                    let alone = self.handed_over || alone();
                    // SAFETY: only what a run was made of is ever leaving, and no registration has a byte of it.
                    if unsafe { swap::move_out(self.span, segment, mappings, alone) }.is_err() {
                        return false;
                    }
                    if !alone {
                        // What is private now still shows the file where the program says it needs a page no longer: a hole, which
                        // nobody else gets.
                        let _ = segment.punch(self.span.offset, self.span.len as u64);
                        self.segment = None;
                        return false;
                    }
                } else {
                    return false;
                }
            }
        }
        if let Some(room) = &room {
            room.give_back(self.span.offset, self.span.len as u64);
        }
        true
    }
}

/// The whole pages in a range, if there are any.
fn whole_pages(address: usize, len: usize) -> Option<Range<usize>> {
    let page = page_size();
    let end = address.checked_add(len)?;
    let (from, to) = (address.checked_next_multiple_of(page)?, end - end % page);
    (from < to).then_some(from..to)
}

/// Are these pages of the program's ordinary memory: private, anonymous, readable and writable, and not the stack we run on?
fn is_movable(pages: &Range<usize>, mappings: &Mappings) -> bool {
    let local = 0_u8;
    if pages.contains(&(&raw const local).addr()) {
        return false;
    }
    let mut reached = pages.start;
    for mapping in mappings.of(pages.start, pages.end) {
        let name = mapping.name;
        let is_ordinary = name.is_empty() || name == "[heap]" || name.starts_with("[anon:");
        if mapping.from > reached || mapping.inode != 0 || mapping.rights != "rw-p" || !is_ordinary {
            return false;
        }
        reached = mapping.to;
    }
    reached >= pages.end
}

/// May the kernel be writing memory for requests that the program has not waited for? It has mapped the rings of such requests then.
fn has_requests_under_way(mappings: &Mappings) -> bool {
    mappings.all().any(|mapping| mapping.name.contains("[io_uring]") || mapping.name.contains("[aio]"))
}
