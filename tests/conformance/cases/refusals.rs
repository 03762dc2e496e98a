//! How wrong requests end, as programs written for adapters expect it: the errno of a call that is refused, the status of a work request
//! that fails, and the state and the events on either side.

use crate::case::cases;
use crate::common::{Node, all_access, connection, join, pair, pair_shaped, pair_with};
use nix::libc::{EINVAL, ENOMEM};
use tbrdma::{
    Access, AsyncEventKind, MrSlice, PostError, QpAttr, QpAttrMask, QpInit, QpState, QpType, RawSge, SendWrs,
    Sge, WcStatus,
};

cases! {
    States by "InfiniBand vol. 1, 10.3.1; ibv_post_send(3)" {
        a_state_that_takes_no_work_is_einval: "A state that takes no work refuses it with EINVAL; ERR takes all", needs [Rc, Uc, Ud];
    }
    Limits by "ibv_post_send(3), ibv_post_recv(3), ibv_post_srq_recv(3)" {
        a_full_queue_is_enomem_and_says_which_request_was_first: "A full queue is ENOMEM, at the request that did not fit", needs [Rc, Srq];
        lists_and_bytes_beyond_what_was_granted_are_einval: "Entries and inline bytes beyond what was granted are EINVAL", needs [Rc, Srq];
    }
    Errors by "InfiniBand vol. 1, 11.6.2" {
        an_operation_that_the_transport_does_not_have_is_einval:
            "An operation that the transport lacks is EINVAL", by "ibv_post_send(3)", needs [Uc, Ud];
        our_own_memory_at_fault_is_a_local_protection_error_and_nobody_elses: "Local memory at fault is the requester's error alone", needs [Rc, Atomics];
        the_peers_memory_at_fault_is_a_remote_access_error_on_both_sides: "Remote memory at fault is an error at both ends, with an event there", needs [Rc, Atomics];
        what_the_peer_cannot_accept_is_a_remote_invalid_request_on_both_sides: "What the responder cannot accept is an invalid request at both ends", needs [Rc, Atomics];
        a_receive_at_fault_is_a_remote_operation_error_there_and_a_local_one_here: "A receive at fault is the responder's local error, and the requester's remote one", needs [Rc];
        a_failure_flushes_what_follows_and_a_reset_starts_over: "After an error a queue pair is used again by way of RESET", by "InfiniBand vol. 1, 10.3.1", needs [Rc];
    }
    Objects by "ibv_create_qp(3), ibv_modify_qp(3), ibv_create_ah(3)" {
        arguments_that_make_no_sense_are_einval: "Arguments that make no sense are EINVAL, and nothing is made or changed", needs [Rc];
    }
}

fn errno(result: Result<(), PostError>) -> i32 {
    result.unwrap_err().errno()
}

fn to(state: QpState) -> QpAttr {
    QpAttr { qp_state: state, port_num: 1, ..QpAttr::default() }
}

fn a_state_that_takes_no_work_is_einval() {
    for qp_type in [QpType::Rc, QpType::Uc, QpType::Ud] {
        let mut node = Node::new(qp_type);
        let slice = node.mr.slice(0..8);
        assert_eq!(errno(node.qp.post_recv(|rq| _ = rq.recv(slice))), EINVAL);
        assert_eq!(errno(node.qp.post(|wr| _ = wr.send(slice))), EINVAL);
        let mut mask = QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT;
        mask |= if qp_type == QpType::Ud { QpAttrMask::QKEY } else { QpAttrMask::ACCESS_FLAGS };
        node.qp.modify(&to(QpState::Init), mask).unwrap();
        node.post_recv(1, 0..8);
        assert_eq!(errno(node.qp.post(|wr| _ = wr.send(slice))), EINVAL);
        // Back to the beginning it takes none again.
        node.qp.reset().unwrap();
        assert_eq!(errno(node.qp.post_recv(|rq| _ = rq.recv(slice))), EINVAL);
        // In ERR everything is taken, and flushed.
        node.qp.to_error().unwrap();
        node.post_recv(2, 0..8);
        node.expect(2, WcStatus::WrFlushErr);
        if qp_type != QpType::Ud {
            node.post_send(3, 0..8);
            node.expect(3, WcStatus::WrFlushErr);
        }
    }
}

