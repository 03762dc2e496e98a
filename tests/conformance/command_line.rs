//! `tbrdma-conformance`: the suite on one device, case by case, with a line of JSON for each.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tbrdma_conformance::runner::{Outcome, run};
use tbrdma_conformance::target::Target;
use tbrdma_conformance::{all, far, table};

/// What verbs promise, checked on one device.
#[derive(Parser)]
#[command(name = "tbrdma-conformance", version)]
struct Arguments {
    /// The device, as `tbrdma-bench devices` lists them.
    #[arg(long, default_value = "shm")]
    device: String,
    /// The name under which `declared.rs` says what the device cannot, if it is not the device's own.
    #[arg(long)]
    declared: Option<String>,
    /// What results call the device, if not by its name.
    #[arg(long)]
    label: Option<String>,
    /// Make a table of such results, as Markdown, and end.
    #[arg(long, value_name = "RESULTS", num_args = 1.., conflicts_with = "filters")]
    table: Vec<PathBuf>,
    /// Only cases whose names contain one of these.
    filters: Vec<String>,
    /// Not these cases, by their whole names.
    #[arg(long, value_name = "CASE", num_args = 1.., value_delimiter = ',')]
    without: Vec<String>,
    /// Play the far party at this address and port, for whoever comes, until ended. Such lines are obeyed from anyone who can connect.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["far", "filters"])]
    serve: Option<String>,
    /// Run the cases of two parties, with the far one where another of these programs serves.
    #[arg(long, value_name = "ADDRESS")]
    far: Option<String>,
    /// Say what cases there are, and end.
    #[arg(long)]
    list: bool,
    /// Say on standard output only what failed, and how many did.
    #[arg(long)]
    quiet: bool,
    /// A line of JSON a case, to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many seconds a case may take.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let wanted = |name: &str| {
        !arguments.without.iter().any(|without| without == name)
            && (arguments.filters.is_empty() || arguments.filters.iter().any(|filter| name.contains(filter)))
    };
    let far = arguments.far.as_deref();
    let cases = || all().filter(|case| (case.two_party || far.is_none()) && wanted(&case.name()));
    if arguments.list {
        for case in cases() {
            println!("{}: {} ({})", case.name(), case.statement, case.source);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.table.is_empty() {
        print!("{}", table::markdown(&table::read(&arguments.table)?));
        return Ok(ExitCode::SUCCESS);
    }
    let target = Target::choose(&arguments.device, arguments.declared.as_deref())?;
    if let Some(address) = &arguments.serve {
        far::serve(address)?;
    }
    if let Some(address) = far {
        far::elsewhere(address);
    }
    let mut json = match &arguments.json {
        None => None,
        Some(path) => Some(File::create(path).with_context(|| path.display().to_string())?),
    };
    let label = arguments.label.as_deref().unwrap_or_else(|| target.name());
    let mut counts = [0_usize; 4];
    for case in cases() {
        let report = run(target, label, case, Duration::from_secs(arguments.timeout));
        counts[report.outcome as usize] += 1;
        let why = if report.why.is_empty() { String::new() } else { format!(" ({})", report.why) };
        if !arguments.quiet || report.outcome == Outcome::Failed {
            println!("{:?} {} {} ms{why}", report.outcome, report.case, report.ms);
        }
        if let Some(file) = &mut json {
            serde_json::to_writer(&mut *file, &report)?;
            writeln!(file)?;
        }
    }
    let [passed, failed, deviate, cannot] = counts;
    println!("{label}: {passed} passed, {failed} failed, {deviate} deviate, {cannot} cannot");
    Ok(if counts[Outcome::Failed as usize] == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
