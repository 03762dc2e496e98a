//! `Place`: a run of bytes which another process, a device or a peer may change at any time.

use super::copy::copy_ordered;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// A run of bytes that is not ours alone, so never a slice: it is copied from and to, or used as an atomic word.
///
/// What a copy reads may be old, new or a mixture when somebody writes meanwhile, exactly as with a device; no copy ever
/// leaves the bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The first byte; dangling when `len` is 0.
    ptr: *mut u8,
    /// How many bytes.
    len: usize,
    /// The mapping outlives the place.
    memory: PhantomData<&'a ()>,
}

// SAFETY: a place promises nothing about who else uses its bytes, and reaches them through volatile and atomic accesses
// only, so use by several threads is no different from use by several processes.
unsafe impl Send for Place<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Place<'_> {}

impl<'a> Place<'a> {
    /// The `len` bytes at `ptr`.
    ///
    /// # Safety
    /// The bytes must stay mapped, readable and writable during `'a`, and no Rust reference to any of them may exist
    /// in that time except to atomics. Memory of an application that keeps a slice of it is the application's bargain
    /// with the verbs: it must not look while a transfer may touch it.
    pub(crate) unsafe fn new(ptr: *mut u8, len: usize) -> Self {
        Self { ptr, len, memory: PhantomData }
    }

    /// How many bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where it starts in this process.
    pub(crate) fn addr(&self) -> usize {
        self.ptr.addr()
    }

    /// The same as a pointer, for system calls and atomics.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// The `len` bytes from `offset` on, when all of them are inside.
    pub(crate) fn sub(&self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Self { ptr: self.ptr.wrapping_add(offset), len, memory: PhantomData })
    }

    /// Asks the processor for the lines of all the bytes, to read them soon.
    #[inline]
    pub(crate) fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        for offset in (0..self.len).step_by(LINE) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: prefetching has no effect that a program can see, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.ptr.wrapping_add(offset).cast()) };
        }
    }

    /// Copies from the start of `src` as much as both have; says how much. The order is that of [`copy_ordered`].
    #[inline]
    pub(crate) fn copy_from(&self, src: Place<'_>) -> usize {
        let len = self.len.min(src.len);
        // SAFETY: both places promise `len` accessible bytes.
        unsafe { copy_ordered(self.ptr, src.ptr, len) };
        len
    }

    /// Copies the start of the place into `bytes`; says how much.
    #[inline]
    pub(crate) fn read_into(&self, bytes: &mut [u8]) -> usize {
        let len = self.len.min(bytes.len());
        // SAFETY: the place promises `len` readable bytes; `bytes` is exclusively ours and has as many.
        unsafe { copy_ordered(bytes.as_mut_ptr(), self.ptr, len) };
        len
    }

    /// Copies `bytes` to the start of the place; says how much fitted.
    #[inline]
    pub(crate) fn write_from(&self, bytes: &[u8]) -> usize {
        let len = self.len.min(bytes.len());
        // SAFETY: the place promises `len` writable bytes; `bytes` has as many and does not change.
        unsafe { copy_ordered(self.ptr, bytes.as_ptr(), len) };
        len
    }

    /// The first 8 bytes as an atomic word, when they are aligned for one.
    pub(crate) fn atomic_u64(&self) -> Option<&'a AtomicU64> {
        let word = self.ptr.cast::<u64>();
        if self.len < size_of::<u64>() || !word.is_aligned() {
            return None;
        }
        // SAFETY: aligned, and in bounds of memory that lives as long as `'a` and is shared only through atomics and
        // device-like copies, as `Place::new` demands.
        Some(unsafe { AtomicU64::from_ptr(word) })
    }
}

/// Copies of one length from one place to another: one comparison for each tells whether the bytes are inside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copies<'a> {
    from: Place<'a>,
    to: Place<'a>,
    len: usize,
    /// The offsets of the last bytes of either that can be copied.
    last: (usize, usize),
}

impl<'a> Copies<'a> {
    /// If both places hold so many bytes.
    pub(crate) fn new(from: Place<'a>, to: Place<'a>, len: usize) -> Option<Self> {
        Some(Self { from, to, len, last: (from.len.checked_sub(len)?, to.len.checked_sub(len)?) })
    }

    /// Copies from one offset to another. False if not all of the bytes are inside; then none is touched. The order is that of
    /// [`copy_ordered`].
    #[inline(always)]
    pub(crate) fn copy(&self, from: usize, to: usize) -> bool {
        if from > self.last.0 || to > self.last.1 {
            return false;
        }
        let (from, to) = (self.from.ptr.wrapping_add(from), self.to.ptr.wrapping_add(to));
        // SAFETY: both places promise `len` accessible bytes from these offsets on.
        unsafe { copy_ordered(to, from, self.len) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn place(words: &mut [u64]) -> Place<'_> {
        // SAFETY: the exclusive borrow lasts as long as the place.
        unsafe { Place::new(words.as_mut_ptr().cast(), size_of_val(words)) }
    }

    #[test]
    fn parts_stay_inside() {
        let mut words = [0u64; 4];
        let whole = place(&mut words);
        assert_eq!(whole.sub(8, 24).map(|part| part.len()), Some(24));
        assert_eq!(whole.sub(32, 0).map(|part| part.len()), Some(0));
        assert!(whole.sub(33, 0).is_none());
        assert!(whole.sub(8, 25).is_none());
        assert!(whole.sub(8, usize::MAX).is_none());
        assert_eq!(whole.sub(3, 4).map(|part| part.addr()), Some(whole.addr() + 3));
    }

    #[test]
    fn copies_of_one_length_stay_inside() {
        let (mut from, mut to) = ([1u64, 2, 3, 4], [0u64; 3]);
        let (ours, theirs) = (place(&mut from), place(&mut to));
        let copies = Copies::new(ours, theirs, 16).unwrap();
        assert!(copies.copy(16, 8) && copies.copy(0, 0));
        for (from, to) in [(17, 0), (usize::MAX, 0), (0, 9), (0, usize::MAX)] {
            assert!(!copies.copy(from, to));
        }
        assert!(Copies::new(ours, theirs, 25).is_none() && Copies::new(theirs, ours, 25).is_none());
        assert!(Copies::new(ours, theirs, 24).is_some_and(|copies| copies.copy(0, 0) && !copies.copy(0, 1)));
        assert_eq!(to, [1, 2, 3]);
    }

    #[test]
    fn copies_move_the_shorter_length() {
        let (mut a, mut b) = ([0u64; 4], [0u64; 2]);
        let (a, b) = (place(&mut a), place(&mut b));
        assert_eq!(a.write_from(&[1; 40]), 32);
        assert_eq!(b.write_from(&[9; 3]), 3);
        assert_eq!(a.copy_from(b), 16);
        let mut bytes = [7; 20];
        assert_eq!(a.read_into(&mut bytes), 20);
        assert_eq!(bytes, [9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(b.read_into(&mut bytes), 16);
    }

    #[test]
    fn words_are_atomic_when_aligned() {
        let mut words = [5u64; 2];
        let whole = place(&mut words);
        assert_eq!(whole.atomic_u64().map(|word| word.fetch_add(2, Ordering::Relaxed)), Some(5));
        assert!(whole.sub(4, 8).is_some_and(|part| part.atomic_u64().is_none()));
        assert!(whole.sub(8, 7).is_some_and(|part| part.atomic_u64().is_none()));
        assert_eq!(words, [7, 5]);
    }
}
