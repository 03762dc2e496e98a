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

#[test]
fn threads_take_turns_and_each_tells_its_own() {
    let run = || {
        let result = result(
            "pingpong --op send --threads 3 --qps 2 --iters 40 --warmup 6 --fault loss=1%,delay=2us~1us --seed 5",
        );
        let threads: Vec<Value> = result["per_thread"].as_array().unwrap().clone();
        let of_each = |what: &str| threads.iter().map(|thread| thread[what].clone()).collect::<Vec<_>>();
        let all = [of_each("one_way_ns"), vec![result["one_way_ns"].clone(), result["distribution"].clone()]];
        (of_each("samples"), all)
    };
    let (samples, first) = run();
    assert_eq!((samples.clone(), first.clone()), run(), "bit for bit");
    assert_eq!(samples, [14, 13, 13]);
    let worst = first[0].iter().map(|ns| ns["max"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(first[1][0]["max"].as_f64(), Some(worst));

    // What a link carries does not grow with the threads that use it, and they have it in equal parts.
    let result = result(
        "bw --op write --size 16k --depth 4 --threads 2 --qps 2 --iters 100 --warmup 4 --link 10Gbps,1us",
    );
    let rate = |value: &Value| 8.0 * value["bytes_per_s"].as_f64().unwrap();
    assert!((8e9..10e9).contains(&rate(&result["bandwidth"])), "{:#}", result["bandwidth"]);
    let shares: Vec<f64> = result["per_thread"].as_array().unwrap().iter().map(rate).collect();
    assert!(shares.len() == 2 && shares.iter().all(|share| (4e9..6e9).contains(share)), "{shares:?}");
    assert_eq!((&result["verified"], &result["samples"]), (&true.into(), &100.into()));
}
