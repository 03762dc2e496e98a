//! Virtual time: how long things take in a simulated network is exact, and costs no real time.

mod common;

use common::{Node, connection, join};
use std::time::{Duration, Instant};
use tbrdma::{AsyncEventKind, Context, OpenOptions, QpType, WcStatus, WorkCompletion};

fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

/// A pair whose first node's packets suffer this, with a timeout of 4.096 us * 2^8 = 1.048576 ms and two retries.
fn pair(network: &str, fault: &str) -> (Node, Node) {
    let open = |fault: &str| OpenOptions::new().fault(fault).open(network).unwrap();
    let (mut a, mut b) =
        (Node::of(&open(fault), QpType::Rc, |init| init), Node::of(&open("none"), QpType::Rc, |init| init));
    let with = connection(|with| (with.timeout, with.retry_cnt) = (8, 2));
    join(&mut a, &mut b, &with);
    (a, b)
}

/// Polls both until the first has a completion.
fn first(a: &Node, b: &Node) -> WorkCompletion {
    let mut wcs = [WorkCompletion::default()];
    loop {
        if let [wc] = a.cq.poll(&mut wcs) {
            return *wc;
        }
        b.cq.poll(&mut [WorkCompletion::default()]);
    }
}

/// How long a SEND takes from its post to its completion.
fn round(a: &mut Node, b: &mut Node) -> (WcStatus, Duration) {
    b.post_recv(1, 0..64);
    let begun = a.ctx.raw_clock();
    a.post_send(2, 0..64);
    let status = first(a, b).status;
    (status, a.ctx.raw_clock() - begun)
}

#[test]
fn a_message_takes_as_long_as_its_ways() {
    let (mut a, mut b) = pair("sim:ways", "none");
    assert_eq!(round(&mut a, &mut b), (WcStatus::Success, micros(2)));
    let (mut a, mut b) = pair("sim:ways5", "delay=5us");
    assert_eq!(round(&mut a, &mut b), (WcStatus::Success, micros(6)));
}

#[test]
fn a_rate_is_kept_to_the_nanosecond() {
    let open = || OpenOptions::new().link("8Gbps,10us").open("sim:rate").unwrap();
    let [mut a, mut b] = [(); 2].map(|()| Node::of(&open(), QpType::Rc, |init| init));
    join(&mut a, &mut b, &connection(|_| {}));
    // A byte a nanosecond: 64 of payload with 12 of base header and 4 of iCRC, and an acknowledgement of 20.
    assert_eq!(round(&mut a, &mut b), (WcStatus::Success, micros(20) + Duration::from_nanos(80 + 20)));
}

#[test]
fn a_stall_is_seen_with_its_exact_length() {
    let (mut a, mut b) = pair("sim:stall", "none");
    for stall in [Duration::ZERO, Duration::from_millis(10)] {
        a.post_recv(1, 0..64);
        b.post_recv(2, 0..64);
        let begun = a.ctx.raw_clock();
        a.post_send(3, 0..64);
        b.expect(2, WcStatus::Success);
        // The peer has something else to do before it answers.
        b.ctx.sleep(stall);
        b.post_send(4, 0..64);
        assert_eq!([first(&a, &b), first(&a, &b)].map(|wc| wc.wr_id), [3, 1]);
        assert_eq!(a.ctx.raw_clock() - begun, stall + micros(2));
        b.expect(4, WcStatus::Success);
    }
}

#[test]
fn a_partition_ends_in_an_error_at_the_time_that_the_timeouts_make() {
    let (mut a, mut b) = pair("sim:cut", "partition=1ms..");
    assert_eq!(round(&mut a, &mut b), (WcStatus::Success, micros(2)));
    a.ctx.sleep(Duration::from_millis(5));
    let (status, took) = round(&mut a, &mut b);
    assert_eq!(status, WcStatus::RetryExcErr);
    // Three attempts, and a timeout for each.
    assert_eq!(took, 3 * Duration::from_nanos(4096 << 8));
    assert_eq!(a.ctx.async_events().try_next(), None);
}

#[test]
fn what_is_lost_is_sent_again_and_comes_whole() {
    let (mut a, mut b) = pair("sim:lossy", "loss=20%,delay=3us");
    a.fill(0..200_000, 7);
    b.post_recv(1, 400_000..600_000);
    a.post_send(2, 0..200_000);
    assert_eq!(first(&a, &b).status, WcStatus::Success);
    assert!(b.bytes(400_000..600_000).iter().all(|byte| *byte == 7));
    let dropped = a.ctx.counters().into_iter().find(|(name, _)| *name == "fault_dropped");
    assert!(dropped.unwrap().1 > 0);
}