fn a_full_queue_is_enomem_and_says_which_request_was_first() {
    let (mut a, mut b) = pair_shaped("rc", |init| init.max_send_wr(4).max_recv_wr(4));
    let (depth, slice) = (b.qp.cap().max_recv_wr as usize, b.mr.slice(0..8));
    let error = b.qp.post_recv(|rq| (0..=depth).for_each(|_| _ = rq.recv(slice))).unwrap_err();
    assert_eq!((error.errno(), error.index), (ENOMEM, depth));
    let depth = a.qp.cap().max_send_wr as usize;
    let from = a.mr.slice(0..8);
    let error = a.qp.post(|wr| (0..=depth).for_each(|_| _ = wr.send(from))).unwrap_err();
    assert_eq!((error.errno(), error.index), (ENOMEM, depth));
    let mut srq = a.pd.create_srq(4, 1).unwrap();
    let depth = srq.max_wr() as usize;
    let error = srq.post_recv(|rq| (0..=depth).for_each(|_| _ = rq.recv_nothing())).unwrap_err();
    assert_eq!((error.errno(), error.index), (ENOMEM, depth));
}

fn lists_and_bytes_beyond_what_was_granted_are_einval() {
    let (mut a, mut b) = pair("rc");
    let cap = a.qp.cap();
    let one = a.mr.slice(0..1);
    let many = |count: u32| vec![one; count as usize];
    assert_eq!(errno(a.qp.post(|wr| _ = wr.send(many(cap.max_send_sge + 1)))), EINVAL);
    assert_eq!(errno(b.qp.post_recv(|rq| _ = rq.recv(many(cap.max_recv_sge + 1)))), EINVAL);
    let bytes = vec![0; cap.max_inline_data as usize + 1];
    assert_eq!(errno(a.qp.post(|wr| _ = wr.send_inline(&bytes))), EINVAL);
    let mut srq = a.pd.create_srq(4, 2).unwrap();
    let too_many = many(srq.max_sge() + 1);
    assert_eq!(errno(srq.post_recv(|rq| _ = rq.recv(too_many))), EINVAL);
    // Nothing of that was posted.
    let remote = b.mr.remote().at(0);
    a.qp.post(|wr| _ = wr.write(one, remote).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
}

fn an_operation_that_the_transport_does_not_have_is_einval() {
    let (mut uc, _peer) = pair("uc");
    let (slice, remote) = (uc.mr.slice(0..8), uc.mr.remote().at(0));
    assert_eq!(errno(uc.qp.post(|wr| _ = wr.read(slice, remote))), EINVAL);
    assert_eq!(errno(uc.qp.post(|wr| _ = wr.fetch_and_add(slice, remote, 1))), EINVAL);
    assert_eq!(errno(uc.qp.post(|wr| _ = wr.send_with_inv(slice, 1))), EINVAL);
    let mut ud = Node::new(QpType::Ud);
    ud.qp.activate_ud(1).unwrap();
    let (slice, remote) = (ud.mr.slice(0..8), ud.mr.remote().at(0));
    assert_eq!(errno(ud.qp.post(|wr| _ = wr.write(slice, remote))), EINVAL);
    assert_eq!(errno(ud.qp.post(|wr| _ = wr.read(slice, remote))), EINVAL);
    assert_eq!(errno(ud.qp.post(|wr| _ = wr.send(slice))), EINVAL, "to nobody");
}

/// An entry with a key that is not the region's.
fn with_key(slice: MrSlice, lkey: u32) -> MrSlice {
    // SAFETY: there is no buffer in these tests.
    unsafe { RawSge::new(Sge { lkey, ..slice.sge() }) }.into()
}

/// Posts one request on a fresh pair: it ends so, both queue pairs in ERR or the peer's as it was, and the peer hears this.
#[track_caller]
fn ends(
    status: WcStatus,
    event: Option<AsyncEventKind>,
    post: impl FnOnce(&mut SendWrs<'_>, &Node, MrSlice, tbrdma::RemoteRegion),
) {
    ends_with(&connection(|_| ()), status, event, post);
}

#[track_caller]
fn ends_with(
    with: &tbrdma::Connection,
    status: WcStatus,
    event: Option<AsyncEventKind>,
    post: impl FnOnce(&mut SendWrs<'_>, &Node, MrSlice, tbrdma::RemoteRegion),
) {
    let (mut a, b) = pair_with("rc", |init| init, with);
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote());
    a.qp.post(|wr| post(wr, &b, slice, remote)).unwrap();
    let wc = a.one();
    assert_eq!((wc.status, wc.qp_num), (status, a.qp.qp_num()));
    a.await_state(QpState::Err);
    match event {
        Some(kind) => {
            b.expect_event(kind);
            b.await_state(QpState::Err);
        }
        None => {
            b.expect_no_event();
            assert_eq!(b.qp.state(), QpState::Rts);
        }
    }
    a.expect_no_event();
}

fn our_own_memory_at_fault_is_a_local_protection_error_and_nobody_elses() {
    use WcStatus::LocProtErr;
    for lkey in [0, 1, u32::MAX] {
        ends(LocProtErr, None, |wr, _, slice, _| _ = wr.send(with_key(slice, lkey)));
        ends(LocProtErr, None, |wr, _, slice, to| _ = wr.write(with_key(slice, lkey), to.at(0)));
        ends(LocProtErr, None, |wr, _, slice, to| _ = wr.read(with_key(slice, lkey), to.at(0)));
        ends(LocProtErr, None, |wr, _, slice, to| _ = wr.fetch_and_add(with_key(slice, lkey), to.at(0), 1));
        ends(LocProtErr, None, |wr, _, slice, to| {
            _ = wr.compare_and_swap(with_key(slice, lkey), to.at(0), 1, 2);
        });
    }
    // The right key's neighbour.
    ends(LocProtErr, None, |wr, _, slice, to| {
        _ = wr.fetch_and_add(with_key(slice, slice.sge().lkey + 1), to.at(0), 1);
    });
    // Data comes back into memory that may not be written.
    let (mut a, b) = pair("rc");
    let (read_only, remote) = (a.pd.alloc(64, Access::REMOTE_READ).unwrap(), b.mr.remote());
    a.qp.post(|wr| _ = wr.read(read_only.slice(0..8), remote.at(0)).id(1)).unwrap();
    a.expect(1, LocProtErr);
}

fn the_peers_memory_at_fault_is_a_remote_access_error_on_both_sides() {
    use WcStatus::RemAccessErr;
    let event = Some(AsyncEventKind::QpAccessErr);
    let wrong = |to: tbrdma::RemoteRegion| tbrdma::RemoteAddr { rkey: to.rkey + 1, addr: to.addr };
    ends(RemAccessErr, event, |wr, _, slice, to| _ = wr.write(slice, wrong(to)));
    ends(RemAccessErr, event, |wr, _, slice, to| _ = wr.read(slice, wrong(to)));
    ends(RemAccessErr, event, |wr, _, slice, to| _ = wr.fetch_and_add(slice, wrong(to), 1));
    ends(RemAccessErr, event, |wr, _, slice, to| _ = wr.write(slice, to.at(to.length - 7)));
    // Without bytes no key is looked at.
    let (mut a, b) = pair("rc");
    let (nothing, to) = (a.mr.slice(0..0), wrong(b.mr.remote()));
    a.qp.post(|wr| _ = wr.write(nothing, to).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
}

fn what_the_peer_cannot_accept_is_a_remote_invalid_request_on_both_sides() {
    use WcStatus::RemInvReqErr;
    let event = Some(AsyncEventKind::QpReqErr);
    // Atomics on an address that is no multiple of eight.
    for offset in 1..8 {
        ends(RemInvReqErr, event, |wr, _, slice, to| _ = wr.fetch_and_add(slice, to.at(offset), 1));
    }
    ends(RemInvReqErr, event, |wr, _, slice, to| _ = wr.compare_and_swap(slice, to.at(4), 1, 2));
    // Rights that its queue pair does not give.
    let none = connection(|with| with.access = Access::LOCAL_WRITE);
    ends_with(&none, RemInvReqErr, event, |wr, _, slice, to| _ = wr.write(slice, to.at(0)));
    ends_with(&none, RemInvReqErr, event, |wr, _, slice, to| _ = wr.read(slice, to.at(0)));
    ends_with(&none, RemInvReqErr, event, |wr, _, slice, to| _ = wr.fetch_and_add(slice, to.at(0), 1));
    // READs and atomics without resources for them.
    let no_depth = connection(|with| with.max_dest_rd_atomic = 0);
    ends_with(&no_depth, RemInvReqErr, event, |wr, _, slice, to| _ = wr.read(slice, to.at(0)));
    // A message that is longer than its receive.
    let (mut a, mut b) = pair("rc");
    b.post_recv(1, 0..4);
    a.post_send(2, 0..8);
    a.expect(2, RemInvReqErr);
    b.expect(1, WcStatus::LocLenErr);
    b.expect_event(AsyncEventKind::QpReqErr);
}

fn a_receive_at_fault_is_a_remote_operation_error_there_and_a_local_one_here() {
    let (mut a, mut b) = pair("rc");
    let wrong = with_key(b.mr.slice(0..8), 1);
    b.qp.post_recv(|rq| _ = rq.recv(wrong).id(1)).unwrap();
    a.post_send(2, 0..8);
    a.expect(2, WcStatus::RemOpErr);
    b.expect(1, WcStatus::LocProtErr);
    b.await_state(QpState::Err);
}

fn a_failure_flushes_what_follows_and_a_reset_starts_over() {
    let (mut a, mut b) = pair("rc");
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote());
    b.post_recv(9, 0..8);
    a.qp.post(|wr| {
        wr.write(slice, tbrdma::RemoteAddr { rkey: 0, addr: 0 }).id(1);
        wr.write(slice, remote.at(0)).id(2).unsignaled();
        wr.send(slice).id(3);
    })
    .unwrap();
    a.expect(1, WcStatus::RemAccessErr);
    a.expect(2, WcStatus::WrFlushErr);
    a.expect(3, WcStatus::WrFlushErr);
    b.expect(9, WcStatus::WrFlushErr);
    b.expect_event(AsyncEventKind::QpAccessErr);
    for node in [&mut a, &mut b] {
        node.qp.reset().unwrap();
        assert_eq!(node.qp.state(), QpState::Reset);
    }
    join(&mut a, &mut b, &connection(|_| ()));
    b.post_recv(4, 0..8);
    a.post_send(5, 0..8);
    a.expect(5, WcStatus::Success);
    b.expect(4, WcStatus::Success);
}

fn arguments_that_make_no_sense_are_einval() {
    let node = Node::new(QpType::Rc);
    let most = node.ctx.query_device();
    assert_eq!(node.ctx.create_cq(most.max_cqe + 1).unwrap_err().errno(), EINVAL);
    assert_eq!(node.ctx.create_cq(0).unwrap_err().errno(), EINVAL);
    assert_eq!(node.pd.create_srq(most.max_srq_wr + 1, 1).unwrap_err().errno(), EINVAL);
    assert_eq!(node.pd.alloc(64, Access::REMOTE_WRITE).unwrap_err().errno(), EINVAL);
    assert_eq!(node.pd.alloc(64, Access::REMOTE_ATOMIC).unwrap_err().errno(), EINVAL);
    assert_eq!(node.pd.alloc(0, all_access()).unwrap_err().errno(), EINVAL);
    for port in [0, 2, 255] {
        assert_eq!(node.ctx.query_port(port).unwrap_err().errno(), EINVAL);
        assert_eq!(node.ctx.query_pkey(port, 0).unwrap_err().errno(), EINVAL);
    }
    let gids = node.ctx.query_port(1).unwrap().gid_tbl_len;
    assert_eq!(node.ctx.query_gid(1, gids).unwrap_err().errno(), EINVAL);
    let over = |init: QpInit<'_>| node.pd.create_qp(init).unwrap_err().errno();
    assert_eq!(over(QpInit::ud(&node.cq).max_send_wr(u32::MAX)), EINVAL);
    assert_eq!(over(QpInit::ud(&node.cq).max_recv_wr(u32::MAX)), EINVAL);
    assert_eq!(over(QpInit::ud(&node.cq).max_send_sge(0xffff)), EINVAL);
    assert_eq!(over(QpInit::ud(&node.cq).max_recv_sge(0xffff)), EINVAL);
    assert_eq!(over(QpInit::ud(&node.cq).max_inline_data(u32::MAX)), EINVAL);
}
