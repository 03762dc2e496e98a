//! SEND on reliable connections within one process: data, order, completions, the accounting of the queues.

use crate::case::cases;
use crate::common;
use crate::common::{pair_shaped, pairs, pattern};
use crate::far::{self, Shape};
use tbrdma::{MrSlice, PostErrorKind, PostRefusal, WcFlags, WcOpcode, WcStatus};

cases! {
    Rc by "InfiniBand vol. 1, 9.4.1" {
        a_send_fills_the_oldest_receive_and_completes_on_both_sides: "A SEND takes the oldest receive, and completes on both sides", needs [Rc] as two_party;
        immediate_data_arrives_as_it_was_given: "Immediate data arrives as it was given, flagged", needs [Rc] as two_party;
        thousands_of_messages_arrive_once_each_and_in_order: "Messages arrive once, whole and in order", by "InfiniBand vol. 1, 9.7", needs [Rc];
        a_large_message_arrives_whole: "A message of many packets arrives whole", needs [Rc] as two_party;
    }
    Shapes by "ibv_post_send(3), ibv_post_recv(3)" {
        lists_of_any_shape_on_both_sides_carry_the_bytes_in_order_and_touch_nothing_else:
            "Bytes are gathered and scattered in the order of the lists, and nothing else is touched", needs [Rc];
        a_shorter_message_leaves_the_rest_of_the_list_alone: "What a message does not reach of its receive is left as it is", needs [Rc] as two_party;
        every_alignment_and_small_length_arrives_whole: "Entries may have any alignment and length", needs [Rc] as two_party;
        messages_of_no_bytes_consume_a_receive_and_no_memory: "A message of no bytes takes a receive and touches no memory", needs [Rc] as two_party;
        inline_bytes_are_taken_when_posted: "Inline bytes may be changed as soon as the post returns", needs [Rc] as two_party;
        more_inline_bytes_than_granted_are_refused_and_nothing_is_posted: "More inline bytes than granted are refused", needs [Rc];
        a_list_with_too_many_entries_stops_the_post_at_its_position: "A list with too many entries stops the post there; what is before it is posted", needs [Rc];
    }
    Ordering by "ibv_post_send(3)" {
        one_doorbell_posts_a_list_in_order: "A list of work requests is carried out in its order", needs [Rc] as two_party;
    }
    Completions by "InfiniBand vol. 1, 10.8; ibv_post_send(3)" {
        unsignaled_sends_hold_their_place_until_a_later_signaled_one_is_polled:
            "An unsignaled send keeps its place in the queue until a later completion is polled", needs [Rc] as two_party;
        a_queue_pair_that_signals_all_sends_does: "With sq_sig_all every send completes visibly", by "ibv_create_qp(3)", needs [Rc] as two_party;
    }
    Limits by "ibv_post_send(3)" {
        a_full_queue_names_the_first_request_that_did_not_fit: "A post to a full queue says which request was the first that did not fit", needs [Rc];
    }
}

fn a_send_fills_the_oldest_receive_and_completes_on_both_sides() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        b.write(0, &[0; 64]);
        b.post_recv(7, 0..64);
        b.post_recv(8, 64..128);
        a.mr.write(0, b"twelve bytes");
        a.post_send(3, 0..12);
        let sent = a.one();
        assert_eq!((sent.wr_id, sent.status, sent.opcode), (3, WcStatus::Success, WcOpcode::Send));
        assert_eq!(sent.qp_num, a.qp.qp_num());
        let received = b.expect(7, WcStatus::Success);
        assert_eq!((received.byte_len, received.opcode), (12, WcOpcode::Recv));
        assert_eq!(received.wc_flags, WcFlags::empty());
        if common::on_shm() {
            assert_eq!(received.src_qp, a.qp.qp_num());
        }
        assert_eq!(b.bytes(0..13), b"twelve bytes\0");
        assert_eq!(b.bytes(64..128), [0; 64]);
        a.expect_nothing();
        b.expect_nothing();
    }
}

/// Cuts `len` bytes of memory into `count` slices with a hole of `gap` bytes after each.
fn cut(node: &common::Node, at: usize, len: usize, count: usize, gap: usize) -> (Vec<MrSlice>, Vec<usize>) {
    let (mut slices, mut places) = (Vec::new(), Vec::new());
    let mut at = at;
    for piece in 0..count {
        let bytes = len * (piece + 1) / count - len * piece / count;
        slices.push(node.mr.slice(at..at + bytes));
        places.extend(at..at + bytes);
        at += bytes + gap;
    }
    (slices, places)
}

