//! What a gate says to programs: JUnit's XML, and annotations of GitHub's.

use super::{Judgement, Outcome};
use std::fmt::Write as _;

/// A test suite with a case for each limit and result. What cannot be measured is an error, as a test is that could not run.
pub(super) fn junit(judgements: &[Judgement]) -> String {
    let count = |outcome| judgements.iter().filter(|judgement| judgement.outcome == outcome).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"tbrdma-bench gate\" tests=\"{}\" failures=\"{}\" errors=\"{}\">\n",
        judgements.len(),
        count(Outcome::Broken),
        count(Outcome::NotMeasurable)
    );
    for Judgement { limit, outcome, why } in judgements {
        let (limit, why) = (xml(limit), xml(why));
        let _ = write!(text, "  <testcase classname=\"gate\" name=\"{limit}\">");
        let _ = match outcome {
            Outcome::Kept => write!(text, "<system-out>{why}</system-out>"),
            Outcome::Broken => write!(text, "<failure message=\"{why}\"/>"),
            Outcome::NotMeasurable => write!(text, "<error message=\"{why}\"/>"),
        };
        text += "</testcase>\n";
    }
    text + "</testsuite>\n"
}

/// A line for each limit that is not kept, or cannot be measured.
pub(super) fn annotations(judgements: &[Judgement]) -> String {
    let mut text = String::new();
    for Judgement { limit, outcome, why } in judgements {
        let kind = match outcome {
            Outcome::Kept => continue,
            Outcome::Broken => "error",
            Outcome::NotMeasurable => "warning",
        };
        let title = data(limit).replace(':', "%3A").replace(',', "%2C");
        let _ = writeln!(text, "::{kind} title={title}::{}", data(why));
    }
    text
}

/// Text in an attribute or an element. Characters that XML cannot have are left out.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' | '\t' => out.push(' '),
            char if char.is_control() => {}
            char => out.push(char),
        }
    }
    out
}

/// Text in a command of GitHub's.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
