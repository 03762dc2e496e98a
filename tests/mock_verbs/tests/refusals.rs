//! Each call of the library refuses, with each of several errors: what the program is told names the call, the device and the error, and nothing is left
//! behind. The library is `mock.rs`.

mod common;

use common::with_library;
use std::io;
use tbrdma::{
    Access, Context, Error, MwType, PostError, PostRefusal, QpInit, QpType, WcStatus, WorkCompletion, open,
};

/// What a call was refused with: the text and the error number.
type Refusal = (String, i32);

fn of(error: Error) -> Refusal {
    (error.to_string(), error.errno())
}

fn of_post(error: PostError) -> Refusal {
    assert!(matches!(error.reason, PostRefusal::Device(_) | PostRefusal::QueueFull { .. }), "{error}");
    (error.to_string(), error.errno())
}

/// Everything that a device does, until something is refused.
fn day(ctx: &Context) -> Result<(), Refusal> {
    ctx.query_port(1).map_err(of)?;
    let pd = ctx.alloc_pd().map_err(of)?;
    let mut mr = pd.alloc(4096, Access::LOCAL_WRITE | Access::MW_BIND).map_err(of)?;
    let based = pd.register(vec![0; 64], Access::LOCAL_WRITE | Access::ZERO_BASED).map_err(of)?;
    assert_eq!(based.addr(), 0);
    based.deregister().map_err(of)?;
    assert_ne!(mr.lkey(), mr.rkey());
    mr.change(None, Some(Access::LOCAL_WRITE | Access::REMOTE_READ)).map_err(of)?;
    let channel = ctx.create_comp_channel().map_err(of)?;
    let cq = ctx.create_cq_on(16, &channel).map_err(of)?;
    cq.resize(32).map_err(of)?;
    cq.req_notify(false).map_err(of)?;
    assert!(channel.try_next().is_none());
    let mut srq = pd.create_srq(8, 1).map_err(of)?;
    srq.set_limit(2).map_err(of)?;
    srq.post_recv(|rq| _ = rq.recv(mr.slice(..8))).map_err(of_post)?;
    let mut qp = pd.create_qp(QpInit::rc(&cq)).map_err(of)?;
    qp.connect(&qp.address()).map_err(of)?;
    qp.post_recv(|rq| _ = rq.recv(mr.slice(..8))).map_err(of_post)?;
    let buffer = pd.alloc_buffer(64).map_err(of)?;
    qp.post(|wr| {
        wr.send(mr.slice(..8)).id(7);
        wr.send_buffer(buffer, 64).id(7);
    })
    .map_err(of_post)?;
    let mut wcs = [WorkCompletion::default(); 4];
    let [plain, lent] = cq.poll(&mut wcs) else {
        let event = ctx.async_events().try_next().expect("polling failed, and says so");
        return Err((format!("poll_cq on device {}: {event}", ctx.name()), 0));
    };
    assert_eq!((plain.wr_id, lent.wr_id, lent.status), (7, 7, WcStatus::Success));
    assert!(qp.take_buffer(plain).is_none() && qp.take_buffer(lent).is_some());
    let window = pd.alloc_mw(MwType::Type1).map_err(of)?;
    let bind = window.bind_to(&mr, 0..8, Access::REMOTE_READ);
    qp.post(|wr| _ = wr.bind_mw(&bind).unsignaled()).map_err(of_post)?;
    assert_eq!(window.rkey(), bind.rkey);
    drop(window);
    let mut datagrams = pd.create_qp(QpInit::new(QpType::Ud, &cq)).map_err(of)?;
    datagrams.activate_ud(1).map_err(of)?;
    let ah = pd.create_ah_to(&qp.address()).map_err(of)?;
    datagrams.post(|wr| _ = wr.send(mr.slice(..8)).to(&ah, qp.qp_num(), 1)).map_err(of_post)?;
    drop(ah);
    Ok(())
}

/// Objects and contexts that the library has.
fn held(plain: &Context) -> (u32, u32) {
    let port = plain.query_port(1).unwrap();
    (port.bad_pkey_cntr, port.qkey_viol_cntr)
}

