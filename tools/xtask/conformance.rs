//! `cargo xtask conformance`: the suite of `tests/conformance` on every device there is, and the table of it in docs/.

use crate::cargo::build;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Runs the conformance suite on every device, and writes docs/conformance.md.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these devices, as `devices` of the table: sim, shm, udp:lo, "native over shm".
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Write nothing; fail where a case does.
    #[arg(long)]
    check: bool,
}

/// A run: the device as the table names it, what it is opened by, and what the drop-in library below it is told.
struct Run {
    label: &'static str,
    device: &'static str,
    below: Option<&'static str>,
}

const RUNS: [Run; 5] = [
    Run { label: "sim", device: "sim", below: None },
    Run { label: "shm", device: "shm", below: None },
    Run { label: "udp:lo", device: "udp:lo", below: None },
    Run { label: "native over shm", device: "native:shm", below: Some("shm=shm") },
    Run { label: "native over udp:lo", device: "native:lo", below: Some("lo=udp:lo") },
];

/// Results that the lab leaves, if it has run.
const LAB: [&str; 2] = ["target/lab/conformance-rxe.json", "target/lab/conformance-rxe-udp.json"];

pub(crate) fn main(args: &Args) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, String> {
    let Some(programs) = build(&["tbrdma-conformance", "tbrdma-ibverbs"]) else {
        return Ok(ExitCode::FAILURE);
    };
    let program = programs.join("tbrdma-conformance");
    let folder = Path::new("target/conformance");
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let wanted = |run: &&Run| args.devices.is_empty() || args.devices.iter().any(|name| name == run.label);
    let (mut results, mut code) = (Vec::new(), ExitCode::SUCCESS);
    for run in RUNS.iter().filter(wanted) {
        let file = folder.join(format!("{}.json", run.label.replace(['/', ':', ' '], "-")));
        let mut command = Command::new(&program);
        command.args(["--device", run.device, "--label", run.label, "--quiet", "--json"]).arg(&file);
        if let Some(below) = run.below {
            command.env("TBRDMA_VERBS_LIBRARY", programs.join("libibverbs.so")).env("TBRDMA_DEVICES", below);
        }
        let status = command.status().map_err(|error| format!("{}: {error}", program.display()))?;
        if !status.success() {
            code = ExitCode::FAILURE;
        }
        results.push(file);
    }
    if !args.check {
        results.extend(LAB.iter().map(PathBuf::from).filter(|file| file.exists()));
        let table = Command::new(&program).arg("--table").args(&results).output();
        let table = table.map_err(|error| format!("{}: {error}", program.display()))?;
        if !table.status.success() {
            return Err(String::from_utf8_lossy(&table.stderr).into_owned());
        }
        fs::create_dir_all("docs").map_err(|error| format!("docs: {error}"))?;
        fs::write("docs/conformance.md", table.stdout)
            .map_err(|error| format!("docs/conformance.md: {error}"))?;
    }
    Ok(code)
}
