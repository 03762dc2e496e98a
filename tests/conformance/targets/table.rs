//! docs/conformance.md has the cases that there are, as they are.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;

#[test]
fn the_table_has_every_case_with_its_statement_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/conformance.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, text) = text.split_once("## The cases").unwrap();
    let cases = tbrdma_conformance::all();
    let expected: BTreeSet<String> =
        cases.map(|case| format!("| {} ({}) | `{}` |", case.statement, case.source, case.name())).collect();
    let rows = text.lines().filter_map(|line| {
        let end = line.match_indices(" |").nth(1)?.0 + 2;
        line.contains(" | `").then(|| line[..end].to_owned())
    });
    let rows: BTreeSet<String> = rows.filter(|row| row.contains("::") && row.ends_with("` |")).collect();
    let missing: Vec<_> = expected.difference(&rows).collect();
    let stale: Vec<_> = rows.difference(&expected).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "cargo xtask conformance writes it anew: {missing:#?} {stale:#?}"
    );
}

#[test]
fn names_and_statements_are_said_once() {
    let mut seen = BTreeSet::new();
    for case in tbrdma_conformance::all() {
        assert!(seen.insert(case.name()), "{} is there twice", case.name());
        assert!(!case.statement.is_empty() && !case.source.is_empty(), "{}", case.name());
    }
    assert!(seen.len() >= 250);
}
