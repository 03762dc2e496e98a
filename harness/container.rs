//! Files with results: one as `--json` of a run wrote it, or many as a mode wrote them that makes many.
//!
//! Such a mode has a schema of its own, named `tbrdma-bench-MODE/VERSION`. All have in common that a result is the field `report` of an object whose
//! field `name` says which it is, wherever that stands; so whoever wants results need not know the modes.

use std::path::Path;

use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::result::{Report, SCHEMA};

/// What the schemas of files with many results begin with.
const MANY: &str = "tbrdma-bench-";

/// The results of a file, each with its name: that of the file, and what tells it from the others of the file.
///
/// # Errors
/// The file cannot be read, is none of ours, or has no result.
pub fn read(path: &Path) -> Result<Vec<(String, Report)>> {
    let shown = path.display();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).context(|| format!("read the result {shown}"))?;
    let Some(value) = serde_json::from_str::<Value>(&text).ok().filter(is_of_many) else {
        return Ok(vec![(stem, Report::read(path)?)]);
    };
    let mut found = Vec::new();
    collect(value, &mut found);
    if found.is_empty() {
        return Err(Error::Usage(format!("{shown} has no result in it: nothing of it could be measured")));
    }
    found
        .into_iter()
        .map(|(name, report)| {
            let named = report.get("schema").and_then(Value::as_str).unwrap_or_default();
            if named != SCHEMA {
                return Err(Error::Usage(format!(
                    "{shown} has a result of the schema {named:?}: this release reads {SCHEMA:?}"
                )));
            }
            let report = serde_json::from_value(report).context(|| format!("read a result of {shown}"))?;
            Ok((format!("{stem} {name}"), report))
        })
        .collect()
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
