//! Who may import whom, and where `unsafe` may stand: the rooms of ARCHITECTURE.md.

use super::Finding;
use super::manifest::packages;
use super::source::{code, words};
use super::tree::{Tree, find};

/// Where `unsafe` may stand: what touches the operating system or memory that others change, the C ABI, and tests of it.
const UNSAFE_ROOMS: [&str; 9] = [
    "driver/sys/",
    "driver/mem/",
    "driver/ring/",
    "driver/native/",
    "driver/bar/",
    "abi/",
    "tools/ibverbs/",
    "tools/preload/",
    "fuzz/",
];

/// The attribute by which the compiler sees to it where it may not.
const FORBID: &str = "#![forbid(unsafe_code)]";

/// `unsafe` stands in its rooms and in tests, and crates without such a room forbid it.
pub(crate) fn unsafe_code(tree: &Tree, findings: &mut Vec<Finding>) {
    let allowed = |name: &str| {
        UNSAFE_ROOMS.iter().any(|room| name.starts_with(room))
            || name.starts_with("tests/")
            || name.contains("/tests/")
    };
    for (name, text) in tree.rust().filter(|(name, _)| !allowed(name)) {
        for (line, text) in (1..).zip(code(text).lines()) {
            if words(text).any(|word| word == "unsafe") {
                let rooms = UNSAFE_ROOMS.join(" ");
                find(
                    findings,
                    name,
                    line,
                    format!("`unsafe` may stand in {rooms}and tests alone: put it there"),
                );
            }
        }
    }
    for package in packages(tree) {
        for root in &package.roots {
            // The driver has such rooms, and tests may have it.
            if allowed(root) || root.starts_with("driver/") || package.file.starts_with("tests/") {
                continue;
            }
            if !tree.text(root).is_some_and(|text| text.contains(FORBID)) {
                find(
                    findings,
                    root,
                    0,
                    format!("lacks {FORBID}, which every crate without a room for it has"),
                );
            }
        }
    }
}

/// Our packages that only some may depend on, and who: the brain depends on nobody, the ruler is a user like any other.
const MAY_DEPEND: [(&str, &[&str]); 5] = [
    ("tbrdma-proto", &[]),
    ("tbrdma-abi", &["tbrdma-proto"]),
    ("tbrdma", &["tbrdma-proto", "tbrdma-abi"]),
    ("tbrdma-bench", &["tbrdma"]),
    ("tbrdma-conformance", &["tbrdma"]),
];
/// Those that nobody depends on.
const ENDS: [&str; 2] = ["tbrdma-bench", "xtask"];

/// Who does all the same: the fuzzer, a workspace of its own, has what the ruler reads from outside among its targets.
const FUZZER: &str = "tbrdma-fuzz";

/// A package depends on those of ours that it may.
pub(crate) fn crates(tree: &Tree, findings: &mut Vec<Finding>) {
    let packages = packages(tree);
    for package in &packages {
        let ours =
            package.dependencies.iter().filter(|(name, _)| packages.iter().any(|one| one.name == *name));
        for (name, tests_only) in ours {
            let rule = MAY_DEPEND.iter().find(|(user, _)| *user == package.name);
            let breaks_rule = rule.is_some_and(|(_, may)| !may.contains(&name.as_str())) && !tests_only;
            if breaks_rule || (ENDS.contains(&name.as_str()) && package.name != FUZZER) {
                find(
                    findings,
                    &package.file,
                    0,
                    format!("{} may not depend on {name}: see ARCHITECTURE.md, Rooms", package.name),
                );
            }
        }
    }
}

/// What the rooms of the driver may import of each other, where that is bounded.
const MAY_IMPORT: [(&str, &[&str]); 5] = [
    ("sys", &["sync"]),
    ("bar", &["sync", "sys", "mem", "ring", "error"]),
    ("ring", &["sync", "mem", "sys"]),
    ("mem", &["sync", "sys", "ring", "error", "device"]),
    ("sync", &[]),
];
/// What they may not. The devices do not know each other, and nobody below the verbs knows them.
const MAY_NOT_IMPORT: [(&str, &[&str]); 6] = [
    ("link", &["shm", "soft", "native", "profiled", "ring"]),
    ("shm", &["soft", "native", "profiled"]),
    ("soft", &["shm", "native", "profiled"]),
    ("native", &["shm", "soft", "link", "profiled"]),
    ("profiled", &["shm", "native", "link", "ring"]),
    ("error", &["shm", "soft", "native", "link", "ring", "mem", "sys", "profiled"]),
];
/// The rooms of the driver, by the name of their module.
const ROOMS: [&str; 13] = [
    "sys", "ring", "mem", "bar", "sync", "link", "shm", "soft", "native", "profiled", "error", "device",
    "verbs",
];

/// The rooms of the driver import each other as ARCHITECTURE.md draws it, and the model checker sees the atomics of those it looks at.
pub(crate) fn modules(tree: &Tree, findings: &mut Vec<Finding>) {
    for (name, text) in tree.rust() {
        let Some(path) = name.strip_prefix("driver/") else { continue };
        let room = path.split(['/', '.']).next().unwrap_or_default();
        for (line, text) in (1..).zip(code(text).lines()) {
            // Those of a `static` live longer than any model, and these rooms are in none.
            let is_plain = ["sync", "mem", "sys"].contains(&room) || text.trim_start().starts_with("static ");
            if text.contains("sync::atomic") && !is_plain {
                find(
                    findings,
                    name,
                    line,
                    "atomics come from driver/sync.rs, so that the model checker has them",
                );
            }
            for imported in imported(text) {
                let may = MAY_IMPORT.iter().find(|(who, _)| *who == room);
                let may_not = MAY_NOT_IMPORT.iter().find(|(who, _)| *who == room);
                let is_wrong = may.is_some_and(|(_, list)| !list.contains(&imported))
                    || may_not.is_some_and(|(_, list)| list.contains(&imported));
                if is_wrong && imported != room && ROOMS.contains(&imported) {
                    find(
                        findings,
                        name,
                        line,
                        format!("{room} may not import {imported}: see ARCHITECTURE.md, Rooms"),
                    );
                }
            }
        }
    }
}

/// The modules at the root of the crate that a line names.
fn imported(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").flat_map(|(at, found)| {
        let rest = &line[at + found.len()..];
        let list = rest.strip_prefix('{').map_or("", |list| list.split('}').next().unwrap_or_default());
        let one = if list.is_empty() { words(rest).next() } else { None };
        words(list).chain(one)
    })
}
