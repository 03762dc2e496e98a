//! What is not there: no library, one that is none, one with the sixteen functions that programs for Macs use and no more. Each is said, and what is there
//! works.

mod common;

use common::with_library;
use tbrdma::{Access, Error, MwType, QpInit, WcStatus, WorkCompletion, devices, open};

/// Native devices cannot be had, for this reason, and others can.
fn only_others_open(reason: &str) {
    assert!(devices().iter().all(|device| !device.name.starts_with("native:")));
    let error = open("native:plain").unwrap_err();
    assert!(matches!(error, Error::Library { .. }), "{error}");
    assert!(error.to_string().contains(reason), "{error}");
    let error = open("mlx5_0").unwrap_err();
    assert!(matches!(error, Error::NoSuchDevice { .. }), "{error}");
    open("shm").unwrap();
}

#[test]
fn no_library() {
    if with_library("no_library", "libthere-is-none.so.7") {
        only_others_open("libthere-is-none.so.7 cannot be loaded");
    }
}

#[test]
fn a_library_of_something_else() {
    if with_library("a_library_of_something_else", "libc.so.6") {
        only_others_open("libc.so.6 has no ibv_get_device_list");
    }
}

#[test]
fn a_process_that_is_the_library_has_no_native_devices() {
    if with_library("a_process_that_is_the_library_has_no_native_devices", "libmock_verbs.so") {
        assert!(open("plain").is_ok(), "no list gives that name another meaning");
        tbrdma::without_native_devices();
        only_others_open("this process is itself the verbs library");
    }
}

#[test]
fn a_library_with_few_functions() {
    if !with_library("a_library_with_few_functions", "libfew_verbs.so") {
        return;
    }
    let ctx = open("native:plain").unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let mut mr = pd.alloc(64, Access::LOCAL_WRITE).unwrap();
    let cq = ctx.create_cq(4).unwrap();
    let mut qp = pd.create_qp(QpInit::uc(&cq).max_inline_data(0)).unwrap();
    qp.connect(&qp.address()).unwrap();
    assert_eq!(qp.query().dest_qp_num, qp.qp_num(), "what was set is remembered");
    qp.post(|wr| _ = wr.send(mr.slice(..)).id(3)).unwrap();
    let mut wcs = [WorkCompletion::default(); 2];
    let [wc] = cq.poll(&mut wcs) else { panic!("one completion") };
    assert_eq!((wc.wr_id, wc.status), (3, WcStatus::Success));
    assert!(ctx.async_events().try_next().is_none());
    let refused = [
        pd.create_srq(1, 1).map(drop),
        ctx.create_comp_channel().map(drop),
        pd.create_ah_to(&qp.address()).map(drop),
        pd.alloc_mw(MwType::Type1).map(drop),
        cq.resize(8),
        mr.change(None, Some(Access::LOCAL_WRITE)),
        pd.register(vec![0; 8], Access::LOCAL_WRITE | Access::ZERO_BASED).map(drop),
    ];
    for (number, outcome) in refused.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::NotSupported { .. }), "{number}: {error}");
        assert!(error.to_string().contains("device plain"), "{number}: {error}");
    }
}
