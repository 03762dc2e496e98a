//! Words on a terminal of eighty columns.

/// Columns of everything that is printed.
pub const WIDTH: usize = 80;

/// Writes `value`, which begins in column `indent`, broken at blanks into lines that begin there too, and ends the line. A word that is longer
/// than a line is broken where the line ends.
pub fn fold(text: &mut String, indent: usize, value: &str) {
    let room = WIDTH - indent;
    let mut column = 0;
    for word in value.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > room {
            next_line(text, indent, &mut column);
        }
        if column > 0 {
            text.push(' ');
            column += 1;
        }
        for letter in word.chars() {
            if column == room {
                next_line(text, indent, &mut column);
            }
            text.push(letter);
            column += 1;
        }
    }
    text.push('\n');
}

fn next_line(text: &mut String, indent: usize, column: &mut usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', indent));
    *column = 0;
}

#[cfg(test)]
mod tests {
    use super::{WIDTH, fold};

    #[test]
    fn lines_are_broken_at_blanks_and_long_words_anywhere() {
        let mut text = "name        ".to_owned();
        fold(&mut text, 12, &("word ".repeat(60) + &"x".repeat(100)));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("            ")), "{text}");
        assert_eq!(text.matches("word").count(), 60);
        assert_eq!(text.matches('x').count(), 100);
    }
}
