//! `copy_ordered`: the copy a DMA engine would make, for memory that others change and poll meanwhile.
//!
//! Rust's and C's memcpy will not do. To the compiler both ranges are its own, so a concurrent change is undefined
//! behaviour; and glibc's memcpy writes the end of many lengths before their middle, while RDMA programs learn of a
//! message by polling its last byte, as adapters let them. Here every access is volatile or in assembler.

/// Copies `len` bytes the way an adapter places them.
///
/// - Addresses go up, and the word that holds the last byte is stored after every other: who sees it change (and then
///   fences, on a weakly ordered CPU) finds the rest in place. On x86-64 all stores become visible in address order,
///   to the granularity of one vector.
/// - Each aligned 8-byte word of `dst` that lies wholly inside is stored in one piece, and read in one piece when `src`
///   has the same alignment. (Where a `dst` in the middle of a vector stands on an 8-byte boundary, this is what CPUs
///   do, though their manuals promise it for the words at both ends only.)
/// - No byte outside is read or written, and none twice.
/// - Bytes changed by somebody else meanwhile arrive old or new. The ranges may overlap; the bytes are then unspecified.
///
/// # Safety
/// `src` must be readable and `dst` writable for `len` bytes, and no Rust reference may exist that the access would
/// break. Others, also in other processes, may access both at the same time.
#[inline(always)]
pub(crate) unsafe fn copy_ordered(dst: *mut u8, src: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the same contract.
    unsafe {
        x86::copy(dst, src, len);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: the same contract.
    unsafe {
        portable::copy(dst, src, len);
    }
}

/// For x86-64.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86;

/// Volatile accesses of the widest unit to which both ranges are aligned. It is the only copy elsewhere than on
/// x86-64, and tested everywhere.
#[cfg(any(test, miri, not(target_arch = "x86_64")))]
mod portable {
    use std::sync::atomic::{Ordering, fence};

    /// Moves `count` units of `T` upwards.
    ///
    /// # Safety
    /// As for `copy_ordered`; both pointers must be aligned for `T`.
    unsafe fn units<T: Copy>(dst: *mut u8, src: *const u8, count: usize) {
        for index in 0..count {
            // SAFETY: inside the caller's bytes, and aligned.
            let unit = unsafe { src.cast::<T>().wrapping_add(index).read_volatile() };
            // SAFETY: as above.
            unsafe { dst.cast::<T>().wrapping_add(index).write_volatile(unit) };
        }
    }

    /// [`units`] of `T`, with bytes before and after, and the last unit or byte behind a fence.
    ///
    /// # Safety
    /// As for `copy_ordered`; both pointers must be equally far from alignment for `T`.
    unsafe fn aligned<T: Copy>(dst: *mut u8, src: *const u8, len: usize) {
        let size = size_of::<T>();
        let head = (dst.addr().wrapping_neg() & (size - 1)).min(len);
        let count = (len - head) / size;
        let tail = len - head - count * size;
        let behind = |at: usize| (dst.wrapping_add(at), src.wrapping_add(at));
        // What is last: a byte when the end is not aligned, else a unit.
        let (head_now, count_now, tail_now) = match (count, tail) {
            (0, 0) => (head - 1, 0, 0),
            (_, 0) => (head, count - 1, 0),
            _ => (head, count, tail - 1),
        };
        // SAFETY: disjoint parts of the caller's bytes; the units start aligned.
        unsafe { units::<u8>(dst, src, head_now) };
        let (to, from) = behind(head);
        // SAFETY: as above.
        unsafe { units::<T>(to, from, count_now) };
        let (to, from) = behind(head + count * size);
        // SAFETY: as above.
        unsafe { units::<u8>(to, from, tail_now) };
        fence(Ordering::Release);
        if count_now < count {
            let (to, from) = behind(head + count_now * size);
            // SAFETY: the last unit, aligned.
            unsafe { units::<T>(to, from, 1) };
        } else {
            let (to, from) = behind(len - 1);
            // SAFETY: the last byte.
            unsafe { units::<u8>(to, from, 1) };
        }
    }

    /// See `copy_ordered`.
    ///
    /// # Safety
    /// As for `copy_ordered`.
    pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
        if len == 0 {
            return;
        }
        match (dst.addr() ^ src.addr()) & 7 {
            // SAFETY: the caller's promise, and equal alignment.
            0 => unsafe { aligned::<u64>(dst, src, len) },
            // SAFETY: as above.
            4 => unsafe { aligned::<u32>(dst, src, len) },
            // SAFETY: as above.
            2 | 6 => unsafe { aligned::<u16>(dst, src, len) },
            // SAFETY: as above; bytes are always aligned.
            _ => unsafe { aligned::<u8>(dst, src, len) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    /// The shape of all copies.
    type Copy = unsafe fn(*mut u8, *const u8, usize);

    /// Bytes aligned like a cache line.
    #[repr(align(64))]
    struct Lines([u8; 8192]);

    /// Copies and compares, with canaries around.
    fn check(copy: Copy, source: &Lines, from: usize, to: usize, len: usize) {
        let mut target = Lines([0xee; 8192]);
        let (to_ptr, from_ptr) =
            (target.0.as_mut_ptr().wrapping_add(to), source.0.as_ptr().wrapping_add(from));
        // SAFETY: two buffers of this test with room for `len` bytes from these offsets.
        unsafe { copy(to_ptr, from_ptr, len) };
        let target = std::hint::black_box(target).0;
        assert_eq!(target[to..to + len], source.0[from..from + len], "{from} -> {to}, {len} bytes");
        assert!(
            target[..to].iter().chain(&target[to + len..]).all(|&byte| byte == 0xee),
            "{from} -> {to}, {len}"
        );
    }

    #[test]
    fn every_small_copy_is_exact() {
        let source = Lines(std::array::from_fn(|at| (at % 233) as u8));
        for copy in [copy_ordered as Copy, portable::copy] {
            for len in 0..=if cfg!(miri) { 20 } else { 300 } {
                for from in 0..16 {
                    for to in [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 15] {
                        check(copy, &source, 64 + from, 128 + to, len);
                    }
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow")]
    fn large_copies_are_exact() {
        let source = Lines(std::array::from_fn(|at| (at % 233) as u8));
        for copy in [copy_ordered as Copy, portable::copy] {
            for len in (500..=800).chain([1023, 1024, 4095, 4096, 4097, 7777]) {
                for (from, to) in [(0, 0), (1, 1), (8, 8), (3, 56), (0, 63), (64, 9), (17, 200)] {
                    check(copy, &source, from, to, len);
                }
            }
        }
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[test]
    fn every_width_moves_the_same() {
        let source = Lines(std::array::from_fn(|at| (at % 233) as u8));
        let widths: [(x86::Blocks, bool); 3] = [
            (x86::blocks_128, true),
            (x86::blocks_256, is_x86_feature_detected!("avx")),
            (x86::blocks_512, is_x86_feature_detected!("avx512f")),
        ];
        for (run, _) in widths.into_iter().filter(|&(_, known)| known) {
            for (from, blocks) in [(0, 1), (5, 3), (64, 31), (7, 126), (9, 0)] {
                let mut target = Lines([0xee; 8192]);
                // SAFETY: `blocks` times 64 bytes fit from these offsets.
                unsafe { run(target.0.as_mut_ptr(), source.0.as_ptr().wrapping_add(from), blocks) };
                let target = std::hint::black_box(target).0;
                assert_eq!(target[..blocks * 64], source.0[from..from + blocks * 64]);
                assert!(target[blocks * 64..].iter().all(|&byte| byte == 0xee));
            }
        }
    }

    /// One thread writes messages whose bytes are all the same, another polls the last byte and looks at the rest.
    fn poll_the_last_byte(copy: Copy, at: usize, len: usize, rounds: u32) {
        let words: Vec<AtomicU64> = (0..(at + len).div_ceil(8) + 8).map(|_| AtomicU64::new(0)).collect();
        let base = words.as_ptr() as *mut u8;
        // SAFETY: in bounds of `words`, which outlives the threads and is only used through atomics and copies.
        let byte = |index: usize| unsafe { AtomicU8::from_ptr(base.wrapping_add(at + index)) };
        let read = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let (read, words) = (&read, &words);
            scope.spawn(move || {
                let target = words.as_ptr() as *mut u8;
                for round in 1..=rounds {
                    let message = vec![round as u8; len];
                    // SAFETY: in bounds of `words`, and of the message.
                    unsafe { copy(target.wrapping_add(at), message.as_ptr(), len) };
                    let start = Instant::now();
                    while read.load(Ordering::Acquire) != u64::from(round) {
                        assert!(start.elapsed() < Duration::from_secs(60), "the reader is gone");
                        std::thread::yield_now();
                    }
                }
            });
            for round in 1..=rounds {
                let (start, mut spins) = (Instant::now(), 0u32);
                while byte(len - 1).load(Ordering::Acquire) != round as u8 {
                    assert!(start.elapsed() < Duration::from_secs(60), "the writer is gone");
                    spins += 1;
                    // The writer may need this very CPU.
                    if spins.is_multiple_of(256) { std::thread::yield_now() } else { std::hint::spin_loop() }
                }
                for index in (0..len).rev() {
                    assert_eq!(byte(index).load(Ordering::Relaxed), round as u8, "byte {index} of {len}");
                }
                read.store(u64::from(round), Ordering::Release);
            }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "two kinds of access to one byte")]
    fn the_last_byte_comes_last() {
        for copy in [copy_ordered as Copy, portable::copy] {
            for (at, len) in [(0, 64), (3, 64), (8, 17), (40, 60), (0, 1000), (5, 4099), (0, 65536)] {
                poll_the_last_byte(copy, at, len, 2_000_000 / (len as u32 + 500));
            }
        }
    }
}
