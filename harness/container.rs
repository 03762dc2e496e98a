//! Files with results: one as `--json` of a run wrote it, or many as a mode wrote them that makes many.
//!
//! Such a mode has a schema of its own, named `tbrdma-bench-MODE/VERSION`. All have in common that a result is the field `report` of an object whose
//! field `name` says which it is, wherever that stands; so whoever wants results need not know the modes. `tables`, where it has them, say in text what all of them say together.

use std::path::Path;

use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::grid::Grid;
use crate::result::{Report, SCHEMA};
use crate::stress::result::{self as stress, StressReport};

/// What the schemas of files with many results begin with.
const MANY: &str = "tbrdma-bench-";

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    /// Its results, each with its name: that of the file, and what tells it from the others of the file.
    pub results: Vec<(String, Report)>,
    /// What is told of all of them together, in tables.
    pub tables: Vec<Grid>,
    /// Stress runs, each with its name.
    pub stress: Vec<(String, StressReport)>,
}

/// Reads a file.
///
/// # Errors
/// It cannot be read, or is none of ours.
pub fn read(path: &Path) -> Result<Contents> {
    let shown = path.display();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let text = std::fs::read_to_string(path).context(|| format!("read the result {shown}"))?;
    parse(&text, &stem)
        .map_err(|reason| Error::Usage(format!("{shown} is no result of tbrdma-bench: {reason}")))
}

/// What the text of a file holds, which is called `stem`.
///
/// # Errors
/// Why it is none of ours.
pub fn parse(text: &str, stem: &str) -> Result<Contents, String> {
    let value = serde_json::from_str::<Value>(text).ok();
    if value.as_ref().and_then(|value| value.get("schema")).is_some_and(|schema| schema == stress::SCHEMA) {
        let report = serde_json::from_str(text).map_err(|error| error.to_string())?;
        return Ok(Contents { stress: vec![(stem.to_owned(), report)], ..Contents::default() });
    }
    let Some(mut value) = value.filter(is_of_many) else {
        return Ok(Contents {
            results: vec![(stem.to_owned(), Report::parse(text)?)],
            ..Contents::default()
        });
    };
    let tables = value.get_mut("tables").map(Value::take).unwrap_or_else(|| Value::Array(Vec::new()));
    let mut tables: Vec<Grid> =
        serde_json::from_value(tables).map_err(|error| format!("its tables: {error}"))?;
    for table in &mut tables {
        table.caption = format!("{stem}: {}", table.caption);
    }
    let mut found = Vec::new();
    collect(value, &mut found);
    let named = |(name, report): (String, Value)| {
        let schema = report.get("schema").and_then(Value::as_str).unwrap_or_default();
        if schema != SCHEMA {
            return Err(format!("the schema of {name:?} is {schema:?}, this release reads {SCHEMA:?}"));
        }
        let report = serde_json::from_value(report).map_err(|error| format!("{name:?}: {error}"))?;
        Ok((format!("{stem} {name}"), report))
    };
    Ok(Contents {
        results: found.into_iter().map(named).collect::<Result<_, String>>()?,
        tables,
        stress: Vec::new(),
    })
}

fn is_of_many(value: &Value) -> bool {
    value.get("schema").and_then(Value::as_str).is_some_and(|schema| schema.starts_with(MANY))
}

fn collect(value: Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Array(items) => items.into_iter().for_each(|item| collect(item, found)),
        Value::Object(mut fields) => {
            if let Some(report @ Value::Object(_)) = fields.remove("report") {
                let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                found.push((name, report));
            }
            fields.into_iter().for_each(|(_, field)| collect(field, found));
        }
        _ => {}
    }
}
