//! A queue pair: what it is made of, its creation and destruction, its states.

use super::core::{Core, lock, write};
use super::cq::SoftCq;
use super::ledger::Ledger;
use super::path::Path;
use super::srq::SoftSrq;
use crate::device::{DeviceQp, QpRequest, ReceiveBatch, Refused, SendBatch, SendToken};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::link::Train;
use crate::ring::guard::OwnedLock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tbrdma_proto::transport::{Pending, Qp, QpConfig};
use tbrdma_proto::{QpAttr, QpAttrMask, QpCap, QpState, QpType, Qpn, Time, limits};

/// Numbers of destroyed queue pairs that rest, so that a packet on its way does not find somebody else.
const RETIRED: usize = 4096;

/// What a queue pair's lock guards.
pub(crate) struct Inner {
    pub(crate) qp: Qp,
    /// The way to the connected peer.
    pub(crate) path: Option<Path>,
    /// What datagrams to it must carry.
    pub(crate) qkey: u32,
    /// When the timers will look at it; never later than it wants.
    pub(crate) timer: Time,
    /// The shared receive that it has taken and not completed yet.
    pub(crate) taken: Option<u32>,
    /// The number that the next send gets.
    pub(crate) next_send: u32,
    /// The number that the next receive of its own gets.
    pub(crate) next_receive: u32,
    /// What it has sent, and the link has no room for yet.
    pub(crate) waiting: VecDeque<Train>,
    /// It is among those that are tried again.
    pub(crate) is_stalled: bool,
}

/// A queue pair.
pub(crate) struct SoftQp {
    pub(crate) core: Arc<Core>,
    pub(crate) qpn: Qpn,
    pub(crate) qp_type: QpType,
    pub(crate) cap: QpCap,
    pub(crate) send_cq: Arc<SoftCq>,
    pub(crate) recv_cq: Arc<SoftCq>,
    pub(crate) srq: Option<Arc<SoftSrq>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) inner: Mutex<Inner>,
}

impl SoftQp {
    pub(crate) fn create(core: &Arc<Core>, request: &QpRequest) -> Result<(Arc<Self>, SendToken)> {
        const CALL: &str = "create_qp";
        let foreign = |what: &str| Error::InvalidArgument {
            call: CALL,
            reason: format!("the {what} belongs to another context"),
        };
        let send_cq = SoftCq::own(core, &request.send_cq).ok_or_else(|| foreign("send completion queue"))?;
        let recv_cq =
            SoftCq::own(core, &request.recv_cq).ok_or_else(|| foreign("receive completion queue"))?;
        let srq = match &request.srq {
            None => None,
            Some(srq) => Some(SoftSrq::own(core, srq).ok_or_else(|| foreign("shared receive queue"))?),
        };
        let cap = request.granted()?;
        if request.qp_type == QpType::Ud {
            core.link.tell_network_fields();
        }
        let mut table = write(&core.qps);
        if table.len() >= limits::MAX_QP as usize {
            let limit = u64::from(limits::MAX_QP);
            return Err(Error::LimitReached { call: CALL, what: "queue pairs", limit });
        }
        let retired = lock(&core.retired);
        let qpn = loop {
            // Peers must not guess which numbers are in use.
            let low = core.random_u32().map_err(Error::os(CALL, "random numbers"))? as u16;
            let qpn = core.link.qpn_tag().qpn(low);
            // 0 and 1 belong to the subnet's own services, and the last one means "everybody".
            if (2..0x00ff_ffff).contains(&qpn) && !table.contains_key(&qpn) && !retired.contains(&qpn) {
                break Qpn::masked(qpn);
            }
        };
        drop(retired);
        let config = QpConfig {
            qpn,
            qp_type: request.qp_type,
            pd: request.pd,
            cap,
            shared_receives: srq.is_some(),
            device: core.profile.device.clone(),
            port: core.profile.port,
            habits: core.profile.switches.habits(),
        };
        let mut qp = Qp::new(config);
        qp.path_delivers(core.promises.delivers);
        let inner = Inner {
            qp,
            path: None,
            qkey: 0,
            timer: Time::NEVER,
            taken: None,
            next_send: 0,
            next_receive: 0,
            waiting: VecDeque::new(),
            is_stalled: false,
        };
        let qp = Arc::new(Self {
            core: Arc::clone(core),
            qpn,
            qp_type: request.qp_type,
            cap,
            send_cq,
            recv_cq,
            ledger: Arc::new(Ledger::new(srq.clone())),
            srq,
            inner: Mutex::new(inner),
        });
        core.timers.welcome(qpn.get());
        table.insert(qpn.get(), Arc::clone(&qp));
        // What the token opens is `inner`'s lock here, which everyone may take.
        let (_, token) = OwnedLock::new(());
        Ok((qp, token))
    }

