//! `Cover`: how many registrations there are of each byte of the address space.

use std::collections::BTreeMap;

/// Ranges by how many times they were added, in as few runs as that takes.
#[derive(Debug, Default)]
pub(crate) struct Cover {
    /// Start to end and count; never an empty one, never a count of zero, never two that touch with the same count.
    runs: BTreeMap<usize, (usize, u32)>,
}

impl Cover {
    pub(crate) const fn new() -> Self {
        Self { runs: BTreeMap::new() }
    }

    /// Is any byte of `[from, to)` covered?
    pub(crate) fn touches(&self, from: usize, to: usize) -> bool {
        from < to && self.runs.range(..to).next_back().is_some_and(|(_, &(end, _))| end > from)
    }

    /// Covers `[from, to)` once more.
    pub(crate) fn add(&mut self, from: usize, to: usize) {
        self.split(from);
        self.split(to);
        let mut gaps = Vec::new();
        let mut reached = from;
        for (&start, (end, count)) in self.runs.range_mut(from..to) {
            if reached < start {
                gaps.push((reached, start));
            }
            *count = count.saturating_add(1);
            reached = *end;
        }
        if reached < to {
            gaps.push((reached, to));
        }
        self.runs.extend(gaps.into_iter().map(|(start, end)| (start, (end, 1))));
        self.join(from, to);
    }

    /// Takes back what was [added](Self::add).
    pub(crate) fn remove(&mut self, from: usize, to: usize) {
        self.split(from);
        self.split(to);
        for (_, run) in self.runs.range_mut(from..to) {
            run.1 -= 1;
        }
        let bare: Vec<usize> =
            self.runs.range(from..to).filter(|(_, run)| run.1 == 0).map(|(&start, _)| start).collect();
        for start in bare {
            self.runs.remove(&start);
        }
        self.join(from, to);
    }

    /// Lets no run go across `at`.
    fn split(&mut self, at: usize) {
        if let Some((_, run)) = self.runs.range_mut(..at).next_back()
            && run.0 > at
        {
            let (end, count) = *run;
            run.0 = at;
            self.runs.insert(at, (end, count));
        }
    }

    /// Makes one run of those that touch and have the same count, in and beside `[from, to)`.
    fn join(&mut self, from: usize, to: usize) {
        let first = self.runs.range(..from).next_back().map_or(from, |(&start, _)| start);
        let mut before: Option<(usize, (usize, u32))> = None;
        for start in self.runs.range(first..=to).map(|(&start, _)| start).collect::<Vec<_>>() {
            let run = self.runs[&start];
            match &mut before {
                Some((known, (end, count))) if *end == start && *count == run.1 => {
                    *end = run.0;
                    self.runs.remove(&start);
                    self.runs.insert(*known, (*end, *count));
                }
                _ => before = Some((start, run)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES: usize = 40;

    proptest! {
        #[test]
        fn agrees_with_a_count_a_byte(
            steps in prop::collection::vec((any::<bool>(), 0..BYTES, 1..12usize, any::<prop::sample::Index>()), 1..80),
        ) {
            let (mut cover, mut counts, mut added) = (Cover::new(), [0_u32; BYTES + 12], Vec::new());
            for (add, from, len, pick) in steps {
                if add {
                    cover.add(from, from + len);
                    counts[from..from + len].iter_mut().for_each(|count| *count += 1);
                    added.push((from, from + len));
                } else if !added.is_empty() {
                    let (from, to) = added.swap_remove(pick.index(added.len()));
                    cover.remove(from, to);
                    counts[from..to].iter_mut().for_each(|count| *count -= 1);
                }
                for (at, count) in counts.iter().enumerate() {
                    prop_assert_eq!(cover.touches(at, at + 1), *count > 0, "{} {:?}", at, cover);
                }
                prop_assert_eq!(cover.touches(from, from + len), counts[from..from + len].iter().any(|&count| count > 0));
                // As few runs as it takes: one for each change from one byte to the next.
                let changes = (0..counts.len()).filter(|&at| counts[at] > 0 && (at == 0 || counts[at - 1] != counts[at]));
                prop_assert_eq!(cover.runs.len(), changes.count());
            }
        }
    }
}
