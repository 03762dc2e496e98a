//! The states of a queue pair: what may be posted in each, how it gets from one to the next, and how draining works.

use crate::case::cases;
use crate::common;
use crate::common::{Node, connection, eventually, pair, pair_with};
use nix::libc::EINVAL;
use tbrdma::{
    AsyncEventKind, Error, ModifyError, PostRefusal, QpAttr, QpAttrMask, QpInit, QpState, QpType, WcStatus,
};

cases! {
    States by "InfiniBand vol. 1, 10.3.1; ibv_modify_qp(3)" {
        posting_is_refused_until_the_state_allows_it: "RESET takes no work, INIT and RTR take receives, RTS takes all", needs [Rc];
        a_queue_pair_that_is_ready_to_receive_receives: "A queue pair in RTR receives, and does not send", needs [Rc];
        errors_of_modify_say_what_is_missing_and_change_nothing: "A transition without its attributes is refused, and changes nothing", needs [Rc];
        a_wrong_belief_about_the_current_state_is_refused: "A wrong current state among the attributes is refused", needs [Rc];
        attributes_can_be_queried_and_changed_later: "Attributes are reported as they were set, and some may be changed in RTS", by "ibv_query_qp(3)", needs [Rc];
        a_drained_send_queue_holds_what_is_posted_and_goes_on_later: "SQD holds what is posted, and RTS goes on with it", needs [Rc];
        draining_ends_what_has_begun_and_says_so: "Draining ends what has begun, and says so by an event when asked to", needs [Rc];
        a_drained_queue_pair_can_be_flushed_and_reset: "From SQD the way to ERR and to RESET is open", needs [Rc];
        every_state_leads_to_the_error_state_and_back_to_reset: "Every state leads to ERR, and ERR to RESET", needs [Rc];
    }
    Objects by "ibv_create_qp(3)" {
        a_queue_pair_of_two_contexts_is_refused: "A queue pair's objects are of one context", needs [Rc];
        a_new_queue_pair_is_in_reset_and_prints_what_it_is: "A new queue pair is in RESET, with at least what was asked for", needs [Uc];
    }
}

const INIT: QpAttrMask =
    QpAttrMask::STATE.union(QpAttrMask::PKEY_INDEX).union(QpAttrMask::PORT).union(QpAttrMask::ACCESS_FLAGS);

fn to(state: QpState) -> QpAttr {
    QpAttr { qp_state: state, port_num: 1, ..QpAttr::default() }
}

/// Why our own devices refuse this; others say EINVAL and no more.
#[track_caller]
fn refused(result: tbrdma::Result<()>, because: impl Fn(&ModifyError) -> bool) {
    let error = result.unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    let text = error.to_string();
    assert!(text.contains("modify_qp"), "{text}");
    let says = matches!(&error, Error::Modify { source, .. } if because(source));
    assert!(common::on_native() || says, "{text}");
}

