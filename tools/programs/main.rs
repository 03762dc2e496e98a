//! Other people's RDMA programs, as Debian builds them, on tbrdma's devices under `tbrdma-run`: server and client as two processes, every program and
//! flag twice in a row, and nothing left behind.
//!
//! | file | what |
//! |---|---|
//! | `cache` | Debian's packages, unpacked into a folder |
//! | `stage` | a place of our own to run them in: network, `/tmp`, `/dev/shm` |
//! | `census` | what is there, to see what was left behind |
//! | `pair` | a server and its client |
//! | `cases/` | what is run: a file a family of programs |
//! | `pyverbs` | rdma-core's own tests, in Python |
//! | `agreement` | what perftest measures beside what `tbrdma-bench` does |
//! | `killed` | programs that are killed, and the runs after them |

#![forbid(unsafe_code)]

mod agreement;
mod cache;
mod cases;
mod census;
mod killed;
mod pair;
mod pyverbs;
mod stage;

use anyhow::Result;
use cache::Cache;
use census::Census;
use clap::Parser;
use stage::Stage;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tbrdma_kit::Report;

/// Runs Debian's RDMA programs on tbrdma's devices.
#[derive(Parser)]
#[command(name = "programs")]
struct Arguments {
    /// Only checks whose name contains this.
    filter: Option<String>,
    /// Where tbrdma-run is, beside the drop-in library.
    #[arg(long, value_name = "FILE")]
    run: PathBuf,
    /// One run of each, and only of those that are quick: a minute instead of ten.
    #[arg(long)]
    quick: bool,
    /// How often each is run.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Instead of all others: kill programs so many times, at random moments, and run one to its end after each.
    #[arg(long, value_name = "TIMES")]
    kill: Option<u32>,
    /// Instead of all others: the tests of rdma-core, in Python.
    #[arg(long, conflicts_with = "kill")]
    pyverbs: bool,
    /// Instead of all others: perftest's medians beside those of `tbrdma-bench`, which must lie beside tbrdma-run.
    #[arg(long, conflicts_with_all = ["kill", "pyverbs"])]
    agree: bool,
    /// The seed of the random moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Shows what the programs say.
    #[arg(long, short)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let mut report = Report::new(arguments.filter.clone());
    if let Err(error) = run(&mut report, &arguments) {
        report.always("all of it", || Err(error));
    }
    println!("programs: {:.1} s", begun.elapsed().as_secs_f64());
    report.finish()
}

fn run(report: &mut Report, arguments: &Arguments) -> Result<()> {
    let cache = if arguments.pyverbs { Cache::with_pyverbs()? } else { Cache::open()? };
    let stage = Stage::enter(&cache, &arguments.run, arguments.verbose)?;
    if let Some(reason) = stage.is_shared() {
        report.always("what is left in /tmp and /dev/shm", || Err(reason));
    }
    if arguments.pyverbs {
        return pyverbs::run(report, &stage);
    }
    if let Some(times) = arguments.kill {
        return killed::run(report, &stage, times, arguments.seed);
    }
    if arguments.agree {
        agreement::run(report, &stage);
        return Ok(());
    }
    for device in cases::DEVICES {
        report.set_prefix(&format!("{}: ", device.name));
        for case in cases::all(device) {
            if arguments.quick && case.is_thorough {
                continue;
            }
            let rounds = if arguments.quick { 1 } else { arguments.rounds };
            report.check(&case.name, || {
                let mut seen = String::new();
                for _ in 0..rounds {
                    let before = Census::take(&stage)?;
                    seen = case.run(&stage, device)?;
                    before.check_again(&stage)?;
                }
                Ok(seen)
            });
        }
    }
    Ok(())
}
