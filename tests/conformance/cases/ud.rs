//! Unreliable datagrams: the 40 bytes in front, the Q_Key, what is dropped, and who may send.

use crate::case::cases;
use crate::common;
use crate::common::{MEMORY, Node, alone, pattern};
use std::collections::HashSet;
use tbrdma::{
    AddressHandle, AddressVector, Gid, MrSlice, Opcode, PostErrorKind, PostRefusal, QpAttr, QpAttrMask,
    QpInit, QpState, QpType, Qpn, WcFlags, WcOpcode, WcStatus,
};

cases! {
    Ud by "InfiniBand vol. 1, 9.8.3; ibv_post_send(3)" {
        a_datagram_arrives_behind_a_global_route_header:
            "A datagram is received behind 40 bytes of route header that say who sent it", needs [Ud] as unacknowledged;
        immediate_inline_and_empty_datagrams_arrive: "Datagrams carry immediate data, inline bytes, or nothing", needs [Ud] as unacknowledged;
        a_wrong_qkey_a_wrong_queue_pair_and_a_missing_receive_drop_the_message:
            "A wrong Q_Key, a wrong queue pair and a missing receive drop the datagram in silence", by "InfiniBand vol. 1, 10.2.5 and 9.8.3", needs [Rc, Ud] as unacknowledged;
        a_controlled_qkey_stands_for_the_senders_own: "A Q_Key with its high bit set stands for the sender's own", by "InfiniBand vol. 1, 10.2.5", needs [Ud] as unacknowledged;
        a_receive_that_is_too_small_drops_the_message_and_is_not_lost: "A datagram that does not fit its receive is dropped", needs [Ud] as unacknowledged;
        receives_behind_one_that_is_too_small_are_used: "Nothing is stuck behind a receive that is too small", needs [Ud] as unacknowledged;
        a_queue_pair_may_send_to_itself: "A queue pair may send to itself", needs [Ud] as unacknowledged;
        a_datagram_is_one_packet: "A datagram is one packet: what is longer than the MTU is a local length error", needs [Ud] as unacknowledged;
        bad_memory_of_ones_own_stops_the_send_queue: "A local error brings the send queue to SQE", by "InfiniBand vol. 1, 10.3.1", needs [Ud] as unacknowledged;
        only_sends_with_a_destination_exist: "Only SENDs with a destination exist", needs [Ud] as unacknowledged;
        sends_held_while_draining_arrive_later: "SQD holds datagrams, and RTS goes on with them", by "InfiniBand vol. 1, 10.3.1", needs [Ud] as unacknowledged;
        handles_lead_where_they_were_made_to_lead_however_many_there_have_been:
            "An address handle leads where it was made to lead", by "ibv_create_ah(3)", needs [Ud] as unacknowledged;
        many_destinations_are_served_from_one_queue_pair: "One queue pair reaches any number of destinations", needs [Ud] as unacknowledged;
        many_senders_fill_one_receive_queue_and_nothing_is_mixed_up: "Datagrams of many senders arrive whole, at most once each", needs [Ud] as unacknowledged;
    }
    Shapes by "ibv_post_send(3)" {
        gather_and_scatter_lists_work_across_the_header: "The route header is scattered as the payload is", needs [Ud] as unacknowledged;
    }
    Objects by "ibv_post_recv(3)" {
        lent_buffers_come_back_with_their_own_message: "Memory lent to a datagram's receive comes back with its completion", needs [Ud] as unacknowledged;
        a_receive_needs_no_memory_if_it_is_never_used: "A receive without memory may be posted, and is flushed", needs [Ud] as unacknowledged;
    }
}

const QKEY: u32 = 0x1111_2222;
const GRH: usize = 40;

fn node() -> Node {
    let mut node = Node::new(QpType::Ud);
    node.qp.activate_ud(QKEY).unwrap();
    node
}

