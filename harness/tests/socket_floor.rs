//! The floors of plain sockets: datagrams and streams bounce and flood between two sides, and say why when they cannot. And what is a floor of
//! which device.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tbrdma::Gid;
use tbrdma_bench::control::{Channel, Message};
use tbrdma_bench::floor::sockets::{self, Flood, Way};
use tbrdma_bench::floor::{Carrier, Floor, memory, streams};
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

fn stream(name: &str, wait: Wait) -> streams::Way {
    streams::Way::of(name, wait).unwrap()
}

/// Runs `initiate` against a responder whose device has plain sockets beside it, or has not.
fn with_responder<T>(local: Carrier, initiate: impl FnOnce(&mut Channel) -> T) -> T {
    let (a, b) = UnixStream::pair().unwrap();
    let channel = |stream: UnixStream| {
        Channel::new(stream.try_clone().unwrap(), stream, "the other thread".into(), || {}).unwrap()
    };
    let (mut ours, mut theirs) = (channel(a), channel(b));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (theirs, watch) = (&mut theirs, &watch());
            loop {
                match (theirs.receive(TIMEOUT), &local) {
                    (Ok(Message::SocketFloor(offer)), Carrier::Sockets(way)) => {
                        sockets::respond(offer, Some(way), theirs, watch).unwrap();
                    }
                    (Ok(Message::SocketFloor(offer)), _) => {
                        sockets::respond(offer, None, theirs, watch).unwrap();
                    }
                    (Ok(Message::StreamFloor(offer)), Carrier::Stream(way)) => {
                        streams::respond(offer, Some(way), theirs, watch).unwrap();
                    }
                    (Ok(Message::StreamFloor(offer)), _) => {
                        streams::respond(offer, None, theirs, watch).unwrap();
                    }
                    (Ok(Message::Floor(offer)), _) => memory::respond(offer, theirs, watch).unwrap(),
                    _ => break,
                }
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
            let local = Carrier::Sockets(way(wait));
            let median = with_responder(local, |channel| floor.visit(channel, &watch(), TIMEOUT));
            assert_eq!(floor.missing, None, "{size} bytes, {wait}");
            assert!(median.unwrap().unwrap() > 0.0, "{size} bytes, {wait}");
            assert!(floor.latencies().unwrap().count() > 0);
        }
    }
}

#[test]
fn what_a_device_is_measured_beside_follows_from_its_name_and_bounces() {
    let gid = "fe80::1".parse().unwrap();
    for (device, wait, described) in [
        ("shm", Wait::Poll, "plain stores and loads"),
        ("stream:unix:/tmp/name,listen", Wait::Poll, "a plain Unix socket"),
        ("stream:unix:@name", Wait::Event, "a plain Unix socket"),
        ("stream:tcp:127.0.0.1:7471", Wait::Poll, "a plain TCP connection"),
        ("bar:file:/dev/shm/window", Wait::Poll, "the last word awaited"),
        ("bar:paired:/dev/shm/window", Wait::Poll, "the last word awaited"),
    ] {
        for size in [0, 300_000] {
            let carrier = Carrier::of(device, gid, 4096, wait);
            assert!(carrier.described().contains(described), "{device}: {}", carrier.described());
            let mut floor = Floor::new(size, carrier.clone()).unwrap();
            let bounced = with_responder(carrier, |channel| {
                floor.after(Duration::ZERO, 20, channel, &watch(), TIMEOUT)
            });
            assert_eq!(floor.missing, None, "{device}, {size} bytes");
            assert_eq!(
                bounced.unwrap().map(|latencies| latencies.count()),
                Some(20),
                "{device}, {size} bytes"
            );
        }
    }
    for (device, reason) in [("stream:/dev/tbstream0", "device file"), ("bar:0000:00:04.0", "window")] {
        let floor = Floor::new(64, Carrier::of(device, gid, 4096, Wait::Poll)).unwrap();
        assert!(floor.missing.unwrap().contains(reason), "{device}");
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
        like: None,
    };
    let mut flood = Flood::new(&plan, way(Wait::Poll));
    let local = Carrier::Sockets(way(Wait::Poll));
    let rate = with_responder(local, |channel| flood.measure(channel, &watch(), TIMEOUT));
    assert!(rate.unwrap().unwrap() > 0.0);
    assert!(flood.floods.median().unwrap() > 0.0);
    // A TCP host that is not this one is the other side's, which then listens: here both are here, so nobody can.
    for (name, missing) in
        [("unix:@name", None), ("tcp:localhost:7471", None), ("tcp:192.0.2.1:7471", Some("192.0.2.1"))]
    {
        let mut flood = streams::Flood::new(&plan, stream(name, Wait::Poll));
        let local = Carrier::Stream(stream(name, Wait::Poll));
        let rate = with_responder(local, |channel| flood.measure(channel, &watch(), TIMEOUT)).unwrap();
        assert_eq!(
            rate.is_some_and(|rate| rate > 0.0),
            missing.is_none(),
            "{name}: {:?}",
            flood.floods.missing
        );
        assert_eq!(flood.floods.median(), rate);
        assert!(missing.is_none_or(|missing| flood.floods.missing.unwrap().contains(missing)), "{name}");
    }
}

#[test]
fn a_responder_that_is_on_no_network_is_a_reason_and_no_failure() {
    let mut floor = Floor::new(64, Carrier::Sockets(way(Wait::Poll))).unwrap();
    let nothing = || Carrier::Nothing("nothing is beside it");
    let median = with_responder(nothing(), |channel| floor.visit(channel, &watch(), TIMEOUT));
    assert_eq!(median.unwrap(), None);
    assert_eq!(floor.missing.as_deref(), Some("the responder's device is not on a network"));
    let mut floor = Floor::new(64, Carrier::Stream(stream("unix:@name", Wait::Poll))).unwrap();
    let median = with_responder(nothing(), |channel| floor.visit(channel, &watch(), TIMEOUT));
    assert_eq!(median.unwrap(), None);
    assert!(floor.missing.unwrap().contains("no stream with a plain socket"));
}

#[test]
fn messages_over_one_datagram_have_no_floor() {
    let floor = Floor::new(1 << 20, Carrier::Sockets(way(Wait::Poll))).unwrap();
    assert!(floor.missing.unwrap().contains("over 61440 bytes"));
}
