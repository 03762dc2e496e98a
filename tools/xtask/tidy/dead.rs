//! Files that nobody uses: modules that no other file declares, and data whose name stands nowhere.

use super::Finding;
use super::manifest::packages;
use super::source::code;
use super::tree::{Tree, find, folder, join};
use std::collections::BTreeSet;

/// Files that people and tools look for by name.
const KNOWN: [&str; 14] = [
    ".gitignore",
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "clippy.toml",
    "config.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// Each file is used by another.
pub(crate) fn files(tree: &Tree, findings: &mut Vec<Finding>) {
    let modules = modules(tree);
    for (name, _) in tree.rust().filter(|(name, _)| !modules.contains(*name)) {
        find(findings, name, 0, "is a module of nobody: declare it, or remove it");
    }
    for (name, _) in tree.files().filter(|(name, _)| !name.ends_with(".rs") && !name.ends_with(".md")) {
        let short = name.rsplit('/').next().unwrap_or(name);
        // Many of a kind are read by the name of their folder, or without their ending.
        let folder = folder(name).rsplit('/').next().unwrap_or_default();
        let stem = short.split('.').next().unwrap_or(short);
        let is_named = |text: &str| {
            text.contains(short)
                || text.contains(&format!("\"{stem}\""))
                || text.contains(&format!("{folder}/{{"))
        };
        let is_used = tree.files().any(|(other, text)| other != name && is_named(text));
        if !KNOWN.contains(&short) && !is_used {
            find(findings, name, 0, "its name stands nowhere: nobody reads it");
        }
    }
}

/// The files in Rust that are part of something.
fn modules(tree: &Tree) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for package in packages(tree) {
        for root in package.roots.iter().chain(&package.others) {
            visit(tree, root, folder(root), &mut seen);
        }
    }
    seen
}

/// A file whose modules lie in a folder, and all that it declares.
fn visit(tree: &Tree, file: &str, below: &str, seen: &mut BTreeSet<String>) {
    let Some(text) = tree.text(file) else { return };
    if !seen.insert(file.to_owned()) {
        return;
    }
    let (mut paths, mut inner) = (Vec::new(), Vec::new());
    let mut depth = 0;
    for (line, blank) in text.lines().zip(code(text).lines()) {
        if blank.contains("path = ") && blank.trim_start().starts_with("#[") {
            paths.extend(
                line.split('"').skip(1).step_by(2).filter(|path| path.ends_with(".rs")).map(str::to_owned),
            );
        } else if let Some(module) = declared(blank) {
            if blank.trim_end().ends_with(';') {
                let inner: String =
                    inner.iter().map(|(name, _): &(String, i32)| format!("/{name}")).collect();
                let below = format!("{below}{inner}");
                for path in paths.drain(..) {
                    // A path is taken from the folder of the file, and the modules of what it leads to lie beside that.
                    if let Some(path) = join(folder(file), &path) {
                        visit(tree, &path, folder(&path), seen);
                    }
                }
                for path in [format!("{below}/{module}.rs"), format!("{below}/{module}/mod.rs")] {
                    let path = path.trim_start_matches('/').to_owned();
                    visit(tree, &path, &format!("{below}/{module}"), seen);
                }
            } else if blank.contains('{') && !blank.contains('}') {
                inner.push((module.to_owned(), depth));
            }
        } else if !blank.trim().is_empty() && !blank.trim_start().starts_with("#[") {
            paths.clear();
        }
        depth += blank.matches('{').count() as i32 - blank.matches('}').count() as i32;
        inner.retain(|(_, opened)| depth > *opened);
    }
}

/// The module that a line declares.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = match line.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => line,
    };
    let name = line.strip_prefix("mod ")?;
    name.split([';', ' ', '{']).next().filter(|name| !name.is_empty())
}
