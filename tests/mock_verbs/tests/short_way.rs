//! What programs do with every message, on a native device: lists of plain work become the library's where they are, completions ours where they are, and nothing is
//! allocated. The library is `mock.rs`, whose completions tell what it was given.

#[path = "../../../proto/tests/counting/mod.rs"]
mod counting;

mod common;

use common::with_library;
use tbrdma::{
    Access, CompletionQueue, Context, MemoryRegion, PostRefusal, QpInit, QueuePair, WcFlags, WcOpcode,
    WcStatus, WorkCompletion, open,
};

/// A connected queue pair, and memory.
struct Pair {
    ctx: Context,
    cq: CompletionQueue,
    qp: QueuePair,
    mr: MemoryRegion,
}

impl Pair {
    fn new(device: &str) -> Self {
        let ctx = open(device).unwrap();
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(64).unwrap();
        let mut qp = pd.create_qp(QpInit::rc(&cq).max_send_wr(32)).unwrap();
        qp.connect(&qp.address()).unwrap();
        let mr = pd.alloc(4096, Access::LOCAL_WRITE | Access::REMOTE_WRITE).unwrap();
        Self { ctx, cq, qp, mr }
    }

    /// A list of three: two entries, none, and immediate data.
    fn post_three(&mut self) {
        let (mr, peer) = (&self.mr, self.mr.remote());
        let there = |at| tbrdma::RemoteAddr { addr: at, rkey: peer.rkey };
        self.qp
            .post(|wr| {
                wr.write([mr.slice(..8), mr.slice(100..120)], there(0x1234)).id(1);
                wr.send(&[][..]).id(2);
                wr.write_with_imm(mr.slice(..5), there(0x77), 0x0102_0304).id(3);
            })
            .unwrap();
    }
}

/// What a completion of the library's tells: the program's bits, the bytes, how many entries they were in, the place at the peer.
fn told(wc: &WorkCompletion) -> (u64, u32, u32, u16) {
    (wc.wr_id, wc.byte_len, wc.vendor_err, wc.slid)
}

#[test]
fn lists_arrive_as_they_were_built_and_completions_as_they_were_written() {
    if !with_library(
        "lists_arrive_as_they_were_built_and_completions_as_they_were_written",
        "libmock_verbs.so",
    ) {
        return;
    }
    let mut pair = Pair::new("native:plain");
    let mut wcs = [WorkCompletion { wq_index: 9, ..WorkCompletion::default() }; 20];
    for room in [20, 3, 2, 1] {
        pair.post_three();
        let mut polled = Vec::new();
        while polled.len() < 3 {
            polled.extend_from_slice(pair.cq.poll(&mut wcs[..room]));
        }
        let expected = [(1, 28, 2, 0x1234), (2, 0, 0, 0), (3, 5, 1, 0x77)];
        assert_eq!(polled.iter().map(told).collect::<Vec<_>>(), expected, "{room} at a time");
        for wc in &polled {
            assert_eq!((wc.status, wc.qp_num, wc.wq_index), (WcStatus::Success, pair.qp.qp_num(), 0));
        }
        assert_eq!(polled[0].opcode, WcOpcode::RdmaWrite);
        assert_eq!(polled[0].src_qp.get(), pair.mr.rkey() & 0x00ff_ffff);
        assert_eq!((polled[2].wc_flags, polled[2].imm_data), (WcFlags::WITH_IMM, 0x0102_0304));
        assert!(pair.cq.poll(&mut wcs).is_empty());
    }
    // An empty list is none, and no room takes none.
    pair.qp.post(|_| ()).unwrap();
    pair.qp.post(|wr| _ = wr.send(pair.mr.slice(..8)).id(4)).unwrap();
    assert!(pair.cq.poll(&mut []).is_empty());
    assert_eq!(pair.cq.poll(&mut wcs).len(), 1);
}

#[test]
fn what_was_not_taken_of_a_list_is_told_and_the_next_list_is_whole() {
    if !with_library("what_was_not_taken_of_a_list_is_told_and_the_next_list_is_whole", "libmock_verbs.so") {
        return;
    }
    let mut pair = Pair::new("native:second");
    let mr = &pair.mr;
    let mut wcs = [WorkCompletion::default(); 4];
    for _ in 0..2 {
        let error = pair.qp.post(|wr| {
            wr.send(mr.slice(..8)).id(1);
            wr.send_with_imm(mr.slice(..9), 7).id(2);
        });
        let error = error.unwrap_err();
        assert_eq!(error.index, 1);
        assert!(matches!(error.reason, PostRefusal::QueueFull { depth: 32 }), "{error}");
        pair.qp.post(|wr| _ = wr.send(mr.slice(..10)).id(3)).unwrap();
        let polled: Vec<_> = pair.cq.poll(&mut wcs).iter().map(told).collect();
        assert_eq!(polled, [(1, 8, 1, 0), (3, 10, 1, 0)]);
    }
    // What is wrong with the first that was refused is found by our own rules, which want its entries as they were.
    let error = pair.qp.post(|wr| {
        wr.send(mr.slice(..8));
        wr.send(&[mr.slice(..1); 20][..]);
    });
    assert!(matches!(error.unwrap_err().reason, PostRefusal::WorkRequest(_)));
}

#[test]
fn whatever_a_library_writes_is_a_completion_of_ours() {
    if !with_library("whatever_a_library_writes_is_a_completion_of_ours", "libmock_verbs.so") {
        return;
    }
    let mut wcs = [WorkCompletion::default(); 4];
    for room in [1, 4] {
        let mut pair = Pair::new("native:noisy");
        pair.post_three();
        for wc in pair.cq.poll(&mut wcs[..room]) {
            assert_eq!((wc.status, wc.opcode, wc.wq_index), (WcStatus::GeneralErr, WcOpcode::Send, 0));
            assert!(WcFlags::all().contains(wc.wc_flags));
            assert!(wc.qp_num.get() < 1 << 24 && wc.src_qp.get() < 1 << 24);
        }
        let pair = Pair::new("native:poll_cq-22");
        assert!(pair.cq.poll(&mut wcs[..room]).is_empty());
        assert_eq!(wcs[0], WorkCompletion::default(), "nothing of a poll that failed is left");
        assert!(pair.ctx.async_events().try_next().is_some());
    }
}

#[test]
fn posting_and_polling_allocate_nothing() {
    if !with_library("posting_and_polling_allocate_nothing", "libmock_verbs.so") {
        return;
    }
    let mut pair = Pair::new("native:plain");
    let mut wcs = [WorkCompletion::default(); 8];
    let mut round = |pair: &mut Pair| {
        let (mr, there) = (&pair.mr, pair.mr.remote().at(64));
        pair.qp.post(|wr| _ = wr.write(mr.slice(..8), there)).unwrap();
        assert_eq!(pair.cq.poll(&mut wcs[..1]).len(), 1);
        pair.post_three();
        pair.qp.post(|wr| _ = wr.send_inline(b"inline").id(9)).unwrap();
        assert_eq!(pair.cq.poll(&mut wcs).len(), 4);
        assert!(pair.cq.poll(&mut wcs).is_empty());
        let mr = &pair.mr;
        pair.qp.post_recv(|rq| _ = rq.recv(mr.slice(..8))).unwrap();
    };
    (0..4).for_each(|_| round(&mut pair));
    let before = counting::calls();
    (0..10_000).for_each(|_| round(&mut pair));
    assert_eq!(counting::calls() - before, 0);
    // And the count would see one.
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(counting::calls() - before, 2);
}
