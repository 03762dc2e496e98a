//! The copy for x86-64, in assembler, so that the compiler can neither widen, merge nor reorder an access.
//!
//! The CPU keeps stores in program order for all to see, so no fence is needed.
//! `rep movsb` is not used, because it may store out of order inside. It gains a quarter where both ranges just fit the
//! second cache (64 KiB), nothing at 256 KiB, and a seventh at 1 MiB.

use std::arch::asm;

/// Bodies from this length on are worth wide vectors.
const WIDE: usize = 128;
/// From this length on it pays to make no store cross a cache line.
const ALIGNED: usize = 1024;

/// Defines functions that move one piece, of any alignment.
macro_rules! pieces {
    ($($(#[$doc:meta])* $name:ident: $class:ident $modifier:literal, $instruction:literal;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for `copy_ordered` with this length.
        #[inline(always)]
        unsafe fn $name(dst: *mut u8, src: *const u8) {
            // SAFETY: one load and one store of the caller's bytes; registers are allocated by the compiler.
            unsafe {
                asm!(
                    concat!($instruction, " {piece", $modifier, "}, [{src}]"),
                    concat!($instruction, " [{dst}], {piece", $modifier, "}"),
                    src = in(reg) src,
                    dst = in(reg) dst,
                    piece = out($class) _,
                    options(nostack, preserves_flags),
                );
            }
        }
    )* };
}

pieces! {
    /// Moves 1 byte.
    move1: reg_byte "", "mov";
    /// Moves 2 bytes.
    move2: reg ":x", "mov";
    /// Moves 4 bytes.
    move4: reg ":e", "mov";
    /// Moves 8 bytes.
    move8: reg ":r", "mov";
    /// Moves 16 bytes.
    move16: xmm_reg "", "movdqu";
}

/// Moves 64 bytes.
///
/// # Safety
/// As for `copy_ordered` with this length.
#[inline(always)]
unsafe fn move64(dst: *mut u8, src: *const u8) {
    // SAFETY: loads and stores of the caller's 64 bytes; registers are allocated by the compiler.
    unsafe {
        asm!(
            "movdqu {a}, [{src}]",
            "movdqu {b}, [{src} + 16]",
            "movdqu {c}, [{src} + 32]",
            "movdqu {d}, [{src} + 48]",
            "movdqu [{dst}], {a}",
            "movdqu [{dst} + 16], {b}",
            "movdqu [{dst} + 32], {c}",
            "movdqu [{dst} + 48], {d}",
            src = in(reg) src,
            dst = in(reg) dst,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Moves a number of bytes that its name says.
type Move = unsafe fn(dst: *mut u8, src: *const u8);

/// Two pointers that go up together.
struct Cursor {
    /// Where the next byte goes.
    dst: *mut u8,
    /// Where it comes from.
    src: *const u8,
}

impl Cursor {
    /// Moves with `step`, which moves `len` bytes, and goes on behind them.
    ///
    /// # Safety
    /// As for `copy_ordered` with this length.
    #[inline(always)]
    unsafe fn step(&mut self, len: usize, step: Move) {
        // SAFETY: the caller's promise.
        unsafe { step(self.dst, self.src) };
        self.forward(len);
    }

    /// Leaves `len` bytes behind.
    #[inline(always)]
    fn forward(&mut self, len: usize) {
        self.dst = self.dst.wrapping_add(len);
        self.src = self.src.wrapping_add(len);
    }

    /// Moves fewer than 8 bytes, small pieces first (`up`: towards an aligned word) or last (from one).
    ///
    /// # Safety
    /// As for `copy_ordered` with this length.
    #[inline(always)]
    unsafe fn odd(&mut self, len: usize, up: bool) {
        let pieces: [(usize, Move); 3] = [(1, move1), (2, move2), (4, move4)];
        for index in 0..3 {
            let (size, step) = pieces[if up { index } else { 2 - index }];
            if len & size != 0 {
                // SAFETY: the pieces add up to `len`.
                unsafe { self.step(size, step) };
            }
        }
    }

    /// Moves the multiples of 16 in `len`, and of 8: everything but the last `len % 8` bytes.
    ///
    /// # Safety
    /// As for `copy_ordered` with this length.
    #[inline(always)]
    unsafe fn words(&mut self, len: usize) {
        for _ in 0..len / 64 {
            // SAFETY: as many blocks as `len` holds.
            unsafe { self.step(64, move64) };
        }
        if len & 32 != 0 {
            for _ in 0..2 {
                // SAFETY: what is left holds two of these.
                unsafe { self.step(16, move16) };
            }
        }
        if len & 16 != 0 {
            // SAFETY: what is left holds one of these.
            unsafe { self.step(16, move16) };
        }
        if len & 8 != 0 {
            // SAFETY: what is left holds one of these.
            unsafe { self.step(8, move8) };
        }
    }
}

/// See `copy_ordered`.
///
/// # Safety
/// As for `copy_ordered`.
#[inline(always)]
pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    if len == 8 && dst.addr().is_multiple_of(8) {
        // Flags, counters, pointers: too common to look at their ends.
        // SAFETY: all the caller's bytes, one word.
        unsafe { move8(dst, src) };
    } else {
        // SAFETY: the same contract.
        unsafe { copy_any(dst, src, len) };
    }
}

/// [`copy`] of any length.
///
/// # Safety
/// As for `copy_ordered`.
#[inline(never)]
unsafe fn copy_any(dst: *mut u8, src: *const u8, len: usize) {
    let mut at = Cursor { dst, src };
    let mut left = len;
    let head = dst.addr().wrapping_neg() & 7;
    if head != 0 {
        if left <= head {
            // SAFETY: all the caller's bytes, less than a word.
            return unsafe { at.odd(left, false) };
        }
        // SAFETY: fewer than the caller's bytes.
        unsafe { at.odd(head, true) };
        left -= head;
    }
    // `dst` stands on a word now. The last word, whole or not, is kept back until all others are stored: a vector
    // that crosses a cache line could show its end first.
    let Some(before) = left.checked_sub(1) else { return };
    let body = before & !7;
    if body < WIDE {
        // SAFETY: fewer than the bytes left.
        unsafe { at.words(body) };
    } else {
        // SAFETY: as above, `dst` on a word.
        at = unsafe { wide(at, body) };
    }
    match left - body {
        // SAFETY: exactly the bytes left.
        8 => unsafe { at.step(8, move8) },
        // SAFETY: as above, fewer than 8.
        tail => unsafe { at.odd(tail, false) },
    }
}

/// Moves whole blocks of 64 bytes.
pub(super) type Blocks = unsafe fn(dst: *mut u8, src: *const u8, blocks: usize);

/// Moves `len` bytes, a multiple of 8 and at least [`WIDE`], in the widest vectors there are.
///
/// # Safety
/// As for `copy_ordered` with this length; `at.dst` must be aligned to 8.
#[inline(never)]
unsafe fn wide(mut at: Cursor, len: usize) -> Cursor {
    let mut left = len;
    if len >= ALIGNED {
        let head = at.dst.addr().wrapping_neg() & 63;
        // SAFETY: a multiple of 8 and less than `len`.
        unsafe { at.words(head) };
        left -= head;
    }
    let run = widest();
    // SAFETY: whole blocks of what is left, with instructions this CPU has.
    unsafe { run(at.dst, at.src, left / 64) };
    at.forward(left & !63);
    // SAFETY: the rest, a multiple of 8.
    unsafe { at.words(left & 63) };
    at
}

/// The widest vectors this CPU moves well. The standard library asks the CPU once and remembers.
#[inline]
fn widest() -> Blocks {
    // The first CPUs with AVX-512 slow down for a while when they use it; those that know VBMI2 do not.
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vbmi2") {
        blocks_512
    } else if is_x86_feature_detected!("avx") {
        blocks_256
    } else {
        blocks_128
    }
}

/// Defines loops of loads and stores of one width: over 256 bytes, then over 64.
macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident, $move:literal, [$($all:literal at $all_at:literal)*],
        [$($one:literal at $one_at:literal)*], $leave:literal;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for `copy_ordered` with 64 bytes a block; the CPU must have the instructions.
        pub(super) unsafe fn $name(dst: *mut u8, src: *const u8, blocks: usize) {
            // SAFETY: the loops move the caller's `blocks` times 64 bytes. All vector registers are given up, as for
            // any call.
            unsafe {
                asm!(
                    "mov rdx, rcx",
                    "shr rcx, 2",
                    "jz 3f",
                    "2:",
                    $(concat!($move, " ", $all, ", [rsi + ", $all_at, "]"),)*
                    $(concat!($move, " [rdi + ", $all_at, "], ", $all),)*
                    "add rsi, 256",
                    "add rdi, 256",
                    "sub rcx, 1",
                    "jnz 2b",
                    "3:",
                    "and edx, 3",
                    "jz 5f",
                    "4:",
                    $(concat!($move, " ", $one, ", [rsi + ", $one_at, "]"),)*
                    $(concat!($move, " [rdi + ", $one_at, "], ", $one),)*
                    "add rsi, 64",
                    "add rdi, 64",
                    "sub edx, 1",
                    "jnz 4b",
                    "5:",
                    $leave,
                    inout("rsi") src => _,
                    inout("rdi") dst => _,
                    inout("rcx") blocks => _,
                    clobber_abi("C"),
                    options(nostack),
                );
            }
        }
    )* };
}

blocks! {
    /// 64 bytes a load.
    blocks_512, "vmovdqu64", ["zmm0" at 0 "zmm1" at 64 "zmm2" at 128 "zmm3" at 192], ["zmm0" at 0], "vzeroupper";
    /// 32 bytes a load.
    blocks_256, "vmovdqu",
        ["ymm0" at 0 "ymm1" at 32 "ymm2" at 64 "ymm3" at 96 "ymm4" at 128 "ymm5" at 160 "ymm6" at 192 "ymm7" at 224],
        ["ymm0" at 0 "ymm1" at 32], "vzeroupper";
    /// 16 bytes a load, which every x86-64 has.
    blocks_128, "movdqu",
        ["xmm0" at 0 "xmm1" at 16 "xmm2" at 32 "xmm3" at 48 "xmm4" at 64 "xmm5" at 80 "xmm6" at 96 "xmm7" at 112
            "xmm8" at 128 "xmm9" at 144 "xmm10" at 160 "xmm11" at 176 "xmm12" at 192 "xmm13" at 208 "xmm14" at 224
            "xmm15" at 240],
        ["xmm0" at 0 "xmm1" at 16 "xmm2" at 32 "xmm3" at 48], "";
}
