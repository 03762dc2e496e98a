//! The device over a byte stream: between processes, when a peer dies, when the cable is pulled and plugged in again, and over descriptors.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::duplicate_mod, reason = "each of the files says for itself what it shares with the others")]

mod common;
#[path = "common/process.rs"]
mod process;

use common::{Node, join, next_event, next_of, patient, pattern};
use process::{Child, PATIENCE, hear, role, say, until};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;
use tbrdma::{
    AsyncEventKind, Connection, Context, EventSource, OpenOptions, PortState, QpState, QpType, RemoteRegion,
    WcStatus, WorkCompletion,
};

/// A name of this test's own.
fn path(of: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tbrdma-stream-{}-{of}", std::process::id()))
}

/// The port has become this, and an event says so.
#[track_caller]
fn expect_port(ctx: &Context, kind: AsyncEventKind) {
    let event = next_event(ctx);
    assert_eq!((event.kind, event.source), (kind, EventSource::Port(1)), "{}", ctx.describe());
    let state = if kind == AsyncEventKind::PortActive { PortState::Active } else { PortState::Down };
    assert_eq!(ctx.query_port(1).unwrap().state, state, "{}", ctx.describe());
}

/// A node whose peer is in another process, which [`serve`]s.
fn node(ctx: &Context) -> Node {
    Node::of(ctx, QpType::Rc, |init| init)
}

/// Seconds, not minutes, until a silent peer is an error; and whole packets.
fn brisk() -> Connection {
    let mut with = Connection::default();
    with.timeout = 14;
    with.retry_cnt = 3;
    with
}

/// Connects with the child, which opens this device; where its memory is.
fn connect(node: &mut Node, child: &mut Child, device: &str) -> RemoteRegion {
    let address = child.ask(device);
    let region = child.ask(node.qp.address());
    node.qp.connect_with(&address.parse().unwrap(), &brisk()).unwrap();
    let numbers: Vec<u64> = region.split(' ').map(|number| number.parse().unwrap()).collect();
    RemoteRegion { addr: numbers[0], length: numbers[1], rkey: numbers[2] as u32 }
}

/// Another process: opens a device, connects, and echoes nothing: its memory is written and read.
#[test]
fn child() {
    if role().is_none() {
        return;
    }
    let device = hear();
    let mut node = node(&tbrdma::open(&device).unwrap());
    say(node.qp.address());
    let peer = hear();
    node.qp.connect_with(&peer.parse().unwrap(), &brisk()).unwrap();
    let region = node.mr.remote();
    say(format!("{} {} {}", region.addr, region.length, region.rkey));
    hear();
}

fn post(node: &mut Node, remote: RemoteRegion, id: u64, len: usize, read: bool) -> bool {
    let slice = node.mr.slice(0..len);
    let posted = node.qp.post(|wr| {
        if read {
            wr.read(slice, remote.at(0)).id(id);
        } else {
            wr.write(slice, remote.at(0)).id(id);
        }
    });
    posted.is_ok()
}

/// Writes to the peer and reads it back.
#[track_caller]
fn works(node: &mut Node, remote: RemoteRegion, seed: u64) {
    let bytes = pattern(seed, 100_000);
    node.mr.write(0, &bytes);
    assert!(post(node, remote, 1, bytes.len(), false));
    node.expect(1, WcStatus::Success);
    node.fill(0..bytes.len(), 0);
    assert!(post(node, remote, 2, bytes.len(), true));
    node.expect(2, WcStatus::Success);
    assert!(node.bytes(0..bytes.len()) == bytes);
}

#[test]
fn a_peer_that_dies_under_load_is_an_error_and_its_successor_a_new_peer() {
    for device in [
        format!("stream:unix:{}", path("death").display()),
        format!("stream:standin:{}", path("death").display()),
    ] {
        let ctx = tbrdma::open(&device).unwrap();
        assert_eq!(ctx.query_port(1).unwrap().state, PortState::Down);
        let mut first = node(&ctx);
        let mut child = Child::start("served");
        let remote = connect(&mut first, &mut child, &device);
        expect_port(&ctx, AsyncEventKind::PortActive);
        works(&mut first, remote, 3);
        // As much under way as there may be; then nobody is there any more.
        let mut wcs = [WorkCompletion::default(); 16];
        let mut posted = 0;
        while posted < 60 {
            posted += u64::from(post(&mut first, remote, 100 + posted, 1 << 20, false));
            let done = first.cq.poll(&mut wcs);
            assert!(done.iter().all(|wc| wc.status == WcStatus::Success), "{done:?}");
        }
        child.bury();
        let begun = Instant::now();
        let mut ends = Vec::new();
        while ends.last().is_none_or(|wc: &WorkCompletion| wc.wr_id != 100 + posted - 1) {
            ends.extend_from_slice(first.cq.poll(&mut wcs));
            assert!(begun.elapsed() < PATIENCE, "{device}: {ends:?}");
        }
        let failed: Vec<_> = ends.iter().filter(|wc| wc.status != WcStatus::Success).collect();
        assert_eq!(failed[0].status, WcStatus::RetryExcErr, "{device}");
        assert!(failed[1..].iter().all(|wc| wc.status == WcStatus::WrFlushErr), "{device}");
        assert_eq!(first.qp.state(), QpState::Err);
        expect_port(&ctx, AsyncEventKind::PortErr);
        assert!(ctx.describe().contains("down: "), "{}", ctx.describe());
        // The device waits for another, with whom new queue pairs work.
        let mut second = node(&ctx);
        let mut child = Child::start("served");
        let remote = connect(&mut second, &mut child, &device);
        expect_port(&ctx, AsyncEventKind::PortActive);
        works(&mut second, remote, 4);
        child.bury();
    }
}

