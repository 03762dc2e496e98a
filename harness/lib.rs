//! `tbrdma-bench`: latency distributions and throughput of RDMA verbs, beside the machine's physical floor.
//!
//! The ruler of the project. It uses `tbrdma` as any program would, and nothing else of ours.
//!
//! | module | what lives in it |
//! |---|---|
//! | [`manual`] | completions for shells, manual pages |
//! | [`cli`], [`plan`] | the flags; what they ask for, as a value that both sides check |
//! | [`peer`], [`control`] | finding the other side; what the two say to each other, outside the measurements |
//! | [`session`], [`memory`], [`wire`], [`completions`] | the verbs objects of a side; posting, waiting and checking with them |
//! | [`pingpong`], [`stream`] | the measurements |
//! | [`idle`] | latencies after silences |
//! | [`mixed`] | operations and sizes by weight |
//! | [`lanes`] | several threads on a side |
//! | [`open_loop`] | messages that are due by the clock |
//! | [`floor`], [`memcpy`] | what the same cores do without a library |
//! | [`pattern`] | the bytes of every message |
//! | [`page`] | results as a page for a browser |
//! | [`histogram`], [`timeline`], [`result`], [`report`], [`words`] | figures, the JSON contract, the terminal |
//! | [`outputs`], [`csv`] | files that results go to |
//! | [`environment`], [`affinity`], [`clock`], [`interference`] | where and with what it was measured, and what disturbed it |
//! | [`sweep`], [`peers`], [`child`], [`columns`], [`container`], [`grid`], [`many`] | many results: measured one after the other, as a table, in one file |
//! | [`compare`], [`gate`], [`counts`] | results, and counts of instructions, against each other and against limits |
//! | [`stress`] | what a connection bears: plans of what goes wrong when, and what is expected |
//! | [`record`], [`replay`] | traces of programs, and their requests posted again |
//! | [`doctor`] | what RDMA the host has, and why not more |
//! | [`soak`] | one connection under load for long |
//! | [`walk`] | a random walk over verbs objects |
//! | [`mod@run`] | the order of it all |
//!
//! Every figure that is printed was measured in that run, and the bytes were checked.

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::panic)]

pub mod affinity;
pub mod child;
pub mod cli;
pub mod clock;
pub mod columns;
pub mod compare;
pub mod completions;
pub mod container;
pub mod control;
#[cfg_attr(not(tbrdma_linux), path = "portable/cores.rs")]
mod cores;
pub mod counts;
pub mod csv;
pub mod devices;
pub mod doctor;
pub mod environment;
pub mod error;
pub mod floor;
pub mod gate;
pub mod grid;
pub mod histogram;
pub mod idle;
pub mod interference;
pub mod lanes;
pub mod ledger;
pub mod manual;
pub mod many;
pub mod memcpy;
pub mod memory;
pub mod mixed;
pub mod open_loop;
pub mod outputs;
pub mod page;
pub mod pattern;
pub mod peer;
pub mod peers;
pub mod pingpong;
mod plain_sockets;
pub mod plan;
pub mod progress;
pub mod ranks;
pub mod record;
pub mod replay;
pub mod report;
pub mod result;
pub mod run;
pub mod session;
pub mod signals;
pub mod soak;
pub mod stream;
pub mod stress;
pub mod sweep;
pub mod timeline;
pub mod walk;
pub mod watch;
pub mod wire;
pub mod words;

use std::io::Write;
use std::process::ExitCode;

pub use error::{Error, Result};

/// The whole program.
#[must_use]
pub fn run() -> ExitCode {
    let outcome = match cli::parse(std::env::args_os()) {
        Ok(cli) => run::command(cli.command),
        Err((text, 0)) => say(&text).map(|()| 0),
        Err((text, code)) => {
            complain(&text);
            Ok(code)
        }
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("tbrdma-bench: {error}\n"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Writes to standard output; a reader that has seen enough is no error.
///
/// # Errors
/// Standard output cannot be written for another reason.
pub fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Run(format!("write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes to standard error, as far as anyone listens.
pub fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
