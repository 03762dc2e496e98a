//! `cargo xtask swarm --plant`: does the simulation find bugs that are put in on purpose?
//!
//! The bugs exist only in a build with `--cfg tbrdma_planted`, so this starts cargo once more, with a target directory of its own.

use std::process::ExitCode;

use tbrdma_proto::planted::Bug;

#[cfg(not(tbrdma_planted))]
pub(crate) fn main(name: &str, from: u64, seeds: u64) -> ExitCode {
    if name != "all" && !Bug::ALL.iter().any(|bug| bug.name() == name) {
        let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        eprintln!("there is no bug {name:?}; write all, or one of {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| format!("{root}/target"));
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let status = std::process::Command::new(cargo)
        .current_dir(root)
        .args(["run", "--release", "--quiet", "--package", "xtask", "--", "swarm", "--plant", name])
        .args(["--from", &from.to_string(), "--seeds", &seeds.to_string()])
        .env("RUSTFLAGS", format!("{flags} --cfg tbrdma_planted"))
        .env("CARGO_TARGET_DIR", format!("{target}/planted"))
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(tbrdma_planted)]
pub(crate) fn main(name: &str, from: u64, seeds: u64) -> ExitCode {
    use tbrdma_proto::planted::choose;
    use tbrdma_proto::testing::swarm::Options;

    let mut missed = 0;
    for &bug in Bug::ALL.iter().filter(|bug| name == "all" || bug.name() == name) {
        choose(Some(bug));
        let sum = crate::swarm::hunt(from, seeds, None, Options::default(), false);
        match sum.failure.and_then(|outcome| outcome.failure.map(|failure| (outcome.seed, failure))) {
            Some((seed, failure)) => {
                println!(
                    "{:22} found after {:>4} seeds, at seed {seed}: {}",
                    bug.name(),
                    sum.seeds,
                    failure.violation
                );
            }
            None => {
                missed += 1;
                println!("{:22} NOT FOUND in {} seeds: {}", bug.name(), sum.seeds, bug.what());
            }
        }
    }
    choose(None);
    println!("{missed} missed");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
