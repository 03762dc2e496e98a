//! A peer that is stopped, not dead: what needs only its memory goes on, what needs its help ends in time, and it may be continued.

#[path = "common/foreign.rs"]
mod foreign;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/process.rs"]
mod process;
#[path = "common/puppet.rs"]
mod puppet;
#[path = "common/seccomp.rs"]
mod seccomp;
#[path = "common/storm.rs"]
mod storm;

use nix::sys::signal::Signal;
use pattern::Random;
use process::{Child, PATIENCE};
use puppet::{End, Obey, Puppet, all_access, card, pair, patient};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tbrdma::{Connection, QpInit, QpType, WcStatus, WorkCompletion};

#[test]
fn child() {
    match process::role().as_deref() {
        Some("storm") => storm::rage(),
        Some(_) => puppet::play(),
        None => {}
    }
}

#[test]
fn sends_go_on_while_receives_last_and_then_end_by_their_bound() {
    let (mut here, mut there) = pair("open rc");
    for id in 0..4 {
        there.ok(&format!("recv {id} {} 64", 64 * id));
    }
    there.stop();
    for id in 0..4 {
        here.ok(&format!("fill {id} 0 64"));
        here.ok(&format!("post send {id} 0 64"));
        assert_eq!(here.run("wait"), format!("{id} Success Send 64 0"));
    }
    // One-sided operations need nobody.
    here.ok("fill 9 0 5000");
    here.ok("post write 9 0 5000 10000");
    assert_eq!(here.run("wait"), "9 Success RdmaWrite 5000 0");
    here.ok("post read 10 20000 5000 10000");
    assert_eq!(here.run("wait"), "10 Success RdmaRead 5000 0");
    here.ok("check 9 20000 5000");
    // The fifth finds no receive: six retries of half a second, and some slack.
    let begun = Instant::now();
    here.ok("post send 4 0 64");
    here.ok("post send 5 0 64");
    assert_eq!(here.run("wait"), "4 RnrRetryExcErr Send 0 0");
    assert_eq!(here.run("wait"), "5 WrFlushErr Send 0 0");
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    there.signal(Signal::SIGCONT);
    for id in 0..4 {
        assert_eq!(there.run("wait"), format!("{id} Success Recv 64 0"));
        there.ok(&format!("check {id} {} 64", 64 * id));
    }
    there.ok("check 9 10000 5000");
}

#[test]
fn a_stopped_peer_goes_on_where_it_was() {
    let (mut here, mut there) = pair("open rc");
    let end = here.end.as_mut().unwrap();
    end.qp.post_recv(|rq| drop(rq.recv(end.mr.slice(0..64)).id(1))).unwrap();
    there.stop();
    std::thread::sleep(Duration::from_millis(1200));
    // Stopped is not dead.
    here.ok("idle 1");
    assert_eq!(here.run("event 1"), "nothing");
    assert_eq!(here.run("state"), "Rts");
    there.signal(Signal::SIGCONT);
    there.ok("post send 2 0 64");
    assert_eq!(here.run("wait"), "1 Success Recv 64 0");
}

#[test]
fn an_agent_that_is_stopped_ends_the_work_that_needs_it() {
    let (mut here, mut there) = (Puppet::default(), Child::start("puppet"));
    let ours = here.run("open rc");
    there.run("open rc");
    let theirs = there.run("memory Heap");
    here.end.as_mut().unwrap().with = Connection::default();
    here.ok(&format!("connect {theirs}"));
    there.ok(&format!("connect {ours}"));
    there.ok("store 0 5");
    there.stop();
    here.ok("post faa 1 0 8 0 1");
    here.ok("post write 2 0 64 64");
    assert_eq!(here.run("wait"), "1 RetryExcErr FetchAdd 0 0");
    assert_eq!(here.run("wait"), "2 WrFlushErr RdmaWrite 0 0");
    there.signal(Signal::SIGCONT);
    // What was given up is not done later.
    assert_eq!(there.run("load 0"), "5");
}

