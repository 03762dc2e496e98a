//! Making queue pairs, taking them through their states, and posting work.

use super::fabric::Fabric;
use super::node::Slot;
use super::trace::Happening;
use crate::flags::Access;
use crate::ident::{Gid, Psn, Qpn};
use crate::limits::{DeviceAttr, PORT, PortAttr};
use crate::profile::Habits;
use crate::qp::{AddressVector, ModifyError, Mtu, QpAttr, QpAttrMask, QpCap, QpState, QpType};
use crate::region::PdHandle;
use crate::transport::{PostFault, Qp, QpConfig};
use crate::work::{SendWr, Sge};

/// What a simulated queue pair is made with.
#[derive(Clone, Debug)]
pub struct QpSpec {
    /// Its number.
    pub qpn: Qpn,
    /// Its transport service.
    pub qp_type: QpType,
    /// Its protection domain.
    pub pd: PdHandle,
    /// The sizes of its queues.
    pub cap: QpCap,
    /// Which completion queue gets its sends; made if it is not there.
    pub send_cq: usize,
    /// Which gets its receives.
    pub recv_cq: usize,
    /// Which shared receive queue it takes from.
    pub srq: Option<usize>,
    /// What the port can do: its MTU is that of datagrams.
    pub port: PortAttr,
    /// What the device does otherwise than others.
    pub habits: Habits,
}

/// How a queue pair is connected: the attributes of INIT, RTR and RTS.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The peer's address.
    pub peer: Gid,
    /// The peer's queue pair.
    pub dest_qpn: Qpn,
    /// The first PSN sent.
    pub sq_psn: Psn,
    /// The first PSN expected.
    pub rq_psn: Psn,
    /// The path MTU.
    pub mtu: Mtu,
    /// What the peer may do.
    pub access: Access,
    /// READs and atomics outstanding.
    pub max_rd_atomic: u8,
    /// READs and atomics served.
    pub max_dest_rd_atomic: u8,
    /// Code of the RNR timer.
    pub min_rnr_timer: u8,
    /// Code of the acknowledgement timeout.
    pub timeout: u8,
    /// Retries after timeouts and sequence errors.
    pub retry_cnt: u8,
    /// Retries after RNR NAKs.
    pub rnr_retry: u8,
    /// The queue key, for UD.
    pub qkey: u32,
    /// As [`Qp::write_apart`].
    pub writes_apart: bool,
    /// As [`Qp::path_delivers`].
    pub delivers: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            peer: Gid::default(),
            dest_qpn: Qpn::default(),
            sq_psn: Psn::default(),
            rq_psn: Psn::default(),
            mtu: Mtu::B1024,
            access: Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC,
            max_rd_atomic: 8,
            max_dest_rd_atomic: 8,
            min_rnr_timer: 12,
            timeout: 12,
            retry_cnt: 7,
            rnr_retry: 7,
            qkey: 0x1111_1111,
            writes_apart: false,
            delivers: false,
        }
    }
}

impl Connection {
    /// The attributes, of which each state takes its own.
    fn attr(&self) -> QpAttr {
        QpAttr {
            path_mtu: self.mtu,
            qkey: self.qkey,
            rq_psn: self.rq_psn,
            sq_psn: self.sq_psn,
            dest_qp_num: self.dest_qpn,
            qp_access_flags: self.access,
            ah_attr: address(self.peer),
            max_rd_atomic: self.max_rd_atomic,
            max_dest_rd_atomic: self.max_dest_rd_atomic,
            min_rnr_timer: self.min_rnr_timer,
            port_num: PORT,
            timeout: self.timeout,
            retry_cnt: self.retry_cnt,
            rnr_retry: self.rnr_retry,
            ..QpAttr::default()
        }
    }
}

/// The way to a node.
pub fn address(gid: Gid) -> AddressVector {
    AddressVector { is_global: true, dgid: gid, hop_limit: 64, port_num: PORT, ..AddressVector::default() }
}

impl Fabric {
    /// Makes a queue pair, in RESET. One with the same number is lost.
    pub fn create_qp(&mut self, node: usize, spec: QpSpec) {
        let QpSpec { qpn, qp_type, pd, cap, send_cq, recv_cq, srq, port, habits } = spec;
        let device = DeviceAttr::default();
        let shared_receives = srq.is_some();
        let qp = Qp::new(QpConfig { qpn, qp_type, pd, cap, shared_receives, device, port, habits });
        let slot = Slot { qp, qp_type, pd, send_cq, recv_cq, srq, peer: Gid::default(), ack_due: None };
        let node = self.node_mut(node);
        node.qps.insert(qpn, slot);
        while node.cqs.len() <= send_cq.max(recv_cq) {
            node.cqs.push(super::Cq::default());
        }
    }

    /// Destroys a queue pair.
    pub fn destroy_qp(&mut self, node: usize, qpn: Qpn) {
        self.node_mut(node).qps.remove(&qpn);
    }

    /// The state of a queue pair; RESET if there is none.
    pub fn state(&self, node: usize, qpn: Qpn) -> QpState {
        self.node(node).qps.get(&qpn).map_or(QpState::Reset, |slot| slot.qp.state())
    }

