//! Several processes at one address and port: each gets its own packets, whoever comes, goes, stands still or dies.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "common/patient.rs"]
mod patient;
#[path = "common/process.rs"]
mod process;
#[path = "common/seccomp.rs"]
mod seccomp;

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{Uid, setuid};
use patient::patient;
use process::{Child, hear, say, skip};
use std::time::{Duration, Instant};
use tbrdma::{
    Access, CompletionQueue, Context, MemoryRegion, OpenOptions, ProtectionDomain, QpAddress, QpInit,
    QueuePair, WcOpcode, WcStatus, WorkCompletion,
};

const DEVICE: &str = "udp:lo";
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a message: several packets.
const MESSAGE: usize = 10_000;

/// One end of a connection.
struct End {
    qp: QueuePair,
    cq: CompletionQueue,
    mr: MemoryRegion,
    _pd: ProtectionDomain,
    ctx: Context,
}

impl End {
    fn new(ctx: &Context) -> Self {
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(64).unwrap();
        let mr = pd.alloc(1 << 16, Access::LOCAL_WRITE).unwrap();
        let qp = pd.create_qp(QpInit::rc(&cq)).unwrap();
        Self { qp, cq, mr, _pd: pd, ctx: ctx.clone() }
    }

    fn open() -> Self {
        Self::new(&tbrdma::open(DEVICE).unwrap())
    }

    fn post_recv(&mut self) {
        let slice = self.mr.slice(0..MESSAGE);
        self.qp.post_recv(|rq| drop(rq.recv(slice))).unwrap();
    }

    fn send(&mut self, number: u64) {
        self.mr.store_u64(1 << 15, number);
        let slice = self.mr.slice(1 << 15..(1 << 15) + MESSAGE);
        self.qp.post(|wr| drop(wr.send(slice))).unwrap();
    }

    /// The next message's number.
    fn receive(&self) -> Result<u64, WcStatus> {
        let begun = Instant::now();
        let mut wcs = [WorkCompletion::default()];
        loop {
            match self.cq.poll(&mut wcs) {
                [wc] if wc.status != WcStatus::Success => return Err(wc.status),
                [wc] if wc.opcode == WcOpcode::Recv => return Ok(self.mr.load_u64(0)),
                _ => assert!(begun.elapsed() < PATIENCE, "no message within {PATIENCE:?}"),
            }
        }
    }

    fn counter(&self, name: &str) -> u64 {
        self.ctx.counters().into_iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
    }
}

#[test]
fn child() {
    match process::role().as_deref() {
        Some("echo") => echo(),
        Some("stranger") => stranger(),
        Some("without io_uring") => without_io_uring(),
        _ => {}
    }
}

/// Sends back what it gets, and tells what was handed on when asked.
fn echo() {
    let mut end = End::open();
    say(end.qp.address());
    end.qp.connect_with(&hear().parse().unwrap(), &patient()).unwrap();
    end.post_recv();
    say("connected");
    std::thread::scope(|scope| {
        let ctx = end.ctx.clone();
        scope.spawn(move || {
            loop {
                hear();
                let count = |name| {
                    ctx.counters().into_iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
                };
                say(count("udp_forwarded"));
            }
        });
        while let Ok(number) = end.receive() {
            end.post_recv();
            end.send(number + 1);
        }
        // The peer has gone.
        std::process::exit(0);
    });
}

/// An end here and the process it talks to.
struct Pair {
    here: End,
    there: Child,
    number: u64,
}

impl Pair {
    fn new() -> Self {
        let mut here = End::open();
        let mut there = Child::start("echo");
        let peer: QpAddress = there.hear().parse().unwrap();
        assert_eq!(there.ask(here.qp.address()), "connected");
        here.qp.connect_with(&peer, &patient()).unwrap();
        Self { here, there, number: 0 }
    }

    fn bounce(&mut self, times: u64) {
        for _ in 0..times {
            self.here.post_recv();
            self.here.send(self.number);
            assert_eq!(self.here.receive(), Ok(self.number + 1));
            self.number += 2;
        }
    }

    /// Packets that were somebody else's.
    fn handed_on(&mut self) -> u64 {
        let there: u64 = self.there.ask("?").parse().unwrap();
        there + self.here.counter("udp_forwarded")
    }
}

#[test]
fn processes_come_and_go_at_one_address() {
    let mut pairs: Vec<_> = (0..3).map(|_| Pair::new()).collect();
    for round in 0..4 {
        for pair in &mut pairs {
            pair.bounce(50);
        }
        match round {
            0 => pairs.remove(1).there.bury(),
            1 => pairs.push(Pair::new()),
            2 => drop(pairs.remove(0)),
            _ => {}
        }
    }
    // Whatever moved when they went, each is soon given its own packets by the kernel.
    let begun = Instant::now();
    loop {
        let before: u64 = pairs.iter_mut().map(Pair::handed_on).sum();
        pairs.iter_mut().for_each(|pair| pair.bounce(20));
        let after: u64 = pairs.iter_mut().map(Pair::handed_on).sum();
        if after == before {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "packets still go to the wrong process: {}", after - before);
    }
}

#[test]
fn a_process_that_stands_still_is_in_nobodys_way() {
    let mut first = Pair::new();
    first.bounce(10);
    first.there.stop();
    let mut second = Pair::new();
    second.bounce(50);
    first.there.signal(Signal::SIGCONT);
    first.bounce(10);
    second.bounce(10);
}

/// Another user: says what opening the address says.
fn stranger() {
    setuid(Uid::from_raw(65_534)).unwrap();
    let ctx = tbrdma::open(DEVICE).unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(4).unwrap();
    let mut qp = pd.create_qp(QpInit::rc(&cq)).unwrap();
    let address = qp.address();
    match qp.connect(&address) {
        Ok(()) => say("connected"),
        Err(error) => say(error),
    }
}

#[test]
fn another_user_is_told_who_has_the_port() {
    if !Uid::effective().is_root() {
        return skip("only root can become another user");
    }
    let mut end = End::open();
    let address = end.qp.address();
    end.qp.connect(&address).unwrap();
    let answer = Child::start("stranger").hear();
    assert!(answer.contains("4791") && answer.contains("a process of user 0"), "{answer}");
}

/// A sandbox that forbids io_uring: says how the device receives, and that it does.
fn without_io_uring() {
    let ctx = match seccomp::deny(&[libc::SYS_io_uring_setup]) {
        Ok(()) => OpenOptions::new().open(DEVICE).unwrap(),
        Err(error) => return say(format!("no filter: {error}")),
    };
    bounce_within(&ctx);
    say(ctx.describe());
}

/// Two queue pairs of one context talk to each other.
fn bounce_within(ctx: &Context) {
    let (mut a, mut b) = (End::new(ctx), End::new(ctx));
    a.qp.connect_with(&b.qp.address(), &patient()).unwrap();
    b.qp.connect_with(&a.qp.address(), &patient()).unwrap();
    for number in 0..20 {
        b.post_recv();
        a.send(number);
        assert_eq!(b.receive(), Ok(number));
    }
}

#[test]
fn where_io_uring_is_forbidden_the_plain_calls_are_used() {
    let child = Child::start_with("without io_uring", &[("TBRDMA_UDP_IO", "uring")]);
    let answer = child.hear();
    if answer.starts_with("no filter") {
        return skip(answer);
    }
    assert!(answer.contains("recvmsg") && answer.contains("io_uring is not to be had"), "{answer}");
}
