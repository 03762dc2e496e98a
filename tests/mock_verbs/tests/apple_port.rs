//! Apple's rules around a library that has no more than a Mac's programs use, and around one that refuses to let go.

mod common;

use common::with_library;
use tbrdma::{Access, Context, OpenOptions, PostRefusal, QpInit, QpState, WcStatus, WorkCompletion, open};

fn open_guarded(name: &str) -> Context {
    OpenOptions::new().profile("apple-tb5").open(name).unwrap()
}

/// How many objects the library has, of all devices.
fn objects(plain: &Context) -> u32 {
    plain.query_port(1).unwrap().bad_pkey_cntr
}

/// Has every kind of object, and drops them in an order that is not the driver's.
fn use_and_drop(name: &str) {
    let ctx = open_guarded(name);
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(16).unwrap();
    let mut qp = pd.create_qp(QpInit::uc(&cq).max_send_wr(8).max_recv_wr(8)).unwrap();
    qp.connect(&qp.address()).unwrap();
    assert_eq!(qp.state(), QpState::Rts);
    let mr = pd.alloc(16 * 4096, Access::LOCAL_WRITE).unwrap();
    qp.post(|wr| _ = wr.send(mr.slice(0..4096)).id(3)).unwrap();
    let mut wcs = [WorkCompletion::default(); 2];
    let [wc] = cq.poll(&mut wcs) else { panic!("one completion") };
    assert_eq!((wc.wr_id, wc.status), (3, WcStatus::Success));
    let depth = qp.query().cap.max_send_wr as usize;
    let refused = qp.post(|wr| _ = wr.send(mr.slice(0..4096 * depth + 1)));
    assert!(
        matches!(refused.unwrap_err().reason, PostRefusal::QueueFull { .. }),
        "a budget of {depth} frames"
    );
    let refused = qp.post(|wr| _ = wr.write(mr.slice(0..8), mr.remote().at(0)));
    assert!(matches!(refused.unwrap_err().reason, PostRefusal::Profile(_)));
    drop(mr);
    drop(pd);
    drop(ctx);
    drop(cq);
    drop(qp);
}

#[test]
fn sixteen_functions_are_enough_for_the_guards() {
    if with_library("sixteen_functions_are_enough_for_the_guards", "libfew_verbs.so") {
        let plain = open("native:plain").unwrap();
        let before = objects(&plain);
        use_and_drop("native:plain");
        assert_eq!(objects(&plain), before, "nothing is left");
    }
}

#[test]
fn a_region_that_is_not_let_go_at_first_is_in_the_end() {
    if with_library("a_region_that_is_not_let_go_at_first_is_in_the_end", "libmock_verbs.so") {
        let plain = open("native:plain").unwrap();
        let before = objects(&plain);
        use_and_drop("native:dereg_mr-16");
        assert_eq!(objects(&plain), before, "nothing is left");
    }
}
