//! Measurements in a simulated network: virtual time, labelled so, and the same in every run.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::Value;
use std::process::Command;

/// The result of a run.
fn result(arguments: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"))
        .args(arguments.split(' '))
        .args(["--device", "sim", "--json", "-", "--quiet"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_pingpong_takes_what_the_link_takes_and_says_that_time_is_virtual() {
    for wait in ["poll", "event"] {
        let result = result(&format!("pingpong --op send --size 64 --iters 200 --link 10us --wait {wait}"));
        let latencies = &result["one_way_ns"];
        // To the histogram's resolution.
        let close = |value: &Value| (value.as_f64().unwrap() / 10_000.0 - 1.0).abs() < 0.002;
        assert!(close(&latencies["p50"]) && close(&latencies["p99"]), "{latencies}");
        assert_eq!(result["samples"], 200);
        assert_eq!(result["verified"], true);
        assert!(result["environment"]["clock"]["source"].as_str().unwrap().contains("virtual"));
        assert!(result["floor_missing"].as_str().unwrap().contains("virtual"));
    }
}

#[test]
fn the_same_seed_gives_the_same_latencies() {
    let run = || {
        let result =
            result("pingpong --op send --size 4096 --iters 300 --fault loss=2%,delay=20us~10us --seed 3");
        (result["one_way_ns"].clone(), result["counters"].clone(), result["distribution"].clone())
    };
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    assert!(first.1["fault_dropped"].as_u64().unwrap() > 0);
}

#[test]
fn a_stream_is_as_fast_as_its_link() {
    for op in ["write", "send"] {
        let result = result(&format!("bw --op {op} --size 64k --iters 400 --link 10Gbps,5us"));
        let bits = 8.0 * result["bandwidth"]["bytes_per_s"].as_f64().unwrap();
        assert!((8e9..10e9).contains(&bits), "{op}: {bits}");
        assert_eq!(result["verified"], true);
    }
}

#[test]
fn both_sides_are_in_one_process() {
    let output = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"))
        .args(["pingpong", "--device", "sim", "--connect", "127.0.0.1:9"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("inside one process"));
}
