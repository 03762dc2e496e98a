//! Targets killed in the middle of what we do to them: every work request of ours ends, with the right status, soon.

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

use pattern::Random;
use process::Child;
use puppet::{End, Obey, all_access, card};
use std::time::{Duration, Instant};
use tbrdma::{
    AsyncEventKind, Connection, EventSource, PostRefusal, QpInit, QpType, QueuePair, RemoteRegion, WcStatus,
    WorkCompletion,
};

/// What a death may take to be known: a second, and slack for a machine that is busy with other things.
const SETTLED: Duration = Duration::from_secs(3);
/// Targets that die in one round, at moments of their own.
const TARGETS: usize = 6;
const ROUNDS: u64 = 6;
const LEN: usize = 1 << 20;

#[test]
fn child() {
    if process::role().is_some() {
        puppet::play();
    }
}

/// What we do to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Write,
    Read,
    /// There is no receive: it waits.
    Send,
    Atomic,
}

struct Target {
    child: Option<Child>,
    qp: QueuePair,
    remote: RemoteRegion,
    dies: Instant,
    killed: Option<Instant>,
    posted: u64,
    ended: u64,
    failed: bool,
    event: bool,
}

/// Deeds to targets whose memory is of a kind, until the last one is dead and settled.
fn kill_targets(deed: Deed, memory: Option<&str>, env: &[(&str, &str)]) {
    let end = End::new(QpType::Rc, false);
    let mr = end.pd.alloc(LEN, all_access()).unwrap();
    let mut random = Random(7 + deed as u64);
    for round in 0..ROUNDS {
        let mut targets: Vec<Target> = (0..TARGETS).map(|_| start(&end, memory, env)).collect();
        let begun = Instant::now();
        for target in &mut targets {
            target.dies = begun + Duration::from_micros(random.below(20_000));
        }
        while targets.iter().any(|target| !(target.failed && target.event && target.ended == target.posted)) {
            for target in &mut targets {
                step(&end, target, deed, mr.slice(..));
            }
            look(&end, &mut targets);
            for target in &targets {
                let late = target.killed.is_some_and(|killed| killed.elapsed() > SETTLED);
                let settled = target.failed && target.event && target.ended == target.posted;
                assert!(
                    settled || !late,
                    "{deed:?} {memory:?} round {round}: {} of {} ended",
                    target.ended,
                    target.posted
                );
            }
        }
        for target in &mut targets {
            assert_eq!(target.qp.state(), tbrdma::QpState::Err);
            target.child.take().unwrap().reap();
        }
    }
}

fn start(end: &End, memory: Option<&str>, env: &[(&str, &str)]) -> Target {
    let mut child = Child::start_with("puppet", env);
    let mut theirs = child.run("open rc");
    if let Some(kind) = memory {
        theirs = child.run(&format!("memory {kind}"));
    }
    let mut words = theirs.split(' ');
    let address = words.next().unwrap().parse().unwrap();
    let mut hex = || u64::from_str_radix(words.next().unwrap(), 16).unwrap();
    let remote = RemoteRegion { addr: hex(), length: hex(), rkey: hex() as u32 };
    let mut qp = end.pd.create_qp(QpInit::rc(&end.cq).max_send_wr(8)).unwrap();
    let mut patient = Connection::default();
    patient.rnr_retry = 7;
    qp.connect_with(&address, &patient).unwrap();
    child.ok(&format!("connect {}", card(&qp.address(), &end.mr.remote())));
    let dies = Instant::now();
    Target {
        child: Some(child),
        qp,
        remote,
        dies,
        killed: None,
        posted: 0,
        ended: 0,
        failed: false,
        event: false,
    }
}

/// Posts one more, and kills the target when its time has come.
fn step(end: &End, target: &mut Target, deed: Deed, slice: tbrdma::MrSlice) {
    if target.killed.is_none() && Instant::now() >= target.dies {
        target.child.as_ref().unwrap().kill();
        target.killed = Some(Instant::now());
    }
    if target.failed || target.posted - target.ended >= 4 {
        return;
    }
    let (remote, word) = (target.remote.at(0), end.mr.slice(0..8));
    let posted = target.qp.post(|wr| match deed {
        Deed::Write => drop(wr.write(slice, remote)),
        Deed::Read => drop(wr.read(slice, remote)),
        Deed::Send => drop(wr.send(word)),
        Deed::Atomic => drop(wr.fetch_and_add(word, remote, 1)),
    });
    match posted {
        Ok(()) => target.posted += 1,
        Err(error) => assert!(matches!(error.reason, PostRefusal::QueueFull { .. }), "{error}"),
    }
}

fn look(end: &End, targets: &mut [Target]) {
    let mut wcs = [WorkCompletion::default(); 16];
    for wc in end.cq.poll(&mut wcs) {
        let target = targets.iter_mut().find(|target| target.qp.qp_num() == wc.qp_num).unwrap();
        target.ended += 1;
        match wc.status {
            WcStatus::Success => assert!(!target.failed, "a success after a failure: {wc:?}"),
            // The first to fail says why, those behind it that they were not tried.
            WcStatus::RetryExcErr => {
                assert!(!target.failed && target.killed.is_some(), "{wc:?}");
                target.failed = true;
            }
            WcStatus::WrFlushErr => assert!(target.failed, "{wc:?}"),
            _ => panic!("{wc:?}"),
        }
    }
    while let Some(event) = end.ctx.async_events().try_next() {
        assert_eq!(event.kind, AsyncEventKind::QpFatal);
        let of = |target: &&mut Target| event.source == EventSource::QueuePair(target.qp.qp_num());
        // Of the last round, perhaps.
        if let Some(target) = targets.iter_mut().find(of) {
            target.event = true;
        }
    }
}

const AGENT: &[(&str, &str)] = &[("TBRDMA_SHM_FOREIGN", "agent")];

#[test]
fn killed_under_writes_and_reads_of_mapped_memory() {
    kill_targets(Deed::Write, None, &[]);
    kill_targets(Deed::Read, None, &[]);
}

#[test]
fn killed_under_the_kernel_s_copies() {
    kill_targets(Deed::Write, Some("Heap"), &[]);
    kill_targets(Deed::Read, Some("Heap"), &[]);
}

#[test]
fn killed_with_a_job_of_its_agent_under_way() {
    // An atomic on application memory is always the agent's.
    kill_targets(Deed::Atomic, Some("Heap"), &[]);
}

#[test]
fn killed_while_we_wait_for_a_receive() {
    kill_targets(Deed::Send, None, &[]);
}

#[test]
fn killed_with_copies_of_its_agent_under_way() {
    // We decide how we reach it, so this process is started again with the wish.
    if std::env::var_os("TBRDMA_SHM_FOREIGN").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["killed_with_copies_of_its_agent_under_way", "--exact", "--quiet"])
            .envs(AGENT.iter().copied())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    kill_targets(Deed::Write, Some("Heap"), AGENT);
    kill_targets(Deed::Read, Some("Heap"), AGENT);
}
