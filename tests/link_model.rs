//! A link with a rate and a latency on shared memory: nothing is seen before its time by either side, and all of it in order.
//!
//! Only lower bounds are checked: a busy machine makes everything later. A moment is read before what may not precede it is done.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::time::{Duration, Instant};
use tbrdma::{
    Connection, Context, OpenOptions, QpAttr, QpAttrMask, QpInit, QpState, QpType, RemoteRegion, WcStatus,
};

mod common;
use common::{Node, connection, eventually, join, patience};

const LATENCY: Duration = Duration::from_millis(15);
const QKEY: u32 = 0x1111_2222;

fn context(link: &str) -> Context {
    OpenOptions::new().link(link).open("shm").unwrap()
}

/// A node on such a link, connected to one on a link of no length.
fn pair(qp_type: QpType, link: &str) -> (Node, Node) {
    let (mut a, mut b) = (Node::of(&context(link), qp_type, |init| init), Node::new(qp_type));
    join(&mut a, &mut b, &connection(|connection| connection.path_mtu = tbrdma::Mtu::B1024));
    (a, b)
}

/// Fails if less time has passed.
#[track_caller]
fn at_least(since: Instant, least: Duration) {
    let passed = since.elapsed();
    assert!(passed >= least, "{passed:?} after it was posted, {least:?} is the least");
}

#[test]
fn a_message_arrives_after_the_latency_and_completes_after_two() {
    let (mut a, mut b) = pair(QpType::Rc, "15ms");
    assert_eq!(a.ctx.describe(), "shm; a link of 15ms");
    b.post_recv(1, 0..64);
    a.fill(0..64, 7);
    let posted = Instant::now();
    a.post_send(2, 0..64);
    // Nobody polls here: the service thread delivers.
    b.expect(1, WcStatus::Success);
    at_least(posted, LATENCY);
    assert_eq!(b.bytes(0..64), [7; 64]);
    a.expect(2, WcStatus::Success);
    at_least(posted, 2 * LATENCY);
}

#[test]
fn memory_changes_no_earlier_than_it_was_reached() {
    let (mut a, b) = pair(QpType::Rc, "15ms");
    let remote = b.mr.remote();
    a.fill(0..8, 7);
    let slice = a.mr.slice(0..8);
    let posted = Instant::now();
    a.qp.post(|wr| drop(wr.write(slice, remote.at(0)).id(1))).unwrap();
    eventually("the bytes", || b.mr.load_u64(0) != 0);
    at_least(posted, LATENCY);
    a.expect(1, WcStatus::Success);
    at_least(posted, 2 * LATENCY);
}

#[test]
fn what_is_fetched_comes_after_both_ways() {
    let (mut a, b) = pair(QpType::Rc, "15ms");
    let remote = b.mr.remote();
    b.fill(0..8, 7);
    let posted = Instant::now();
    a.qp.post(|wr| drop(wr.read(a.mr.slice(0..8), remote.at(0)).id(1))).unwrap();
    // Looks at memory drive the sender too.
    eventually("the bytes", || a.mr.load_u64(0) != 0);
    at_least(posted, 2 * LATENCY);
    a.expect(1, WcStatus::Success);
    let posted = Instant::now();
    a.qp.post(|wr| drop(wr.fetch_and_add(a.mr.slice(8..16), remote.at(8), 5).id(2))).unwrap();
    a.expect(2, WcStatus::Success);
    at_least(posted, 2 * LATENCY);
    assert_eq!(b.mr.load_u64(8), 5);
}

