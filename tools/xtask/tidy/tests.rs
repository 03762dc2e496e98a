//! Each rule on a few files that break it, and on some that do not.

use super::source::code;
use super::tree::Tree;
use super::{Finding, check};

const MANIFEST: &str = "[package]\nname = \"tbrdma\"\n[lib]\npath = \"driver/lib.rs\"\n";

/// What is found in these files, as `file:line word`, where `word` is what the finding must say.
#[track_caller]
fn found(files: &[(&str, &str)], expected: &[(&str, usize, &str)]) {
    let findings = check(&Tree::of(files));
    let is_it = |(finding, expected): (&Finding, &(&str, usize, &str))| {
        (finding.file.as_str(), finding.line) == (expected.0, expected.1) && finding.what.contains(expected.2)
    };
    assert!(findings.len() == expected.len() && findings.iter().zip(expected).all(is_it), "{findings:#?}");
}

/// A driver with one more file.
#[track_caller]
fn found_in(room: &str, text: &str, expected: &[(usize, &str)]) {
    let file = format!("driver/{room}/mod.rs");
    let lib = format!("//! The hands.\nmod {room};\n");
    let expected: Vec<_> = expected.iter().map(|(line, word)| (file.as_str(), *line, *word)).collect();
    found(&[("Cargo.toml", MANIFEST), ("driver/lib.rs", &lib), (&file, text)], &expected);
}

#[test]
fn comments_and_quotes_are_no_code() {
    let source =
        "a /* b /* c */ d */ e \"f \\\" // g\" h // i\n'j' '\\'' k r#\"l \" m\"# n<'o> b\"p\" br\"q\" rs\n";
    let words: Vec<_> = code(source).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "e", "h", "k", "n<'o>", "rs"]);
    assert_eq!(code(source).lines().count(), source.lines().count());
    // What does not end goes to the end.
    assert_eq!(code("a \"b\nc").trim(), "a");
    assert_eq!(code("a /* b\nc").trim(), "a");
}

#[test]
fn a_file_is_short_and_opens_with_what_it_is() {
    found_in("verbs", "// Not so.\n", &[(1, "//!")]);
    found_in("verbs", &format!("//! Long.\n{}", "\n".repeat(600)), &[(0, "601 lines")]);
    found_in("verbs", &format!("//! Long enough.\n{}", "\n".repeat(599)), &[]);
}

#[test]
fn nothing_says_that_it_is_not_done() {
    let (todo, macro_call) = ("TO".to_owned() + "DO", "to".to_owned() + "do!(");
    found_in(
        "verbs",
        &format!("//! A.\n// {todo}: later\nfn f() {{ {macro_call}) }}\n"),
        &[(2, "open an issue"), (3, "")],
    );
    found_in("verbs", &format!("//! A.\n// {todo}S and MAS{todo}N\n"), &[]);
}

#[test]
fn a_test_is_called_what_is_true() {
    found_in(
        "verbs",
        "//! A.\n#[test]\n#[ignore]\nfn test_a() {}\n#[test]\nfn a_is_b() {}\nfn test_none() {}\n",
        &[(4, "test_a")],
    );
}

#[test]
fn unsafe_code_stands_in_its_rooms() {
    found_in("verbs", "//! unsafe\n// unsafe\nfn f() { unsafe { g() } }\n", &[(3, "unsafe")]);
    found_in("mem", "//! A.\nfn f() { unsafe { g() } }\n", &[]);
    let proto = ("proto/Cargo.toml", "[package]\nname = \"tbrdma-proto\"\n[lib]\npath = \"lib.rs\"\n");
    found(&[proto, ("proto/lib.rs", "//! The brain.\n")], &[("proto/lib.rs", 0, "forbid(unsafe_code)")]);
    found(&[proto, ("proto/lib.rs", "//! The brain.\n#![forbid(unsafe_code)]\n")], &[]);
}

#[test]
fn packages_depend_on_whom_they_may() {
    let bench = "[package]\nname = \"tbrdma-bench\"\n[target.'cfg(unix)'.dependencies]\ntbrdma-proto.workspace = true\n";
    let proto =
        "[package]\nname = \"tbrdma-proto\"\n[dev-dependencies]\ntbrdma-bench = { path = \"../harness\" }\n";
    found(
        &[("harness/Cargo.toml", bench), ("proto/Cargo.toml", proto)],
        &[("harness/Cargo.toml", 0, "tbrdma-proto"), ("proto/Cargo.toml", 0, "tbrdma-bench")],
    );
}

#[test]
fn rooms_import_whom_they_may() {
    found_in(
        "sys",
        "//! A.\nuse crate::sync::AtomicU32;\nuse crate::{error, verbs};\n",
        &[(3, "error"), (3, "verbs")],
    );
    found_in(
        "shm",
        "//! A.\n//! `crate::soft`\nuse crate::soft::qp;\nuse crate::ring::arm;\n",
        &[(3, "soft")],
    );
    found_in("shm", "//! A.\nuse std::sync::atomic::AtomicU32;\n", &[(2, "driver/sync.rs")]);
}

#[test]
fn links_lead_to_files_and_pages_are_led_to() {
    found(
        &[
            (
                "README.md",
                "[a](docs/a.md#there) [b](docs/none.md) [c](https://example.org) [d](docs/)\n```\n[e](none)\n```\n",
            ),
            ("docs/a.md", "[up](../README.md) [out](../../x)\n"),
            ("docs/b.md", "[a](a.md) [self](b.md)\n"),
        ],
        &[("README.md", 1, "docs/none.md"), ("docs/a.md", 1, "../../x"), ("docs/b.md", 0, "no other page")],
    );
}

#[test]
fn commands_name_tests_that_there_are() {
    let files = [
        ("Cargo.toml", MANIFEST),
        ("driver/lib.rs", "//! A.\n"),
        ("tests/one.rs", "//! A.\n"),
        ("tests/many/main.rs", "//! A.\n"),
        ("CONTRIBUTING.md", "`cargo test --test one`, `--test many`\nand `--test none`\n"),
    ];
    found(&files, &[("CONTRIBUTING.md", 2, "--test none")]);
}

#[test]
fn each_file_is_of_use() {
    let root = "//! A.\nmod a;\n#[cfg_attr(test, path = \"x/other.rs\")]\npub(crate) mod b;\nmod inner {\n    mod c;\n}\n";
    let files = [
        ("Cargo.toml", MANIFEST),
        ("driver/lib.rs", root),
        ("driver/a.rs", "//! A.\nmod deep; // mod not;\nconst DATA: &str = include_str!(\"data.txt\");\n"),
        ("driver/a/deep.rs", "//! A.\n"),
        ("driver/a/not.rs", "//! A.\n"),
        ("driver/b/mod.rs", "//! A.\n"),
        ("driver/inner/c.rs", "//! A.\n"),
        ("driver/x/other.rs", "//! A.\nmod beside;\n"),
        ("driver/x/beside.rs", "//! A.\n"),
        ("driver/data.txt", ""),
        ("driver/unread.txt", ""),
        ("tests/behaviour.rs", "//! A.\nmod common;\n"),
        ("tests/common/mod.rs", "//! A.\n"),
        ("tests/common/unused.rs", "//! A.\n"),
        ("tests/many/main.rs", "//! A.\nmod part;\n"),
        ("tests/many/part.rs", "//! A.\n"),
    ];
    found(
        &files,
        &[
            ("driver/a/not.rs", 0, "nobody"),
            ("driver/unread.txt", 0, "stands nowhere"),
            ("tests/common/unused.rs", 0, "nobody"),
        ],
    );
}