fn handle(from: &Node, to: &Node) -> AddressHandle {
    from.pd.create_ah_to(&to.qp.address()).unwrap()
}

fn send(from: &mut Node, ah: &AddressHandle, qpn: Qpn, qkey: u32, id: u64, bytes: &[u8]) {
    from.mr.write(0, bytes);
    let slice = from.mr.slice(0..bytes.len());
    from.qp.post(|wr| _ = wr.send(slice).to(ah, qpn, qkey).id(id)).unwrap();
    from.expect(id, WcStatus::Success);
}

fn a_datagram_arrives_behind_a_global_route_header() {
    let _alone = alone();
    let ctx = common::open().unwrap();
    let gids = (0..ctx.query_port(1).unwrap().gid_tbl_len).map(|index| ctx.query_gid(1, index).unwrap());
    for (index, _) in gids.enumerate().filter(|(_, gid)| !gid.is_zero()) {
        arrives_behind_a_header(index as u8);
    }
}

fn arrives_behind_a_header(sgid_index: u8) {
    let (mut a, mut b) = (node(), node());
    // Contexts of a device may have an address each.
    let [from, to] = [&a, &b].map(|node| node.ctx.query_gid(1, sgid_index.into()).unwrap());
    let vector = AddressVector {
        flow_label: 0x000b_cdef,
        traffic_class: 0x5a,
        hop_limit: 17,
        sgid_index,
        dgid: to,
        ..b.qp.address().address_vector()
    };
    let ah = a.pd.create_ah(&vector).unwrap();
    let bytes = pattern(1, 100);
    let qpn = b.qp.qp_num();
    let begun = common::Moment::now();
    let wc = loop {
        b.fill(0..256, 0xee);
        b.post_recv(1, 8..248);
        let wc = common::datagram(&b.cq, || send(&mut a, &ah, qpn, QKEY, 2, &bytes));
        assert_eq!((wc.wr_id, wc.status), (1, WcStatus::Success));
        // One that came to the socket of another process, and was handed on, lacks the traffic class.
        let came_directly = b.bytes(29..30) == [0x5a] || b.bytes(8..10) == [0x65, 0xa0];
        if common::on_shm() || came_directly || begun.elapsed() > common::patience() {
            break wc;
        }
    };
    assert_eq!((wc.opcode, wc.byte_len, wc.wc_flags), (WcOpcode::Recv, 140, WcFlags::GRH));
    assert_eq!((wc.qp_num, wc.src_qp), (qpn, a.qp.qp_num()));
    let grh = b.bytes(8..8 + GRH);
    // The sender can be answered by what is in the header.
    if to.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] {
        // The IPv4 header, behind 20 zeroes.
        assert_eq!((&grh[..20], grh[20], grh[21], grh[28]), (&[0; 20][..], 0x45, 0x5a, 17));
        assert_eq!((&grh[32..36], &grh[36..40]), (&from.0[12..], &to.0[12..]));
    } else {
        // A socket does not tell the flow label.
        let flow_label = if common::on_shm() { 0x000b_cdef } else { 0 };
        assert_eq!(grh[..4], (6_u32 << 28 | 0x5a << 20 | flow_label).to_be_bytes());
        assert_eq!(grh[7], 17);
        let gid = |at: usize| Gid(grh[at..at + 16].try_into().unwrap());
        assert_eq!((gid(8), gid(24)), (from, to));
    }
    assert_eq!(b.bytes(48..148), bytes);
    assert!(b.bytes(0..8).iter().chain(&b.bytes(148..256)).all(|byte| *byte == 0xee));
}

