//! Programs of C calls in any order, as a case's bytes say: the library survives whatever rdma-core would, says why a call failed, completes
//! nothing that was not posted, destroys nothing under what uses it, and leaves neither descriptors nor threads.
//!
//! rdma-core itself looks at little. So a program keeps to what every program must: it uses objects that are alive, passes structures and
//! lists that are there, and memory that is where it says unless it only registers it. All else may be wrong: NULLs, sizes, counts, masks,
//! keys, states, orders. One body for the fuzzer, which has the library linked in, and for `tools/ibverbs/tests/c_calls.rs`, which loads it.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod ask;
pub(super) mod calls;
mod list;
mod make;
mod work;
mod world;

// Who includes this has both.
use super::{abi, case};
use calls::Calls;
use case::Case;
use std::time::{Duration, Instant};
use world::World;

/// Calls, or small groups of them, in a program.
const STEPS: usize = 200;
/// Bytes that a step takes its values from, zeroes where there are fewer: so a change of one step leaves the others what they were. Zeroes are values
/// that make sense.
pub(super) const STEP: usize = 32;

/// Runs one program on these devices.
pub(super) fn run(calls: &Calls, devices: &[&str], data: &[u8]) {
    let mut world = World::new(calls, devices);
    world.open(0);
    for bytes in data.chunks(STEP).take(STEPS) {
        step(&mut world, &mut Case(bytes));
    }
    world.end();
}

/// Opens devices that programs will open again.
pub(super) fn hold(calls: &Calls, devices: &[&str]) -> Vec<*mut abi::ibv_context> {
    devices.iter().map(|name| world::open(calls, name)).collect()
}

/// Closes them.
pub(super) fn release(calls: &Calls, held: &mut Vec<*mut abi::ibv_context>) {
    for context in held.drain(..) {
        assert_eq!(calls::call!(calls.ibv_close_device; context), 0);
    }
}

/// What this process has of the system's: nothing more is left when all devices are closed.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Resources {
    descriptors: usize,
    threads: usize,
}

impl Resources {
    pub(super) fn count() -> Self {
        let count = |folder: &str| std::fs::read_dir(folder).map_or(0, Iterator::count);
        Self { descriptors: count("/proc/self/fd"), threads: count("/proc/self/task") }
    }

    /// Waits until there are as many as before: threads end in their own time.
    pub(super) fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Self::count() != *self {
            assert!(Instant::now() < deadline, "{:?} are left, of {self:?} before", Self::count());
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn step(world: &mut World<'_>, case: &mut Case<'_>) {
    match case.byte() % 40 {
        0 | 1 => world.pd(case),
        2 | 3 => world.reg_mr(case),
        4 => world.rereg_mr(case),
        5 => world.memory_window(case),
        6 => world.bind(case),
        7 => world.device_memory(case),
        8..=10 => world.channel_or_cq(case),
        11 => world.resize_cq(case),
        12 => world.srq(case),
        13..=15 => world.qp(case),
        16 => world.ah(case),
        17..=20 => world.modify(case),
        21..=24 => world.post_send(case),
        25..=26 => world.post_recv(case),
        27..=29 => world.list(case),
        30 | 31 => world.poll(case),
        32 => world.completion_events(case),
        33 => world.async_events(case),
        34 => world.ask(case),
        35 => world.import(case),
        36 if world.contexts.len() < 4 => world.open(case.byte()),
        37 if world.contexts.len() > 1 => {
            let context = world.context(case);
            world.close(context);
        }
        _ if !world.made.is_empty() => world.destroy(usize::from(case.byte()) % world.made.len()),
        _ => {}
    }
}
