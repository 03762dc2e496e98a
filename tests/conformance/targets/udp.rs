//! The suite on the software NIC over loopback.

use std::process::ExitCode;

fn main() -> ExitCode {
    tbrdma_conformance::runner::test("udp:lo")
}
