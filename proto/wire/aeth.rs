//! The acknowledgement extended transport header: a syndrome (1 byte) and the responder's message sequence number (3).

use core::fmt;

use super::WireError;

/// The acknowledgement extended transport header (IBTA volume 1, section 9.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aeth {
    /// What it says.
    pub syndrome: Syndrome,
    /// The responder's message sequence number, 24 bits: requests completed so far.
    pub msn: u32,
}

/// What an acknowledgement says (IBTA volume 1, table 43).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// Everything up to the PSN has been done.
    Ack {
        /// How many more receives there are, as a code `0..=30` (IBTA volume 1, table 46), see [`credit_count`]; 31 says that
        /// credits are not used.
        credits: u8,
    },
    /// No receive for the request: ask again after the time of this code, see [`rnr_timer`](crate::rnr_timer).
    RnrNak {
        /// The code, `0..=31`.
        timer: u8,
    },
    /// Something is wrong with the request.
    Nak(NakCode),
}

/// Why a request was refused (IBTA volume 1, table 44).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NakCode {
    /// A packet is missing: continue from the PSN of the acknowledgement.
    PsnSequenceError = 0,
    /// The request makes no sense here.
    InvalidRequest = 1,
    /// The key, the bounds or the rights are wrong.
    RemoteAccessError = 2,
    /// The responder failed.
    RemoteOperationalError = 3,
    /// Reliable datagrams only.
    InvalidRdRequest = 4,
}

/// The low five bits of a syndrome: credits, timer or reason.
const VALUE: u8 = 0x1f;
/// The other three: a reserved zero, and the kind.
const ACK: u8 = 0x00;
const RNR_NAK: u8 = 0x20;
const NAK: u8 = 0x60;

impl Aeth {
    /// Bytes on the wire.
    pub const BYTES: usize = 4;

    /// Reads the header.
    ///
    /// # Errors
    /// [`WireError::Syndrome`].
    #[inline]
    pub const fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, WireError> {
        let &[syndrome, m2, m1, m0] = bytes;
        match Syndrome::from_raw(syndrome) {
            Some(syndrome) => Ok(Self { syndrome, msn: u32::from_be_bytes([0, m2, m1, m0]) }),
            None => Err(WireError::Syndrome { syndrome }),
        }
    }

    /// The header's bytes. Only the low 24 bits of `msn` count.
    #[inline]
    pub const fn to_bytes(&self) -> [u8; Self::BYTES] {
        let [_, m2, m1, m0] = self.msn.to_be_bytes();
        [self.syndrome.raw(), m2, m1, m0]
    }
}

impl Syndrome {
    /// An acknowledgement by a responder that does not count credits.
    pub const ACK: Self = Self::Ack { credits: CREDITS_UNUSED };

    /// The syndrome with this value on the wire, or `None` if the value is a reserved one.
    #[inline]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw & !VALUE {
            ACK => Some(Self::Ack { credits: raw & VALUE }),
            RNR_NAK => Some(Self::RnrNak { timer: raw & VALUE }),
            NAK => match NakCode::from_raw(raw & VALUE) {
                Some(code) => Some(Self::Nak(code)),
                None => None,
            },
            _ => None,
        }
    }

    /// The value on the wire. Only the low five bits of a code count.
    #[inline]
    pub const fn raw(self) -> u8 {
        match self {
            Self::Ack { credits } => ACK | credits & VALUE,
            Self::RnrNak { timer } => RNR_NAK | timer & VALUE,
            Self::Nak(code) => NAK | code.raw(),
        }
    }
}

impl NakCode {
    /// Every code, in ascending numeric order.
    pub const ALL: &'static [Self] = &[
        Self::PsnSequenceError,
        Self::InvalidRequest,
        Self::RemoteAccessError,
        Self::RemoteOperationalError,
        Self::InvalidRdRequest,
    ];

    /// The code with this value, or `None` if it is a reserved one.
    #[inline]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::PsnSequenceError),
            1 => Some(Self::InvalidRequest),
            2 => Some(Self::RemoteAccessError),
            3 => Some(Self::RemoteOperationalError),
            4 => Some(Self::InvalidRdRequest),
            _ => None,
        }
    }

    /// The value in a syndrome.
    #[inline]
    pub const fn raw(self) -> u8 {
        self as u8
    }
}

/// The credit code of a responder that does not count credits, so that the requester need not either.
pub const CREDITS_UNUSED: u8 = 31;

/// What the credit codes `0..=30` mean (IBTA volume 1, table 46): from 2 on, powers of two and the numbers half way between them.
const CREDITS: [u32; 31] = {
    let mut counts =
        [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut code = 11;
    while code < counts.len() {
        counts[code] = 2 * counts[code - 2];
        code += 1;
    }
    counts
};

/// The receives that a credit code grants; `None` if it says that credits are not used.
#[inline]
pub fn credit_count(code: u8) -> Option<u32> {
    CREDITS.get(usize::from(code)).copied()
}

/// The credit code for `count` receives: the largest that promises no more than there are.
#[inline]
pub fn credit_code(count: u32) -> u8 {
    // At least one entry, 0, is not above any count; there are 31 entries.
    (CREDITS.partition_point(|&granted| granted <= count) - 1) as u8
}

/// `ack msn 5 credits 16`, `ack msn 5` where credits are not used, `rnr-nak msn 5 timer 12`, `nak remote-access msn 5`.
impl fmt::Display for Aeth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.syndrome {
            Syndrome::Ack { credits } => {
                write!(f, "ack msn {}", self.msn)?;
                credit_count(credits).map_or(Ok(()), |count| write!(f, " credits {count}"))
            }
            Syndrome::RnrNak { timer } => write!(f, "rnr-nak msn {} timer {timer}", self.msn),
            Syndrome::Nak(code) => write!(f, "nak {code} msn {}", self.msn),
        }
    }
}

impl fmt::Display for NakCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PsnSequenceError => "psn-sequence",
            Self::InvalidRequest => "invalid-request",
            Self::RemoteAccessError => "remote-access",
            Self::RemoteOperationalError => "remote-operational",
            Self::InvalidRdRequest => "invalid-rd-request",
        })
    }
}
