//! The findings for people: at most eighty columns, and colour only where somebody sees it.

use std::fmt::Write as _;
use std::io::IsTerminal;

use super::Diagnosis;
use super::finding::{AREAS, Finding, Severity};
use crate::words::fold;

/// Columns before a finding's own words.
const INDENT: usize = 10;

/// Is standard output a terminal whose owner has nothing against colour (<https://no-color.org>)?
#[must_use]
pub fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    !refused && !dumb && std::io::stdout().is_terminal()
}

/// The whole text.
#[must_use]
pub fn render(diagnosis: &Diagnosis, colour: bool) -> String {
    let mut text = String::new();
    let root = diagnosis
        .root
        .as_deref()
        .map_or_else(|| "this host".to_owned(), |root| format!("recorded in {root}"));
    let system = super::platform_name(&diagnosis.platform);
    fold(&mut text, 0, &format!("{system} {} ({}), {root}", diagnosis.release, diagnosis.architecture));
    for (area, heading) in AREAS {
        let belongs = |finding: &&Finding| finding.id.split('.').next() == Some(area);
        let mut findings: Vec<&Finding> = diagnosis.findings.iter().filter(belongs).collect();
        if findings.is_empty() {
            continue;
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let _ = writeln!(text, "\n{}", painted(heading, "1", colour));
        for finding in findings {
            describe(&mut text, finding, colour);
        }
    }
    text.push('\n');
    let usable = match diagnosis.usable.as_slice() {
        [] => String::new(),
        devices => format!("usable now: {}", devices.join(", ")),
    };
    if !usable.is_empty() {
        fold(&mut text, 0, &usable);
    }
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let fine = diagnosis.findings.len() - diagnosis.problems - diagnosis.notes;
    let counts = format!(
        "{}, {}, {fine} as it should be",
        many(diagnosis.problems, "problem"),
        many(diagnosis.notes, "note")
    );
    let _ = writeln!(text, "{counts}");
    text
}

fn describe(text: &mut String, finding: &Finding, colour: bool) {
    let (word, code) = match finding.severity {
        Severity::Ok => ("ok", "32"),
        Severity::Note => ("note", "33"),
        Severity::Problem => ("PROBLEM", "1;31"),
    };
    let blanks = " ".repeat(INDENT - 2 - word.len());
    let _ = write!(text, "  {}{blanks}", painted(word, code, colour));
    fold(text, INDENT, &format!("{} [{}]", finding.title, finding.id));
    for evidence in &finding.evidence {
        let _ = write!(text, "{:INDENT$}", "");
        fold(text, INDENT, &format!("{}: {}", evidence.source, evidence.said));
    }
    for (name, words) in [("why", &finding.why), ("do", &finding.remedy)] {
        if let Some(words) = words {
            let _ = write!(text, "{:INDENT$}", "");
            fold(text, INDENT, &format!("{name}: {words}"));
        }
    }
}

fn painted(words: &str, code: &str, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{words}\x1b[0m") } else { words.to_owned() }
}
