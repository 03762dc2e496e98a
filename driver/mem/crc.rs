//! A copy that computes the CRC-32 of what it copies: bytes that somebody may change meanwhile are read once, and while they are in a register.
//!
//! A CRC is the remainder of a division of polynomials over GF(2), and what is far in front of the end may be replaced by something shorter
//! with the same remainder: 64 bits times x^n become their product with the remainder of x^n, which carry-less multiplication makes
//! of eight such words at once (V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction",
//! Intel, 2009). Without these instructions the copy comes first, and then the CRC of the copy.

use super::Place;
use crc32fast::Hasher;

impl Place<'_> {
    /// Copies the start of the place into `bytes` as [`read_into`](Self::read_into) does, if the place has as many bytes. `crc` is the CRC-32
    /// (that of Ethernet) of what is before them; the answer is that of both.
    #[inline]
    pub(crate) fn read_into_with_crc(&self, bytes: &mut [u8], crc: u32) -> Option<u32> {
        if self.len() < bytes.len() {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        if bytes.len() >= vectors::LEAST && vectors::are_there() {
            let whole = bytes.len() - bytes.len() % vectors::STEP;
            let (front, rest) = bytes.split_at_mut(whole);
            // SAFETY: the processor has what the function needs; the place has at least as many bytes as `front`, readable as the place promises.
            let crc = unsafe { vectors::copy(front, self.as_ptr(), crc) };
            return Some(self.sub(whole, rest.len())?.copy_then_compute(rest, crc));
        }
        Some(self.copy_then_compute(bytes, crc))
    }

    fn copy_then_compute(&self, bytes: &mut [u8], crc: u32) -> u32 {
        self.read_into(bytes);
        compute(crc, bytes)
    }
}

/// The CRC-32 of what has `crc` and of the bytes behind it.
#[inline]
pub(crate) fn continue_crc(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= vectors::LEAST && vectors::are_there() {
        let (front, rest) = bytes.split_at(bytes.len() - bytes.len() % vectors::STEP);
        // SAFETY: the processor has what the function needs; `front` is readable.
        let crc = unsafe { vectors::look(front, crc) };
        return compute(crc, rest);
    }
    compute(crc, bytes)
}

fn compute(crc: u32, bytes: &[u8]) -> u32 {
    if bytes.is_empty() {
        return crc;
    }
    let mut hasher = Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}

/// With carry-less multiplication of 512 bits.
#[cfg(target_arch = "x86_64")]
mod vectors {
    use super::Hasher;
    use std::arch::asm;
    use std::arch::x86_64::{
        __m128i, __m512i, _mm_clmulepi64_si128, _mm_set_epi64x, _mm_storeu_si128, _mm_xor_si128,
        _mm512_clmulepi64_epi128, _mm512_extracti32x4_epi32, _mm512_set_epi64, _mm512_setzero_si512,
        _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512, _mm512_zextsi128_si512,
    };

    /// Bytes of a register.
    pub(super) const STEP: usize = 64;
    /// Bytes of the four registers that are folded side by side.
    const STRIDE: usize = 4 * STEP;
    /// From so many bytes on it pays.
    pub(super) const LEAST: usize = 2 * STRIDE;

    /// The remainder of x^`power`, as its place in a reflected product wants it.
    const fn remainder(power: u32) -> i64 {
        const POLYNOMIAL: u32 = 0x04c1_1db7;
        let (mut value, mut left) = (1_u32, power);
        while left > 0 {
            value = (value << 1) ^ (if value >> 31 == 1 { POLYNOMIAL } else { 0 });
            left -= 1;
        }
        (value.reverse_bits() as i64) << 1
    }

    /// What moves 128 bits over a distance in bits: their lower and their upper half.
    const fn over(distance: u32) -> [i64; 2] {
        [remainder(distance + 32), remainder(distance - 32)]
    }

    const FAR: [i64; 2] = over(8 * STRIDE as u32);
    const NEXT: [i64; 2] = over(8 * STEP as u32);
    const LANE: [i64; 2] = over(128);

