//! What `compare` says of two runs of one program, of a program that has got slower or quicker, and of what cannot be compared.
//!
//! The runs are drawn from real ones (64-byte pingpongs over shared memory on a virtual machine, beside others' work): their stretches in
//! blocks, with the floors beside them. What moves a whole run is made: the machine moves figure and floor alike, and a run differs from the next by itself.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{conforms, json};
use std::process::Command;
use std::slice::from_ref;
use tbrdma_bench::compare::{Comparison, Flags, Verdict, compare};
use tbrdma_bench::result::{FloorReport, Report};

const REAL: [&str; 3] =
    [include_str!("runs/few.json"), include_str!("runs/short.json"), include_str!("runs/busy.json")];

/// One whose floor went from 70 to 45 ns within two seconds, though the library's figure stayed: somebody else came or went.
const UNSTEADY: &str = include_str!("runs/long.json");

#[test]
fn counts_of_instructions_have_no_noise_and_are_held_against_limits() {
    let folder = std::env::temp_dir().join(format!("tbrdma-counts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/counts.json");
    let limits = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/limits.toml");
    let mut counts = json(&std::fs::read_to_string(committed).unwrap());
    conforms(&counts, include_str!("../schema/tbrdma-counts-1.json"));
    let new = folder.join("new.json");
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tbrdma-bench")).args(arguments).arg(&new).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said)
    };
    for (factor, verdict, code) in [(1.0, "noise", 0), (1.06, "regression", 1), (0.9, "improvement", 0)] {
        counts["counts"][1]["instructions"] = (json(&std::fs::read_to_string(committed).unwrap())["counts"]
            [1]["instructions"]
            .as_f64()
            .unwrap()
            * factor)
            .into();
        std::fs::write(&new, counts.to_string()).unwrap();
        let (compared, said) = run(&["compare", committed]);
        assert!(compared == code && said.contains(&format!("\n{verdict}; up to 5 %")), "{compared}: {said}");
        assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
        let (gated, said) = run(&["gate", "--baseline", committed, limits]);
        assert_eq!(gated, code, "{said}");
    }
    let (code, said) = run(&["compare", "--json", "-", committed]);
    conforms(&json(&said), include_str!("../schema/tbrdma-compare-1.json"));
    assert_eq!(code, 0);
    // A limit of counts without a count, and counts beside results.
    let (code, said) = run(&["gate", limits]);
    assert!(code == 2 && said.contains("no --baseline has the same count"), "{code}: {said}");
    std::fs::write(&new, REAL[0]).unwrap();
    let (code, said) = run(&["compare", committed]);
    assert!(code == 2 && said.contains("like with like"), "{code}: {said}");
    std::fs::remove_dir_all(folder).unwrap();
}

fn real(at: usize) -> Report {
    serde_json::from_str(REAL[at]).unwrap()
}

fn flags() -> Flags {
    Flags { base: "a".into(), new: "b".into(), margin: 5.0, confidence: 99.0, seed: 7, json: None }
}

/// e to the power of a number that is normal with this deviation.
fn about_one(dice: &mut fastrand::Rng, deviation: f64) -> f64 {
    ((0..12).map(|_| dice.f64()).sum::<f64>() - 6.0).mul_add(deviation, 0.0).exp()
}

/// Another run of the program of a real one, so much slower.
fn again(dice: &mut fastrand::Rng, real: &Report, slower: f64, own: f64) -> Report {
    let machine = about_one(dice, 0.04);
    let all = machine * about_one(dice, own) * slower;
    let mut run = real.clone();
    let count = real.timeline.len();
    run.timeline.clear();
    while run.timeline.len() < count {
        let from = dice.usize(..count);
        for at in 0..4 {
            let mut stretch = real.timeline[(from + at) % count];
            stretch.p50 = stretch.p50.map(|p50| p50 * all);
            stretch.p99 = stretch.p99.map(|p99| p99 * all);
            stretch.floor = stretch.floor.map(|floor| floor * machine);
            run.timeline.push(stretch);
        }
    }
    for (value, _) in &mut run.distribution {
        *value *= all;
    }
    if let Some(FloorReport::Bounce { one_way_ns, .. }) = &mut run.floor {
        one_way_ns.p50 *= machine;
        one_way_ns.p99 *= machine * about_one(dice, 0.03);
    }
    run
}