fn immediate_inline_and_empty_datagrams_arrive() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    for id in 0..3 {
        b.post_recv(id, id as usize * 100..id as usize * 100 + 100);
    }
    let slice = a.mr.slice(0..4);
    a.qp.post(|wr| {
        wr.send_with_imm(slice, 0xcafe).to(&ah, qpn, QKEY).id(10);
        wr.send_inline(b"inline").to(&ah, qpn, QKEY).id(11);
        wr.send_inline(b"").to(&ah, qpn, QKEY).id(12).unsignaled();
    })
    .unwrap();
    a.expect(10, WcStatus::Success);
    a.expect(11, WcStatus::Success);
    let wc = b.expect(0, WcStatus::Success);
    assert_eq!((wc.imm_data, wc.wc_flags, wc.byte_len), (0xcafe, WcFlags::GRH | WcFlags::WITH_IMM, 44));
    assert_eq!(b.expect(1, WcStatus::Success).byte_len, 46);
    assert_eq!(b.bytes(140..146), b"inline");
    assert_eq!(b.expect(2, WcStatus::Success).byte_len, 40);
}

fn gather_and_scatter_lists_work_across_the_header() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    let bytes = pattern(2, 90);
    a.mr.write(0, &bytes);
    // The header itself is cut by the first two entries.
    let list = [b.mr.slice(0..13), b.mr.slice(100..150), b.mr.slice(200..290)];
    b.qp.post_recv(|rq| _ = rq.recv(list).id(1)).unwrap();
    let from = [a.mr.slice(0..1), a.mr.slice(1..50), a.mr.slice(50..90)];
    a.qp.post(|wr| _ = wr.send(from).to(&ah, qpn, QKEY).id(2)).unwrap();
    a.expect(2, WcStatus::Success);
    assert_eq!(b.expect(1, WcStatus::Success).byte_len, 130);
    let mut received = b.bytes(0..13);
    received.extend(b.bytes(100..150));
    received.extend(b.bytes(200..290));
    assert_eq!(received[GRH..130], bytes);
    let v6 = b.qp.address().gid.0[..12] != [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    assert_eq!(received[0] >> 4, if v6 { 6 } else { 0 });
}

fn a_wrong_qkey_a_wrong_queue_pair_and_a_missing_receive_drop_the_message() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    send(&mut a, &ah, qpn, QKEY, 1, b"no receive");
    b.expect_nothing();
    b.post_recv(1, 0..100);
    send(&mut a, &ah, qpn, QKEY ^ 1, 2, b"wrong key");
    send(&mut a, &ah, Qpn::new(qpn.get() ^ 0x4000).unwrap(), QKEY, 3, b"wrong number");
    // A connected queue pair takes no datagrams.
    let mut rc = b.pd.create_qp(QpInit::rc(&b.cq)).unwrap();
    rc.connect_with(&rc.address(), &common::patient()).unwrap();
    rc.post_recv(|rq| _ = rq.recv_nothing()).unwrap();
    send(&mut a, &ah, rc.qp_num(), QKEY, 4, b"");
    b.expect_nothing();
    b.expect_no_event();
    send(&mut a, &ah, qpn, QKEY, 5, b"right");
    assert_eq!(b.expect(1, WcStatus::Success).byte_len, 45);
    assert_eq!(b.bytes(40..45), b"right");
    assert_eq!((a.qp.state(), b.qp.state()), (QpState::Rts, QpState::Rts));
}

fn a_controlled_qkey_stands_for_the_senders_own() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    b.post_recv(1, 0..100);
    send(&mut a, &ah, qpn, 1 << 31, 1, b"own");
    b.expect(1, WcStatus::Success);
    // The key is an attribute and can be changed.
    a.qp.modify(&QpAttr { qkey: 77, ..QpAttr::default() }, QpAttrMask::QKEY).unwrap();
    b.post_recv(2, 0..100);
    send(&mut a, &ah, qpn, 1 << 31, 2, b"other");
    b.expect_nothing();
}

