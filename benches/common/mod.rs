//! What the benches measure on: two queue pairs of one process, connected to each other. No second process and no second core take part,
//! so the figures are the library's own work, and not the time a cache line takes from core to core.

use tbrdma::{Access, CompletionQueue, MemoryRegion, QpInit, QueuePair, RemoteRegion, WorkCompletion};

/// Work requests a queue holds.
pub(crate) const DEPTH: usize = 128;
/// Bytes of a message.
pub(crate) const BYTES: usize = 8;

/// Two connected queue pairs with one completion queue, and memory that both may touch.
pub(crate) struct Loopback {
    a: QueuePair,
    b: QueuePair,
    cq: CompletionQueue,
    mr: MemoryRegion,
    peer: RemoteRegion,
    wcs: [WorkCompletion; DEPTH],
    /// Connected to each other in pairs, and idle.
    _others: Vec<QueuePair>,
}

impl Loopback {
    /// A fresh pair, used a little, so that nothing happens for the first time.
    pub(crate) fn new(device: &str) -> Self {
        Self::among(device, 0)
    }

    /// The same in a process with `others` more connected queue pairs of depth 16, which complete into the same queue.
    pub(crate) fn among(device: &str, others: usize) -> Self {
        let ctx = tbrdma::open(device).unwrap_or_else(|error| panic!("{device} opens everywhere: {error}"));
        let pd = ctx.alloc_pd().expect("a protection domain");
        let cq = ctx.create_cq(4 * DEPTH as u32).expect("a completion queue");
        let init = || QpInit::rc(&cq).max_send_wr(DEPTH as u32).max_recv_wr(DEPTH as u32);
        let mut a = pd.create_qp(init()).expect("a queue pair");
        let mut b = pd.create_qp(init()).expect("a queue pair");
        a.connect(&b.address()).expect("a finds b");
        b.connect(&a.address()).expect("b finds a");
        let small = || QpInit::rc(&cq).max_send_wr(16).max_recv_wr(16);
        let mut others: Vec<_> = (0..others).map(|_| pd.create_qp(small()).expect("a queue pair")).collect();
        for pair in others.chunks_exact_mut(2) {
            let [first, second] = pair else { unreachable!("in pairs") };
            first.connect(&second.address()).expect("one finds the other");
            second.connect(&first.address()).expect("the other finds the one");
        }
        let mr = pd.alloc(64 * DEPTH, Access::LOCAL_WRITE | Access::REMOTE_WRITE).expect("memory");
        let peer = mr.remote();
        let wcs = [WorkCompletion::default(); DEPTH];
        let mut pair = Self { a, b, cq, mr, peer, wcs, _others: others };
        for _ in 0..4 {
            pair.write(DEPTH, true);
            pair.await_all(DEPTH);
            pair.post_recv();
            pair.send();
            pair.await_all(2);
        }
        pair
    }

    /// `count` WRITEs, one doorbell each; the last one signaled, the others as said.
    #[inline]
    pub(crate) fn write(&mut self, count: usize, signaled: bool) {
        for left in (0..count).rev() {
            self.write_list(1, signaled || left == 0);
        }
    }

    /// `count` WRITEs with one doorbell, of which the last is signaled if said, and the others are not.
    #[inline]
    pub(crate) fn write_list(&mut self, count: usize, signaled: bool) {
        let (mr, peer) = (&self.mr, &self.peer);
        let posted = self.a.post(|wr| {
            for left in (0..count).rev() {
                let write = wr.write(mr.slice(0..BYTES), peer.at(64)).id(left as u64);
                if left > 0 || !signaled {
                    write.unsignaled();
                }
            }
        });
        posted.expect("there is room");
    }

    /// A SEND from one to the other.
    #[inline]
    pub(crate) fn send(&mut self) {
        let mr = &self.mr;
        let posted = self.a.post(|wr| {
            wr.send(mr.slice(0..BYTES)).id(1);
        });
        posted.expect("there is room");
    }

    /// A receive for it.
    #[inline]
    pub(crate) fn post_recv(&mut self) {
        let mr = &self.mr;
        let posted = self.b.post_recv(|rq| {
            rq.recv(mr.slice(64..64 + BYTES)).id(2);
        });
        posted.expect("there is room");
    }

    /// Polls once, for at most `most` completions; how many there were. A program's call of a function of its own is not to be counted.
    #[inline(always)]
    pub(crate) fn poll(&mut self, most: usize) -> usize {
        let wcs = self.cq.poll(&mut self.wcs[..most]);
        for wc in wcs {
            wc.ok().expect("it succeeded");
        }
        wcs.len()
    }

    /// Polls until there have been so many completions, and no more.
    pub(crate) fn await_all(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            left -= self.poll(left);
        }
    }
}
