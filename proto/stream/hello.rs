//! What either end of a stream says first: 64 bytes, whatever the version.
//!
//! | bytes | what | |
//! |---|---|---|
//! | 0..8 | magic | `TBRDMAst` |
//! | 8..10 | version | of all that follows, but for the magic, this and the check |
//! | 10 | words | 0: hello; 1: a refusal |
//! | 11 | reason | of a refusal |
//! | 12..16 | features | both ends must have the same |
//! | 16..24 | GUID | of this end, as long as its device is open |
//! | 24..32 | heard | the GUID of the other end, once it has been heard; else 0 |
//! | 32..34 | path MTU | the largest of this end, in bytes |
//! | 34..60 | | zero |
//! | 60..64 | check | CRC-32 of all before it |
//!
//! Numbers are in network order.

use crate::{Guid, Mtu};
use bitflags::bitflags;

/// Bytes of a hello.
pub const HELLO_BYTES: usize = 64;

/// The version spoken here.
pub const STREAM_VERSION: u16 = 1;

pub(super) const MAGIC: [u8; 8] = *b"TBRDMAst";

/// Where the check is.
const CHECKED: usize = HELLO_BYTES - 4;

bitflags! {
    /// What an end does that the other must do too.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Packets bear an iCRC, and are checked by it. Not needed where bits arrive as they left.
        const ICRC = 1;
    }
}

/// What a hello is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Here is who speaks.
    Hello,
    /// Whoever was heard is not wanted.
    Refusal(Refusal),
}

/// Why an end refuses another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has a peer already.
    #[error(
        "it has a peer already: a stream device has one; give the two ends of each pair a name of their own"
    )]
    Busy,
    /// It speaks another version.
    #[error(
        "it speaks another version of the stream protocol than {STREAM_VERSION}: use the same release of tbrdma at both ends"
    )]
    Version,
    /// It does what this end does not, or the other way round.
    #[error("only one of the ends wants checksums of packets: name the stream the same way at both")]
    Features,
    /// Its path MTU is another.
    #[error("the largest path MTUs of the ends differ")]
    Mtu,
    /// A reason of a later version.
    #[error("for a reason that this version does not know, number {0}")]
    Unknown(u8),
}

impl Refusal {
    const fn raw(self) -> u8 {
        match self {
            Self::Busy => 1,
            Self::Version => 2,
            Self::Features => 3,
            Self::Mtu => 4,
            Self::Unknown(raw) => raw,
        }
    }

    const fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Busy,
            2 => Self::Version,
            3 => Self::Features,
            4 => Self::Mtu,
            raw => Self::Unknown(raw),
        }
    }
}

/// One end's introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Hello, or go away.
    pub words: Words,
    /// What packets bear.
    pub features: Features,
    /// Who speaks: never zero.
    pub guid: Guid,
    /// Whom it has heard; zero if nobody.
    pub heard: Guid,
    /// Its largest path MTU.
    pub mtu: Mtu,
}

/// Bytes that are not a hello of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// They begin otherwise.
    #[error(
        "whoever is at the other end does not speak tbrdma's stream protocol: its first bytes are {first:02x?}"
    )]
    Magic {
        /// What they begin with.
        first: [u8; 8],
    },
    /// The check is wrong.
    #[error("the other end's introduction is damaged")]
    Check,
    /// Another version.
    #[error(
        "the other end speaks version {theirs} of the stream protocol and this one {STREAM_VERSION}: use the same release of tbrdma at both"
    )]
    Version {
        /// The other end's.
        theirs: u16,
    },
    /// A field holds what it must not.
    #[error("the other end's introduction makes no sense: {0}")]
    Field(&'static str),
}

impl Hello {
    /// The bytes of it.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        let (words, reason) = match self.words {
            Words::Hello => (0, 0),
            Words::Refusal(refusal) => (1, refusal.raw()),
        };
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&STREAM_VERSION.to_be_bytes());
        bytes[10] = words;
        bytes[11] = reason;
        bytes[12..16].copy_from_slice(&self.features.bits().to_be_bytes());
        bytes[16..24].copy_from_slice(&self.guid.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.heard.0.to_be_bytes());
        bytes[32..34].copy_from_slice(&(self.mtu.bytes() as u16).to_be_bytes());
        let check = crc32fast::hash(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&check.to_be_bytes());
        bytes
    }

    /// What these bytes say.
    ///
    /// # Errors
    /// They are no hello, or one of another version.
    pub fn parse(bytes: &[u8; HELLO_BYTES]) -> Result<Self, HelloError> {
        let mut first = [0; 8];
        first.copy_from_slice(&bytes[..8]);
        if first != MAGIC {
            return Err(HelloError::Magic { first });
        }
        if number(bytes, CHECKED, 4) != u64::from(crc32fast::hash(&bytes[..CHECKED])) {
            return Err(HelloError::Check);
        }
        let theirs = number(bytes, 8, 2) as u16;
        if theirs != STREAM_VERSION {
            return Err(HelloError::Version { theirs });
        }
        let words = match bytes[10] {
            0 => Words::Hello,
            1 => Words::Refusal(Refusal::from_raw(bytes[11])),
            _ => return Err(HelloError::Field("it is neither a hello nor a refusal")),
        };
        let features = Features::from_bits(number(bytes, 12, 4) as u32)
            .ok_or(HelloError::Field("it wants features of which this version knows nothing"))?;
        let guid = Guid(number(bytes, 16, 8));
        if guid.0 == 0 {
            return Err(HelloError::Field("its GUID is zero"));
        }
        let mtu = Mtu::from_bytes(number(bytes, 32, 2) as u32)
            .ok_or(HelloError::Field("its path MTU is none of 256 to 4096"))?;
        Ok(Self { words, features, guid, heard: Guid(number(bytes, 24, 8)), mtu })
    }
}

/// The number of `len` bytes at `at`.
fn number(bytes: &[u8; HELLO_BYTES], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
