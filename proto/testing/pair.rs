//! Two nodes with one connection.

use super::fabric::Fabric;
use super::memory::Violation;
use super::setup::{Connection, QpSpec};
use crate::fault::FaultPlan;
use crate::flags::{Access, SendFlags};
use crate::ident::{Psn, Qpn};
use crate::limits::PortAttr;
use crate::profile::Habits;
use crate::qp::{ModifyError, QpCap, QpType};
use crate::region::PdHandle;
use crate::time::Time;
use crate::transport::PostFault;
use crate::work::{Opcode, RemoteAddr, SendWr, Sge, WorkCompletion};

/// How a [`Pair`] is made.
#[derive(Clone, Debug)]
pub struct PairSpec {
    /// The transport service of both queue pairs.
    pub qp_type: QpType,
    /// The faults of both directions.
    pub plan: FaultPlan,
    /// The seed of the faults and keys.
    pub seed: u64,
    /// The sizes of the queues.
    pub cap: QpCap,
    /// How both are connected; address, numbers and PSNs are filled in.
    pub connection: Connection,
    /// The first PSN of node 0; that of node 1 is half the circle away.
    pub psn: Psn,
    /// Bytes of the region that each node has.
    pub region: usize,
    /// What the device of each node does otherwise than others.
    pub habits: [Habits; 2],
}

impl Default for PairSpec {
    fn default() -> Self {
        Self {
            qp_type: QpType::Rc,
            plan: FaultPlan::default(),
            seed: 1,
            cap: QpCap {
                max_send_wr: 128,
                max_recv_wr: 128,
                max_send_sge: 4,
                max_recv_sge: 4,
                max_inline_data: 128,
            },
            connection: Connection::default(),
            psn: Psn::masked(0xff_fff0),
            region: 1 << 20,
            habits: [Habits::default(); 2],
        }
    }
}

/// Two nodes, 0 and 1, with a connected queue pair and one region each that may be used for everything. All completions of a node
/// go to its completion queue 0.
#[derive(Debug)]
pub struct Pair {
    /// The two nodes.
    pub fabric: Fabric,
    /// The number of each node's queue pair.
    pub qpn: [Qpn; 2],
    /// The key of each node's region.
    pub key: [u32; 2],
    /// The first address of each node's region.
    pub base: [u64; 2],
    connection: Connection,
    psn: [Psn; 2],
}

/// Why there is no [`Pair`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// A queue pair cannot be brought to RTS so.
    #[error(transparent)]
    Modify(#[from] ModifyError),
    /// A region cannot be made so.
    #[error(transparent)]
    Region(#[from] Violation),
}

/// The protection domain of a pair's queue pairs and regions.
const PD: PdHandle = PdHandle(1);

impl Pair {
    /// Makes one, in RTS.
    ///
    /// # Errors
    /// `spec` has values that no queue pair takes.
    pub fn new(spec: &PairSpec) -> Result<Self, PairError> {
        let mut fabric = Fabric::new(2, &spec.plan, spec.seed);
        let qpn = [Qpn::masked(0x11), Qpn::masked(0x12)];
        let everything =
            Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC;
        let (mut key, mut base) = ([0; 2], [0; 2]);
        for node in 0..2 {
            (key[node], base[node]) = fabric.node_mut(node).memory.register(PD, everything, spec.region)?;
            fabric.create_qp(
                node,
                QpSpec {
                    qpn: qpn[node],
                    qp_type: spec.qp_type,
                    pd: PD,
                    cap: spec.cap,
                    send_cq: 0,
                    recv_cq: 0,
                    srq: None,
                    port: PortAttr::default(),
                    habits: spec.habits[node],
                },
            );
        }
        let psn = [spec.psn, spec.psn.add(1 << 22)];
        let mut pair = Self { fabric, qpn, key, base, connection: spec.connection.clone(), psn };
        pair.connect()?;
        Ok(pair)
    }

    /// How the queue pair of `node` is connected.
    pub fn connection(&self, node: usize) -> Connection {
        Connection {
            peer: self.fabric.node(1 - node).gid,
            dest_qpn: self.qpn[1 - node],
            sq_psn: self.psn[node],
            rq_psn: self.psn[1 - node],
            ..self.connection.clone()
        }
    }

    /// Takes both queue pairs from RESET to RTS.
    ///
    /// # Errors
    /// They are not in RESET.
    pub fn connect(&mut self) -> Result<(), ModifyError> {
        for node in 0..2 {
            self.fabric.to_rtr(node, self.qpn[node], &self.connection(node))?;
        }
        for node in 0..2 {
            self.fabric.to_rts(node, self.qpn[node], &self.connection(node))?;
        }
        Ok(())
    }

    /// A signaled work request of `node`, with the peer's region from `offset` on as its remote memory.
    pub fn request(&self, node: usize, wr_id: u64, opcode: Opcode, offset: u64) -> SendWr {
        let peer = 1 - node;
        SendWr {
            wr_id,
            opcode,
            flags: SendFlags::SIGNALED,
            imm_data: 0,
            remote: RemoteAddr { addr: self.base[peer].wrapping_add(offset), rkey: self.key[peer] },
            compare_add: 0,
            swap: 0,
            ud: None,
            first_sge: 0,
            num_sge: 0,
        }
    }

    /// `len` bytes of the region of `node` from `offset` on.
    pub fn sge(&self, node: usize, offset: u64, len: u32) -> Sge {
        Sge { addr: self.base[node].wrapping_add(offset), length: len, lkey: self.key[node] }
    }

    /// Posts a send at `node`.
    ///
    /// # Errors
    /// As [`Fabric::post_send`].
    pub fn post_send(&mut self, node: usize, wr: &SendWr, sges: &[Sge]) -> Result<u32, PostFault> {
        self.fabric.post_send(node, self.qpn[node], wr, sges, &[])
    }

    /// Posts a receive at `node`.
    ///
    /// # Errors
    /// As [`Fabric::post_recv`].
    pub fn post_recv(&mut self, node: usize, wr_id: u64, sges: &[Sge]) -> Result<u32, PostFault> {
        self.fabric.post_recv(node, self.qpn[node], wr_id, sges)
    }

    /// Takes a completion of `node`.
    pub fn poll(&mut self, node: usize) -> Option<WorkCompletion> {
        self.fabric.node_mut(node).cqs.first_mut().and_then(|cq| cq.entries.pop_front())
    }

    /// Runs until nothing happens any more, but not beyond `until`.
    ///
    /// # Errors
    /// Something happened that must not.
    pub fn run(&mut self, until: Time) -> Result<(), Violation> {
        while self.fabric.next_time().is_some_and(|next| next <= until) {
            self.fabric.step()?;
        }
        Ok(())
    }

    /// The bytes of the region of `node` from `offset` on.
    ///
    /// # Errors
    /// There are not so many.
    pub fn bytes(&mut self, node: usize, offset: u64, len: usize) -> Result<&mut [u8], Violation> {
        let (key, base) = (self.key[node], self.base[node]);
        self.fabric.node_mut(node).memory.bytes_mut(key, base.wrapping_add(offset), len)
    }
}
