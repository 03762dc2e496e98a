//! `cargo xtask lab`: our stack in virtual machines, against the Linux kernel's rdma_rxe and over a PCI memory window. The lab is a program of its
//! own (`tools/lab`), so that the other chores need not wait until it and the library are built. It runs unoptimised: with overflow checks, and soon built.

use crate::cargo::{build, chore};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs our stack in virtual machines, against the Linux kernel's rdma_rxe and over a PCI memory window; `cargo xtask lab --help` says more.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What the lab is told.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    // For Debian's programs on our device, against those in the guest; and what the guest runs of ours.
    let Some(programs) = build() else { return ExitCode::FAILURE };
    chore(
        &["run", "--quiet", "--package", "tbrdma-lab", "--"],
        &args.arguments,
        Some(("TBRDMA_LAB_PROGRAMS", &programs)),
    )
}
