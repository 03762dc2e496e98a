//! Measurements with many ranks: what they find, that they end, and that what they write is by its schema.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::{
    children, conforms, eventually, finish, has_ended, json, program, run, scratch, stderr, stdout,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The result of a run: one, or several in a file of their own.
fn result(arguments: &str) -> Value {
    let output = run(&arguments.split(' ').chain(["--quiet", "--json", "-"]).collect::<Vec<_>>());
    assert!(output.status.success(), "{arguments}: {}", stderr(&output));
    let value = json(&stdout(&output));
    conforms(
        &value,
        match value["results"].is_array() {
            true => include_str!("../schema/tbrdma-bench-ranks-1.json"),
            false => include_str!("../schema/tbrdma-bench-1.json"),
        },
    );
    value
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn senders_with_equal_links_get_equal_shares_and_every_run_is_the_same() {
    let measure =
        || result("incast --device sim --ranks 5 --size 4k --depth 4 --iters 400 --link 10Gbps,5us");
    let value = measure();
    let group = &value["group"];
    assert_eq!(value["verified"], true);
    assert_eq!((&group["ranks"], group["pairs"].as_array().unwrap().len()), (&5.into(), 4));
    assert!(
        group["pairs"].as_array().unwrap().iter().all(|pair| pair["to"] == 0 && number(&pair["from"]) > 0.0)
    );
    assert!(number(&group["fairness"]["jain"]) > 0.999, "{group}");
    // What arrives cannot be more than what four links carry.
    let bits = 8.0 * number(&value["bandwidth"]["bytes_per_s"]);
    assert!((20e9..=41e9).contains(&bits), "{bits}");
    // A message is there after the latency, and its acknowledgement after another one.
    assert!(number(&value["one_way_ns"]["min"]) >= 10_000.0, "{value}");
    let again = measure();
    for field in ["one_way_ns", "distribution", "bandwidth", "counters"] {
        assert_eq!(value[field], again[field], "{field}");
    }
    assert_eq!(group["pairs"], again["group"]["pairs"]);
}

#[test]
fn in_a_mesh_everybody_sends_to_everybody_through_loss_too() {
    let value = result("mesh --device sim --ranks 3 --size 1k,8k --iters 200 --fault loss=1% --seed 5");
    let results = value["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (result, size) in results.iter().zip([1024, 8192]) {
        let report = &result["report"];
        assert_eq!((&report["size_bytes"], &report["verified"]), (&size.into(), &true.into()));
        let pairs = report["group"]["pairs"].as_array().unwrap();
        let mut who: Vec<_> = pairs.iter().map(|pair| (number(&pair["from"]), number(&pair["to"]))).collect();
        who.sort_by(|a, b| a.partial_cmp(b).unwrap());
        assert_eq!(who, [(0.0, 1.0), (0.0, 2.0), (1.0, 0.0), (1.0, 2.0), (2.0, 0.0), (2.0, 1.0)]);
        assert!(number(&report["counters"]["fault_dropped"]) > 0.0);
    }
    // Both are on a page, with the pairs as a table.
    let file = scratch("mesh.json");
    std::fs::write(&file, value.to_string()).unwrap();
    let page = run(&["report", file.to_str().unwrap(), "-o", "-"]);
    std::fs::remove_file(&file).unwrap();
    let page = stdout(&page);
    assert_eq!(page.matches("What went from which rank to which").count(), 2);
    assert!(page.contains("Jain"));
}

#[test]
fn an_allreduce_sums_and_takes_what_its_steps_take() {
    // The time of a step is that of its bytes on a rank's link, and of the way; at the end the last acknowledgement comes back.
    let (ranks, way, bytes_per_us) = (4.0, 2.0, 5000.0);
    let steps = |steps: f64, bytes: f64| (steps * (way + bytes / bytes_per_us) + way) * 1000.0;
    let cases = [
        ("mesh", vec![steps(1.0, 3.0 * 4096.0), steps(2.0, 3.0 * 16_384.0)]),
        ("ring", vec![steps(6.0, 1024.0), steps(6.0, 16_384.0)]),
    ];
    for (algorithm, expected) in cases {
        let value = result(&format!(
            "allreduce --device sim --ranks 4 --size 4k,64k --iters 20 --link 40Gbps,2us --algorithm {algorithm}"
        ));
        for (result, ns) in value["results"].as_array().unwrap().iter().zip(expected) {
            let report = &result["report"];
            assert_eq!((&report["verified"], &report["samples"]), (&true.into(), &80.into()));
            let p50 = number(&report["one_way_ns"]["p50"]);
            assert!((0.98..1.06).contains(&(p50 / ns)), "{algorithm}: {p50} beside {ns}");
            let allreduce = &report["group"]["allreduce"];
            assert_eq!(allreduce["algorithm"], algorithm);
            let (size, mean) = (number(&report["size_bytes"]), number(&report["one_way_ns"]["mean"]));
            let bandwidth = size / mean * 1e9;
            assert!((number(&allreduce["algorithm_bytes_per_s"]) / bandwidth - 1.0).abs() < 1e-9);
            let bus = bandwidth * 2.0 * (ranks - 1.0) / ranks;
            assert!((number(&allreduce["bus_bytes_per_s"]) / bus - 1.0).abs() < 1e-9);
        }
    }
    // An odd number of elements, more ranks than parts are equal, packets that are lost: the sums are right all the same.
    let value = result(
        "allreduce --device sim --ranks 3 --size 1004 --iters 30 --algorithm ring --fault loss=2% --seed 9",
    );
    assert_eq!(value["verified"], true);
    assert!(number(&value["counters"]["fault_dropped"]) > 0.0);
}

#[test]
fn an_allreduce_needs_no_more_than_thunderbolt_macs_have() {
    for algorithm in ["mesh", "ring"] {
        let value = result(&format!(
            "allreduce --profile apple-tb5 --transport uc --ranks 3 --size 12k --iters 20 --warmup 5 --algorithm {algorithm}"
        ));
        assert_eq!((&value["verified"], &value["transport"]), (&Value::from(true), &Value::from("uc")));
    }
}

#[test]
fn processes_on_one_host_measure_and_leave() {
    let value = result("incast --ranks 3 --size 16k --duration 50ms --warmup 10");
    assert_eq!(value["verified"], true);
    let members = value["group"]["members"].as_array().unwrap();
    let pids: Vec<_> = members.iter().map(|member| member["pid"].as_u64().unwrap() as u32).collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| has_ended(*pid)), "{pids:?}");
}

