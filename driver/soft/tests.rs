//! The device over a link that promises, which is a queue here: with as much room as a test wants, and a plug to pull.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod wire;

use crate::{
    Access, AsyncEventKind, CompletionQueue, Connection, Context, EventSource, MemoryRegion, PortState,
    QpInit, QpState, QueuePair, WcStatus, WorkCompletion,
};
use std::time::{Duration, Instant};
use wire::{Plug, wire};

/// For a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PACKET: usize = 4096;
/// Bytes of a node's memory.
const MEMORY: usize = 256 * PACKET;

/// One end: a device, and a queue pair with memory that the peer may write.
struct Node {
    qp: QueuePair,
    mr: MemoryRegion,
    cq: CompletionQueue,
    ctx: Context,
}

impl Node {
    fn new(ctx: Context) -> Self {
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(1024).unwrap();
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ;
        let mr = pd.alloc(MEMORY, access).unwrap();
        let qp = pd.create_qp(QpInit::rc(&cq).max_send_wr(512).max_recv_wr(512)).unwrap();
        Self { qp, mr, cq, ctx }
    }

    /// A WRITE of so many bytes to the same place at the peer.
    fn write(&mut self, id: u64, peer: &Self, at: usize, len: usize) {
        let (from, to) = (self.mr.slice(at..at + len), peer.mr.remote().at(at as u64));
        self.qp.post(|wr| _ = wr.write(from, to).id(id)).unwrap();
    }

    fn one(&self) -> WorkCompletion {
        let begun = Instant::now();
        let mut wcs = [WorkCompletion::default()];
        while self.cq.poll(&mut wcs).is_empty() {
            assert!(begun.elapsed() < PATIENCE, "no completion");
        }
        wcs[0]
    }

    fn next_event(&self) -> AsyncEventKind {
        let event = self.ctx.async_events().next(Some(PATIENCE)).unwrap().expect("an event");
        assert_eq!(event.source, EventSource::Port(1));
        event.kind
    }

    fn counter(&self, name: &str) -> u64 {
        self.ctx.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; MEMORY];
        self.mr.read(0, &mut bytes);
        bytes
    }
}

/// Two nodes that are connected over a wire with room for so many packets each way.
fn pair(room: usize, with: &Connection) -> (Node, Node, Plug) {
    let (ends, plug) = wire(room);
    let [mut a, mut b] = ends.map(|end| Node::new(end.device()));
    join(&mut a, &mut b, with);
    (a, b, plug)
}

fn join(a: &mut Node, b: &mut Node, with: &Connection) {
    let (to_a, to_b) = (a.qp.address(), b.qp.address());
    a.qp.connect_with(&to_b, with).unwrap();
    b.qp.connect_with(&to_a, with).unwrap();
}

/// So long a timeout that whoever waits for one fails the test.
fn never() -> Connection {
    Connection { timeout: 25, ..Connection::default() }
}

#[test]
fn who_has_no_room_waits_and_loses_nothing() {
    // Less room than a train has packets, and far less than a window.
    for room in [1, 3, 7] {
        let (mut a, b, _plug) = pair(room, &never());
        let pattern: Vec<u8> = (0..MEMORY).map(|at| (at / 7 + at / PACKET) as u8).collect();
        a.mr.write(0, &pattern);
        for id in 0..16 {
            a.write(id, &b, id as usize * 16 * PACKET, 16 * PACKET);
        }
        // Nobody polls at the other end: its service thread takes all.
        for id in 0..16 {
            let wc = a.one();
            assert_eq!((wc.wr_id, wc.status), (id, WcStatus::Success));
        }
        assert_eq!(b.bytes(), pattern);
        // And the other way, where the service thread is it that has no room.
        let (from, to) = (b.mr.remote().at(0), a.mr.slice(0..MEMORY));
        a.mr.write(0, &vec![0; MEMORY]);
        a.qp.post(|wr| _ = wr.read(to, from).id(99)).unwrap();
        assert_eq!(a.one().status, WcStatus::Success);
        assert_eq!(a.bytes(), pattern);
        for (node, name) in [(&a, "retransmitted_pkts"), (&b, "duplicate_request"), (&b, "dropped_bad_icrc")]
        {
            assert_eq!(node.counter(name), 0, "{name} with room for {room}");
        }
        assert!(a.counter("port_xmit_wait") > 0 && b.counter("port_xmit_wait") > 0);
    }
}

