//! What a device has counted, as Linux tells it in files.

use super::{lock, platform};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// The port's counters, those of the driver's own first. None where the system has no such files.
pub(super) fn counters(device: &str) -> Vec<(&'static str, u64)> {
    let Some(port) = platform::folder(device).map(|folder| folder.join("ports/1")) else { return Vec::new() };
    ["hw_counters", "counters"].iter().flat_map(|folder| of(&port.join(folder))).collect()
}

fn of(folder: &Path) -> Vec<(&'static str, u64)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let counter = |entry: fs::DirEntry| {
        let value = fs::read_to_string(entry.path()).ok()?.trim().parse().ok()?;
        let name = entry.file_name().into_string().ok().filter(|name| name != "lifespan")?;
        Some((interned(name), value))
    };
    let mut all: Vec<_> = entries.filter_map(Result::ok).filter_map(counter).collect();
    all.sort_unstable();
    all
}

/// The name for the life of the process: there are as many as the system's drivers have counters.
fn interned(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let mut names = lock(&NAMES);
    if let Some(known) = names.get(name.as_str()) {
        return known;
    }
    let name: &'static str = name.leak();
    names.insert(name);
    name
}
