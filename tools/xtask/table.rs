//! `cargo xtask table`: the table of goodput that `proto/tests/pair_goodput.rs` compares with.

use std::process::ExitCode;

use tbrdma_proto::testing::goodput_table;

/// Writes the table of goodput over loss, round trip and window anew, and prints it.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_args: &Args) -> ExitCode {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/tests/pair_goodput.txt");
    let table = match goodput_table() {
        Ok(table) => table,
        Err(violation) => {
            eprintln!("{violation}");
            return ExitCode::FAILURE;
        }
    };
    print!("{table}");
    match std::fs::write(path, table) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{path} cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}
