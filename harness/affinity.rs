//! Which cores the two sides run on.

use crate::cores;
pub use crate::cores::allowed;
use crate::error::{Error, Result};

/// Keeps the calling thread on one core.
///
/// # Errors
/// The core does not exist, this process may not use it, or the system offers no such thing.
pub fn pin(core: usize) -> Result<()> {
    cores::pin(core).map_err(|reason| Error::Usage(format!("--pin {core} {reason}")))
}

/// The best two distinct cores of `allowed` for two sides that talk: on different physical cores if there are such.
#[must_use]
pub fn pair(allowed: &[usize]) -> Option<(usize, usize)> {
    choose(allowed, siblings)
}

fn choose(allowed: &[usize], siblings: impl Fn(usize) -> Option<String>) -> Option<(usize, usize)> {
    let first = *allowed.first()?;
    let own = siblings(first);
    let others = || allowed.iter().copied().skip(1);
    let apart = others().find(|core| own.is_none() || siblings(*core) != own);
    apart.or_else(|| others().next()).map(|second| (first, second))
}

fn siblings(core: usize) -> Option<String> {
    std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")).ok()
}

/// Numbers as a reader would list them: `0-3,7`.
#[must_use]
pub fn listed(cores: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == *core => *end = *core,
            _ => runs.push((*core, *core)),
        }
    }
    let text = |(start, end): &(usize, usize)| {
        if start == end { start.to_string() } else { format!("{start}-{end}") }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// How many numbers are in such a list.
#[must_use]
pub fn counted(listed: &str) -> usize {
    let run = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    listed.split(',').filter_map(run).sum()
}

#[cfg(test)]
mod tests {
    use super::{choose, counted, listed, pin};

    #[test]
    fn two_hardware_threads_of_one_core_are_the_last_choice() {
        let pairs = |core: usize| Some((core / 2).to_string());
        assert_eq!(choose(&[0, 1, 2, 3], pairs), Some((0, 2)));
        assert_eq!(choose(&[0, 1], pairs), Some((0, 1)));
        assert_eq!(choose(&[5, 9], |_| None), Some((5, 9)));
        assert_eq!(choose(&[3], pairs), None);
        assert_eq!(choose(&[], pairs), None);
    }

    #[test]
    fn cores_are_listed_as_runs() {
        assert_eq!(listed(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(listed(&[]), "");
        assert_eq!((counted("0-2,5,7-8"), counted("4"), counted("")), (6, 1, 0));
    }

    #[test]
    fn a_core_that_is_not_there_is_refused_in_one_line() {
        for core in [1000, usize::MAX] {
            let error = pin(core).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("not a core that this process may use"), "{error}");
        }
    }
}