fn posting_is_refused_until_the_state_allows_it() {
    let (mut a, b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let slice = a.mr.slice(0..8);
    let error = a.qp.post_recv(|rq| _ = rq.recv(slice)).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(common::on_native() || matches!(error.reason, PostRefusal::State(QpState::Reset)), "{error}");
    assert_eq!((error.index, error.qp_num), (0, a.qp.qp_num()));
    let error = a.qp.post(|wr| _ = wr.send(slice)).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(common::on_native() || matches!(error.reason, PostRefusal::State(QpState::Reset)), "{error}");

    a.qp.modify(&to(QpState::Init), INIT).unwrap();
    a.post_recv(1, 0..8);
    let error = a.qp.post(|wr| _ = wr.send(slice)).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(common::on_native() || matches!(error.reason, PostRefusal::State(QpState::Init)), "{error}");

    let (attr, mask) = common::to_rtr(&a, &b.qp.address());
    a.qp.modify(&attr, mask).unwrap();
    a.post_recv(2, 0..8);
    let error = a.qp.post(|wr| _ = wr.send(slice)).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(common::on_native() || matches!(error.reason, PostRefusal::State(QpState::Rtr)), "{error}");
    assert_eq!(a.qp.state(), QpState::Rtr);
    a.expect_nothing();
}

fn a_queue_pair_that_is_ready_to_receive_receives() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    b.qp.modify(&to(QpState::Init), INIT).unwrap();
    b.post_recv(1, 0..8);
    b.post_recv(2, 0..8);
    let (attr, mask) = common::to_rtr(&b, &a.qp.address());
    b.qp.modify(&attr, mask).unwrap();
    a.qp.connect_with(&b.qp.address(), &common::patient()).unwrap();
    a.post_send(3, 0..8);
    a.expect(3, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    assert_eq!(b.qp.state(), QpState::Rtr);
}

fn errors_of_modify_say_what_is_missing_and_change_nothing() {
    let mut a = Node::new(QpType::Rc);
    let contains =
        |error: &ModifyError, parts: &[&str]| parts.iter().all(|part| error.to_string().contains(part));
    refused(a.qp.modify(&to(QpState::Init), QpAttrMask::STATE | QpAttrMask::PORT), |error| {
        matches!(error, ModifyError::MissingAttributes { .. })
            && contains(error, &["PKEY_INDEX", "ACCESS_FLAGS", "RESET", "INIT"])
    });
    refused(a.qp.modify(&to(QpState::Rts), QpAttrMask::STATE), |error| {
        matches!(error, ModifyError::IllegalTransition { .. }) && contains(error, &["INIT"])
    });
    refused(a.qp.modify(&to(QpState::Init), INIT | QpAttrMask::SQ_PSN), |error| contains(error, &["SQ_PSN"]));
    refused(a.qp.modify(&QpAttr { port_num: 2, ..to(QpState::Init) }, INIT), |error| {
        matches!(error, ModifyError::OutOfRange { attribute: "port_num", value: 2, .. })
    });
    assert_eq!(a.qp.state(), QpState::Reset);
    assert_eq!(a.qp.query().qp_access_flags, tbrdma::Access::empty());
}

fn a_wrong_belief_about_the_current_state_is_refused() {
    let (mut a, _b) = pair("rc");
    let attr = QpAttr { cur_qp_state: QpState::Sqd, ..to(QpState::Rts) };
    let error = a.qp.modify(&attr, QpAttrMask::STATE | QpAttrMask::CUR_STATE).unwrap_err();
    assert_eq!(error.errno(), EINVAL);
    assert!(common::on_native() || error.to_string().contains("cur_qp_state"), "{error}");
    let attr = QpAttr { cur_qp_state: QpState::Rts, ..to(QpState::Rts) };
    a.qp.modify(&attr, QpAttrMask::STATE | QpAttrMask::CUR_STATE).unwrap();
}

fn attributes_can_be_queried_and_changed_later() {
    let with = connection(|with| (with.min_rnr_timer, with.timeout) = (9, 15));
    let (mut a, mut b) = pair_with("rc", |init| init, &with);
    let attr = a.qp.query();
    assert_eq!((attr.qp_state, attr.cur_qp_state), (QpState::Rts, QpState::Rts));
    assert_eq!((attr.dest_qp_num, attr.min_rnr_timer, attr.timeout), (b.qp.qp_num(), 9, 15));
    assert_eq!((attr.sq_psn, attr.rq_psn), (a.qp.address().psn, b.qp.address().psn));
    assert_eq!(attr.cap, a.qp.cap());
    // Rights are taken away from a running connection.
    let attr = QpAttr { qp_access_flags: tbrdma::Access::empty(), min_rnr_timer: 3, ..QpAttr::default() };
    b.qp.modify(&attr, QpAttrMask::ACCESS_FLAGS | QpAttrMask::MIN_RNR_TIMER).unwrap();
    assert_eq!(b.qp.query().min_rnr_timer, 3);
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote().at(0));
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::RemInvReqErr);
}

fn a_drained_send_queue_holds_what_is_posted_and_goes_on_later() {
    let (mut a, mut b) = pair("rc");
    a.qp.modify(
        &QpAttr { en_sqd_async_notify: true, ..to(QpState::Sqd) },
        QpAttrMask::STATE | QpAttrMask::EN_SQD_ASYNC_NOTIFY,
    )
    .unwrap();
    a.expect_event(AsyncEventKind::SqDrained);
    assert!(!a.qp.query().sq_draining);
    for id in 0..3 {
        b.post_recv(id, 0..8);
        a.post_send(id, 0..8);
    }
    a.expect_nothing();
    b.expect_nothing();
    // Receiving goes on.
    a.post_recv(9, 0..8);
    b.post_send(9, 0..8);
    b.expect(9, WcStatus::Success);
    a.expect(9, WcStatus::Success);
    a.qp.modify(&to(QpState::Rts), QpAttrMask::STATE).unwrap();
    for id in 0..3 {
        a.expect(id, WcStatus::Success);
        b.expect(id, WcStatus::Success);
    }
}

