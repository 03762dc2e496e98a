//! The messages by which two contexts meet: fixed 64-byte records over an abstract Unix socket that only the same user may use.
//!
//! ```text
//! offset  0  8 bytes   "tbrdma" 0, 1
//! offset  8  u32       kind
//! offset 12  u32       argument: how the sender knows the receiver as a taker of its receives (hello, welcome); CQ slot (channel)
//! offset 16  u64       context identity of the sender
//! offset 24  u64       random number of the sender's process
//! offset 32  u64       bytes of the sender's segment
//! offset 40  u32       how the sender reaches memory of the receiver's own, see `Reach`
//! offset 44  4 bytes   zero
//! offset 48  u64       the end of a cable that the sender is at, 0 for none: see `Cable`
//! offset 56  8 bytes   zero
//! ```

/// Bytes of a message.
pub(crate) const MESSAGE_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"tbrdma\x00\x01";

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// "I am ...; show me your segment." Answered by a welcome with the segment and the wake-up descriptor attached.
    Hello,
    /// The answer to a hello.
    Welcome,
    /// "Give me the descriptor by which this completion queue's channel is woken."
    Channel,
    /// The answer: the descriptor is attached.
    ChannelIs,
    /// The request cannot be met.
    Refused,
    /// After a welcome: how the newcomer reaches memory of the other side's own. Answered by the same.
    Reach,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Hello, Self::Welcome, Self::Channel, Self::ChannelIs, Self::Refused, Self::Reach];
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) argument: u32,
    pub(crate) context: u64,
    pub(crate) process: u64,
    pub(crate) segment_bytes: u64,
    /// A `Reach`, or zero where it is not known yet.
    pub(crate) reach: u32,
    /// See `Cable`; zero for none.
    pub(crate) cable: u64,
}

impl Message {
    /// The record to send.
    pub(crate) fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&(self.kind as u32 + 1).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.argument.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.context.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.process.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.reach.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.cable.to_le_bytes());
        bytes
    }

    /// A received record, or why it is not one of ours.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes: &[u8; MESSAGE_BYTES] = bytes.try_into().map_err(|_| "a message of the wrong size")?;
        if bytes[..6] != MAGIC[..6] {
            return Err("not a tbrdma process");
        }
        if bytes[..8] != MAGIC {
            return Err(
                "another version of tbrdma's shared-memory layout: use the same version on both sides",
            );
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let kind = (word(8) as usize)
            .checked_sub(1)
            .and_then(|index| Kind::ALL.get(index))
            .ok_or("an unknown kind of message")?;
        Ok(Self {
            kind: *kind,
            argument: word(12),
            context: long(16),
            process: long(24),
            segment_bytes: long(32),
            reach: word(40),
            cable: long(48),
        })
    }
}

/// The abstract socket name under which a user's context with this LID listens.
pub(crate) fn socket_name(user: u32, lid: u16) -> Vec<u8> {
    format!("tbrdma/shm/{user}/{lid:04x}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_round_trip_and_damage_is_refused() {
        for kind in Kind::ALL {
            let message = Message {
                kind,
                argument: 7,
                context: u64::MAX - 1,
                process: 3,
                segment_bytes: 1 << 36,
                reach: 3,
                cable: u64::MAX - 2,
            };
            let mut bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            assert!(Message::decode(&bytes[..63]).is_err());
            bytes[7] ^= 1;
            assert!(Message::decode(&bytes).is_err_and(|why| why.contains("version")));
            bytes[0] ^= 1;
            assert!(Message::decode(&bytes).is_err());
        }
        let nobody = Message {
            kind: Kind::Hello,
            argument: 0,
            context: 0,
            process: 0,
            segment_bytes: 0,
            reach: 0,
            cable: 0,
        };
        let mut bytes = nobody.encode();
        bytes[8..12].copy_from_slice(&[0xff; 4]);
        assert!(Message::decode(&bytes).is_err());
    }
}
