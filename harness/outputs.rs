//! Where results go besides the terminal: JSON, a row of CSV, the percentiles of an HdrHistogram.
//!
//! Files are tried before the run, so that a wrong path is told at once. JSON and percentiles appear under their names only when they are whole;
//! CSV grows by a row a run.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::csv;
use crate::error::{Context, Error, Result};
use crate::histogram::Latencies;
use crate::plan::Benchmark;
use crate::result::Report;

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct OutputFlags {
    /// Also write the result to this file, by the schema tbrdma-bench/1; - is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also add a row to this file, and a line of names where it is new; - is standard output
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Also write the percentiles to this file, as HdrHistogram's tools plot them; of an open loop those of the responses
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
}

/// The files of a run, open or tried.
#[derive(Debug)]
pub struct Outputs {
    json: Option<WholeFile>,
    csv: Option<Table>,
    hgrm: Option<WholeFile>,
    to_stdout: Option<&'static str>,
}

impl Outputs {
    /// Tries the files.
    ///
    /// # Errors
    /// One cannot be written, holds another table, or is none that this measurement has.
    pub fn prepare(flags: &OutputFlags, benchmark: Benchmark) -> Result<Self> {
        let is_stdout = |path: &PathBuf| path.as_os_str() == "-";
        let of_file = |path: &Option<PathBuf>| path.clone().filter(|path| !is_stdout(path));
        let to_stdout: Vec<&'static str> =
            [("--json", &flags.json), ("--csv", &flags.csv), ("--hgrm", &flags.hgrm)]
                .into_iter()
                .filter_map(|(name, path)| path.as_ref().is_some_and(is_stdout).then_some(name))
                .collect();
        if to_stdout.len() > 1 {
            return Err(Error::Usage(format!(
                "{} cannot all go to standard output: name files",
                to_stdout.join(" and ")
            )));
        }
        if flags.hgrm.is_some() && !benchmark.has_latencies() {
            return Err(Error::Usage(format!(
                "--hgrm is of latencies, and {benchmark} measures none: pingpong does"
            )));
        }
        Ok(Self {
            json: of_file(&flags.json).map(|path| WholeFile::prepare("--json", &path)).transpose()?,
            csv: of_file(&flags.csv).map(|path| Table::prepare(&path, csv::names())).transpose()?,
            hgrm: of_file(&flags.hgrm).map(|path| WholeFile::prepare("--hgrm", &path)).transpose()?,
            to_stdout: to_stdout.first().copied(),
        })
    }

    /// Writes the files; what is asked for on standard output, where something is.
    ///
    /// # Errors
    /// A disk is full, or a file system refuses.
    pub fn write(self, report: &Report, latencies: Option<&Latencies>) -> Result<Option<String>> {
        if let Some(json) = self.json {
            json.write(&report.to_json()?)?;
        }
        if let Some(csv) = self.csv {
            csv.append(&csv::row(report))?;
        }
        if let (Some(hgrm), Some(latencies)) = (self.hgrm, latencies) {
            hgrm.write(&percentiles(report, latencies))?;
        }
        Ok(match self.to_stdout {
            Some("--json") => Some(report.to_json()?),
            Some("--csv") => Some(format!("{}\n{}\n", csv::names(), csv::row(report))),
            Some(_) => latencies.map(|latencies| percentiles(report, latencies)),
            None => None,
        })
    }

    /// Writes the results of one measurement with several sizes, each with its latencies, to the same files. Percentiles are those of the last.
    ///
    /// # Errors
    /// A disk is full, or a file system refuses.
    pub fn write_several(mut self, results: &[(Report, Latencies)]) -> Result<Option<String>> {
        let [one @ .., (report, latencies)] = results else { return Ok(None) };
        if one.is_empty() {
            return self.write(report, Some(latencies));
        }
        if let Some(json) = self.json.take() {
            json.write(&several(results)?)?;
        }
        let mut rows = String::new();
        for (report, _) in results {
            rows.push_str(&csv::row(report));
            rows.push('\n');
        }
        if let Some(csv) = self.csv.take() {
            csv.append(rows.trim_end())?;
        }
        let shown = match self.to_stdout {
            Some("--json") => Some(several(results)?),
            Some("--csv") => Some(format!("{}\n{rows}", csv::names())),
            _ => None,
        };
        Ok(self.write(report, Some(latencies))?.map(|last| shown.unwrap_or(last)))
    }
}

/// Name and version of the contract of files with the results of several sizes.
const SEVERAL: &str = "tbrdma-bench-ranks/1";

/// Where the results of a measurement of several sizes go: as one file, of the schema tbrdma-bench-ranks/1, or as the result if it is one.
#[derive(Debug, Serialize)]
struct Several<'r> {
    schema: &'static str,
    results: Vec<Named<'r>>,
}

#[derive(Debug, Serialize)]
struct Named<'r> {
    name: String,
    report: &'r Report,
}

