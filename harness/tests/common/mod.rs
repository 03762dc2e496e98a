//! Running the built program from tests.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Nothing here may take longer, on a loaded machine either.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The program, with nothing of the test's own environment that could change what it prints.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tbrdma-bench"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let child = program().args(arguments).spawn().expect("the program starts");
    finish(child, arguments)
}

/// Waits for a child, and ends it when it takes too long.
pub(crate) fn finish(mut child: Child, what: &[&str]) -> Output {
    let drain = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = drain(child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>));
    let stderr = drain(child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what:?} did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: stdout.join().expect("drained"), stderr: stderr.join().expect("drained") }
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// The one line of an error, and the exit code.
pub(crate) fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(arguments);
    assert_eq!(stdout(&output), "", "{arguments:?} prints nothing on standard output when it fails");
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "{arguments:?} says one line: {text}");
    assert!(text.starts_with("tbrdma-bench: "), "{text}");
    (output.status.code(), text)
}

/// A path of this test's own.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("tbrdma-bench-test-{}-{number}-{name}", std::process::id()))
}

/// Process numbers of the children of a process, through /proc.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // The name of the program stands in parentheses and may hold anything.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if parent == Some(pid) {
            found.push(child);
        }
    }
    found
}

/// Has the process ended? A zombie has.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A text as JSON.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Fails unless the value is by the schema, in which results are by theirs.
pub(crate) fn conforms(value: &Value, schema: &str) {
    let result = json(include_str!("../../schema/tbrdma-bench-1.json"));
    let schema = json(schema);
    let registry = jsonschema::Registry::new()
        .add(result["$id"].as_str().unwrap(), result.clone())
        .and_then(jsonschema::RegistryBuilder::prepare)
        .expect("the schema of a result is one");
    let validator =
        jsonschema::options().with_registry(&registry).build(&schema).expect("the schema is a schema");
    // What is wrong within a result is told by its own schema.
    let of_result = jsonschema::validator_for(&result).expect("the schema of a result is one");
    for report in reports(value) {
        let errors: Vec<String> = of_result.iter_errors(report).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// All results in a value.
fn reports(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(reports).collect(),
        Value::Object(fields) => {
            let own = fields.get("report").filter(|report| report.is_object());
            fields.values().flat_map(reports).chain(own).collect()
        }
        _ => Vec::new(),
    }
}
