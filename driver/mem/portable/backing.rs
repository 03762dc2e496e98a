//! What a segment's bytes are without memory files: anonymous memory of this process, which nobody else can map.

use crate::sys::mapping::{Show, page_size, replace};
use memmap2::{MmapOptions, MmapRaw};
use std::io;

/// Nothing is needed beside the mapping.
#[derive(Debug)]
pub(super) struct Backing;

impl Backing {
    /// `len` zero bytes. The name is for systems that show one.
    pub(super) fn create(_name: &str, len: u64) -> io::Result<(MmapRaw, Self)> {
        let len = super::segment::mappable(len)?;
        let map = MmapOptions::new()
            .len(len)
            .no_reserve_swap()
            .map_anon()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot map {len} bytes: {error}")))?;
        Ok((map.into(), Self))
    }

    /// Gives the pages of a range back, which is inside and not empty. Of a page that is only partly in it the bytes are made zero.
    pub(super) fn punch(&self, map: &MmapRaw, offset: u64, len: u64) -> io::Result<()> {
        let page = page_size();
        // It is inside, so all of this fits.
        let (from, to) = (offset as usize, (offset + len) as usize);
        let (first, last) = (from.next_multiple_of(page).min(to), (to - to % page).max(from));
        let base = map.as_mut_ptr();
        if first >= last {
            // SAFETY: inside of the mapping; the range is being given back, so nobody uses it.
            unsafe { std::ptr::write_bytes(base.wrapping_add(from), 0, to - from) };
            return Ok(());
        }
        for (from, to) in [(from, first), (last, to)] {
            // SAFETY: as above.
            unsafe { std::ptr::write_bytes(base.wrapping_add(from), 0, to - from) };
        }
        // SAFETY: whole pages of our own mapping, whose bytes nobody needs any more.
        unsafe { replace(base.wrapping_add(first).expose_provenance(), last - first, Show::Zeroes) }
    }
}
