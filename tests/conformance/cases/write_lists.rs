//! Lists of WRITEs behind one doorbell: each is judged for itself, however alike the one before it was.

use crate::case::cases;
use crate::common;
use crate::common::{MEMORY, all_access, pair, pair_shaped, pattern};
use tbrdma::{Access, PostRefusal, QpState, WcStatus};

cases! {
    Ordering by "ibv_post_send(3); InfiniBand vol. 1, 9.4.3" {
        lists_of_any_mixture_put_every_byte_where_it_belongs: "Each work request of a list is carried out for itself, in order", needs [Rc];
        the_signaled_ones_of_a_list_complete_in_order_with_their_lengths: "The signaled ones of a list complete in its order", needs [Rc];
    }
    Errors by "InfiniBand vol. 1, 10.3.1 and 11.6.2" {
        the_first_that_is_not_allowed_ends_the_list: "The first WRITE that is not allowed ends the list; those before it took effect", needs [Rc];
        memory_that_is_not_ours_to_send_ends_the_list_too: "So does one whose local memory may not be used", needs [Rc];
        a_queue_pair_that_may_not_be_written_refuses_lists_as_well: "A queue pair without the right refuses each WRITE of a list", needs [Rc];
    }
    Limits by "ibv_post_send(3)" {
        a_list_longer_than_the_queue_is_posted_as_far_as_it_fits: "A list longer than the queue is posted as far as it fits", needs [Rc];
    }
}

/// Bytes of each WRITE here.
const SIZE: usize = 24;

fn lists_of_any_mixture_put_every_byte_where_it_belongs() {
    let (mut a, b) = pair_shaped("rc", |init| init.max_send_wr(128).max_send_sge(4).max_inline_data(64));
    let other = a.pd.alloc(MEMORY, all_access()).unwrap();
    let theirs = b.pd.alloc(MEMORY, all_access()).unwrap();
    let bytes = pattern(1, MEMORY);
    a.mr.write(0, &bytes);
    other.write(0, &bytes);
    let mut rng = common::Rng(7);
    for round in 0..40 {
        b.fill(0..MEMORY, 0);
        theirs.write(0, &vec![0; MEMORY]);
        let mut expected = [vec![0; MEMORY], vec![0; MEMORY]];
        a.qp.post(|wr| {
            for step in 0..60 {
                // Long runs of one kind, and breaks in them.
                let kind = if step % 8 < 5 { 0 } else { rng.below(6) };
                let from = rng.below((MEMORY - SIZE) as u64) as usize;
                let to = rng.below((MEMORY - SIZE) as u64) as usize;
                let (slice, remote) = (a.mr.slice(from..from + SIZE), b.mr.remote().at(to as u64));
                match kind {
                    0 => wr.write(slice, remote),
                    1 => wr.write(other.slice(from..from + SIZE), remote),
                    2 => wr.write(slice, theirs.remote().at(to as u64)),
                    3 => wr.write_inline(&bytes[from..from + SIZE], remote),
                    4 => wr.write(a.mr.slice(from..from), remote),
                    _ => wr.write([a.mr.slice(from..from + 7), a.mr.slice(from + 7..from + SIZE)], remote),
                }
                .unsignaled();
                let (region, len) = (usize::from(kind == 2), if kind == 4 { 0 } else { SIZE });
                expected[region][to..to + len].copy_from_slice(&bytes[from..from + len]);
            }
            wr.write_inline(b"", b.mr.remote().at(0)).id(round);
        })
        .unwrap();
        a.expect(round, WcStatus::Success);
        assert!(b.bytes(0..MEMORY) == expected[0], "round {round}");
        let mut found = vec![0; MEMORY];
        theirs.read(0, &mut found);
        assert!(found == expected[1], "round {round}");
    }
}

fn the_signaled_ones_of_a_list_complete_in_order_with_their_lengths() {
    let (mut a, b) = pair_shaped("rc", |init| init.max_send_wr(64));
    a.qp.post(|wr| {
        for step in 0..40_usize {
            let one = wr.write(a.mr.slice(0..step + 1), b.mr.remote().at(0)).id(step as u64);
            if step % 3 != 0 {
                one.unsignaled();
            }
        }
    })
    .unwrap();
    for step in (0..40).step_by(3) {
        assert_eq!(a.expect(step, WcStatus::Success).byte_len, step as u32 + 1);
    }
}

