//! Counting instructions: this program again, under valgrind's callgrind, as `--count CASE ROUNDS`.

use std::ffi::OsStr;
use std::process::{Command, ExitCode, Stdio};

/// Whether nothing is counted here: the program's outcome then.
pub(crate) fn cannot(arguments: &[String]) -> Option<ExitCode> {
    if cfg!(debug_assertions) || !arguments.iter().any(|argument| argument == "--bench") {
        println!("instructions: counted by `cargo bench` only");
        return Some(ExitCode::SUCCESS);
    }
    if !cfg!(target_arch = "x86_64") {
        return Some(skip("the ceilings are those of x86-64"));
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        return Some(skip("no valgrind"));
    }
    None
}

/// Instructions of a round: the difference of two runs by the difference of their rounds, so that what happens once falls out.
pub(crate) fn of_a_round(case: &str, rounds: u64, variables: &[(&str, &OsStr)]) -> Result<f64, String> {
    let (fewer, more) = (of_a_run(case, rounds, variables)?, of_a_run(case, 2 * rounds, variables)?);
    Ok(more.saturating_sub(fewer) as f64 / rounds as f64)
}

/// Instructions of a whole run of this program with so many rounds.
fn of_a_run(case: &str, rounds: u64, variables: &[(&str, &OsStr)]) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--count", case, &rounds.to_string()])
        .envs(variables.iter().copied())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the counted run failed ({}):\n{told}", output.status));
    }
    let collected = told.lines().find_map(|line| line.split_once("Collected : "));
    let (_, number) = collected.ok_or_else(|| format!("no count in what callgrind says:\n{told}"))?;
    number.trim().parse().map_err(|error| format!("{number:?} is not a count: {error}"))
}

/// What the machine lacks: said, and a failure where nothing may be skipped.
fn skip(reason: &str) -> ExitCode {
    println!("skipped: {reason}");
    if std::env::var_os("TBRDMA_REQUIRE").is_some_and(|value| value == "1") {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
