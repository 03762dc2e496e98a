//! Packets on a stream: a header of 8 bytes in front of each.
//!
//! | byte | what | |
//! |---|---|---|
//! | 0 | mark | 0xa5 |
//! | 1 | traffic class | as in an IPv6 header, ECN bits included |
//! | 2..4 | length | of the packet behind the header |
//! | 4..6 | number | of the frame, counted modulo 2^16 from 0 |
//! | 6 | hop limit | as in an IPv6 header |
//! | 7 | check | a hash of the other seven |
//!
//! The number shows a frame that is missing, the check one that begins where none does.

use super::hello::{HELLO_BYTES, Hello, HelloError, MAGIC, Words};
use crate::Guid;
use crate::wire::MAX_HEADER_BYTES;

/// Bytes in front of each packet.
pub const FRAME_HEADER_BYTES: usize = 8;

/// The longest packet: headers, payload of the largest path MTU, padding, iCRC.
pub const MAX_FRAMED_PACKET: usize = MAX_HEADER_BYTES + 4096 + 3 + 4;

const MARK: u8 = 0xa5;

/// What arrived is not what the other end may have sent: the stream has broken its promise, or the other end has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// No frame begins here.
    #[error("the stream has lost bytes, or made some up: no frame begins where frame {expected} should")]
    Damaged {
        /// The number that was due.
        expected: u16,
    },
    /// Another frame is here.
    #[error("the stream has lost frames: after {expected} others comes number {got}")]
    Number {
        /// The number that was due.
        expected: u16,
        /// The one that came.
        got: u16,
    },
    /// No packet is so long.
    #[error("a packet of {len} bytes, of at most {MAX_FRAMED_PACKET}")]
    Length {
        /// Its length.
        len: u16,
    },
    /// Somebody else is at the other end now.
    #[error("another peer is at the other end now, GUID {guid}")]
    Another {
        /// Who.
        guid: Guid,
    },
    /// The other end sends us away, late.
    #[error("the other end introduces itself again: {0}")]
    Hello(#[from] HelloError),
}

/// The hash of a header whose check is zero.
#[inline]
const fn check(header: [u8; FRAME_HEADER_BYTES]) -> u8 {
    // Any odd number with bits all over spreads each byte into the highest one.
    (u64::from_be_bytes(header).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Numbers the frames that leave.
#[derive(Clone, Debug, Default)]
pub struct FrameWriter {
    next: u16,
}

impl FrameWriter {
    /// The header of a frame that leaves after so many others which have not left yet, and whose packet has so many bytes, at most
    /// [`MAX_FRAMED_PACKET`]. It is not numbered for good before it [leaves](Self::left).
    #[inline]
    pub fn header(
        &self,
        ahead: usize,
        len: usize,
        traffic_class: u8,
        hop_limit: u8,
    ) -> [u8; FRAME_HEADER_BYTES] {
        let [l0, l1] = (len as u16).to_be_bytes();
        let [n0, n1] = self.next.wrapping_add(ahead as u16).to_be_bytes();
        let mut header = [MARK, traffic_class, l0, l1, n0, n1, hop_limit, 0];
        header[7] = check(header);
        header
    }

    /// So many frames have left, or will before anything else does.
    #[inline]
    pub fn left(&mut self, count: usize) {
        self.next = self.next.wrapping_add(count as u16);
    }
}

/// What stands at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A packet.
    Packet {
        /// From the base transport header to the iCRC. Nothing of it has been looked at.
        packet: &'a [u8],
        /// As it was sent.
        traffic_class: u8,
        /// As it was sent.
        hop_limit: u8,
        /// Bytes of the frame: what comes next is behind them.
        bytes: usize,
    },
    /// A hello that the peer said once too often, because it did not know yet that it had been heard.
    Said {
        /// Bytes of it.
        bytes: usize,
    },
    /// More is needed before anything can be said.
    Incomplete,
}

/// Finds frames in what arrives.
#[derive(Clone, Debug)]
pub struct FrameReader {
    peer: Guid,
    next: u16,
}

impl FrameReader {
    /// For the frames of a peer, from its first on.
    pub const fn new(peer: Guid) -> Self {
        Self { peer, next: 0 }
    }

    /// Whose frames they are.
    #[inline]
    pub const fn peer(&self) -> Guid {
        self.peer
    }

    /// What `bytes` begin with: all that has arrived and was not taken yet.
    ///
    /// # Errors
    /// The stream is not to be trusted any more. Everything after that is an error too.
    #[inline]
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Item<'a>, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(Item::Incomplete);
        };
        let [mark, traffic_class, l0, l1, n0, n1, hop_limit, given] = *header;
        let mut unchecked = *header;
        unchecked[7] = 0;
        if mark != MARK || check(unchecked) != given {
            return self.strange(bytes);
        }
        let got = u16::from_be_bytes([n0, n1]);
        if got != self.next {
            return Err(FrameError::Number { expected: self.next, got });
        }
        let len = u16::from_be_bytes([l0, l1]);
        if usize::from(len) > MAX_FRAMED_PACKET {
            return Err(FrameError::Length { len });
        }
        let Some(packet) = rest.get(..usize::from(len)) else { return Ok(Item::Incomplete) };
        self.next = self.next.wrapping_add(1);
        Ok(Item::Packet { packet, traffic_class, hop_limit, bytes: FRAME_HEADER_BYTES + packet.len() })
    }

    /// Something that is no frame: the peer's hello once more, or the end.
    #[cold]
    fn strange<'a>(&self, bytes: &'a [u8]) -> Result<Item<'a>, FrameError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FrameError::Damaged { expected: self.next });
        }
        let Some(hello) = bytes.first_chunk::<HELLO_BYTES>() else { return Ok(Item::Incomplete) };
        let hello = Hello::parse(hello)?;
        if hello.guid == self.peer && hello.words == Words::Hello {
            return Ok(Item::Said { bytes: HELLO_BYTES });
        }
        Err(FrameError::Another { guid: hello.guid })
    }
}