fn several(results: &[(Report, Latencies)]) -> Result<String> {
    let named =
        results.iter().map(|(report, _)| Named { name: format!("{} bytes", report.size_bytes), report });
    let several = Several { schema: SEVERAL, results: named.collect() };
    serde_json::to_string_pretty(&several).context(|| "encode the results".into()).map(|text| text + "\n")
}

/// The percentiles, in the form that HdrHistogram prints and plots. Lines with # say what they are of.
pub(crate) fn percentiles(report: &Report, latencies: &Latencies) -> String {
    let what = match (&report.open_loop, report.measures.as_deref()) {
        (Some(open), _) => format!("responses at {} messages/s, from due to answered", open.rate_per_s),
        (None, Some(measures)) => measures.to_owned(),
        (None, None) => String::new(),
    };
    let mut text = String::new();
    let Report { op, transport, size_bytes, device, .. } = report;
    let _ =
        writeln!(text, "#[{op} over {transport}, {size_bytes} bytes, device {device}: {what}, nanoseconds]");
    text.push_str(&latencies.percentiles());
    text
}

/// A file that will hold a whole text. It is opened before the run, and appears under its name only when it is whole.
#[derive(Debug)]
pub struct WholeFile {
    flag: &'static str,
    path: PathBuf,
    unfinished: PathBuf,
    file: Option<File>,
}

impl WholeFile {
    /// Prepares to write to `path`, which `flag` named.
    ///
    /// # Errors
    /// The directory does not exist, or may not be written.
    pub fn prepare(flag: &'static str, path: &Path) -> Result<Self> {
        let shown = path.display();
        let name = path
            .file_name()
            .filter(|_| !path.is_dir())
            .ok_or_else(|| Error::Usage(format!("{flag} {shown} is a directory: name a file")))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let unfinished = path.with_file_name(hidden);
        let file = File::create(&unfinished).context(|| format!("write {flag} {shown}"))?;
        Ok(Self { flag, path: path.into(), unfinished, file: Some(file) })
    }

    /// Writes the text, whole or not at all.
    ///
    /// # Errors
    /// The disk is full, or the file system refuses.
    pub fn write(mut self, text: &str) -> Result<()> {
        let failed = || format!("write {} {}", self.flag, self.path.display());
        if let Some(mut file) = self.file.take() {
            file.write_all(text.as_bytes()).context(failed)?;
        }
        std::fs::rename(&self.unfinished, &self.path).context(failed)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // Already renamed when the run went well.
        let _ = std::fs::remove_file(&self.unfinished);
    }
}

/// A table of CSV that grows.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    file: File,
    names: String,
    is_new: bool,
}

impl Table {
    /// Prepares to add to the table in a file, whose columns have these names, with commas between them.
    ///
    /// # Errors
    /// The file holds another table, or cannot be written.
    pub fn prepare(path: &Path, names: String) -> Result<Self> {
        let what = || format!("write --csv {}", path.display());
        let known = std::fs::read_to_string(path).unwrap_or_default();
        let is_new = known.is_empty();
        if !is_new && known.lines().next() != Some(names.as_str()) {
            return Err(Error::Usage(format!(
                "--csv {} holds another table, perhaps of another release: name a new file",
                path.display()
            )));
        }
        let file = OpenOptions::new().append(true).create(true).open(path).context(what)?;
        Ok(Self { path: path.into(), file, names, is_new })
    }

    /// Adds rows, with an end of line between them. It is one write: those of programs that share the file do not mix.
    ///
    /// # Errors
    /// The disk is full, or the file system refuses.
    pub fn append(mut self, row: &str) -> Result<()> {
        let names = if self.is_new { self.names + "\n" } else { String::new() };
        let text = format!("{names}{row}\n");
        self.file.write_all(text.as_bytes()).context(|| format!("write --csv {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, WholeFile};

    #[test]
    fn a_result_appears_whole_or_not_at_all() {
        let directory = std::env::temp_dir().join(format!("tbrdma-bench-json-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("r.json");
        let prepare = |path| WholeFile::prepare("--json", path);
        std::fs::write(&path, "old").unwrap();
        drop(prepare(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old", "a run that failed leaves the old result");
        prepare(&path).unwrap().write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left");
        assert!(prepare(&directory).is_err());
        assert!(prepare(&directory.join("no/such/place")).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_table_grows_and_others_are_left_alone() {
        let directory = std::env::temp_dir().join(format!("tbrdma-bench-csv-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("r.csv");
        Table::prepare(&path, super::csv::names()).unwrap().append("1").unwrap();
        Table::prepare(&path, super::csv::names()).unwrap().append("2").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n1\n2\n", super::csv::names()));
        std::fs::write(&path, "a,b\n").unwrap();
        assert!(
            Table::prepare(&path, super::csv::names()).unwrap_err().to_string().contains("another table")
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
