//! Fields of fixed-size headers: big-endian numbers at constant offsets, and headers put together from their fields.
//!
//! Offsets are constants of the callers, always within the array, so that the bounds checks fold away.

/// The 16-bit field at `offset`.
#[inline]
pub(super) fn be16<const N: usize>(bytes: &[u8; N], offset: usize) -> u16 {
    u16::from_be_bytes(field(bytes, offset))
}

/// The 32-bit field at `offset`.
#[inline]
pub(super) fn be32<const N: usize>(bytes: &[u8; N], offset: usize) -> u32 {
    u32::from_be_bytes(field(bytes, offset))
}

/// The 64-bit field at `offset`.
#[inline]
pub(super) fn be64<const N: usize>(bytes: &[u8; N], offset: usize) -> u64 {
    u64::from_be_bytes(field(bytes, offset))
}

/// `M` bytes at `offset`; zeroes where the array ends before.
#[inline]
pub(super) fn field<const N: usize, const M: usize>(bytes: &[u8; N], offset: usize) -> [u8; M] {
    bytes.get(offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; M])
}

/// The fields one after the other, cut off or filled up with zeroes to `N` bytes.
#[inline]
pub(super) fn join<const N: usize, const K: usize>(fields: [&[u8]; K]) -> [u8; N] {
    let mut joined = [0; N];
    let mut rest = joined.as_mut_slice();
    for field in fields {
        rest = put(rest, field);
    }
    joined
}

/// Writes `bytes` to the front of `out`, as many as fit, and returns what is left of it.
#[inline]
pub(super) fn put<'a>(out: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (front, rest) = out.split_at_mut(bytes.len().min(out.len()));
    for (to, from) in front.iter_mut().zip(bytes) {
        *to = *from;
    }
    rest
}