    /// Does this processor have the instructions?
    #[inline]
    pub(super) fn are_there() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("pclmulqdq")
    }

    /// Copies `to.len()` bytes from `from` on, a multiple of [`STEP`] and at least [`LEAST`], and continues `crc` over them.
    ///
    /// # Safety
    /// [`are_there`], and as many bytes are readable at `from`; others may change them meanwhile.
    #[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
    pub(super) unsafe fn copy(to: &mut [u8], from: *const u8, crc: u32) -> u32 {
        // SAFETY: as many bytes are readable at `from` and writable at `to`.
        unsafe { go_over::<true>(to.as_mut_ptr(), from, to.len(), crc) }
    }

    /// Continues `crc` over bytes, a multiple of [`STEP`] and at least [`LEAST`].
    ///
    /// # Safety
    /// [`are_there`].
    #[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
    pub(super) unsafe fn look(bytes: &[u8], crc: u32) -> u32 {
        // SAFETY: the bytes are readable, and nothing is copied.
        unsafe { go_over::<false>(std::ptr::null_mut(), bytes.as_ptr(), bytes.len(), crc) }
    }

    /// Continues `crc` over `len` bytes from `from` on, and copies them if `COPIES`.
    ///
    /// # Safety
    /// `len` is a multiple of [`STEP`] and at least [`LEAST`]; as many bytes are readable at `from`, which others may change meanwhile, and
    /// writable at `to` if they are copied.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
    unsafe fn go_over<const COPIES: bool>(to: *mut u8, from: *const u8, len: usize, crc: u32) -> u32 {
        let far = _mm512_set_epi64(FAR[1], FAR[0], FAR[1], FAR[0], FAR[1], FAR[0], FAR[1], FAR[0]);
        let next = _mm512_set_epi64(NEXT[1], NEXT[0], NEXT[1], NEXT[0], NEXT[1], NEXT[0], NEXT[1], NEXT[0]);
        let lane = _mm_set_epi64x(LANE[1], LANE[0]);
        let strides = len - len % STRIDE;
        // What the CRC was so far is added to the first bits.
        // SAFETY: the first stride is within what the caller promises.
        let mut sums = unsafe { four::<COPIES>(to, from) };
        let before = _mm_set_epi64x(0, i64::from(!crc));
        sums[0] = _mm512_xor_si512(sums[0], _mm512_zextsi128_si512(before));
        for at in (STRIDE..strides).step_by(STRIDE) {
            // SAFETY: as above, with the strides after it.
            let bytes = unsafe { four::<COPIES>(to.wrapping_add(at), from.wrapping_add(at)) };
            for (sum, bytes) in sums.iter_mut().zip(bytes) {
                *sum = fold(*sum, far, bytes);
            }
        }
        let [mut sum, rest @ ..] = sums;
        for other in rest {
            sum = fold(sum, next, other);
        }
        for at in (strides..len).step_by(STEP) {
            // SAFETY: as above, with what is behind the strides.
            let bytes = unsafe { one::<COPIES>(to.wrapping_add(at), from.wrapping_add(at)) };
            sum = fold(sum, next, bytes);
        }
        let mut last = _mm512_extracti32x4_epi32::<0>(sum);
        last = fold_lane(last, lane, _mm512_extracti32x4_epi32::<1>(sum));
        last = fold_lane(last, lane, _mm512_extracti32x4_epi32::<2>(sum));
        last = fold_lane(last, lane, _mm512_extracti32x4_epi32::<3>(sum));
        let mut bytes = [0_u8; 16];
        // SAFETY: the array has the register's 16 bytes.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), last) };
        // These 16 bytes have the remainder of all, and nothing is before them.
        let mut hasher = Hasher::new_with_initial(!0);
        hasher.update(&bytes);
        hasher.finalize()
    }

    /// Moves `sum` over the distance of `by`, and adds `bytes`.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    fn fold(sum: __m512i, by: __m512i, bytes: __m512i) -> __m512i {
        const XOR_OF_THREE: i32 = 0x96;
        let low = _mm512_clmulepi64_epi128::<0x00>(sum, by);
        let high = _mm512_clmulepi64_epi128::<0x11>(sum, by);
        _mm512_ternarylogic_epi64::<XOR_OF_THREE>(low, high, bytes)
    }

    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    fn fold_lane(sum: __m128i, by: __m128i, bytes: __m128i) -> __m128i {
        let low = _mm_clmulepi64_si128::<0x00>(sum, by);
        let high = _mm_clmulepi64_si128::<0x11>(sum, by);
        _mm_xor_si128(_mm_xor_si128(low, high), bytes)
    }

    /// The bytes of a stride, copied if `COPIES`.
    ///
    /// # Safety
    /// [`STRIDE`] bytes are readable at `from`, and writable at `to` if they are copied.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn four<const COPIES: bool>(to: *mut u8, from: *const u8) -> [__m512i; 4] {
        let mut bytes = [_mm512_setzero_si512(); 4];
        for (bytes, number) in bytes.iter_mut().zip(0_usize..) {
            let at = number * STEP;
            // SAFETY: one of the four parts of the caller's stride.
            *bytes = unsafe { one::<COPIES>(to.wrapping_add(at), from.wrapping_add(at)) };
        }
        bytes
    }

    /// A register's bytes, read once: what is stored, if `COPIES`, is what is returned, whoever changes them.
    ///
    /// # Safety
    /// [`STEP`] bytes are readable at `from`, and writable at `to` if they are copied.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn one<const COPIES: bool>(to: *mut u8, from: *const u8) -> __m512i {
        let bytes: __m512i;
        // SAFETY: a load of the caller's bytes. In assembler, so that it is neither repeated nor taken for that of unshared memory.
        unsafe {
            asm!("vmovdqu64 {bytes}, [{from}]", from = in(reg) from, bytes = out(zmm_reg) bytes, options(nostack, preserves_flags, readonly));
        }
        if COPIES {
            // SAFETY: there is room for it.
            unsafe { _mm512_storeu_si512(to.cast(), bytes) };
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_right_and_so_is_its_crc() {
        let source: Vec<u8> = (0..9000_u32).map(|at| (at.wrapping_mul(at) >> 3) as u8).collect();
        let mut words = source.clone();
        // SAFETY: the exclusive borrow lasts as long as the place.
        let whole = unsafe { Place::new(words.as_mut_ptr(), words.len()) };
        for len in (0..1200).chain([2048, 4095, 4096, 4097, 8192, 8999]) {
            for offset in [0, 1] {
                let place = whole.sub(offset, len).unwrap();
                let expected = &source[offset..offset + len];
                for before in [0, 1, 0xdead_beef, u32::MAX] {
                    let mut bytes = vec![0xaa; len];
                    let mut hasher = Hasher::new_with_initial(before);
                    hasher.update(expected);
                    assert_eq!(
                        place.read_into_with_crc(&mut bytes, before),
                        Some(hasher.finalize()),
                        "{len}"
                    );
                    assert!(bytes == expected, "{len} bytes from {offset} on");
                    assert_eq!(continue_crc(before, expected), compute(before, expected), "{len}");
                }
            }
        }
        assert_eq!(whole.sub(0, 9).unwrap().read_into_with_crc(&mut [0; 10], 0), None);
    }
}
