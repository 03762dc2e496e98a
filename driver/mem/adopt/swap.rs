//! Moving whole pages of the program's between its own memory and a segment, at the same addresses.

use super::super::{Place, Segment};
use crate::sys::mapping::{Mapping, Mappings, Show, protect, replace, touch};
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

/// Moved at a time, so that memory is needed twice only in small.
const CHUNK: usize = 2 << 20;

/// Where whole pages of the program's are in the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) address: usize,
    pub(super) len: usize,
    pub(super) offset: u64,
}

impl Span {
    pub(super) fn end(self) -> usize {
        self.address + self.len
    }

    /// The part of it at these addresses.
    fn part(self, from: usize, to: usize) -> Self {
        let address = from.max(self.address);
        let offset = self.offset + (address - self.address) as u64;
        Self { address, len: to.min(self.end()).saturating_sub(address), offset }
    }

    fn chunks(self) -> impl Iterator<Item = Self> {
        (self.address..self.end()).step_by(CHUNK).map(move |at| self.part(at, at.saturating_add(CHUNK)))
    }

    /// The bytes at the program's addresses.
    ///
    /// # Safety
    /// They are mapped, readable and writable.
    unsafe fn here(&self) -> Place<'static> {
        // SAFETY: the caller vouches for them.
        unsafe { Place::new(std::ptr::with_exposed_provenance_mut(self.address), self.len) }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not in a segment of ours")
}

/// Moves the program's pages into the segment. An error means that a part of them may have moved; none of them is lost.
///
/// # Safety
/// The pages are the program's own memory, private and anonymous, and nobody but the calling thread writes them meanwhile. The span's room in
/// the segment belongs to nobody else.
pub(super) unsafe fn move_in(span: Span, segment: &Segment) -> io::Result<()> {
    let file = segment.file().ok_or_else(gone)?;
    for chunk in span.chunks() {
        let there = segment.place(chunk.offset, chunk.len as u64).ok_or_else(gone)?;
        touch(there.addr(), there.len(), true)?;
        touch(chunk.address, chunk.len, false)?;
        // SAFETY: the caller says whose they are; both have just been brought in.
        there.copy_from(unsafe { chunk.here() });
        // SAFETY: the caller's pages, of which the segment has a copy that is still true: nobody writes them.
        unsafe { replace(chunk.address, chunk.len, Show::Shared(file, chunk.offset)) }?;
    }
    // So that the program's first looks are no faults. If it does not work, they are.
    let _ = touch(span.address, span.len, true);
    Ok(())
}

/// What a process shows of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing any more.
    No,
    /// Some of it at its addresses, and nothing elsewhere.
    InPlace,
    /// Some of it elsewhere: the program has moved it.
    Elsewhere,
}

/// The parts of the table that show the span at its addresses.
fn showing<'a>(
    span: Span,
    segment: &Segment,
    mappings: &'a Mappings,
) -> impl Iterator<Item = (Mapping<'a>, Span)> {
    let identity = segment.identity();
    mappings.of(span.address, span.end()).filter_map(move |mapping| {
        let part = span.part(mapping.from, mapping.to);
        let offset = mapping.offset + (part.address - mapping.from) as u64;
        (Some((mapping.device, mapping.inode)) == identity && offset == part.offset)
            .then_some((mapping, part))
    })
}

/// Is all of the span shown at its addresses, shared?
pub(super) fn is_whole(span: Span, segment: &Segment, mappings: &Mappings) -> bool {
    let shared = showing(span, segment, mappings).filter(|(mapping, _)| mapping.rights.ends_with('s'));
    shared.map(|(_, part)| part.len).sum::<usize>() == span.len
}

/// What this process shows of the span, apart from the mapping of the whole segment.
pub(super) fn shown(span: Span, segment: &Segment, mappings: &Mappings) -> Shown {
    let (base, identity) = (segment.base().addr(), segment.identity());
    let mut shown = Shown::No;
    for mapping in mappings.all().filter(|mapping| Some((mapping.device, mapping.inode)) == identity) {
        let end = mapping.offset + (mapping.to - mapping.from) as u64;
        let is_base = base <= mapping.from && mapping.to <= base + segment.len() as usize;
        if is_base || end <= span.offset || mapping.offset >= span.offset + span.len as u64 {
            continue;
        }
        // Where the span's first byte would be if this mapping had it.
        let at = mapping.from as u64 + span.offset;
        if at.wrapping_sub(mapping.offset) != span.address as u64 {
            return Shown::Elsewhere;
        }
        shown = Shown::InPlace;
    }
    shown
}

/// Makes what the program still shows of a span its own again, with the bytes that are there now. `alone`: nobody else writes the span
/// meanwhile; else a write at any moment is kept as well, and the pages stay private ones of the file.
///
/// # Safety
/// The span was [moved in](move_in) by this process or by its parent before it forked, and no peer may write it any more.
pub(super) unsafe fn move_out(
    span: Span,
    segment: &Segment,
    mappings: &Mappings,
    alone: bool,
) -> io::Result<()> {
    let file = segment.file().ok_or_else(gone)?;
    for (mapping, part) in showing(span, segment, mappings) {
        if !mapping.rights.ends_with('s') {
            continue;
        }
        for chunk in part.chunks() {
            if alone {
                // SAFETY: as the caller says.
                unsafe { copy_out(chunk, segment) }?;
            } else {
                // SAFETY: the table has just said that the segment is shown there, and the file shows the same.
                unsafe { replace(chunk.address, chunk.len, Show::Private(file, chunk.offset)) }?;
                // SAFETY: mapped just now.
                own_each_page(unsafe { chunk.here() });
            }
        }
        if !mapping.rights.starts_with("rw-") {
            // SAFETY: the program had given these pages these rights.
            unsafe { protect(part.address, part.len, mapping.rights) }?;
        }
    }
    Ok(())
}

/// Anonymous pages again, with the segment's bytes.
///
/// # Safety
/// The segment is shown there, and nobody writes it meanwhile.
unsafe fn copy_out(chunk: Span, segment: &Segment) -> io::Result<()> {
    let there = segment.place(chunk.offset, chunk.len as u64).ok_or_else(gone)?;
    // SAFETY: the segment keeps the bytes.
    if let Err(error) = unsafe { replace(chunk.address, chunk.len, Show::Zeroes) } {
        if let Some(file) = segment.file() {
            // Old kernels have unmapped already what they then find no memory for. Shared pages need none.
            // SAFETY: what was there before.
            unsafe { replace(chunk.address, chunk.len, Show::Shared(file, chunk.offset)) }?;
        }
        return Err(error);
    }
    // SAFETY: mapped just now.
    unsafe { chunk.here() }.copy_from(there);
    Ok(())
}

/// Makes the kernel copy each page that is still the file's: a write does, also one that changes nothing, whoever else writes.
fn own_each_page(place: Place<'_>) {
    let page = crate::sys::mapping::page_size();
    for at in (0..place.len()).step_by(page) {
        let byte = place.as_ptr().wrapping_add(at);
        // SAFETY: inside the place, of memory that is shared through atomics and device-like copies only.
        unsafe { AtomicU8::from_ptr(byte) }.fetch_or(0, Ordering::Relaxed);
    }
}
