//! Fuzzes sequences of calls of the C face, which is linked in.

#![no_main]

#[path = "../c_calls/mod.rs"]
mod c_calls;
#[path = "../case.rs"]
mod case;
#[path = "../quarantine.rs"]
mod quarantine;

use abi::*;
use c_calls::Resources;
use c_calls::calls::Calls;
use core::ffi::{c_char, c_int, c_uint, c_void};
use ibverbs as _;
use std::cell::RefCell;
use tbrdma_abi as abi;

#[global_allocator]
static ALLOCATOR: quarantine::Quarantine = quarantine::Quarantine::new();

macro_rules! linked {
    ($($name:ident($($ty:ty),*) $(-> $ret:ty)?;)+) => {
        fn calls() -> Calls {
            unsafe extern "C" { $( fn $name($(_: $ty),*) $(-> $ret)?; )+ }
            Calls { $( $name, )+ }
        }
    };
}

c_calls::calls::every_call!(linked);

/// Programs that are run before the devices are closed and opened again. To open one is cheap, but to meet oneself takes threads their turns.
const HELD: u32 = 64;

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

struct State {
    calls: Calls,
    before: Resources,
    runs: u32,
    held: Vec<*mut ibv_context>,
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    const DEVICES: [&str; 2] = ["one", "other"];
    STATE.with_borrow_mut(|state| {
        let state = state.get_or_insert_with(|| {
            // SAFETY: before the library reads it; the fuzzer's own threads do not look at the environment.
            unsafe { std::env::set_var("TBRDMA_DEVICES", "one=shm,other=shm") };
            State { calls: calls(), before: Resources::count(), runs: 0, held: Vec::new() }
        });
        if state.runs % HELD == 0 {
            c_calls::release(&state.calls, &mut state.held);
            state.before.settle();
            state.held = c_calls::hold(&state.calls, &DEVICES);
        }
        state.runs += 1;
        c_calls::run(&state.calls, &DEVICES, data);
    });
});

// Half of the changes are to the order of steps; the rest are the fuzzer's own, to bytes.
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let steps = size / c_calls::STEP;
    let place = |seed: u32, count: usize| seed as usize % count * c_calls::STEP;
    if steps == 0 || seed & 1 == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let (from, to) = (place(seed >> 8, steps), place(seed >> 20, steps));
    let step = from..from + c_calls::STEP;
    match seed >> 1 & 3 {
        // One step goes, moves, or happens once more somewhere else.
        0 if steps > 1 => {
            data.copy_within(step.end..size, from);
            size - c_calls::STEP
        }
        1 => {
            let end = to + c_calls::STEP;
            data[from.min(to)..step.end.max(end)].rotate_left(c_calls::STEP);
            size
        }
        2 if size + c_calls::STEP <= max_size => {
            data.copy_within(to..size, to + c_calls::STEP);
            data.copy_within(
                if from < to { step } else { step.start + c_calls::STEP..step.end + c_calls::STEP },
                to,
            );
            size + c_calls::STEP
        }
        // Another value in it.
        _ => {
            data[from + (seed >> 3) as usize % c_calls::STEP] = (seed >> 24) as u8;
            size
        }
    }
});