#[test]
fn nothing_hangs_on_a_peer_that_was_stopped_at_any_moment() {
    let mut random = Random(99);
    for round in 0..15_u64 {
        let end = End::new(QpType::Rc, false);
        let names = ["Send", "SendLong", "Write", "Read", "Atomic"];
        let name = names[round as usize % names.len()];
        let mut child = Child::start("storm");
        let theirs = child.ask(format!("{name} {round}"));
        let mut qp = end.pd.create_qp(QpInit::rc(&end.cq)).unwrap();
        let mr = end.pd.alloc(8 << 16, all_access()).unwrap();
        qp.connect_with(&theirs.split(' ').next().unwrap().parse().unwrap(), &patient()).unwrap();
        assert_eq!(child.ask(format!("connect {}", card(&qp.address(), &mr.remote()))), "ok");
        for index in 0..8 {
            qp.post_recv(|rq| drop(rq.recv(mr.slice(index << 16..(index + 1) << 16)))).unwrap();
        }
        child.say("go");
        let begun = Instant::now();
        let time = Duration::from_micros(random.below(3000));
        let mut wcs = [WorkCompletion::default(); 8];
        while begun.elapsed() < time {
            for _ in end.cq.poll(&mut wcs) {
                qp.post_recv(|rq| drop(rq.recv(mr.slice(0..1 << 16)))).unwrap();
            }
        }
        child.stop();
        // Each of these waits a second at most for one who may be in the middle of something.
        let begun = Instant::now();
        match round % 3 {
            0 => drop(qp),
            1 => drop(qp.reset()),
            _ => qp.to_error().unwrap(),
        }
        let deregistered = mr.deregister();
        drop(mr);
        drop(end);
        assert!(begun.elapsed() < Duration::from_secs(8), "{name}: {:?}", begun.elapsed());
        if let Err(error) = deregistered {
            assert!(error.to_string().contains("stopped"), "{error}");
        }
    }
}

/// Receives of a shared queue.
const DEPTH: usize = 16;

#[test]
fn receives_can_be_posted_again_while_a_stopped_sender_holds_one() {
    beside_a_stopped_sender(20, DEPTH - 2);
}

#[test]
fn a_stopped_sender_does_not_starve_a_shared_receive_queue() {
    beside_a_stopped_sender(20, 20 * DEPTH);
}

/// Stops a sender to a shared receive queue at a random moment; then a healthy one sends `messages`, and each receive that it uses is
/// posted again at once.
fn beside_a_stopped_sender(rounds: u64, messages: usize) {
    let mut random = Random(17);
    for round in 0..rounds {
        let end = End::new(QpType::Rc, false);
        let mut srq = end.pd.create_srq(DEPTH as u32, 1).unwrap();
        // The sender asks our agent to copy, so it is in the middle of a message most of the time.
        let bytes = vec![0; DEPTH * 4096];
        let mr = end.pd.register(bytes, all_access()).unwrap();
        let place = |id: u64| mr.slice(id as usize * 4096..(id as usize + 1) * 4096);
        for id in 0..DEPTH as u64 {
            srq.post_recv(|rq| drop(rq.recv(place(id)).id(id))).unwrap();
        }
        let mut child = Child::start_with("storm", &[("TBRDMA_SHM_FOREIGN", "agent")]);
        let theirs = child.ask(format!("Shared {round}"));
        let mut qp = end.pd.create_qp(QpInit::rc(&end.cq).srq(&srq)).unwrap();
        qp.connect_with(&theirs.split(' ').next().unwrap().parse().unwrap(), &patient()).unwrap();
        assert_eq!(child.ask(format!("connect {}", card(&qp.address(), &end.mr.remote()))), "ok");
        let mut to = end.pd.create_qp(QpInit::rc(&end.cq).srq(&srq)).unwrap();
        let mut from = end.pd.create_qp(QpInit::rc(&end.cq)).unwrap();
        // A receive may be on its way back to the queue for as long as this thread, which posts it, waits for a core.
        let mut with = patient();
        with.rnr_retry = 7;
        from.connect_with(&to.address(), &with).unwrap();
        to.connect_with(&from.address(), &with).unwrap();
        child.say("go");
        let mut wcs = [WorkCompletion::default(); 4];
        let begun = Instant::now();
        let time = Duration::from_micros(random.below(3000));
        while begun.elapsed() < time {
            for wc in end.cq.poll(&mut wcs) {
                srq.post_recv(|rq| drop(rq.recv(place(wc.wr_id)).id(wc.wr_id))).unwrap();
            }
        }
        child.stop();
        // A healthy sender goes on.
        let mut sent = 0;
        let begun = Instant::now();
        while sent < messages {
            from.post(|wr| drop(wr.send(end.mr.slice(0..64)).id(1000))).unwrap();
            let mut both = HashSet::new();
            while both.len() < 2 {
                for wc in end.cq.poll(&mut wcs) {
                    assert_eq!(wc.status, WcStatus::Success, "round {round}, message {sent}");
                    if wc.qp_num != qp.qp_num() {
                        both.insert(wc.qp_num);
                    }
                    if wc.wr_id < 1000 {
                        let posted = srq.post_recv(|rq| drop(rq.recv(place(wc.wr_id)).id(wc.wr_id)));
                        posted.unwrap_or_else(|error| panic!("round {round}, message {sent}: {error}"));
                    }
                }
                assert!(begun.elapsed() < PATIENCE, "round {round}, message {sent}");
            }
            sent += 1;
        }
    }
}
