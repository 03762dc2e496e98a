//! The software NIC as a device: what it says of itself, what it refuses and how, and what it does at its limits.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use tbrdma::{
    Access, AddressVector, Gid, LinkLayer, MemoryPath, Mtu, OpenOptions, PortState, QpAttr, QpAttrMask,
    QpState, QpType, WcFlags, WcOpcode, WcStatus,
};

mod common;
use common::{Node, connection, eventually, join, pair};

const DEVICE: &str = "udp:lo";

fn counter(node: &Node, name: &str) -> u64 {
    node.ctx.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn it_is_listed_and_says_what_it_is() {
    assert!(
        tbrdma::devices().iter().any(|device| device.name == DEVICE && device.description.contains("RoCE"))
    );
    let ctx = tbrdma::open(DEVICE).unwrap();
    assert_eq!(ctx.name(), DEVICE);
    assert!(ctx.describe().contains("lo"), "{}", ctx.describe());
    let port = ctx.query_port(1).unwrap();
    assert_eq!((port.state, port.link_layer, port.lid), (PortState::Active, LinkLayer::Ethernet, 0));
    assert_eq!(port.active_mtu, Mtu::B4096);
    let gids: Vec<Gid> = (0..port.gid_tbl_len).map(|index| ctx.query_gid(1, index).unwrap()).collect();
    assert_eq!(gids[1], "::ffff:127.0.0.1".parse().unwrap());
    assert!(ctx.query_gid(1, port.gid_tbl_len).is_err());
    let node = Node::new(QpType::Rc);
    // Over IPv6, if it is there: it has no identification to guess.
    let default = if gids[0].is_zero() { gids[1] } else { "::1".parse().unwrap() };
    assert_eq!((node.qp.address().gid, node.qp.address().lid), (default, 0));
    assert_eq!(node.mr.path(), MemoryPath::Packets);
}

#[test]
fn names_of_no_interface_are_refused_with_those_there_are() {
    for name in ["udp:none0", "udp:", "udp", "tcp:lo"] {
        let error = tbrdma::open(name).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(DEVICE), "{error}");
    }
}

#[test]
fn an_address_that_makes_no_sense_is_refused_with_a_reason_and_changes_nothing() {
    let mut a = Node::new(QpType::Rc);
    let init = QpAttr { qp_state: QpState::Init, port_num: 1, ..QpAttr::default() };
    let mask = QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT | QpAttrMask::ACCESS_FLAGS;
    a.qp.modify(&init, mask).unwrap();
    let peer = Node::new(QpType::Rc).qp.address();
    let sgid_index = u8::from(peer.gid == "::ffff:127.0.0.1".parse().unwrap());
    let right = AddressVector { sgid_index, ..peer.address_vector() };
    let wrong = 1 - sgid_index;
    let refused = [
        (AddressVector { is_global: false, ..right }, "is_global"),
        (AddressVector { dgid: Gid::default(), ..right }, "dgid"),
        (AddressVector { sgid_index: wrong, ..right }, &format!("sgid_index {wrong}")),
        (AddressVector { sgid_index: 9, ..right }, "sgid_index 9"),
        (AddressVector { sgid_index: 200, ..right }, "sgid_index"),
    ];
    let mask = QpAttrMask::STATE
        | QpAttrMask::AV
        | QpAttrMask::PATH_MTU
        | QpAttrMask::DEST_QPN
        | QpAttrMask::RQ_PSN
        | QpAttrMask::MAX_DEST_RD_ATOMIC
        | QpAttrMask::MIN_RNR_TIMER;
    let to_rtr =
        |ah_attr| QpAttr { qp_state: QpState::Rtr, ah_attr, dest_qp_num: peer.qpn, ..QpAttr::default() };
    for (vector, word) in refused {
        let error = a.qp.modify(&to_rtr(vector), mask).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!((error.errno(), a.qp.state()), (22, QpState::Init));
        assert!(a.pd.create_ah(&vector).is_err());
    }
    a.qp.modify(&to_rtr(right), mask).unwrap();
    assert_eq!(a.qp.state(), QpState::Rtr);
}

