//! What the black-box tests share: two connected nodes in one process, and patience.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::ops::Range;
use std::time::{Duration, Instant};
use tbrdma::{Access, CompletionQueue, Context, MemoryRegion, ProtectionDomain, QpInit, QpType, QueuePair, WorkCompletion};

/// How long anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a node's memory.
pub const MEMORY: usize = 1 << 20;

/// One end of a connection, with everything it needs.
pub struct Node {
    pub qp: QueuePair,
    pub mr: MemoryRegion,
    pub cq: CompletionQueue,
    pub pd: ProtectionDomain,
    pub ctx: Context,
}

/// Every right there is.
pub fn all_access() -> Access {
    Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC
}

impl Node {
    pub fn new(qp_type: QpType) -> Self {
        Self::with(qp_type, |init| init)
    }

    pub fn with(qp_type: QpType, shape: impl FnOnce(QpInit<'_>) -> QpInit<'_>) -> Self {
        let ctx = tbrdma::open("shm").unwrap();
        let pd = ctx.alloc_pd().unwrap();
        let cq = ctx.create_cq(1024).unwrap();
        let mr = pd.alloc(MEMORY, all_access()).unwrap();
        let qp = pd.create_qp(shape(QpInit::new(qp_type, &cq))).unwrap();
        Self { qp, mr, cq, pd, ctx }
    }

    pub fn post_recv(&mut self, id: u64, range: Range<usize>) {
        let slice = self.mr.slice(range);
        self.qp.post_recv(|rq| { rq.recv(slice).id(id); }).unwrap();
    }

    /// The next completion, waited for.
    pub fn one(&self) -> WorkCompletion {
        let begun = Instant::now();
        let mut wcs = [WorkCompletion::default()];
        while self.cq.poll(&mut wcs).is_empty() {
            assert!(begun.elapsed() < PATIENCE, "no completion within {PATIENCE:?}");
        }
        wcs[0]
    }
}

/// Two connected nodes, each with its own context, of type "rc" or "uc".
pub fn pair(qp_type: &str) -> (Node, Node) {
    let qp_type = if qp_type == "rc" { QpType::Rc } else { QpType::Uc };
    let (mut a, mut b) = (Node::new(qp_type), Node::new(qp_type));
    a.qp.connect(&b.qp.address()).unwrap();
    b.qp.connect(&a.qp.address()).unwrap();
    (a, b)
}
