//! Apple's rules around a native device: what a Mac's port would lose, damage or die of is refused with a typed error, before the library is asked. The
//! library behind is our own with a plain device, which would do all of it.

mod common;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use std::num::NonZeroUsize;
use std::sync::Once;
use tbrdma::{
    Access, Context, Error, ForeignMemory, OpenOptions, PostRefusal, ProtectionDomain, QpInit, QpType,
    QueuePair,
};

/// A device of its own name for each test: limits are counted by name.
fn open(name: &str) -> Context {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: before any thread has called the library, which reads them; other tests wait here meanwhile.
        unsafe { std::env::set_var("TBRDMA_VERBS_LIBRARY", common::library()) };
        // SAFETY: as above.
        unsafe { std::env::set_var("TBRDMA_DEVICES", "rdma_en2=shm") };
    });
    let options = OpenOptions::new().profile("apple-tb5");
    options.open(&format!("{name}=native:rdma_en2")).expect("it opens")
}

/// A queue pair connected to itself.
fn connected(context: &Context, depth: u32) -> (ProtectionDomain, QueuePair) {
    let (pd, cq) = (context.alloc_pd().expect("a PD"), context.create_cq(64).expect("a CQ"));
    let init = QpInit::uc(&cq).max_send_wr(depth).max_recv_wr(depth);
    let mut qp = pd.create_qp(init).expect("a QP");
    qp.connect(&qp.address()).expect("it connects");
    (pd, qp)
}

#[test]
fn only_unreliable_connections_and_only_so_many_objects() {
    let context = open("caps");
    let (pd, cq) = (context.alloc_pd().unwrap(), context.create_cq(64).unwrap());
    for init in [QpInit::rc(&cq), QpInit::ud(&cq)] {
        let error = pd.create_qp(init).unwrap_err();
        assert!(matches!(error, Error::NotSupported { call: "create_qp", .. }), "{error}");
    }
    let qps: Vec<_> = (0..10).map(|_| pd.create_qp(QpInit::uc(&cq)).unwrap()).collect();
    assert!(qps.iter().all(|qp| qp.qp_type() == QpType::Uc));
    let error = pd.create_qp(QpInit::uc(&cq)).unwrap_err();
    assert_eq!(error.errno(), libc::EBUSY, "{error}");
    drop(qps);
    pd.create_qp(QpInit::uc(&cq)).unwrap();
    let regions: Vec<_> = (0..100).map(|_| pd.alloc(64, Access::LOCAL_WRITE).unwrap()).collect();
    let error = pd.alloc(64, Access::LOCAL_WRITE).unwrap_err();
    assert_eq!(error.errno(), libc::ENOMEM, "{error}");
    drop(regions);
    // What was kept for the queues makes room.
    let again: Vec<_> = (0..100).map(|_| pd.alloc(64, Access::LOCAL_WRITE).unwrap()).collect();
    assert_eq!(again.len(), 100);
    assert!(matches!(pd.create_srq(8, 1), Err(Error::NotSupported { .. })));
    assert_eq!(context.query_device().max_sge, 1);
}

#[test]
fn the_depth_that_was_granted_is_a_budget_of_frames() {
    let context = open("frames");
    let (pd, mut qp) = connected(&context, 64);
    let granted = qp.query().cap.max_recv_wr;
    let mr = pd.alloc(4096 * (granted as usize + 1), Access::LOCAL_WRITE).unwrap();
    let refused = qp.post_recv(|rq| {
        rq.recv(mr.slice(..));
    });
    let refusal = refused.unwrap_err().reason;
    assert!(matches!(refusal, PostRefusal::QueueFull { depth } if depth == granted), "{refusal}");
    let whole = granted as usize * 4096;
    qp.post_recv(|rq| {
        rq.recv(mr.slice(0..whole - 4096));
    })
    .unwrap();
    let refused = qp.post_recv(|rq| {
        rq.recv(mr.slice(0..4096)).id(1);
        rq.recv(mr.slice(0..1)).id(2);
    });
    assert_eq!(refused.unwrap_err().index, 1, "one frame was left");
}

#[test]
fn a_write_is_refused_where_the_port_would_lose_it() {
    let context = open("writes");
    let (pd, mut qp) = connected(&context, 16);
    let mr = pd.alloc(4096, Access::LOCAL_WRITE | Access::REMOTE_WRITE).unwrap();
    let remote = mr.remote();
    let refused = qp.post(|wr| {
        wr.write(mr.slice(0..8), remote.at(64));
    });
    let refusal = refused.unwrap_err().reason;
    assert!(matches!(refusal, PostRefusal::Profile(_)), "{refusal}");
    assert!(refusal.to_string().contains("use SEND"), "{refusal}");
}

#[test]
fn an_entry_past_a_multiple_of_4_gib_is_refused() {
    let context = open("windows");
    let (pd, mut qp) = connected(&context, 16);
    // So much address space holds a multiple of 4 GiB, away from its ends.
    let len = NonZeroUsize::new(9 << 30).unwrap();
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: new memory, at an address of the system's choice.
    let at = unsafe { mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) };
    let at = at.expect("address space").as_ptr().cast::<u8>();
    let boundary = (at.addr() + 8192).next_multiple_of(1 << 32);
    let start = at.map_addr(|_| boundary - 8192);
    // SAFETY: inside of what was mapped, which stays mapped; nobody else uses it.
    let memory = unsafe { ForeignMemory::from_raw(start, 16384) };
    let mr = pd.register_foreign(memory, Access::LOCAL_WRITE).unwrap();
    for (range, fits) in [(0..8192, true), (8191..8193, false), (8192..8200, false)] {
        let posted = qp.post_recv(|rq| {
            rq.recv(mr.slice(range.clone()));
        });
        match posted {
            Ok(_) => assert!(fits, "{range:?}"),
            Err(error) => {
                assert!(!fits && matches!(error.reason, PostRefusal::Profile(_)), "{range:?}: {error}");
                assert!(error.to_string().contains("4 GiB"), "{error}");
            }
        }
    }
}

#[test]
fn other_profiles_are_no_guards_and_nothing_ends_for_them() {
    let _ = open("others");
    let context = OpenOptions::new().open("native:rdma_en2").unwrap();
    assert!(!context.describe().contains("in order"), "{}", context.describe());
    let (pd, cq) = (context.alloc_pd().unwrap(), context.create_cq(64).unwrap());
    pd.create_qp(QpInit::rc(&cq)).unwrap();
    assert!(open("named").describe().contains("in order"));
}
