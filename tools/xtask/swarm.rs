//! `cargo xtask swarm`: many seeds of the simulation, on all cores.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tbrdma_proto::testing::swarm::{Options, Outcome, run, run_script};
use tbrdma_proto::{Time, WcStatus};

/// Runs the simulation from many seeds, and judges each run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Print everything that happens; for one seed.
    #[arg(long)]
    trace: bool,
    /// Run each seed twice and see that the same happens.
    #[arg(long)]
    twice: bool,
    /// Threads; as many as there are cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Run what the fuzz target `pair` found, and print everything that happens.
    #[arg(long, value_name = "FILE")]
    script: Option<std::path::PathBuf>,
    /// Put bugs in on purpose, one at a time, and see that each is found: the name of one, or `all`.
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
}

/// What all runs came to.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) seeds: u64,
    packets: u64,
    lost: u64,
    steps: u64,
    time: Duration,
    statuses: [[u64; 24]; 2],
    /// The failure of the lowest seed.
    pub(crate) failure: Option<Outcome>,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    if let Some(name) = &args.plant {
        return crate::plant::main(name, args.from, args.seeds);
    }
    if let Some(path) = &args.script {
        return replay(path);
    }
    let begun = Instant::now();
    let options = Options { echo: args.trace.then_some(|line| println!("{line}")) };
    let sum = hunt(args.from, args.seeds, args.threads, options, args.twice);
    let seconds = begun.elapsed().as_secs_f64();
    let Sum { seeds, packets, lost, steps, time, statuses, .. } = sum;
    println!(
        "{seeds} seeds in {seconds:.1} s: {:.1} seeds/s, {:.0} packets/s, {packets} packets ({lost} lost), {steps} steps, \
         {:.1} s of virtual time",
        seeds as f64 / seconds,
        packets as f64 / seconds,
        time.as_secs_f64()
    );
    for (half, counts) in ["sends", "receives"].iter().zip(statuses) {
        let some = WcStatus::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        let words: Vec<String> = some.map(|(status, count)| format!("{status:?} {count}")).collect();
        println!("{half}: {}", words.join(", "));
    }
    let Some(outcome) = sum.failure else {
        println!("0 failures");
        return ExitCode::SUCCESS;
    };
    if let Some(failure) = outcome.failure {
        println!("{failure}");
    }
    println!("replay: cargo xtask swarm --from {} --seeds 1 --trace", outcome.seed);
    ExitCode::FAILURE
}

/// Runs the operations in a file.
fn replay(path: &std::path::Path) -> ExitCode {
    let script = match std::fs::read(path) {
        Ok(script) => script,
        Err(error) => {
            eprintln!("{} cannot be read: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    match run_script(&script, Options { echo: Some(|line| println!("{line}")) }).failure {
        Some(failure) => {
            println!("{}\nat {}: {}", failure.scenario, failure.at, failure.violation);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// Runs seeds until one fails or all are done.
pub(crate) fn hunt(from: u64, seeds: u64, threads: Option<usize>, options: Options, twice: bool) -> Sum {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = threads.unwrap_or(cores).max(1);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= seeds {
                        break;
                    }
                    let mut outcome = run(from + index, options);
                    if twice && outcome.failure.is_none() {
                        let again = run(from + index, Options::default());
                        if again.hash != outcome.hash {
                            outcome.failure = Some(differs(&outcome, &again));
                        }
                    }
                    failed.fetch_or(outcome.failure.is_some(), Ordering::Relaxed);
                    let mut sum = sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    sum.add(outcome);
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The failure of a seed that did not do the same twice.
fn differs(one: &Outcome, other: &Outcome) -> tbrdma_proto::testing::swarm::Failure {
    tbrdma_proto::testing::swarm::Failure {
        violation: tbrdma_proto::testing::Violation(format!(
            "the same seed made {:#018x} and then {:#018x}: something is random that must not be",
            one.hash, other.hash
        )),
        at: one.time,
        scenario: String::new(),
        trace: String::new(),
    }
}

impl Sum {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.packets += outcome.totals.packets;
        self.lost += outcome.totals.lost;
        self.steps += outcome.totals.steps;
        self.time += outcome.time.since(Time::ZERO);
        for (half, counts) in outcome.statuses.iter().enumerate() {
            for (sum, count) in self.statuses[half].iter_mut().zip(counts) {
                *sum += count;
            }
        }
        let lower = self.failure.as_ref().is_none_or(|failure| outcome.seed < failure.seed);
        if outcome.failure.is_some() && lower {
            self.failure = Some(outcome);
        }
    }
}