fn the_first_that_is_not_allowed_ends_the_list() {
    for bad in [1, 2, 5, 20] {
        for kind in 0..4 {
            let (mut a, b) = pair_shaped("rc", |init| init.max_send_wr(64));
            let narrow = b.pd.alloc(4096, Access::LOCAL_WRITE | Access::REMOTE_READ).unwrap();
            a.fill(0..MEMORY, 9);
            let (remote, slice) = (b.mr.remote(), a.mr.slice(0..SIZE));
            a.qp.post(|wr| {
                for step in 0..30 {
                    let good = remote.at((step * SIZE) as u64);
                    let to = match kind {
                        _ if step != bad => good,
                        0 => remote.at((MEMORY - SIZE + 1) as u64),
                        1 => tbrdma::RemoteAddr { rkey: good.rkey ^ 0x100, ..good },
                        2 => narrow.remote().at(0),
                        _ => remote.at(u64::MAX - 3),
                    };
                    wr.write(slice, to).id(step as u64).unsignaled();
                }
            })
            .unwrap();
            assert_eq!(a.one().wr_id, bad as u64, "{kind}");
            let flushed = a.take(29 - bad);
            assert!(flushed.iter().all(|wc| wc.status == WcStatus::WrFlushErr), "{kind}: {flushed:?}");
            assert_eq!(b.bytes(0..bad * SIZE), vec![9; bad * SIZE]);
            assert!(b.bytes(bad * SIZE..MEMORY).iter().all(|byte| *byte == 0), "{kind}");
            assert_eq!(a.qp.state(), QpState::Err);
        }
    }
}

fn memory_that_is_not_ours_to_send_ends_the_list_too() {
    let (mut a, b) = pair_shaped("rc", |init| init.max_send_wr(64));
    let gone = a.pd.alloc(4096, all_access()).unwrap();
    let stale = gone.slice(0..SIZE);
    drop(gone);
    a.fill(0..MEMORY, 9);
    a.qp.post(|wr| {
        for step in 0..12 {
            let slice = if step == 6 { stale } else { a.mr.slice(0..SIZE) };
            wr.write(slice, b.mr.remote().at(step * SIZE as u64)).id(step);
        }
    })
    .unwrap();
    let statuses: Vec<_> = a.take(12).iter().map(|wc| wc.status).collect();
    assert_eq!(statuses[..6], [WcStatus::Success; 6]);
    assert_eq!(statuses[6], WcStatus::LocProtErr);
    assert_eq!(statuses[7..], [WcStatus::WrFlushErr; 5]);
    assert!(b.bytes(6 * SIZE..MEMORY).iter().all(|byte| *byte == 0));
}

fn a_list_longer_than_the_queue_is_posted_as_far_as_it_fits() {
    let (mut a, b) = pair_shaped("rc", |init| init.max_send_wr(16));
    let depth = a.qp.cap().max_send_wr as usize;
    a.fill(0..MEMORY, 9);
    let refused = a.qp.post(|wr| {
        for step in 0..depth as u64 + 24 {
            wr.write(a.mr.slice(0..SIZE), b.mr.remote().at(step * SIZE as u64)).id(step);
        }
    });
    let refused = refused.unwrap_err();
    assert_eq!(refused.index, depth);
    assert!(matches!(refused.reason, PostRefusal::QueueFull { .. }));
    let ids: Vec<_> = a.take(depth).iter().map(|wc| (wc.wr_id, wc.status)).collect();
    assert_eq!(ids, Vec::from_iter((0..depth as u64).map(|id| (id, WcStatus::Success))));
    assert_eq!(b.bytes(0..depth * SIZE), vec![9; depth * SIZE]);
    assert!(b.bytes(depth * SIZE..MEMORY).iter().all(|byte| *byte == 0));
}

fn a_queue_pair_that_may_not_be_written_refuses_lists_as_well() {
    let (mut a, mut b) = pair("rc");
    let with = common::connection(|with| with.access = Access::LOCAL_WRITE | Access::REMOTE_READ);
    b.qp.reset().unwrap();
    a.qp.reset().unwrap();
    common::join(&mut b, &mut a, &with);
    a.qp.post(|wr| {
        for step in 0..6 {
            wr.write(a.mr.slice(0..SIZE), b.mr.remote().at(0)).id(step);
        }
    })
    .unwrap();
    assert_eq!(a.one().status, WcStatus::RemInvReqErr);
    assert!(a.take(5).iter().all(|wc| wc.status == WcStatus::WrFlushErr));
}
