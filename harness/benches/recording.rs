//! What measuring adds to a message: `cargo bench -p tbrdma-bench --bench recording`.
//!
//! A closed loop reads the clock once a round trip, which is the end of one and the beginning of the next, and records the difference. That is done here
//! and nothing else, and timed; a round trip is two messages. What follows each reading is counted under callgrind, and fails when it is over its
//! ceiling. The time is told, and judged by nobody.

#[path = "../../benches/common/callgrind.rs"]
mod callgrind;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tbrdma_bench::clock::{self, Clock, Source, Stamp};
use tbrdma_bench::histogram::{Latencies, Measures};

/// Rounds that are counted, and that are timed.
const COUNTED: u64 = 5_000;
const TIMED: u64 = 5_000_000;
/// Messages of a round trip.
const MESSAGES: f64 = 2.0;
/// Most instructions that recording takes for a message: what it took when this was set, and a quarter.
const CEILING: f64 = 65.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, count, _, rounds] = arguments.as_slice()
        && count == "--count"
        && let Ok(rounds) = rounds.parse()
    {
        // Readings that are made up: the first of the processor's counter is preceded by some time of calibration, which is never the same.
        let clock = clock::choose(Source::Os);
        let start = clock.now();
        measure(rounds, |round| clock.after(start, Duration::from_nanos(900 * round)), clock);
        return ExitCode::SUCCESS;
    }
    if let Some(outcome) = callgrind::cannot(&arguments) {
        return outcome;
    }
    println!("what measuring adds to a message");
    for (name, source) in [("TSC", Source::Auto), ("CLOCK_MONOTONIC", Source::Os)] {
        let clock = Clock::of(source);
        let begun = Instant::now();
        measure(TIMED, |_| clock.now(), clock);
        let ns = begun.elapsed().as_nanos() as f64 / TIMED as f64 / MESSAGES;
        println!("  read and recorded, {name:16}{ns:>6.1} ns");
    }
    match callgrind::of_a_round("recording", COUNTED, &[]) {
        Ok(instructions) => {
            let instructions = instructions / MESSAGES;
            println!("  recorded                  {instructions:>12.1} instructions, ceiling {CEILING}");
            if instructions <= CEILING { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// Records as a pingpong does.
fn measure(rounds: u64, read: impl Fn(u64) -> Stamp, clock: Clock) {
    let Ok(mut latencies) = Latencies::new(Measures::HalfRoundTrip) else { return };
    let mut before = read(0);
    for round in 1..=rounds {
        let after = read(round);
        latencies.record(clock.between(before, after));
        before = after;
    }
    black_box(&latencies);
}
