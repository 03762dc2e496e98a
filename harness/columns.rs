//! A table for a terminal of eighty columns: text to the left, figures to the right, and what does not fit left out from the right.

use crate::words::{WIDTH, fold};

/// Blanks between columns.
const GAP: usize = 2;
/// A name longer than this is cut.
const LONGEST: usize = 24;

/// A table in the making.
#[derive(Debug, Default)]
pub struct Columns {
    names: Vec<String>,
    /// How many of the columns say which row it is; figures are right of them.
    labels: usize,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    cells: Vec<String>,
    /// Words in place of figures.
    instead: Option<String>,
}

impl Columns {
    /// A table with these columns: what tells rows apart, and figures, the dearest first.
    pub fn new<'n>(
        labels: impl IntoIterator<Item = &'n str>,
        figures: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let mut names: Vec<String> = labels.into_iter().map(str::to_owned).collect();
        let labels = names.len();
        names.extend(figures.into_iter().map(str::to_owned));
        Self { names, labels, rows: Vec::new() }
    }

    /// A row with figures.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(Row { cells: cells.into_iter().collect(), instead: None });
    }

    /// A row that has words in place of figures.
    pub fn row_of_words(&mut self, labels: impl IntoIterator<Item = String>, words: String) {
        self.rows.push(Row { cells: labels.into_iter().collect(), instead: Some(words) });
    }

    /// The table as lines of at most eighty columns.
    #[must_use]
    pub fn text(&self) -> String {
        let widths = self.widths();
        let mut text = self.line(&widths, &self.names);
        text.push('\n');
        for row in &self.rows {
            text.push_str(&self.line(&widths, &row.cells));
            match &row.instead {
                Some(words) => {
                    let indent: usize = widths.iter().take(self.labels).map(|width| width + GAP).sum();
                    let have = text.lines().last().unwrap_or_default().chars().count();
                    text.extend(std::iter::repeat_n(' ', indent.saturating_sub(have)));
                    fold(&mut text, indent.min(WIDTH / 2), words);
                }
                None => text.push('\n'),
            }
        }
        text
    }

    /// How wide each column is, as far as they fit.
    fn widths(&self) -> Vec<usize> {
        let mut room = WIDTH + GAP;
        let mut widths = Vec::new();
        for (number, name) in self.names.iter().enumerate() {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(number));
            let widest = cells.chain([name]).map(|cell| cell.chars().count()).max().unwrap_or_default();
            let width = widest.min(LONGEST);
            if width + GAP > room {
                break;
            }
            room -= width + GAP;
            widths.push(width);
        }
        widths
    }

    fn line(&self, widths: &[usize], cells: &[String]) -> String {
        let mut line = String::new();
        for (number, (width, cell)) in widths.iter().zip(cells).enumerate() {
            let cell: String = match cell.chars().count() > *width {
                true => cell.chars().take(width.saturating_sub(1)).chain(['~']).collect(),
                false => cell.clone(),
            };
            let gap = if number == 0 { 0 } else { GAP };
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&match number < self.labels {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::Columns;

    #[test]
    fn rows_line_up_and_no_line_is_too_long() {
        let figures: Vec<String> = (0..12).map(|number| format!("figure{number}")).collect();
        let mut columns = Columns::new(["size", "device"], figures.iter().map(String::as_str));
        columns.row(["64", "shm"].into_iter().chain(["1.00"; 12]).map(str::to_owned));
        columns.row_of_words(["4096".to_owned(), "d".repeat(60)], "why ".repeat(40));
        let text = columns.text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("figure3") && !lines[0].contains("figure11"), "{text}");
        assert_eq!(
            lines[0].find("figure0").map(|at| at + 7),
            lines[1].find("1.00").map(|at| at + 4),
            "{text}"
        );
        assert_eq!(text.matches("why").count(), 40, "{text}");
        assert!(lines[2].contains("ddd~ "), "{text}");
    }
}
