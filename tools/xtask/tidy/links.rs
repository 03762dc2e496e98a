//! Pages lead somewhere, and somebody leads to them.

use super::Finding;
use super::manifest::packages;
use super::source::words;
use super::tree::{Tree, find, folder, join};
use std::collections::BTreeSet;

/// Relative links of pages lead to files, and each page below `docs/` is linked from another.
pub(crate) fn links(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut linked = BTreeSet::new();
    for (name, text) in tree.files().filter(|(name, _)| name.ends_with(".md")) {
        let mut in_code = false;
        for (line, text) in (1..).zip(text.lines()) {
            in_code ^= text.trim_start().starts_with("```");
            for target in targets(text).filter(|_| !in_code) {
                let path = target.split('#').next().unwrap_or_default();
                if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                    continue;
                }
                match join(folder(name), path) {
                    Some(path) if tree.has(&path) => {
                        if path != name {
                            linked.insert(path);
                        }
                    }
                    _ => find(findings, name, line, format!("leads to {path}, which is not there")),
                }
            }
        }
    }
    for (name, _) in tree.files().filter(|(name, _)| name.starts_with("docs/") && name.ends_with(".md")) {
        if !linked.contains(name) {
            find(
                findings,
                name,
                0,
                "no other page leads here: link it from the one that its readers come from",
            );
        }
    }
}

/// Commands on pages name files of tests that there are.
pub(crate) fn commands(tree: &Tree, findings: &mut Vec<Finding>) {
    let tests: BTreeSet<String> = packages(tree)
        .iter()
        .flat_map(|package| &package.others)
        .map(|file| file.trim_end_matches("/main.rs").trim_end_matches(".rs"))
        .filter_map(|file| Some(file.rsplit('/').next()?.to_owned()))
        .collect();
    for (name, text) in tree.files().filter(|(name, _)| name.ends_with(".md")) {
        for (line, text) in (1..).zip(text.lines()) {
            for test in text.split("--test ").skip(1).filter_map(|rest| words(rest).next()) {
                if !tests.contains(test) {
                    find(findings, name, line, format!("`--test {test}` is no file of tests"));
                }
            }
        }
    }
}

/// Where the links of a line of Markdown lead.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, found)| {
        let target = line[at + found.len()..].split(')').next()?;
        target.split(' ').next()
    })
}