fn a_receive_that_is_too_small_drops_the_message_and_is_not_lost() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    for small in [0, 30, 39, 40, 49] {
        b.fill(0..100, 0xee);
        b.post_recv(1, 0..small);
        send(&mut a, &ah, qpn, QKEY, 2, &[1; 10]);
        b.expect_nothing();
        assert_eq!(b.bytes(0..100), [0xee; 100], "{small} bytes");
        if small < GRH {
            // Nothing at all fits there: begin anew.
            b.qp.reset().unwrap();
            b.qp.activate_ud(QKEY).unwrap();
        } else {
            send(&mut a, &ah, qpn, QKEY, 3, &pattern(1, small - GRH));
            assert_eq!(b.expect(1, WcStatus::Success).byte_len as usize, small);
        }
    }
}

fn receives_behind_one_that_is_too_small_are_used() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    b.post_recv(1, 0..50);
    b.post_recv(2, 100..300);
    // Lost, or taken by the second: either way nothing is stuck and nothing arrives twice.
    send(&mut a, &ah, qpn, QKEY, 10, &[1; 100]);
    for _ in 0..2 {
        send(&mut a, &ah, qpn, QKEY, 11, &[2; 10]);
    }
    let mut seen = HashSet::new();
    for _ in 0..2 {
        let wc = b.one();
        assert_eq!(wc.status, WcStatus::Success);
        assert!(seen.insert(wc.wr_id));
    }
    b.expect_nothing();
}

fn lent_buffers_come_back_with_their_own_message() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    for (id, len) in [(1, 45), (2, 300), (3, 300)] {
        let buffer = b.pd.alloc_buffer(len).unwrap();
        b.qp.post_recv(|rq| _ = rq.recv_buffer(buffer).id(id)).unwrap();
    }
    // Does not fit the first.
    send(&mut a, &ah, qpn, QKEY, 10, &[9; 100]);
    for round in 1..=3_u8 {
        send(&mut a, &ah, qpn, QKEY, 11, &[round; 5]);
    }
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let wc = b.one();
        wc.ok().unwrap();
        let buffer = b.qp.take_buffer(&wc).expect("the buffer of a completed receive");
        assert_eq!(buffer.len(), if wc.wr_id == 1 { 45 } else { 300 });
        assert!((1..=3).contains(&buffer[GRH]) && buffer[GRH..45].iter().all(|byte| *byte == buffer[GRH]));
        assert!(ids.insert(wc.wr_id));
    }
}

fn a_queue_pair_may_send_to_itself() {
    let _alone = alone();
    let mut a = node();
    let (ah, qpn) = (handle(&a, &a), a.qp.qp_num());
    a.post_recv(1, 100..200);
    let slice = a.mr.slice(0..3);
    a.mr.write(0, b"abc");
    a.qp.post(|wr| _ = wr.send(slice).to(&ah, qpn, QKEY).id(2)).unwrap();
    let mut ids: Vec<_> = a.take(2).iter().map(|wc| wc.wr_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    assert_eq!(a.bytes(140..143), b"abc");
}

fn a_datagram_is_one_packet() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    let mtu = a.ctx.query_port(1).unwrap().active_mtu.bytes() as usize;
    b.post_recv(1, 0..mtu + GRH);
    let bytes = pattern(1, mtu);
    send(&mut a, &ah, qpn, QKEY, 1, &bytes);
    assert_eq!(b.expect(1, WcStatus::Success).byte_len as usize, mtu + GRH);
    assert!(b.bytes(GRH..mtu + GRH) == bytes);
    b.post_recv(2, 0..mtu + 100);
    let slice = a.mr.slice(0..mtu + 1);
    a.qp.post(|wr| {
        wr.send(slice).to(&ah, qpn, QKEY).id(3);
        wr.send_inline(b"x").to(&ah, qpn, QKEY).id(4);
    })
    .unwrap();
    a.expect(3, WcStatus::LocLenErr);
    a.expect(4, WcStatus::WrFlushErr);
    assert_eq!(a.qp.state(), QpState::Sqe);
    a.qp.modify(&QpAttr { qp_state: QpState::Rts, ..QpAttr::default() }, QpAttrMask::STATE).unwrap();
    send(&mut a, &ah, qpn, QKEY, 5, b"again");
    b.expect(2, WcStatus::Success);
}