#[test]
fn a_send_can_take_back_a_key() {
    let (mut a, mut b) = pair("rc");
    let lent = b.pd.alloc(4096, Access::LOCAL_WRITE | Access::REMOTE_WRITE).unwrap();
    let (from, remote) = (a.mr.slice(0..8), lent.remote().at(0));
    a.qp.post(|wr| _ = wr.write(from, remote).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    b.post_recv(2, 0..64);
    b.post_recv(3, 0..64);
    a.qp.post(|wr| {
        wr.send_with_inv(from, lent.rkey()).id(4);
    })
    .unwrap();
    a.expect(4, WcStatus::Success);
    let wc = b.expect(2, WcStatus::Success);
    assert_eq!((wc.opcode, wc.wc_flags, wc.imm_data), (WcOpcode::Recv, WcFlags::WITH_INV, lent.rkey()));
    // The key is of no more use, and the region can still be dropped, and others be made.
    a.qp.post(|wr| _ = wr.write(from, remote).id(5)).unwrap();
    a.expect(5, WcStatus::RemAccessErr);
    b.expect(3, WcStatus::WrFlushErr);
    drop(lent);
    assert!(b.pd.alloc(4096, Access::LOCAL_WRITE).is_ok());
}

#[test]
fn a_key_that_gives_no_remote_right_cannot_be_taken_back() {
    let (mut a, mut b) = pair("rc");
    let own = b.pd.alloc(4096, Access::LOCAL_WRITE).unwrap();
    b.post_recv(1, 0..64);
    a.qp.post(|wr| _ = wr.send_inline_with_inv(b"x", own.rkey()).id(2)).unwrap();
    assert_ne!(a.one().status, WcStatus::Success);
    assert_ne!(b.one().status, WcStatus::Success);
    // It still works: a queue pair receives into it.
    let (mut c, mut d) = (Node::of(&b.ctx, QpType::Rc, |init| init), Node::new(QpType::Rc));
    c.pd = b.pd.clone();
    c.qp = b.pd.create_qp(tbrdma::QpInit::rc(&c.cq)).unwrap();
    join(&mut c, &mut d, &common::patient());
    c.qp.post_recv(|rq| _ = rq.recv(own.slice(0..8)).id(3)).unwrap();
    d.post_send(4, 0..8);
    d.expect(4, WcStatus::Success);
    c.expect(3, WcStatus::Success);
}

#[test]
fn counters_count_packets_and_what_went_wrong() {
    let (mut a, mut b) = pair("rc");
    assert_eq!((counter(&a, "sent_pkts"), counter(&b, "rcvd_pkts")), (0, 0));
    b.post_recv(1, 0..20_000);
    a.post_send(2, 0..20_000);
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    assert!(counter(&a, "sent_pkts") >= 5 && counter(&b, "rcvd_pkts") >= 5, "{:?}", b.ctx.counters());
    // A message for a queue pair that is no more is dropped and counted, and what the dead have counted stays.
    let before = counter(&b, "sent_pkts");
    let Node { qp, mr: _mr, cq, pd, ctx } = b;
    drop(qp);
    a.post_send(3, 0..8);
    let rest = Node { qp: pd.create_qp(tbrdma::QpInit::rc(&cq)).unwrap(), mr: _mr, cq, pd, ctx };
    eventually("the packet is counted", || counter(&rest, "dropped_unknown_qp") > 0);
    assert!(counter(&rest, "sent_pkts") >= before && before > 0);
}

#[test]
fn silence_ends_in_an_error_after_the_retries_asked_for() {
    let (mut a, b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let with = connection(|with| {
        with.timeout = 10;
        with.retry_cnt = 2;
    });
    // The peer is there and never gets ready.
    a.qp.connect_with(&b.qp.address(), &with).unwrap();
    let begun = std::time::Instant::now();
    a.post_send(1, 0..8);
    a.expect(1, WcStatus::RetryExcErr);
    // Three times 4.2 ms.
    assert!(begun.elapsed() >= std::time::Duration::from_millis(12), "{:?}", begun.elapsed());
    assert_eq!(a.qp.state(), QpState::Err);
}

#[test]
fn options_that_a_device_cannot_honour_are_refused() {
    let error = OpenOptions::new().fault("loss=1%").open("shm").unwrap_err();
    assert_eq!(error.errno(), 95, "{error}");
    let error = OpenOptions::new().fault("lots=1%").open(DEVICE).unwrap_err().to_string();
    assert!(error.contains("lots"), "{error}");
    let error = OpenOptions::new().capture("/nowhere/at/all.pcapng").open(DEVICE).unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all.pcapng"), "{error}");
}
