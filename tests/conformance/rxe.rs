//! What the kernel's rxe does otherwise than the suite says, with the evidence: seen in the lab with Linux 6.1, where `cargo xtask lab` runs the
//! suite on it through `native`. A deviation that is not seen there any more fails the lab. Not all of them are faults of rxe: some are liberties that
//! the man pages give, and that the case does not expect.

use crate::case::Need;
use crate::declared::Declaration;

const EVENTS: &str = "rxe raises no event about a queue pair: no access error, invalid request, communication established or last WQE reached; a C program over libibverbs gets none either";
const PROT: &str = "memory of one's own that may not be used ends work with LOC_QP_OP_ERR in place of LOC_PROT_ERR, but for the list of a READ; a C program sees the same";
const LENGTH: &str = "a receive that is too short, or whose memory may not be written, is refused as a remote operational error: REM_OP_ERR and LOC_QP_OP_ERR; the lab sees the NAK on the wire (`SEND longer than its receive`)";
const GRH: &str = "completions of connected queue pairs carry the flag GRH, which ibv_poll_cq(3) defines for datagrams only";
const DEPTH: &str = "queues get more places than were asked for, as ibv_create_qp(3) allows: 31 where 16 were; the case counts on those it asked for";
const CLEAN: &str = "completions of a queue pair that is destroyed or reset stay in the completion queue: neither librxe nor the kernel takes them out";
const OPCODE: &str = "completions that are no success have opcode 0, which ibv_poll_cq(3) leaves undefined; the case tells receives by their opcode";
const FLUSH: &str =
    "a receive posted in ERR is not flushed: librxe puts it where the kernel looks only when a packet comes";
const SOLICITED: &str = "a failed receive raises no event on a queue armed for solicited completions; rdma-core's ibv_req_notify_cq(3) says it does";
const SQD: &str = "what is posted in SQD is not sent after the return to RTS, and a queue pair in SQD does not finish what has begun";
const RESET: &str = "Linux knows no way from RESET to ERR (ib_modify_qp_is_ok): EINVAL";
const SQE: &str = "there is no SQE: an error of one's own brings a UC or UD queue pair to ERR";
const SHORT: &str = "on UC and UD, too, a message too long for its receive ends it with LOC_QP_OP_ERR and brings the queue pair to ERR; a C program sees the same";
const ALIGNED: &str = "librxe refuses a misaligned atomic when it is posted, with EINVAL";
const RESULT: &str = "an atomic whose result has 16 bytes is carried out; a C program sees the same";
const UNCHECKED: &str =
    "librxe posts what the transport does not have: a READ on UC is taken; a C program sees the same";
const REGISTER: &str = "Linux registers no memory with rights that it does not know, or that say to bind windows without local writing: EINVAL";
const AGAIN: &str = "once it has been invalidated, the next binding of a window ends with MW_BIND_ERR";
const TAKEN: &str =
    "the receive of a SEND with invalidate does not say so: its completion lacks IBV_WC_WITH_INV";
const ALLOWED: &str = "a binding that the rules forbid succeeds, where MW_BIND_ERR is due";
const BIND_UC: &str = "a binding posted to an unreliable connection ends with LOC_QP_OP_ERR";
const WINDOW: &str = "a write outside a window, but inside its region, succeeds: the bounds looked at are the region's; a C program writes there too";
const INVALIDATE: &str = "a SEND with invalidate is a success at its sender whatever becomes of the key, and an ordinary region's key cannot be invalidated";
const BOUND: &str =
    "deregistering a region with windows is EINVAL in place of EBUSY; a C program sees the same";
const LIMITS: &str = "the limits are rxe's own; the case asks for one more than ours";
const MEMORY: &str = "the case allocates twice rxe's max_msg_sz and more than the guest's /dev/shm holds";
const RESIZE: &str =
    "a completion queue has at most 32767 entries there; the case asks for as many as ours may have";