fn draining_ends_what_has_begun_and_says_so() {
    let (mut a, mut b) = pair_with("rc", |init| init, &connection(|with| with.rnr_retry = 7));
    // Begun: it waits for a receive. One behind it may have begun too, if a packet of it has left.
    a.post_send(1, 0..8);
    if common::on_shm() {
        a.post_send(2, 0..8);
    }
    a.qp.modify(
        &QpAttr { en_sqd_async_notify: true, ..to(QpState::Sqd) },
        QpAttrMask::STATE | QpAttrMask::EN_SQD_ASYNC_NOTIFY,
    )
    .unwrap();
    assert!(a.qp.query().sq_draining);
    a.expect_no_event();
    if !common::on_shm() {
        // What is posted now has certainly not begun.
        a.post_send(2, 0..8);
    }
    b.post_recv(3, 0..8);
    b.post_recv(4, 0..8);
    a.expect(1, WcStatus::Success);
    b.expect(3, WcStatus::Success);
    a.expect_event(AsyncEventKind::SqDrained);
    eventually("the end of draining", || !a.qp.query().sq_draining);
    a.expect_nothing();
    a.qp.modify(&to(QpState::Rts), QpAttrMask::STATE).unwrap();
    a.expect(2, WcStatus::Success);
    b.expect(4, WcStatus::Success);
    a.expect_no_event();
}

fn a_drained_queue_pair_can_be_flushed_and_reset() {
    for reset in [false, true] {
        let (mut a, _b) = pair("rc");
        a.qp.modify(&to(QpState::Sqd), QpAttrMask::STATE).unwrap();
        a.post_send(1, 0..8);
        if reset {
            a.qp.reset().unwrap();
        } else {
            a.qp.to_error().unwrap();
            a.expect(1, WcStatus::WrFlushErr);
        }
        a.expect_nothing();
    }
}

fn every_state_leads_to_the_error_state_and_back_to_reset() {
    for state in [QpState::Reset, QpState::Init, QpState::Rts, QpState::Sqd, QpState::Err] {
        let (mut a, b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
        match state {
            QpState::Reset => {}
            QpState::Init => a.qp.modify(&to(QpState::Init), INIT).unwrap(),
            QpState::Rts => a.qp.connect_with(&b.qp.address(), &common::patient()).unwrap(),
            QpState::Sqd => {
                a.qp.connect_with(&b.qp.address(), &common::patient()).unwrap();
                a.qp.modify(&to(QpState::Sqd), QpAttrMask::STATE).unwrap();
            }
            _ => a.qp.to_error().unwrap(),
        }
        a.qp.to_error().unwrap();
        assert_eq!(a.qp.state(), QpState::Err, "from {state}");
        a.post_recv(1, 0..8);
        a.expect(1, WcStatus::WrFlushErr);
        a.qp.reset().unwrap();
        assert_eq!(a.qp.state(), QpState::Reset);
        a.qp.reset().unwrap();
    }
}

fn a_queue_pair_of_two_contexts_is_refused() {
    let (a, b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let error = a.pd.create_qp(QpInit::rc(&b.cq)).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { call: "create_qp", .. }), "{error}");
    let error = a.pd.create_qp(QpInit::rc(&a.cq).recv_cq(&b.cq)).unwrap_err();
    assert!(error.to_string().contains("one context"), "{error}");
}

fn a_new_queue_pair_is_in_reset_and_prints_what_it_is() {
    let a = Node::new(QpType::Uc);
    assert_eq!((a.qp.state(), a.qp.qp_type()), (QpState::Reset, QpType::Uc));
    let text = format!("{:?}", a.qp);
    assert!(text.contains("Uc") && text.contains("Reset"), "{text}");
    let cap = a.qp.cap();
    assert!(cap.max_send_wr >= 64 && cap.max_recv_wr >= 64 && cap.max_send_sge >= 16);
    assert_eq!(a.qp.pd().context().name(), common::device());
}
