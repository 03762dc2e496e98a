//! Devices: what there is, how it is opened, what it says of itself, and addresses as text and bytes.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::collections::HashSet;
use tbrdma::{
    AtomicCap, Error, Gid, PortState, QP_ADDRESS_BYTES, QpAddress, QpType, REMOTE_REGION_BYTES, RemoteRegion,
    limits,
};

mod common;
use common::Node;

#[test]
fn the_list_of_devices_has_what_can_be_opened() {
    let devices = tbrdma::devices();
    assert!(devices.iter().any(|device| device.name == "shm"));
    for device in &devices {
        assert!(!device.description.is_empty());
        assert_eq!(tbrdma::open(&device.name).unwrap().name(), device.name);
    }
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    for name in ["", "mlx5_0", "SHM", "shm0", "no such device"] {
        let error = tbrdma::open(name).unwrap_err();
        assert!(matches!(error, Error::NoSuchDevice { .. }), "{error}");
        assert_eq!(error.errno(), nix::libc::ENODEV);
        let text = error.to_string();
        assert!(text.contains(&format!("{name:?}")) && text.contains("shm"), "{text}");
    }
}

#[test]
fn a_device_says_what_it_can_do() {
    let ctx = tbrdma::open("shm").unwrap();
    let attr = ctx.query_device();
    assert_eq!((attr.phys_port_cnt, attr.max_sge), (1, limits::MAX_SGE));
    assert!(attr.max_sge >= 16 && attr.max_qp >= 10_000 && attr.max_inline_data >= 64);
    assert_ne!(attr.atomic_cap, AtomicCap::None);
    assert_ne!(attr.node_guid.0, 0);
    let port = ctx.query_port(1).unwrap();
    assert_eq!((port.state, port.active_mtu.bytes()), (PortState::Active, 4096));
    assert_eq!(ctx.profile().to_string(), "plain");
    // The port's addresses are those by which its queue pairs are reached.
    let node = Node::of(&ctx, QpType::Rc, |init| init);
    let address = node.qp.address();
    assert_eq!((address.gid, address.lid), (ctx.query_gid(1, 0).unwrap(), port.lid));
    assert_ne!(port.lid, 0);
    assert_eq!(ctx.query_gid(1, 1).unwrap(), Gid::default());
    assert_eq!(ctx.query_pkey(1, 0).unwrap(), 0xffff);
}

#[test]
fn ports_and_table_entries_that_are_not_there_are_errors() {
    let ctx = tbrdma::open("shm").unwrap();
    for port in [0, 2, 255] {
        assert!(ctx.query_port(port).unwrap_err().to_string().contains(&port.to_string()));
        assert!(ctx.query_gid(port, 0).is_err() && ctx.query_pkey(port, 0).is_err());
    }
    let port = ctx.query_port(1).unwrap();
    assert!(ctx.query_gid(1, port.gid_tbl_len - 1).is_ok());
    assert!(ctx.query_gid(1, port.gid_tbl_len).is_err() && ctx.query_gid(1, u32::MAX).is_err());
    assert!(ctx.query_pkey(1, port.pkey_tbl_len).is_err());
}

#[test]
fn every_context_has_a_name_of_its_own() {
    let contexts: Vec<_> = (0..50).map(|_| tbrdma::open("shm").unwrap()).collect();
    let gids: HashSet<_> = contexts.iter().map(|ctx| ctx.query_gid(1, 0).unwrap()).collect();
    let lids: HashSet<_> = contexts.iter().map(|ctx| ctx.query_port(1).unwrap().lid).collect();
    assert_eq!((gids.len(), lids.len()), (50, 50));
}

#[test]
fn opening_and_closing_many_times_leaves_nothing_open() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    let Ok(_) = descriptors() else {
        return common::skip("there is no /proc/self/fd");
    };
    let round = || {
        let (mut a, mut b) = common::pair("rc");
        b.post_recv(1, 0..8);
        a.post_send(2, 0..8);
        a.expect(2, tbrdma::WcStatus::Success);
        b.expect(1, tbrdma::WcStatus::Success);
    };
    round();
    // Other tests of this process open and close contexts meanwhile: compare over many rounds.
    let before = descriptors().unwrap();
    for _ in 0..200 {
        round();
    }
    common::eventually("descriptors to be closed", || descriptors().unwrap() < before + 200);
}

#[test]
fn addresses_survive_text_and_bytes() {
    let node = Node::new(QpType::Rc);
    let address = node.qp.address();
    assert_eq!(address.to_string().parse::<QpAddress>().unwrap(), address);
    assert_eq!(QpAddress::from_bytes(&address.to_bytes()), Some(address));
    let mut bytes = address.to_bytes();
    bytes[18] = 1;
    assert_eq!(QpAddress::from_bytes(&bytes), None, "a queue pair number of more than 24 bits");
    assert_eq!(bytes.len(), QP_ADDRESS_BYTES);
    for (text, part) in [
        ("", "GID"),
        ("fe80::1", "LID"),
        ("fe80::1/1", "QPN"),
        ("fe80::1/1/2", "PSN"),
        ("fe80::1/1/2/3/4", "end"),
        ("fe80::1/10000/2/3", "LID"),
        ("fe80::1/1/1000000/3", "QPN"),
        ("fe80::1/1/2/1000000", "PSN"),
        ("fe80::1/1/2/x", "PSN"),
        ("nonsense/1/2/3", "GID"),
    ] {
        let error = text.parse::<QpAddress>().unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn regions_survive_bytes() {
    let node = Node::new(QpType::Rc);
    let remote = node.mr.remote();
    let bytes: [u8; REMOTE_REGION_BYTES] = remote.to_bytes();
    assert_eq!(RemoteRegion::from_bytes(&bytes), remote);
    assert_eq!(remote.length, node.mr.len() as u64);
}

#[test]
fn queue_pair_numbers_are_not_used_again_at_once() {
    let node = Node::new(QpType::Rc);
    let mut seen = HashSet::new();
    for _ in 0..2000 {
        let qp = node.pd.create_qp(tbrdma::QpInit::rc(&node.cq)).unwrap();
        assert!(qp.qp_num().get() > 1);
        assert!(seen.insert(qp.qp_num()));
    }
}