#[test]
fn unreliable_messages_complete_when_they_arrive() {
    let (mut a, mut b) = pair(QpType::Uc, "15ms");
    b.post_recv(1, 0..64);
    let posted = Instant::now();
    a.post_send(2, 0..64);
    b.expect(1, WcStatus::Success);
    at_least(posted, LATENCY);
    a.expect(2, WcStatus::Success);

    let (mut a, mut b) = (
        Node::of(&context("15ms"), QpType::Ud, |init| init),
        Node::of(&context("15ms"), QpType::Ud, |init| init),
    );
    a.qp.activate_ud(QKEY).unwrap();
    b.qp.activate_ud(QKEY).unwrap();
    let ah = a.pd.create_ah_to(&b.qp.address()).unwrap();
    let (qpn, slice) = (b.qp.qp_num(), a.mr.slice(0..64));
    b.post_recv(1, 0..256);
    let posted = Instant::now();
    a.qp.post(|wr| drop(wr.send(slice).to(&ah, qpn, QKEY).id(2))).unwrap();
    b.expect(1, WcStatus::Success);
    at_least(posted, LATENCY);
    a.expect(2, WcStatus::Success);
}

#[test]
fn queue_pairs_share_the_rate() {
    // A byte in 80 ns: a message of 64 KiB takes 5.2 ms, and its headers some more.
    let (long, link) = (65_536_usize, "100Mbps");
    let least = Duration::from_nanos(80) * long as u32;
    let ctx = context(link);
    let mut ends: Vec<_> = (0..2)
        .map(|_| {
            let (mut a, mut b) = (Node::of(&ctx, QpType::Rc, |init| init), Node::new(QpType::Rc));
            join(&mut a, &mut b, &Connection::default());
            for id in 0..4 {
                b.post_recv(id, 0..long);
            }
            (a, b)
        })
        .collect();
    let posted = Instant::now();
    let [(a, at_a), (b, at_b)] = &mut ends[..] else { unreachable!() };
    for id in 0..4 {
        a.post_send(id, 0..long);
    }
    b.post_send(0, 0..long);
    b.expect(0, WcStatus::Success);
    // The first of the other queue was on its way before.
    at_least(posted, 2 * least);
    for id in 0..4 {
        a.expect(id, WcStatus::Success);
    }
    at_least(posted, 5 * least);
    at_a.take(4);
    at_b.take(1);
}

#[test]
fn many_stay_in_order() {
    let (mut a, mut b) = pair(QpType::Rc, "1Gbps,100us");
    let remote = b.mr.remote();
    const COUNT: u64 = 45;
    for id in 0..COUNT {
        b.post_recv(id, 0..64);
    }
    for round in 0..COUNT / 3 {
        let slice = a.mr.slice(0..64);
        a.qp.post(|wr| {
            wr.send_with_imm(slice, 3 * round as u32).id(4 * round);
            wr.read(slice, remote.at(4096)).id(4 * round + 1);
            wr.write_with_imm(slice, remote.at(8192), 3 * round as u32 + 1).id(4 * round + 2);
            wr.send_with_imm(slice, 3 * round as u32 + 2).id(4 * round + 3);
        })
        .unwrap();
    }
    for id in 0..COUNT {
        let wc = b.expect(id, WcStatus::Success);
        assert_eq!(wc.imm_data, id as u32);
    }
    for id in 0..COUNT / 3 * 4 {
        a.expect(id, WcStatus::Success);
    }
}

#[test]
fn events_are_not_early_either() {
    let ctx = context("15ms");
    let (mut a, mut b) = (Node::of(&ctx, QpType::Rc, |init| init), Node::new(QpType::Rc));
    let [ours, theirs] = [&mut a, &mut b].map(|node| {
        let channel = node.ctx.create_comp_channel().unwrap();
        node.cq = node.ctx.create_cq_on(64, &channel).unwrap();
        node.qp = node.pd.create_qp(QpInit::rc(&node.cq)).unwrap();
        node.cq.req_notify(false).unwrap();
        channel
    });
    join(&mut a, &mut b, &Connection::default());
    b.post_recv(1, 0..64);
    let posted = Instant::now();
    a.post_send(2, 0..64);
    theirs.wait(Some(patience())).unwrap().expect("an event");
    at_least(posted, LATENCY);
    b.expect(1, WcStatus::Success);
    ours.wait(Some(patience())).unwrap().expect("an event");
    at_least(posted, 2 * LATENCY);
    a.expect(2, WcStatus::Success);
}

