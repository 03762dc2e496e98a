//! How much there is of everything on a Mac's Thunderbolt port, and how one too many is refused.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use nix::libc;
use tbrdma::{Access, Error, LinkLayer, MwType, QpInit, QpType, Result};

mod common;
use common::all_access;
use common::apple::{BACKENDS, again, open, pair_shaped};

/// Makes objects until one is refused: all of them, and the refusal.
fn exhaust<T>(mut make: impl FnMut() -> Result<T>) -> (Vec<T>, Error) {
    let mut all = Vec::new();
    loop {
        match make() {
            Ok(one) => all.push(one),
            Err(error) => return (all, error),
        }
        assert!(all.len() < 1000, "no end of them");
    }
}

#[test]
fn ten_queue_pairs_of_eleven_then_busy() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let ctx = open(backend, "apple-tb5");
        assert_eq!(ctx.query_device().max_qp, 11);
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(16).unwrap();
        let (mut qps, error) = exhaust(|| pd.create_qp(QpInit::uc(&cq)));
        assert_eq!((qps.len(), error.errno()), (10, libc::EBUSY), "{backend}: {error}");
        // One that goes makes room for one.
        qps.pop();
        assert!(pd.create_qp(QpInit::uc(&cq)).is_ok());
    }
}

#[test]
fn the_device_is_one_for_all_who_open_it() {
    let _alone = common::alone();
    let contexts =
        [again("shared_port", "shm", "apple-tb5,qps=3"), again("shared_port", "shm", "apple-tb5,qps=3")];
    let ends = contexts.each_ref().map(|ctx| (ctx.alloc_pd().unwrap(), ctx.create_cq(16).unwrap()));
    let _first: Vec<_> = (0..2).map(|_| ends[0].0.create_qp(QpInit::uc(&ends[0].1)).unwrap()).collect();
    let (rest, error) = exhaust(|| ends[1].0.create_qp(QpInit::uc(&ends[1].1)));
    assert_eq!((rest.len(), error.errno()), (1, libc::EBUSY));
}

#[test]
fn a_hundred_regions_then_no_memory() {
    let _alone = common::alone();
    let ctx = open("shm", "apple-tb5");
    let pd = ctx.alloc_pd().unwrap();
    // Allocated, registered and lent ones are all regions.
    let kept = (pd.register(vec![0; 16], all_access()).unwrap(), pd.alloc_buffer(16).unwrap());
    let (regions, error) = exhaust(|| pd.alloc(16, all_access()));
    assert_eq!((regions.len(), error.errno()), (98, libc::ENOMEM), "{error}");
    drop(kept);
    assert!(pd.alloc(16, all_access()).is_ok());
}

#[test]
fn eleven_domains_and_eleven_completion_queues() {
    let _alone = common::alone();
    let ctx = open("shm", "apple-tb5");
    let (pds, error) = exhaust(|| ctx.alloc_pd());
    assert_eq!((pds.len(), error.errno()), (11, libc::ENOMEM), "{error}");
    let (cqs, error) = exhaust(|| ctx.create_cq(16));
    assert_eq!((cqs.len(), error.errno()), (11, libc::ENOMEM), "{error}");
    drop((pds, cqs));
    assert!(ctx.alloc_pd().is_ok() && ctx.create_cq(16).is_ok());
}

#[test]
fn only_unreliable_connections_exist() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let ctx = open(backend, "apple-tb5");
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(16).unwrap();
        for qp_type in [QpType::Rc, QpType::Ud] {
            let error = pd.create_qp(QpInit::new(qp_type, &cq)).unwrap_err();
            assert_eq!(error.errno(), libc::EOPNOTSUPP, "{error}");
        }
        assert_eq!(pd.alloc_mw(MwType::Type1).unwrap_err().errno(), libc::EOPNOTSUPP);
        assert_eq!(pd.create_srq(1, 1).unwrap_err().errno(), libc::EOPNOTSUPP);
        assert!(pd.create_qp(QpInit::uc(&cq)).is_ok());
    }
}

