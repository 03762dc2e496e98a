//! The program `tbrdma-bench`: everything is in the library, so that tests and tools can use it too.
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::panic)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tbrdma_bench::run()
}
