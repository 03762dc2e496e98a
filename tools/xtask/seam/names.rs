//! Whether the names that are used of libc are there on a Mac: by the text of the libc crate, for where the build for a Mac cannot be made.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Looks up each name of libc in the sources that the build without Linux read.
pub(super) fn check(root: &Path, built: &Path) -> Result<(), String> {
    let libc = source_of_libc(root)?;
    let sources = sources(built)?;
    let mut known = String::new();
    for part in ["src/lib.rs", "src/macros.rs", "src/primitives.rs", "src/unix/mod.rs", "src/unix/bsd/mod.rs"]
    {
        known += &fs::read_to_string(libc.join(part)).unwrap_or_default();
    }
    for folder in ["src/unix/bsd/apple", "src/new/apple", "src/new/common"] {
        read_all(&libc.join(folder), &mut known);
    }
    if !known.contains("fn mmap") {
        return Err(format!("libc in {} is laid out in another way than is known here", libc.display()));
    }
    let defined: BTreeSet<&str> = words(&known).collect();
    let mut missing = Vec::new();
    let mut looked = 0;
    for path in &sources {
        let text = fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
        for name in names_of_libc(&text) {
            looked += 1;
            if !defined.contains(name) {
                missing.push(format!("{path}: libc::{name}"));
            }
        }
    }
    if missing.is_empty() {
        println!(
            "{looked} uses of libc's names in {} files, each a name that libc has for Apple's systems",
            sources.len()
        );
        return Ok(());
    }
    Err(format!("libc has these not for Apple's systems:\n  {}", missing.join("\n  ")))
}

/// Names after `libc::`, without those of its lists in braces: the sources have none.
fn names_of_libc(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let after = code.flat_map(|line| line.split("libc::").skip(1));
    after.filter_map(|rest| words(rest).next().filter(|word| rest.starts_with(word)))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The files of ours that were compiled, as cargo's lists of what each crate depends on have them.
fn sources(built: &Path) -> Result<BTreeSet<String>, String> {
    let deps = built.join("debug/deps");
    let listed = fs::read_dir(&deps).map_err(|error| format!("{}: {error}", deps.display()))?;
    let mut sources = BTreeSet::new();
    for entry in listed.flatten() {
        let path = entry.path();
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tbrdma"));
        if is_ours && path.extension().is_some_and(|extension| extension == "d") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            // A file by itself before a colon, and nothing after it: one that the crate was made of.
            let files = text.lines().filter_map(|line| line.strip_suffix(".rs:"));
            sources.extend(files.map(|file| format!("{file}.rs")));
        }
    }
    if sources.is_empty() { Err(format!("{} lists no sources", deps.display())) } else { Ok(sources) }
}

/// The folder of the libc crate that the lock file names.
fn source_of_libc(root: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked =
        Command::new(cargo).current_dir(root).args(["metadata", "--format-version=1", "--locked"]).output();
    let text = asked.map_err(|error| format!("cargo metadata: {error}"))?.stdout;
    let text = String::from_utf8_lossy(&text);
    let path = text.split('"').find(|word| word.ends_with("/Cargo.toml") && word.contains("/libc-0.2."));
    path.map(|path| Path::new(path).with_file_name(""))
        .ok_or_else(|| "cargo metadata names no libc".to_owned())
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path, text);
        } else {
            *text += &fs::read_to_string(path).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::names_of_libc;

    #[test]
    fn names_are_found_where_code_has_them() {
        let text = "// libc::comment\nuse nix::libc;\nlet x = unsafe { libc::mmap(libc::PROT_READ | nix::libc::MAP_ANON) };\n\
                    const C: libc::c_int = libc::c_int::MAX;\nuse libc::{self};";
        let names: Vec<_> = names_of_libc(text).collect();
        assert_eq!(names, ["mmap", "PROT_READ", "MAP_ANON", "c_int", "c_int"]);
    }
}
