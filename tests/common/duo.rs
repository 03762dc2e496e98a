//! Two connected ends in one thread, and a round of every operation between them that must cost nothing but time.
#![allow(dead_code, reason = "each test file uses its own part")]

use super::process::{PATIENCE, device};
use super::puppet::{End, QKEY, all_access, patient};
use std::time::{Duration, Instant};
use tbrdma::{
    AddressHandle, CompletionQueue, Context, MemoryRegion, MrSlice, ProtectionDomain, QpInit, QpType,
    QueuePair, RemoteRegion, SharedReceiveQueue, WorkCompletion,
};

/// Bytes of the messages of a round.
const SIZE: usize = 256;
/// After so long a datagram counts as lost.
const LOST: Duration = Duration::from_secs(3);
/// Work requests of a list.
const LIST: usize = 16;

/// One end: a reliable queue pair, one on a shared receive queue, a datagram one, all completing into one queue.
struct Side {
    rc: QueuePair,
    shared: QueuePair,
    ud: QueuePair,
    srq: SharedReceiveQueue,
    to: Option<AddressHandle>,
    cq: CompletionQueue,
    mr: MemoryRegion,
    foreign: MemoryRegion,
    remote: RemoteRegion,
    pd: ProtectionDomain,
    #[expect(dead_code, reason = "kept open")]
    ctx: Context,
}

impl Side {
    fn new(ctx: Context) -> Self {
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(1024).unwrap();
        let srq = pd.create_srq(64, 1).unwrap();
        let mr = pd.alloc(1 << 16, all_access()).unwrap();
        Self {
            rc: pd.create_qp(QpInit::rc(&cq)).unwrap(),
            shared: pd.create_qp(QpInit::rc(&cq).srq(&srq)).unwrap(),
            ud: pd.create_qp(QpInit::ud(&cq)).unwrap(),
            foreign: pd.register(vec![0; 4096], all_access()).unwrap(),
            remote: mr.remote(),
            to: None,
            srq,
            cq,
            mr,
            pd,
            ctx,
        }
    }

    fn meet(&mut self, other: &Self) {
        self.rc.connect_with(&other.rc.address(), &patient()).unwrap();
        self.shared.connect_with(&other.shared.address(), &patient()).unwrap();
        self.ud.activate_ud(QKEY).unwrap();
        self.to = Some(self.pd.create_ah_to(&other.ud.address()).unwrap());
        self.remote = other.mr.remote();
    }

    /// `count` completions, all of them successes.
    fn take(&self, count: usize) {
        assert!(self.take_within(count, PATIENCE), "no completion within {PATIENCE:?}");
    }

    /// The same, if they come in time.
    fn take_within(&self, count: usize, patience: Duration) -> bool {
        let mut wcs = [WorkCompletion::default(); LIST];
        let (mut taken, begun) = (0, Instant::now());
        while taken < count {
            let polled = self.cq.poll(&mut wcs);
            if polled.is_empty() && begun.elapsed() > patience {
                return false;
            }
            for wc in polled {
                assert!(wc.ok().is_ok());
                taken += 1;
            }
        }
        true
    }

    fn slice(&self, at: usize) -> MrSlice {
        self.mr.slice(at..at + SIZE)
    }
}

/// Two ends.
pub(crate) struct Duo {
    a: Side,
    b: Side,
}

impl Duo {
    /// In one context, or in a context each.
    pub(crate) fn new(contexts: usize) -> Self {
        let first = tbrdma::open(device()).unwrap();
        let second = if contexts == 1 { first.clone() } else { tbrdma::open(device()).unwrap() };
        let (mut a, mut b) = (Side::new(first), Side::new(second));
        a.meet(&b);
        b.meet(&a);
        Self { a, b }
    }

    /// One of each operation there and back: how many that were.
    pub(crate) fn round(&mut self, number: u64) -> usize {
        let Self { a, b } = self;
        half(a, b, number) + half(b, a, number)
    }
}

