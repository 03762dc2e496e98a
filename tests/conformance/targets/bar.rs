//! Connections on the software NIC through memory windows in files, by turns one that both sides share and a pair.

use std::process::ExitCode;

fn main() -> ExitCode {
    tbrdma_conformance::runner::test_connections("bar:either:*")
}
