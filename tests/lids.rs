//! Ports that have LIDs over IP, for programs that name their peers by nothing else.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use nix::libc;
use tbrdma::{AddressVector, Context, Gid, LinkLayer, OpenOptions, QpAddress, QpType, WcStatus};

mod common;
use common::Node;

fn open(profile: &str) -> Context {
    OpenOptions::new().profile(profile).open("udp:lo").unwrap()
}

/// A queue pair's address without its GID.
fn by_lid(node: &Node) -> QpAddress {
    QpAddress { gid: Gid::default(), ..node.qp.address() }
}

#[test]
fn the_port_says_that_it_is_infinibands_and_its_lid_ends_its_ipv4_address() {
    let port = open("plain,lids=ipv4").query_port(1).unwrap();
    // 127.0.0.1
    assert_eq!((port.lid, port.link_layer), (1, LinkLayer::InfiniBand));
    let port = open("plain").query_port(1).unwrap();
    assert_eq!((port.lid, port.link_layer), (0, LinkLayer::Ethernet));
}

#[test]
fn connections_are_made_by_lid_and_by_gid() {
    for qp_type in [QpType::Rc, QpType::Uc] {
        let mut nodes = [(); 2].map(|()| Node::of(&open("plain,lids=ipv4"), qp_type, |init| init));
        for (from, to) in [(0, 1), (1, 0)] {
            let address = by_lid(&nodes[to]);
            assert_eq!(address.lid, 1);
            nodes[from].qp.connect(&address).unwrap();
            // What was said is what is told.
            assert!(!nodes[from].qp.query().ah_attr.is_global);
        }
        let [a, b] = &mut nodes;
        b.post_recv(1, 0..64);
        a.fill(0..64, 3);
        a.post_send(2, 0..64);
        a.expect(2, WcStatus::Success);
        b.expect(1, WcStatus::Success);
        assert_eq!(b.bytes(0..64), [3; 64]);
    }
    let mut nodes = [(); 2].map(|()| Node::of(&open("plain,lids=ipv4"), QpType::Rc, |init| init));
    let address = nodes[1].qp.address();
    nodes[0].qp.connect(&address).unwrap();
    assert!(nodes[0].qp.query().ah_attr.is_global);
}

#[test]
fn datagrams_go_by_lid() {
    const QKEY: u32 = 0x1234;
    let [mut a, mut b] = [(); 2].map(|()| Node::of(&open("plain,lids=ipv4"), QpType::Ud, |init| init));
    for node in [&mut a, &mut b] {
        node.qp.activate_ud(QKEY).unwrap();
    }
    let attr = AddressVector { dlid: 1, port_num: 1, ..AddressVector::default() };
    let ah = a.pd.create_ah(&attr).unwrap();
    b.post_recv(1, 0..128);
    let (slice, qpn) = (a.mr.slice(0..64), b.qp.qp_num());
    a.qp.post(|wr| _ = wr.send(slice).to(&ah, qpn, QKEY).id(2)).unwrap();
    a.expect(2, WcStatus::Success);
    assert_eq!(b.expect(1, WcStatus::Success).byte_len, 40 + 64);
    let error = a.pd.create_ah(&AddressVector { dlid: 0, ..attr }).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL, "{error}");
}

#[test]
fn without_lids_the_refusal_names_the_switch() {
    let mut node = Node::of(&open("plain"), QpType::Rc, |init| init);
    let address = QpAddress { lid: 1, ..by_lid(&node) };
    let error = node.qp.connect(&address).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL, "{error}");
    assert!(error.to_string().contains("lids=ipv4"), "{error}");
}
