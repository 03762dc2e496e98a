//! Connections on the software NIC over byte streams, by turns a Unix socket and the stand-in for `/dev/tbstreamX`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tbrdma_conformance::runner::test_connections("stream:either:*")
}
