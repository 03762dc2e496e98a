//! What losses cost a reliable connection. The table beside this file is what it was when somebody last looked: a change shows.

use std::time::Duration;

use tbrdma_proto::Opcode;
use tbrdma_proto::fault::Chance;
use tbrdma_proto::testing::{Goodput, goodput_table};

const BOTH: [Opcode; 2] = [Opcode::RdmaWrite, Opcode::RdmaRead];

fn measure(opcode: Opcode, percent: u32, window: u32, seed: u64) -> u64 {
    let round_trip = Duration::from_micros(50);
    Goodput { opcode, loss: Chance::percent(percent), round_trip, window, seed }.measure().unwrap()
}

#[test]
fn one_percent_of_losses_leaves_more_than_forty_percent_of_the_goodput_at_50_us() {
    for opcode in BOTH {
        for window in [64 << 10, 256 << 10, 1 << 20] {
            let lossless = measure(opcode, 0, window, 1);
            for seed in 1..=3 {
                let lossy = measure(opcode, 1, window, seed);
                assert!(
                    lossy * 100 > lossless * 40,
                    "{opcode:?}, window {window}, seed {seed}: {lossy} of {lossless} bytes per second"
                );
            }
        }
    }
}

#[test]
fn ten_percent_of_losses_leave_everything_complete() {
    for opcode in BOTH {
        for seed in 1..=3 {
            assert!(measure(opcode, 10, 256 << 10, seed) > 0);
        }
    }
}

#[test]
fn the_table_is_the_one_that_was_looked_at() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pair_goodput.txt");
    let kept = std::fs::read_to_string(path).unwrap();
    let now = goodput_table().unwrap();
    assert!(kept == now, "this is not {path}; if it is better, `cargo xtask table` and commit it:\n{now}");
}
