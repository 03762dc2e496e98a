//! What a packet costs before and after its payload is moved: `cargo bench -p tbrdma-proto --bench wire`.
//!
//! Wall clock, so it informs and does not judge. The sizes are payloads; over UDP on one host a packet takes about 2000 ns, of which this
//! is paid twice.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tbrdma_proto::wire::icrc::{Flow, ICRC_BYTES, IcrcHasher, IdentHint, seal, verify};
use tbrdma_proto::wire::{Bth, Headers, MAX_HEADER_BYTES, Packet, PacketOpcode, ROCE_UDP_PORT};
use tbrdma_proto::{Psn, Qpn};

const SIZES: [usize; 4] = [0, 64, 1024, 4096];

fn v4() -> Flow {
    let address = |host| SocketAddr::new(Ipv4Addr::new(10, 77, 0, host).into(), ROCE_UDP_PORT);
    Flow::new(address(1), address(2)).unwrap()
}

fn v6() -> Flow {
    let address = |host| SocketAddr::new(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host).into(), ROCE_UDP_PORT);
    Flow::new(address(1), address(2)).unwrap()
}

fn headers() -> Headers {
    Headers::new(Bth {
        opcode: PacketOpcode::RcSendOnly,
        solicited: false,
        migrated: false,
        pad: 0,
        pkey: 0xffff,
        fecn: false,
        becn: false,
        dest_qpn: Qpn::masked(0x11),
        ack_req: true,
        psn: Psn::masked(0xabcd),
    })
}

fn packet(size: usize) -> Vec<u8> {
    let mut out = [0; MAX_HEADER_BYTES];
    let len = headers().encode(&mut out);
    let payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
    [&out[..len], &payload, &[0; ICRC_BYTES]].concat()
}

fn icrc(c: &mut Criterion) {
    for (name, flow) in [("icrc_v4", v4()), ("icrc_v6", v6())] {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let mut bytes = packet(size);
            group.bench_function(BenchmarkId::new("seal", size), |b| {
                b.iter(|| seal(black_box(&flow), 0, black_box(&mut bytes)));
            });
            group.bench_function(BenchmarkId::new("verify_known", size), |b| {
                b.iter(|| verify(black_box(&flow), IdentHint::Known(0), black_box(&bytes)).unwrap());
            });
            let mut out = [0; MAX_HEADER_BYTES];
            let len = headers().encode(&mut out);
            let payload = vec![0xa5; size];
            group.bench_function(BenchmarkId::new("seal_parts", size), |b| {
                b.iter(|| {
                    let mut hasher =
                        IcrcHasher::new(black_box(&flow), 0, len + black_box(&payload).len() + ICRC_BYTES);
                    hasher.update(black_box(&out[..len]));
                    hasher.update(black_box(&payload));
                    hasher.finish()
                });
            });
        }
    }
    let mut group = c.benchmark_group("icrc_v4");
    for size in SIZES {
        let mut bytes = packet(size);
        let flow = v4();
        seal(&flow, 0xbeef, &mut bytes).unwrap();
        group.bench_function(BenchmarkId::new("verify_solving", size), |b| {
            b.iter(|| {
                assert_eq!(verify(black_box(&flow), IdentHint::Unknown, black_box(&bytes)), Ok(Some(0xbeef)))
            });
        });
    }
    group.bench_function("flow", |b| b.iter(|| black_box(v4())));
}

fn headers_of_packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("headers");
    let bytes = packet(64);
    group.bench_function("parse", |b| b.iter(|| Packet::parse(black_box(&bytes)).unwrap().payload.len()));
    let headers = headers();
    let mut out = [0; MAX_HEADER_BYTES];
    group.bench_function("encode", |b| b.iter(|| black_box(&headers).encode(black_box(&mut out))));
}

criterion_group!(benches, icrc, headers_of_packets);
criterion_main!(benches);
