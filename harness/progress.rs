//! The progress bar: on a terminal only, and moved between batches of messages, never within one.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::plan::Benchmark;

/// Drawn to standard error, or nowhere.
#[derive(Debug)]
pub struct Progress(ProgressBar);

/// The bar counts thousandths of the run.
const WHOLE: u64 = 1000;

impl Progress {
    /// A bar for a run, if somebody looks.
    #[must_use]
    pub fn new(benchmark: Benchmark, quiet: bool) -> Self {
        Self::called(&benchmark.to_string(), quiet)
    }

    /// A bar with this name, if somebody looks.
    #[must_use]
    pub fn called(name: &str, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(WHOLE), ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) =
            ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3} %, {eta} left, {msg}")
        {
            bar.set_style(style.progress_chars("#> "));
        }
        bar.set_prefix(name.to_owned());
        Self(bar)
    }

    /// What is going on now.
    pub fn stage(&self, what: &'static str) {
        self.0.set_message(what);
        self.0.tick();
    }

    /// `done` of `total` measurements were made since `begun`, and this is the next one. Says about how long the rest takes.
    pub fn step(&self, done: usize, total: usize, begun: Instant, next: &str) {
        let each = u32::try_from(done).ok().and_then(|done| begun.elapsed().checked_div(done));
        let left = each.map_or_else(String::new, |each| {
            let left = each.saturating_mul(u32::try_from(total - done).unwrap_or(u32::MAX)).as_secs();
            format!(", about {}:{:02} left", left / 60, left % 60)
        });
        self.done(done as f64 / total.max(1) as f64);
        self.0.set_message(format!("{} of {total}: {next}{left}", done + 1));
        self.0.tick();
    }

    /// So much of the run is done, from 0 to 1.
    pub fn done(&self, share: f64) {
        self.0.set_position((share.clamp(0.0, 1.0) * WHOLE as f64) as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
