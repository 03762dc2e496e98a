//! `tbrdma-bench doctor`: what RDMA this host has, and why not more.
//!
//! In two halves, and a hand. [`facts`] gathers: it asks a [`host::Host`] for files, folders, commands and a few [`probes`], and makes plain values of
//! the answers. [`mod@judge`] says what they mean, as [`finding`]s, and looks at nothing else. So a [`recorded`] tree gives the findings of
//! the host it was recorded on, in tests and for whoever asks others for help; [`text`] prints them. [`setup`] is the hand: it does what is
//! missing for raw streams over a cable, where somebody says so.

pub mod facts;
pub mod finding;
pub mod host;
pub mod judge;
#[cfg_attr(not(tbrdma_linux), path = "portable/kernel.rs")]
pub mod kernel;
pub mod probes;
pub mod recorded;
pub mod setup;
pub mod text;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

pub use finding::{Evidence, Finding, Severity};

use crate::error::{Context, Error, Result};

/// Name and version of the JSON: `harness/schema/tbrdma-doctor-1.json`.
pub const SCHEMA: &str = "tbrdma-doctor/1";

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// JSON by the schema tbrdma-doctor/1, on standard output
    #[arg(long)]
    pub json: bool,
    /// Examine a tree that --record wrote, perhaps on another host
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Also write what was looked at to a new folder, to be examined with --root (has addresses of interfaces, no other names)
    #[arg(long, value_name = "DIR", conflicts_with = "root")]
    pub record: Option<PathBuf>,
    /// Set up a raw stream over a Thunderbolt or USB4 cable (Linux 7.2, root): shows the commands, asks, does them
    #[arg(long, conflicts_with_all = ["json", "record"])]
    pub setup: bool,
    /// With --setup: only show the commands
    #[arg(long, requires = "setup")]
    pub dry_run: bool,
    /// With --setup: do not ask
    #[arg(long, requires = "setup", conflicts_with = "dry_run")]
    pub yes: bool,
    /// With --setup: which host at the end of a cable, as 0-1, where there are several
    #[arg(long, value_name = "HOST", requires = "setup")]
    pub peer: Option<String>,
    /// With --setup: the stream's name, the same on both hosts [default: any that is there, or tbrdma]
    #[arg(long, value_name = "NAME", requires = "setup")]
    pub stream: Option<String>,
}

/// The whole of what is said of a host.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// `linux` or `macos`.
    pub platform: String,
    /// Release of the kernel, or of macOS.
    pub release: String,
    /// Processor architecture.
    pub architecture: String,
    /// The tree that was examined; null for this host.
    pub root: Option<String>,
    /// Devices that opened.
    pub usable: Vec<String>,
    /// How many findings are problems.
    pub problems: usize,
    /// How many are notes.
    pub notes: usize,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Examines a host.
    #[must_use]
    pub fn of(host: &dyn host::Host, root: Option<String>) -> Self {
        let facts = facts::gather(host);
        let findings = judge::judge(&facts);
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        Self {
            schema: SCHEMA,
            usable: judge::usable(&facts),
            problems: count(Severity::Problem),
            notes: count(Severity::Note),
            platform: facts.platform,
            release: facts.release,
            architecture: facts.architecture,
            root,
            findings,
        }
    }
}

/// The command: examines, prints, and says whether something hinders (exit code 1).
///
/// # Errors
/// The tree of `--root` is not there, or the one of `--record` cannot be written.
pub fn run(flags: &Flags) -> Result<u8> {
    if let Some(root) = flags.root.as_ref().filter(|root| !root.is_dir()) {
        return Err(Error::Usage(format!("--root {}: there is no such folder", root.display())));
    }
    if flags.setup {
        return setup::run(flags);
    }
    let diagnosis = match (&flags.root, &flags.record) {
        (Some(root), _) => Diagnosis::of(&recorded::Recorded::new(root), Some(root.display().to_string())),
        (None, Some(folder)) => {
            let what = || format!("--record {}", folder.display());
            let recorder = recorded::Recorder::create(folder).context(what)?;
            let diagnosis = Diagnosis::of(&recorder, None);
            recorder.finish().context(what)?;
            diagnosis
        }
        (None, None) => Diagnosis::of(&host::Live, None),
    };
    if flags.json {
        let json = serde_json::to_string_pretty(&diagnosis).context(|| "encode the findings".into())?;
        crate::say(&(json + "\n"))?;
    } else {
        crate::say(&text::render(&diagnosis, text::wants_colour()))?;
    }
    Ok(u8::from(diagnosis.problems > 0))
}

/// A system as people write it.
fn platform_name(platform: &str) -> &str {
    match platform {
        "linux" => "Linux",
        "macos" => "macOS",
        other => other,
    }
}
