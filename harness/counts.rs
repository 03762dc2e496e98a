//! Counts of instructions, as `cargo bench --bench instructions` writes them where TBRDMA_COUNTS names a file: for `compare` and `gate`, where a clock would tell
//! of the machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// Name and version of such files: `harness/schema/tbrdma-counts-1.json`.
pub const SCHEMA: &str = "tbrdma-counts/1";

/// A file of counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// [`SCHEMA`].
    pub schema: String,
    /// Each.
    pub counts: Vec<Count>,
}

/// A count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// What was counted.
    pub name: String,
    /// On which device.
    pub device: String,
    /// Instructions of a message.
    pub instructions: f64,
}

impl Counts {
    /// Reads a file, if it is one of counts.
    ///
    /// # Errors
    /// It cannot be read, or says that it is one and is not.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if path.is_dir() {
            return Ok(None);
        }
        let shown = path.display();
        let text = std::fs::read_to_string(path).context(|| format!("read the result {shown}"))?;
        Self::parse(&text).map_err(|reason| Error::Usage(format!("the counts {shown}: {reason}")))
    }

    /// The counts of a text, if it is one of counts.
    ///
    /// # Errors
    /// It says that it is one and is not.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        /// What tells it from others.
        #[derive(Deserialize)]
        struct Named {
            schema: String,
        }
        match serde_json::from_str::<Named>(text) {
            Ok(named) if named.schema == SCHEMA => {}
            _ => return Ok(None),
        }
        let counts: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let wrong = counts.counts.iter().find(|count| count.instructions <= 0.0);
        match wrong {
            Some(count) => Err(format!("{:?} takes {} instructions", count.name, count.instructions)),
            None if counts.counts.is_empty() => Err("there is none in it".to_owned()),
            None => Ok(Some(counts)),
        }
    }
}

impl Count {
    /// The same among others.
    #[must_use]
    pub fn among<'c>(&self, others: &'c [Self]) -> Option<&'c Self> {
        others.iter().find(|other| other.name == self.name && other.device == self.device)
    }
}
