//! A table that a file with many results has for the page, beside its figures: the page shows it without knowing the mode.

use serde::{Deserialize, Serialize};

/// A table of text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// What it shows.
    pub caption: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its rows, whose first cell is a row's name.
    pub rows: Vec<Vec<String>>,
}
