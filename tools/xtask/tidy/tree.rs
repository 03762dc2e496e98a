//! The files that git keeps, as text.

use super::Finding;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// What a fuzzer has written is nobody's text.
const CORPUS: &str = "fuzz/corpus/";

/// The text files of a checkout, and the names of all.
#[derive(Default)]
pub(crate) struct Tree {
    texts: BTreeMap<String, String>,
    names: BTreeSet<String>,
}

impl Tree {
    /// What git keeps below a folder, and what it does not keep yet and does not ignore.
    pub(crate) fn of_checkout(root: &Path) -> Result<Self, String> {
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("cannot start git to list the files of {}: {error}", root.display()))?;
        if !listed.status.success() {
            let said = String::from_utf8_lossy(&listed.stderr);
            return Err(format!("git cannot list the files of {}: {}", root.display(), said.trim()));
        }
        let mut tree = Self::default();
        let listed = String::from_utf8_lossy(&listed.stdout);
        for name in listed.split('\0').filter(|name| !name.is_empty()) {
            // A file that was removed and not yet committed so is none.
            let Ok(bytes) = std::fs::read(root.join(name)) else { continue };
            if let (false, Ok(text)) = (name.starts_with(CORPUS), String::from_utf8(bytes)) {
                tree.texts.insert(name.to_owned(), text);
            }
            tree.names.insert(name.to_owned());
        }
        Ok(tree)
    }

    /// One with these files.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let own = |&(name, text): &(&str, &str)| (name.to_owned(), text.to_owned());
        Self {
            texts: files.iter().map(own).collect(),
            names: files.iter().map(|(name, _)| (*name).to_owned()).collect(),
        }
    }

    /// Names and texts.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Those in Rust.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(name, _)| name.ends_with(".rs"))
    }

    /// The text of a file.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Whether there is such a file, or a folder with files.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty()
            || self.names.contains(path)
            || self
                .names
                .range(format!("{path}/")..)
                .next()
                .is_some_and(|name| name.starts_with(&format!("{path}/")))
    }
}

/// A path taken from a folder, with `.` and `..` carried out. `None` if it leads out of the repository.
pub(crate) fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The folder that a file is in; empty for the root.
pub(crate) fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Adds a finding.
pub(crate) fn find(findings: &mut Vec<Finding>, file: &str, line: usize, what: impl Into<String>) {
    findings.push(Finding { file: file.to_owned(), line, what: what.into() });
}