const BELIEF: &str =
    "the kernel believes whatever current state it is told, and query_qp says RESET for cur_qp_state";
const GIDS: &str =
    "GID 0 is a link-local address, from which the others cannot be reached; the case goes by GID 0";
const QKEY: &str = "a Q_Key with its high bit set is not replaced by the sender's own";
const MTU: &str = "a datagram longer than the MTU is a success at its sender, and lost";
const LATE: &str =
    "whether requests that had no answer come again in time depends on rxe's timer, which goes in jiffies";
const NUMBER: &str = "a request with the number before the expected one is acknowledged as one seen already, by a number that was never set: whether that covers it depends on the numbers drawn";

/// Both parties on rxe.
pub(crate) const ALONE: Declaration = Declaration {
    cannot: &[
        (Need::ReachableLimits, "a million objects of each kind are more than the guest's memory holds"),
        (Need::Rereg, "its kernel has no call for it: ibv_rereg_mr(3) fails, whatever is to change"),
    ],
    deviates: &[
        ("async_events::a_message_before_the_queue_pair_can_send_establishes_communication_once", EVENTS),
        (
            "async_events::a_queue_pair_that_fails_says_so_first_and_the_end_of_the_shared_queues_use_once",
            EVENTS,
        ),
        ("async_events::the_end_of_a_shared_queues_use_is_said_once_a_life", EVENTS),
        ("channel::the_descriptor_of_asynchronous_events_is_readable_while_there_are_any", EVENTS),
        ("iova::no_other_address_reaches_the_memory", EVENTS),
        ("memory_protection::a_deregistered_region_is_refused_and_its_key_does_not_come_back_soon", EVENTS),
        ("memory_protection::a_long_write_that_runs_out_is_refused_before_its_first_byte", EVENTS),
        ("memory_protection::a_key_of_the_requesters_own_names_nothing_of_the_peers", EVENTS),
        ("memory_protection::a_key_that_names_nothing_is_refused", EVENTS),
        ("memory_protection::a_region_of_another_protection_domain_is_refused", EVENTS),
        ("memory_protection::a_right_that_the_region_does_not_grant_is_refused", EVENTS),
        ("memory_protection::an_address_that_overflows_is_refused", EVENTS),
        ("memory_protection::one_byte_beyond_either_end_is_refused", EVENTS),
        ("memory_protection::the_survivors_of_a_violation_are_all_other_queue_pairs", EVENTS),
        (
            "memory_protection::what_the_queue_pair_does_not_allow_is_an_invalid_request_whatever_the_key_says",
            EVENTS,
        ),
        ("not_ready::an_event_says_what_and_of_which", EVENTS),
        ("other_way::a_peers_violation_is_an_event_here", EVENTS),
        ("other_way::a_right_that_our_queue_pair_lacks_is_an_invalid_request_there", EVENTS),
        ("rdma_read::a_responder_without_resources_for_reads_refuses_them", EVENTS),
        ("refusals::a_failure_flushes_what_follows_and_a_reset_starts_over", EVENTS),
        ("refusals::the_peers_memory_at_fault_is_a_remote_access_error_on_both_sides", EVENTS),
        ("srq::a_member_in_error_reports_its_last_receive_and_leaves_the_rest_to_the_others", EVENTS),
        ("loan::a_buffer_of_another_domain_is_refused_by_the_device", PROT),
        ("memory_protection::a_bad_local_list_fails_here_and_the_peer_is_not_concerned", PROT),
        ("memory_protection::a_receive_with_a_bad_list_fails_on_both_sides", PROT),
        ("memory_window::no_lkey_is_that_of_a_window", PROT),
        ("refusals::a_receive_at_fault_is_a_remote_operation_error_there_and_a_local_one_here", PROT),
        ("refusals::our_own_memory_at_fault_is_a_local_protection_error_and_nobody_elses", PROT),
        ("write_lists::memory_that_is_not_ours_to_send_ends_the_list_too", PROT),
        ("async_events::the_last_receive_that_fails_says_that_the_limit_was_reached_too", LENGTH),
        ("other_way::a_peers_message_that_is_too_long_is_a_length_error_here", LENGTH),
        ("receive_errors::a_message_for_a_receive_without_memory_fails_on_both_sides", LENGTH),
        ("receive_errors::a_message_longer_than_its_receive_fails_on_both_sides", LENGTH),
        ("receive_errors::a_send_that_fails_with_signaling_off_completes_all_the_same", LENGTH),
        ("receive_errors::messages_before_the_one_that_fails_are_whole", LENGTH),
        ("receive_errors::the_room_of_a_receive_is_that_of_its_whole_list", LENGTH),
        ("srq::a_member_that_a_peer_breaks_reports_both", LENGTH),
        ("srq::a_queue_may_be_of_another_domain_than_its_members", LENGTH),
        ("other_way::a_peers_immediate_data_arrives_as_it_was_given", GRH),
        ("rc_send_recv::a_send_fills_the_oldest_receive_and_completes_on_both_sides", GRH),
        ("rc_send_recv::immediate_data_arrives_as_it_was_given", GRH),
        ("rdma_write::a_write_with_immediate_completes_a_receive_that_it_does_not_fill", GRH),
        ("uc::sends_and_writes_arrive", GRH),
        ("cq::a_full_completion_queue_loses_completions_and_says_so_once", DEPTH),
        ("limits::the_largest_sizes_work", DEPTH),
        ("loan::a_refused_post_gives_the_buffers_back", DEPTH),
        ("rc_send_recv::a_full_queue_names_the_first_request_that_did_not_fit", DEPTH),
        ("rc_send_recv::unsignaled_sends_hold_their_place_until_a_later_signaled_one_is_polled", DEPTH),
        ("refusals::a_full_queue_is_enomem_and_says_which_request_was_first", DEPTH),
        ("rnr::sends_that_wait_keep_their_place_in_the_queue", DEPTH),
        ("srq::a_full_queue_and_a_long_list_are_refused_at_their_position", DEPTH),
        ("write_lists::a_list_longer_than_the_queue_is_posted_as_far_as_it_fits", DEPTH),
        ("cq::a_destroyed_queue_pair_takes_its_completions_with_it", CLEAN),
        ("cq::queue_pairs_come_and_go_on_one_queue", CLEAN),
        ("flush::reset_forgets_what_was_posted_and_what_had_completed", CLEAN),
        ("srq::messages_of_a_destroyed_member_free_their_receives", CLEAN),
        ("srq::what_a_member_had_received_before_its_reset_is_forgotten", CLEAN),
        ("flush::the_error_state_flushes_sends_and_receives_in_order", OPCODE),
        ("flush::datagram_queue_pairs_flush_their_receives_too", FLUSH),
        ("flush::what_is_posted_in_the_error_state_is_flushed", FLUSH),
        ("halves::the_queue_pair_lives_until_both_halves_are_gone", FLUSH),
        ("channel::an_error_counts_as_solicited", SOLICITED),
        ("states::a_drained_send_queue_holds_what_is_posted_and_goes_on_later", SQD),
        ("states::draining_ends_what_has_begun_and_says_so", SQD),
        ("ud::sends_held_while_draining_arrive_later", SQD),
        ("raw_posting::state_changes_through_the_control_only_with_its_own_halves", RESET),
        ("refusals::a_state_that_takes_no_work_is_einval", RESET),
        ("states::every_state_leads_to_the_error_state_and_back_to_reset", RESET),
        ("uc::an_error_of_ones_own_stops_the_send_queue_alone", SQE),
        ("ud::bad_memory_of_ones_own_stops_the_send_queue", SQE),
        ("uc::what_the_peer_refuses_is_dropped_and_both_go_on", SHORT),
        ("ud::a_receive_that_is_too_small_drops_the_message_and_is_not_lost", SHORT),
        ("ud::lent_buffers_come_back_with_their_own_message", SHORT),
        ("ud::receives_behind_one_that_is_too_small_are_used", SHORT),
        ("atomics::a_misaligned_address_is_an_invalid_request", ALIGNED),
        ("iova::atomics_are_aligned_by_the_chosen_address", ALIGNED),
        ("refusals::what_the_peer_cannot_accept_is_a_remote_invalid_request_on_both_sides", ALIGNED),
        ("atomics::a_result_list_that_is_not_one_entry_of_eight_bytes_is_refused", RESULT),
        ("atomics::unreliable_connections_have_no_reads_and_no_atomics", UNCHECKED),
        ("refusals::an_operation_that_the_transport_does_not_have_is_einval", UNCHECKED),
        ("access_flags::every_combination_that_makes_sense_is_registered_and_reported", REGISTER),
        ("iova::every_operation_names_the_bytes_by_the_chosen_address", REGISTER),
        ("memory_window::windows_are_bound_to_memory_of_the_programs_own", REGISTER),
        ("memory_window::a_peer_gives_a_window_back_with_its_send", TAKEN),
        ("memory_window::a_zero_based_window_is_named_by_offsets", WINDOW),
        ("memory_window::an_invalidated_window_opens_nothing_until_it_is_bound_again", AGAIN),
        ("memory_window::unreliable_connections_have_windows_and_datagrams_do_not", BIND_UC),
        ("memory_window::what_may_not_be_bound_fails_and_changes_nothing", ALLOWED),
        ("memory_window::a_window_opens_its_part_and_nothing_else", WINDOW),
        ("memory_window::a_region_with_remote_rights_is_invalidated_like_a_window", INVALIDATE),
        ("memory_window::a_send_gives_nothing_back_that_is_not_its_to_give", INVALIDATE),
        ("memory_window::a_region_stays_while_windows_are_bound_to_it", BOUND),
        ("limits::sizes_beyond_the_limits_are_refused_and_say_the_limit", LIMITS),
        ("limits::a_message_longer_than_the_port_allows_fails_when_it_is_sent", MEMORY),
        ("resize_cq::a_completion_queue_grows_and_shrinks", RESIZE),
        ("states::a_wrong_belief_about_the_current_state_is_refused", BELIEF),
        ("states::attributes_can_be_queried_and_changed_later", BELIEF),
        ("ud::a_datagram_arrives_behind_a_global_route_header", GIDS),
        ("ud::a_controlled_qkey_stands_for_the_senders_own", QKEY),
        ("ud::a_datagram_is_one_packet", MTU),
    ],
    sometimes: &[
        ("other_way::a_peer_that_gets_ready_in_time_is_reached", LATE),
        ("other_way::a_peer_that_expects_another_number_is_silent_or_refuses", NUMBER),
    ],
};

/// This party on rxe, the far one on our `udp` device.
pub(crate) const WITH_US: Declaration = Declaration {
    cannot: ALONE.cannot,
    deviates: &[
        ("other_way::a_peers_violation_is_an_event_here", EVENTS),
        ("other_way::a_right_that_our_queue_pair_lacks_is_an_invalid_request_there", EVENTS),
        ("other_way::a_peers_message_that_is_too_long_is_a_length_error_here", LENGTH),
        ("other_way::a_peers_immediate_data_arrives_as_it_was_given", GRH),
        ("rc_send_recv::unsignaled_sends_hold_their_place_until_a_later_signaled_one_is_polled", DEPTH),
        ("rnr::sends_that_wait_keep_their_place_in_the_queue", DEPTH),
        ("atomics::a_misaligned_address_is_an_invalid_request", ALIGNED),
    ],
    sometimes: ALONE.sometimes,
};
