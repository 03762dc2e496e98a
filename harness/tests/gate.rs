//! What `gate` says of results and limits: kept, broken, not measurable; to people, to JUnit, to GitHub, and by its exit code.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::process::Command;
use tbrdma_bench::gate::plan::Plan;
use tbrdma_bench::gate::{Outcome, exit_code, judge};
use tbrdma_bench::result::Report;

/// A pingpong with a median of 1.16 times its floor.
fn real() -> Report {
    serde_json::from_str(include_str!("runs/busy.json")).unwrap()
}

fn plan(text: &str) -> Plan {
    Plan::parse(text).unwrap()
}

fn limit(rest: &str) -> Plan {
    plan(&format!("[[limit]]\n{rest}"))
}

/// The outcomes of a limit with a result.
fn outcomes(rest: &str, report: &Report, baseline: &[Report]) -> Vec<Outcome> {
    let judgements = judge(&limit(rest), std::slice::from_ref(report), baseline);
    judgements.into_iter().map(|judgement| judgement.outcome).collect()
}

#[test]
fn limits_are_ratios_to_the_floor() {
    let floor = |metric, bound| format!("metric = \"{metric}\"\nof = \"floor\"\n{bound}");
    assert_eq!(outcomes(&floor("p50", "at_most = 1.3"), &real(), &[]), [Outcome::Kept]);
    assert_eq!(outcomes(&floor("p50", "at_most = 1.1"), &real(), &[]), [Outcome::Broken]);
    assert_eq!(outcomes(&floor("p99", "at_most = 1.1\nat_least = 0.9"), &real(), &[]), [Outcome::Kept]);
    assert_eq!(outcomes(&floor("p99", "at_least = 1.1"), &real(), &[]), [Outcome::Broken]);
}

#[test]
fn limits_are_ratios_to_a_baseline_of_the_same_measurement() {
    let rest = "metric = \"p50\"\nof = \"baseline\"\nat_most = 1.2";
    let (mut slow, mut other) = (real(), real());
    for (value, _) in &mut slow.distribution {
        *value *= 1.25;
    }
    other.size_bytes = 4096;
    assert_eq!(outcomes(rest, &real(), &[other.clone(), real()]), [Outcome::Kept]);
    assert_eq!(outcomes(rest, &slow, &[other.clone(), real()]), [Outcome::Broken]);
    assert_eq!(outcomes(rest, &slow, &[other]), [Outcome::NotMeasurable]);
}

#[test]
fn what_cannot_be_told_is_not_passed() {
    let rest = "metric = \"p50\"\nof = \"floor\"\nat_most = 9.0";
    let mut without = real();
    (without.floor, without.ratio_to_floor) = (None, None);
    without.floor_missing = Some("one core only".to_owned());
    let judgements = judge(&limit(rest), &[without], &[]);
    assert!(judgements[0].outcome == Outcome::NotMeasurable && judgements[0].why.contains("one core only"));
    let mut unchecked = real();
    unchecked.verified = false;
    assert_eq!(outcomes(rest, &unchecked, &[]), [Outcome::NotMeasurable]);
    // Wrong bytes are no figure at all, however quick.
    unchecked.errors = 3;
    assert_eq!(outcomes(rest, &unchecked, &[]), [Outcome::Broken]);
    // A limit of what nobody measured.
    assert_eq!(outcomes(&format!("{rest}\nwhere = {{ size = 65 }}"), &real(), &[]), [Outcome::NotMeasurable]);
    let throughput = "metric = \"bytes_per_s\"\nof = \"floor\"\nat_least = 0.5";
    assert_eq!(outcomes(throughput, &real(), &[]), [Outcome::NotMeasurable]);
}

#[test]
fn a_limit_is_meant_of_some() {
    let rest = "metric = \"p50\"\nof = \"floor\"\nat_most = 1.3\nwhere = { op = \"send\", size = 64, device = \"shm\", transport = \"rc\", benchmark = \"pingpong\" }";
    let mut other = real();
    other.device = "udp:lo".to_owned();
    let judgements = judge(&limit(rest), &[other, real()], &[]);
    assert_eq!(judgements.len(), 1);
    assert_eq!(exit_code(&judgements), 0);
}

#[test]
fn plans_that_make_no_sense_are_refused_with_the_place() {
    let wrong = [
        ("", "limit"),
        ("limit = []", "no [[limit]]"),
        ("[[limit]]\nmetric = \"p51\"\nof = \"floor\"\nat_most = 1", "p50, p99, bytes_per_s"),
        ("[[limit]]\nmetric = \"p50\"\nof = \"ceiling\"\nat_most = 1", "ceiling"),
        ("[[limit]]\nmetric = \"p50\"\nof = \"floor\"", "neither at_most nor at_least"),
        ("[[limit]]\nmetric = \"p50\"\nof = \"floor\"\nat_most = -1.0", "more than 0"),
        ("[[limit]]\nmetric = \"p50\"\nof = \"floor\"\nat_moost = 1.0", "at_moost"),
    ];
    for (text, word) in wrong {
        let error = Plan::parse(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
}

/// A folder that is gone when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tbrdma-gate-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_program_tells_people_junit_and_github() {
    let scratch = Scratch::new();
    let result = scratch.write("result.json", &real().to_json().unwrap());
    let junit = scratch.0.join("gate.xml");
    let gate = |plan: &Path, github: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"));
        command.arg("gate").args([plan, &result]).arg("--junit").arg(&junit);
        command.env("GITHUB_ACTIONS", if github { "true" } else { "" });
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said)
    };
    let one = |name: &str, most: f64, more: &str| {
        format!("[[limit]]\nname = \"{name}\"\nmetric = \"p50\"\nof = \"floor\"\nat_most = {most}\n{more}")
    };
    let kept = one("quick <enough>", 2.0, "");
    let broken = one("quicker: 100 %", 1.0, "");
    let unknown = one("other", 2.0, "where = { size = 1 }\n");
    let (code, said) = gate(&scratch.write("kept.toml", &kept), true);
    assert!(
        code == 0 && said.starts_with("pass  quick <enough>: p50 is 1.") && !said.contains("::"),
        "{code}: {said}"
    );
    let (code, said) = gate(&scratch.write("unknown.toml", &format!("{kept}{unknown}")), false);
    assert!(code == 2 && said.contains("n/a   other") && !said.contains("::warning"), "{code}: {said}");
    let (code, said) = gate(&scratch.write("all.toml", &format!("{kept}{unknown}{broken}")), true);
    assert!(code == 1 && said.contains("FAIL  quicker: 100 %"), "{code}: {said}");
    assert!(
        said.contains("::error title=quicker%3A 100 %25::p50 is 1.")
            && said.contains("::warning title=other::")
    );
    let xml = std::fs::read_to_string(&junit).unwrap();
    assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"1\""), "{xml}");
    assert!(
        xml.contains("name=\"quick &lt;enough&gt;\"") && xml.contains("<failure message=\"p50 is 1."),
        "{xml}"
    );
    let (code, said) = gate(&scratch.write("wrong.toml", "limit = 3"), false);
    assert!(code == 2 && said.contains("wrong.toml"), "{code}: {said}");
}