#[test]
fn hours_pass_in_a_moment_asleep_or_polling() {
    let begun = Instant::now();
    let (mut a, mut b) = pair("sim:hours", "none");
    a.ctx.sleep(Duration::from_secs(24 * 3600));
    assert_eq!(a.ctx.raw_clock(), Duration::from_secs(24 * 3600));
    let polling = a.ctx.raw_clock();
    while a.ctx.raw_clock() - polling < Duration::from_secs(60) {
        assert!(a.cq.poll(&mut [WorkCompletion::default()]).is_empty());
    }
    assert_eq!(round(&mut a, &mut b), (WcStatus::Success, micros(2)), "polling has left no mark");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn time_stands_still_while_a_program_only_posts_or_reads_the_clock() {
    let (mut a, b) = pair("sim:still", "none");
    let begun = a.ctx.raw_clock();
    a.post_send(1, 0..8);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(a.ctx.raw_clock(), begun);
    assert_eq!(b.ctx.raw_clock(), begun, "one clock for all on a network");
    let mut polls = 0;
    while a.ctx.raw_clock() - begun < micros(500) {
        a.cq.poll(&mut [WorkCompletion::default()]);
        polls += 1;
    }
    assert!((64..2000).contains(&polls), "{polls} polls");
}

#[test]
fn who_watches_memory_sees_it_written_when_it_is() {
    let (mut a, b) = pair("sim:memory", "none");
    let (slice, remote) = (a.mr.slice(0..8), b.mr.remote().at(64));
    assert!(a.mr.store_u64(0, 77));
    let begun = a.ctx.raw_clock();
    a.qp.post(|wr| {
        wr.write(slice, remote);
    })
    .unwrap();
    while b.mr.load_u64(64) != 77 {
        assert!(a.ctx.raw_clock() - begun < micros(2));
    }
    assert_eq!(a.ctx.raw_clock() - begun, micros(1));
}

#[test]
fn networks_of_other_names_have_other_clocks_and_cannot_be_reached() {
    let (a, _b) = pair("sim:one", "none");
    let other = tbrdma::open("sim:two").unwrap();
    a.ctx.sleep(micros(50));
    assert_eq!((a.ctx.raw_clock(), other.raw_clock()), (micros(50), Duration::ZERO));
    // The third address of that network is nobody's on this one.
    let third = [(); 2].map(|()| tbrdma::open("sim:two").unwrap());
    let peer = Node::of(&third[1], QpType::Rc, |init| init);
    let mut lost = Node::of(&a.ctx, QpType::Rc, |init| init);
    lost.qp
        .connect_with(&peer.qp.address(), &connection(|with| (with.timeout, with.retry_cnt) = (8, 1)))
        .unwrap();
    lost.post_send(1, 0..8);
    assert_eq!(lost.one().status, WcStatus::RetryExcErr);
}

#[test]
fn what_was_sent_arrives_also_when_its_sender_has_closed() {
    let (mut a, mut b) = pair("sim:closed", "none");
    b.post_recv(1, 0..64);
    a.post_send(2, 0..64);
    drop(a);
    assert_eq!(b.one().status, WcStatus::Success);
    assert_eq!(b.ctx.raw_clock(), micros(1));
}

#[test]
#[cfg_attr(not(tbrdma_linux), ignore = "it needs shm")]
fn real_devices_have_a_real_clock() {
    let ctx: Context = tbrdma::open("shm").unwrap();
    assert!(!ctx.has_virtual_time());
    let begun = ctx.raw_clock();
    ctx.sleep(Duration::from_millis(2));
    assert!(ctx.raw_clock() - begun >= Duration::from_millis(2));
    assert_eq!(ctx.wait_for(Some(Duration::from_millis(1)), || None::<()>), None);
    assert_eq!(ctx.wait_for(None, || Some(5)), Some(5));
}

#[test]
fn an_error_raises_its_event_and_events_are_waited_for_in_virtual_time() {
    let (a, mut b) = pair("sim:events", "none");
    let begun = a.ctx.raw_clock();
    assert_eq!(a.ctx.async_events().next(Some(Duration::from_secs(3600))).unwrap(), None);
    assert_eq!(a.ctx.raw_clock() - begun, Duration::from_secs(3600));
    // A key that nobody has given out: the target's queue pair fails.
    let slice = b.mr.slice(0..8);
    let mut remote = a.mr.remote();
    remote.rkey ^= 0xff;
    b.qp.post(|wr| {
        wr.write(slice, remote.at(0));
    })
    .unwrap();
    let event = a.ctx.async_events().next(None).unwrap().unwrap();
    assert_eq!(event.kind, AsyncEventKind::QpAccessErr);
    assert_eq!(a.ctx.raw_clock() - begun, Duration::from_secs(3600) + micros(1));
}
