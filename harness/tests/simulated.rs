//! Measurements in a simulated network: virtual time, labelled so, and the same in every run.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::Value;
use std::collections::BTreeMap;
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

/// When each answer of a captured pingpong came to the initiator, in nanoseconds. In virtual time nothing but the network takes any, so that the next
/// message was sent then.
fn answered_at(capture: &[u8]) -> Vec<u64> {
    const ENHANCED_PACKET: u32 = 6;
    const SEND_ONLY: u8 = 4;
    let (mut rest, mut initiator, mut answers) = (capture, None, BTreeMap::new());
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        if word(0) == ENHANCED_PACKET {
            // An IPv6 header, a UDP header, a base transport header.
            let packet = &rest[28..28 + word(20) as usize];
            let bth = packet.get(48..60).unwrap_or(&[0; 12]);
            let from = &packet[8..24];
            if bth[0] == SEND_ONLY && *initiator.get_or_insert(from) != from {
                let psn = u32::from_be_bytes([0, bth[9], bth[10], bth[11]]);
                answers.entry(psn).or_insert_with(|| u64::from(word(12)) << 32 | u64::from(word(16)));
            }
        }
        rest = &rest[word(4) as usize..];
    }
    let mut times: Vec<_> = answers.into_values().collect();
    times.sort_unstable();
    times
}

#[test]
fn every_percentile_is_that_of_the_wire_to_the_resolution_that_is_stated() {
    // Two modes, and a long tail: the slowest takes fifteen times the median.
    for (fault, [median, most]) in [
        ("delay=10us; 30ms: delay=100us", [10_000.0, 100_000.0]),
        ("delay=20us~10us:pareto", [26_000.0, 300_000.0]),
    ] {
        let file = std::env::temp_dir().join(format!("tbrdma-percentiles-{}.pcapng", std::process::id()));
        let output = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"))
            .args(["pingpong", "--device", "sim", "--iters", "2000", "--seed", "3", "--fault", fault])
            .args(["--wait", "event", "--json", "-", "--capture"])
            .arg(&file)
            .output()
            .unwrap();
        let capture = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();

        let answered = answered_at(&capture);
        let number = |value: &Value| value.as_u64().unwrap() as usize;
        let (warmup, lead_in) = (number(&result["warmup"]), number(&result["lead_in"]));
        let batches: Vec<_> =
            result["timeline"].as_array().unwrap().iter().map(|batch| number(&batch["samples"])).collect();
        let mut halves = Vec::new();
        let mut first = warmup;
        for samples in &batches {
            first += lead_in / batches.len();
            halves.extend((first..first + samples).map(|at| (answered[at] - answered[at - 1]) as f64 / 2.0));
            first += samples;
        }
        assert_eq!((halves.len(), answered.len()), (2000, first), "{fault}");
        halves.sort_unstable_by(f64::total_cmp);
        for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("p99_99", 0.9999)]
        {
            let told = result["one_way_ns"][name].as_f64().unwrap();
            let exact = halves[(part * 2000.0_f64).ceil() as usize - 1];
            assert!((told / exact - 1.0).abs() <= 0.001, "{fault}: {name} is {told} and not {exact}");
        }
        let [p50, max] = ["p50", "max"].map(|name| result["one_way_ns"][name].as_f64().unwrap());
        assert!((p50 / median - 1.0).abs() < 0.05 && max >= most, "{fault}: {p50} and {max}");
    }
}