    /// Changes a queue pair.
    ///
    /// # Errors
    /// As [`Qp::modify`]; also if there is no such queue pair, as of one in RESET.
    pub fn modify(
        &mut self,
        node: usize,
        qpn: Qpn,
        attr: &QpAttr,
        mask: QpAttrMask,
    ) -> Result<(), ModifyError> {
        let done = self.touch(node, qpn, |now, qp, _| qp.modify(now, attr, mask));
        let to = attr.qp_state;
        let step = crate::qp::Transition { qp_type: QpType::Rc, from: QpState::Reset, to };
        done.unwrap_or(Err(ModifyError::IllegalTransition { step }))?;
        if mask.contains(QpAttrMask::AV)
            && let Some(slot) = self.node_mut(node).qps.get_mut(&qpn)
        {
            slot.peer = attr.ah_attr.dgid;
        }
        if mask.contains(QpAttrMask::STATE) {
            self.record(node, Happening::Modified { qpn, state: to });
        }
        Ok(())
    }

    /// Takes a queue pair to a state that needs no other attribute: RESET, ERR, SQD, or RTS again.
    ///
    /// # Errors
    /// As [`modify`](Self::modify).
    pub fn to_state(&mut self, node: usize, qpn: Qpn, state: QpState) -> Result<(), ModifyError> {
        let attr = QpAttr { qp_state: state, en_sqd_async_notify: true, ..QpAttr::default() };
        let notify =
            if state == QpState::Sqd { QpAttrMask::EN_SQD_ASYNC_NOTIFY } else { QpAttrMask::empty() };
        self.modify(node, qpn, &attr, QpAttrMask::STATE | notify)
    }

    /// Takes a queue pair from RESET to RTR.
    ///
    /// # Errors
    /// As [`modify`](Self::modify).
    pub fn to_rtr(&mut self, node: usize, qpn: Qpn, connection: &Connection) -> Result<(), ModifyError> {
        for state in [QpState::Init, QpState::Rtr] {
            self.with_attributes(node, qpn, connection, state)?;
        }
        self.touch(node, qpn, |_, qp, _| {
            qp.write_apart(connection.writes_apart);
            qp.path_delivers(connection.delivers);
        });
        Ok(())
    }

    /// Takes a queue pair from RTR to RTS.
    ///
    /// # Errors
    /// As [`modify`](Self::modify).
    pub fn to_rts(&mut self, node: usize, qpn: Qpn, connection: &Connection) -> Result<(), ModifyError> {
        self.with_attributes(node, qpn, connection, QpState::Rts)
    }

    /// Goes to the next state with the attributes that it requires.
    fn with_attributes(
        &mut self,
        node: usize,
        qpn: Qpn,
        connection: &Connection,
        state: QpState,
    ) -> Result<(), ModifyError> {
        let attr = QpAttr { qp_state: state, ..connection.attr() };
        let qp_type = self.node(node).qps.get(&qpn).map_or(QpType::Rc, |slot| slot.qp_type);
        let from = self.state(node, qpn);
        let required =
            crate::qp::transition(qp_type, from, state).map_or(QpAttrMask::empty(), |attrs| attrs.required);
        self.modify(node, qpn, &attr, required | QpAttrMask::STATE)
    }

    /// Tells all queue pairs that the ways between the nodes were interrupted, and are there again.
    pub fn paths_are_back(&mut self) {
        for node in 0..self.len() {
            let qpns: Vec<_> = self.node(node).qps.keys().copied().collect();
            for qpn in qpns {
                self.touch(node, qpn, |_, qp, _| qp.path_is_back());
            }
        }
    }

    /// Posts a send. `wr.sg` is filled in.
    ///
    /// # Errors
    /// As [`Qp::post_send`]; also if there is no such queue pair, as of one in RESET.
    pub fn post_send(
        &mut self,
        node: usize,
        qpn: Qpn,
        wr: &SendWr,
        sges: &[Sge],
        inline: &[u8],
    ) -> Result<u32, PostFault> {
        let len = inline.len() as u64 + sges.iter().map(|sge| u64::from(sge.length)).sum::<u64>();
        self.record(node, Happening::PostedSend { qpn, wr_id: wr.wr_id, opcode: wr.opcode, len });
        let num_sge = sges.len().max(inline.len()) as u32;
        let wr = SendWr { first_sge: 0, num_sge, ..wr.clone() };
        self.touch(node, qpn, |now, qp, _| qp.post_send(now, &wr, sges, inline))
            .unwrap_or(Err(PostFault::State { state: QpState::Reset }))
    }

    /// Posts a receive.
    ///
    /// # Errors
    /// As [`Qp::post_recv`]; also if there is no such queue pair, as of one in RESET.
    pub fn post_recv(&mut self, node: usize, qpn: Qpn, wr_id: u64, sges: &[Sge]) -> Result<u32, PostFault> {
        let len = sges.iter().map(|sge| u64::from(sge.length)).sum();
        self.record(node, Happening::PostedReceive { qpn: Some(qpn), wr_id, len });
        self.touch(node, qpn, |now, qp, _| qp.post_recv(now, wr_id, sges))
            .unwrap_or(Err(PostFault::State { state: QpState::Reset }))
    }

    /// Posts a receive to a shared receive queue.
    ///
    /// # Errors
    /// As [`Srq::post`](crate::transport::Srq::post); also if there is no such queue.
    pub fn post_srq_recv(
        &mut self,
        node: usize,
        srq: usize,
        wr_id: u64,
        sges: &[Sge],
    ) -> Result<u32, PostFault> {
        let len = sges.iter().map(|sge| u64::from(sge.length)).sum();
        self.record(node, Happening::PostedReceive { qpn: None, wr_id, len });
        let shared = self.node_mut(node).srqs.get_mut(srq);
        shared.map_or(Err(PostFault::State { state: QpState::Reset }), |shared| shared.srq.post(wr_id, sges))
    }
}
