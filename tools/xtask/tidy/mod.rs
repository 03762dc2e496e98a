//! `cargo xtask tidy`: the repository's own rules, as far as a program can see to them. What each is for stands in its file.

mod dead;
mod links;
mod manifest;
mod rooms;
mod source;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use crate::cargo::root;
use std::fmt;
use std::process::ExitCode;
use tree::Tree;

/// Checks the repository's own rules: length and opening of files, where `unsafe` may stand, who imports whom, links and dead files.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: String,
    /// From 1; 0 is the whole file.
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

pub(crate) fn main(_args: &Args) -> ExitCode {
    let tree = match Tree::of_checkout(&root()) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("xtask: {error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = check(&tree);
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("{} files, tidy", tree.files().count());
        return ExitCode::SUCCESS;
    }
    println!("{} findings", findings.len());
    ExitCode::FAILURE
}

/// Everything that is not as it should be, in the order of the files.
fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rules: [fn(&Tree, &mut Vec<Finding>); 9] = [
        text::lengths_and_openings,
        text::words,
        text::names_of_tests,
        rooms::unsafe_code,
        rooms::crates,
        rooms::modules,
        links::links,
        links::commands,
        dead::files,
    ];
    for rule in rules {
        rule(tree, &mut findings);
    }
    findings.sort();
    findings
}