#[test]
fn ranks_of_a_launcher_find_each_other() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let arguments = ["allreduce", "--size", "4k", "--iters", "30", "--warmup", "5", "--quiet", "--json", "-"];
    let start = |rank: &str| {
        let mut command = program();
        command.envs([
            ("RANK", rank),
            ("WORLD_SIZE", "3"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", &port),
        ]);
        // Slurm's are still there, and are those of another program.
        command.envs([("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1"), ("SLURM_STEP_ID", "0")]);
        command.args(arguments).spawn().unwrap()
    };
    // Rank 0 may be the last.
    let others = ["2", "1"].map(start);
    let output = finish(start("0"), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let value = json(&stdout(&output));
    conforms(&value, include_str!("../schema/tbrdma-bench-1.json"));
    assert_eq!((&value["verified"], &value["group"]["ranks"]), (&true.into(), &3.into()));
    assert_eq!(value["sides"], "started by torchrun, ranks by RANK, not by SLURM_PROCID");
    for other in others {
        let output = finish(other, &arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), "", "rank 0 speaks for all");
    }
}

#[test]
fn a_rank_that_dies_ends_the_run_and_is_named() {
    let arguments = ["mesh", "--ranks", "4", "--duration", "600s", "--quiet"];
    let child = program().args(arguments).spawn().unwrap();
    let parent = child.id();
    let patience = Duration::from_secs(60);
    eventually("three ranks are there", patience, || children(parent).len() == 3);
    let mut ranks = children(parent);
    ranks.sort_unstable();
    kill(Pid::from_raw(ranks[1] as i32), Signal::SIGKILL).unwrap();
    let output = finish(child, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&format!("(process {}) ended before the run was over", ranks[1])), "{text}");
    assert!(text.contains("signal: 9"), "{text}");
    assert!(ranks.iter().all(|pid| has_ended(*pid)));
}

#[test]
fn what_is_not_possible_is_said_in_one_line() {
    let wrong = [
        ("incast --ranks 1", "outside 2 to 64"),
        ("incast --size 0", "outside 1 to"),
        ("allreduce --size 6", "at least one for each rank"),
        ("mesh --rank 2 --ranks 2 --coordinator 127.0.0.1", "no rank 2 of 2"),
        ("mesh --transport uc", "would be lost"),
        ("allreduce --transport ud", "can use uc"),
        ("mesh --depth 0", "must be 1 to"),
        ("mesh --size 1G", "use a smaller --depth"),
        ("incast --device nonsense", "nonsense"),
    ];
    for (arguments, reason) in wrong {
        let (code, text) = common::failure(&arguments.split(' ').collect::<Vec<_>>());
        assert!(matches!(code, Some(1 | 2)) && text.contains(reason), "{arguments}: {text}");
    }
}
