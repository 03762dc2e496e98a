//! Chores of this repository: `cargo xtask help`.

#![forbid(unsafe_code)]

mod cargo;
mod ci;
mod conformance;
mod counts;
mod lab;
mod plant;
mod programs;
mod seam;
mod swarm;
mod table;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Chores {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    Swarm(swarm::Args),
    Conformance(conformance::Args),
    Table(table::Args),
    Lab(lab::Args),
    Programs(programs::Args),
    Pyverbs(programs::PyverbsArgs),
    Seam(seam::Args),
    Tidy(tidy::Args),
    Counts(counts::Args),
    Ci(ci::Args),
}

fn main() -> ExitCode {
    match Chores::parse().chore {
        Chore::Conformance(args) => conformance::main(&args),
        Chore::Swarm(args) => swarm::main(&args),
        Chore::Table(args) => table::main(&args),
        Chore::Lab(args) => lab::main(&args),
        Chore::Programs(args) => programs::main(&args),
        Chore::Pyverbs(args) => programs::pyverbs(&args),
        Chore::Seam(args) => seam::main(&args),
        Chore::Tidy(args) => tidy::main(&args),
        Chore::Counts(args) => counts::main(&args),
        Chore::Ci(args) => ci::main(&args),
    }
}
