//! Arithmetic of CRC-32: polynomials over GF(2) modulo its generator, and what it makes cheap.
//!
//! A CRC is affine in the bytes: change some bytes, and the CRC changes by a sum (exclusive or) that depends on where they are and how
//! they change, on nothing else. So a field of a header that is otherwise known adds a number from a small table to the CRC, and a CRC
//! that is off by one unknown field tells the field.
//!
//! Representation: a `u32` is a polynomial of degree 31 at most, bit 31 being the coefficient of 1, as the shift register of a CRC
//! that takes each byte's low bit first has it. A byte then enters at bits 0 to 7, and a zero byte multiplies by x^8.

/// The generator without its term x^32.
const GENERATOR: u32 = 0xedb8_8320;
/// 1.
const ONE: u32 = 1 << 31;
/// x.
const X: u32 = 1 << 30;
/// 1/x: the generator is zero, so 1 is the rest of it, which has no term 1 and can be divided by x.
const X_INVERSE: u32 = (ONE ^ GENERATOR) << 1 | 1;

/// The product.
#[inline]
pub(super) const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        product ^= b & 0u32.wrapping_sub((a & bit != 0) as u32);
        // b times x.
        b = b >> 1 ^ GENERATOR & 0u32.wrapping_sub(b & 1);
        bit >>= 1;
    }
    product
}

/// `base` to the power of `exponent`.
const fn power(mut base: u32, mut exponent: u32) -> u32 {
    let mut power = ONE;
    while exponent != 0 {
        if exponent & 1 != 0 {
            power = multiply(power, base);
        }
        base = multiply(base, base);
        exponent >>= 1;
    }
    power
}

/// What a 16-bit big-endian field at a fixed distance from the end of the bytes adds to their CRC, beside a zero in its place.
pub(super) struct Field([[u32; 16]; 4]);

impl Field {
    /// The field that `after` bytes follow.
    pub(super) const fn followed_by(after: u32) -> Self {
        // The field's own register, at the end of its two bytes, is 32 powers of x above that of the remainder.
        let shift = power(X, 32 + 8 * after);
        let mut table = [[0; 16]; 4];
        let mut nibble = 0;
        while nibble < 4 {
            let mut value = 0;
            while value < 16 {
                let register = (((value as u16) << (4 * nibble)).swap_bytes() as u32) << 16;
                table[nibble][value] = multiply(register, shift);
                value += 1;
            }
            nibble += 1;
        }
        Self(table)
    }

    /// What `value` adds.
    #[inline]
    pub(super) const fn holding(&self, value: u16) -> u32 {
        let [a, b, c, d] = &self.0;
        let v = value as usize;
        a[v & 15] ^ b[v >> 4 & 15] ^ c[v >> 8 & 15] ^ d[v >> 12]
    }
}

/// How many words of 4 bytes [`field_from_sum`] can go back in one step of [`BACK_FAR`].
const STEP: usize = 128;

/// x to the powers -(32 + 8 * 2 + 32 i): back over i words, over two bytes, and from a remainder to a register.
const BACK_NEAR: [u32; STEP] = powers(power(X_INVERSE, 32 + 16), power(X_INVERSE, 32));
/// x to the powers -(32 * [`STEP`] i): together with the near ones enough for 2^18 bytes.
const BACK_FAR: [u32; 512] = powers(ONE, power(X_INVERSE, 32 * STEP as u32));

/// `first`, `first * step`, `first * step^2`...
const fn powers<const N: usize>(first: u32, step: u32) -> [u32; N] {
    let mut powers = [first; N];
    let mut i = 1;
    while i < N {
        powers[i] = multiply(powers[i - 1], step);
        i += 1;
    }
    powers
}

/// The inverse of [`Field::holding`] for a field that `4 * words + 2` bytes follow: what the field must hold to add `sum`, or `None`
/// if none of its 2^16 values adds that. `words` counts modulo 2^16.
#[inline]
pub(super) fn field_from_sum(sum: u32, words: usize) -> Option<u16> {
    let (far, near) = (BACK_FAR[words / STEP % BACK_FAR.len()], BACK_NEAR[words % STEP]);
    let register = multiply(multiply(sum, far), near);
    // The two bytes that went in last are all there may be.
    (register & 0xffff == 0).then_some(((register >> 16) as u16).swap_bytes())
}
