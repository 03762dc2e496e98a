//! RoCEv2 packets over a reliable byte stream: the handshake, the framing and the names of streams, as values that are told bytes and answer.
//!
//! A stream is anything that delivers bytes in order or ends: a socket, a pipe pair, Linux's `/dev/tbstreamX`. Two ends meet by a
//! [`Hello`] each way ([`Meeting`]), and from then on each sends frames: 8 bytes in front of every packet ([`FrameWriter`], [`FrameReader`]).
//!
//! # Why a bad frame is the end
//! On a stream that keeps its promise no frame is ever bad. One that is says that the promise was broken (a peer that is no peer, a kernel that
//! lost bytes), and then nobody knows what else is missing. So there is no search for the next good frame: the reader says what it found, the
//! stream is closed, and a new one begins with a new handshake, which says who is there.
//!
//! # No alignment
//! Frames are not padded to the 4 KiB that `/dev/tbstreamX` puts into a packet of its own: a packet of the largest path MTU is longer than that with its
//! headers, so each would take two, and half the wire. Back to back in one write 16 of them take 17.

mod address;
mod frame;
mod hello;
mod meeting;

pub use address::{StreamAddress, StreamAddressError, StreamPlace, StreamRole};
pub use frame::{FRAME_HEADER_BYTES, FrameError, FrameReader, FrameWriter, Item, MAX_FRAMED_PACKET};
pub use hello::{Features, HELLO_BYTES, Hello, HelloError, Refusal, STREAM_VERSION, Words};
pub use meeting::{Manner, Meeting, MeetingError, Peer};
