//! Traces of programs: recorded, and replayed with their timing or without.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{conforms, json, run, scratch, stderr, stdout};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What ib_send_lat posted in 40 rounds, one request at a time.
const SEND_LAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/send_lat.txt");
/// Every operation, over every transport, by both ways of posting; and what cannot be replayed.
const MIXED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/mixed.txt");

fn replay(trace: &str, flags: &[&str]) -> Value {
    let output = run(&[&["replay", trace, "--json", "-"], flags].concat());
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{flags:?}");
    let value = json(&stdout(&output));
    conforms(&value, include_str!("../schema/tbrdma-bench-replay-1.json"));
    assert_eq!((value["verified"].as_bool(), value["errors"].as_u64()), (Some(true), Some(0)), "{value}");
    value
}

/// The latencies of one operation.
fn p50(value: &Value, name: &str) -> (Option<f64>, Option<f64>) {
    let operations = value["operations"].as_array().unwrap();
    let operation = operations.iter().find(|operation| operation["name"] == name).expect(name);
    (operation["traced_ns"]["p50"].as_f64(), operation["report"]["one_way_ns"]["p50"].as_f64())
}

#[test]
fn a_trace_is_replayed_with_its_timing_and_its_latencies_stand_beside_the_new_ones() {
    let value = replay(SEND_LAT, &["--device", "sim", "--link", "10us"]);
    assert_eq!((value["requests"].as_u64(), value["timing"].as_str()), (Some(40), Some("trace")));
    let (traced, here) = p50(&value, "send rc 64");
    // 10 us there and 10 us back, to the resolution of the histogram.
    assert!((here.unwrap() / 20_000.0 - 1.0).abs() < 0.002, "{here:?}");
    assert!((1e3..1e6).contains(&traced.unwrap()), "{traced:?}");
    let seconds = |which: &str| value["posting_s"][which].as_f64().unwrap();
    assert!((seconds("trace") - seconds("replay")).abs() < 1e-6 && seconds("trace") > 0.01, "{value}");
    assert_eq!(value["kept"].as_bool(), Some(true));

    let fast = replay(SEND_LAT, &["--device", "sim", "--link", "10us", "--fast"]);
    // The queue of the program held one request.
    let posting = fast["posting_s"]["replay"].as_f64().unwrap();
    assert!((posting / (39.0 * 20e-6) - 1.0).abs() < 0.01, "{posting}");
    assert!(fast["kept"].is_null() && fast["timing"] == "fast");
}

#[test]
fn every_operation_is_replayed_and_what_cannot_be_is_counted() {
    let value = replay(MIXED, &["--device", "sim", "--link", "2us"]);
    assert_eq!((value["requests"].as_u64(), value["queue_pairs"].as_u64()), (Some(48), Some(3)));
    let passed_over = value["passed_over"].as_object().unwrap();
    let counts: Vec<u64> = passed_over.values().map(|count| count.as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2], "{passed_over:?}");
    assert!(passed_over.keys().any(|why| why.starts_with("LocalInv")), "{passed_over:?}");
    for name in ["read rc 1000", "cas rc 8", "send-imm rc 64", "write-imm rc 32"] {
        let (traced, here) = p50(&value, name);
        assert!(traced.is_some() && here.unwrap() > 3_900.0, "{name}: {traced:?} {here:?}");
    }
    // Nobody asked for their completions.
    assert_eq!(p50(&value, "write rc 4096"), (None, None));
    let without_time = |mut value: Value| {
        for operation in value["operations"].as_array_mut().unwrap() {
            if let Some(report) = operation["report"].as_object_mut() {
                report.remove("environment");
            }
        }
        value
    };
    let again = replay(MIXED, &["--device", "sim", "--link", "2us"]);
    assert_eq!(without_time(value), without_time(again), "virtual time repeats itself");
}

#[test]
fn two_processes_replay_a_trace_and_a_page_takes_the_result() {
    let (file, page) = (scratch("replay.json"), scratch("replay.html"));
    let output = run(&["replay", MIXED, "--fast", "--json", file.to_str().unwrap()]);
    let text = stdout(&output);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("started by the harness") && text.contains("not replayed  1: LocalInv"), "{text}");
    let output = run(&["report", file.to_str().unwrap(), "-o", page.to_str().unwrap()]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    assert!(std::fs::read_to_string(&page).unwrap().contains("send-imm"));
    for file in [file, page] {
        std::fs::remove_file(file).unwrap();
    }
    let output = run(&["replay", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("tbrdma-run --trace"), "{}", stderr(&output));
}

#[test]
fn recording_starts_tbrdma_run_and_says_what_can_be_replayed() {
    // A folder with this program and a tbrdma-run beside it.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("record-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (program, trace) = (folder.join("tbrdma-bench"), folder.join("calls.txt"));
    std::fs::hard_link(env!("CARGO_BIN_EXE_tbrdma-bench"), &program).unwrap();
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/tbrdma-run");
    std::os::unix::fs::symlink(stand_in, folder.join("tbrdma-run")).unwrap();
    let child = Command::new(&program)
        .args(["record", "-o", trace.to_str().unwrap(), "--device", "mlx5_0=shm", "--seed", "7", "--"])
        .args(["sh", "-c", "exit 3"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = common::finish(child, &["record"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "the program's own: {said}");
    assert!(said.contains("40 requests on 1 queue pair"), "{said}");
    let arguments = std::fs::read_to_string(folder.join("calls.txt.args")).unwrap();
    assert!(arguments.contains("--device mlx5_0=shm --seed 7 -- sh -c"), "{arguments}");
    std::fs::remove_dir_all(&folder).unwrap();
}
