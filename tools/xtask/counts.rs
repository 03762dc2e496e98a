//! `cargo xtask counts`: what a message costs in instructions, against ceilings (benches/instructions.rs), and then, by our own `tbrdma-bench gate` and
//! `compare`, against what it cost when benches/counts.json was last renewed. No clock has a part in it, so it is the same on any machine.

use crate::cargo::{chore, root};
use std::path::PathBuf;
use std::process::ExitCode;

/// Counts what messages cost in instructions, and holds that against benches/limits.toml and benches/counts.json.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write what is counted to benches/counts.json, to be committed with the change that explains it.
    #[arg(long)]
    renew: bool,
}

/// A case that differs by less from the baseline is as it was: compilers of other releases place things elsewhere.
const MARGIN_PERCENT: &str = "5";

pub(crate) fn main(args: &Args) -> ExitCode {
    let (baseline, limits) = (root().join("benches/counts.json"), root().join("benches/limits.toml"));
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let counted = if args.renew { baseline.clone() } else { folder.join("counts.json") };
    if !args.renew {
        // What an earlier run has left says nothing of this one.
        let _ = std::fs::remove_file(&counted);
    }
    const COUNT: [&str; 6] = ["bench", "--locked", "--package", "tbrdma", "--bench", "instructions"];
    let done = chore(&COUNT, &[] as &[&str], Some(("TBRDMA_COUNTS", &counted)));
    if done != ExitCode::SUCCESS || args.renew || !counted.exists() {
        // Where nothing can be counted, that was said.
        return done;
    }
    // As a newcomer starts it: named by its package it would be built anew, because cargo builds for a program alone otherwise than for one beside a library for C.
    let manifest = root().join("Cargo.toml");
    let bench =
        ["run", "--quiet", "--release", "--locked", "--manifest-path", &manifest.to_string_lossy(), "--"];
    let gate = [
        "gate".as_ref(),
        limits.as_os_str(),
        counted.as_os_str(),
        "--baseline".as_ref(),
        baseline.as_os_str(),
    ];
    let compare = [
        "compare".as_ref(),
        baseline.as_os_str(),
        counted.as_os_str(),
        "--margin".as_ref(),
        MARGIN_PERCENT.as_ref(),
    ];
    let judged = [chore(&bench, &gate, None), chore(&bench, &compare, None)];
    if judged == [ExitCode::SUCCESS; 2] {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "xtask: a change that is meant to cost this says so by `cargo xtask counts --renew`, and commits benches/counts.json"
    );
    ExitCode::FAILURE
}