fn lists_of_any_shape_on_both_sides_carry_the_bytes_in_order_and_touch_nothing_else() {
    for (mut a, mut b) in pairs("rc", |init| init.max_send_sge(32).max_recv_sge(32)) {
        let mut seed = 0;
        for gather in [1, 2, 3, 16, 32] {
            for scatter in [1, 2, 5, 17, 32] {
                for len in [33, 64, 1021, 65_537] {
                    seed += 1;
                    let (from, from_places) = cut(&a, 1 + seed % 9, len, gather, 3);
                    let (to, to_places) = cut(&b, 3 + seed % 7, len, scatter, 5);
                    let message = pattern(seed as u64, len);
                    for (place, byte) in from_places.iter().zip(&message) {
                        a.mr.write(*place, &[*byte]);
                    }
                    let end = len + 1024;
                    b.fill(0..end, 0xee);
                    b.qp.post_recv(|rq| {
                        rq.recv(to).id(1);
                    })
                    .unwrap();
                    a.qp.post(|wr| {
                        wr.send(from).id(2);
                    })
                    .unwrap();
                    a.expect(2, WcStatus::Success);
                    assert_eq!(b.expect(1, WcStatus::Success).byte_len as usize, len);
                    let mut expected = vec![0xee; end];
                    for (place, byte) in to_places.iter().zip(&message) {
                        expected[*place] = *byte;
                    }
                    assert!(b.bytes(0..end) == expected, "{gather} to {scatter} entries, {len} bytes");
                }
            }
        }
    }
}

fn a_shorter_message_leaves_the_rest_of_the_list_alone() {
    let (mut a, b) = far::pair("rc");
    b.fill(0..64, 9);
    b.post_recv_list(1, &[0..10, 20..30, 40..50]);
    a.fill(0..15, 1);
    a.post_send(2, 0..15);
    a.expect(2, WcStatus::Success);
    assert_eq!(b.expect(1, WcStatus::Success).byte_len, 15);
    let mut expected = [9; 64];
    expected[..10].fill(1);
    expected[20..25].fill(1);
    assert_eq!(b.bytes(0..64), expected);
}

fn every_alignment_and_small_length_arrives_whole() {
    let (mut a, b) = far::pair("rc");
    for from in 0..17 {
        for len in [1, 2, 3, 7, 8, 9, 15, 16, 31, 63, 64, 65, 127] {
            let to = (from * 5 + len) % 19;
            let message = pattern((from * 1000 + len) as u64, len);
            b.fill(0..256, 0x77);
            a.mr.write(from, &message);
            b.post_recv(0, to..to + len);
            a.post_send(0, from..from + len);
            a.expect(0, WcStatus::Success);
            assert_eq!(b.expect(0, WcStatus::Success).byte_len as usize, len);
            assert_eq!(b.bytes(to..to + len), message);
            assert!(b.bytes(0..to).iter().chain(&b.bytes(to + len..256)).all(|byte| *byte == 0x77));
        }
    }
}

fn messages_of_no_bytes_consume_a_receive_and_no_memory() {
    let (mut a, b) = far::pair("rc");
    let from = a.mr.slice(5..5);
    b.fill(0..8, 3);
    b.post_recv_list(1, &[]);
    b.post_recv(2, 0..8);
    b.post_recv(3, 0..8);
    a.qp.post(|wr| {
        let nothing: [MrSlice; 0] = [];
        wr.send(nothing).id(11);
        wr.send(from).id(12);
        wr.send_inline(b"").id(13);
    })
    .unwrap();
    for id in [1, 2, 3] {
        a.expect(10 + id, WcStatus::Success);
        assert_eq!(b.expect(id, WcStatus::Success).byte_len, 0);
    }
    assert_eq!(b.bytes(0..8), [3; 8]);
}

fn inline_bytes_are_taken_when_posted() {
    let (mut a, b) = far::pair_shaped("rc", Shape { max_inline_data: Some(512), ..Shape::default() });
    // No receive is there yet, so the bytes have to wait somewhere that is not the caller's.
    let mut bytes = pattern(1, 512);
    a.qp.post(|wr| {
        wr.send_inline(&bytes).id(1);
        wr.send_inline(&bytes[..1]).id(2);
    })
    .unwrap();
    let sent = bytes.clone();
    bytes.fill(0);
    b.post_recv(3, 0..512);
    b.post_recv(4, 600..601);
    a.expect(1, WcStatus::Success);
    a.expect(2, WcStatus::Success);
    assert_eq!(b.expect(3, WcStatus::Success).byte_len, 512);
    assert_eq!(b.expect(4, WcStatus::Success).byte_len, 1);
    assert_eq!(b.bytes(0..512), sent);
    assert_eq!(b.bytes(600..601), sent[..1]);
}

