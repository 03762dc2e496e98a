//! The RoCEv2 transport as values.

pub mod action;
pub mod admit;
pub mod congestion;
pub mod counters;
pub mod host;
pub mod qp;
mod receive_queue;
pub mod recovery;
mod requester;
mod responder;
mod shared;
pub mod srq;

pub use action::*;
pub use admit::*;
pub use counters::*;
pub use host::*;
pub use qp::*;
pub use srq::*;