fn bad_memory_of_ones_own_stops_the_send_queue() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    b.post_recv(1, 0..100);
    let beyond = a.mr.slice(MEMORY..MEMORY + 1);
    a.qp.post(|wr| _ = wr.send(beyond).to(&ah, qpn, QKEY).id(2)).unwrap();
    a.expect(2, WcStatus::LocProtErr);
    assert_eq!(a.qp.state(), QpState::Sqe);
    b.expect_nothing();
}

fn only_sends_with_a_destination_exist() {
    let _alone = alone();
    let (mut a, b) = (node(), node());
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    let error = a.qp.post(|wr| _ = wr.send(slice)).unwrap_err();
    assert_eq!(error.errno(), nix::libc::EINVAL);
    assert!(matches!(error.reason, PostRefusal::WorkRequest(PostErrorKind::MissingUdDestination)), "{error}");
    let error = a.qp.post(|wr| _ = wr.write(slice, remote)).unwrap_err();
    let expected = PostErrorKind::OpcodeNotSupported { opcode: Opcode::RdmaWrite, qp_type: QpType::Ud };
    assert_eq!(error.errno(), nix::libc::EINVAL);
    assert!(
        common::on_native() || matches!(error.reason, PostRefusal::WorkRequest(kind) if kind == expected),
        "{error}"
    );
}

fn sends_held_while_draining_arrive_later() {
    let _alone = alone();
    let (mut a, mut b) = (node(), node());
    let (ah, qpn) = (handle(&a, &b), b.qp.qp_num());
    b.post_recv(1, 0..100);
    a.qp.modify(&QpAttr { qp_state: QpState::Sqd, ..QpAttr::default() }, QpAttrMask::STATE).unwrap();
    a.qp.post(|wr| _ = wr.send_inline(b"held").to(&ah, qpn, QKEY).id(2)).unwrap();
    a.expect_nothing();
    // What was posted holds what it needs of the handle.
    drop(ah);
    a.qp.modify(&QpAttr { qp_state: QpState::Rts, ..QpAttr::default() }, QpAttrMask::STATE).unwrap();
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    assert_eq!(b.bytes(40..44), b"held");
}

fn handles_lead_where_they_were_made_to_lead_however_many_there_have_been() {
    let _alone = alone();
    let (mut a, mut b, mut c) = (node(), node(), node());
    let (to_b, to_c) = (b.qp.address(), c.qp.address());
    let first = a.pd.create_ah_to(&to_b).unwrap();
    b.post_recv(0, 0..100);
    let qpn = b.qp.qp_num();
    send(&mut a, &first, qpn, QKEY, 0, b"b");
    b.expect(0, WcStatus::Success);
    drop(first);
    // More than the device has at a time, so that their numbers come back.
    for _ in 0..tbrdma::limits::MAX_AH - 1 {
        a.pd.create_ah_to(&to_c).unwrap();
    }
    let qpn = c.qp.qp_num();
    for id in 1..4 {
        c.post_recv(id, 0..100);
        let ah = a.pd.create_ah_to(&to_c).unwrap();
        send(&mut a, &ah, qpn, QKEY, id, b"c");
        assert_eq!(c.expect(id, WcStatus::Success).byte_len, 41);
    }
}

fn many_destinations_are_served_from_one_queue_pair() {
    let _alone = alone();
    let mut a = node();
    let ctx = common::open().unwrap();
    let mut receivers: Vec<_> = (0..40)
        .map(|_| {
            let mut receiver = Node::of(&ctx, QpType::Ud, |init| init);
            receiver.qp.activate_ud(QKEY).unwrap();
            receiver.post_recv(7, 0..100);
            receiver
        })
        .collect();
    let handles: Vec<_> = (0..1500).map(|at| handle(&a, &receivers[at % 40])).collect();
    for (at, ah) in handles.iter().enumerate() {
        let receiver = &mut receivers[at % 40];
        let qpn = receiver.qp.qp_num();
        send(&mut a, ah, qpn, QKEY, at as u64, &at.to_ne_bytes());
        receiver.expect(7, WcStatus::Success);
        assert_eq!(receiver.bytes(40..48), at.to_ne_bytes());
        receiver.post_recv(7, 0..100);
    }
}

