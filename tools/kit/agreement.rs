//! Two rulers at one thing: what perftest's `ib_*_lat` and `tbrdma-bench pingpong` say of the same operation.
//!
//! They do not measure the same. perftest's sample is a whole turn of its loop, with the poll for the send's own completion and the receive that is put back, and its
//! bytes stay the same, so that they need not leave a core's cache. Ours ends when the message is there, and each message has bytes of its own, which are
//! checked. `--like perftest` has ours measure as perftest does: then the two must agree, and what is left between that and our own way is the method's.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How far apart two medians may be, as a part of the smaller, and still be the same.
const SAME: f64 = 0.15;
/// And in microseconds: perftest tells hundredths, and goes through the C face, which takes half as many instructions again as the library (a WRITE and its poll:
/// 1129 by `cargo bench -p tbrdma-ibverbs --bench native`, 769 by `cargo bench --bench instructions`). It shows where a message takes less than a tenth.
const FACE: f64 = 0.03;

/// What was printed by each in one turn.
#[derive(Debug)]
pub struct Measured {
    /// perftest's output.
    pub perftest: String,
    /// Our result in JSON, of a run with `--like perftest`.
    pub like_it: String,
    /// Our result in JSON.
    pub ours: String,
}

/// Half a round trip, in microseconds, by each.
#[derive(Clone, Copy, Debug)]
pub struct Medians {
    perftest: f64,
    like_it: f64,
    ours: f64,
}

impl Medians {
    /// The middle of several turns, each figure for itself.
    ///
    /// # Errors
    /// There are none, or one has no figures.
    pub fn of(turns: &[Measured]) -> Result<Self> {
        Ok(Self {
            perftest: middle(turns, |turn| typical(&turn.perftest))?,
            like_it: middle(turns, |turn| median(&turn.like_it))?,
            ours: middle(turns, |turn| median(&turn.ours))?,
        })
    }

    /// What is to be said of them.
    ///
    /// # Errors
    /// They differ though both measured in the same way.
    pub fn verdict(self) -> Result<String> {
        let Self { perftest, like_it, ours } = self;
        let beside = |ours: f64| format!("{ours:.3} us ({:+.0} %)", (ours / perftest - 1.0) * 100.0);
        let figures = format!(
            "perftest {perftest:.3} us, pingpong {}, pingpong --like perftest {}",
            beside(ours),
            beside(like_it)
        );
        ensure!(
            is_same(perftest, ours) || is_same(perftest, like_it),
            "{figures}: more than {:.0} % and {FACE} us apart, each way",
            SAME * 100.0
        );
        Ok(figures)
    }
}

fn is_same(one: f64, other: f64) -> bool {
    let (less, more) = (one.min(other), one.max(other));
    more <= less * (1.0 + SAME) || more - less <= FACE
}

/// `t_typical` of perftest's line of figures.
fn typical(said: &str) -> Result<f64> {
    let mut lines = said.lines().skip_while(|line| !line.contains("t_typical"));
    let heading = lines.next().with_context(|| format!("perftest printed no figures:\n{said}"))?;
    // Each heading is a word but for the percentiles, which come later.
    let column = heading.split_whitespace().position(|word| word.starts_with("t_typical"));
    let figures = lines.next().unwrap_or_default();
    column
        .and_then(|column| figures.split_whitespace().nth(column)?.parse().ok())
        .with_context(|| format!("this is no line of perftest's figures: {figures:?}"))
}

fn median(result: &str) -> Result<f64> {
    let read: Value = serde_json::from_str(result).with_context(|| format!("this is no result: {result}"))?;
    let median = read["one_way_ns"]["p50"].as_f64().context("the result has no median")?;
    Ok(median / 1e3)
}

fn middle(turns: &[Measured], figure: impl Fn(&Measured) -> Result<f64>) -> Result<f64> {
    let mut figures = turns.iter().map(figure).collect::<Result<Vec<_>>>()?;
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = " #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    99% percentile[usec]\n";

    fn turn(perftest: f64, like_it: f64, ours: f64) -> Measured {
        let result = |median: f64| format!(r#"{{"one_way_ns": {{"p50": {}}}}}"#, median * 1e3);
        Measured {
            perftest: format!(
                "---\n{HEADING} 64      1000          0.20           9.99         {perftest}             0.30  0.4\n---\n"
            ),
            like_it: result(like_it),
            ours: result(ours),
        }
    }

    fn verdict(turns: &[Measured]) -> Result<String> {
        Medians::of(turns)?.verdict()
    }

    #[test]
    fn medians_agree_that_were_measured_in_the_same_way() {
        let said = verdict(&[turn(0.27, 0.26, 0.20)]).expect("they agree");
        assert_eq!(
            said,
            "perftest 0.270 us, pingpong 0.200 us (-26 %), pingpong --like perftest 0.260 us (-4 %)"
        );
        assert!(verdict(&[turn(0.27, 0.5, 0.27)]).is_ok());
    }

    #[test]
    fn the_middle_of_several_turns_counts() {
        let turns = [turn(9.0, 0.2, 0.3), turn(0.21, 8.0, 0.3), turn(0.22, 0.21, 7.0)];
        let said = verdict(&turns).expect("they agree");
        assert!(said.starts_with("perftest 0.220 us") && said.ends_with("0.210 us (-5 %)"), "{said}");
    }

    #[test]
    fn what_differs_both_ways_is_an_error() {
        for (like_it, ours) in [(0.3, 0.2), (0.4, 0.3), (0.1, 0.1)] {
            let said = verdict(&[turn(0.24, like_it, ours)]).expect_err("they are apart").to_string();
            assert!(said.ends_with("more than 15 % and 0.03 us apart, each way"), "{said}");
        }
        assert!(verdict(&[turn(0.09, 0.07, 0.06)]).is_ok(), "no further apart than the C face explains");
    }

    #[test]
    fn what_has_no_figures_is_said() {
        let good = || turn(0.3, 0.3, 0.3);
        let none = |said: &str| said.to_owned();
        assert!(verdict(&[]).is_err());
        for wrong in [
            Measured { perftest: none(""), ..good() },
            Measured { perftest: none(HEADING), ..good() },
            Measured { like_it: none("{}"), ..good() },
            Measured { ours: none(""), ..good() },
        ] {
            assert!(verdict(&[wrong]).is_err());
        }
    }
}
