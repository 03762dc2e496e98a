//! What becomes of a reliable connection whose peer, or whose network, does what it should not: each case once with us as the requester and once as
//! the responder, on a whole device, against a peer whose packets are made by hand (`common/hand.rs`). Each test asserts the cause, which is a counter or
//! a packet on the wire, beside what follows from it: completions, events, the state, and memory that is as it was.
//!
//! | case | file | what the transport alone does, in exact time (`proto/tests`) |
//! |---|---|---|
//! | ghost ACK, and stale ones | `ghost.rs` | `requester_acknowledgements.rs` |
//! | bad response: opcode, PSN, length, beyond what was asked for; a bad request | `bad_response.rs` | `requester_reads.rs`, `responder_refusals.rs` |
//! | implied NAK | `implied_nak.rs` | `requester_acknowledgements.rs`, `requester_reads.rs` |
//! | local ACK timeout, below and above its limit | `timeout.rs` | `requester_timeouts.rs`, `responder_sequence.rs` |
//! | receiver not ready, below and above its limit | `not_ready.rs` | `requester_not_ready.rs`, `responder_sequence.rs` |
//! | PSN gap | `gap.rs` | `requester_sequence_errors.rs`, `responder_sequence.rs` |
//! | partial retry: resumed in the middle of a WRITE, of a READ | `partial_retry.rs` | `requester_sequence_errors.rs`, `responder_reads.rs` |
//! | unexpected opcode | `opcode.rs` | `requester_reads.rs`, `responder_refusals.rs` |
//! | remote operational error, R_Key violation, invalid request | `refusal.rs` | `requester_refusals.rs`, `responder_refusals.rs` |
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/hand.rs"]
mod hand;

mod bad_response;
mod gap;
mod ghost;
mod implied_nak;
mod not_ready;
mod opcode;
mod partial_retry;
mod refusal;
mod timeout;

use common::Node;
use hand::Hand;
use tbrdma::QpType;

/// A node of the software NIC, and the peer that its queue pair is connected to.
fn met() -> (Node, Hand) {
    let mut node = hand::node(QpType::Rc);
    let hand = Hand::of(&mut node);
    (node, hand)
}
