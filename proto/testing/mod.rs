//! The transport in a world without sockets, clocks and threads: to test it, and to replay what went wrong.
//!
//! | what | is |
//! |---|---|
//! | [`Fabric`] | nodes, links with [faults](crate::fault), and virtual time |
//! | [`Node`] | queue pairs, completion queues, shared receive queues, and the hands that carry out actions |
//! | [`ToyMemory`] | regions that check every access once more |
//! | [`Pair`] | two nodes with one connection, for tests of one thing |
//! | [`Trace`] | what happened |
//! | [`swarm`] | whole random runs with an oracle |
//!
//! Packets travel as bytes with their iCRC, so damage is damage to bytes. Everything follows from a seed and the calls made.

mod fabric;
mod goodput;
mod memory;
mod node;
mod pair;
mod setup;
pub mod swarm;
mod trace;

pub use fabric::*;
pub use goodput::*;
pub use memory::*;
pub use node::{Cq, Node, SharedQueue, Slot};
pub use pair::*;
pub use setup::*;
pub use trace::*;
