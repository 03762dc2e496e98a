//! Traps of a Mac's Thunderbolt port that are switches: when receives may be posted, addresses past 4 GiB, GIDs that come and go.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use nix::libc;
use tbrdma::{Gid, MemoryRegion, PostRefusal, QpAttr, QpAttrMask, QpState, QpType, WcStatus};

mod common;
use common::apple::{BACKENDS, apple, open, pair};
use common::{Node, connection};

#[test]
fn receives_before_rts_are_taken_or_are_bad_addresses() {
    let _alone = common::alone();
    for (switches, allowed) in [("", true), ("early-recv=refused", false)] {
        let (a, b) = (open("shm", &apple(switches)), open("shm", &apple(switches)));
        let mut nodes = [a, b].map(|ctx| Node::of(&ctx, QpType::Uc, |init| init));
        let address = nodes[1].qp.address();
        let [a, _] = &mut nodes;
        let slice = a.mr.slice(0..64);
        let attr = QpAttr { qp_state: QpState::Init, port_num: 1, ..QpAttr::default() };
        let mask = QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT | QpAttrMask::ACCESS_FLAGS;
        a.qp.modify(&attr, mask).unwrap();
        let early = a.qp.post_recv(|rq| _ = rq.recv(slice).id(1));
        assert_eq!(early.is_ok(), allowed);
        if let Err(error) = early {
            assert_eq!(error.errno(), libc::EFAULT, "{error}");
            assert!(matches!(error.reason, PostRefusal::TooEarly(_)));
        }
        a.qp.reset().unwrap();
        a.qp.connect_with(&address, &common::patient()).unwrap();
        a.post_recv(2, 0..64);
    }
}

/// A region that a multiple of 4 GiB lies in, and how far into it that is.
fn crossing(node: &Node) -> (MemoryRegion, usize) {
    let region = node.pd.alloc((1 << 32) + (1 << 20), common::all_access()).unwrap();
    let into = (1_u64 << 32) - (region.addr() & 0xffff_ffff);
    (region, into as usize)
}

#[test]
fn an_entry_past_4_gib_is_as_any_other_unless_the_switch_is_on() {
    let _alone = common::alone();
    for (switches, aliased) in [("mr-size=reported", false), ("mr-size=reported,alias-4gib=on", true)] {
        let (mut a, mut b) = pair("shm", switches);
        let (region, boundary) = crossing(&b);
        if boundary + 8192 > region.len() || boundary < 4096 {
            return common::skip("the region begins too near a multiple of 4 GiB");
        }
        a.fill(0..4096, 7);
        for (begin, past) in [(boundary + 64, 4096), (boundary - 1024, 3072), (boundary - 4096, 0)] {
            let to = region.slice(begin..begin + 4096);
            b.qp.post_recv(|rq| _ = rq.recv(to).id(1)).unwrap();
            a.post_send(2, 0..4096);
            a.expect(2, WcStatus::Success);
            // Nobody is told.
            assert_eq!(b.expect(1, WcStatus::Success).byte_len, 4096);
            let mut bytes = vec![0; 4096];
            region.read(begin, &mut bytes);
            let missing = bytes.iter().filter(|byte| **byte != 7).count();
            assert_eq!(missing, if aliased { past } else { 0 }, "from {begin:#x}");
            region.write(begin, &[0; 4096]);
        }
    }
}

#[test]
fn entries_past_4_gib_can_be_found_by_refusing_them() {
    let _alone = common::alone();
    let (mut a, _b) = pair("shm", "mr-size=reported,alias-4gib=refused");
    let (region, boundary) = crossing(&a);
    if boundary + 64 > region.len() || boundary < 64 {
        return common::skip("the region begins too near a multiple of 4 GiB");
    }
    let (good, bad) = (region.slice(boundary - 64..boundary), region.slice(boundary - 32..boundary + 32));
    let error =
        a.qp.post(|wr| {
            wr.send(good).id(1);
            wr.send(bad).id(2);
        })
        .unwrap_err();
    assert_eq!((error.index, error.errno()), (1, libc::EINVAL), "{error}");
}

/// Whether a GID stands for an IPv4 address.
fn is_ipv4(gid: &Gid) -> bool {
    gid.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
}

#[test]
fn the_second_gid_is_ipv4_mapped_and_leads_to_the_port() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let (a, b) = (open(backend, "apple-tb5"), open(backend, "apple-tb5"));
        let mut nodes = [a, b].map(|ctx| Node::of(&ctx, QpType::Uc, |init| init));
        let gids = nodes.each_ref().map(|node| node.ctx.query_gid(1, 1).unwrap());
        assert!(gids.iter().all(is_ipv4), "{backend}: {gids:?}");
        let by_ipv4 = connection(|with| with.sgid_index = Some(1));
        let addresses = nodes.each_ref().map(|node| node.qp.address());
        for (from, to) in [(0, 1), (1, 0)] {
            let address = tbrdma::QpAddress { gid: gids[to], lid: 0, ..addresses[to] };
            nodes[from].qp.connect_with(&address, &by_ipv4).unwrap();
        }
        let [a, b] = &mut nodes;
        b.post_recv(1, 0..64);
        a.post_send(2, 0..64);
        b.expect(1, WcStatus::Success);
    }
}

#[test]
fn without_an_ipv4_address_there_is_no_second_gid() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let mut node = Node::of(&open(backend, "apple-tb5,ipv4=off"), QpType::Uc, |init| init);
        assert!(node.ctx.query_gid(1, 1).unwrap().is_zero(), "{backend}");
        let by_ipv4 = connection(|with| with.sgid_index = Some(1));
        let itself = node.qp.address();
        let error = node.qp.connect_with(&itself, &by_ipv4).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL, "{error}");
        assert!(error.to_string().contains("holds no GID"), "{error}");
    }
}
