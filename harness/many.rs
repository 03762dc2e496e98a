//! What modes that make many results have in common: where these go, and how such a mode ends before its time.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::outputs::WholeFile;
use crate::{complain, say};

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputFlags {
    /// Also write all results to this file, as one, by the mode's schema; - is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write all results to this file, a row each; - is standard output
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// No progress bar, and no table
    #[arg(long)]
    pub quiet: bool,
}

impl OutputFlags {
    /// Is the terminal for people, and are they to be told?
    #[must_use]
    pub fn tells(&self) -> bool {
        let is_stdout = |path: &PathBuf| path.as_os_str() == "-";
        !self.quiet && ![&self.json, &self.csv].into_iter().flatten().any(is_stdout)
    }
}

/// The files, tried before anything is measured.
#[derive(Debug)]
pub struct Outputs {
    json: Place,
    csv: Place,
    quiet: bool,
}

/// Where a text goes.
#[derive(Debug)]
enum Place {
    Nowhere,
    File(WholeFile),
    Terminal,
}

impl Place {
    fn prepare(flag: &'static str, path: Option<&PathBuf>) -> Result<Self> {
        match path {
            None => Ok(Self::Nowhere),
            Some(path) if path.as_os_str() == "-" => Ok(Self::Terminal),
            Some(path) => WholeFile::prepare(flag, path).map(Self::File),
        }
    }
}

impl Outputs {
    /// Tries the files.
    ///
    /// # Errors
    /// One cannot be written, or two are to be standard output.
    pub fn prepare(flags: &OutputFlags) -> Result<Self> {
        let json = Place::prepare("--json", flags.json.as_ref())?;
        let csv = Place::prepare("--csv", flags.csv.as_ref())?;
        if matches!((&json, &csv), (Place::Terminal, Place::Terminal)) {
            return Err(Error::Usage(
                "--json and --csv cannot both go to standard output: name files".into(),
            ));
        }
        Ok(Self { json, csv, quiet: flags.quiet })
    }

    /// Writes the files, and to the terminal what was asked for there, or the `table`.
    ///
    /// # Errors
    /// A disk is full, or a file system refuses.
    pub fn write(
        self,
        results: &impl Serialize,
        csv: impl Fn() -> String,
        table: impl Fn() -> String,
    ) -> Result<()> {
        let json = || {
            let text = serde_json::to_string_pretty(results).context(|| "encode the results".into())?;
            Ok::<_, Error>(text + "\n")
        };
        let said = matches!(self.json, Place::Terminal) || matches!(self.csv, Place::Terminal);
        match self.json {
            Place::Nowhere => {}
            Place::File(file) => file.write(&json()?)?,
            Place::Terminal => say(&json()?)?,
        }
        match self.csv {
            Place::Nowhere => {}
            Place::File(file) => file.write(&csv())?,
            Place::Terminal => say(&csv())?,
        }
        if said || self.quiet { Ok(()) } else { say(&table()) }
    }
}

/// Says that the user had enough; the exit code.
#[must_use]
pub fn interrupted(results: usize) -> u8 {
    complain(&format!("tbrdma-bench: interrupted after {results} results\n"));
    Error::Interrupted.exit_code()
}

/// Is it a device whose time is virtual? A time that it is to measure may be any number of messages.
#[must_use]
pub fn is_simulated(device: &str) -> bool {
    device == "sim" || device.starts_with("sim:")
}
