//! RDMA over a memory window with doorbells: what lies where in it, what its words mean, and how two sides meet.
//!
//! A window is memory at the peer that we can only write, and memory of ours that only the peer writes. So every word that decides something is read
//! where it is near: a side writes into the peer's *area* what it has to say, its packets and how many of the peer's it has taken, and reads its own.
//!
//! Nothing here reaches memory. Words that were read are handed in, each once; what comes back are offsets inside of the area, whatever the words were,
//! and words to be written. Who writes them, in which order and behind which fences, is the driver's (`driver/bar/ends.rs`).

mod hello;
mod layout;
mod ring;
mod session;

pub use hello::{HELLO_WORDS, Hello, HelloError};
pub use layout::{ARM, BEAT, CLAIM, Geometry, HELLO, PULSE, SLOTS, TAKEN, WORD};
pub use ring::{Arrival, Header, Inbox, Outbox};
pub use session::{Peer, Session, Turn};