#[test]
fn last_words_wait_for_room_too() {
    let (mut a, mut b, plug) = pair(2, &never());
    b.qp.post_recv(|rq| _ = rq.recv(b.mr.slice(0..64)).id(5)).unwrap();
    // What another queue pair has sent to A fills the wire, as nobody there takes it.
    let (mut other_a, mut other_b) = (Node::new(a.ctx.clone()), Node::new(b.ctx.clone()));
    join(&mut other_a, &mut other_b, &never());
    plug.stop(0, true);
    other_b.write(1, &other_a, 0, 8 * PACKET);
    a.qp.post(|wr| _ = wr.send(a.mr.slice(0..64)).id(7)).unwrap();
    let received = b.one();
    assert_eq!((received.wr_id, received.status), (5, WcStatus::Success));
    // It has received the message, and goes: the sender must hear that.
    b.qp.reset().unwrap();
    plug.stop(0, false);
    let sent = a.one();
    assert_eq!((sent.wr_id, sent.status), (7, WcStatus::Success));
}

#[test]
fn a_port_that_was_down_is_an_event_and_what_was_lost_goes_again_at_once() {
    let (mut a, b, plug) = pair(64, &never());
    for round in 0..3 {
        plug.set(false);
        assert_eq!((a.next_event(), b.next_event()), (AsyncEventKind::PortErr, AsyncEventKind::PortErr));
        assert_eq!(a.ctx.query_port(1).unwrap().state, PortState::Down);
        a.mr.write(0, &vec![round + 1; MEMORY]);
        a.write(1, &b, 0, 32 * PACKET);
        let lost = Instant::now();
        plug.set(true);
        assert_eq!(
            (a.next_event(), b.next_event()),
            (AsyncEventKind::PortActive, AsyncEventKind::PortActive)
        );
        assert_eq!(a.ctx.query_port(1).unwrap().state, PortState::Active);
        assert_eq!(a.one().status, WcStatus::Success);
        assert!(lost.elapsed() < PATIENCE, "the timeout is longer than that");
        assert_eq!(b.bytes()[..32 * PACKET], vec![round + 1; 32 * PACKET]);
    }
    // So short that nobody could look meanwhile: told all the same.
    plug.set(false);
    plug.set(true);
    assert_eq!((a.next_event(), a.next_event()), (AsyncEventKind::PortErr, AsyncEventKind::PortActive));
}

#[test]
fn connections_to_a_peer_that_is_gone_end_and_those_to_the_next_begin() {
    // Nobody answers that one, so it need not wait for long.
    let doomed = Connection { timeout: 10, retry_cnt: 2, ..Connection::default() };
    let (mut a, mut b, plug) = pair(64, &doomed);
    // The peer's process is gone, and another begins, with an address of its own.
    drop(b);
    b = Node::new(plug.replace(1).device());
    assert_eq!((a.next_event(), a.next_event()), (AsyncEventKind::PortErr, AsyncEventKind::PortActive));
    a.write(2, &b, 0, PACKET);
    let wc = a.one();
    assert_eq!((wc.wr_id, wc.status), (2, WcStatus::RetryExcErr));
    assert_eq!(a.qp.state(), QpState::Err);
    let mut next = Node::new(a.ctx.clone());
    join(&mut next, &mut b, &never());
    next.write(3, &b, 0, PACKET);
    assert_eq!(next.one().status, WcStatus::Success);
}