#[test]
fn a_stall_that_a_closed_loop_hides_is_in_the_open_loops_percentiles() {
    const STALL: &str = "delay=5us; 30ms: delay=10ms; 30.15ms: delay=5us";
    let of = |pace: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"))
            .args([
                "pingpong", "--device", "sim", "--wait", "event", "--iters", "5000", "--seed", "1",
                "--fault", STALL, "--json", "-",
            ])
            .args(pace)
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let microseconds = |value: &Value| value.as_f64().unwrap() / 1000.0;
    let (closed, open) = (of(&[]), of(&["--rate", "10k"]));
    // Both have met it: one message of 5000 took 10 ms.
    assert!(microseconds(&closed["one_way_ns"]["max"]) > 5000.0, "{}", closed["one_way_ns"]);
    assert!(microseconds(&closed["one_way_ns"]["p99_9"]) < 5.1, "{}", closed["one_way_ns"]);
    // A hundred others were due meanwhile.
    let [service, response] = ["service_ns", "response_ns"].map(|times| &open["open_loop"][times]);
    assert!(microseconds(&service["p99_9"]) < 10.1, "{service}");
    assert!(microseconds(&response["p99_9"]) > 9000.0, "{response}");
}

#[test]
fn a_stream_is_as_fast_as_its_link() {
    for op in ["write", "send"] {
        let result = result(&format!("bw --op {op} --size 64k --iters 250 --link 10Gbps,5us --wait event"));
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

/// A file of this test's own.
fn scratch(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("tbrdma-bench-simulated-{}-{name}", std::process::id()))
}

#[test]
fn a_mix_follows_from_its_seed_and_each_class_from_its_size() {
    let (plan, json, page) = (scratch("mix.toml"), scratch("mix.json"), scratch("mix.html"));
    let classes =
        [("send", 64, 6), ("write-imm", 4096, 2), ("read", 16_384, 1), ("faa", 8, 1), ("cas", 8, 1)];
    let text = classes
        .map(|(op, size, weight)| format!("[[class]]\nop = \"{op}\"\nsize = {size}\nweight = {weight}\n"));
    std::fs::write(&plan, text.concat()).unwrap();
    let run = |seed| {
        let plan = plan.display();
        let result =
            result(&format!("mixed {plan} --depth 1 --iters 250 --warmup 20 --link 1Gbps,5us --seed {seed}"));
        assert_eq!((&result["verified"], &result["samples"]), (&true.into(), &250.into()));
        result
    };
    let (first, other) = (run(3), run(4));
    assert_eq!(first["classes"], run(3)["classes"], "bit for bit");
    let samples = |result: &Value| {
        result["classes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|class| class["samples"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(samples(&first).iter().sum::<u64>(), 250);
    assert_ne!(samples(&first), samples(&other));
    // 250 throws of the dice stay near their weights.
    assert!((100..173).contains(&samples(&first)[0]), "{:?}", samples(&first));
    // One at a time: there and back, and as long as the link needs for the bytes.
    for (class, bytes) in first["classes"].as_array().unwrap().iter().zip([64.0, 4096.0, 16_384.0]) {
        let p50 = class["ns"]["p50"].as_f64().unwrap();
        let least = 10_000.0 + bytes * 8.0;
        assert!((least..least * 1.15 + 2000.0).contains(&p50), "{bytes} bytes: {p50}");
    }

    std::fs::write(&json, first.to_string()).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"))
        .args(["report".as_ref(), json.as_os_str(), "-o".as_ref(), page.as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("Latencies of each class") && html.contains("write-imm 4096 B"), "{html}");
    for file in [plan, json, page] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn silences_cost_nothing_where_nothing_falls_asleep() {
    for wait in ["poll", "event"] {
        let result =
            result(&format!("idle --gaps 10us,1ms,2s --iters 10 --warmup 4 --link 10us --wait {wait}"));
        assert_eq!((&result["verified"], &result["samples"]), (&true.into(), &10.into()));
        let gaps = result["gaps"].as_array().unwrap();
        assert_eq!(
            gaps.iter().map(|gap| gap["gap_ns"].as_u64().unwrap()).collect::<Vec<_>>(),
            [10_000, 1_000_000, 2_000_000_000]
        );
        for gap in gaps {
            assert!((gap["one_way_ns"]["max"].as_f64().unwrap() / 10_000.0 - 1.0).abs() < 0.002, "{gap}");
        }
        // The silences took place: in virtual time.
        assert!(result["timeline"].as_array().unwrap().last().unwrap()["lasted_s"].as_f64().unwrap() > 20.0);
    }
}
