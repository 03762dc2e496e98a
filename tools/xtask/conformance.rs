//! `cargo xtask conformance`: the suite of `tests/conformance` on every device there is, and the table of it in docs/.

use crate::cargo::chore;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Runs the conformance suite on every device, and writes docs/conformance.md.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these: sim, shm, udp, stream, standin, native-over-shm, native-over-udp.
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Write nothing; fail where a case does.
    #[arg(long)]
    check: bool,
}

/// A run: its name here, the device as the table names it, what it is opened by, and which devices the drop-in library below it is told of.
struct Run {
    name: &'static str,
    label: &'static str,
    device: &'static str,
    below: Option<&'static str>,
}

const RUNS: [Run; 7] = [
    Run { name: "sim", label: "sim", device: "sim", below: None },
    Run { name: "shm", label: "shm", device: "shm", below: None },
    Run { name: "udp", label: "udp:lo", device: "udp:lo", below: None },
    Run { name: "stream", label: "stream:unix", device: "stream:unix:*", below: None },
    Run { name: "standin", label: "stream:standin", device: "stream:standin:*", below: None },
    Run { name: "native-over-shm", label: "native over shm", device: "native:shm", below: Some("shm=shm") },
    Run {
        name: "native-over-udp",
        label: "native over udp:lo",
        device: "native:lo",
        below: Some("lo=udp:lo"),
    },
];

/// Results that the lab leaves in its folder, if it has run.
const LAB: [&str; 2] = ["conformance-rxe.json", "conformance-rxe-udp.json"];

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
    let words = ["build", "--quiet", "--package", "tbrdma-conformance", "--package", "tbrdma-ibverbs"];
    if chore(&words, &[] as &[&str], None) != ExitCode::SUCCESS {
        return Ok(ExitCode::FAILURE);
    }
    // What tests are run with, so it is built already where they have been; it lies beside the folder of what is built for release, as we are.
    let ours = std::env::current_exe().map_err(|error| format!("where the programs are: {error}"))?;
    let programs = ours.with_file_name("").join("../debug");
    let program = programs.join("tbrdma-conformance");
    let folder = Path::new("target/conformance");
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let wanted = |run: &&Run| args.devices.is_empty() || args.devices.iter().any(|name| name == run.name);
    let file_of = |run: &Run| folder.join(format!("{}.json", run.name));
    let mut code = ExitCode::SUCCESS;
    for run in RUNS.iter().filter(wanted) {
        let mut command = Command::new(&program);
        command.args(["--device", run.device, "--label", run.label, "--quiet", "--json"]).arg(file_of(run));
        if let Some(below) = run.below {
            command.env("TBRDMA_VERBS_LIBRARY", programs.join("libibverbs.so")).env("TBRDMA_DEVICES", below);
        }
        let status = command.status().map_err(|error| format!("{}: {error}", program.display()))?;
        if !status.success() {
            code = ExitCode::FAILURE;
        }
    }
    if !args.check {
        // Of devices that were not run now, what they did last.
        let mut results: Vec<PathBuf> = RUNS.iter().map(file_of).filter(|file| file.exists()).collect();
        let lab = std::env::var_os("TBRDMA_LAB_DIR").map_or_else(|| "target/lab".into(), PathBuf::from);
        for file in LAB.map(|name| lab.join(name)) {
            if file.exists() {
                results.push(file);
            } else {
                eprintln!(
                    "xtask: the table is without the kernel's device: {} is what `cargo xtask lab` leaves",
                    file.display()
                );
            }
        }
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
