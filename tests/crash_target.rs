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
use process::{Child, PATIENCE};
use puppet::{End, Obey, all_access, card};
use std::time::{Duration, Instant};
use tbrdma::{
    AsyncEventKind, EventSource, PostRefusal, QpInit, QpState, QpType, QueuePair, RemoteRegion, WcStatus,
    WorkCompletion,
};

/// What most deaths may take to be settled: a second, and slack for a machine that is busy with other things. None takes longer than the tests' patience.
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
    /// Work requests that were posted while the queue pair worked.
    accepted: u64,
    failed: bool,
    event: bool,
    settled: Option<Duration>,
}

/// Deeds to targets whose memory is of a kind, until the last one is dead and settled.
fn kill_targets(deed: Deed, memory: Option<&str>, env: &[(&str, &str)]) {
    let end = End::new(QpType::Rc, false);
    let mr = end.pd.alloc(LEN, all_access()).unwrap();
    let mut random = Random(7 + deed as u64);
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let mut targets: Vec<Target> = (0..TARGETS).map(|_| start(&end, memory, env)).collect();
        let begun = Instant::now();
        for target in &mut targets {
            target.dies = begun + Duration::from_micros(random.below(20_000));
        }
        while targets.iter().any(|target| target.settled.is_none()) {
            for target in &mut targets {
                step(&end, target, deed, mr.slice(..));
            }
            let idle = look(&end, &mut targets);
            for target in &mut targets {
                let since = target.killed.map_or(Duration::ZERO, |killed| killed.elapsed());
                if target.failed && target.event && target.ended == target.posted {
                    target.settled.get_or_insert(since);
                }
                assert!(
                    target.settled.is_some() || !idle || since < PATIENCE,
                    "{deed:?} {memory:?} round {round}: {} of {} ended",
                    target.ended,
                    target.posted
                );
            }
        }
        times.extend(targets.iter().filter_map(|target| target.settled));
        for target in &mut targets {
            assert_eq!(target.qp.state(), QpState::Err);
            target.child.take().unwrap().reap();
        }
    }
    let soon = times.iter().filter(|time| **time < SETTLED).count();
    assert!(2 * soon > times.len(), "{deed:?} {memory:?}: deaths are settled late: {times:?}");
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
    let mut patient = puppet::patient();
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
        accepted: 0,
        failed: false,
        event: false,
        settled: None,
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
        Ok(()) => {
            target.posted += 1;
            if target.qp.state() == QpState::Rts {
                target.accepted = target.posted;
            }
        }
        Err(error) => assert!(matches!(error.reason, PostRefusal::QueueFull { .. }), "{error}"),
    }
}

/// Takes completions and events; whether there were none.
fn look(end: &End, targets: &mut [Target]) -> bool {
    let mut wcs = [WorkCompletion::default(); 16];
    let polled = end.cq.poll(&mut wcs);
    let mut idle = polled.is_empty();
    for wc in polled {
        let target = targets.iter_mut().find(|target| target.qp.qp_num() == wc.qp_num).unwrap();
        target.ended += 1;
        match wc.status {
            WcStatus::Success => assert!(!target.failed, "a success after a failure: {wc:?}"),
            // The first to fail says why, those behind it that they were not tried.
            WcStatus::RetryExcErr => {
                assert!(!target.failed && target.killed.is_some(), "{wc:?}");
                target.failed = true;
            }
            WcStatus::WrFlushErr => {
                // Nothing was under way when the death was found out, and this was posted later.
                let late = target.killed.is_some() && target.ended > target.accepted;
                assert!(target.failed || late, "{wc:?}");
                target.failed = true;
            }
            _ => panic!("{wc:?}"),
        }
    }
    while let Some(event) = end.ctx.async_events().try_next() {
        idle = false;
        assert_eq!(event.kind, AsyncEventKind::QpFatal);
        let of = |target: &&mut Target| event.source == EventSource::QueuePair(target.qp.qp_num());
        // Of the last round, perhaps.
        if let Some(target) = targets.iter_mut().find(of) {
            target.event = true;
        }
    }
    idle
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
