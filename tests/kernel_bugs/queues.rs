//! Queues and the objects around them, used and changed at once.

use crate::common::{MEMORY, Node, connection, eventually, join, next_of, patience, patient};
use crate::hand::{self, Hand};
use crate::{DEVICES, pair};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tbrdma::{
    MrSlice, Opcode, QpAttr, QpAttrMask, QpInit, QpState, QpType, RawSge, SendFlags, SendWr, WcStatus,
    WorkCompletion,
};

#[test]
fn work_requests_changed_after_they_are_posted() {
    for device in DEVICES {
        for shared in [false, true] {
            let (mut a, mut b) = (
                Node::of(&tbrdma::open(device).unwrap(), QpType::Rc, |init| init),
                Node::of(&tbrdma::open(device).unwrap(), QpType::Rc, |init| init),
            );
            let mut srq = b.pd.create_srq(4, 2).unwrap();
            if shared {
                b.qp = b.pd.create_qp(QpInit::rc(&b.cq).srq(&srq)).unwrap();
            }
            join(&mut a, &mut b, &patient());
            let entries = |node: &Node, ranges: [std::ops::Range<usize>; 2]| {
                let slices: [MrSlice; 2] = ranges.map(|range| node.mr.slice(range));
                // SAFETY: the region is no buffer.
                slices.map(|slice| unsafe { RawSge::new(slice.sge()) })
            };
            // The SEND waits for a receive; meanwhile the list that it was posted with says something else.
            a.fill(0..16, 1);
            a.fill(4096..8192, 9);
            let mut list = entries(&a, [0..8, 8..16]);
            let wr = SendWr {
                wr_id: 1,
                opcode: Opcode::Send,
                flags: SendFlags::SIGNALED,
                imm_data: 0,
                remote: tbrdma::RemoteAddr::default(),
                compare_add: 0,
                swap: 0,
                ud: None,
                first_sge: 0,
                num_sge: 0,
            };
            a.qp.post(|wrs| wrs.raw(wr, &list)).unwrap();
            list.copy_from_slice(&entries(&a, [4096..6144, 6144..8192]));
            let mut into = entries(&b, [0..12, 100..112]);
            if shared {
                srq.post_recv(|rq| rq.raw(2, &into)).unwrap();
            } else {
                b.qp.post_recv(|rq| rq.raw(2, &into)).unwrap();
            }
            into.copy_from_slice(&entries(&b, [4096..8192, 8192..MEMORY]));
            assert_eq!(b.expect(2, WcStatus::Success).byte_len, 16);
            a.expect(1, WcStatus::Success);
            assert_eq!(
                (b.bytes(0..16), b.bytes(100..112)),
                ([[1; 12].as_slice(), &[0; 4]].concat(), [[1; 4].as_slice(), &[0; 8]].concat())
            );
            assert!(b.bytes(112..MEMORY).iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn a_queue_in_the_hands_of_whom_its_event_woke() {
    const MESSAGES: u64 = 200;
    for device in DEVICES {
        let (mut a, b) = pair(device);
        let channel = b.ctx.create_comp_channel().unwrap();
        let cq = b.ctx.create_cq_on(64, &channel).unwrap();
        let mut b = Node { qp: b.pd.create_qp(QpInit::rc(&cq)).unwrap(), cq, ..b };
        a.qp = a.pd.create_qp(QpInit::rc(&a.cq)).unwrap();
        join(&mut a, &mut b, &patient());
        for id in 0..8 {
            b.post_recv(id, 0..8);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in 0..MESSAGES {
                    a.post_send(id, 0..8);
                    a.expect(id, WcStatus::Success);
                }
            });
            let mut seen = 0;
            while seen < MESSAGES {
                b.cq.req_notify(false).unwrap();
                let mut wcs = [WorkCompletion::default()];
                if b.cq.poll(&mut wcs).is_empty() {
                    // Whoever the event wakes may do anything with the queue that raised it, and with others of its channel.
                    let woken = channel.wait(Some(patience())).unwrap().expect("an event");
                    woken.req_notify(true).unwrap();
                    woken.resize(64 + (seen % 2) as u32).unwrap();
                    drop(b.ctx.create_cq_on(4, &channel).unwrap());
                } else {
                    assert_eq!(wcs[0].status, WcStatus::Success);
                    seen += 1;
                    b.post_recv(100 + seen, 0..8);
                }
            }
        });
    }
}

#[test]
fn a_queue_resized_while_it_is_used() {
    const MESSAGES: u64 = 3000;
    for device in DEVICES {
        let (mut a, mut b) = pair(device);
        let (cq, done) = (b.cq.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in 0..MESSAGES {
                    a.post_send(id, 0..8);
                    a.expect(id, WcStatus::Success);
                }
            });
            scope.spawn(|| {
                let mut sizes = [256, 1024, 64, 4096].into_iter().cycle();
                while !done.load(Ordering::Relaxed) {
                    cq.resize(sizes.next().unwrap()).unwrap();
                    std::thread::yield_now();
                }
            });
            for id in 0..32 {
                b.post_recv(id, 0..8);
            }
            for id in 0..MESSAGES {
                let wc = next_of(&b.cq);
                assert_eq!((wc.wr_id, wc.status), (id, WcStatus::Success), "{device}");
                b.post_recv(id + 32, 0..8);
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn each_request_completes_once_before_a_reset() {
    for device in DEVICES {
        for round in 0..20_u64 {
            let (mut a, mut b) = pair(device);
            for id in 0..10 {
                a.post_recv(100 + id, 0..8);
                b.post_recv(id, 0..8);
            }
            for id in 0..20 {
                a.post_send(id, 0..8);
            }
            // At some moment or other of the exchange.
            if round % 2 == 0 {
                b.expect(0, WcStatus::Success);
            }
            a.qp.to_error().unwrap();
            let mut ids: Vec<u64> = a.take(30).iter().map(|wc| wc.wr_id).collect();
            ids.sort_unstable();
            assert_eq!(ids, (0..20).chain(100..110).collect::<Vec<_>>(), "{device}");
            let reset = QpAttr { qp_state: QpState::Reset, ..QpAttr::default() };
            a.qp.modify(&reset, QpAttrMask::STATE).unwrap();
            let mut wcs = [WorkCompletion::default()];
            assert_eq!(a.cq.poll(&mut wcs), &[]);
        }
    }
}

#[test]
fn reads_resized_while_they_are_served() {
    const LEN: usize = 60_000;
    for device in DEVICES {
        let (mut a, mut b) = pair(device);
        b.fill(0..LEN, 0x21);
        let (into, remote) = (a.mr.slice(0..LEN), b.mr.remote().at(0));
        let (reads, done) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    a.qp.post(|wr| (0..4).for_each(|id| _ = wr.read(into, remote).id(id))).unwrap();
                    for id in 0..4 {
                        let wc = a.one();
                        assert_eq!(
                            (wc.wr_id, wc.status, wc.byte_len),
                            (id, WcStatus::Success, LEN as u32),
                            "{device}"
                        );
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(a.bytes(0..LEN).iter().all(|byte| *byte == 0x21));
                }
            });
            // More and fewer, but never fewer than are asked for at a time.
            for resources in [16, 4, 9, 5, 16, 4] {
                let state =
                    |qp_state| QpAttr { qp_state, max_dest_rd_atomic: resources, ..QpAttr::default() };
                b.qp.modify(&state(QpState::Sqd), QpAttrMask::STATE).unwrap();
                b.qp.modify(&state(QpState::Sqd), QpAttrMask::STATE | QpAttrMask::MAX_DEST_RD_ATOMIC)
                    .unwrap();
                b.qp.modify(&state(QpState::Rts), QpAttrMask::STATE).unwrap();
                let seen = reads.load(Ordering::Relaxed);
                eventually("more are served", || reads.load(Ordering::Relaxed) > seen + 4);
            }
            done.store(true, Ordering::Relaxed);
        });
        b.expect_no_event();
    }
}

