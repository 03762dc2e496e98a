//! The limits: what is too large or too many is a typed error that says so, and nothing is lost by asking.

use crate::case::cases;
use crate::common;
use crate::common::{MEMORY, Node, all_access, pair};
use tbrdma::{Access, Error, PostErrorKind, PostRefusal, QpInit, QpType, WcStatus, limits};

cases! {
    Limits by "ibv_query_device(3)" {
        as_many_objects_as_the_device_says_can_be_made_and_made_again:
            "As many domains, completion queues and shared queues as the device says can be made, and one more cannot", needs [Srq, ReachableLimits];
        as_many_queue_pairs_as_the_device_says_can_be_made_and_made_again: "So with queue pairs, and the last works as the first", needs [Rc, ReachableLimits];
        as_many_regions_as_the_device_says_can_be_registered: "So with memory regions", needs [ReachableLimits];
        as_many_address_handles_as_the_device_says_can_be_made: "So with address handles", needs [Ud, ReachableLimits];
        sizes_beyond_the_limits_are_refused_and_say_the_limit: "A size beyond the device's limit is EINVAL, and the error says the limit", needs [Rc, Srq];
        the_largest_sizes_work: "Queues as deep as the device says work to their last place", needs [Rc, Srq];
        queue_pairs_of_no_size_are_granted_the_smallest_there_is: "A queue pair may be asked for without any depth", by "ibv_create_qp(3)", needs [Rc];
        sizes_of_a_receive_queue_mean_nothing_beside_a_shared_one:
            "With a shared receive queue, the sizes of the queue pair's own are ignored", by "ibv_create_qp(3)", needs [Rc, Srq];
        a_message_longer_than_the_port_allows_fails_when_it_is_sent: "A message longer than max_msg_sz is a local length error", by "ibv_query_port(3)", needs [Rc];
        lists_beyond_the_granted_length_are_refused_before_anything_happens: "A list longer than granted is refused before anything happens", by "ibv_post_send(3)", needs [Rc];
    }
}

/// Makes objects until there are no more; how many there were, and the error.
fn exhaust<T>(make: impl Fn() -> tbrdma::Result<T>, most: u32) -> (Vec<T>, Error) {
    let mut all = Vec::new();
    loop {
        assert!(all.len() <= most as usize, "more than {most} could be made");
        match make() {
            Ok(object) => all.push(object),
            Err(error) => return (all, error),
        }
    }
}

#[track_caller]
fn expect_limit(error: &Error, most: u32) {
    assert_eq!(error.errno(), nix::libc::ENOMEM);
    let says = matches!(error, Error::LimitReached { limit, .. } if *limit == u64::from(most));
    assert!(common::on_native() || says && error.to_string().contains(&most.to_string()), "{error}");
}

fn as_many_objects_as_the_device_says_can_be_made_and_made_again() {
    let ctx = common::open().unwrap();
    let attr = ctx.query_device();
    for _ in 0..2 {
        let (pds, error) = exhaust(|| ctx.alloc_pd(), attr.max_pd);
        assert_eq!(pds.len(), attr.max_pd as usize);
        expect_limit(&error, attr.max_pd);
    }
    let pd = ctx.alloc_pd().unwrap();
    for _ in 0..2 {
        let (cqs, error) = exhaust(|| ctx.create_cq(1), attr.max_cq);
        assert_eq!(cqs.len(), attr.max_cq as usize);
        expect_limit(&error, attr.max_cq);
        let (srqs, error) = exhaust(|| pd.create_srq(1, 1), attr.max_srq);
        assert_eq!(srqs.len(), attr.max_srq as usize);
        expect_limit(&error, attr.max_srq);
    }
}