/// The verdicts of twenty tries with so many runs of either side, the new ones so much slower.
fn tries(slower: f64, runs: usize, own: f64) -> Vec<Verdict> {
    let mut dice = fastrand::Rng::with_seed(20);
    (0..20)
        .map(|number| {
            let real = real(number % REAL.len());
            let mut side =
                |slower| -> Vec<Report> { (0..runs).map(|_| again(&mut dice, &real, slower, own)).collect() };
            let (base, new) = (side(1.0), side(slower));
            compare(&base, &new, &flags()).unwrap().verdict()
        })
        .collect()
}

#[track_caller]
fn at_least_19(verdicts: &[Verdict], expected: Verdict) {
    let right = verdicts.iter().filter(|verdict| **verdict == expected).count();
    assert!(right >= 19, "{right} of {} say {expected}: {verdicts:?}", verdicts.len());
}

#[test]
fn two_runs_of_one_program_are_noise() {
    at_least_19(&tries(1.0, 1, 0.01), Verdict::Noise);
}

#[test]
fn ten_percent_slower_is_a_regression_and_ten_percent_quicker_an_improvement() {
    at_least_19(&tries(1.1, 1, 0.01), Verdict::Regression);
    at_least_19(&tries(1.0 / 1.1, 1, 0.01), Verdict::Improvement);
}

#[test]
fn several_runs_of_either_side_bear_with_more_noise() {
    at_least_19(&tries(1.0, 6, 0.03), Verdict::Noise);
    at_least_19(&tries(1.1, 6, 0.03), Verdict::Regression);
}

#[test]
fn a_floor_that_moves_within_a_run_makes_a_wide_interval_and_several_runs_a_narrow_one() {
    let real: Report = serde_json::from_str(UNSTEADY).unwrap();
    let mut dice = fastrand::Rng::with_seed(3);
    let mut width = |runs: usize| {
        let mut side =
            |slower| -> Vec<Report> { (0..runs).map(|_| again(&mut dice, &real, slower, 0.01)).collect() };
        let (base, new) = (side(1.0), side(1.1));
        let median = compare(&base, &new, &flags()).unwrap().changes[0].clone();
        median.interval.1 - median.interval.0
    };
    let (one, ten) = (width(1), width(10));
    assert!(one > 0.15 && ten < one, "{one} of one run, {ten} of ten");
}

#[test]
fn what_moves_the_floor_as_well_is_not_the_programs() {
    let base = real(0);
    let mut new = base.clone();
    for stretch in &mut new.timeline {
        stretch.p50 = stretch.p50.map(|p50| p50 * 1.5);
        stretch.floor = stretch.floor.map(|floor| floor * 1.5);
    }
    for (value, _) in &mut new.distribution {
        *value *= 1.5;
    }
    if let Some(FloorReport::Bounce { one_way_ns, .. }) = &mut new.floor {
        one_way_ns.p99 *= 1.5;
    }
    let moved = compare(from_ref(&base), from_ref(&new), &flags()).unwrap();
    assert_eq!(moved.verdict(), Verdict::Noise, "{moved:?}");
    assert!(moved.changes.iter().all(|change| change.beside_floor && change.change.abs() < 0.01));
    // Without one it is told apart from nothing, and that is said.
    new.floor = None;
    for stretch in &mut new.timeline {
        stretch.floor = None;
    }
    let alone = compare(&[base], &[new], &flags()).unwrap();
    assert_eq!(alone.verdict(), Verdict::Regression);
    assert!(alone.changes.iter().all(|change| !change.beside_floor));
}