fn many_senders_fill_one_receive_queue_and_nothing_is_mixed_up() {
    let _alone = alone();
    const SENDERS: u64 = 6;
    const EACH: u64 = 3000;
    let mut receiver = Node::with(QpType::Ud, |init| init.max_recv_wr(64));
    receiver.qp.activate_ud(QKEY).unwrap();
    for id in 0..64 {
        receiver.post_recv(id, id as usize * 256..id as usize * 256 + 256);
    }
    let (address, qpn) = (receiver.qp.address(), receiver.qp.qp_num());
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            std::thread::spawn(move || {
                let mut node = node();
                let ah = node.pd.create_ah_to(&address).unwrap();
                for number in 0..EACH {
                    let mut bytes = (sender << 32 | number).to_ne_bytes().to_vec();
                    bytes.extend(pattern(sender << 32 | number, 20 + number as usize % 80));
                    send(&mut node, &ah, qpn, QKEY, number, &bytes);
                }
                node.qp.qp_num()
            })
        })
        .collect();
    let mut last = vec![None; SENDERS as usize];
    let mut arrived = HashSet::new();
    loop {
        let finished = senders.iter().all(|sender| sender.is_finished());
        let mut wcs = [tbrdma::WorkCompletion::default(); 8];
        let polled = receiver.cq.poll(&mut wcs).to_vec();
        for wc in &polled {
            wc.ok().unwrap();
            let at = wc.wr_id as usize * 256;
            let word = u64::from_ne_bytes(receiver.bytes(at + 40..at + 48).try_into().unwrap());
            let (sender, number) = ((word >> 32) as usize, word & 0xffff_ffff);
            assert_eq!(wc.byte_len as u64, 68 + number % 80);
            assert_eq!(
                receiver.bytes(at + 48..at + wc.byte_len as usize),
                pattern(word, 20 + number as usize % 80)
            );
            assert!(arrived.insert(word), "sender {sender}: {number} twice");
            // Over a network datagrams may overtake each other.
            assert!(
                !common::on_shm() || last[sender].is_none_or(|last| last < number),
                "sender {sender}: {number} after {last:?}"
            );
            last[sender] = Some(number);
            receiver.post_recv(wc.wr_id, at..at + 256);
        }
        if finished && polled.is_empty() {
            break;
        }
    }
    for sender in senders {
        sender.join().unwrap();
    }
    assert!(arrived.len() >= 64, "only {} of {} arrived", arrived.len(), SENDERS * EACH);
    // Every receive is still there. The senders' devices have just gone, and one may have been given a datagram for this one: it is sent again.
    let mut node = node();
    let ah = handle(&node, &receiver);
    let mut ids = HashSet::new();
    common::eventually("a datagram in every receive", || {
        send(&mut node, &ah, qpn, QKEY, 0, b"end");
        let mut wcs = [tbrdma::WorkCompletion::default(); 64];
        for wc in receiver.cq.poll(&mut wcs) {
            assert!(ids.insert(wc.wr_id), "receive {} completes twice", wc.wr_id);
        }
        ids.len() == 64
    });
}

fn a_receive_needs_no_memory_if_it_is_never_used() {
    let _alone = alone();
    let mut a = node();
    let nothing: [MrSlice; 0] = [];
    a.qp.post_recv(|rq| _ = rq.recv(nothing).id(1)).unwrap();
    a.qp.to_error().unwrap();
    a.expect(1, WcStatus::WrFlushErr);
}
