//! What is varied, and every combination of it.

use serde::{Deserialize, Serialize};

use super::{Cell, Flags};
use crate::cli::{self, parse_size};
use crate::error::{Error, Result};
use crate::many::is_simulated;
use crate::plan::Benchmark;

/// The most cells: with more, nobody reads the table, and few wait for it.
const MOST_CELLS: usize = 10_000;
/// Flags whose values have commas of their own.
const WHOLE: [&str; 3] = ["profile", "link", "fault"];

/// A flag, and the values that it has in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// Its name, without dashes.
    pub flag: String,
    /// Its values, as the command line has them.
    pub values: Vec<String>,
}

/// What the flags vary, in the order of the table's columns. There is always a device.
///
/// # Errors
/// A list has no value, or a range makes no sense.
pub(super) fn axes(flags: &Flags) -> Result<Vec<Axis>> {
    let mut axes = Vec::new();
    let own_device = flags.rest.iter().any(|word| word == "--device" || word.starts_with("--device="));
    let devices = match flags.device.as_slice() {
        [] if own_device => Vec::new(),
        [] => vec!["shm".to_owned()],
        devices => devices.to_vec(),
    };
    if !devices.is_empty() {
        axes.push(Axis { flag: "device".into(), values: devices });
    }
    let lists = [
        ("op", &flags.ops),
        ("transport", &flags.transports),
        ("size", &flags.sizes),
        ("depth", &flags.depths),
        ("post-list", &flags.post_lists),
    ];
    for (flag, list) in lists {
        if let Some(list) = list {
            axes.push(Axis { flag: flag.into(), values: values(flag, list)? });
        }
    }
    for text in &flags.vary {
        let Some((flag, list)) = text.split_once('=') else {
            return Err(Error::Usage(format!("--vary {text} names no values: give FLAG=VALUE,VALUE")));
        };
        let flag = flag.trim_start_matches('-');
        let values = if WHOLE.contains(&flag) { vec![list.to_owned()] } else { values(flag, list)? };
        match axes.iter_mut().find(|axis| axis.flag == flag) {
            Some(axis) => axis.values.extend(values),
            None => axes.push(Axis { flag: flag.into(), values }),
        }
    }
    Ok(axes)
}

/// The values of a list. `4k..32k` is what lies between, each twice the one before.
fn values(flag: &str, list: &str) -> Result<Vec<String>> {
    let mut values = Vec::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let Some((first, last)) = item.split_once("..") else {
            values.push(item.to_owned());
            continue;
        };
        let wrong = |why: String| Error::Usage(format!("{item} is no range of --{flag}: {why}"));
        let (first, last) = (parse_size(first).map_err(wrong)?, parse_size(last).map_err(wrong)?);
        if first == 0 || first > last {
            return Err(wrong("give A..B with 0 < A <= B, as 4k..1M".into()));
        }
        let doubled =
            std::iter::successors(Some(first), |size| size.checked_mul(2).filter(|size| *size <= last));
        values.extend(doubled.map(shown));
    }
    match values.is_empty() {
        true => Err(Error::Usage(format!("the list of --{flag} is empty: give values between commas"))),
        false => Ok(values),
    }
}

/// A number as the command line likes it.
fn shown(size: u64) -> String {
    match size {
        _ if size.is_multiple_of(1 << 20) => format!("{}M", size >> 20),
        _ if size.is_multiple_of(1 << 10) => format!("{}k", size >> 10),
        _ => size.to_string(),
    }
}

/// Every combination, the last axis changing fastest, none measured yet.
///
/// # Errors
/// There are too many, or the command line refuses one.
pub(super) fn planned(flags: &Flags, axes: &[Axis]) -> Result<Vec<Cell>> {
    let total = axes.iter().try_fold(1_usize, |total, axis| total.checked_mul(axis.values.len()));
    let Some(total) = total.filter(|total| *total <= MOST_CELLS) else {
        return Err(Error::Usage(format!("these are more than {MOST_CELLS} cells: vary less at a time")));
    };
    let cells = (0..total).map(|number| {
        let mut rest = number;
        let mut values: Vec<String> = axes
            .iter()
            .rev()
            .filter_map(|axis| {
                let value = axis.values.get(rest % axis.values.len());
                rest /= axis.values.len();
                value.cloned()
            })
            .collect();
        values.reverse();
        let arguments = arguments(flags, axes, &values);
        let words = std::iter::once("tbrdma-bench".to_owned()).chain(arguments.clone());
        match cli::parse(words.map(Into::into)) {
            Err((text, _)) => {
                Err(Error::Usage(text.trim_end().trim_start_matches("tbrdma-bench: ").to_owned()))
            }
            Ok(_) => Ok(Cell { name: values.join(" "), values, arguments, report: None, reason: None }),
        }
    });
    cells.collect()
}

/// The arguments of a cell.
fn arguments(flags: &Flags, axes: &[Axis], values: &[String]) -> Vec<String> {
    let mut arguments = vec![Benchmark::from(flags.what).to_string()];
    for (axis, value) in axes.iter().zip(values) {
        // In one word: values may begin with a dash.
        arguments.push(format!("--{}={value}", axis.flag));
    }
    let is_set = |name: &str| {
        let given = |word: &String| word == name || word.starts_with(&format!("{name}="));
        arguments.iter().chain(&flags.rest).any(given)
    };
    let simulated = || {
        let words = arguments.iter().chain(&flags.rest);
        words.map(|word| word.strip_prefix("--device=").unwrap_or(word)).any(is_simulated)
    };
    let extent = match (flags.iters, flags.each) {
        (Some(messages), _) => Some(format!("--iters={messages}")),
        (None, Some(time)) => Some(format!("--duration={}us", time.as_micros())),
        (None, None) if is_set("--iters") || is_set("--duration") || simulated() => None,
        (None, None) => Some("--duration=300ms".into()),
    };
    arguments.extend(extent);
    arguments.extend(flags.rest.iter().cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use super::values;

    #[test]
    fn lists_have_values_and_ranges_that_double() {
        let listed = |list: &str| values("size", list).unwrap().join(" ");
        assert_eq!(listed("8,64"), "8 64");
        assert_eq!(listed("1..3,512..4k,1M"), "1 2 512 1k 2k 4k 1M");
        assert_eq!(listed("3k..7k"), "3k 6k");
        assert_eq!(listed("8589934592G..8589934592G,x"), format!("{}M x", 8_589_934_592_u64 << 10));
        for wrong in ["", " , ", "4k..", "8..4", "0..4", "a..b"] {
            assert_eq!(values("size", wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
