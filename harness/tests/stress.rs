//! `stress`: the plans that come with it meet what they expect, the same to the bit in every run; what is wrong is told.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use common::{run, stderr, stdout};
use serde_json::Value;
use tbrdma_bench::control::Account;
use tbrdma_bench::page::page;
use tbrdma_bench::stress::drive::Found;
use tbrdma_bench::stress::judge::Outcome;
use tbrdma_bench::stress::plan::Plan;
use tbrdma_bench::stress::result::StressReport;
use tbrdma_bench::stress::world::Place;
use tbrdma_bench::stress::{measure, parse, rows, shipped, text};

fn on(device: &str, plan: &Plan, seed: u64) -> StressReport {
    let place = Place { device: device.to_owned(), profile: None, seed };
    measure(plan, &place).unwrap_or_else(|error| panic!("{} on {device}: {error}", plan.name))
}

fn assert_by_schema(report: &StressReport) -> Value {
    let schema: Value = serde_json::from_str(include_str!("../schema/tbrdma-stress-1.json")).unwrap();
    let value: Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<_> =
        validator.iter_errors(&value).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{}: {wrong:?}", report.plan);
    value
}

#[test]
fn every_plan_meets_what_it_expects_and_is_the_same_to_the_bit() {
    for (name, toml) in shipped::PLANS {
        let plan = parse(toml).unwrap();
        assert_eq!(plan.name, name);
        assert!(plan.phases.iter().any(|phase| phase.has_faults()));
        // A network of its own: other tests of this process have theirs.
        let device = format!("sim:{name}");
        let report = on(&device, &plan, plan.seed);
        let full = text::full(&report);
        assert_eq!(report.verdict, Outcome::Met, "{full}");
        assert!(report.verified && report.samples > 100 && !report.expectations.is_empty(), "{full}");
        assert!(full.lines().all(|line| line.chars().count() <= 80), "{full}");
        assert_by_schema(&report);
        assert_eq!(report.to_json().unwrap(), on(&device, &plan, plan.seed).to_json().unwrap());
        let columns = rows::names().split(',').count();
        assert_eq!(rows::rows(&report).lines().count(), plan.phases.len());
        assert!(columns > 20, "{columns}");
    }
}

/// A plan of one phase, of 20 ms, in which something is wrong.
fn plan(run: &str, phase: &str, more: &str) -> Plan {
    plan_that_lasts(20, run, phase, more)
}

