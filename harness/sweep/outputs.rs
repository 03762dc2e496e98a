//! A sweep as CSV: the columns of every result, and in front of them why there is none.

use super::{Axis, Cell, Sweep};
use crate::cli::parse_size;
use crate::csv;

/// The table, with a line of names.
pub(super) fn csv(sweep: &Sweep) -> String {
    let mut text = format!("reason,{}\n", csv::names());
    for cell in &sweep.cells {
        let reason = csv::quoted(cell.reason.as_deref().unwrap_or_default());
        let row = match &cell.report {
            Some(report) => csv::row(report),
            None => csv::names()
                .split(',')
                .map(|name| csv::quoted(&asked_for(sweep, cell, name)))
                .collect::<Vec<_>>()
                .join(","),
        };
        text.push_str(&format!("{reason},{row}\n"));
    }
    text
}

/// What a cell without a result would have had in this column, as far as it follows from what was asked for.
fn asked_for(sweep: &Sweep, cell: &Cell, column: &str) -> String {
    let is_of = |axis: &Axis| axis.flag.replace('-', "_") == column.trim_end_matches("_bytes");
    let value = sweep.axes.iter().zip(&cell.values).find(|(axis, _)| is_of(axis)).map(|(_, value)| value);
    match (column, value) {
        ("benchmark", _) => sweep.benchmark.to_string(),
        ("size_bytes", Some(value)) => {
            parse_size(value).map_or_else(|_| value.clone(), |size| size.to_string())
        }
        (_, value) => value.cloned().unwrap_or_default(),
    }
}
