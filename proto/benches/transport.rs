//! What one message costs in the transport alone: requester, responder and acknowledgement, without moving bytes.

#[path = "../tests/requester_common/mod.rs"]
mod requester_common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use requester_common::duplex::Duplex;
use tbrdma_proto::Opcode;

/// Messages of one measured round.
const MESSAGES: u64 = 1000;

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transport");
    group.throughput(Throughput::Elements(MESSAGES));
    for (name, opcode, length) in [
        ("send 64", Opcode::Send, 64),
        ("write 64", Opcode::RdmaWrite, 64),
        ("write 65536", Opcode::RdmaWrite, 65536),
        ("read 64", Opcode::RdmaRead, 64),
        ("fetch and add", Opcode::AtomicFetchAndAdd, 8),
    ] {
        let mut duplex = Duplex::new(0);
        group.bench_function(name, |bencher| bencher.iter(|| duplex.run(opcode, length, MESSAGES)));
    }
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