#[test]
fn throughput_is_better_the_more_there_is() {
    let stream = |rate: f64| {
        let mut report = real(0);
        report.benchmark = serde_json::from_str("\"bw\"").unwrap();
        (report.one_way_ns, report.floor) = (None, None);
        report.bandwidth = serde_json::from_value(serde_json::json!({
            "bytes_per_s": rate, "messages_per_s": 1.0, "elapsed_s": 1.0, "sections": 20,
            "section_bytes_per_s": { "min": rate, "median": rate, "max": rate },
        }))
        .unwrap();
        for stretch in &mut report.timeline {
            (stretch.p50, stretch.p99, stretch.bytes_per_s, stretch.floor) =
                (None, None, Some(rate), Some(2e9));
        }
        report
    };
    let verdict = |new| compare(&[stream(1e9)], &[stream(new)], &flags()).unwrap().verdict();
    assert_eq!(verdict(1.1e9), Verdict::Improvement);
    assert_eq!(verdict(0.9e9), Verdict::Regression);
    assert_eq!(verdict(1.02e9), Verdict::Noise);
}

#[test]
fn the_same_dice_give_the_same_comparison() {
    let once = |seed| -> Comparison { compare(&[real(0)], &[real(1)], &Flags { seed, ..flags() }).unwrap() };
    assert_eq!(once(1), once(1));
    assert_ne!(once(1).changes[0].interval, once(2).changes[0].interval);
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    let (base, mut new) = (real(0), real(1));
    new.size_bytes = 128;
    let error = compare(from_ref(&base), &[new], &flags()).unwrap_err().to_string();
    assert!(error.contains("size_bytes 64 and 128"), "{error}");
    let error = compare(&[base.clone(), base.clone()], &[base], &flags()).unwrap_err().to_string();
    assert!(error.contains("2 results of BASE and 1 of NEW"), "{error}");
}

#[test]
fn the_exit_code_tells_a_regression() {
    let folder = std::env::temp_dir().join(format!("tbrdma-compare-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("base")).unwrap();
    let (base, mut new) = (real(0), real(0));
    for stretch in &mut new.timeline {
        stretch.p50 = stretch.p50.map(|p50| p50 * 1.3);
    }
    for (value, _) in &mut new.distribution {
        *value *= 1.3;
    }
    let write = |name: &str, report: &Report| {
        let path = folder.join(name);
        std::fs::write(&path, report.to_json().unwrap()).unwrap();
        path
    };
    let (base, new, other) =
        (write("base/1.json", &base), write("new.json", &new), write("other.txt", &base));
    let say = |base: &std::path::Path, new: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"))
            .arg("compare")
            .args([base, new])
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said)
    };
    let (code, said) = say(&folder.join("base"), &base);
    assert!(code == 0 && said.contains("noise"), "{code}: {said}");
    let (code, said) = say(&base, &new);
    assert!(code == 1 && said.contains("+30.0 %") && said.contains("regression"), "{code}: {said}");
    let (code, said) = say(&new, &base);
    assert!(code == 0 && said.contains("improvement"), "{code}: {said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let output = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"))
        .args(["compare", "--json", "-"])
        .args([&base, &new])
        .output()
        .unwrap();
    let value = json(&String::from_utf8(output.stdout).unwrap());
    conforms(&value, include_str!("../schema/tbrdma-compare-1.json"));
    assert_eq!((output.status.code(), value["verdict"].as_str()), (Some(1), Some("regression")));
    let change = &value["changes"][0];
    assert!(change["metric"] == "p50" && (change["change"].as_f64().unwrap() - 0.3).abs() < 0.01, "{value}");
    std::fs::write(&other, "{}").unwrap();
    let (code, said) = say(&base, &other);
    assert!(code == 2 && said.contains("no result of tbrdma-bench"), "{code}: {said}");
    std::fs::remove_dir_all(folder).unwrap();
}