#[test]
fn a_refusal_comes_back_behind_what_went_well() {
    let (mut a, mut b) = pair(QpType::Rc, "15ms");
    b.post_recv(1, 0..64);
    let nowhere = RemoteRegion { rkey: 0x00ba_d000, ..b.mr.remote() };
    let slice = a.mr.slice(0..8);
    let posted = Instant::now();
    a.qp.post(|wr| {
        wr.send(slice).id(1);
        wr.write(slice, nowhere.at(0)).id(2);
        wr.send(slice).id(3);
    })
    .unwrap();
    a.expect(1, WcStatus::Success);
    at_least(posted, 2 * LATENCY);
    a.expect(2, WcStatus::RemAccessErr);
    a.expect(3, WcStatus::WrFlushErr);
    assert_eq!(a.qp.state(), QpState::Err);
    b.expect(1, WcStatus::Success);
}

#[test]
fn a_queue_pair_that_is_stopped_completes_nothing_early() {
    let (mut a, mut b) = pair(QpType::Rc, "15ms");
    b.post_recv(1, 0..64);
    // What is under way goes on while the queue drains; what is posted then waits.
    a.post_send(1, 0..64);
    let state = |qp_state| QpAttr { qp_state, en_sqd_async_notify: true, ..QpAttr::default() };
    a.qp.modify(&state(QpState::Sqd), QpAttrMask::STATE | QpAttrMask::EN_SQD_ASYNC_NOTIFY).unwrap();
    a.expect_event(tbrdma::AsyncEventKind::SqDrained);
    a.expect(1, WcStatus::Success);
    a.post_send(2, 0..64);
    b.post_recv(2, 0..64);
    std::thread::sleep(LATENCY);
    let resumed = Instant::now();
    a.qp.modify(&state(QpState::Rts), QpAttrMask::STATE).unwrap();
    b.expect(1, WcStatus::Success);
    b.expect(2, WcStatus::Success);
    at_least(resumed, LATENCY);
    a.expect(2, WcStatus::Success);
    b.post_recv(3, 0..64);
    let posted = Instant::now();
    a.post_send(3, 0..64);
    b.expect(3, WcStatus::Success);
    a.qp.modify(&state(QpState::Err), QpAttrMask::STATE).unwrap();
    // As on hardware: it has arrived, and its sender does not know, unless that took long.
    let wc = a.one();
    if wc.status == WcStatus::Success {
        at_least(posted, 2 * LATENCY);
    } else {
        assert_eq!((wc.wr_id, wc.status), (3, WcStatus::WrFlushErr));
    }
}

#[test]
fn what_has_left_arrives_though_its_sender_closes() {
    let (mut a, mut b) = pair(QpType::Rc, "15ms");
    b.post_recv(1, 0..64);
    a.fill(0..64, 7);
    let posted = Instant::now();
    a.post_send(2, 0..64);
    drop(a);
    b.expect(1, WcStatus::Success);
    at_least(posted, LATENCY);
    assert_eq!(b.bytes(0..64), [7; 64]);
}

#[test]
fn a_link_that_makes_no_sense_is_refused() {
    for device in ["shm", "udp:lo"] {
        let wrong = OpenOptions::new().link("fast").open(device).unwrap_err().to_string();
        assert!(wrong.contains("64Gbps,5us"), "{wrong}");
    }
    let twice = OpenOptions::new().link("5us").fault("delay=6us").open("udp:lo").unwrap_err().to_string();
    assert!(twice.contains("delay=6us"), "{twice}");
    let link = OpenOptions::new().link("1Gbps,5us").fault("loss=1%").seed(1).open("udp:lo").unwrap();
    assert!(link.describe().contains("loss=1%,delay=5us,rate=1Gbps"), "{}", link.describe());
}