fn more_inline_bytes_than_granted_are_refused_and_nothing_is_posted() {
    let (mut a, b) = pair_shaped("rc", |init| init.max_inline_data(100));
    let max = a.qp.cap().max_inline_data;
    assert!(max >= 100);
    let error = a.qp.post(|wr| _ = wr.send_inline(&vec![1; max as usize + 1])).unwrap_err();
    assert_eq!(error.index, 0);
    let PostRefusal::WorkRequest(kind) = &error.reason else { unreachable!("{error}") };
    assert_eq!(*kind, PostErrorKind::InlineTooLong { length: u64::from(max) + 1, max });
    a.expect_nothing();
    b.expect_nothing();
}

fn immediate_data_arrives_as_it_was_given() {
    for (mut a, b) in far::pairs("rc", Shape::default()) {
        b.post_recv(1, 0..8);
        b.post_recv(2, 8..16);
        b.post_recv(3, 16..24);
        let slice = a.mr.slice(0..8);
        a.qp.post(|wr| {
            wr.send_with_imm(slice, 0x0102_0304).id(4);
            wr.send(slice).id(5);
            wr.send_with_imm(slice, u32::MAX).id(6);
        })
        .unwrap();
        let first = b.expect(1, WcStatus::Success);
        assert_eq!(
            (first.imm_data, first.wc_flags, first.opcode),
            (0x0102_0304, WcFlags::WITH_IMM, WcOpcode::Recv)
        );
        assert_eq!(b.expect(2, WcStatus::Success).wc_flags, WcFlags::empty());
        assert_eq!(b.expect(3, WcStatus::Success).imm_data, u32::MAX);
        for id in [4, 5, 6] {
            assert_eq!(a.expect(id, WcStatus::Success).opcode, WcOpcode::Send);
        }
    }
}

fn thousands_of_messages_arrive_once_each_and_in_order() {
    for (mut a, mut b) in pairs("rc", |init| init.max_send_wr(16).max_recv_wr(16)) {
        let (mut posted, mut sent, mut received) = (0_u64, 0_u64, 0_u64);
        while posted < 16 {
            b.post_recv(posted, posted as usize * 64..(posted as usize + 1) * 64);
            posted += 1;
        }
        while received < 5000 {
            if sent < 5000 && sent < received + 12 {
                a.mr.write((sent % 16) as usize * 64, &pattern(sent, 50));
                a.post_send(sent, (sent % 16) as usize * 64..(sent % 16) as usize * 64 + 50);
                a.expect(sent, WcStatus::Success);
                sent += 1;
                continue;
            }
            let wc = b.expect(received, WcStatus::Success);
            let number = if common::on_native() { 0 } else { received };
            assert_eq!(wc.wq_index as u64, number);
            let at = (received % 16) as usize * 64;
            assert_eq!(b.bytes(at..at + 50), pattern(received, 50));
            b.post_recv(posted, at..at + 64);
            posted += 1;
            received += 1;
        }
    }
}

fn one_doorbell_posts_a_list_in_order() {
    let (mut a, b) = far::pair("rc");
    for id in 0..20 {
        b.post_recv(id as u64, id * 8..id * 8 + 8);
    }
    a.qp.post(|wr| {
        for id in 0..20_u64 {
            wr.send_inline(&id.to_le_bytes()).id(100 + id);
        }
    })
    .unwrap();
    for id in 0..20 {
        a.expect(100 + id, WcStatus::Success);
        b.expect(id, WcStatus::Success);
        assert_eq!(b.load_u64(id as usize * 8), id);
    }
    a.qp.post(|_| {}).unwrap();
    a.qp.post_recv(|_| {}).unwrap();
}