    /// What has arrived is acknowledged before the queue pair ends. A peer must not take a message for lost that was delivered.
    fn say_last_words(&self, inner: &mut Inner, now: Time) {
        inner.qp.acknowledge_now();
        if inner.qp.pending(now) != Pending::Nothing {
            self.settle(inner, now);
        }
    }

    /// The port was down, and is up again.
    pub(crate) fn path_is_back(&self, now: Time) {
        let mut inner = lock(&self.inner);
        inner.qp.path_is_back();
        if inner.qp.pending(now) != Pending::Nothing {
            self.settle(&mut inner, now);
        }
    }

    /// Forgets what was posted and has not been polled.
    fn forget_work(&self, inner: &mut Inner) {
        self.core.leave_behind(inner);
        self.send_cq.purge(&self.ledger);
        self.recv_cq.purge(&self.ledger);
        // Running numbers run on.
        self.ledger.restart(inner.next_send, inner.next_receive);
        if let (Some(number), Some(srq)) = (inner.taken.take(), &self.srq) {
            srq.retire(number);
        }
    }
}

impl DeviceQp for SoftQp {
    fn qp_num(&self) -> Qpn {
        self.qpn
    }

    fn qp_type(&self) -> QpType {
        self.qp_type
    }

    fn cap(&self) -> QpCap {
        self.cap
    }

    fn post_send(&self, _token: &mut SendToken, batch: &mut SendBatch) -> (u32, Option<Refused>) {
        self.post_sends(batch)
    }

    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>) {
        self.post_receives(batch)
    }

    fn modify(&self, attr: &QpAttr, mask: QpAttrMask) -> Result<()> {
        const CALL: &str = "modify_qp";
        let connected = self.qp_type.is_connected();
        let path = match mask.contains(QpAttrMask::AV) && connected {
            true => Some(self.core.path_to(CALL, &attr.ah_attr, true)?),
            false => None,
        };
        let becomes_ready = mask.contains(QpAttrMask::STATE) && attr.qp_state == QpState::Rtr;
        if becomes_ready && !connected {
            self.core.listen_everywhere()?;
        }
        let now = self.core.now();
        let mut inner = lock(&self.inner);
        let current = inner.qp.state();
        if mask.contains(QpAttrMask::CUR_STATE) && attr.cur_qp_state != current {
            let reason = format!("cur_qp_state is {}, QP {} is in {current}", attr.cur_qp_state, self.qpn);
            return Err(Error::InvalidArgument { call: CALL, reason });
        }
        if mask.contains(QpAttrMask::STATE) && matches!(attr.qp_state, QpState::Reset | QpState::Err) {
            self.say_last_words(&mut inner, now);
        }
        inner.qp.modify(now, attr, mask).map_err(|source| Error::Modify { qp_num: self.qpn, source })?;
        if let Some(way) = path {
            inner.path = path;
            // At our own address nobody else listens, and packets never get to a wire: trains go whole.
            inner.qp.write_apart(way.source == way.to);
        }
        inner.qkey = inner.qp.query().qkey;
        if inner.qp.state() == QpState::Reset {
            while inner.qp.poll_action().is_some() {}
            self.forget_work(&mut inner);
            inner.path = None;
        }
        self.settle(&mut inner, now);
        Ok(())
    }

    fn query(&self) -> QpAttr {
        lock(&self.inner).qp.query()
    }

    fn sends_retired(&self) -> u32 {
        self.ledger.sends_retired()
    }

    fn is_receive_retired(&self, number: u32) -> bool {
        match &self.srq {
            None => number.wrapping_sub(self.ledger.receives_retired()) >= 1 << 31,
            Some(srq) => crate::device::DeviceSrq::is_retired(&**srq, number),
        }
    }

    fn destroy(&self) {
        self.say_last_words(&mut lock(&self.inner), self.core.now());
        // Whoever handles packets holds the table to read: after this nobody handles any for this queue pair.
        write(&self.core.qps).remove(&self.qpn.get());
        {
            let mut retired = lock(&self.core.retired);
            if retired.len() == RETIRED {
                retired.pop_front();
            }
            retired.push_back(self.qpn.get());
        }
        self.core.timers.forget(self.qpn.get());
        self.core.unbind_queue_pair(self.qpn);
        let mut inner = lock(&self.inner);
        lock(&self.core.past).merge(&inner.qp.counters());
        self.forget_work(&mut inner);
    }
}