/// The error that a device is told to give is in its name.
#[test]
fn each_refusal_is_told_and_leaves_nothing_behind() {
    if !with_library("each_refusal_is_told_and_leaves_nothing_behind", "libmock_verbs.so") {
        return;
    }
    let plain = open("native:plain").unwrap();
    let before = held(&plain);
    day(&plain).unwrap();
    let names = tbrdma::devices().into_iter().filter_map(|device| {
        let name = device.name.strip_prefix("native:")?;
        let (call, error) = name.rsplit_once('-')?;
        Some((name.to_owned(), call.to_owned(), error.parse::<i32>().ok()?))
    });
    let mut tried = 0;
    for (name, call, error) in names {
        let outcome = open(&format!("native:{name}")).map_err(of).and_then(|ctx| day(&ctx));
        let (text, errno) = outcome.expect_err(&name);
        let is_post = call.starts_with("post") || call == "bind_mw";
        let words = match call.as_str() {
            _ if is_post => "post on QP".to_owned(),
            "reg_mr_iova2" => format!("reg_mr on device {name}"),
            call => format!("{call} on device {name}"),
        };
        let words = if call == "poll_cq" { format!("{call} on device native:{name}") } else { words };
        assert!(text.contains(&words), "{name}: {text}");
        if call != "poll_cq" {
            assert_eq!(errno, error, "{name}: {text}");
            let system = io::Error::from_raw_os_error(error).to_string();
            let is_named = text.contains(&system) || is_post && text.contains("queue is full");
            assert!(is_named, "{name}: {text}");
        }
        assert_eq!(held(&plain), before, "{name} left something behind");
        tried += 1;
    }
    assert!(tried >= 23 * 4, "{tried}");
}

#[test]
fn what_a_library_does_not_let_go_stays_and_all_else_ends() {
    if !with_library("what_a_library_does_not_let_go_stays_and_all_else_ends", "libmock_verbs.so") {
        return;
    }
    let plain = open("native:plain").unwrap();
    let kept = [
        // Of these one is made when the device is opened, to find out how many inline bytes there may be.
        ("destroy_qp", (3, 0)),
        ("destroy_cq", (2, 0)),
        ("dealloc_pd", (2, 0)),
        ("destroy_srq", (1, 0)),
        ("destroy_comp_channel", (1, 0)),
        ("destroy_ah", (1, 0)),
        ("dealloc_mw", (1, 0)),
        ("close_device", (0, 1)),
        // A port that does not tell its addresses has none, which is for the peer to find wrong.
        ("query_gid", (0, 0)),
    ];
    for (call, (objects, contexts)) in kept {
        let before = held(&plain);
        let ctx = open(&format!("native:{call}-busy")).unwrap();
        assert_eq!(ctx.query_gid(1, 0).unwrap().is_zero(), call == "query_gid");
        day(&ctx).unwrap_or_else(|(text, _)| panic!("{call}: {text}"));
        drop(ctx);
        assert_eq!(held(&plain), (before.0 + objects, before.1 + contexts), "{call}");
    }
}

#[test]
fn what_usually_stands_behind_a_refusal_is_said() {
    if !with_library("what_usually_stands_behind_a_refusal_is_said", "libmock_verbs.so") {
        return;
    }
    let error = |name: &str| {
        let ctx = open(&format!("native:{name}")).unwrap();
        let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(4).unwrap());
        let mut qp = pd.create_qp(QpInit::rc(&cq)).unwrap();
        let mut address = qp.address();
        address.gid = "::ffff:127.0.0.2".parse::<std::net::Ipv6Addr>().unwrap().into();
        qp.connect(&address).unwrap_err().to_string()
    };
    assert!(error("modify_qp-12").contains("no room left"), "{}", error("modify_qp-12"));
    let ctx = open("native:plain").unwrap();
    let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(4).unwrap());
    let refused = |init: QpInit<'_>| pd.create_qp(init).map(drop);
    refused(QpInit::rc(&cq).max_send_wr(1000)).unwrap();
    let ctx = open("native:create_qp-22").unwrap();
    let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(4).unwrap());
    let error = pd.create_qp(QpInit::rc(&cq).max_send_wr(1000)).map(drop).unwrap_err();
    assert!(
        matches!(error, Error::InvalidArgument { .. }) && error.to_string().contains("at most 64"),
        "{error}"
    );
    let ctx = open("native:create_qp-16").unwrap();
    let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(4).unwrap());
    let error = pd.create_qp(QpInit::rc(&cq)).map(drop).unwrap_err();
    assert!(error.to_string().contains("all 10 queue pairs"), "{error}");
}
