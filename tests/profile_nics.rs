//! Devices that pretend to be network cards: what they report, and what they refuse.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use nix::libc;
use tbrdma::{Context, OpenOptions, QpInit, QpType, WcStatus};

mod common;
use common::{Node, join};

fn open(profile: &str) -> Context {
    OpenOptions::new().profile(profile).open("shm").unwrap()
}

#[test]
fn names_and_numbers() {
    let connectx = open("connectx");
    assert_eq!(connectx.profile().to_string(), "connectx");
    let device = connectx.query_device();
    assert_eq!((device.vendor_id, device.vendor_part_id, device.max_sge), (0x02c9, 4119, 30));
    assert_eq!(device.fw_ver, "16.27.1016");
    assert_eq!(connectx.query_port(1).unwrap().max_msg_sz, 1 << 30);
    let rxe = open("rxe").query_device();
    assert_eq!((rxe.vendor_id, rxe.max_sge, rxe.max_cqe), (0x00ff_ffff, 32, 32_767));
    assert_ne!(rxe.node_guid.0, 0);
}

#[test]
fn more_than_the_device_has_is_refused_as_an_invalid_argument() {
    let ctx = open("connectx");
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(16).unwrap();
    for wrong in [
        QpInit::rc(&cq).max_send_sge(31),
        QpInit::rc(&cq).max_recv_sge(31),
        QpInit::rc(&cq).max_send_wr(16_385),
    ] {
        assert_eq!(pd.create_qp(wrong.clone()).unwrap_err().errno(), libc::EINVAL, "{wrong:?}");
    }
    assert!(pd.create_qp(QpInit::rc(&cq).max_send_sge(30).max_inline_data(512)).is_ok());
    assert_eq!(pd.create_srq(16, 32).unwrap_err().errno(), libc::EINVAL);
    assert!(pd.create_srq(16, 31).is_ok());
    let rxe = open("rxe");
    assert_eq!(rxe.create_cq(32_768).unwrap_err().errno(), libc::EINVAL);
    assert!(rxe.create_cq(32_767).is_ok());
    let pd = rxe.alloc_pd().unwrap();
    assert_eq!(pd.create_srq(16, 28).unwrap_err().errno(), libc::EINVAL);
}

#[test]
fn reads_outstanding_are_those_of_the_device() {
    let ctx = open("connectx");
    let (mut a, mut b) = (Node::of(&ctx, QpType::Rc, |init| init), Node::of(&ctx, QpType::Rc, |init| init));
    let with = common::connection(|with| with.max_rd_atomic = 17);
    assert_eq!(a.qp.connect_with(&b.qp.address(), &with).unwrap_err().errno(), libc::EINVAL);
    a.qp.reset().unwrap();
    join(&mut a, &mut b, &common::patient());
    b.post_recv(1, 0..8);
    a.post_send(2, 0..8);
    b.expect(1, WcStatus::Success);
}

#[test]
fn a_profile_that_makes_no_sense_is_refused_when_a_device_is_opened() {
    for text in ["mlx5", "plain,flow=never", "apple-tb5,qps=0"] {
        let error = OpenOptions::new().profile(text).open("shm").unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL, "{error}");
        assert!(error.to_string().contains("profile"), "{error}");
    }
}