#[test]
fn queue_pairs_destroyed_while_their_timers_run() {
    let rounds = if cfg!(debug_assertions) { 150 } else { 600 };
    // Each has work outstanding that nobody answers, and timers of some microseconds for it.
    let with = hand::connection(|with| (with.timeout, with.retry_cnt, with.rnr_retry) = (1, 7, 7));
    let ctx = tbrdma::open(hand::DEVICE).unwrap();
    let polled = ctx.create_cq(16).unwrap();
    let begun = Instant::now();
    for round in 0..rounds {
        let mut node = Node::of(&ctx, QpType::Rc, |init| init);
        let hand = Hand::with(&mut node, &with);
        node.post_send(1, 0..600);
        if round % 3 == 0 {
            // One waits for a receiver that is not ready.
            let not_ready = tbrdma_proto::wire::Syndrome::RnrNak { timer: 1 };
            hand.send(&hand.answer(0, not_ready));
        }
        let wait = Duration::from_micros(round % 50 * 10);
        let posted = Instant::now();
        while posted.elapsed() < wait {
            // The application sees to timers itself, or leaves it to the service thread.
            if round % 2 == 0 {
                polled.poll(&mut [WorkCompletion::default()]);
            }
        }
        let Node { qp, mr, cq, pd, ctx: _ctx } = node;
        drop(qp);
        drop((mr, pd));
        // What belonged to it completes nothing any more.
        let mut wcs = [WorkCompletion::default(); 4];
        assert_eq!(cq.poll(&mut wcs), &[]);
    }
    assert!(begun.elapsed() < patience());

    // On shared memory it is a message that waits for its receive.
    let with = connection(|with| (with.min_rnr_timer, with.rnr_retry) = (1, 7));
    let ctx = tbrdma::open("shm").unwrap();
    for round in 0..rounds {
        let [mut a, mut b] = [(); 2].map(|()| Node::of(&ctx, QpType::Rc, |init| init));
        join(&mut a, &mut b, &with);
        a.post_send(1, 0..600);
        let Node { qp, cq, .. } = if round % 2 == 0 { a } else { b };
        drop(qp);
        assert_eq!(cq.poll(&mut [WorkCompletion::default(); 4]), &[]);
    }
}
