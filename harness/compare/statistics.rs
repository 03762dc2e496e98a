//! How much two sides differ, and how sure that is: a bootstrap over pairs of runs, or over blocks of stretches within each.

/// Times that everything is drawn anew.
const ROUNDS: usize = 2000;
/// From so many pairs on their spread says what runs differ by, whatever it is in each run that moves.
const ENOUGH_PAIRS: usize = 4;

/// One figure of a run, as logarithms: sums of these are products of those.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The figure itself.
    pub value: f64,
    /// That of each stretch.
    plain: Vec<f64>,
    /// The same divided by its own floor; empty where a stretch has none.
    beside: Vec<f64>,
    /// The floor of all of it.
    floor: Option<f64>,
}

impl Run {
    /// A run with this figure; of each stretch the figure and its floor. `whole_floor` is a floor that is known of the whole run alone.
    #[must_use]
    pub fn new(value: f64, stretches: &[(f64, Option<f64>)], whole_floor: Option<f64>) -> Self {
        let good = |value: &f64| *value > 0.0;
        let floors: Vec<f64> =
            stretches.iter().filter_map(|(_, floor)| floor.filter(good).map(f64::ln)).collect();
        let plain: Vec<f64> = stretches.iter().map(|(value, _)| value.max(f64::MIN_POSITIVE).ln()).collect();
        let beside = stretches
            .iter()
            .filter_map(|(value, floor)| Some(value.max(f64::MIN_POSITIVE).ln() - floor.filter(good)?.ln()))
            .collect();
        let floor = whole_floor.filter(good).map(f64::ln).or_else(|| middle(&floors));
        Self { value, plain, beside, floor }
    }

    /// The figure's logarithm, by the floor if that is wished for.
    fn log(&self, beside_floor: bool) -> f64 {
        let floor = if beside_floor { self.floor.unwrap_or(0.0) } else { 0.0 };
        self.value.max(f64::MIN_POSITIVE).ln() - floor
    }

    /// By how much the middle of its stretches moves if they are drawn anew, in blocks.
    fn wobble(&self, beside_floor: bool, dice: &mut fastrand::Rng) -> f64 {
        let all = if beside_floor && !self.beside.is_empty() { &self.beside } else { &self.plain };
        let Some(center) = middle(all) else { return 0.0 };
        let block = (all.len() as f64).sqrt().ceil() as usize;
        let mut drawn = Vec::with_capacity(all.len() + block);
        while drawn.len() < all.len() {
            let from = dice.usize(..all.len());
            drawn.extend((0..block).map(|at| all[(from + at) % all.len()]));
        }
        drawn.truncate(all.len());
        middle(&drawn).unwrap_or(center) - center
    }
}

/// A run of either side, the one behind the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Of the one.
    pub base: Run,
    /// Of the other.
    pub new: Run,
}

impl Pair {
    /// Whether both have a floor.
    #[must_use]
    pub fn has_floors(&self) -> bool {
        self.base.floor.is_some() && self.new.floor.is_some()
    }

    fn difference(&self, beside_floor: bool) -> f64 {
        self.new.log(beside_floor) - self.base.log(beside_floor)
    }
}

/// A difference of logarithms, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The difference.
    pub middle: f64,
    /// Where it begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// By how much the new side is more, with an interval of this confidence (a part of one).
#[must_use]
pub fn change(pairs: &[Pair], beside_floor: bool, confidence: f64, dice: &mut fastrand::Rng) -> Estimate {
    let differences: Vec<f64> = pairs.iter().map(|pair| pair.difference(beside_floor)).collect();
    let found = mean(&differences);
    let between = pairs.len() >= ENOUGH_PAIRS;
    let mut one = |own: usize| {
        if between {
            return differences[dice.usize(..pairs.len())];
        }
        let Pair { base, new } = &pairs[own];
        differences[own] + new.wobble(beside_floor, dice) - base.wobble(beside_floor, dice)
    };
    let mut rounds: Vec<f64> =
        (0..ROUNDS).map(|_| mean(&(0..pairs.len()).map(&mut one).collect::<Vec<_>>())).collect();
    rounds.sort_unstable_by(f64::total_cmp);
    let outside = ((1.0 - confidence) / 2.0 * ROUNDS as f64) as usize;
    let end = ROUNDS - 1 - outside.min(ROUNDS / 2 - 1);
    Estimate { middle: found, low: rounds[ROUNDS - 1 - end], high: rounds[end] }
}

/// A quantile of a distribution of (value, how many), finer than its steps: a step's samples lie evenly between the middles to its neighbours.
/// `None` of an empty one.
#[must_use]
pub fn quantile(distribution: &[(f64, u64)], quantile: f64) -> Option<f64> {
    let total: u64 = distribution.iter().map(|(_, count)| count).sum();
    let wanted = total as f64 * quantile;
    let mut before = 0.0;
    for (at, &(value, count)) in distribution.iter().enumerate() {
        let count = count as f64;
        if count > 0.0 && before + count >= wanted {
            let between =
                |other: Option<&(f64, u64)>| other.map_or(value, |(other, _)| f64::midpoint(value, *other));
            let low = between(at.checked_sub(1).and_then(|at| distribution.get(at)));
            let high = between(distribution.get(at + 1));
            return Some(low + (high - low) * (wanted - before) / count);
        }
        before += count;
    }
    None
}

/// The middle of some figures of runs: that of their logarithms.
#[must_use]
pub fn summarise(values: &[f64]) -> f64 {
    let logs: Vec<f64> = values.iter().map(|value| value.max(f64::MIN_POSITIVE).ln()).collect();
    mean(&logs).exp()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The mean of the middle half: not moved by a few that are far away, and finer than a median of figures that come in steps.
fn middle(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let half = values.get(quarter..values.len() - quarter).filter(|half| !half.is_empty())?;
    Some(mean(half))
}

#[cfg(test)]
mod tests {
    use super::{middle, quantile};

    #[test]
    fn quantiles_lie_between_the_steps_of_the_clock() {
        let steps = [(60.0, 100), (65.0, 100), (70.0, 200)];
        assert_eq!(quantile(&steps, 0.5), Some(67.5));
        assert_eq!(quantile(&steps, 0.375), Some(65.0));
        assert_eq!(quantile(&steps, 0.0), Some(60.0));
        assert_eq!(quantile(&steps, 1.0), Some(70.0));
        assert_eq!(quantile(&[], 0.5), None);
        // A shift by less than a step is seen.
        let shifted = [(60.0, 90), (65.0, 100), (70.0, 210)];
        assert!(quantile(&shifted, 0.5) > quantile(&steps, 0.5));
    }

    #[test]
    fn the_middle_half_is_not_moved_by_the_ends() {
        assert_eq!(middle(&[1.0, 5.0, 7.0, 1e9]), Some(6.0));
        assert_eq!(middle(&[3.0]), Some(3.0));
        assert_eq!(middle(&[]), None);
    }
}