fn as_many_queue_pairs_as_the_device_says_can_be_made_and_made_again() {
    let ctx = common::open().unwrap();
    let most = ctx.query_device().max_qp;
    let pd = ctx.alloc_pd().unwrap();
    let cqs: Vec<_> = (0..64).map(|_| ctx.create_cq(1).unwrap()).collect();
    for _ in 0..2 {
        let turn = std::cell::Cell::new(0);
        let (mut qps, error) = exhaust(
            || {
                turn.set((turn.get() + 1) % cqs.len());
                pd.create_qp(QpInit::rc(&cqs[turn.get()]).max_send_wr(1).max_recv_wr(1))
            },
            most,
        );
        assert_eq!(qps.len(), most as usize);
        expect_limit(&error, most);
        // The last one works like the first.
        let mut last = qps.pop().unwrap();
        last.connect_with(&last.address(), &common::patient()).unwrap();
        last.post_recv(|rq| _ = rq.recv_nothing()).unwrap();
        last.post(|wr| _ = wr.send_inline(b"").unsignaled()).unwrap();
        common::next_of(last.recv_cq()).ok().unwrap();
    }
}

fn as_many_regions_as_the_device_says_can_be_registered() {
    let ctx = common::open().unwrap();
    let most = ctx.query_device().max_mr;
    let pd = ctx.alloc_pd().unwrap();
    for _ in 0..2 {
        let (regions, error) = exhaust(|| pd.register(vec![7_u8; 1], Access::empty()), most);
        assert_eq!(regions.len(), most as usize);
        let says = matches!(error, Error::Register { .. }) && error.to_string().contains("memory regions");
        assert!(common::on_native() || says, "{error}");
        assert_eq!(error.errno(), nix::libc::ENOMEM);
        assert!(pd.alloc(4096, Access::empty()).is_err());
        assert!(pd.alloc_buffer(4096).is_err());
    }
    assert!(pd.alloc(4096, all_access()).is_ok());
}

fn as_many_address_handles_as_the_device_says_can_be_made() {
    let node = Node::new(QpType::Ud);
    let most = node.ctx.query_device().max_ah;
    let peer = node.qp.address();
    for _ in 0..2 {
        let (handles, error) = exhaust(|| node.pd.create_ah_to(&peer), most);
        assert_eq!(handles.len(), most as usize);
        expect_limit(&error, most);
    }
}

fn sizes_beyond_the_limits_are_refused_and_say_the_limit() {
    let node = Node::new(QpType::Rc);
    let invalid = |error: Error, limit: u64| {
        assert_eq!(error.errno(), nix::libc::EINVAL);
        let says =
            matches!(error, Error::InvalidArgument { .. }) && error.to_string().contains(&limit.to_string());
        assert!(common::on_native() || says, "{error}");
    };
    let qp = |init: QpInit<'_>| node.pd.create_qp(init).unwrap_err();
    let init = || QpInit::rc(&node.cq);
    invalid(qp(init().max_send_wr(limits::MAX_QP_WR + 1)), limits::MAX_QP_WR.into());
    invalid(qp(init().max_recv_wr(u32::MAX)), limits::MAX_QP_WR.into());
    invalid(qp(init().max_send_sge(limits::MAX_SGE + 1)), limits::MAX_SGE.into());
    invalid(qp(init().max_recv_sge(limits::MAX_SGE + 1)), limits::MAX_SGE.into());
    invalid(qp(init().max_inline_data(limits::MAX_INLINE_DATA + 1)), limits::MAX_INLINE_DATA.into());
    for cqe in [0, limits::MAX_CQE + 1, u32::MAX] {
        invalid(node.ctx.create_cq(cqe).unwrap_err(), limits::MAX_CQE.into());
    }
    for (wr, sge) in [(0, 1), (limits::MAX_SRQ_WR + 1, 1), (1, limits::MAX_SRQ_SGE + 1)] {
        invalid(node.pd.create_srq(wr, sge).unwrap_err(), limits::MAX_SRQ_WR.into());
    }
    for len in [0, limits::MAX_MR_SIZE as usize + 1, usize::MAX] {
        invalid(node.pd.alloc(len, all_access()).unwrap_err(), limits::MAX_MR_SIZE);
    }
    invalid(node.pd.alloc_buffer(0).unwrap_err(), limits::MAX_MR_SIZE);
    invalid(node.pd.register(Vec::new(), all_access()).unwrap_err(), limits::MAX_MR_SIZE);
}