/// A cable between two devices that listen.
struct Cable {
    ends: [PathBuf; 2],
    plugged: Option<[UnixStream; 2]>,
}

impl Cable {
    fn plug(&mut self) {
        let ends = self.ends.each_ref().map(|end| {
            let begun = Instant::now();
            loop {
                match UnixStream::connect(end) {
                    Ok(stream) => return stream,
                    Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
                }
                std::thread::yield_now();
            }
        });
        for (from, to) in [(0, 1), (1, 0)] {
            let (mut from, mut to) = (ends[from].try_clone().unwrap(), ends[to].try_clone().unwrap());
            std::thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(count @ 1..) = from.read(&mut bytes) {
                    // What the reader has not taken when the cable is pulled is lost.
                    if to.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        self.plugged = Some(ends);
    }

    fn pull(&mut self) {
        for end in self.plugged.take().unwrap() {
            end.shutdown(Shutdown::Both).unwrap();
        }
    }
}

#[test]
fn connections_outlive_a_cable_that_is_pulled_and_plugged_in_again() {
    let ends = [path("left"), path("right")];
    let devices = ends.each_ref().map(|end| format!("stream:unix:{},listen", end.display()));
    let [mut a, mut b] = devices.map(|device| node(&tbrdma::open(&device).unwrap()));
    let mut cable = Cable { ends, plugged: None };
    cable.plug();
    join(&mut a, &mut b, &patient());
    for ctx in [&a.ctx, &b.ctx] {
        expect_port(ctx, AsyncEventKind::PortActive);
    }
    let remote = b.mr.remote();
    works(&mut a, remote, 5);
    for round in 0..2 {
        // In the middle of something.
        for id in 0..8 {
            assert!(post(&mut a, remote, id, 1 << 20, false));
        }
        cable.pull();
        for ctx in [&a.ctx, &b.ctx] {
            expect_port(ctx, AsyncEventKind::PortErr);
        }
        cable.plug();
        for ctx in [&a.ctx, &b.ctx] {
            expect_port(ctx, AsyncEventKind::PortActive);
        }
        for id in 0..8 {
            a.expect(id, WcStatus::Success);
        }
        works(&mut a, remote, 6 + round);
    }
    let met = a.ctx.counters().into_iter().find(|(name, _)| *name == "link_met").unwrap().1;
    assert_eq!(met, 3);
}

#[test]
fn two_devices_speak_over_descriptors_of_the_programs_own() {
    let options = OpenOptions::new();
    let (left, right) = UnixStream::pair().unwrap();
    let sockets = [options.open_stream(left.into()).unwrap(), options.open_stream(right.into()).unwrap()];
    let (from_b, to_a) = std::io::pipe().unwrap();
    let (from_a, to_b) = std::io::pipe().unwrap();
    let pipes = [
        options.open_streams(from_b.into(), to_b.into()).unwrap(),
        options.open_streams(from_a.into(), to_a.into()).unwrap(),
    ];
    for [left, right] in [sockets, pipes] {
        let (mut a, mut b) = (node(&left), node(&right));
        join(&mut a, &mut b, &patient());
        works(&mut a, b.mr.remote(), 9);
        b.post_recv(3, 0..64);
        a.post_send(4, 0..64);
        assert_eq!(next_of(&b.cq).wr_id, 3);
        a.expect(4, WcStatus::Success);
        // What ends so is over for good, and says so.
        drop((b, right));
        until("the port is down", || left.query_port(1).unwrap().state == PortState::Down);
        assert!(
            left.describe().contains("closed the stream") || left.describe().contains("broken"),
            "{}",
            left.describe()
        );
    }
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let error = options.open_stream(file.into()).unwrap_err().to_string();
    assert!(error.contains("neither a socket, a pipe nor"), "{error}");
}
