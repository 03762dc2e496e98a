//! The suite on the software NIC in a simulated network, in virtual time.

use std::process::ExitCode;

fn main() -> ExitCode {
    tbrdma_conformance::runner::test("sim")
}