fn the_largest_sizes_work() {
    let largest = |node: &mut Node| {
        // Room for all of them.
        node.cq = node.ctx.create_cq(limits::MAX_QP_WR).unwrap();
        let init = QpInit::rc(&node.cq)
            .max_send_wr(limits::MAX_QP_WR)
            .max_recv_wr(limits::MAX_QP_WR)
            .max_send_sge(limits::MAX_SGE)
            .max_recv_sge(limits::MAX_SGE)
            .max_inline_data(limits::MAX_INLINE_DATA);
        node.qp = node.pd.create_qp(init).unwrap();
    };
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    largest(&mut a);
    largest(&mut b);
    common::join(&mut a, &mut b, &common::patient());
    b.qp.post_recv(|rq| (0..limits::MAX_QP_WR).for_each(|id| _ = rq.recv_nothing().id(id.into()))).unwrap();
    a.qp.post(|wr| (0..limits::MAX_QP_WR).for_each(|id| _ = wr.send_inline(b"").id(id.into()))).unwrap();
    assert!(a.qp.post(|wr| _ = wr.send_inline(b"")).is_err());
    for id in 0..limits::MAX_QP_WR {
        a.expect(id.into(), WcStatus::Success);
        b.expect(id.into(), WcStatus::Success);
    }
    assert!(a.ctx.create_cq(limits::MAX_CQE).is_ok());
    assert!(a.pd.create_srq(limits::MAX_SRQ_WR, limits::MAX_SRQ_SGE).is_ok());
}

fn queue_pairs_of_no_size_are_granted_the_smallest_there_is() {
    let node =
        Node::with(QpType::Rc, |init| init.max_send_wr(0).max_recv_wr(0).max_send_sge(0).max_recv_sge(0));
    let cap = node.qp.cap();
    assert!(cap.max_send_wr <= 1 && cap.max_recv_wr <= 1, "{cap:?}");
}

fn sizes_of_a_receive_queue_mean_nothing_beside_a_shared_one() {
    {
        let ctx = common::open().unwrap();
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(1).unwrap();
        let srq = pd.create_srq(1, 1).unwrap();
        let init = QpInit::rc(&cq).srq(&srq).max_recv_wr(u32::MAX).max_recv_sge(u32::MAX);
        let cap = pd.create_qp(init).unwrap().cap();
        assert_eq!((cap.max_recv_wr, cap.max_recv_sge), (0, 0));
    }
}

fn a_message_longer_than_the_port_allows_fails_when_it_is_sent() {
    let (mut a, mut b) = pair("rc");
    let large = a.pd.alloc(1 << 31, Access::empty()).unwrap();
    b.post_recv(1, 0..8);
    let (whole, one) = (large.slice(..), large.slice(0..1));
    a.qp.post(|wr| _ = wr.send([whole, one]).id(2)).unwrap();
    a.expect(2, WcStatus::LocLenErr);
    b.expect_nothing();
}

fn lists_beyond_the_granted_length_are_refused_before_anything_happens() {
    let (mut a, b) = pair("rc");
    let max = a.qp.cap().max_send_sge;
    let (one, remote) = (a.mr.slice(0..1), b.mr.remote().at(0));
    a.fill(0..1, 5);
    a.qp.post(|wr| _ = wr.write(vec![one; max as usize], remote).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    let error = a.qp.post(|wr| _ = wr.write(vec![one; max as usize + 1], remote)).unwrap_err();
    let PostRefusal::WorkRequest(kind) = &error.reason else { unreachable!("{error}") };
    assert_eq!(*kind, PostErrorKind::TooManySges { count: max + 1, max });
    assert_eq!(error.errno(), nix::libc::EINVAL);
    assert_eq!(b.bytes(0..max as usize + 1)[..max as usize], vec![5; max as usize]);
    assert_eq!(b.bytes(max as usize..max as usize + 1), [0]);
    assert_eq!(MEMORY, a.mr.len());
}
