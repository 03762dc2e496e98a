//! What the program is started with: the loader's variables, and ours.

use crate::library::Library;
use anyhow::{Context, Result};
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use tbrdma_settings::Settings;

const SEARCH: &str = "LD_LIBRARY_PATH";
const PRELOAD: &str = "LD_PRELOAD";

/// Variables, and what becomes of them: a value, or none.
pub(crate) struct Environment(Vec<(&'static str, Option<OsString>)>);

impl Environment {
    pub(crate) fn new(settings: &Settings, library: &Library) -> Result<Self> {
        let mut variables = vec![(SEARCH, Some(in_front(SEARCH, library.folder.as_os_str())?))];
        if settings.device_files {
            variables.push((PRELOAD, Some(in_front(PRELOAD, library.paths()?.as_os_str())?)));
        }
        variables.extend(settings.variables());
        Ok(Self(variables))
    }

    pub(crate) fn apply(&self, command: &mut Command) {
        for (name, value) in &self.0 {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// Commands for a POSIX shell.
    pub(crate) fn as_shell(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            let line = match value {
                Some(value) => {
                    writeln!(text, "export {name}='{}'", value.to_string_lossy().replace('\'', r"'\''"))
                }
                None => writeln!(text, "unset {name}"),
            };
            line.unwrap_or_else(|_| unreachable!("a String takes all text"));
        }
        text
    }
}

/// A list of paths with this one at its front, once.
fn in_front(variable: &str, path: &OsStr) -> Result<OsString> {
    let unusable = path.as_bytes().iter().any(|byte| b":;".contains(byte))
        || (variable == PRELOAD && path.as_bytes().contains(&b' '));
    if unusable {
        let reason = "the loader takes such a path for several; move the tree elsewhere";
        return Err(anyhow::anyhow!(reason)).with_context(|| format!("{} in {variable}", path.display()));
    }
    let mut list = path.to_owned();
    let rest = std::env::var_os(variable).unwrap_or_default();
    for other in rest.as_bytes().split(|&byte| byte == b':').filter(|other| !other.is_empty()) {
        if other != path.as_bytes() {
            list.push(":");
            list.push(OsStr::from_bytes(other));
        }
    }
    Ok(list)
}