fn half(a: &mut Side, b: &mut Side, number: u64) -> usize {
    let mark = |mr: &MemoryRegion, at: usize, value: u64| assert!(mr.store_u64(at, value));
    // Messages of every kind, each marked, each looked at.
    mark(&a.mr, 0, number);
    let (from, to) = (a.slice(0), b.slice(1024));
    b.rc.post_recv(|rq| drop(rq.recv(to))).unwrap();
    a.rc.post(|wr| drop(wr.send(from))).unwrap();
    b.take(1);
    a.take(1);
    assert_eq!(b.mr.load_u64(1024), number);

    b.srq.post_recv(|rq| drop(rq.recv(b.mr.slice(2048..2048 + SIZE)))).unwrap();
    a.shared.post(|wr| drop(wr.send_with_imm(from, 7))).unwrap();
    b.take(1);
    a.take(1);
    assert_eq!(b.mr.load_u64(2048), number);

    b.ud.post_recv(|rq| drop(rq.recv(b.mr.slice(4096..4096 + SIZE + 40)))).unwrap();
    let (ah, qpn) = (a.to.as_ref().unwrap(), b.ud.qp_num());
    loop {
        a.ud.post(|wr| drop(wr.send(from).to(ah, qpn, QKEY))).unwrap();
        // Over a network it may be lost, while others open and close devices at the address.
        if b.take_within(1, LOST) {
            break;
        }
        a.take(1);
    }
    a.take(1);
    assert_eq!(b.mr.load_u64(4096 + 40), number);

    // One-sided, in lists of one doorbell, one signaled.
    let remote = b.mr.remote();
    a.rc.post(|wr| {
        for index in 1..LIST {
            wr.write(from, remote.at(8192 + (index * SIZE) as u64)).unsignaled();
        }
        wr.write_inline(&number.to_ne_bytes(), remote.at(8192));
    })
    .unwrap();
    a.take(1);
    assert_eq!((b.mr.load_u64(8192), b.mr.load_u64(8192 + SIZE)), (number, number));

    let result = a.mr.slice(16_384..16_392);
    a.rc.post(|wr| {
        wr.read(a.mr.slice(20_480..20_480 + SIZE), remote.at(8192)).unsignaled();
        wr.fetch_and_add(result, remote.at(8192), 3).unsignaled().fence();
        wr.compare_and_swap(result, remote.at(8192), number + 3, 1).fence();
    })
    .unwrap();
    a.take(1);
    assert_eq!((a.mr.load_u64(20_480), a.mr.load_u64(16_384), b.mr.load_u64(8192)), (number, number + 3, 1));

    // Gathered from two places, one of them the program's own memory; immediate data.
    b.rc.post_recv(|rq| drop(rq.recv_nothing())).unwrap();
    let list = [a.foreign.slice(0..64), a.mr.slice(0..64)];
    a.rc.post(|wr| drop(wr.write_with_imm(list, remote.at(30_000), 9).solicited())).unwrap();
    a.take(1);
    b.take(1);
    3 + LIST + 3 + 1
}

/// A buffer lent to a send and one lent to a receive, and both back; the completion's bytes looked at.
pub(crate) struct Lender {
    a: End,
    b: End,
    buffers: Option<(tbrdma::Buffer, tbrdma::Buffer)>,
}

impl Lender {
    pub(crate) fn new() -> Self {
        let (mut a, mut b) = (End::new(QpType::Rc, false), End::new(QpType::Rc, false));
        a.qp.connect_with(&b.qp.address(), &patient()).unwrap();
        b.qp.connect_with(&a.qp.address(), &patient()).unwrap();
        let buffers = Some((a.pd.alloc_buffer(SIZE).unwrap(), b.pd.alloc_buffer(SIZE).unwrap()));
        Self { a, b, buffers }
    }

    pub(crate) fn round(&mut self, number: u64) {
        let (mut from, to) = self.buffers.take().unwrap();
        from[..8].copy_from_slice(&number.to_ne_bytes());
        self.b.qp.post_recv(|rq| drop(rq.recv_buffer(to))).unwrap();
        self.a.qp.post(|wr| drop(wr.send_buffer(from, SIZE))).unwrap();
        let mut wcs = [WorkCompletion::default(); 1];
        let from = loop {
            if let [wc] = self.a.cq.poll(&mut wcs) {
                break self.a.qp.take_buffer(wc).unwrap();
            }
        };
        let to = loop {
            if let [wc] = self.b.cq.poll(&mut wcs) {
                break self.b.qp.take_buffer(wc).unwrap();
            }
        };
        assert_eq!(to[..8], number.to_ne_bytes());
        self.buffers = Some((from, to));
    }
}
