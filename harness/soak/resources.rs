//! What a process holds of its host, and whether that keeps growing.

use serde::{Deserialize, Serialize};

/// Growth of memory that is none: allocators keep some for later.
const MEMORY_TOLERANCE: u64 = 1 << 20;
/// Samples after the warm-up, without which nothing is judged.
const FEWEST: usize = 6;

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory that is resident, in bytes.
    pub rss_bytes: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
}

impl Resources {
    /// Of a process, where the system shows it.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            rss_bytes: field("VmRSS:")?.checked_mul(1024)?,
            fds: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
            threads: field("Threads:")?,
        })
    }
}

/// What became of the watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There were too few samples to tell.
    TooShort,
    /// Nothing keeps growing.
    Steady,
    /// These do: in words.
    Growing(Vec<String>),
}

/// Judges the samples of a process, one an interval. A fifth of them, the first, are its warm-up. What is left is looked at in thirds: what
/// keeps growing is higher in the middle one than in the first, and higher still in the last.
#[must_use]
pub fn judge(whose: &str, samples: &[Resources]) -> Verdict {
    let warm = samples.get((samples.len() / 5).max(2)..).unwrap_or_default();
    if warm.len() < FEWEST {
        return Verdict::TooShort;
    }
    let of = |name: &str, value: fn(&Resources) -> u64, tolerance: u64| {
        let third = warm.len() / 3;
        let middle = |range: std::ops::Range<usize>| {
            let mut values: Vec<u64> = warm.get(range).unwrap_or_default().iter().map(value).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let thirds = [middle(0..third), middle(third..2 * third), middle(2 * third..warm.len())];
        let [first, second, last] = thirds;
        let steps = (second.saturating_sub(first), last.saturating_sub(second));
        (steps.0 >= tolerance && steps.1 >= tolerance).then(|| {
            format!("{name} of {whose} keeps growing: {first}, {second}, {last} in three parts of the run")
        })
    };
    let first = warm.first().map_or(0, |first| first.rss_bytes);
    let growing: Vec<String> = [
        of("memory (bytes)", |sample| sample.rss_bytes, MEMORY_TOLERANCE.max(first / 50)),
        of("the number of open files", |sample| sample.fds, 1),
        of("the number of threads", |sample| sample.threads, 1),
    ]
    .into_iter()
    .flatten()
    .collect();
    if growing.is_empty() { Verdict::Steady } else { Verdict::Growing(growing) }
}

#[cfg(test)]
mod tests {
    use super::{Resources, Verdict, judge};

    fn series(count: u64, of: impl Fn(u64) -> (u64, u64, u64)) -> Vec<Resources> {
        let sample = |(rss_bytes, fds, threads)| Resources { rss_bytes, fds, threads };
        (0..count).map(|at| sample(of(at))).collect()
    }

    #[test]
    fn what_settles_after_the_warm_up_is_no_leak() {
        // Memory grows at first, then wavers; a file is opened once.
        let settled = series(30, |at| ((at.min(6) << 20) + ((at % 3) << 16), 9 + u64::from(at > 15), 4));
        assert_eq!(judge("a process", &settled), Verdict::Steady);
        assert_eq!(judge("a process", &series(7, |at| (at << 24, at, at))), Verdict::TooShort);
    }

    #[test]
    fn what_keeps_growing_is_named() {
        let leaking = series(30, |at| (at << 20, 9 + at / 4, 4));
        let Verdict::Growing(what) = judge("the responder", &leaking) else { panic!("not seen") };
        assert_eq!(what.len(), 2, "{what:?}");
        assert!(what[0].starts_with("memory (bytes) of the responder keeps growing"), "{what:?}");
        assert!(what[1].contains("open files"), "{what:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_seen() {
        let before = Resources::of(std::process::id()).unwrap();
        assert!(before.rss_bytes > 0 && before.threads > 0);
        assert_eq!(Resources::of(u32::MAX), None);
    }
}