fn plan_that_lasts(ms: u32, run: &str, phase: &str, more: &str) -> Plan {
    let calm = "[[phase]]\nname = 'calm'\nfor = '20ms'\n";
    let bad = format!("[[phase]]\nname = 'bad'\nfor = '{ms}ms'\n{phase}\n");
    let text = format!("name = 'x'\nabout = 'y'\n[run]\nsize = 512\n{run}\n{calm}{bad}{more}");
    parse(&text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

#[test]
fn the_page_shades_and_names_what_went_wrong_and_has_all_of_it_in_words() {
    let plan = parse(shipped::find("flaky-cable").unwrap()).unwrap();
    let report = on("sim:page", &plan, plan.seed);
    let page = page("Stress", &[], &[], &[("one".to_owned(), report.clone())]).unwrap();
    let bad: Vec<_> = report.phases.iter().filter(|phase| phase.wrong.is_some()).collect();
    let bands = page.split("<g class=\"bands\">").nth(1).unwrap().split("</g>").next().unwrap();
    assert_eq!(bands.matches("<rect ").count(), bad.len());
    let description =
        page.split("<desc id=\"course-1-text\">").nth(1).unwrap().split("</desc>").next().unwrap();
    for phase in bad {
        assert!(bands.contains(&format!("<title>{}, from", phase.name)), "{bands}");
        assert!(description.contains(&phase.name), "{description}");
    }
    for phase in &report.phases {
        assert!(page.contains(&format!("<th scope=\"row\">{}</th>", phase.name)));
    }
    assert!(report.expectations.iter().all(|judged| page.contains(&judged.expected.replace('\'', "&#39;"))));
    assert_eq!(page.matches("<polyline").count(), 3 + report.phases.len());
    assert!(page.contains("virtual time of a simulated network"));
    for foreign in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_device_in_real_time_recovers_too() {
    let calm = "[[phase]]\nname = 'after'\nfor = '50ms'\n";
    let lossy =
        "both = 'loss=10%'\n[phase.expect]\ncounters = { fault_dropped = 1, retransmitted_pkts = 1 }\n";
    let paused = "pause_receiver = true\nhogs = 1\n[phase.expect]\nfailed_at_most = 0\n";
    for (device, ms, run, phase) in [
        // Long enough for a thread that others keep from its core.
        ("udp:lo", 400, "rate = 2000", lossy),
        ("udp:lo", 30, "rate = 2000\nreceives = 8", paused),
        ("shm", 30, "rate = 2000\nreceives = 8", paused),
    ] {
        if let Err(error) = tbrdma::open(device) {
            skip::skip(format!("device {device}: {error}"));
            continue;
        }
        let report = on(device, &plan_that_lasts(ms, run, phase, calm), 3);
        let full = text::full(&report);
        // A machine that is busy with something else may leave it open, and says so.
        assert_ne!(report.verdict, Outcome::Missed, "{full}");
        assert_eq!((report.failed, report.unsent), (0, 0), "{full}");
        assert_eq!(report.counters.both("fault_dropped") > 0, phase == lossy, "{full}");
        assert!(report.phases.iter().all(|phase| phase.away_s.is_some()));
        assert!(report.verified && !report.is_virtual && report.environment.is_some(), "{full}");
        assert_by_schema(&report);
    }
}

#[test]
fn what_does_not_come_about_is_missed_and_what_cannot_be_told_is_said_so() {
    let outcomes = |plan: &Plan, device: &str| {
        let report = on(device, plan, 1);
        (report.verdict, report.expectations.into_iter().map(|judged| judged.outcome).collect::<Vec<_>>())
    };
    let lossy = "both = 'loss=20%'\n[phase.expect]\n";
    let calm = "[[phase]]\nname = 'after'\nfor = '60ms'\n";
    let expect = |expected: &str, more: &str| plan("rate = 5000", &format!("{lossy}{expected}"), more);
    let missed = [
        expect("p99_at_most = 1.01", calm),
        expect("p99_at_least = 1e9", calm),
        expect("recovered_within = '1ns'\nusual = 0.001", calm),
        expect("status = 'RETRY_EXC_ERR'", calm),
        expect("told_within = '1s'", calm),
        expect("goodput_at_least = '1Gbps'", calm),
        expect("goodput_at_most = '1kbps'", calm),
        expect("failed_at_least = 1", calm),
        expect("counters_at_most = { retransmitted_pkts = 0 }", calm),
        expect("counters = { no_such_counter = 1 }", calm),
        // Nothing comes after it in which it could recover.
        expect("recovered_within = '1s'", ""),
    ];
    for plan in missed {
        assert_eq!(
            outcomes(&plan, "sim:missed"),
            (Outcome::Missed, vec![Outcome::Missed]),
            "{:?}",
            plan.phases
        );
    }
    let kept = expect("p99_at_least = 1.5\nfailed_at_most = 0\ncounters = { fault_dropped = 5 }", calm);
    assert_eq!(outcomes(&kept, "sim:missed").0, Outcome::Met);
    // A receiver that does nothing and wants its receives back meanwhile: time goes on.
    let both = plan(
        "rate = 5000\nreceives = 4",
        "pause_receiver = true\npost_receives_every = '1ms'\nslow_receiver = '1us'",
        calm,
    );
    assert_eq!(on("sim:missed", &both, 1).samples, 500);
    let silent = plan("rate = 0.1", "pause_receiver = true\n[phase.expect]\nrecovered_within = '1s'", calm);
    let untold = outcomes(&silent, "sim:missed");
    assert_eq!(untold.1, [Outcome::Missed]);
}

#[test]
fn wrong_bytes_are_never_what_was_expected() {
    let plan = plan("rate = 100", "both = 'loss=1%'", "");
    let place = Place { device: "sim".to_owned(), profile: None, seed: 1 };
    let verdict = |account: Account| {
        let found = Found { account, ..Found::default() };
        let report = StressReport::new(&plan, &place, "plain".to_owned(), true, &found).unwrap();
        assert!(report.expectations.is_empty());
        (report.verified, report.verdict, text::line(&report).contains("WRONG"))
    };
    assert_eq!(verdict(Account::default()), (true, Outcome::Met, false));
    let wrong = Account { checked: 1, errors: 1, first_error: Some("message 0 is wrong".to_owned()) };
    assert_eq!(verdict(wrong), (false, Outcome::Missed, true));
}

#[test]
fn a_queue_pair_that_dies_is_an_outcome() {
    let death = "both = 'loss=100%'\n[phase.expect]\nstatus = 'RETRY_EXC_ERR'\n";
    let calm = "[[phase]]\nname = 'after'\nfor = '60ms'\n";
    let short = "rate = 5000\ntimeout = '500us'\nretry_cnt = 2\n";
    let dead = on("sim:dead", &plan(short, death, calm), 1);
    assert_eq!((dead.verdict, dead.deaths.len()), (Outcome::Met, 1));
    assert!(dead.deaths[0].back_after_s.is_none() && dead.failed > 0 && dead.unsent > 250, "{dead:?}");
    assert_eq!(dead.samples + dead.failed + dead.unsent, 500);
    let back = on("sim:dead", &plan(&format!("{short}reconnect = '2ms'"), death, calm), 1);
    assert!(back.deaths.last().unwrap().back_after_s.is_some() && back.unsent == 0, "{back:?}");
    // Of what failed some may have arrived, and is checked all the same.
    assert_eq!(back.samples + back.failed, 500);
    assert!(back.verified && back.phases[1].recovered_after_s.is_some());
    // Without receives, and without patience.
    let hungry = plan(
        "rate = 5000\nreceives = 4\nrnr_retry = 1\nmin_rnr_timer = '100us'",
        "pause_receiver = true\n[phase.expect]\nstatus = 'RNR_RETRY_EXC_ERR'",
        "",
    );
    assert_eq!(on("sim:dead", &hungry, 1).verdict, Outcome::Met);
}

#[test]
fn other_operations_and_seeds_are_other_runs() {
    let of = |op: &str, seed| {
        let plan = plan(&format!("op = '{op}'\ndepth = 4\nlink = '100Mbps,5us'"), "both = 'loss=5%'", "");
        let report = on("sim:ops", &plan, seed);
        assert!(report.verified && report.samples > 100, "{}", text::full(&report));
        assert_eq!(report.kind_of_loop, "closed");
        assert!(report.phases.iter().all(|phase| phase.response_ns.is_none() && phase.service_ns.is_some()));
        report.to_json().unwrap()
    };
    let [sends, others] = [1, 2].map(|seed| of("send", seed));
    assert_ne!(sends, others);
    of("write", 1);
    of("read", 1);
}

#[test]
fn a_plan_that_makes_no_sense_is_told_why() {
    let sound = shipped::find("cable-pull").unwrap();
    for (from, to, said) in [
        ("rate = 10000", "rates = 10000", "rates"),
        ("name = \"pulled\"", "name = \"pulled\"\nlos = 1", "los"),
        ("loss=100%", "lost=100%", "unknown fault"),
        ("for = \"60ms\"", "for = \"60\"", "ns, us, ms or s"),
        ("for = \"60ms\"", "for = \"0s\"", "no time at all"),
        ("for = \"60ms\"", "for = \"2000s\"\nrate = 9000", "over the limit of 4000000"),
        ("size = 4096", "size = 4", "outside 8"),
        ("depth = 32", "depth = 0", "outside 1"),
        ("op = \"send\"", "op = \"cas\"", "none of send, write, read"),
        ("name = \"pulled\"", "name = \"before\"", "two phases"),
        ("link = \"10Gbps,5us\"", "link = \"fast\"", "64Gbps,5us"),
        ("status = \"RETRY_EXC_ERR\"", "status = \"TIRED\"", "RNR_RETRY_EXC_ERR"),
        ("both = \"loss=100%\"", "both = \"loss=1%\"\nout = \"loss=1%\"", "beside out or back"),
        ("both = \"loss=100%\"", "both = \"loss=1%; 1s: none\"", "use phases"),
        ("for = \"50ms\"", "for = \"50ms\"\npause_receiver = true", "nothing wrong"),
    ] {
        assert!(sound.contains(from), "{from}");
        let error = parse(&sound.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(said), "{to}: {error}");
    }
    let writes = sound
        .replace("op = \"send\"", "op = \"write\"")
        .replace("both = \"loss=100%\"", "pause_receiver = true");
    assert!(parse(&writes).unwrap_err().contains("use op send"));
    assert!(parse("").unwrap_err().contains("name"));
}

#[test]
fn the_command_says_what_there_is_and_exits_by_what_came_about() {
    let list = run(&["stress", "--list"]);
    assert!(shipped::PLANS.iter().all(|(name, _)| stdout(&list).contains(name)));
    assert_eq!(stdout(&run(&["stress", "--show", "incast"])), shipped::find("incast").unwrap());
    let met = run(&["stress", "flaky-cable", "--quiet", "--seed", "5"]);
    assert_eq!(met.status.code(), Some(0), "{}{}", stdout(&met), stderr(&met));
    assert!(stdout(&met).contains("seed 5") && stdout(&met).lines().count() == 1, "{}", stdout(&met));
    let hgrm = run(&["stress", "flaky-cable", "--hgrm", "-"]);
    assert!(
        stdout(&hgrm).starts_with("#[stress flaky-cable on sim, seed 1")
            && stdout(&hgrm).contains("#[Buckets")
    );
    for (arguments, said) in [
        (&["stress", "no-such-plan"][..], "cable-pull, flaky-cable"),
        (&["stress"], "PLAN"),
        (&["stress", "corruption", "--json", "-", "--csv", "-"], "name files"),
        // Shared memory has no packets.
        (&["stress", "corruption", "--device", "shm"], "faults of packets (in flips)"),
        (&["stress", "corruption", "--profile", "apple-tb5"], "does not support RC"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(said) && stderr(&output).lines().count() == 1,
            "{}",
            stderr(&output)
        );
    }
}
