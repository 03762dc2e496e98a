//! Every protocol of this room against a naive one, step by step; and against memory in which anything may be written.

mod completion;
mod hostile;
mod ready;
mod receive;
mod shared_receive;

use crate::sync::AtomicU64;
use proptest::prelude::*;
use tbrdma_proto::Sge;

/// Words as zeroed memory has them.
fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fn any_sge() -> impl Strategy<Value = Sge> {
    any::<(u64, u32, u32)>().prop_map(|(addr, length, lkey)| Sge { addr, length, lkey })
}

/// Where a queue's running number is when the test begins: nothing special, or so that it wraps on the way. Every slot has been
/// used once before it does, as it has in practice.
fn begin(depth: u32) -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), any::<u16>().prop_map(u32::from), Just(u32::MAX - 2 * depth)]
}
