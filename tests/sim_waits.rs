//! Waiting in a simulated network: asleep on a channel without a thread behind it, in a descriptor with one, and with several threads.

mod common;

use common::{Node, join, patient, quiet};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tbrdma::{Access, CompletionChannel, Context, QpInit, QpType, QueuePair, WorkCompletion};

fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// A node that sleeps on a channel.
fn sleeper(ctx: &Context) -> (Node, CompletionChannel) {
    let channel = ctx.create_comp_channel().unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq_on(64, &channel).unwrap();
    let mr = pd.alloc(1 << 16, common::all_access()).unwrap();
    let qp: QueuePair = pd.create_qp(QpInit::rc(&cq)).unwrap();
    (Node { qp, mr, cq, pd, ctx: ctx.clone() }, channel)
}

fn pair(network: &str) -> [(Node, CompletionChannel); 2] {
    let [mut a, mut b] = [(); 2].map(|()| sleeper(&tbrdma::open(network).unwrap()));
    join(&mut a.0, &mut b.0, &patient());
    [a, b]
}

#[test]
fn a_channel_is_waited_for_without_a_thread_and_to_the_nanosecond() {
    let before = threads();
    let [(mut a, at_a), (mut b, at_b)] = pair("sim:channel");
    for node in [&a, &b] {
        node.cq.req_notify(false).unwrap();
    }
    assert_eq!(at_a.wait(Some(micros(300))).unwrap(), None);
    assert_eq!(a.ctx.raw_clock(), micros(300));
    b.post_recv(1, 0..64);
    a.post_send(2, 0..64);
    assert_eq!(at_b.wait(None).unwrap().as_ref(), Some(&b.cq));
    assert_eq!(b.ctx.raw_clock(), micros(301));
    assert_eq!(at_a.wait(None).unwrap().as_ref(), Some(&a.cq));
    assert_eq!(a.ctx.raw_clock(), micros(302));
    let begun = a.ctx.raw_clock();
    while a.ctx.raw_clock() - begun < micros(10) {
        assert_eq!(at_a.wait(Some(Duration::ZERO)).unwrap(), None, "a look is a poll, so that time goes on");
    }
    // Tests in other threads of this binary come and go; the devices here have started none.
    assert!(threads() <= before + 8, "{before} threads, then {}", threads());
}

#[test]
fn who_sleeps_in_a_descriptor_is_woken() {
    let [(mut a, at_a), (mut b, _at_b)] = pair("sim:descriptor");
    a.cq.req_notify(false).unwrap();
    b.post_recv(1, 0..64);
    a.post_send(2, 0..64);
    let mut fds = [nix::poll::PollFd::new(at_a.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, 20_000_u16).unwrap(), 1, "nobody let time go on");
    assert_eq!(at_a.try_next().as_ref(), Some(&a.cq));
    assert_eq!(a.expect(2, tbrdma::WcStatus::Success).qp_num, a.qp.qp_num());
}

/// Answers every message, asleep on its channel between them.
fn answer(mut node: Node, channel: &CompletionChannel, messages: u64) {
    let mut wcs = [WorkCompletion::default(); 8];
    let mut received = 0;
    while received < messages {
        node.cq.req_notify(false).unwrap();
        let polled: Vec<_> = node.cq.poll(&mut wcs).to_vec();
        if polled.is_empty() {
            channel.wait(None).unwrap().unwrap();
        }
        for wc in polled {
            wc.ok().unwrap();
            if wc.opcode == tbrdma::WcOpcode::Recv {
                received += 1;
                node.post_recv(wc.wr_id, 0..64);
                node.post_send(0, 0..64);
            }
        }
    }
}

/// Sends, and polls for the answer; when each came.
fn ask(node: &mut Node, messages: u64) -> Vec<Duration> {
    let mut wcs = [WorkCompletion::default(); 8];
    let mut times = Vec::new();
    for id in 0..messages {
        node.post_recv(id, 0..64);
        node.post_send(id, 0..64);
        let mut left = 2;
        while left > 0 {
            for wc in node.cq.poll(&mut wcs) {
                wc.ok().unwrap();
                left -= 1;
            }
        }
        times.push(node.ctx.raw_clock());
    }
    times
}

