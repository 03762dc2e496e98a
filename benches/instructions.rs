//! How many instructions a message takes, counted by callgrind: `cargo bench -p tbrdma --bench instructions`.
//!
//! A clock on a shared machine tells fast from slow; a count tells one change from the next. Each case runs twice under callgrind, with
//! different numbers of rounds, and the difference of the counts by the difference of the rounds is what one round takes: what happens once
//! falls out. It fails when a case is over its ceiling. Who makes a case cheaper lowers its ceiling, who makes it dearer says why.
//!
//! With TBRDMA_COUNTS=FILE the counts on shm go to that file too, for `tbrdma-bench compare` and `gate`: `cargo xtask counts` holds them against benches/counts.json.

#[path = "common/callgrind.rs"]
mod callgrind;
mod common;

use common::Loopback;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Rounds of the shorter run; the longer one has twice as many.
const ROUNDS: u64 = 2_000;
/// Work requests of one doorbell in the batch case.
const LIST: usize = 32;

/// Something to count.
struct Case {
    name: &'static str,
    device: &'static str,
    /// Messages of a round; the count is printed and bounded for one of them.
    messages: u64,
    /// Most instructions of a message: what it took when this was last set, and a quarter.
    ceiling: u64,
    round: fn(&mut Loopback),
}

const CASES: [Case; 6] = [
    Case {
        name: "write, poll",
        device: "shm",
        messages: 1,
        ceiling: 944,
        round: |pair| {
            pair.write(1, true);
            assert_eq!(pair.poll(1), 1);
        },
    },
    Case {
        name: "32 writes with one doorbell, poll",
        device: "shm",
        messages: LIST as u64,
        ceiling: 148,
        round: |pair| {
            pair.write_list(LIST, true);
            assert_eq!(pair.poll(1), 1);
        },
    },
    Case {
        name: "receive, send, poll both",
        device: "shm",
        messages: 1,
        ceiling: 1455,
        round: |pair| {
            pair.post_recv();
            pair.send();
            assert_eq!(pair.poll(2), 2);
        },
    },
    Case {
        // The write is there to end the spell of empty polls, which else begins to look at the clock.
        name: "write, poll, poll 8 times in vain",
        device: "shm",
        messages: 1,
        ceiling: 3018,
        round: |pair| {
            pair.write(1, true);
            assert_eq!(pair.poll(1), 1);
            for _ in 0..8 {
                assert_eq!(pair.poll(16), 0);
            }
        },
    },
    Case {
        // The system calls count up to the kernel's door.
        name: "udp: receive, send, poll both",
        device: "udp:lo",
        messages: 1,
        ceiling: 20000,
        round: |pair| {
            pair.post_recv();
            pair.send();
            pair.await_all(2);
        },
    },
    Case {
        name: "udp: 32 writes with one doorbell, poll",
        device: "udp:lo",
        messages: LIST as u64,
        ceiling: 4500,
        round: |pair| {
            pair.write_list(LIST, true);
            pair.await_all(1);
        },
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, case, rounds] = &arguments[..]
        && role == "--count"
    {
        count(case.parse().expect("a case"), rounds.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if let Some(code) = callgrind::cannot(&arguments) {
        return code;
    }
    println!("{:40} {:>12} {:>8}", "instructions of a message", "counted", "ceiling");
    let mut over = 0;
    let mut written = String::new();
    for (index, case) in CASES.iter().enumerate() {
        let counted = match callgrind::of_a_round(&index.to_string(), ROUNDS, &[]) {
            Ok(counted) => counted / case.messages as f64,
            Err(error) => {
                eprintln!("{}: {error}", case.name);
                return ExitCode::FAILURE;
            }
        };
        let is_over = counted > case.ceiling as f64;
        let verdict = if is_over { "  OVER" } else { "" };
        println!("{:40} {counted:12.1} {:8}{verdict}", case.name, case.ceiling);
        over += u32::from(is_over);
        // Those of udp differ from run to run by how often the kernel lets one wait.
        if case.device != "shm" {
            continue;
        }
        let separator = if written.is_empty() { "" } else { "," };
        let _ = write!(
            written,
            "{separator}\n    {{ \"name\": \"{}\", \"device\": \"{}\", \"instructions\": {counted:.1} }}",
            case.name, case.device
        );
    }
    if let Some(file) = std::env::var_os("TBRDMA_COUNTS") {
        let text = format!("{{\n  \"schema\": \"tbrdma-counts/1\",\n  \"counts\": [{written}\n  ]\n}}\n");
        if let Err(error) = std::fs::write(&file, text) {
            eprintln!("cannot write TBRDMA_COUNTS={}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    if over == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What runs under callgrind.
fn count(case: usize, rounds: u64) {
    let mut pair = Loopback::new(CASES[case].device);
    for _ in 0..rounds {
        (CASES[case].round)(&mut pair);
    }
}
