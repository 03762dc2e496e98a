//! `cargo xtask programs`: Debian's RDMA programs, unmodified, on our devices. What they run on is built as a user would build it; the runner is a
//! program of its own (`tools/programs`).

use crate::cargo::{build, chore};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs Debian's RDMA programs, unmodified, on tbrdma's devices; `cargo xtask programs --help` says more.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What the runner is told.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs the tests that rdma-core has of itself, in Python, on tbrdma's devices; `cargo xtask pyverbs --help` says more.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct PyverbsArgs {
    #[command(flatten)]
    args: Args,
}

pub(crate) fn pyverbs(args: &PyverbsArgs) -> ExitCode {
    run(&["--pyverbs"], &args.args)
}

pub(crate) fn main(args: &Args) -> ExitCode {
    run(&[], args)
}

fn run(first: &[&str], args: &Args) -> ExitCode {
    let Some(folder) = build() else { return ExitCode::FAILURE };
    let mut arguments = vec!["--run".into(), folder.join("tbrdma-run").into_os_string()];
    arguments.extend(first.iter().map(Into::into));
    arguments.extend(args.arguments.iter().cloned());
    chore(&["run", "--quiet", "--package", "tbrdma-programs", "--"], &arguments, None)
}
