//! The suite on shared memory.

use std::process::ExitCode;

fn main() -> ExitCode {
    tbrdma_conformance::runner::test("shm")
}
