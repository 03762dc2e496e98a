//! What there is on the stage: files, sockets and processes. Taken before a program and after it, to see what it left behind.

use crate::stage::{PRIVATE, Stage};
use anyhow::{Result, bail};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The kernel takes some things away a little after the process is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that could have been left behind, in words.
pub(crate) struct Census(BTreeSet<String>);

impl Census {
    /// Between two programs: none that we wait for runs.
    pub(crate) fn take(stage: &Stage) -> Result<Self> {
        let mut all = BTreeSet::new();
        all.extend(children()?);
        all.extend(abstract_sockets(stage.is_shared().is_some())?);
        if stage.is_shared().is_none() {
            for folder in PRIVATE {
                for entry in fs::read_dir(folder).into_iter().flatten() {
                    all.insert(format!("file {}", entry?.path().display()));
                }
            }
            for table in ["udp", "udp6"] {
                let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
                let sockets = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
                all.extend(sockets.map(|local| format!("{table} socket at {local}")));
            }
        }
        Ok(Self(all))
    }

    /// Fails if there is more than there was.
    pub(crate) fn check_again(&self, stage: &Stage) -> Result<()> {
        let begun = Instant::now();
        loop {
            let now = Self::take(stage)?;
            let mut left = now.0.difference(&self.0).peekable();
            if left.peek().is_none() {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("it left behind: {}", left.cloned().collect::<Vec<_>>().join(", "));
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Processes below us, those included whose parent is gone. Those that have ended are nothing that was left: their parent was to bury them.
fn children() -> Result<Vec<String>> {
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
        waitpid(None, Some(WaitPidFlag::WNOHANG))
    {}
    let us = std::process::id().to_string();
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.file_name().to_string_lossy().into_owned();
        if !process.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // It may be gone by now. The name, in parentheses, may have any character in it.
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if let Some((name, rest)) = stat.rsplit_once(')')
            && rest.split_whitespace().nth(1) == Some(&us)
        {
            children.push(format!("process {name})"));
        }
    }
    Ok(children)
}

fn abstract_sockets(only_ours: bool) -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/thread-self/net/unix")?;
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(7));
    let names = names.filter(|name| name.starts_with('@') && (!only_ours || name.contains("tbrdma")));
    Ok(names.map(|name| format!("abstract socket {name}")).collect())
}
