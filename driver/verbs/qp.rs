//! Queue pairs.

use super::address::QpAddress;
use super::buffer::Buffer;
use super::context::Context;
use super::cq::CompletionQueue;
use super::pd::ProtectionDomain;
use super::queues::{QpControl, ReceiveQueue, SendQueue};
use super::srq::SharedReceiveQueue;
use super::work::{ReceiveWrs, SendWrs};
use crate::device::{DeviceQp, QpRequest};
use crate::error::{Error, PostError, Result};
use std::sync::Arc;
use tbrdma_proto::{
    Access, AddressVector, Mtu, Psn, QpAttr, QpAttrMask, QpCap, QpState, QpType, Qpn, WorkCompletion, limits,
};

/// What a queue pair is created with (`struct ibv_qp_init_attr`).
#[derive(Clone, Debug)]
pub struct QpInit<'a> {
    qp_type: QpType,
    send_cq: &'a CompletionQueue,
    recv_cq: &'a CompletionQueue,
    srq: Option<&'a SharedReceiveQueue>,
    cap: QpCap,
    sq_sig_all: bool,
}

impl<'a> QpInit<'a> {
    /// A queue pair of this type with both halves completing into `cq`, 64 work requests each way, 16 SGEs, 64 inline bytes, or as much of
    /// that as the device has.
    pub fn new(qp_type: QpType, cq: &'a CompletionQueue) -> Self {
        let device = &cq.context().device.profile().device;
        let cap = QpCap {
            max_send_wr: device.max_qp_wr.min(64),
            max_recv_wr: device.max_qp_wr.min(64),
            max_send_sge: device.max_sge.min(16),
            max_recv_sge: device.max_sge.min(3),
            max_inline_data: device.max_inline_data.min(64),
        };
        Self { qp_type, send_cq: cq, recv_cq: cq, srq: None, cap, sq_sig_all: false }
    }

    /// Reliable connection.
    pub fn rc(cq: &'a CompletionQueue) -> Self {
        Self::new(QpType::Rc, cq)
    }

    /// Unreliable connection.
    pub fn uc(cq: &'a CompletionQueue) -> Self {
        Self::new(QpType::Uc, cq)
    }

    /// Unreliable datagrams.
    pub fn ud(cq: &'a CompletionQueue) -> Self {
        Self::new(QpType::Ud, cq)
    }

    /// Receives complete into another queue than sends.
    pub fn recv_cq(mut self, cq: &'a CompletionQueue) -> Self {
        self.recv_cq = cq;
        self
    }

    /// Receives are taken from a shared queue.
    pub fn srq(mut self, srq: &'a SharedReceiveQueue) -> Self {
        self.srq = Some(srq);
        self
    }

    /// Send work requests outstanding at a time.
    pub fn max_send_wr(mut self, count: u32) -> Self {
        self.cap.max_send_wr = count;
        self
    }

    /// Receive work requests outstanding at a time.
    pub fn max_recv_wr(mut self, count: u32) -> Self {
        self.cap.max_recv_wr = count;
        self
    }

    /// Entries of a send's gather list.
    pub fn max_send_sge(mut self, count: u32) -> Self {
        self.cap.max_send_sge = count;
        self
    }

    /// Entries of a receive's scatter list.
    pub fn max_recv_sge(mut self, count: u32) -> Self {
        self.cap.max_recv_sge = count;
        self
    }

    /// Inline bytes of a send.
    pub fn max_inline_data(mut self, bytes: u32) -> Self {
        self.cap.max_inline_data = bytes;
        self
    }

    /// Every send is signaled, whatever it says itself.
    pub fn sq_sig_all(mut self, all: bool) -> Self {
        self.sq_sig_all = all;
        self
    }
}

/// The attributes of a connection that [`QueuePair::connect_with`] sets; each may be changed.
///
/// The defaults never wait for ever: a peer that is gone or has no receive posted becomes a failed completion within a few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// What the peer may do to memory of ours that allows it.
    pub access: Access,
    /// Bytes of a packet on the path.
    pub path_mtu: Mtu,
    /// READs and atomics of ours outstanding at a time.
    pub max_rd_atomic: u8,
    /// READs and atomics of the peer's outstanding at a time.
    pub max_dest_rd_atomic: u8,
    /// Code of the time the peer waits before it sends again what found no receive: see [`tbrdma_proto::rnr_timer`].
    pub min_rnr_timer: u8,
    /// Code of the time to wait for an acknowledgement: see [`tbrdma_proto::ack_timeout`].
    pub timeout: u8,
    /// How often to send again what was not acknowledged.
    pub retry_cnt: u8,
    /// How often to send again what found no receive; 7 is for ever.
    pub rnr_retry: u8,
    /// Service level.
    pub sl: u8,
    /// Which of our port's GIDs the peer sees; without one, the one that [`QueuePair::address`] has told it, or the first of the peer's kind.
    pub sgid_index: Option<u8>,
    /// P_Key by its index.
    pub pkey_index: u16,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            access: Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC | Access::LOCAL_WRITE,
            path_mtu: Mtu::B4096,
            max_rd_atomic: 16,
            max_dest_rd_atomic: 16,
            min_rnr_timer: 31,
            timeout: 14,
            retry_cnt: 7,
            rnr_retry: 6,
            sl: 0,
            sgid_index: None,
            pkey_index: 0,
        }
    }
}

