//! That the page lists the steps there are, and what the summary says.

use super::steps::{STEPS, Step};
use super::{summary, table};
use crate::cargo::root;
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn the_page_lists_each_step() {
    let page = std::fs::read_to_string(root().join("docs/checks.md")).unwrap();
    let steps: Vec<&Step> = STEPS.iter().collect();
    let table = table(&steps);
    assert!(page.contains(&table), "docs/checks.md lacks this table (`cargo xtask ci --list`):\n{table}");
}

#[test]
fn each_step_has_a_name_of_its_own_and_all_of_them_fit_into_twenty_minutes() {
    let names: HashSet<_> = STEPS.iter().map(|step| step.name).collect();
    assert_eq!(names.len(), STEPS.len());
    let seconds: u32 = STEPS.iter().map(|step| step.seconds).sum();
    assert!(seconds <= 20 * 60, "{seconds} s");
    assert!(STEPS.iter().any(|step| step.quick));
}

#[test]
fn the_summary_says_what_failed_and_how_much_was_not_run() {
    let took = [("format", Duration::from_secs(2), true), ("lints", Duration::from_secs(53), false)];
    let text = summary(&took, 3, Duration::from_secs(55));
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(
        lines,
        ["passed      2 s  format", "FAILED     53 s  lints", "3 steps were not run", "55 s  in all"]
    );
}

#[test]
fn a_step_succeeds_if_its_command_does() {
    let step =
        |words| Step { words, variable: Some(("A", "b c")), name: "", protects: "", quick: true, seconds: 0 };
    assert!(step("true").run());
    assert!(!step("false").run());
    assert!(!step("there-is-no-such-program at all").run());
    assert_eq!(step("env x").command(), "A=\"b c\" env x");
}
