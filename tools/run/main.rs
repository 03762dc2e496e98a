//! `tbrdma-run [OPTIONS] -- PROGRAM [ARGS]`: an unmodified program, written for libibverbs or librdma, on emulated devices.
//!
//! It puts the drop-in library where the program's loader looks first, says in `TBRDMA_*` variables what the library shall be, and *becomes* the
//! program: process number, signals, terminal and exit code are the program's own, and when it is killed nothing of ours is left.
//!
//! | file | what |
//! |---|---|
//! | `options` | the command line |
//! | `library` | where the drop-in is |
//! | `environment` | what the program is started with |

#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("tbrdma-run starts programs on the drop-in library, which is for Linux; see tools/ibverbs");

mod environment;
mod library;
mod options;

use anyhow::{Context, Result};
use clap::Parser;
use environment::Environment;
use library::Library;
use options::Options;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use tbrdma_settings::{Faults, Settings};

/// As shells have it: the program cannot be started, or is not there.
const CANNOT_START: u8 = 126;
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let options = Options::parse();
    let environment = match prepare(&options) {
        Ok(environment) => environment,
        Err(error) => {
            eprintln!("tbrdma-run: {error:#}");
            return ExitCode::from(CANNOT_START);
        }
    };
    let Some((program, arguments)) = options.program.split_first() else {
        print!("{}", environment.as_shell());
        return ExitCode::SUCCESS;
    };
    let mut command = Command::new(program);
    command.args(arguments);
    environment.apply(&mut command);
    let error = command.exec();
    eprintln!("tbrdma-run: cannot start {}: {error}", program.display());
    ExitCode::from(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_START })
}

fn prepare(options: &Options) -> Result<Environment> {
    let settings = with_seed(options.settings()?)?;
    let library = Library::find()?;
    Environment::new(&settings, &library)
}

/// Faults must be repeatable: who gives no seed is told the one that was drawn.
fn with_seed(mut settings: Settings) -> Result<Settings> {
    if settings.faults != Faults::default() && settings.seed.is_none() {
        let seed = getrandom::u64().context("cannot draw a seed for the faults; give one with --seed")?;
        eprintln!("tbrdma-run: the seed of the faults is {seed}; --seed {seed} repeats them");
        settings.seed = Some(seed);
    }
    Ok(settings)
}
