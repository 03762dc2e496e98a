//! What posting and polling cost, and the look-up of a region behind every access: `cargo bench -p tbrdma --bench post_poll`.
//!
//! Wall clock, so it informs and does not judge; `benches/instructions.rs` counts and does.

mod common;

use common::{DEPTH, Loopback};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tbrdma::{Access, PdHandle, Region, RegionTable};

/// Work requests of one doorbell in the batch bench.
const LIST: usize = 32;
/// Empty polls after a completion: the first of a spell, which neither read the clock nor give the core away.
const EMPTY_POLLS: usize = 60;
/// Regions of the table.
const REGIONS: usize = 1024;

/// Runs `timed` until it has been done `iterations` times, `each` a go, with `untimed` work after every go.
fn alternate(
    iterations: u64,
    each: usize,
    pair: &mut Loopback,
    mut timed: impl FnMut(&mut Loopback, usize),
    mut untimed: impl FnMut(&mut Loopback),
) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let now = left.min(each as u64);
        let begun = Instant::now();
        timed(pair, now as usize);
        spent += begun.elapsed();
        untimed(pair);
        left -= now;
    }
    spent
}

fn post(c: &mut Criterion) {
    let mut pair = Loopback::new("shm");
    let mut group = c.benchmark_group("post");
    let drain = |pair: &mut Loopback| assert_eq!(pair.poll(2), 1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_write", |b| {
        b.iter_custom(|iterations| {
            alternate(iterations, DEPTH, &mut pair, |pair, count| pair.write(count, false), drain)
        });
    });
    group.throughput(Throughput::Elements(LIST as u64));
    group.bench_function("doorbell_of_32_writes", |b| {
        b.iter_custom(|iterations| {
            let ring = |pair: &mut Loopback, count| {
                for left in (0..count).rev() {
                    pair.write_list(LIST, left == 0);
                }
            };
            alternate(iterations, DEPTH / LIST, &mut pair, ring, drain)
        });
    });
    group.finish();
}

fn poll(c: &mut Criterion) {
    let mut pair = Loopback::new("shm");
    let mut group = c.benchmark_group("poll");
    let completion = |pair: &mut Loopback| {
        pair.write(1, true);
        assert_eq!(pair.poll(1), 1);
    };
    group.bench_function("empty", |b| {
        completion(&mut pair);
        b.iter_custom(|iterations| {
            let empty = |pair: &mut Loopback, count| {
                for _ in 0..count {
                    assert_eq!(black_box(pair.poll(16)), 0);
                }
            };
            alternate(iterations, EMPTY_POLLS, &mut pair, empty, completion)
        });
    });
    group.bench_function("one_completion", |b| {
        b.iter_custom(|iterations| {
            pair.write(DEPTH, true);
            let one = |pair: &mut Loopback, count| {
                for _ in 0..count {
                    assert_eq!(black_box(pair.poll(1)), 1);
                }
            };
            let refill = |pair: &mut Loopback| {
                while pair.poll(DEPTH) > 0 {}
                pair.write(DEPTH, true);
            };
            let spent = alternate(iterations, DEPTH, &mut pair, one, refill);
            while pair.poll(DEPTH) > 0 {}
            spent
        });
    });
    group.finish();
}

fn message(c: &mut Criterion) {
    for (name, others) in [("send_poll_repost", 0), ("send_poll_repost_beside_10000_queue_pairs", 10_000)] {
        let mut pair = Loopback::among("shm", others);
        pair.post_recv();
        c.bench_function(&format!("message/{name}"), |b| {
            b.iter(|| {
                pair.send();
                assert_eq!(pair.poll(2), 2);
                pair.post_recv();
            });
        });
    }
}

fn region(c: &mut Criterion) {
    let pd = PdHandle(7);
    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
    let mut table = RegionTable::new(REGIONS);
    let keys: Vec<u32> = (0..REGIONS as u32)
        .map(|index| {
            let entropy = index.wrapping_mul(0x9e37_79b9);
            table.insert(entropy, pd, access, 0x1000, 4096, index).expect("the table has room")
        })
        .collect();
    let mut group = c.benchmark_group("region");
    let mut turn = 0;
    group.bench_function("table_check", |b| {
        b.iter_batched(
            || {
                turn = (turn + 379) % REGIONS;
                keys[turn]
            },
            |key| table.check(key, pd, Access::REMOTE_WRITE, 0x1040, 64).map(|(_, index, at)| (*index, at)),
            BatchSize::SmallInput,
        );
    });
    let region = Region { key: keys[0], pd, access, iova: 0x1000, length: 4096 };
    group.bench_function("check", |b| {
        b.iter(|| black_box(&region).check(pd, Access::REMOTE_WRITE, black_box(0x1040), black_box(64)));
    });
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = benches;
    config = quick();
    targets = post, poll, message, region
}
criterion_main!(benches);
