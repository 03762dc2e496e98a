//! Bugs that Linux's software RDMA drivers had of late (rdma_rxe and siw, 2022 to 2026, and two of network cards' drivers), tried on our devices. A new one that
//! is heard of gets its row here, and its test.
//!
//! | bug | test | why not here |
//! |---|---|---|
//! | address and length wrap around 2^64 in the check of a region, at the binding of a window, in a repeated READ (2026, an escalation of privileges) | `memory::a_wrapping_range_*`, `wire::a_repeated_read_of_another_range`; windows: conformance case `memory_window::what_may_not_be_bound_fails_and_changes_nothing` | one function checks all (`proto/region.rs`): by differences, which cannot wrap; a READ that comes again is found by its number and must lie within the first |
//! | a window is bound to another domain's region (2026) | the same case: a region, and a window, of another domain | the same table has both, and the domain is the first thing compared |
//! | a region's pages are another size than the host's (2025) | `memory::a_region_that_begins_and_ends_within_pages` | there is no table of pages: an address and a length |
//! | wrong lkey panics in place of a completion (2025) | conformance case `memory_protection::a_bad_local_list_fails_here_and_the_peer_is_not_concerned` | the check is a `Result`, and its error a status |
//! | the length of a list is computed wrongly (2026) | `memory::a_list_whose_lengths_wrap_around_32_bits` | summed in 64 bits, once, where it is posted |
//! | a short packet with forged padding has a payload of negative length (2026) | `wire::padding_longer_than_the_packet` | lengths are of slices; `checked_sub` |
//! | a packet is cut within its headers (siw's FPDU underflow, 2026; a NULL dereference by a peer, 2026) | `wire::packets_cut_within_their_headers` | a packet is parsed whole before anybody sees it |
//! | an unknown opcode is dealt with before the iCRC is checked (2026) | `wire::unknown_opcodes_and_wrong_icrcs` | unknown is no packet; of a known one nothing is done before the iCRC |
//! | an ATOMIC WRITE of no bytes leaks memory (2026) | `wire::an_atomic_write_of_no_bytes` | it is not offered; and no packet allocates: `tests/soft_allocations.rs` |
//! | the iCRC is stored in the wrong order (2025, big-endian machines) | `wire::unknown_opcodes_and_wrong_icrcs` | written as bytes, by one function; the golden packets are the kernel's |
//! | after an error the packet that caused it is carried out once for each posted receive (2026, 1000 completions) | `wire::a_fatal_packet_and_many_receives` | a packet is a call, not an entry of a queue that is looked at again |
//! | a repeated atomic is answered with another value, or done again (2022); its lost answer is never repeated (2026) | `wire::an_atomic_whose_answer_is_lost`, `error_cases::implied_nak` | the old value is kept with the number, and answered from there |
//! | the answer to a READ is longer than what was asked for (siw, 2026) | `error_cases::bad_response` | each packet's length follows from its number |
//! | a violation of an R_Key raises no event (2026) | `error_cases::refusal` | the refusal and its event are made in one place |
//! | a storm of retries against a peer with a short RNR timer (2025) | `error_cases::not_ready` | `rnr_retry` counts each, and no work goes past one that waits |
//! | a work request is read again from memory that the program shares, between its check and its use: overflow of the heap (2026) | `queues::work_requests_changed_after_they_are_posted`; words of a hostile peer: `driver/ring/random_tests/hostile.rs` | posting copies; shared words are read once, into a value that is checked |
//! | `num_sge` is believed (2026) | `tools/ibverbs/tests/posting.rs`, "entries beyond what a queue takes are not read" | the list is a slice; the C face compares before it reads |
//! | errors of posting are hidden from the caller (siw, 2025) | `tools/ibverbs/tests/posting.rs`, conformance case `rc_send_recv::a_full_queue_names_the_first_request_that_did_not_fit` | `PostError` says which and why, and `#[must_use]` |
//! | a completion handler is called with the queue's lock held (2025) | `queues::a_queue_in_the_hands_of_whom_its_event_woke` | there are no handlers, only descriptors |
//! | polling hangs after a queue was resized (2025) | `queues::a_queue_resized_while_it_is_used` | no ring is replaced: completions lie where they were made, or in a list under its lock |
//! | completions are lost when a queue pair goes to RESET (mlx5, 2025) | `queues::each_request_completes_once_before_a_reset` | ERR flushes before RESET forgets, by one thread, in order |
//! | sizes of a queue pair overflow in their check (irdma, 2026) | `tests/limits.rs`, "sizes beyond the limits" | compared with the limits before anything is computed |
//! | a responder's resources are resized while it uses them (2026) | `queues::reads_resized_while_they_are_served` | the number is a bound, and nothing is allocated by it |
//! | timers run while their queue pair is destroyed (2026) | `queues::queue_pairs_destroyed_while_their_timers_run` | a timer is a number in a heap; who is due is looked up by it |
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/hand.rs"]
mod hand;

mod memory;
mod queues;
mod wire;

use common::{Node, join, patient};
use tbrdma::QpType;

/// The devices that this is tried on.
const DEVICES: [&str; 2] = ["shm", "udp:lo"];

/// Two connected nodes on a device.
fn pair(device: &str) -> (Node, Node) {
    let [mut a, mut b] = [(); 2].map(|()| Node::of(&tbrdma::open(device).unwrap(), QpType::Rc, |init| init));
    join(&mut a, &mut b, &patient());
    (a, b)
}
