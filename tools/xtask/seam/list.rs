//! The list of all places that tell systems or processors apart, made from the sources.

use super::LIST;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// What makes a condition one of systems. Others (`test`, `loom`, `miri`) are no part of the seam.
const TELLS_SYSTEMS: [&str; 7] = [
    "tbrdma_linux",
    "tbrdma_portable",
    "target_os",
    "target_env",
    "target_family",
    "CARGO_CFG_TARGET",
    "versioned",
];
/// And one of processors.
const TELLS_PROCESSORS: &str = "target_arch";

const HEAD: &str = "# What is Linux's and what is not

Written by `cargo xtask seam --write`; a test fails where it does not say what the sources say (the numbers of lines aside, which are those of
the last writing). Each row is a place that tells systems or processors apart: there are no others. `tbrdma_linux` is set by `driver/build.rs`,
on Linux unless `--cfg tbrdma_portable` asks for what other systems get. A file in a folder `portable` stands in, with the same names, for the
one of that name above it. Nothing of this was ever run on a Mac: the part for all systems is built and tested on Linux, and type-checked for
`aarch64-apple-darwin`.
";

/// Writes it anew.
pub(super) fn write(root: &Path) -> Result<(), String> {
    let path = root.join(LIST);
    fs::create_dir_all(path.with_file_name("")).map_err(|error| format!("docs: {error}"))?;
    fs::write(&path, render(root)?).map_err(|error| format!("{}: {error}", path.display()))
}

/// Does it say what the sources say? Where in a file a place is does not count: each change further up would move it.
pub(super) fn check(root: &Path) -> Result<(), String> {
    let said = without_lines(&fs::read_to_string(root.join(LIST)).unwrap_or_default());
    let found = without_lines(&render(root)?);
    if said == found {
        return Ok(());
    }
    let (missing, gone) = (lines_only_in(&found, &said), lines_only_in(&said, &found));
    Err(format!(
        "{LIST} is not what the sources say: look whether that shall be so, and `cargo xtask seam --write`\nnew:\n{missing}no more:\n{gone}"
    ))
}

fn without_lines(text: &str) -> String {
    let place = |row: &str| {
        let (path, rest) = row.split_once(':')?;
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        (path.starts_with("| ") && rest.starts_with(" |")).then(|| format!("{path}{rest}"))
    };
    text.lines().map(|row| place(row).unwrap_or_else(|| row.to_owned()) + "\n").collect()
}

fn lines_only_in(text: &str, other: &str) -> String {
    let others: Vec<&str> = other.lines().collect();
    text.lines()
        .filter(|line| !others.contains(line))
        .fold(String::new(), |all, line| all + "  " + line + "\n")
}

fn render(root: &Path) -> Result<String, String> {
    let mut files = Vec::new();
    collect(root, root, &mut files).map_err(|error| format!("read the sources: {error}"))?;
    files.sort();
    let mut text = HEAD.to_owned();
    let (mut systems, mut processors, mut stand_ins) = (String::new(), String::new(), String::new());
    for file in &files {
        let source = fs::read_to_string(root.join(file)).map_err(|error| format!("{file}: {error}"))?;
        for Place { line, condition, item } in places_in(&source) {
            let is_of_processor = !TELLS_SYSTEMS.iter().any(|word| condition.contains(word));
            let table = if is_of_processor { &mut processors } else { &mut systems };
            let item = if item.is_empty() { String::new() } else { format!("`{item}`") };
            let _ = writeln!(table, "| {file}:{line} | `{condition}` | {item} |");
        }
        if file.contains("/portable/") {
            let says = source.lines().next().unwrap_or_default().trim_start_matches("//!").trim();
            let _ = writeln!(stand_ins, "| {file} | {says} |");
        }
    }
    let head = "| where | condition | what it decides about |\n|---|---|---|\n";
    let _ = write!(text, "\n## Systems\n\n{head}{systems}");
    let _ =
        write!(text, "\n## Files that stand in\n\n| file | what it says of itself |\n|---|---|\n{stand_ins}");
    let _ = write!(text, "\n## Processors\n\nThe same on each system.\n\n{head}{processors}");
    Ok(text)
}

/// Sources and manifests of the repository, by their path from its root.
fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            let is_built = path.join("CACHEDIR.TAG").exists();
            if !name.starts_with('.') && name != "target" && !is_built {
                collect(root, &path, files)?;
            }
        } else if name == "Cargo.toml" || name.ends_with(".rs") {
            let inside = path.strip_prefix(root).unwrap_or(&path);
            files.push(inside.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// A place that tells systems apart.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    condition: String,
    item: String,
}

fn places_in(source: &str) -> Vec<Place> {
    let lines: Vec<&str> = source.lines().collect();
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(&text) = lines.get(at) {
        let first = at;
        at += 1;
        let text = text.trim();
        if text.starts_with("//") || text.starts_with('"') || text.starts_with("#!/") {
            continue;
        }
        let is_attribute =
            ["#[cfg(", "#![cfg(", "#[cfg_attr(", "#![cfg_attr("].iter().any(|start| text.starts_with(start));
        if !is_attribute {
            // A manifest's section, a build script's question, a choice inside of an expression.
            let asks = text.contains("cfg!(")
                || text.contains("CARGO_CFG_TARGET") && !text.contains("println!")
                || text.starts_with("[target.");
            if asks && tells(text) {
                places.push(Place { line: first + 1, condition: shown(text), item: String::new() });
            }
            continue;
        }
        let mut condition = text.to_owned();
        while condition.matches(['(', '[']).count() > condition.matches([')', ']']).count() {
            let Some(more) = lines.get(at) else { break };
            condition.push(' ');
            condition.push_str(more.trim());
            at += 1;
        }
        let decides = |line: &&&str| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("#[") && !line.starts_with("//")
        };
        let whole = condition.starts_with("#![");
        let item =
            if whole { "the file" } else { lines[at..].iter().find(decides).map_or("", |line| line.trim()) };
        if tells(&condition) {
            places.push(Place { line: first + 1, condition: shown(&condition), item: shown(item) });
        }
    }
    places
}

fn tells(text: &str) -> bool {
    text.contains(TELLS_PROCESSORS) || TELLS_SYSTEMS.iter().any(|word| text.contains(word))
}

/// As it stands in a table.
fn shown(text: &str) -> String {
    text.trim_end_matches([' ', '{']).replace('|', "\\|").replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_the_sources_say() {
        check(&super::super::root()).unwrap_or_else(|difference| panic!("{difference}"));
    }

    #[test]
    fn conditions_of_systems_are_places_and_others_are_not() {
        let source = [
            "#[cfg(test)]",
            "mod a;",
            "// #[cfg(tbrdma_linux)]",
            "#[cfg_attr(",
            "    not(tbrdma_linux),",
            "    path = \"b\"",
            ")]",
            "/// Docs.",
            "mod b;",
            "#[cfg(not(loom))]",
            "mod c;",
            "    if cfg!(target_os = \"linux\") {",
            "[target.'cfg(target_os = \"linux\")'.dependencies]",
        ];
        let places = places_in(&source.join("\n"));
        let told: Vec<_> = places.iter().map(|place| (place.line, place.item.as_str())).collect();
        assert_eq!(told, [(4, "mod b;"), (12, ""), (13, "")]);
        assert_eq!(places[0].condition, "#[cfg_attr( not(tbrdma_linux), path = \"b\" )]");
    }
}
