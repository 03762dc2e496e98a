//! Where a stress run goes besides the terminal: JSON, rows of CSV, the percentiles of all responses.

use std::path::PathBuf;

use super::result::StressReport;
use super::{Flags, rows};
use crate::error::{Error, Result};
use crate::histogram::{Latencies, Measures};
use crate::outputs::{Table, WholeFile};

/// The files of a run, open or tried.
pub(super) struct Outputs {
    json: Option<WholeFile>,
    csv: Option<Table>,
    hgrm: Option<WholeFile>,
    to_stdout: Option<&'static str>,
}

impl Outputs {
    /// Tries the files.
    pub(super) fn prepare(flags: &Flags) -> Result<Self> {
        let all = [("--json", &flags.json), ("--csv", &flags.csv), ("--hgrm", &flags.hgrm)];
        let is_stdout = |path: &PathBuf| path.as_os_str() == "-";
        let to_stdout: Vec<_> = all
            .into_iter()
            .filter_map(|(name, path)| path.as_ref().is_some_and(is_stdout).then_some(name))
            .collect();
        if to_stdout.len() > 1 {
            let names = to_stdout.join(" and ");
            return Err(Error::Usage(format!("{names} cannot all go to standard output: name files")));
        }
        let of_file = |path: &Option<PathBuf>| path.clone().filter(|path| !is_stdout(path));
        let whole = |name, path| of_file(path).map(|path| WholeFile::prepare(name, &path)).transpose();
        Ok(Self {
            json: whole("--json", &flags.json)?,
            csv: of_file(&flags.csv).map(|path| Table::prepare(&path, rows::names())).transpose()?,
            hgrm: whole("--hgrm", &flags.hgrm)?,
            to_stdout: to_stdout.first().copied(),
        })
    }

    /// Writes the files; what is asked for on standard output, where something is.
    pub(super) fn write(self, report: &StressReport) -> Result<Option<String>> {
        if let Some(json) = self.json {
            json.write(&report.to_json()?)?;
        }
        if let Some(csv) = self.csv {
            csv.append(&rows::rows(report))?;
        }
        if let Some(hgrm) = self.hgrm {
            hgrm.write(&percentiles(report)?)?;
        }
        Ok(match self.to_stdout {
            Some("--json") => Some(report.to_json()?),
            Some("--csv") => Some(format!("{}\n{}\n", rows::names(), rows::rows(report))),
            Some(_) => Some(percentiles(report)?),
            None => None,
        })
    }
}

/// The percentiles of all phases together, in the form that HdrHistogram prints and plots.
fn percentiles(report: &StressReport) -> Result<String> {
    let mut all = Latencies::new(Measures::WholeOperation)?;
    for (ns, count) in report.phases.iter().flat_map(|phase| &phase.distribution) {
        all.record_many(std::time::Duration::from_nanos(*ns as u64), *count);
    }
    let StressReport { plan, device, seed, measures, .. } = report;
    let head = format!("#[stress {plan} on {device}, seed {seed}: {measures}, nanoseconds]\n");
    Ok(head + &all.percentiles())
}
