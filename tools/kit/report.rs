//! Counting what was checked, and saying so.

use anyhow::Result;
use std::fmt;
use std::process::ExitCode;
use std::time::Instant;

/// Something this machine cannot do, so that a part of the checks is left out.
#[derive(Debug)]
pub struct Skip(String);

impl Skip {
    /// For this reason.
    pub const fn new(reason: String) -> Self {
        Self(reason)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// How many checks passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// The checks of a run.
#[derive(Default)]
pub struct Report {
    counts: Counts,
    /// Only checks with this in their name are made.
    filter: Option<String>,
    /// What is put in front of names.
    prefix: String,
}

impl Report {
    /// A report on nothing yet, for the checks with `filter` in their names.
    pub fn new(filter: Option<String>) -> Self {
        Self { filter, ..Self::default() }
    }

    /// The names of the checks to come start with this.
    pub fn set_prefix(&mut self, prefix: &str) {
        prefix.clone_into(&mut self.prefix);
    }

    /// Makes one check, unless the filter leaves it out: what it returns is printed, as what was seen or as what is wrong.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<String>) {
        if self
            .filter
            .as_ref()
            .is_none_or(|filter| format!("{}{name}", self.prefix).contains(filter.as_str()))
        {
            self.always(name, check);
        }
    }

    /// [`check`](Self::check), whatever the filter says. A [`Skip`] is a failure where `TBRDMA_REQUIRE=1`.
    pub fn always(&mut self, name: &str, check: impl FnOnce() -> Result<String>) {
        let begun = Instant::now();
        let result = check();
        let name = format!("{}{name} ({:.1} s)", self.prefix, begun.elapsed().as_secs_f64());
        match result {
            Ok(seen) => {
                self.counts.passed += 1;
                println!("passed  {name}: {seen}");
            }
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(reason) if std::env::var("TBRDMA_REQUIRE").is_ok_and(|value| value == "1") => {
                    self.counts.failed += 1;
                    println!("FAILED  {name}: skipped, but TBRDMA_REQUIRE=1 asks for it: {reason}");
                }
                Some(reason) => {
                    self.counts.skipped += 1;
                    println!("skipped {name}: {reason}");
                }
                None => {
                    self.counts.failed += 1;
                    println!("FAILED  {name}: {error:#}");
                }
            },
        }
    }

    /// Adds what another process has counted.
    pub const fn add(&mut self, counts: Counts) {
        self.counts.passed += counts.passed;
        self.counts.failed += counts.failed;
        self.counts.skipped += counts.skipped;
    }

    /// Reads the line that [`finish`](Self::finish) prints.
    pub fn parse_counts(line: &str) -> Option<Counts> {
        let mut parts = line.split(", ").map(|part| part.split_once(' '));
        let mut next = |what| match parts.next()?? {
            (count, word) if word == what => count.parse().ok(),
            _ => None,
        };
        Some(Counts { passed: next("passed")?, failed: next("failed")?, skipped: next("skipped")? })
    }

    /// Prints the counts, and says whether nothing failed.
    pub fn finish(&self) -> ExitCode {
        let Counts { passed, failed, skipped } = self.counts;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_they_are_printed() {
        let counts = Report::parse_counts("12 passed, 3 failed, 0 skipped").expect("a line of counts");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (12, 3, 0));
        for other in ["", "passed  wire: SEND", "1 passed, 2 failed", "x passed, 1 failed, 1 skipped"] {
            assert!(Report::parse_counts(other).is_none(), "{other:?}");
        }
    }
}
