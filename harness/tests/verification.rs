//! The checks can fail: a side that sends other bytes than it should, or counts otherwise, is caught.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tbrdma_bench::cli::Extent;
use tbrdma_bench::control::{Account, Channel, Go, Message};
use tbrdma_bench::lanes::{Crew, Part as _};
use tbrdma_bench::mixed::{self, Class, Mixed};
use tbrdma_bench::pingpong::{self, Pingpong};
use tbrdma_bench::plan::{Benchmark, Op, Plan, Transport, Wait};
use tbrdma_bench::progress::Progress;
use tbrdma_bench::session::{self, Role, Session};
use tbrdma_bench::stream::{self, Stream};

fn plan(benchmark: Benchmark, op: Op) -> Plan {
    Plan {
        benchmark,
        op,
        transport: Transport::Rc,
        size: if op.is_atomic() { 8 } else { 40 },
        wait: Wait::Poll,
        inline: false,
        depth: 8,
        post_list: 2,
        signal_every: 4,
        device: "shm".into(),
        pin_responder: None,
        timeout_ms: 60_000,
        profile: None,
        link: None,
        fault: None,
        seed: Some(1),
        memory: tbrdma_bench::plan::Memory::Library,
        threads: 1,
        qps: 1,
        mix: [Op::Send, Op::Write, Op::WriteImm, Op::Read]
            .map(|op| Class { op, size: 40, weight: 1 })
            .to_vec(),
        gaps_ns: Vec::new(),
        like: None,
    }
}

fn channels() -> (Channel, Channel) {
    let (a, b) = UnixStream::pair().unwrap();
    let channel = |stream: UnixStream| {
        Channel::new(stream.try_clone().unwrap(), stream, "the other thread".into(), || {}).unwrap()
    };
    (channel(a), channel(b))
}

fn establish(plan: &Plan, role: Role, channel: &mut Channel) -> Session {
    let open = session::open("shm", plan, role, None).unwrap();
    Session::establish(&open, plan, role, channel).unwrap().0
}

enum Part {
    Pingpong(Box<Pingpong>),
    Stream(Stream),
    Mixed(Box<Mixed>),
}

/// A responder whose session `bend` has bent.
fn respond(mut channel: Channel, plan: &Plan, bend: impl Fn(&mut Session)) {
    let mut session = establish(plan, Role::Responder, &mut channel);
    bend(&mut session);
    let mut part = match plan.benchmark {
        Benchmark::Mixed => Part::Mixed(Box::new(Mixed::new(vec![session]).unwrap())),
        Benchmark::Pingpong => Part::Pingpong(Box::new(Pingpong::new(vec![session]).unwrap())),
        _ => Part::Stream(Stream::new(vec![session]).unwrap()),
    };
    match &part {
        Part::Pingpong(pingpong) => pingpong.session().meet(&mut channel).unwrap(),
        Part::Stream(stream) => stream.session().meet(&mut channel).unwrap(),
        Part::Mixed(mixed) => mixed.session().meet(&mut channel).unwrap(),
    }
    let mut answer = |go: Go, channel: &mut Channel| match &mut part {
        Part::Pingpong(pingpong) => pingpong.respond(go),
        Part::Stream(stream) => stream.respond(go, channel),
        Part::Mixed(mixed) => mixed.respond(go, channel),
    };
    while let Ok(Message::Go(go)) = channel.receive(Duration::from_secs(60)) {
        let account = answer(go, &mut channel).unwrap();
        channel.send(&Message::Done(account)).unwrap();
    }
}

/// What the initiator finds with such a responder.
fn found(benchmark: Benchmark, op: Op, bend: impl Fn(&mut Session) + Send) -> Account {
    let plan = plan(benchmark, op);
    let (ours, theirs) = channels();
    let progress = Progress::new(benchmark, true);
    std::thread::scope(|scope| {
        let plan = &plan;
        scope.spawn(move || respond(theirs, plan, bend));
        // A panic here closes the channel, and the responder does not wait for nothing.
        let mut ours = ours;
        let session = establish(plan, Role::Initiator, &mut ours);
        let extent = Extent::Messages(50);
        let account = match benchmark {
            Benchmark::Pingpong => {
                let pingpong = Pingpong::new(vec![session]).unwrap();
                pingpong.session().meet(&mut ours).unwrap();
                let mut crew = Crew::Alone(Box::new(pingpong));
                let floor = |_: &mut Channel| Ok(None);
                pingpong::measure(&mut crew, plan, &mut ours, extent, Some(10), None, &progress, floor)
                    .unwrap()
                    .account
            }
            Benchmark::Mixed => {
                let mixed = Mixed::new(vec![session]).unwrap();
                mixed.session().meet(&mut ours).unwrap();
                let mut crew = Crew::Alone(Box::new(mixed));
                mixed::measure(&mut crew, plan, &mut ours, extent, Some(10), &progress).unwrap().account
            }
            _ => {
                let stream = Stream::new(vec![session]).unwrap();
                stream.session().meet(&mut ours).unwrap();
                let mut crew = Crew::Alone(Box::new(stream));
                let machine = |_: &mut Channel| Ok(Some(1.0));
                stream::measure(&mut crew, plan, &mut ours, extent, Some(10), &progress, machine)
                    .unwrap()
                    .account
            }
        };
        ours.send(&Message::Finish).unwrap();
        account
    })
}

#[test]
fn an_honest_peer_gives_no_errors() {
    for op in [Op::Send, Op::SendImm, Op::Write, Op::WriteImm, Op::Read, Op::Cas, Op::Faa] {
        for benchmark in [Benchmark::Pingpong, Benchmark::Bw, Benchmark::Rate] {
            let account = found(benchmark, op, |_| {});
            assert_eq!((account.errors, account.first_error), (0, None), "{benchmark} {op}");
            assert!(account.checked > 0, "{benchmark} {op}");
        }
    }
}

#[test]
fn a_peer_with_other_bytes_is_caught_by_both_sides() {
    // It takes itself for the initiator: it sends what it should get, and expects what it should send.
    for op in [Op::Send, Op::SendImm, Op::WriteImm] {
        let account = found(Benchmark::Pingpong, op, |session| session.role = Role::Initiator);
        assert!(account.checked > 0);
        assert_eq!(account.errors, account.checked, "{op}: every message of both directions is wrong");
        assert!(account.first_error.unwrap().contains("is not what was sent"), "{op}");
    }
}

#[test]
fn memory_that_does_not_hold_what_it_should_is_caught() {
    // The stream's slots are counted otherwise at the target: each holds another message than it should.
    for op in [Op::Write, Op::Send, Op::WriteImm] {
        let account = found(Benchmark::Bw, op, |session| session.plan.depth = 5);
        assert!(account.errors > 0, "{op}");
    }
    // What is read was never filled; what is added to began elsewhere.
    for op in [Op::Read, Op::Cas, Op::Faa] {
        for benchmark in [Benchmark::Pingpong, Benchmark::Rate] {
            let account = found(benchmark, op, |session| {
                session.plan.op = Op::Send;
                session.incoming.write(0, b"not zero");
            });
            assert!(account.errors > 0, "{benchmark} {op}");
        }
    }
}

#[test]
fn a_mix_of_other_bytes_is_caught_message_by_message() {
    assert_eq!(found(Benchmark::Mixed, Op::Send, |_| {}).errors, 0);
    // The peer has the same dice, and other bytes.
    let account = found(Benchmark::Mixed, Op::Send, |session| {
        session.number += 1;
        session.plan.seed = Some(0);
    });
    assert_eq!((account.checked, account.errors), (60, 60), "{account:?}");
}
