//! The two ends of a ring of packets, and the word in front of each.

use super::layout::{Geometry, WORD};

/// The word in front of a packet. It is written last, so who finds the number that is next finds the packet behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The running number of the packet, from 1, as far as 32 bits go: a slot that was never written holds none, and one of the lap before another.
    pub number: u32,
    /// Bytes of the packet.
    pub len: u16,
    /// What an IPv4 or IPv6 header would say of it.
    pub traffic_class: u8,
    /// Likewise.
    pub hop_limit: u8,
}

impl Header {
    /// The header of the packet with this running number, from 0.
    #[inline]
    pub const fn of(number: u64, len: u16, traffic_class: u8, hop_limit: u8) -> Self {
        Self { number: number.wrapping_add(1) as u32, len, traffic_class, hop_limit }
    }

    /// As a word.
    #[inline]
    pub const fn to_word(self) -> u64 {
        (self.number as u64) << 32
            | (self.len as u64) << 16
            | (self.traffic_class as u64) << 8
            | self.hop_limit as u64
    }

    /// What a word says.
    #[inline]
    pub const fn from_word(word: u64) -> Self {
        Self {
            number: (word >> 32) as u32,
            len: (word >> 16) as u16,
            traffic_class: (word >> 8) as u8,
            hop_limit: word as u8,
        }
    }
}

/// What a look at the next slot has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The packet is not there yet.
    Nothing,
    /// All ones, as memory reads that has gone. No header is.
    Ones,
    /// A packet: so many bytes from this offset of the area on, all inside of the slot.
    Packet {
        /// Where its first byte is.
        at: usize,
        /// What its header says. The length is not above what a slot holds.
        header: Header,
    },
    /// The number is right and the length is not: no side that keeps to the protocol wrote it.
    Broken,
}

/// Where we take packets from: our own area.
#[derive(Clone, Debug)]
pub struct Inbox {
    geometry: Geometry,
    /// Packets taken.
    taken: u64,
    /// How many of them the peer was told of.
    told: u64,
}

impl Inbox {
    /// An empty one. All headers are zero before the peer begins.
    pub const fn new(geometry: Geometry) -> Self {
        Self { geometry, taken: 0, told: 0 }
    }

    /// Where the header of the next packet will be.
    #[inline]
    pub const fn next(&self) -> usize {
        self.geometry.slot(self.taken)
    }

    /// What the word means that was read [there](Self::next).
    #[inline]
    pub const fn look(&self, word: u64) -> Arrival {
        let header = Header::from_word(word);
        if word == u64::MAX {
            return Arrival::Ones;
        }
        if header.number != self.taken.wrapping_add(1) as u32 {
            return Arrival::Nothing;
        }
        if header.len as usize > self.geometry.longest() {
            return Arrival::Broken;
        }
        Arrival::Packet { at: self.next() + WORD, header }
    }

    /// The packet has been copied out: its slot is free.
    #[inline]
    pub const fn take(&mut self) {
        self.taken = self.taken.wrapping_add(1);
    }

    /// How many packets were taken.
    #[inline]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// What to tell the peer, if that is worth a write: a quarter of the slots has become free.
    #[inline]
    pub const fn credit(&mut self) -> Option<u64> {
        let new = self.taken.wrapping_sub(self.told);
        if new < (self.geometry.slots() as u64).div_ceil(4) {
            return None;
        }
        self.told = self.taken;
        Some(self.taken)
    }
}

/// Where we put packets: the peer's area, as the peer has cut it.
#[derive(Clone, Copy, Debug)]
pub struct Outbox {
    geometry: Geometry,
}

impl Outbox {
    /// An area that is cut so.
    pub const fn new(geometry: Geometry) -> Self {
        Self { geometry }
    }

    /// How many packets may follow the first `sent`, if the peer says that it has taken so many. What makes no sense gives no room.
    #[inline]
    pub const fn room(&self, sent: u64, taken: u64) -> u64 {
        let waiting = sent.wrapping_sub(taken);
        (self.geometry.slots() as u64).saturating_sub(waiting)
    }

    /// Where the slot of the packet with this running number, from 0, begins.
    #[inline]
    pub const fn slot(&self, number: u64) -> usize {
        self.geometry.slot(number)
    }

    /// The longest packet that the peer can take.
    #[inline]
    pub const fn longest(&self) -> usize {
        self.geometry.longest()
    }
}
