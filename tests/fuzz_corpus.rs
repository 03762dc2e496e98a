//! What the fuzzer has found worth keeping, and what once went wrong, run by plain `cargo test`.

#[path = "../fuzz/case.rs"]
mod case;
#[path = "../fuzz/checks.rs"]
mod checks;
#[path = "../fuzz/pair_checks.rs"]
mod pair_checks;
#[path = "../fuzz/qp_checks.rs"]
mod qp_checks;
#[path = "../fuzz/stream_checks.rs"]
mod stream_checks;
#[cfg(tbrdma_linux)]
#[path = "../fuzz/window_checks.rs"]
mod window_checks;
#[path = "../fuzz/wire_checks.rs"]
mod wire_checks;

use std::path::Path;

/// Runs a check over its corpus.
fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        let path = entry.unwrap().path();
        // Shown if the check fails.
        println!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count >= 5, "{} holds {count} cases; is it checked out whole?", corpus.display());
}

#[test]
fn hello_message() {
    replay("hello_message", checks::hello_message);
}

#[test]
fn qp_address() {
    replay("qp_address", checks::qp_address);
}

#[test]
fn remote_region() {
    replay("remote_region", checks::remote_region);
}

#[test]
fn region_check() {
    replay("region_check", checks::region_check);
}

#[test]
fn qp_modify() {
    replay("qp_modify", checks::qp_modify);
}

#[test]
fn stream() {
    replay("stream", stream_checks::stream);
}

#[test]
fn wire_parse() {
    replay("wire_parse", wire_checks::wire_parse);
}

#[test]
#[cfg(tbrdma_linux)]
fn window() {
    replay("window", window_checks::window);
}

#[test]
fn icrc() {
    replay("icrc", wire_checks::icrc);
}

#[test]
fn responder() {
    replay("responder", qp_checks::responder);
}

#[test]
fn requester() {
    replay("requester", qp_checks::requester);
}

#[test]
fn pair() {
    replay("pair", pair_checks::pair);
}

#[test]
fn profile() {
    replay("profile", checks::profile);
}

#[test]
fn every_corpus_belongs_to_a_target() {
    let mut corpora: Vec<_> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    corpora.sort();
    assert_eq!(
        corpora,
        [
            // Replayed by tools/ibverbs/tests/c_calls.rs, which loads the C face.
            "c_calls",
            // Replayed by harness/tests/fuzz_corpus.rs, as are gate_plan, result, stress_plan and trace.
            "control_message",
            "gate_plan",
            "hello_message",
            "icrc",
            "pair",
            "profile",
            "qp_address",
            "qp_modify",
            "region_check",
            "remote_region",
            "requester",
            "responder",
            "result",
            "stream",
            "stress_plan",
            "trace",
            "window",
            "wire_parse",
        ]
    );
}
