//! Where things lie in an area. It is written by the peer and read by the owner, and nothing else, but for the claim.
//!
//! | offset | what | words |
//! |---|---|---|
//! | 0 | hello: who the peer is, and how far the two have met | 8 |
//! | 64 | how many of our packets the peer has taken; whether it sleeps | 2 |
//! | 128 | the peer's pulse | 1 |
//! | 192 | where the memory is one for both: who owns the area, and the owner's count that goes on | 2 |
//! | 256 | slots, each as long as the longest packet | |
//!
//! A slot is a header word and a packet behind it. Slots have a fixed length, so a header lies where only headers ever lie: what an application sends
//! cannot be taken for one, and nothing needs to be wiped between two laps.

use crate::Mtu;
use crate::wire::MAX_HEADER_BYTES;
use crate::wire::icrc::ICRC_BYTES;

/// Bytes of a word.
pub const WORD: usize = 8;
/// Where the hello is.
pub const HELLO: usize = 0;
/// Where the number of our packets is that the peer has taken.
pub const TAKEN: usize = 64;
/// Where the word is by which the peer asks to be woken: in the same line as what is looked at for every train anyway.
pub const ARM: usize = TAKEN + WORD;
/// Where the peer's pulse is.
pub const PULSE: usize = 128;
/// Where the owner's claim is, which the owner itself writes.
pub const CLAIM: usize = 192;
/// Where the owner counts for as long as it lives.
pub const BEAT: usize = CLAIM + WORD;
/// Where the slots begin.
pub const SLOTS: usize = 256;

/// Bytes to which slots are rounded: two lines, which many processors fetch as a pair.
const PAIR: usize = 128;
/// Slots below which a smaller path MTU is chosen: a train of the longest packets, and one under way.
const FEWEST: usize = 24;
/// The most slots. More are no faster, and only cool the caches.
const MOST: usize = 256;
/// Bytes of a slot that is as long as any.
const LONGEST: usize = slot_bytes(Mtu::B4096);

/// Bytes of a slot for packets of this MTU: headers, padding and iCRC included.
const fn slot_bytes(mtu: Mtu) -> usize {
    (WORD + MAX_HEADER_BYTES + mtu.bytes() as usize + 3 + ICRC_BYTES).next_multiple_of(PAIR)
}

/// How the slots of an area are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    slots: u32,
    slot_bytes: u32,
    mtu: Mtu,
}

impl Geometry {
    /// The cut of an area of so many bytes: the largest MTU of which it holds enough packets. `None` if it is too small for any.
    pub fn of_area(bytes: usize) -> Option<Self> {
        let room = bytes.checked_sub(SLOTS)?;
        [Mtu::B4096, Mtu::B2048, Mtu::B1024, Mtu::B512, Mtu::B256].into_iter().find_map(|mtu| {
            let slots = (room / slot_bytes(mtu)).min(MOST);
            (slots >= FEWEST).then(|| Self { slots: slots as u32, slot_bytes: slot_bytes(mtu) as u32, mtu })
        })
    }

    /// The bytes that the smallest area has.
    pub const fn smallest_area() -> usize {
        SLOTS + FEWEST * slot_bytes(Mtu::B256)
    }

    /// The cut that a peer tells of its area, of which we can write so many bytes. `None` if it does not fit there, or the slots are not for this MTU.
    pub fn told(slots: u32, slot_bytes_told: u32, mtu: Mtu, bytes: usize) -> Option<Self> {
        let len = slot_bytes_told as usize;
        let fits = (slots as usize).checked_mul(len)?.checked_add(SLOTS)? <= bytes;
        let is_usual = slots >= 1 && len.is_multiple_of(PAIR) && (slot_bytes(mtu)..=LONGEST).contains(&len);
        (fits && is_usual).then_some(Self { slots, slot_bytes: slot_bytes_told, mtu })
    }

    /// How many slots there are: at least 1.
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of a slot.
    pub const fn slot_bytes(&self) -> u32 {
        self.slot_bytes
    }

    /// The path MTU that every packet fits.
    pub const fn mtu(&self) -> Mtu {
        self.mtu
    }

    /// Where the slot of the packet with this running number, from 0, begins.
    #[inline]
    pub const fn slot(&self, number: u64) -> usize {
        // There is at least one slot.
        SLOTS + (number % self.slots as u64) as usize * self.slot_bytes as usize
    }

    /// The longest packet that a slot holds.
    #[inline]
    pub const fn longest(&self) -> usize {
        self.slot_bytes as usize - WORD
    }
}
