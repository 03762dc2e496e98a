//! Results: every operation on every transport gives JSON by the schema, with bytes that were checked; reports fit a terminal.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{failure, run, scratch, stderr, stdout};
use serde_json::Value;

fn schema() -> Value {
    serde_json::from_str(include_str!("../schema/tbrdma-bench-1.json")).expect("the schema is JSON")
}

/// A tiny run; its result as JSON, which is by the schema.
fn measured(arguments: &[&str]) -> Value {
    measured_as_often_as(arguments, &["--iters", "300", "--warmup", "100"])
}

fn measured_as_often_as(arguments: &[&str], often: &[&str]) -> Value {
    let path = scratch("result.json");
    let file = path.to_str().unwrap();
    let mut all = arguments.to_vec();
    all.extend(often);
    all.extend(["--quiet", "--timeout", "60s", "--json", file]);
    let output = run(&all);
    assert_eq!(output.status.code(), Some(0), "{all:?}: {}", stderr(&output));
    assert_eq!(stderr(&output), "", "{all:?}");
    let text = std::fs::read_to_string(&path).expect("the result is there");
    std::fs::remove_file(&path).unwrap();
    let value: Value = serde_json::from_str(&text).expect("the result is JSON");
    let validator = jsonschema::validator_for(&schema()).expect("the schema is a schema");
    let errors: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{all:?}: {errors:#?} in {text}");
    value
}

#[test]
fn pingpong_like_perftest_checks_the_first_message_of_each_buffer() {
    for (op, size, buffers) in
        [("send", "64", 64), ("write", "64", 2), ("write-imm", "4096", 2), ("write", "3", 2)]
    {
        let result = measured(&["pingpong", "--op", op, "--size", size, "--like", "perftest"]);
        assert_eq!((&result["like"], &result["samples"]), (&Value::from("perftest"), &Value::from(300)));
        assert_eq!((&result["errors"], &result["verified"]), (&Value::from(0), &Value::from(true)));
        assert_eq!(result["messages_checked"], 2 * buffers, "{op}");
    }
    let refused = run(&["pingpong", "--op", "read", "--like", "perftest"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("--op that is answered"), "{}", stderr(&refused));
}

const COMBINATIONS: [(&str, &[&str]); 3] = [
    ("rc", &["send", "send-imm", "write", "write-imm", "read", "cas", "faa"]),
    ("uc", &["send", "send-imm", "write", "write-imm"]),
    ("ud", &["send", "send-imm"]),
];

#[test]
fn pingpong_of_every_operation_on_every_transport() {
    for (transport, ops) in COMBINATIONS {
        for op in ops {
            let result = measured(&["pingpong", "--op", op, "--transport", transport]);
            assert_eq!(result["op"], **op);
            assert_eq!(result["transport"], transport);
            assert_eq!(result["samples"], 300);
            assert_eq!((&result["errors"], &result["verified"]), (&Value::from(0), &Value::from(true)));
            let ns = |name: &str| result["one_way_ns"][name].as_f64().unwrap();
            let order = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"].map(ns);
            assert!(order.is_sorted(), "{order:?}");
            // The summary follows from the distribution.
            let distribution = result["distribution"].as_array().unwrap();
            let values: Vec<f64> = distribution.iter().map(|pair| pair[0].as_f64().unwrap()).collect();
            assert!(values.is_sorted(), "{values:?}");
            assert_eq!(distribution.iter().map(|pair| pair[1].as_u64().unwrap()).sum::<u64>(), 300);
            assert!((ns("max") / values.last().unwrap() - 1.0).abs() < 0.002, "{values:?}");
            let stretches = result["timeline"].as_array().unwrap();
            assert_eq!(
                stretches.iter().map(|stretch| stretch["samples"].as_u64().unwrap()).sum::<u64>(),
                300
            );
            assert!(result["floor"]["one_way_ns"]["p50"].as_f64().unwrap() > 0.0);
            let whole = matches!(*op, "read" | "cas" | "faa");
            let measures = if whole { "round trip of one operation" } else { "half round trip" };
            assert_eq!(result["measures"], measures);
        }
    }
}

#[test]
fn streams_of_every_operation_on_every_transport() {
    for (transport, ops) in COMBINATIONS {
        for op in ops {
            for benchmark in ["bw", "rate"] {
                let result = measured(&[benchmark, "--op", op, "--transport", transport]);
                assert_eq!(result["benchmark"], benchmark);
                assert_eq!((&result["errors"], &result["verified"]), (&Value::from(0), &Value::from(true)));
                assert!(result["messages_checked"].as_u64().unwrap() > 0);
                assert!(result["bandwidth"]["messages_per_s"].as_f64().unwrap() > 0.0);
                assert!(result["floor"]["memcpy_bytes_per_s"].as_f64().unwrap() > 0.0);
                assert!(result["one_way_ns"].is_null());
            }
        }
    }
}

#[test]
fn devices_of_one_peer_are_measured_beside_what_carries_the_same_bytes_plainly() {
    let name = |what: &str| format!("stream:unix:@tbrdma-bench-results-{}-{what}", std::process::id());
    let (window, paired) = (scratch("window"), scratch("paired"));
    let (socket, stores) =
        ("a plain Unix socket", "plain stores into memory as the window's, the last word awaited");
    for (arguments, device, carrier) in [
        (&["pingpong"][..], name("a"), socket),
        (&["bw", "--size", "64k"], name("b,listen"), socket),
        (&["rate", "--op", "send", "--threads", "2"], name("c,connect"), socket),
        (&["pingpong"], format!("bar:file:{}", window.display()), stores),
        (&["bw"], format!("bar:paired:{}", paired.display()), "copies into shared memory as a window's"),
    ] {
        let result = measured(&[arguments, &["--device", &device]].concat());
        assert_eq!(result["device"], device);
        assert_eq!(
            (&result["errors"], &result["verified"]),
            (&Value::from(0), &Value::from(true)),
            "{device}"
        );
        assert_eq!(result["floor"]["carrier"], carrier, "{device}");
        assert!(result["ratio_to_floor"].is_object(), "{device}");
    }
    // Windows stay, as files do: paired ones are two.
    for file in
        [window.display().to_string(), format!("{}.a", paired.display()), format!("{}.b", paired.display())]
    {
        std::fs::remove_file(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let listed = run(&["devices", "--device", &name("d")]);
    assert!(stdout(&listed).contains("to the one peer"), "{}", stderr(&listed));
    for (arguments, device, part) in [
        (&["incast", "--ranks", "3"][..], name("e"), "leads to one peer, and 3 ranks want"),
        (&["pingpong"], "stream:carrier-pigeon".into(), "write stream:unix:/PATH"),
    ] {
        let (_, line) = failure(&[arguments, &["--device", &device]].concat());
        assert!(line.contains(&device) && line.contains(part), "{line}");
    }
}

#[test]
fn an_open_loop_tells_responses_beside_services() {
    for (arrivals, op) in [("fixed", "send"), ("poisson", "write"), ("poisson", "read")] {
        let seed = ["--seed", "5"];
        let result = measured(
            &[&["pingpong", "--op", op, "--rate", "5k", "--arrivals", arrivals][..], &seed].concat(),
        );
        assert_eq!(result["loop"], "open");
        let open = &result["open_loop"];
        assert_eq!((&open["arrivals"], &open["rate_per_s"]), (&Value::from(arrivals), &Value::from(5000.0)));
        assert_eq!(open["seed"], if arrivals == "fixed" { Value::Null } else { 5.into() });
        assert_eq!(open["messages"], 300);
        for quantile in ["min", "p50", "p99", "max"] {
            let ns = |what: &str| open[what][quantile].as_f64().unwrap();
            // Both are rounded to the steps of the histogram.
            assert!(ns("response_ns") >= ns("service_ns") * 0.998, "{quantile} of {open:#}");
        }
    }
    let closed = measured(&["pingpong"]);
    assert_eq!(closed["loop"], "closed");
    let meanwhile = &closed["environment"]["interference"];
    assert!(meanwhile["fixed_work_ns"]["after"].as_f64().unwrap() > 0.0, "{meanwhile:#}");
    assert!(meanwhile["responder"]["minor_faults"].is_u64(), "{meanwhile:#}");
    assert!(measured(&["bw"])["loop"].is_null());
}

#[test]
fn the_clock_is_named_and_checked_against_the_systems() {
    let system = measured(&["pingpong", "--clock", "os"])["environment"]["clock"].clone();
    assert_eq!(system["source"], "CLOCK_MONOTONIC");
    assert!(system["why_not_tsc"].as_str().unwrap().contains("--clock os"), "{system:#}");
    assert!(system["drift_ppm"].is_null() && system["frequency_hz"].is_null(), "{system:#}");
    let clock = measured(&["pingpong"])["environment"]["clock"].clone();
    if clock["why_not_tsc"].is_null() {
        assert_eq!(clock["source"], "TSC");
        assert!(clock["frequency_hz"].as_f64().unwrap() > 1e8, "{clock:#}");
        // A tenth: a machine that takes the core away spoils the comparison, and nothing else.
        assert!(clock["drift_ppm"].as_f64().unwrap().abs() < 1e5, "{clock:#}");
    } else {
        assert_eq!(clock["source"], "CLOCK_MONOTONIC");
    }
}

#[test]
fn rows_of_csv_and_percentiles() {
    let (csv, hgrm) = (scratch("all.csv"), scratch("this.hgrm"));
    let files = ["--csv", csv.to_str().unwrap(), "--hgrm", hgrm.to_str().unwrap()];
    let closed = measured(&[&["pingpong", "--profile", "plain,lids=ipv4"][..], &files].concat());
    let text = std::fs::read_to_string(&hgrm).unwrap();
    assert!(text.contains("half round trip") && text.contains("Total count    =          300]"), "{text}");
    let open = measured(&[&["pingpong", "--rate", "5k"][..], &files].concat());
    assert!(std::fs::read_to_string(&hgrm).unwrap().contains("responses at 5000 messages/s"), "of responses");
    let stream = measured(&["bw", "--csv", csv.to_str().unwrap()]);
    let text = std::fs::read_to_string(&csv).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    for result in [&closed, &open, &stream] {
        // One value of the first row has a comma in it.
        let line = lines.next().unwrap().replace("\"plain,lids=ipv4\"", "profile");
        let values: Vec<&str> = line.split(',').collect();
        assert_eq!(values.len(), names.len(), "{line}");
        let value = |name: &str| values[names.iter().position(|known| *known == name).unwrap()];
        assert_eq!(value("benchmark"), result["benchmark"]);
        let figure = |path: &str| result.pointer(path).and_then(Value::as_f64);
        for (name, path) in [
            ("p99_ns", "/one_way_ns/p99"),
            ("response_p99_ns", "/open_loop/response_ns/p99"),
            ("bytes_per_s", "/bandwidth/bytes_per_s"),
            ("samples", "/samples"),
        ] {
            assert_eq!(value(name).parse().ok(), figure(path), "{name} in {line}");
        }
    }
    assert_eq!(lines.next(), None);
    std::fs::remove_file(&csv).unwrap();
    std::fs::remove_file(&hgrm).unwrap();
}

#[test]
fn a_schedule_that_cannot_be_kept_is_told() {
    let open = measured(&["pingpong", "--rate", "900M"])["open_loop"].clone();
    assert_eq!(open["kept"], false, "{open:#}");
    assert!(open["achieved_per_s"].as_f64().unwrap() < 900e6, "{open:#}");
    let output = run(&["pingpong", "--rate", "900M", "--iters", "300"]);
    let text = stdout(&output);
    assert!(
        text.contains("NOT KEPT") && text.contains("WARNING     the schedule could not be kept"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn no_figure_is_better_than_the_link() {
    let slow = |benchmark, op, size| {
        let few = ["--iters", "20", "--warmup", "1"];
        let all = [benchmark, "--op", op, "--size", size, "--link", "1Gbps,50us"];
        let result = measured_as_often_as(&all, &few);
        assert_eq!(result["link"], "1Gbps,50us");
        result
    };
    for (op, least) in [("send", 50_000.0), ("write", 50_000.0), ("read", 100_000.0)] {
        let fastest = slow("pingpong", op, "64")["one_way_ns"]["min"].as_f64().unwrap();
        assert!(fastest >= least, "{op}: {fastest}");
    }
    let rate = slow("bw", "write", "4k")["bandwidth"]["bytes_per_s"].as_f64().unwrap();
    assert!(rate <= 125e6, "{rate}");
}

#[test]
fn sizes_that_are_odd_small_and_large() {
    for size in ["0", "1", "7", "8", "9", "65", "4095", "70000"] {
        measured(&["pingpong", "--op", "send", "--size", size]);
        let rate = measured(&["rate", "--op", "send", "--size", size]);
        assert_eq!(rate["floor"].is_null(), size == "0");
        assert_eq!(rate["floor_missing"].is_null(), size != "0");
        if size != "0" {
            measured(&["pingpong", "--op", "write", "--size", size]);
            measured(&["bw", "--op", "write", "--size", size]);
            measured(&["pingpong", "--op", "read", "--size", size]);
        }
    }
    measured(&["pingpong", "--op", "write-imm", "--size", "0"]);
    measured(&["bw", "--op", "write", "--size", "1M"]);
}

#[test]
fn memory_of_the_program() {
    for (memory, said) in [("library", "library"), ("registered", "process"), ("adopted", "adopted")] {
        for benchmark in ["pingpong", "bw"] {
            for op in ["send", "write"] {
                let result = measured(&[benchmark, "--op", op, "--size", "200", "--memory", memory]);
                assert!(result["memory"].as_str().unwrap().contains(said), "{}", result["memory"]);
            }
        }
    }
}

#[test]
fn inline_data_and_waiting_asleep() {
    for op in ["send", "send-imm", "write", "write-imm"] {
        assert_eq!(measured(&["pingpong", "--op", op, "--inline", "--size", "32"])["inline"], true);
        measured(&["rate", "--op", op, "--inline", "--size", "16", "--post-list", "8"]);
    }
    for op in ["send", "send-imm", "write-imm", "read", "faa"] {
        assert_eq!(measured(&["pingpong", "--op", op, "--wait", "event"])["wait"], "event");
    }
    measured(&["bw", "--op", "send", "--wait", "event", "--size", "4k"]);
    measured(&["rate", "--op", "write", "--wait", "event"]);
}

#[test]
fn lists_and_signals_in_every_relation_to_the_depth() {
    for (depth, list, every) in
        [("2", "1", "1"), ("10", "3", "10"), ("7", "7", "5"), ("64", "32", "64"), ("16", "1", "16")]
    {
        for op in ["write", "send"] {
            let result = measured(&[
                "rate",
                "--op",
                op,
                "--depth",
                depth,
                "--post-list",
                list,
                "--signal-every",
                every,
            ]);
            assert_eq!(result["depth"].to_string(), depth);
        }
    }
}

#[test]
fn a_report_in_a_pipe_is_plain_text_of_eighty_columns() {
    for arguments in [
        &["pingpong", "--iters", "2000", "--warmup", "10"][..],
        &["pingpong", "--op", "read", "--iters", "100"],
        &["bw", "--iters", "100"],
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output), "", "no progress bar in a pipe");
        let text = stdout(&output);
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "no escape codes: {text:?}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("floor") && text.contains("checked     right, 0 errors"), "{text}");
    }
}

#[test]
fn json_on_standard_output_is_nothing_but_json() {
    let output = run(&["pingpong", "--iters", "100", "--json", "-"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let value: Value = serde_json::from_str(&stdout(&output)).expect("JSON and nothing else");
    assert_eq!(value["schema"], "tbrdma-bench/1");
}

#[test]
fn the_schema_refuses_what_is_no_result() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let good = measured(&["pingpong"]);
    let spoil = |path: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(path).expect("the field is there") = value;
        assert!(!validator.is_valid(&bad), "{path}");
    };
    spoil("/schema", "tbrdma-bench/2".into());
    spoil("/op", "shout".into());
    spoil("/one_way_ns/p50", Value::Null);
    spoil("/one_way_ns", Value::Null);
    spoil("/samples", (-1).into());
    spoil("/verified", "yes".into());
    spoil("/floor/one_way_ns", Value::Null);
    let mut bad = good.clone();
    bad.as_object_mut().unwrap().remove("environment");
    assert!(!validator.is_valid(&bad));
}

#[test]
fn devices_go_by_a_profile_and_the_result_names_it() {
    let profile = "apple-tb5,mr-size=reported";
    for device in ["shm", "udp:lo"] {
        for (benchmark, size, depth) in
            [("pingpong", "4k", None), ("bw", "16k", Some("16")), ("rate", "8", None)]
        {
            let mut arguments = vec![benchmark, "--op", "send", "--transport", "uc", "--size", size];
            arguments.extend(["--device", device, "--profile", profile]);
            // Frames of 4 KiB bound how much is under way.
            arguments.extend(depth.into_iter().flat_map(|depth| ["--depth", depth]));
            let result = measured(&arguments);
            assert_eq!(result["profile"], profile, "{device} {benchmark}");
            assert_eq!((&result["errors"], &result["verified"]), (&Value::from(0), &Value::from(true)));
        }
    }
}

#[test]
fn a_result_is_read_as_it_was_written() {
    let path = scratch("written.json");
    let file = path.to_str().unwrap();
    for mode in [&["pingpong"][..], &["pingpong", "--rate", "2000"], &["bw", "--size", "4k"]] {
        let arguments = [mode, &["--iters", "100", "--warmup", "10", "--quiet", "--json", file]].concat();
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        let report = tbrdma_bench::result::Report::read(&path).expect("a result");
        assert_eq!(report.to_json().unwrap(), std::fs::read_to_string(&path).unwrap());
    }
    for (text, complaint) in [
        ("", "no result of tbrdma-bench"),
        ("{}", "missing field `schema`"),
        (r#"{"schema":"tbrdma-bench/7"}"#, "\"tbrdma-bench/7\", this release reads \"tbrdma-bench/1\""),
        (r#"{"schema":"tbrdma-bench/1"}"#, "missing field"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = tbrdma_bench::result::Report::read(&path).unwrap_err().to_string();
        assert!(error.contains(complaint) && error.contains("written.json"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(tbrdma_bench::result::Report::read(&path).unwrap_err().to_string().contains("written.json"));
}

#[test]
fn threads_and_queue_pairs_check_all_bytes_and_are_told_one_by_one() {
    for (mode, op) in
        [("pingpong", "send"), ("pingpong", "write"), ("rate", "send"), ("bw", "read"), ("rate", "faa")]
    {
        let result = measured(
            &[mode, "--op", op, "--threads", "2", "--qps", "3", "--depth", "8"]
                [..if mode == "pingpong" { 7 } else { 9 }],
        );
        assert_eq!((&result["threads"], &result["qps"]), (&2.into(), &3.into()), "{mode} {op}");
        assert_eq!(
            (&result["errors"], &result["verified"]),
            (&Value::from(0), &Value::from(true)),
            "{mode} {op}"
        );
        let samples: Vec<_> =
            result["per_thread"].as_array().unwrap().iter().map(|thread| thread["samples"].clone()).collect();
        assert_eq!(samples, [150, 150], "{mode} {op}");
    }
    let text = stdout(&run(&["pingpong", "--op", "read", "--threads", "9", "--iters", "90"]));
    assert!(text.contains("per thread") && text.contains("18 threads want a core each"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_mix_and_silences_are_results_as_others_are() {
    let (plan, csv, hgrm) = (scratch("mix.toml"), scratch("mix.csv"), scratch("mix.hgrm"));
    let classes = ["send", "send-imm", "write", "write-imm", "read", "cas", "faa"];
    std::fs::write(&plan, classes.map(|op| format!("[[class]]\nop = \"{op}\"\n")).concat()).unwrap();
    let files = ["--csv", csv.to_str().unwrap(), "--hgrm", hgrm.to_str().unwrap()];
    for wait in ["poll", "event"] {
        let mix = measured(
            &[&["mixed", plan.to_str().unwrap(), "--threads", "2", "--wait", wait][..], &files].concat(),
        );
        assert_eq!(
            (&mix["verified"], &mix["messages_checked"], &mix["samples"]),
            (&true.into(), &400.into(), &300.into())
        );
        let samples = |class: &Value| class["samples"].as_u64().unwrap();
        assert_eq!(mix["classes"].as_array().unwrap().iter().map(samples).sum::<u64>(), 300);
    }
    assert!(std::fs::read_to_string(&hgrm).unwrap().contains("Total count    =          300]"));
    assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 3);
    let idle = measured_as_often_as(
        &["idle", "--gaps", "20us,1ms", "--op", "read"],
        &["--iters", "9", "--warmup", "5"],
    );
    let gaps = idle["gaps"].as_array().unwrap();
    assert_eq!(gaps.iter().map(|gap| gap["samples"].clone()).collect::<Vec<_>>(), [9, 9]);
    assert!(gaps.iter().all(|gap| gap["floor_one_way_ns"]["p50"].as_f64().unwrap() > 0.0), "{gaps:#?}");
    for file in [plan, csv, hgrm] {
        std::fs::remove_file(file).unwrap();
    }
}
