//! RoCEv2 packets: headers as values, checked views of bytes, the invariant CRC.
//!
//! A packet is the payload of one UDP datagram to [`ROCE_UDP_PORT`]. Receiving: [`icrc::verify`], [`Packet::parse`]. Sending:
//! [`Headers::encode`], the payload from wherever it is, the padding, and what [`icrc::IcrcHasher`] made of all that.
//!
//! | file | what is in it |
//! |---|---|
//! | `opcode` | the opcodes and what each means |
//! | `bth`, `reth`, `aeth`, `atomic`, `deth`, `imm`, `ieth`, `cnp` | one header each: value, bytes, text |
//! | `headers` | all headers of a packet |
//! | `packet` | a whole packet |
//! | `icrc`, `gf2` | the invariant CRC, and the arithmetic that finds what an IP header must have held |
//! | `ip` | the IPv4, IPv6 and UDP headers around a packet |

mod aeth;
mod atomic;
mod bth;
mod bytes;
mod cnp;
mod deth;
pub mod headers;
mod ieth;
mod imm;
pub mod opcode;
mod packet;
mod reth;

mod gf2;
pub mod icrc;
pub mod ip;

pub use aeth::*;
pub use atomic::*;
pub use bth::*;
pub use cnp::*;
pub use deth::*;
pub use headers::*;
pub use ieth::*;
pub use imm::*;
pub use opcode::*;
pub use packet::*;
pub use reth::*;

/// The UDP port of RoCEv2, to which every packet goes.
pub const ROCE_UDP_PORT: u16 = 4791;