#[test]
fn one_entry_and_no_inline_bytes() {
    let _alone = common::alone();
    let ctx = open("shm", "apple-tb5");
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(16).unwrap();
    let one = || QpInit::uc(&cq);
    for wrong in [
        one().max_send_sge(2),
        one().max_recv_sge(2),
        one().max_inline_data(1),
        one().max_send_wr(4096),
        one().max_recv_wr(4096),
    ] {
        let error = pd.create_qp(wrong.clone()).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL, "{wrong:?}: {error}");
    }
    let cap = pd.create_qp(one()).unwrap().cap();
    assert_eq!((cap.max_send_sge, cap.max_recv_sge, cap.max_inline_data), (1, 1, 0));
}

#[test]
fn depths_are_granted_in_frames_and_read_back() {
    let _alone = common::alone();
    let (a, _b) = pair_shaped("shm", "", |init| init.max_send_wr(32).max_recv_wr(1024));
    let asked = a.qp.query().cap;
    assert_eq!((asked.max_send_wr, asked.max_recv_wr), (1023, 2047));
    assert_eq!(a.qp.cap(), asked);
    let (a, _b) = pair_shaped("udp:lo", "rounding=off", |init| init.max_send_wr(64).max_recv_wr(64));
    assert_eq!((a.qp.cap().max_send_wr, a.qp.cap().max_recv_wr), (63, 63));
}

#[test]
fn what_the_device_and_its_port_report() {
    let _alone = common::alone();
    for backend in BACKENDS {
        let ctx = open(backend, "apple-tb5");
        let device = ctx.query_device();
        assert_eq!((device.vendor_id, device.vendor_part_id, device.max_mr_size), (0, 0, 16_384_000));
        assert_eq!((device.max_qp_wr, device.max_srq, device.max_qp_rd_atom), (4095, 0, 0));
        let port = ctx.query_port(1).unwrap();
        assert_eq!((port.link_layer, port.active_mtu.bytes()), (LinkLayer::Thunderbolt, 4096), "{backend}");
        assert_eq!((port.link_layer.raw(), port.max_msg_sz), (100, 16_773_120));
    }
}

#[test]
fn a_region_may_be_larger_where_the_bound_is_only_reported() {
    let _alone = common::alone();
    let (strict, lax) = (open("shm", "apple-tb5"), open("shm", "apple-tb5,mr-size=reported"));
    let pds = [&strict, &lax].map(|ctx| ctx.alloc_pd().unwrap());
    let error = pds[0].alloc(16_384_001, all_access()).unwrap_err();
    assert_eq!(error.errno(), libc::EINVAL, "{error}");
    assert!(pds[0].alloc(16_384_000, all_access()).is_ok());
    assert!(pds[1].alloc(1 << 30, all_access()).is_ok());
}

#[test]
fn local_writing_alone_is_allowed_or_refused() {
    let _alone = common::alone();
    let (allows, refuses) = (open("shm", "apple-tb5"), open("shm", "apple-tb5,local-only-mr=refused"));
    let pds = [&allows, &refuses].map(|ctx| ctx.alloc_pd().unwrap());
    assert!(pds[0].alloc(16, Access::LOCAL_WRITE).is_ok());
    assert_eq!(pds[1].alloc(16, Access::LOCAL_WRITE).unwrap_err().errno(), libc::EINVAL);
    assert!(pds[1].alloc(16, Access::LOCAL_WRITE | Access::REMOTE_READ).is_ok());
}

#[test]
fn remote_keys_are_zero() {
    let _alone = common::alone();
    let ctx = open("shm", "apple-tb5");
    let pd = ctx.alloc_pd().unwrap();
    assert_eq!(pd.alloc(16, all_access()).unwrap().rkey(), 0);
}
