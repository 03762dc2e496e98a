//! Modes that make many measurements one after the other, and what they write.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{conforms, json, run, scratch, stderr, stdout};
use serde_json::Value;

#[test]
fn a_sweep_is_a_table_of_results_and_of_reasons() {
    let (file, table, page) = (scratch("sweep.json"), scratch("sweep.csv"), scratch("page.html"));
    let output = run(&[
        "sweep",
        "pingpong",
        "--device",
        "sim",
        "--sizes",
        "64..128",
        "--ops",
        "send,read",
        "--transports",
        "rc,uc",
        "--iters",
        "50",
        "--vary",
        "link=10us",
        "--json",
        file.to_str().unwrap(),
        "--csv",
        table.to_str().unwrap(),
        "--",
        "--seed",
        "3",
    ]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let text = stdout(&output);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // The p50, p99, p99.9 and max of four cells one way, and of two whole operations.
    let told = |time: &str| text.matches(time).count();
    assert_eq!((told("10.0 us"), told("20.0 us")), (16, 8), "{text}");
    let sweep = json(&std::fs::read_to_string(&file).unwrap());
    conforms(&sweep, include_str!("../schema/tbrdma-bench-sweep-1.json"));
    let cells = sweep["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 8);
    for cell in cells {
        let impossible = cell["name"].as_str().unwrap().contains("read uc");
        assert_eq!(cell["report"].is_null(), impossible, "{cell:#}");
        assert_eq!(cell["reason"].as_str().is_some_and(|why| why.contains("does not exist")), impossible);
        assert!(impossible || cell["report"]["samples"] == 50);
    }
    let csv = std::fs::read_to_string(&table).unwrap();
    assert_eq!(csv.lines().count(), 9);
    let refused = csv.lines().find(|line| line.contains("does not exist")).unwrap();
    assert!(refused.contains(",pingpong,read,uc,sim,"), "{refused}");
    // The page takes all of them, and so does the comparison.
    let output = run(&["report", file.to_str().unwrap(), "-o", page.to_str().unwrap()]);
    assert_eq!(stderr(&output), "");
    let page_text = std::fs::read_to_string(&page).unwrap();
    assert!(page_text.contains("sim send rc 128 10us") && !page_text.contains("sim read uc"));
    assert!(page_text.contains("sweep of pingpong: 8 cells") && page_text.contains("does not exist"));
    for path in [file, table, page] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_sweep_that_makes_no_sense_is_refused_before_anything_is_measured() {
    let wrong: [(&[&str], &str); 5] = [
        (&["pingpong", "--sizes", "64..8"], "no range"),
        (&["pingpong", "--ops", "send,frobnicate"], "frobnicate"),
        (&["pingpong", "--depths", "8"], "--depth"),
        (&["bw", "--vary", "memory"], "names no values"),
        (&["bw", "--json", "-", "--csv", "-"], "standard output"),
    ];
    for (arguments, why) in wrong {
        let output = run(&[&["sweep"], arguments].concat());
        let text = stderr(&output);
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{arguments:?}: {text}");
        assert!(text.contains(why), "{arguments:?}: {text}");
    }
    // Of what cannot be measured at all, the first reason is told.
    let output = run(&["sweep", "pingpong", "--device", "nonsense", "--quiet"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nonsense"), "{}", stderr(&output));
}

#[test]
fn peers_are_told_beside_tcp_and_the_page_has_all_of_them() {
    let (file, page) = (scratch("peers.json"), scratch("page.html"));
    let output = run(&[
        "peers",
        "--sizes",
        "8",
        "--bw-size",
        "4k",
        "--each",
        "5ms",
        "--device",
        "sim",
        "--device",
        "nonsense",
        "--timeout",
        "60s",
        "--json",
        file.to_str().unwrap(),
    ]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let text = stdout(&output);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let peers = json(&std::fs::read_to_string(&file).unwrap());
    conforms(&peers, include_str!("../schema/tbrdma-bench-peers-1.json"));
    let rows = peers["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * 2 * 5, "two measurements, two waits, five peers");
    for row in rows {
        let (peer, good) = (row["peer"].as_str().unwrap(), row["verified"] == true);
        assert_eq!(good, !peer.starts_with("nonsense"), "{row:#}");
        assert_eq!(row["reason"].is_string(), !good);
        assert_eq!(row["report"].is_object(), peer.starts_with("sim"));
        assert!(!good || row["vs_tcp"].as_f64().unwrap() > 0.0);
        assert!(peer != "tcp" || row["vs_tcp"] == 1.0);
        let figure = if row["benchmark"] == "bw" { &row["bytes_per_s"] } else { &row["one_way_ns"]["p50"] };
        assert_eq!(figure.as_f64().is_some_and(|figure| figure > 0.0), good, "{row:#}");
    }
    let output = run(&["report", file.to_str().unwrap(), "-o", page.to_str().unwrap()]);
    assert_eq!(stderr(&output), "");
    let page_text = std::fs::read_to_string(&page).unwrap();
    assert!(page_text.contains("<td>unix</td>") && page_text.contains("sim send pingpong 8 poll"));
    for path in [file, page] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn virtual_time_is_soaked_at_once_and_the_same_again() {
    let soaked = |name: &str| {
        let file = scratch(name);
        let output = run(&[
            "soak",
            "--device",
            "sim",
            "--duration",
            "8min",
            "--interval",
            "40s",
            "--rate",
            "0.5",
            "--timeout",
            "60s",
            "--link",
            "10us",
            "--fault",
            "loss=3%",
            "--seed",
            "7",
            "--json",
            file.to_str().unwrap(),
        ]);
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
        let text = stdout(&output);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let soak = json(&std::fs::read_to_string(&file).unwrap());
        std::fs::remove_file(file).unwrap();
        conforms(&soak, include_str!("../schema/tbrdma-bench-soak-1.json"));
        soak
    };
    let (first, second) = (soaked("soak-1.json"), soaked("soak-2.json"));
    assert_eq!(first["verified"], true);
    // What each interval begins with is not recorded.
    assert!((230..=240).contains(&first["samples"].as_u64().unwrap()), "{}", first["samples"]);
    assert_eq!(first["intervals"].as_array().unwrap().len(), 12);
    assert_eq!(first["distribution"], second["distribution"], "it follows from the seed");
    let p50 = first["one_way_ns"]["p50"].as_f64().unwrap();
    assert!(
        first["one_way_ns"]["max"].as_f64().unwrap() > 10.0 * p50,
        "losses are seen: {}",
        first["one_way_ns"]
    );
    assert!(first["watched"] == "the initiator" || !cfg!(target_os = "linux"), "{}", first["watched"]);
}

#[test]
fn a_soak_that_is_interrupted_tells_what_it_has() {
    let file = scratch("soak.json");
    let arguments = [
        "soak",
        "bw",
        "--size",
        "256",
        "--duration",
        "1h",
        "--interval",
        "100ms",
        "--json",
        file.to_str().unwrap(),
    ];
    let mut child = common::program().args(arguments).spawn().expect("the program starts");
    // Two intervals are told, and then the user has enough.
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("0.") || !line.contains("/s") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0, "it tells of intervals");
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGINT).unwrap();
    let output = common::finish(child, &arguments);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let soak = json(&std::fs::read_to_string(&file).unwrap());
    std::fs::remove_file(file).unwrap();
    conforms(&soak, include_str!("../schema/tbrdma-bench-soak-1.json"));
    assert_eq!((&soak["interrupted"], &soak["verified"]), (&Value::from(true), &Value::from(true)));
    assert!(!soak["intervals"].as_array().unwrap().is_empty());
    assert!(soak["intervals"][0]["responder"].is_object() || !cfg!(target_os = "linux"));
}

#[test]
fn a_walk_is_as_its_model_says_on_every_device_and_follows_from_its_seed() {
    let walked = |device: &str, more: &[&str]| {
        let arguments = ["walk", "--device", device, "--steps", "600", "--seed", "7", "--json", "-"];
        let output = run(&[&arguments, more].concat());
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{device}");
        let walk = json(&stdout(&output));
        conforms(&walk, include_str!("../schema/tbrdma-bench-walk-1.json"));
        walk
    };
    let sim = walked("sim", &[]);
    assert_eq!(sim["taken"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>(), 600);
    assert!(sim["completions"].as_u64().unwrap() > 300 && sim["refusals"].as_u64().unwrap() > 30, "{sim:#}");
    for device in ["shm", "udp:lo"] {
        let walk = walked(device, &[]);
        assert_eq!(walk["taken"], sim["taken"], "{device} takes the same steps");
        assert_eq!(walk["completions"], sim["completions"], "{device}");
    }
    // A device of fewer kinds.
    assert!(walked("shm", &["--profile", "apple-tb5"])["completions"].as_u64().unwrap() > 50);
}

#[test]
fn a_walk_that_finds_something_names_the_line_that_walks_there_again() {
    // What the model knows nothing of: a link that brings nothing.
    let weights = scratch("weights.toml");
    std::fs::write(&weights, "write = 1000\n").unwrap();
    let file = weights.to_str().unwrap();
    let walked = |arguments: &[&str]| {
        let output = run(&[&["walk", "--device", "sim", "--weights", file, "--fault"], arguments].concat());
        (output.status.code(), stderr(&output))
    };
    assert_eq!(walked(&["loss=5%", "--steps", "200", "--seed", "3", "--quiet"]), (Some(0), String::new()));
    let (code, said) = walked(&["loss=100%", "--steps", "30", "--seed", "3"]);
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    let (_, again) = said.trim_end().split_once("again by: tbrdma-bench ").expect("the line is there");
    let output = run(&again.split(' ').collect::<Vec<_>>());
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), said.clone()), "{again}");
    assert!(stdout(&output).contains("last steps"), "{}", stdout(&output));
    std::fs::write(&weights, "wriet = 1\n").unwrap();
    let output = run(&["walk", "--weights", file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no step \"wriet\"") && stderr(&output).contains("trespass"));
    std::fs::remove_file(weights).unwrap();
}
