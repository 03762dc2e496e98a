//! The conformance suite in the guest, through its libibverbs and uverbs on the kernel's rxe: alone, and with its far party here, on the library's
//! `udp` device. What rxe does otherwise than the suite says is declared in `tests/conformance/declared.rs`; what fails beyond that fails here,
//! and so does a declaration that is not true any more.

use crate::bench::Bench;
use crate::modes::TAP;
use crate::wire::frame::OUR_V4;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use tbrdma_conformance::runner::{Outcome, Report as Verdict};
use tbrdma_kit::Report;

/// How the suite is started in the guest, where a case takes longer than elsewhere.
const SUITE: &str = "tbrdma-conformance --device native:rxe0 --timeout 60";

/// Cases of many thousand messages, or of many waits, which take a slow guest ten seconds and more each; on rxe they pass. The last is of the kernel's
/// making: destroying a queue pair that has bound a window of type 2 waits for 50 s in `rxe_destroy_qp`, and ends with a warning in its log.
const LEFT_OUT: [&str; 7] = [
    "rnr::a_receiver_that_is_always_late_loses_nothing",
    "registered_memory::deregistering_behind_a_send_that_waited_stops_the_writes",
    "halves::four_threads_exchange_messages_between_two_contexts",
    "halves::four_threads_exchange_messages_within_one_context",
    "halves::writes_and_sends_may_go_on_while_receives_are_posted_elsewhere",
    "ud::handles_lead_where_they_were_made_to_lead_however_many_there_have_been",
    "memory_window::a_queue_pair_that_ends_lets_go_of_its_windows",
];

/// Cases that take ten and twenty seconds between a guest and us; they pass.
const LEFT_OUT_BETWEEN: [&str; 2] = [
    "rnr::a_late_receive_is_filled_though_nobody_polls_the_sender",
    "other_way::a_peer_that_gets_ready_in_time_is_reached",
];

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Where the far party listens.
const PORT: u16 = 7471;

/// All cases, between queue pairs of the guest.
pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let name = "conformance on rxe";
    let mut verdicts = Vec::new();
    report.check(name, || {
        verdicts = suite(bench, "rxe", &format!("--without {}", LEFT_OUT.join(",")))?;
        summary(&verdicts, 150)
    });
    areas(report, name, &verdicts);
}

/// The cases for two parties, one in the guest on rxe, one here.
pub(crate) fn run_far(bench: &Bench, report: &mut Report) {
    let name = "conformance between rxe and us";
    let mut verdicts = Vec::new();
    report.check(name, || {
        let mut far = bench
            .programs
            .start(&bench.cache, &format!("tbrdma-conformance --device udp:{TAP} --serve {OUR_V4}:{PORT}"))?;
        far.until_listening(PORT)?;
        verdicts = suite(
            bench,
            "rxe-udp",
            &format!("--far {OUR_V4}:{PORT} --without {}", LEFT_OUT_BETWEEN.join(",")),
        )?;
        far.kill()?;
        summary(&verdicts, 40)
    });
    areas(report, name, &verdicts);
}

/// Runs the suite in the guest. Its results stay in the lab's folder, for `cargo xtask conformance --lab`.
fn suite(bench: &Bench, results: &str, flags: &str) -> Result<Vec<Verdict>> {
    bench.programs.path("tbrdma-conformance")?;
    let command = format!("{SUITE} --declared {results} --label {results} {flags} --json /tmp/conformance");
    let said = bench.guest.run(&format!("{command} >/tmp/said 2>&1"), LIMIT)?;
    let lines = bench.guest.run("cat /tmp/conformance", LIMIT)?.output;
    let verdicts: Vec<Verdict> = lines.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    // It says with its status, too, whether a case failed; anything else than that shows in what it has not done.
    if said.status > 1 || verdicts.is_empty() {
        let last = bench.guest.run("tail -n 20 /tmp/said", LIMIT)?.output;
        anyhow::bail!("the suite ended with status {} after {} cases: {last}", said.status, verdicts.len());
    }
    let path = bench.cache.results(results);
    fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(verdicts)
}

fn count(verdicts: &[Verdict], outcome: Outcome) -> usize {
    verdicts.iter().filter(|verdict| verdict.outcome == outcome).count()
}

/// How many cases ended how; so many must have passed.
fn summary(verdicts: &[Verdict], least: usize) -> Result<String> {
    let [passed, failed, deviate, cannot] =
        [Outcome::Passed, Outcome::Failed, Outcome::Deviates, Outcome::Cannot]
            .map(|outcome| count(verdicts, outcome));
    let said = format!("{passed} passed, {failed} failed, {deviate} deviate as declared, {cannot} cannot");
    ensure!(passed >= least, "{said}; at least {least} must pass");
    Ok(said)
}

/// One check an area: none of its cases fails.
fn areas(report: &mut Report, name: &str, verdicts: &[Verdict]) {
    let mut areas = BTreeMap::<_, Vec<_>>::new();
    for verdict in verdicts {
        areas.entry(&verdict.area).or_default().push(verdict.clone());
    }
    for (area, verdicts) in areas {
        report.check(&format!("{name}, {area}"), || {
            let failed: Vec<_> = verdicts
                .iter()
                .filter(|verdict| verdict.outcome == Outcome::Failed)
                .map(|verdict| format!("\n    {}: {}", verdict.case, verdict.why))
                .collect();
            ensure!(
                failed.is_empty(),
                "{} of {} cases fail:{}",
                failed.len(),
                verdicts.len(),
                failed.concat()
            );
            summary(&verdicts, 0)
        });
    }
}
