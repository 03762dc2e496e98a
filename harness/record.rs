//! `tbrdma-bench record`: a program on an emulated device, and a trace of what it asked of verbs. It is `tbrdma-run --trace`, and a look at what can
//! be replayed of what it has written.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::error::{Context, Error, Result};
use crate::{complain, replay};

/// The program that does it.
const RUNNER: &str = "tbrdma-run";
/// The exit code of a program that a signal has ended, by the custom of shells: this, and the signal's number.
const ENDED_BY_A_SIGNAL: u8 = 128;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench record -o calls.txt -- ib_send_lat 192.0.2.1
  tbrdma-bench record -o calls-%p.txt --device mlx5_0=udp:lo -- ./program
  tbrdma-bench replay calls.txt

%p becomes the process's number, for programs that start others. The exit code is the program's.";

/// Flags of `record`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// The trace; %p becomes the number of the process
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// A device for the program, as tbrdma-run has it: [NAME=]shm or [NAME=]udp:IFACE
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// What the devices pretend to be
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// How fast the links are, as 64Gbps,5us
    #[arg(long, value_name = "RATE,LATENCY")]
    pub link: Option<String>,
    /// What goes wrong, as loss=1%
    #[arg(long, value_name = "PLAN")]
    pub fault: Option<String>,
    /// Where the dice of --fault start
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub program: Vec<OsString>,
}

/// Runs the program; the exit code is its own.
///
/// # Errors
/// tbrdma-run is not there or does not start.
pub fn run(flags: &Flags) -> Result<u8> {
    let runner = runner();
    let mut command = Command::new(&runner);
    command.arg("--trace").arg(&flags.output);
    for device in &flags.device {
        command.args(["--device", device]);
    }
    let seed = flags.seed.map(|seed| seed.to_string());
    let values = [
        ("--profile", &flags.profile),
        ("--link", &flags.link),
        ("--fault", &flags.fault),
        ("--seed", &seed),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            command.args([name, value]);
        }
    }
    command.arg("--").args(&flags.program);
    let status = command.status().map_err(|error| {
        Error::Run(format!(
            "start {}: {error}; it must be beside tbrdma-bench or in PATH: build it with `cargo build --release -p tbrdma-run`",
            runner.display()
        ))
    })?;
    // The names of several files are not known here.
    if !flags.output.to_string_lossy().contains("%p") {
        complain(&said(&flags.output)?);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or_else(|| signal(status)))
}

/// Beside this program, or wherever the shell finds it.
fn runner() -> PathBuf {
    let name = format!("{RUNNER}{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name(&name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

fn signal(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let number = status.signal().and_then(|number| u8::try_from(number).ok()).unwrap_or_default();
    ENDED_BY_A_SIGNAL.saturating_add(number)
}

/// What can be replayed.
fn said(path: &Path) -> Result<String> {
    let shown = path.display();
    let length = std::fs::metadata(path).context(|| format!("look at the trace {shown}"))?.len();
    if length == 0 {
        return Ok(format!("tbrdma-bench: {shown} is empty: the program made no call of verbs\n"));
    }
    let trace = replay::read(path)?;
    let mut text = format!(
        "tbrdma-bench: {} requests on {} queue pairs can be replayed: tbrdma-bench replay {shown}\n",
        trace.requests(),
        trace.queue_pairs.len()
    );
    for (why, count) in &trace.passed_over {
        text.push_str(&format!("tbrdma-bench: {count} requests cannot: {why}\n"));
    }
    Ok(text)
}
