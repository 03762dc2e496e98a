//! The floor over a network: plain sockets bounce and flood between two sides, and say why when they cannot.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tbrdma::Gid;
use tbrdma_bench::control::{Channel, Message};
use tbrdma_bench::floor::sockets::{self, Flood, Way};
use tbrdma_bench::floor::{Carrier, Floor};
use tbrdma_bench::plan::{Benchmark, Op, Plan, Transport, Wait};
use tbrdma_bench::watch::Watch;

const TIMEOUT: Duration = Duration::from_secs(60);

fn way(wait: Wait) -> Way {
    let gid = Gid::from_ipv4_mapped("127.0.0.1".parse().unwrap());
    Way::of("udp:lo", gid, 1024, wait).unwrap()
}

fn watch() -> Watch {
    Watch::new(Arc::default(), TIMEOUT, "the other thread".into())
}

/// Runs `initiate` against a responder whose device is on the network, or is not.
fn with_responder<T>(local: Option<Way>, initiate: impl FnOnce(&mut Channel) -> T) -> T {
    let (a, b) = UnixStream::pair().unwrap();
    let channel = |stream: UnixStream| {
        Channel::new(stream.try_clone().unwrap(), stream, "the other thread".into(), || {}).unwrap()
    };
    let (mut ours, mut theirs) = (channel(a), channel(b));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(Message::SocketFloor(offer)) = theirs.receive(TIMEOUT) {
                sockets::respond(offer, local.as_ref(), &mut theirs, &watch()).unwrap();
            }
        });
        let found = initiate(&mut ours);
        ours.send(&Message::Finish).unwrap();
        found
    })
}

#[test]
fn messages_of_every_size_bounce_whichever_way_one_waits() {
    for wait in [Wait::Poll, Wait::Event] {
        for size in [0, 1, 64, 1024, 1025, 60_000] {
            let mut floor = Floor::new(size, Carrier::Sockets(way(wait))).unwrap();
            let median = with_responder(Some(way(wait)), |channel| floor.visit(channel, &watch(), TIMEOUT));
            assert_eq!(floor.missing, None, "{size} bytes, {wait}");
            assert!(median.unwrap().unwrap() > 0.0, "{size} bytes, {wait}");
            assert!(floor.latencies().unwrap().count() > 0);
        }
    }
}

#[test]
fn a_flood_moves_bytes() {
    let plan = Plan {
        benchmark: Benchmark::Bw,
        op: Op::Write,
        transport: Transport::Rc,
        size: 65_536,
        wait: Wait::Poll,
        inline: false,
        depth: 8,
        post_list: 1,
        signal_every: 1,
        device: "udp:lo".into(),
        pin_responder: None,
        timeout_ms: 60_000,
        profile: None,
        link: None,
        fault: None,
        seed: None,
        memory: tbrdma_bench::plan::Memory::Library,
        threads: 1,
        qps: 1,
        mix: Vec::new(),
        gaps_ns: Vec::new(),
    };
    let mut flood = Flood::new(&plan, way(Wait::Poll));
    let rate = with_responder(Some(way(Wait::Poll)), |channel| flood.measure(channel, &watch(), TIMEOUT));
    assert!(rate.unwrap().unwrap() > 0.0);
    assert!(flood.median().unwrap() > 0.0);
}

#[test]
fn a_responder_that_is_on_no_network_is_a_reason_and_no_failure() {
    let mut floor = Floor::new(64, Carrier::Sockets(way(Wait::Poll))).unwrap();
    let median = with_responder(None, |channel| floor.visit(channel, &watch(), TIMEOUT));
    assert_eq!(median.unwrap(), None);
    assert_eq!(floor.missing.as_deref(), Some("the responder's device is not on a network"));
}

#[test]
fn messages_over_one_datagram_have_no_floor() {
    let floor = Floor::new(1 << 20, Carrier::Sockets(way(Wait::Poll))).unwrap();
    assert!(floor.missing.unwrap().contains("over 61440 bytes"));
}
