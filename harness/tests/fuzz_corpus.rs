//! What the fuzzer has found worth keeping of what the harness reads, and what once went wrong. It is here, and not with the others in tests/: nobody but the
//! fuzzer imports the harness.

#[path = "../../fuzz/bench_checks.rs"]
mod bench_checks;

use std::path::Path;

/// What is held of an input.
type Check = fn(&[u8]);

#[test]
fn what_was_kept_is_read_without_a_fall() {
    let targets: [(&str, Check); 5] = [
        ("control_message", bench_checks::control_message),
        ("gate_plan", bench_checks::gate_plan),
        ("result", bench_checks::result),
        ("stress_plan", bench_checks::stress_plan),
        ("trace", bench_checks::trace),
    ];
    for (target, check) in targets {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let entries = std::fs::read_dir(&corpus).expect("the corpus is checked out");
        let mut count = 0;
        for entry in entries {
            let path = entry.expect("an entry").path();
            // Shown if the check fails.
            println!("{}", path.display());
            check(&std::fs::read(&path).expect("a file"));
            count += 1;
        }
        assert!(count >= 5, "{} holds {count} cases; is it checked out whole?", corpus.display());
    }
}