/// What both halves hold: the queue pair lives until both are gone.
pub(crate) struct Shared {
    pub(crate) device: Arc<dyn DeviceQp>,
    pub(crate) context: Context,
    pub(crate) sq_sig_all: bool,
    psn: Psn,
    pd: ProtectionDomain,
    send_cq: CompletionQueue,
    recv_cq: CompletionQueue,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.device.destroy();
    }
}

/// A queue pair (`ibv_create_qp(3)`).
///
/// Dropping it destroys it: what it had posted is not completed any more, and nobody touches its buffers afterwards.
pub struct QueuePair {
    send: SendQueue,
    recv: ReceiveQueue,
}

impl std::fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueuePair")
            .field("qp_num", &self.qp_num())
            .field("qp_type", &self.qp_type())
            .field("state", &self.state())
            .finish()
    }
}

impl QueuePair {
    pub(crate) fn create(pd: &ProtectionDomain, init: QpInit<'_>) -> Result<Self> {
        let call = "create_qp";
        let context = pd.context();
        let same = init.send_cq.context().is_same(context) && init.recv_cq.context().is_same(context);
        if !same || init.srq.is_some_and(|srq| !srq.pd().context().is_same(context)) {
            let reason =
                "completion queues, shared receive queue and protection domain must be of one context"
                    .to_owned();
            return Err(Error::InvalidArgument { call, reason });
        }
        let (device, token) = context.device.create_qp(QpRequest {
            qp_type: init.qp_type,
            pd: pd.handle(),
            cap: init.cap,
            send_cq: Arc::clone(init.send_cq.device()),
            recv_cq: Arc::clone(init.recv_cq.device()),
            srq: init.srq.map(|srq| Arc::clone(srq.device())),
        })?;
        let shared = Arc::new(Shared {
            device,
            context: context.clone(),
            sq_sig_all: init.sq_sig_all,
            psn: Psn::masked(context.device.random_psn()),
            pd: pd.clone(),
            send_cq: init.send_cq.clone(),
            recv_cq: init.recv_cq.clone(),
        });
        Ok(Self { send: SendQueue::new(&shared, token), recv: ReceiveQueue::new(&shared) })
    }

    fn shared(&self) -> &Shared {
        &self.send.shared
    }

    /// Its number.
    pub fn qp_num(&self) -> Qpn {
        self.shared().device.qp_num()
    }

    /// Its transport service.
    pub fn qp_type(&self) -> QpType {
        self.shared().device.qp_type()
    }

    /// What was granted of what was asked for at creation; at least that.
    pub fn cap(&self) -> QpCap {
        self.shared().device.cap()
    }

    /// The protection domain it belongs to.
    pub fn pd(&self) -> &ProtectionDomain {
        &self.shared().pd
    }

    /// Where its sends complete.
    pub fn send_cq(&self) -> &CompletionQueue {
        &self.shared().send_cq
    }

    /// Where its receives complete.
    pub fn recv_cq(&self) -> &CompletionQueue {
        &self.shared().recv_cq
    }

    /// What the peer must know to connect to it.
    pub fn address(&self) -> QpAddress {
        self.shared().context.address_of(self.qp_num(), self.shared().psn)
    }

    /// Its state.
    pub fn state(&self) -> QpState {
        self.query().qp_state
    }

    /// Its attributes (`ibv_query_qp(3)`).
    pub fn query(&self) -> QpAttr {
        self.shared().device.query()
    }

    /// Changes the attributes that `mask` names (`ibv_modify_qp(3)`).
    ///
    /// # Errors
    /// The transition is illegal, attributes are missing, superfluous or out of range, or the peer cannot be found. Nothing has changed then.
    pub fn modify(&mut self, attr: &QpAttr, mask: QpAttrMask) -> Result<()> {
        self.shared().device.modify(attr, mask)
    }

