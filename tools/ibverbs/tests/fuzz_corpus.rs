//! Programs of C calls that the fuzzer has found worth keeping, and what once went wrong, run by plain `cargo test`: on shared memory, as the
//! fuzzer runs them, and on the software NIC.
//!
//! One test, because it counts the descriptors and threads of the process.

#[path = "../../../fuzz/c_calls/mod.rs"]
mod c_calls;
#[path = "../../../fuzz/case.rs"]
mod case;
mod common;

use c_calls::calls::Calls;
use common::verbs::abi;
use core::ffi::c_void;
use std::path::Path;

#[test]
fn programs_of_calls() {
    common::verbs::devices("one=shm,other=shm,udp=udp:lo");
    let symbol = |name: &str| common::verbs::symbol::<*const c_void>(&format!("{name}\0"));
    // SAFETY: the library's functions have their types.
    let calls = unsafe { Calls::find(symbol) };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/c_calls");
    let mut cases: Vec<_> = std::fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} holds {} cases; is it checked out whole?", corpus.display(), cases.len());
    for devices in [["one", "other"], ["udp", "one"]] {
        for case in &cases {
            // Shown if the check fails.
            println!("{} on {devices:?}", case.display());
            let before = c_calls::Resources::count();
            c_calls::run(&calls, &devices, &std::fs::read(case).unwrap());
            before.settle();
        }
    }
}