fn unsignaled_sends_hold_their_place_until_a_later_signaled_one_is_polled() {
    let shape = Shape { max_send_wr: Some(4), max_recv_wr: Some(64), ..Shape::default() };
    let (mut a, b) = far::pair_shaped("rc", shape);
    // At least as many as were asked for.
    let depth = u64::from(a.qp.cap().max_send_wr);
    assert!((4..=64).contains(&depth));
    for round in 0..5 {
        for id in 0..depth {
            b.post_recv(id, 0..8);
        }
        a.qp.post(|wr| {
            for id in 0..depth - 1 {
                wr.send_inline(b"x").id(id).unsignaled();
            }
        })
        .unwrap();
        a.expect_nothing();
        a.qp.post(|wr| _ = wr.send_inline(b"x").id(depth)).unwrap();
        // All of them have been carried out, but nobody has been told yet.
        for id in 0..depth {
            b.expect(id, WcStatus::Success);
        }
        let error = a.qp.post(|wr| _ = wr.send_inline(b"x")).unwrap_err();
        assert!(matches!(error.reason, PostRefusal::QueueFull { .. }), "round {round}: {error}");
        assert!(error.to_string().contains("signal"), "{error}");
        a.expect(depth, WcStatus::Success);
        a.expect_nothing();
    }
}

fn a_full_queue_names_the_first_request_that_did_not_fit() {
    let (mut a, mut b) = pair_shaped("rc", |init| init.max_send_wr(4).max_recv_wr(4));
    // At least as many as were asked for, and perhaps not as many on either side.
    let (receives, sends) = (u64::from(b.qp.cap().max_recv_wr), u64::from(a.qp.cap().max_send_wr));
    let slice = b.mr.slice(0..8);
    let error = b.qp.post_recv(|rq| (0..receives + 2).for_each(|id| _ = rq.recv(slice).id(id))).unwrap_err();
    assert_eq!(error.index as u64, receives);
    assert_eq!(error.qp_num, b.qp.qp_num());
    assert!(matches!(error.reason, PostRefusal::QueueFull { .. }), "{error}");
    let to = b.mr.remote().at(64);
    let error =
        a.qp.post(|wr| (0..sends + 2).for_each(|id| _ = wr.write_inline(b"x", to).id(id))).unwrap_err();
    assert_eq!(error.index as u64, sends);
    assert!(matches!(error.reason, PostRefusal::QueueFull { .. }), "{error}");
    for id in 0..sends {
        a.expect(id, WcStatus::Success);
    }
    for id in 0..receives {
        a.post_send(id, 0..8);
        a.expect(id, WcStatus::Success);
        b.expect(id, WcStatus::Success);
    }
    a.expect_nothing();
    b.expect_nothing();
    // There is room again.
    b.post_recv(9, 0..8);
    a.post_send(9, 0..8);
    a.expect(9, WcStatus::Success);
    b.expect(9, WcStatus::Success);
}

fn a_list_with_too_many_entries_stops_the_post_at_its_position() {
    let (mut a, mut b) = pair_shaped("rc", |init| init.max_send_sge(2).max_recv_sge(2));
    let (max_send, max_recv) = (a.qp.cap().max_send_sge as usize, b.qp.cap().max_recv_sge as usize);
    let slice = b.mr.slice(0..8);
    let error =
        b.qp.post_recv(|rq| {
            rq.recv(slice).id(1);
            rq.recv(vec![slice; max_recv + 1]).id(2);
            rq.recv(slice).id(3);
        })
        .unwrap_err();
    assert_eq!(error.index, 1);
    assert!(matches!(error.reason, PostRefusal::WorkRequest(PostErrorKind::TooManySges { .. })), "{error}");
    let slice = a.mr.slice(0..8);
    let error =
        a.qp.post(|wr| {
            wr.send(slice).id(4);
            wr.send(vec![slice; max_send + 1]).id(5);
            wr.send(slice).id(6);
        })
        .unwrap_err();
    assert_eq!(error.index, 1);
    assert!(matches!(error.reason, PostRefusal::WorkRequest(PostErrorKind::TooManySges { .. })), "{error}");
    a.expect(4, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    a.expect_nothing();
    b.expect_nothing();
}

fn a_queue_pair_that_signals_all_sends_does() {
    let (mut a, b) = far::pair_shaped("rc", Shape { sq_sig_all: true, ..Shape::default() });
    b.post_recv(1, 0..8);
    a.qp.post(|wr| _ = wr.send_inline(b"x").id(2).unsignaled()).unwrap();
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
}

fn a_large_message_arrives_whole() {
    let (mut a, b) = far::pair("rc");
    let message = pattern(9, common::MEMORY - 7);
    a.mr.write(7, &message);
    b.post_recv(1, 0..common::MEMORY);
    a.post_send(2, 7..common::MEMORY);
    a.expect(2, WcStatus::Success);
    assert_eq!(b.expect(1, WcStatus::Success).byte_len as usize, message.len());
    assert!(b.bytes(0..message.len()) == message);
}