    /// Connects to a peer with default attributes: RESET to INIT, RTR and RTS. Receives may be posted before or after. The path MTU is that of
    /// our port; a peer whose port has a smaller one needs [`connect_with`](Self::connect_with) on both sides.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub fn connect(&mut self, peer: &QpAddress) -> Result<()> {
        let mut with = Connection::default();
        let active = self.shared().context.device.profile().port.active_mtu;
        if active.bytes() < with.path_mtu.bytes() {
            with.path_mtu = active;
        }
        self.connect_with(peer, &with)
    }

    /// Connects to a peer with these attributes.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub fn connect_with(&mut self, peer: &QpAddress, with: &Connection) -> Result<()> {
        let device = &self.shared().context.device;
        let sgid_index = with.sgid_index.unwrap_or_else(|| device.gid_index_towards(Some(&peer.gid)));
        let ah_attr = AddressVector { sl: with.sl, sgid_index, ..peer.address_vector() };
        let mut attr = QpAttr {
            qp_state: QpState::Init,
            qp_access_flags: with.access,
            pkey_index: with.pkey_index,
            port_num: limits::PORT,
            path_mtu: with.path_mtu,
            dest_qp_num: peer.qpn,
            rq_psn: peer.psn,
            ah_attr,
            max_dest_rd_atomic: with.max_dest_rd_atomic,
            min_rnr_timer: with.min_rnr_timer,
            sq_psn: self.shared().psn,
            timeout: with.timeout,
            retry_cnt: with.retry_cnt,
            rnr_retry: with.rnr_retry,
            max_rd_atomic: with.max_rd_atomic,
            ..QpAttr::default()
        };
        let reliable = self.qp_type() == QpType::Rc;
        if self.state() == QpState::Reset {
            self.modify(
                &attr,
                QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT | QpAttrMask::ACCESS_FLAGS,
            )?;
        }
        attr.qp_state = QpState::Rtr;
        let mut mask = QpAttrMask::STATE
            | QpAttrMask::AV
            | QpAttrMask::PATH_MTU
            | QpAttrMask::DEST_QPN
            | QpAttrMask::RQ_PSN;
        if reliable {
            mask |= QpAttrMask::MAX_DEST_RD_ATOMIC | QpAttrMask::MIN_RNR_TIMER;
        }
        self.modify(&attr, mask)?;
        attr.qp_state = QpState::Rts;
        let mut mask = QpAttrMask::STATE | QpAttrMask::SQ_PSN;
        if reliable {
            mask |= QpAttrMask::TIMEOUT
                | QpAttrMask::RETRY_CNT
                | QpAttrMask::RNR_RETRY
                | QpAttrMask::MAX_QP_RD_ATOMIC;
        }
        self.modify(&attr, mask)
    }

    /// Brings a datagram queue pair from RESET to RTS with this Q_Key.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub fn activate_ud(&mut self, qkey: u32) -> Result<()> {
        let mut attr = QpAttr {
            qp_state: QpState::Init,
            qkey,
            port_num: limits::PORT,
            sq_psn: self.shared().psn,
            ..QpAttr::default()
        };
        self.modify(&attr, QpAttrMask::STATE | QpAttrMask::PKEY_INDEX | QpAttrMask::PORT | QpAttrMask::QKEY)?;
        attr.qp_state = QpState::Rtr;
        self.modify(&attr, QpAttrMask::STATE)?;
        attr.qp_state = QpState::Rts;
        self.modify(&attr, QpAttrMask::STATE | QpAttrMask::SQ_PSN)
    }

    /// Takes it out of service: what is posted completes with [`WcStatus::WrFlushErr`](crate::WcStatus::WrFlushErr).
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub fn to_error(&mut self) -> Result<()> {
        self.modify(&QpAttr { qp_state: QpState::Err, ..QpAttr::default() }, QpAttrMask::STATE)
    }

    /// Back to RESET: nothing posted, nobody connected, no completions of what was.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify), or a stopped peer is in the middle of a send to it.
    pub fn reset(&mut self) -> Result<()> {
        self.modify(&QpAttr { qp_state: QpState::Reset, ..QpAttr::default() }, QpAttrMask::STATE)
    }

    /// See [`SendQueue::post`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn post(&mut self, build: impl FnOnce(&mut SendWrs<'_>)) -> Result<(), PostError> {
        self.send.post(build)
    }

    /// See [`ReceiveQueue::post_recv`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn post_recv(&mut self, build: impl FnOnce(&mut ReceiveWrs<'_>)) -> Result<(), PostError> {
        self.recv.post_recv(build)
    }

    /// The buffer that was lent to the work request of this completion, be it a send or a receive.
    pub fn take_buffer(&mut self, wc: &WorkCompletion) -> Option<Buffer> {
        if wc.opcode.is_recv() { self.recv.take_buffer(wc) } else { self.send.take_buffer(wc) }
    }

    /// The halves, for threads of their own. The queue pair lives until both are dropped.
    pub fn split(self) -> (SendQueue, ReceiveQueue) {
        (self.send, self.recv)
    }

    /// The halves, and what is left when they are taken away. The queue pair lives until all three are dropped.
    pub fn into_parts(self) -> (SendQueue, ReceiveQueue, QpControl) {
        let control = QpControl::new(&self.send.shared);
        (self.send, self.recv, control)
    }

    /// The halves, to use in turn.
    pub fn halves(&mut self) -> (&mut SendQueue, &mut ReceiveQueue) {
        (&mut self.send, &mut self.recv)
    }
}
