//! Rust source without its comments and what stands in its quotes.

/// The source with a space in place of each character of comments, strings and characters; lines stay where they are.
pub(crate) fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut last = ' ';
    while let Some(next) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| quoted(rest, last)).unwrap_or(0);
        let taken = if skipped == 0 { next.len_utf8() } else { skipped };
        let (part, behind) = rest.split_at(taken);
        if skipped == 0 {
            out.push(next);
        } else {
            out.extend(part.chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
        }
        last = next;
        rest = behind;
    }
    out
}

/// The words of code in a line, with where they begin.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

/// Bytes of the comment that a text begins with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut depth = 0;
    if !text.starts_with("/*") {
        return None;
    }
    for (at, _) in text.char_indices() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => depth += 1,
            [b'*', b'/', ..] => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 2);
        }
    }
    Some(text.len())
}

/// Bytes of the string or character that a text begins with, behind the character `last`.
fn quoted(text: &str, last: char) -> Option<usize> {
    let in_word = last.is_alphanumeric() || last == '_';
    let prefix =
        if in_word { 0 } else { text.bytes().take_while(|byte| b"bcr".contains(byte)).count().min(2) };
    let raw = text[..prefix].contains('r');
    let hashes = if raw { text[prefix..].bytes().take_while(|byte| *byte == b'#').count() } else { 0 };
    let begin = prefix + hashes;
    match text.as_bytes().get(begin)? {
        b'"' if raw => {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &text[begin + 1..];
            Some(body.find(&end).map_or(text.len(), |at| begin + 1 + at + end.len()))
        }
        b'"' => Some(end_of(text, begin, b'"').unwrap_or(text.len())),
        // A lifetime has no quote behind its first character.
        b'\'' if hashes == 0 && !raw => {
            let mut chars = text[begin + 1..].chars();
            let first = chars.next()?;
            if first == '\\' || chars.next() == Some('\'') { end_of(text, begin, b'\'') } else { None }
        }
        _ => None,
    }
}

/// Where a string that begins at `begin` ends.
fn end_of(text: &str, begin: usize, quote: u8) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(begin + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}
