//! What a side says of itself in the peer's area: eight words, of which the last vouches for the others.

use super::layout::Geometry;
use crate::Mtu;

/// Words of a hello.
pub const HELLO_WORDS: usize = 8;
/// "tbrdmaba", and what the rest means is the version's to say.
const MAGIC: u64 = u64::from_be_bytes(*b"tbrdmaba");
/// The version of the whole protocol: layout, words, order.
const VERSION: u16 = 1;

const READY: u64 = 1;
const CLOSING: u64 = 2;

/// Why a hello is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Nothing, something else, or words of two hellos: look again when the peer rings.
    #[error("nobody has said hello")]
    Nothing,
    /// Another version of the protocol.
    #[error(
        "the peer speaks version {0} of the window's protocol, this is version {VERSION}: use the same release on both sides"
    )]
    Version(u16),
    /// The peer has cut its area in a way that does not fit.
    #[error(
        "the peer takes packets of {slot_bytes} bytes in {slots} slots, which does not fit a window of {bytes} bytes and a path MTU of {mtu}: give both sides windows of one size"
    )]
    Geometry {
        /// How many slots it says to have.
        slots: u32,
        /// Of how many bytes.
        slot_bytes: u32,
        /// Bytes of its area that can be written.
        bytes: usize,
        /// What its packets have to hold.
        mtu: u32,
    },
}

/// A hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who says it: another number each time a device is opened, never 0. It is the GUID as well.
    pub incarnation: u64,
    /// Whom it answers: the other side's incarnation, or 0 if none is known. Who says so writes nothing any more that was meant for an earlier one.
    pub answers: u64,
    /// The area has been emptied for this pair of incarnations: it may be written.
    pub is_ready: bool,
    /// The side is going away, and writes nothing any more.
    pub is_closing: bool,
    /// How the side's own area is cut.
    pub slots: u32,
    /// Bytes of each slot there.
    pub slot_bytes: u32,
    /// By which number its doorbell is rung, where there are several.
    pub doorbell: u16,
}

impl Hello {
    /// As words, in the order of their addresses.
    pub fn to_words(&self) -> [u64; HELLO_WORDS] {
        let flags = (u64::from(self.is_ready) * READY) | (u64::from(self.is_closing) * CLOSING);
        let mut words = [
            MAGIC,
            u64::from(VERSION) << 48 | u64::from(self.doorbell) << 32 | flags,
            self.incarnation,
            self.answers,
            u64::from(self.slots) << 32 | u64::from(self.slot_bytes),
            0,
            0,
            0,
        ];
        let [rest @ .., check] = &mut words;
        *check = sum(rest);
        words
    }

    /// What words say that were read one after the other while they may have been changed.
    ///
    /// # Errors
    /// [`HelloError::Nothing`] or [`HelloError::Version`].
    pub fn from_words(words: &[u64; HELLO_WORDS]) -> Result<Self, HelloError> {
        let [rest @ .., check] = words;
        let [magic, kind, incarnation, answers, cut, ..] = *rest;
        if magic != MAGIC || incarnation == 0 || *check != sum(rest) {
            return Err(HelloError::Nothing);
        }
        let version = (kind >> 48) as u16;
        if version != VERSION {
            return Err(HelloError::Version(version));
        }
        Ok(Self {
            incarnation,
            answers,
            is_ready: kind & READY != 0,
            is_closing: kind & CLOSING != 0,
            slots: (cut >> 32) as u32,
            slot_bytes: cut as u32,
            doorbell: (kind >> 32) as u16,
        })
    }

    /// How the side has cut its area, of which we can write so many bytes, for packets of this MTU.
    ///
    /// # Errors
    /// [`HelloError::Geometry`].
    pub fn geometry(&self, mtu: Mtu, bytes: usize) -> Result<Geometry, HelloError> {
        let Self { slots, slot_bytes, .. } = *self;
        let refused = HelloError::Geometry { slots, slot_bytes, bytes, mtu: mtu.bytes() };
        Geometry::told(slots, slot_bytes, mtu, bytes).ok_or(refused)
    }
}

/// A sum of words, which tells a whole hello from a mixture of two. It is no protection against who means harm: who can write a hello can write any.
fn sum(words: &[u64]) -> u64 {
    words.iter().fold(MAGIC, |sum, word| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}
