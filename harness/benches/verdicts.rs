//! Whether `compare` can be believed: `cargo bench -p tbrdma-bench --bench verdicts`. Twenty tries: two sides of runs of the same program, in turns, are noise to it;
//! and if one side is made a tenth slower it says so. What it fails to say is printed; nineteen of twenty is what is wanted of either.
//!
//! The tenth is planted in the results: every latency of one side times 1.1. So it is exact whatever the machine does, and what may hide it is in both sides.
//! Flags of `pingpong` may follow `--`, and before them `--runs N` for each side (four if nothing is said) and `--tries N`.

use std::fmt::Write as _;
use std::process::{Command, ExitCode};

use tbrdma_bench::compare::{Comparison, Flags, Verdict, compare};
use tbrdma_bench::result::Report;

const PLANTED: f64 = 1.1;

/// What is asked for.
struct Asked {
    runs: usize,
    tries: usize,
    pingpong: Vec<String>,
}

fn main() -> ExitCode {
    let asked = match asked(std::env::args().skip(1).filter(|argument| argument != "--bench").collect()) {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!("verdicts: {wrong}");
            return ExitCode::from(2);
        }
    };
    match tried(&asked) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(wrong) => {
            eprintln!("verdicts: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn asked(arguments: Vec<String>) -> Result<Asked, String> {
    let mut asked = Asked { runs: 4, tries: 20, pingpong: Vec::new() };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let number = arguments.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
            number.ok_or_else(|| format!("{argument} wants a number above 0"))
        };
        match argument.as_str() {
            "--runs" => asked.runs = number()?,
            "--tries" => asked.tries = number()?,
            _ => {
                asked.pingpong.push(argument);
                asked.pingpong.extend(arguments.by_ref());
            }
        }
    }
    Ok(asked)
}

/// Whether nineteen of twenty tries were judged rightly, of either kind.
fn tried(asked: &Asked) -> Result<bool, String> {
    let flags = Flags { base: "".into(), new: "".into(), margin: 5.0, confidence: 99.0, seed: 1, json: None };
    let judge =
        |base: &[Report], new: &[Report]| compare(base, new, &flags).map_err(|error| error.to_string());
    let (mut noise, mut found) = (0, 0);
    for number in 0..asked.tries {
        let (mut base, mut new) = (Vec::new(), Vec::new());
        for _ in 0..asked.runs {
            base.push(measure(&asked.pingpong)?);
            new.push(measure(&asked.pingpong)?);
        }
        let same = judge(&base, &new)?;
        let slower: Vec<_> = new.iter().map(slowed).collect();
        let planted = judge(&base, &slower)?;
        noise += usize::from(same.verdict() == Verdict::Noise);
        found += usize::from(planted.verdict() == Verdict::Regression);
        println!("{number:>3}  same: {}   a tenth slower: {}", said(&same), said(&planted));
    }
    println!(
        "runs a side {}; of the same program {noise} of {} are noise; of a tenth planted {found} of {} are found",
        asked.runs, asked.tries, asked.tries
    );
    let enough = (asked.tries * 19).div_ceil(20);
    Ok(noise >= enough && found >= enough)
}

fn said(comparison: &Comparison) -> String {
    let mut text = format!("{:<11}", comparison.verdict());
    for change in &comparison.changes {
        let (low, high) = change.interval;
        let percent = |part: f64| part * 100.0;
        let _ = write!(
            text,
            " {} {:+.1} % ({:+.1}..{:+.1})",
            change.metric.name(),
            percent(change.change),
            percent(low),
            percent(high)
        );
    }
    text
}

/// One run of the program itself.
fn measure(flags: &[String]) -> Result<Report, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"))
        .args(["pingpong", "--duration", "300ms", "--quiet", "--json", "-"])
        .args(flags)
        .output()
        .map_err(|error| format!("tbrdma-bench cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("tbrdma-bench {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Report::parse(&String::from_utf8_lossy(&output.stdout))
}

/// The same result of a program that takes a tenth longer for everything.
fn slowed(report: &Report) -> Report {
    let mut report = report.clone();
    if let Some(summary) = &mut report.one_way_ns {
        for figure in [&mut summary.p50, &mut summary.p99] {
            *figure *= PLANTED;
        }
    }
    for (value, _) in &mut report.distribution {
        *value *= PLANTED;
    }
    for stretch in &mut report.timeline {
        for figure in [&mut stretch.p50, &mut stretch.p99].into_iter().flatten() {
            *figure *= PLANTED;
        }
    }
    report
}
