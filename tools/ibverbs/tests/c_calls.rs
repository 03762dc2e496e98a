//! Programs of C calls in any order (`fuzz/c_calls`): those that the fuzzer has found worth keeping, what once went wrong, and random ones. On shared
//! memory, as the fuzzer runs them, and on the software NIC.
//!
//! A failure names its case, or the seed of its program; `TBRDMA_SEED` runs that program alone. One test, because it counts the descriptors and
//! threads of the process.

#[path = "../../../fuzz/c_calls/mod.rs"]
mod c_calls;
#[path = "../../../fuzz/case.rs"]
mod case;
mod common;

use c_calls::calls::Calls;
use common::verbs::abi;
use core::ffi::c_void;
use std::path::Path;

/// Random programs.
const SEEDS: u64 = 60;
/// Steps of each.
const STEPS: usize = 100;

/// The bytes of a program. Half of them are zeroes, which make sense everywhere (SplitMix64).
fn random(mut seed: u64) -> Vec<u8> {
    let mut byte = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let word = mixed ^ mixed >> 31;
        if word >> 63 == 0 { 0 } else { word as u8 }
    };
    (0..STEPS * c_calls::STEP).map(|_| byte()).collect()
}

#[test]
fn programs_of_calls() {
    common::verbs::devices("one=shm,other=shm,udp=udp:lo");
    let symbol = |name: &str| common::verbs::symbol::<*const c_void>(&format!("{name}\0"));
    // SAFETY: the library's functions have their types.
    let calls = unsafe { Calls::find(symbol) };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/c_calls");
    let mut cases: Vec<_> = std::fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} holds {} cases; is it checked out whole?", corpus.display(), cases.len());
    let alone = std::env::var("TBRDMA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = alone.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for devices in [["one", "other"], ["udp", "one"]] {
        let before = c_calls::Resources::count();
        // To meet oneself anew in each program would take threads their turns.
        let mut held = c_calls::hold(&calls, &devices);
        let run = |bytes: &[u8]| c_calls::run(&calls, &devices, bytes);
        for case in cases.iter().filter(|_| alone.is_none()) {
            // Shown if the check fails.
            println!("{} on {devices:?}", case.display());
            run(&std::fs::read(case).unwrap());
        }
        for seed in seeds.clone() {
            println!("seed {seed} on {devices:?}");
            run(&random(seed));
        }
        c_calls::release(&calls, &mut held);
        before.settle();
    }
}
