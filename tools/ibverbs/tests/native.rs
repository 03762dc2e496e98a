//! The `native` device over the library that was built with this test: all that a message can be goes there and back, and arrives. What the device promises in full is
//! the conformance suite's, which is run on it by `cargo xtask conformance`.

#[path = "../../../tests/mock_verbs/tests/common/mod.rs"]
mod common;

use common::with_library;
use std::time::{Duration, Instant};
use tbrdma::{
    Access, CompletionQueue, PostRefusal, QpInit, QpState, WcFlags, WcOpcode, WcStatus, WorkCompletion, open,
};

/// So many completions, all good.
fn completions(cq: &CompletionQueue, count: usize) -> Vec<WorkCompletion> {
    let (mut all, mut wcs) = (Vec::new(), [WorkCompletion::default(); 8]);
    let begun = Instant::now();
    while all.len() < count {
        assert!(begun.elapsed() < Duration::from_secs(30), "{all:?}");
        let room = wcs.len().min(count - all.len());
        all.extend_from_slice(cq.poll(&mut wcs[..room]));
    }
    assert!(all.iter().all(|wc| wc.status == WcStatus::Success), "{all:?}");
    all
}

#[test]
fn every_kind_of_message_arrives() {
    if !with_library("every_kind_of_message_arrives", "libibverbs.so") {
        return;
    }
    let ctx = open("native:shm").unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(256).unwrap();
    let [mut a, mut b] = [(); 2].map(|()| pd.create_qp(QpInit::rc(&cq)).unwrap());
    let mr =
        pd.alloc(4096, Access::all() & !Access::ZERO_BASED & !Access::ON_DEMAND & !Access::HUGETLB).unwrap();
    let peer = mr.remote();
    let early = a.post(|wr| _ = wr.write(mr.slice(..8), peer.at(64))).unwrap_err();
    assert!(matches!(early.reason, PostRefusal::State(QpState::Reset)), "{early}");
    a.connect(&b.address()).unwrap();
    b.connect(&a.address()).unwrap();
    let bytes: Vec<u8> = (1..=64).collect();
    mr.write(0, &bytes);
    let there = |at: usize, len: usize| {
        let mut there = vec![0; len];
        mr.read(at, &mut there);
        there
    };
    // One WRITE, then a list of them with one doorbell, of two entries each.
    a.post(|wr| _ = wr.write(mr.slice(..64), peer.at(1024)).id(1)).unwrap();
    assert_eq!((completions(&cq, 1)[0].wr_id, there(1024, 64)), (1, bytes.clone()));
    a.post(|wr| {
        for number in 0..32_usize {
            let entries = [mr.slice(number..number + 1), mr.slice(63 - number..64 - number)];
            let write = wr.write(entries, peer.at(2048 + 2 * number as u64)).id(number as u64);
            if number != 31 {
                write.unsignaled();
            }
        }
    })
    .unwrap();
    assert_eq!(completions(&cq, 1)[0].wr_id, 31);
    let expected: Vec<u8> = (0..32).flat_map(|number| [number + 1, 64 - number]).collect();
    assert_eq!(there(2048, 64), expected);
    // What consumes receives: with immediate data, with bytes inline, with a buffer that is lent.
    b.post_recv(|rq| {
        rq.recv(mr.slice(3000..3008)).id(10);
        rq.recv(mr.slice(3008..3016)).id(11);
        rq.recv(mr.slice(3016..3024)).id(12);
    })
    .unwrap();
    let mut buffer = pd.alloc_buffer(8).unwrap();
    buffer.copy_from_slice(b"lent out");
    a.post(|wr| _ = wr.send_with_imm(mr.slice(8..16), 0x0102_0304).id(20)).unwrap();
    a.post(|wr| {
        wr.send_inline(b"inline").id(21);
        wr.send_buffer(buffer, 8).id(22);
    })
    .unwrap();
    let all = completions(&cq, 6);
    let of = |id: u64| *all.iter().find(|wc| wc.wr_id == id).unwrap();
    assert_eq!((of(10).wc_flags, of(10).imm_data, of(10).byte_len), (WcFlags::WITH_IMM, 0x0102_0304, 8));
    assert_eq!((of(11).opcode, of(11).byte_len, of(11).qp_num), (WcOpcode::Recv, 6, b.qp_num()));
    assert_eq!(there(3000, 24), [&bytes[8..16], b"inline\0\0", b"lent out"].concat());
    assert_eq!(&a.take_buffer(&of(22)).unwrap()[..], b"lent out");
    // What comes back.
    a.post(|wr| {
        wr.read(mr.slice(3500..3508), peer.at(8));
        wr.fetch_and_add(mr.slice(3600..3608), peer.at(0), 1);
    })
    .unwrap();
    assert_eq!(
        completions(&cq, 2).iter().map(|wc| wc.opcode).collect::<Vec<_>>(),
        [WcOpcode::RdmaRead, WcOpcode::FetchAdd]
    );
    assert_eq!((there(3500, 8), there(3600, 8)), (bytes[8..16].to_vec(), bytes[..8].to_vec()));
    assert_eq!(there(0, 1), [2]);
    // More than the queue holds: as many as there is room for are posted.
    let depth = a.cap().max_send_wr as usize;
    let error = a.post(|wr| (0..=depth).for_each(|_| _ = wr.write(mr.slice(..1), peer.at(1)))).unwrap_err();
    assert_eq!(error.index, depth, "{error}");
    assert!(matches!(error.reason, PostRefusal::QueueFull { .. }), "{error}");
    completions(&cq, depth);
}
