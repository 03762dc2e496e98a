//! A chart as a value: axes with marks, lines, bars. How it looks is the template's; where things are is decided here.

use askama::Template;

/// Where the plot is in a chart of 720 by 330 units, as `chart.html` has it; a browser scales it.
pub(super) const LEFT: f64 = 90.0;
pub(super) const RIGHT: f64 = 706.0;
pub(super) const TOP: f64 = 12.0;
pub(super) const BOTTOM: f64 = 282.0;

/// A chart.
#[derive(Debug, Default, Template)]
#[template(path = "chart.html")]
pub(super) struct Chart {
    /// Unlike that of any other chart of the page.
    pub(super) id: String,
    /// What it shows, in a line.
    pub(super) title: String,
    /// What there is to see, for who does not.
    pub(super) description: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    pub(super) bars: Vec<Bar>,
    pub(super) bands: Vec<Band>,
}

/// An axis.
#[derive(Debug, Default)]
pub(super) struct Axis {
    pub(super) label: String,
    pub(super) marks: Vec<Mark>,
}

/// A value on an axis.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) at: String,
    pub(super) label: String,
}

/// A line through points.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) label: String,
    /// Which of the colours and dashes.
    pub(super) style: usize,
    /// As the attribute `points` has them.
    pub(super) points: String,
}

/// A bar that stands on the bottom.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) width: String,
    pub(super) height: String,
    /// What it stands for, in words.
    pub(super) label: String,
}

/// A stretch of the x axis that is shaded.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) x: String,
    pub(super) width: String,
    /// Where its name stands, which is written upwards: most are narrow.
    pub(super) middle: String,
    pub(super) name: String,
    /// What it stands for, in words.
    pub(super) label: String,
}

impl Line {
    /// Its classes: one of eight colours, and then of four dashes, so that they differ without colour too.
    fn look(&self) -> String {
        const COLOURS: usize = 8;
        const DASHES: usize = 4;
        let index = self.style.saturating_sub(1);
        format!("c{} d{}", index % COLOURS, (index + index / COLOURS) % DASHES)
    }
}

/// How values become places along an axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    /// The same distance for the same difference.
    pub(super) fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self { low, high: high.max(low + f64::MIN_POSITIVE), from, to, logarithmic: false }
    }

    /// The same distance for the same ratio.
    pub(super) fn logarithmic(low: f64, high: f64, from: f64, to: f64) -> Self {
        let low = low.max(f64::MIN_POSITIVE);
        Self { low, high: high.max(low * 1.000_001), from, to, logarithmic: true }
    }

    /// Where a value is.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Marks at round values, with labels that `label` makes, without zeroes that say nothing.
    pub(super) fn marks(&self, label: impl Fn(f64) -> String) -> Vec<Mark> {
        let values = if self.logarithmic { self.decades() } else { self.steps() };
        let label = |value| match value {
            0.0 => "0".to_owned(),
            _ => label(value).replace(".00 ", " ").replace(".0 ", " "),
        };
        values.into_iter().map(|value| Mark { at: number(self.at(value)), label: label(value) }).collect()
    }

    /// 1, 2 and 5 of each power of ten; only the 1 of it where those are too many.
    fn decades(&self) -> Vec<f64> {
        const MOST: usize = 9;
        let all = |digits: &[f64]| -> Vec<f64> {
            let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            (first..=last)
                .flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)))
                .filter(|value| *value >= self.low * 0.999 && *value <= self.high * 1.001)
                .collect()
        };
        let fine = all(&[1.0, 2.0, 5.0]);
        match fine.len() {
            // Within a few per cent there is no such value.
            0 | 1 => self.steps(),
            2..=MOST => fine,
            _ => all(&[1.0]),
        }
    }

    /// Four to nine steps of 1, 2 or 5 of some power of ten.
    fn steps(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough).max(f64::MIN_POSITIVE);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last.min(first + 20)).map(|index| index as f64 * step).collect()
    }
}

/// A number for the page: as short as a tenth of a unit allows.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// The attribute `points` of a line. Places that are too near the last one to be told from it are left out, but for the end.
pub(super) fn points(places: impl Iterator<Item = (f64, f64)>) -> String {
    const NEAR: f64 = 0.7;
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let mut end = None;
    for place in places {
        let is_near = |last: &(f64, f64)| (last.0 - place.0).abs() < NEAR && (last.1 - place.1).abs() < NEAR;
        if kept.last().is_some_and(is_near) {
            end = Some(place);
        } else {
            kept.push(place);
            end = None;
        }
    }
    kept.extend(end);
    let places: Vec<_> = kept.into_iter().map(|(x, y)| format!("{},{}", number(x), number(y))).collect();
    places.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Scale, points};

    fn labels(scale: Scale) -> Vec<String> {
        scale.marks(|value| format!("{value}")).into_iter().map(|mark| mark.label).collect()
    }

    #[test]
    fn marks_are_round_and_few() {
        assert_eq!(labels(Scale::logarithmic(80.0, 1200.0, 0.0, 1.0)), ["100", "200", "500", "1000"]);
        assert_eq!(labels(Scale::logarithmic(1.0, 1e6, 0.0, 1.0)).len(), 7);
        assert_eq!(labels(Scale::linear(0.0, 10.0, 0.0, 1.0)), ["0", "2", "4", "6", "8", "10"]);
        // All samples alike.
        assert!(labels(Scale::logarithmic(70.0, 70.0, 0.0, 1.0)).len() < 25);
        assert!(labels(Scale::linear(0.0, 0.0, 0.0, 1.0)).len() < 25);
    }

    #[test]
    fn places_stay_within_the_plot() {
        let scale = Scale::logarithmic(10.0, 1000.0, 0.0, 100.0);
        assert_eq!(
            [1.0, 10.0, 100.0, 1000.0, 1e9].map(|value| scale.at(value).round()),
            [0.0, 0.0, 50.0, 100.0, 100.0]
        );
    }

    #[test]
    fn places_that_look_the_same_are_told_once() {
        let places = [(0.0, 1.0), (0.01, 1.01), (5.26, 2.0), (5.3, 2.2), (5.4, 2.3)];
        assert_eq!(points(places.into_iter()), "0,1 5.3,2 5.4,2.3");
        assert_eq!(points(std::iter::empty()), "");
    }
}