#[test]
fn a_thread_asleep_and_one_that_polls_and_computes_get_on() {
    let [(mut a, _at_a), (mut b, at_b)] = pair("sim:asleep");
    b.post_recv(0, 0..64);
    std::thread::scope(|scope| {
        let answers = scope.spawn(move || answer(b, &at_b, 50));
        for _ in 0..50 {
            ask(&mut a, 1);
            std::hint::black_box((0..10_000).sum::<u64>());
        }
        answers.join().unwrap();
    });
}

#[test]
fn a_wait_with_no_end_is_ended_by_another_thread() {
    let [(mut a, _at_a), (mut b, at_b)] = pair("sim:endless");
    b.post_recv(0, 0..64);
    b.cq.req_notify(false).unwrap();
    std::thread::scope(|scope| {
        let (waits, waiting) = mpsc::channel();
        let waiter = scope.spawn(move || {
            waits.send(()).unwrap();
            at_b.wait(None).unwrap().is_some()
        });
        waiting.recv().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        a.post_send(1, 0..64);
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn a_thread_that_is_busy_holds_time_up_for_one_that_waits() {
    let [(mut a, _at_a), (mut b, at_b)] = pair("sim:busy");
    b.post_recv(0, 0..64);
    b.post_recv(1, 0..64);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            for _ in 0..2 {
                b.cq.req_notify(false).unwrap();
                if b.cq.poll(&mut [WorkCompletion::default()]).is_empty() {
                    assert!(at_b.wait(Some(Duration::from_secs(3600))).unwrap().is_some());
                }
            }
        });
        ask_only(&mut a);
        // Away for a while: the other's hour must not pass in it.
        std::thread::sleep(quiet());
        ask_only(&mut a);
        waiter.join().unwrap();
    });
}

fn ask_only(node: &mut Node) {
    node.post_send(0, 0..64);
    while node.cq.poll(&mut [WorkCompletion::default()]).is_empty() {}
}

/// Two threads in turns: one polls, one sleeps; when each answer came.
fn in_turns(network: &str) -> Vec<Duration> {
    let [(mut a, _at_a), (mut b, at_b)] = pair(network);
    b.post_recv(0, 0..64);
    let (asks, answers) = (a.ctx.take_turns(), b.ctx.take_turns());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _turn = answers.begin();
            answer(b, &at_b, 200);
        });
        let _turn = asks.begin();
        ask(&mut a, 200)
    })
}

#[test]
fn threads_that_take_turns_do_the_same_each_time() {
    let first = in_turns("sim:turns");
    assert_eq!(first, in_turns("sim:turns"));
    let rounds: Vec<_> = first.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(rounds.iter().all(|round| *round == micros(2)), "{rounds:?}");
}

#[test]
fn word_from_another_thread_is_waited_for_in_turns() {
    let ctx = tbrdma::open("sim:word").unwrap();
    let (first, second) = (ctx.take_turns(), ctx.take_turns());
    let (say, hear) = mpsc::channel();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let ctx = &ctx;
        scope.spawn(move || {
            let _turn = first.begin();
            ctx.sleep(Duration::from_secs(30));
            say.send("word").unwrap();
            ctx.sleep(Duration::from_secs(30));
        });
        let _turn = second.begin();
        let heard = ctx.wait_for(None, || hear.try_recv().ok());
        assert_eq!((heard, ctx.raw_clock()), (Some("word"), Duration::from_secs(30)));
    });
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn profiles_and_other_names_work_as_on_any_device() {
    let ctx = tbrdma::OpenOptions::new().profile("connectx").open("mlx5_0=sim:named").unwrap();
    assert_eq!((ctx.name(), ctx.profile().name), ("mlx5_0", "connectx"));
    assert!(ctx.has_virtual_time());
    let apple = tbrdma::OpenOptions::new().profile("apple-tb5").open("sim:named").unwrap();
    let pd = apple.alloc_pd().unwrap();
    let cq = apple.create_cq(16).unwrap();
    assert!(pd.create_qp(QpInit::rc(&cq)).is_err(), "such a port has no RC");
    let mr = pd.alloc(4096, Access::LOCAL_WRITE | Access::REMOTE_WRITE).unwrap();
    drop((pd.create_qp(QpInit::new(QpType::Uc, &cq)).unwrap(), mr));
    assert!(tbrdma::devices().iter().any(|device| device.name == "sim"));
    assert!(ctx.describe().contains("virtual time"), "{}", ctx.describe());
}
