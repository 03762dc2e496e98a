//! `cargo xtask ci`: everything that must hold before a change lands, step by step, and how long each took.

mod steps;
#[cfg(test)]
mod tests;

use crate::cargo::root;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use steps::{STEPS, Step};

/// Runs all that must hold before a change lands: each step of docs/checks.md. What the machine lacks is skipped with its reason, or fails with
/// TBRDMA_REQUIRE=1, as .ci/run asks.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The steps of a few minutes that most mistakes show in.
    #[arg(long)]
    quick: bool,
    /// Say the steps as a table, and run none.
    #[arg(long)]
    list: bool,
    /// The steps whose name contains one of these; without any, all.
    names: Vec<String>,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let wanted = |step: &&Step| {
        let named = args.names.is_empty() || args.names.iter().any(|name| step.name.contains(name.as_str()));
        named && (step.quick || !args.quick)
    };
    let steps: Vec<&Step> = STEPS.iter().filter(wanted).collect();
    if args.list {
        print!("{}", table(&steps));
        return ExitCode::SUCCESS;
    }
    if steps.is_empty() {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        eprintln!("xtask: no step is called so; there are: {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    run(&steps)
}

/// Runs these steps up to the first that fails, and tells how long each took.
fn run(steps: &[&Step]) -> ExitCode {
    let begun = Instant::now();
    let mut took = Vec::new();
    for step in steps {
        println!("\n== {}", step.name);
        let step_begun = Instant::now();
        let passed = step.run();
        took.push((step.name, step_begun.elapsed(), passed));
        println!("   {} s", step_begun.elapsed().as_secs());
        if !passed {
            break;
        }
    }
    let passed = took.iter().all(|(.., passed)| *passed);
    print!("{}", summary(&took, steps.len() - took.len(), begun.elapsed()));
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The table at the end.
fn summary(took: &[(&str, Duration, bool)], left: usize, total: Duration) -> String {
    let mut text = "\n".to_owned();
    for (name, took, passed) in took {
        let verdict = if *passed { "passed" } else { "FAILED" };
        let _ = writeln!(text, "{verdict}  {:>5} s  {name}", took.as_secs());
    }
    if left > 0 {
        let _ = writeln!(text, "{left} steps were not run");
    }
    let _ = writeln!(text, "{:>13} s  in all", total.as_secs());
    text
}

/// The steps as Markdown.
fn table(steps: &[&Step]) -> String {
    let mut text =
        "| step | command | what it protects | quick | about |\n|---|---|---|---|---|\n".to_owned();
    for step in steps {
        let quick = if step.quick { "yes" } else { "" };
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {quick} | {} s |",
            step.name,
            step.command(),
            step.protects,
            step.seconds
        );
    }
    text
}

impl Step {
    /// Runs its command in the repository. True if it succeeded.
    fn run(&self) -> bool {
        let (variables, words) = self.parts();
        let Some((program, words)) = words.split_first() else { return false };
        // The cargo that runs us, as a user's would be.
        let program = match *program {
            "cargo" => std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            other => other.into(),
        };
        let mut command = Command::new(&program);
        command.args(words).envs(variables).current_dir(root());
        match command.status() {
            Ok(status) => status.success(),
            Err(error) => {
                eprintln!("xtask: cannot start {}: {error}", program.display());
                false
            }
        }
    }

    /// As a shell would be told it.
    fn command(&self) -> String {
        let (variables, words) = self.parts();
        let variables = variables.map(|(name, value)| format!("{name}=\"{value}\" "));
        variables.into_iter().chain([words.join(" ")]).collect()
    }

    /// The variable it sets, and its words.
    fn parts(&self) -> (Option<(&'static str, &'static str)>, Vec<&'static str>) {
        (self.variable, self.words.split(' ').collect())
    }
}
