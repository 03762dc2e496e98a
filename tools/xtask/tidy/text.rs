//! How files are written: their length, what they open with, words that say that something is not done, names of tests.

use super::Finding;
use super::source::{code, words as words_of};
use super::tree::{Tree, find};

/// Lines of the longest file. One that grows beyond is two.
const MAX_LINES: usize = 600;
/// Words that stand for work that was left undone or a look that was forgotten. In two parts, or they would be found here.
const UNDONE: [(&str, &str); 6] =
    [("TO", "DO"), ("FIX", "ME"), ("X", "XX"), ("todo", "!("), ("unimplemented", "!("), ("dbg", "!(")];

/// Files in Rust are short enough to be read at once, and say first what lives in them.
pub(crate) fn lengths_and_openings(tree: &Tree, findings: &mut Vec<Finding>) {
    for (name, text) in tree.rust() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            find(findings, name, 0, format!("{lines} lines; make two files of it, {MAX_LINES} are the most"));
        }
        if !text.starts_with("//!") {
            find(findings, name, 1, "does not open with `//!`: say what lives in it");
        }
    }
}

/// Nothing says that it is not finished.
pub(crate) fn words(tree: &Tree, findings: &mut Vec<Finding>) {
    let undone: Vec<String> = UNDONE.iter().map(|(front, back)| format!("{front}{back}")).collect();
    let ours = ["rs", "md", "toml", "c", "json"];
    for (name, text) in tree.files() {
        let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
        if !ours.contains(&kind) && !name.starts_with(".ci/") {
            continue;
        }
        for (line, text) in (1..).zip(text.lines()) {
            if let Some(word) = undone.iter().find(|word| has_word(text, word)) {
                find(findings, name, line, format!("{word}: do it, or open an issue"));
            }
        }
    }
}

/// Whether a word stands in a line, by itself.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let behind = line[at + word.len()..].chars().next();
        let part = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
        !part(before) && (word.ends_with('(') || !part(behind))
    })
}

/// A test is called what is true if it passes. So it does not begin with the word test, nor does the file of a behaviour.
pub(crate) fn names_of_tests(tree: &Tree, findings: &mut Vec<Finding>) {
    let is_no_behaviour = |name: &str| {
        name.starts_with("test_") || name.ends_with("_test") || name == "test" || name.starts_with("it_works")
    };
    for (name, text) in tree.rust() {
        let file = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".rs");
        if is_no_behaviour(file) {
            find(findings, name, 0, "a file of tests is called after the behaviour that it is about");
        }
        let code = code(text);
        let mut is_test = false;
        for (line, text) in (1..).zip(code.lines()) {
            let text = text.trim_start();
            if text.starts_with('#') {
                is_test |= text.starts_with("#[test]");
            } else if let Some(at) = text.find("fn ").filter(|_| is_test) {
                let test = words_of(&text[at + 3..]).next().unwrap_or_default();
                if is_no_behaviour(test) {
                    find(findings, name, line, format!("{test}: a test is called what is true if it passes"));
                }
                is_test = false;
            }
        }
    }
}
