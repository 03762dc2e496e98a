//! The charts: percentiles of all runs together, and of each run its distribution and what became of it in the course of time.

use super::chart::{Axis, BOTTOM, Bar, Chart, LEFT, Line, Mark, RIGHT, Scale, TOP, number, points};
use crate::histogram::nanoseconds;
use crate::report::bytes;
use crate::result::Report;
use crate::timeline::Stretch;

/// Bars of a distribution.
const BARS: usize = 64;
/// How many of a thousand samples a distribution leaves out at its slow end: they would make all others one bar. The percentiles have them.
const LEFT_OUT: f64 = 1.0;

/// A distribution, to be drawn as a line.
pub(super) struct Curve<'r> {
    /// Which of the colours and dashes.
    pub(super) style: usize,
    pub(super) label: String,
    pub(super) samples: u64,
    pub(super) distribution: &'r [(f64, u64)],
}

/// The percentiles of latencies: further right are fewer and slower messages, by powers of ten.
pub(super) fn curves(all: &[Curve<'_>]) -> Chart {
    let most = all.iter().map(|curve| curve.samples).max().unwrap_or(1).max(2);
    // The slowest of n samples is drawn where one in n is.
    let rarest = (most as f64).log10().max(1.0);
    let values = || all.iter().flat_map(|curve| curve.distribution.iter().map(|(ns, _)| *ns));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let x = Scale::linear(0.0, rarest, LEFT, RIGHT);
    let y = Scale::logarithmic(low * 0.9, high * 1.1, BOTTOM, TOP);
    let names = ["0", "90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999", "99.999999"];
    let mut marks: Vec<Mark> = (0..)
        .zip(names)
        .take_while(|(nines, _)| f64::from(*nines) <= rarest)
        .map(|(nines, name): (u32, _)| Mark {
            at: number(x.at(f64::from(nines))),
            label: if nines == 0 { "min".to_owned() } else { format!("p{name}") },
        })
        .collect();
    marks.insert(1, Mark { at: number(x.at(2_f64.log10())), label: "p50".to_owned() });
    let lines = all
        .iter()
        .map(|curve| Line { label: curve.label.clone(), style: curve.style, points: places(curve, x, y) })
        .collect();
    Chart {
        id: "curves".to_owned(),
        title: "Latency by percentile".to_owned(),
        description: format!(
            "One line a run, from its fastest message on the left to its slowest on the right, between {} and {}. A line that stays low is better; where it turns up, that part of the messages is slow. The table of latencies has the figures.",
            nanoseconds(low),
            nanoseconds(high)
        ),
        x: Axis { label: "part of the messages that were no slower".to_owned(), marks },
        y: Axis { label: "latency".to_owned(), marks: y.marks(nanoseconds) },
        lines,
        bars: Vec::new(),
        bands: Vec::new(),
    }
}

/// The line of one distribution: a step for each value, at the part of the samples that were faster and at that with it.
fn places(curve: &Curve<'_>, x: Scale, y: Scale) -> String {
    let total = curve.distribution.iter().map(|(_, count)| *count).sum::<u64>().max(1) as f64;
    let rank = |faster: u64| -((1.0 - faster as f64 / total).max(1.0 / total)).log10();
    let mut faster = 0;
    points(curve.distribution.iter().flat_map(|(ns, count)| {
        let from = (x.at(rank(faster)), y.at(*ns));
        faster += count;
        [from, (x.at(rank(faster)), y.at(*ns))]
    }))
}

/// A part of a distribution.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    /// Where it begins and ends, in nanoseconds.
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) samples: u64,
}

/// The distribution in parts of the same ratio, without the slowest of a thousand; and how many those are.
pub(super) fn shares(distribution: &[(f64, u64)]) -> (Vec<Share>, u64) {
    let total: u64 = distribution.iter().map(|(_, count)| count).sum();
    let keep = (total as f64 * (1.0 - LEFT_OUT / 1000.0)).ceil() as u64;
    let mut seen = 0;
    let kept = distribution.iter().take_while(|(_, count)| {
        let before = seen;
        seen += count;
        before < keep
    });
    let kept: Vec<_> = kept.copied().collect();
    let (Some((low, _)), Some((high, _))) = (kept.first(), kept.last()) else { return (Vec::new(), 0) };
    let ratio = (high * 1.001 / low).powf(1.0 / BARS as f64).max(1.0005);
    let mut shares: Vec<Share> = Vec::new();
    for (ns, count) in &kept {
        let index = ((ns / low).ln() / ratio.ln()).floor();
        let (from, to) = (low * ratio.powf(index), low * ratio.powf(index + 1.0));
        match shares.last_mut() {
            Some(last) if *ns < last.to => last.samples += count,
            _ => shares.push(Share { from, to, samples: *count }),
        }
    }
    let told: u64 = kept.iter().map(|(_, count)| count).sum();
    (shares, total - told)
}

/// The distribution of one run.
pub(super) fn bars(id: u32, report: &Report, shares: &[Share], slower: u64) -> Option<Chart> {
    let (first, last) = (shares.first()?, shares.last()?);
    let total = report.samples.max(1) as f64;
    let part = |share: &Share| share.samples as f64 * 100.0 / total;
    let most = shares.iter().map(part).fold(0.0, f64::max);
    let x = Scale::logarithmic(first.from, last.to, LEFT, RIGHT);
    let y = Scale::linear(0.0, most, BOTTOM, TOP);
    let commonest = shares.iter().max_by_key(|share| share.samples)?;
    let bars = shares
        .iter()
        .map(|share| {
            // What is there at all can be seen.
            let top = y.at(part(share)).min(BOTTOM - 1.0);
            let (left, right) = (x.at(share.from), x.at(share.to));
            Bar {
                x: number(left),
                y: number(top),
                width: number((right - left).max(1.0)),
                height: number(BOTTOM - top),
                label: format!(
                    "{} to {}: {} messages, {:.3} %",
                    nanoseconds(share.from),
                    nanoseconds(share.to),
                    share.samples,
                    part(share)
                ),
            }
        })
        .collect();
    let rest = if slower == 0 {
        String::new()
    } else {
        format!(" {slower} slower ones, up to {}, are not drawn.", nanoseconds(report.one_way_ns?.max))
    };
    Some(Chart {
        id: format!("distribution-{id}"),
        title: "Distribution".to_owned(),
        description: format!(
            "Most messages took {} to {}: {:.1} % of them.{rest}",
            nanoseconds(commonest.from),
            nanoseconds(commonest.to),
            part(commonest)
        ),
        x: Axis { label: "latency".to_owned(), marks: x.marks(nanoseconds) },
        y: Axis { label: "part of the messages".to_owned(), marks: y.marks(|part| format!("{part} %")) },
        lines: Vec::new(),
        bars,
        bands: Vec::new(),
    })
}

/// A figure of a stretch, and what it is called.
type Pick = (&'static str, fn(&Stretch) -> Option<f64>);

/// Those of latencies.
const LATENCIES: &[Pick] =
    &[("median", |s| s.p50), ("p99", |s| s.p99), ("slowest", |s| s.max), ("floor, median", |s| s.floor)];

/// The lines of some figures in the course of time, those that there are.
fn lines(picks: &[Pick], stretches: &[Stretch], x: Scale, y: Scale) -> Vec<Line> {
    let middle = |stretch: &Stretch| x.at(stretch.at_s + stretch.lasted_s / 2.0);
    let lines = (1..).zip(picks).map(|(style, (label, pick))| Line {
        label: (*label).to_owned(),
        style,
        points: points(stretches.iter().filter_map(|stretch| Some((middle(stretch), y.at(pick(stretch)?))))),
    });
    lines.filter(|line| !line.points.is_empty()).collect()
}

/// One run in the course of time; nothing if it is too short to have one.
pub(super) fn course(id: u32, report: &Report) -> Option<Chart> {
    let stretches = &report.timeline;
    let end = stretches.last().map(|last| last.at_s + last.lasted_s).filter(|_| stretches.len() > 1)?;
    let x = Scale::linear(0.0, end, LEFT, RIGHT);
    let is_latency = report.one_way_ns.is_some();
    let picks: &[Pick] =
        if is_latency { LATENCIES } else { &[("run", |s| s.bytes_per_s), ("floor", |s| s.floor)] };
    let values = || picks.iter().flat_map(|(_, pick)| stretches.iter().filter_map(pick));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    if !low.is_finite() {
        return None;
    }
    let y = if is_latency {
        Scale::logarithmic(low * 0.9, high * 1.1, BOTTOM, TOP)
    } else {
        Scale::linear(0.0, high * 1.05, BOTTOM, TOP)
    };
    let unit: fn(f64) -> String = if is_latency { nanoseconds } else { bytes };
    Some(Chart {
        id: format!("course-{id}"),
        title: "In the course of time".to_owned(),
        description: format!(
            "{} stretches of the run, over {:.2} s, between {} and {}. The table behind has the figures.",
            stretches.len(),
            end,
            unit(low),
            unit(high)
        ),
        x: Axis {
            label: "seconds since the first message".to_owned(),
            marks: x.marks(|at| format!("{at:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()),
        },
        y: Axis { label: if is_latency { "latency" } else { "throughput" }.to_owned(), marks: y.marks(unit) },
        lines: lines(picks, stretches, x, y),
        bars: Vec::new(),
        bands: Vec::new(),
    })
}

/// The lines of latencies in the course of time, and the scale they are drawn on; nothing if there are none.
pub(super) fn lines_of_latencies(stretches: &[Stretch], x: Scale) -> Option<(Scale, Vec<Line>)> {
    let values = || stretches.iter().flat_map(|stretch| [stretch.p50, stretch.p99, stretch.max]).flatten();
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let y = low.is_finite().then(|| Scale::logarithmic(low * 0.9, high * 1.1, BOTTOM, TOP))?;
    Some((y, lines(LATENCIES, stretches, x, y)))
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn every_sample_is_in_one_share_or_told_as_left_out() {
        let distribution: Vec<(f64, u64)> =
            (0..500).map(|n| (100.0 + f64::from(n), 20)).chain([(1e9, 3)]).collect();
        let (shares, slower) = shares(&distribution);
        let drawn: u64 = shares.iter().map(|share| share.samples).sum();
        assert_eq!(drawn + slower, 10_003);
        assert!((3..=23).contains(&slower), "{slower}");
        assert!(shares.len() <= 65 && shares.is_sorted_by(|a, b| a.to <= b.from * 1.000_001), "{shares:?}");
    }

    #[test]
    fn one_value_is_one_share() {
        let (shares, slower) = shares(&[(70.0, 1000)]);
        assert_eq!((shares.len(), shares[0].samples, slower), (1, 1000, 0));
        assert_eq!(super::shares(&[]), (Vec::new(), 0));
    }
}
