//! Queue pairs.

use super::attr;
use super::cq::NativeCq;
use super::device::Core;
use super::fault;
use super::handle::Pd;
use super::lock;
use super::numbers::{Account, Bound};
use super::post::{Extra, ReceiveCall, SendCall, at, refusal};
use super::srq::NativeSrq;
use super::window::{Window, lasting};
use super::{explain, neighbour};
use crate::device::{DeviceQp, QpRequest, ReceiveBatch, Refused, SendBatch, SendToken};
use crate::error::{Error, PostRefusal, Result};
use crate::ring::guard::OwnedLock;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tbrdma_abi::*;
use tbrdma_proto::{
    Habits, MwBind, MwType, Opcode, PostErrorKind, QpAttr, QpAttrMask, QpCap, QpState, QpType, Qpn,
    SendFlags, SendRules, SendWr, check_modify, check_values,
};

/// A queue pair.
pub(crate) struct NativeQp {
    core: Arc<Core>,
    pub(super) send: SendCall,
    recv: ReceiveCall<ibv_qp>,
    qp_num: Qpn,
    qp_type: QpType,
    cap: QpCap,
    has_srq: bool,
    sends: Arc<Account>,
    receives: Arc<Account>,
    /// What was set, for libraries that do not answer.
    known: Mutex<QpAttr>,
    // What it uses, which must outlive it.
    _pd: Arc<Pd>,
    _send_cq: Arc<NativeCq>,
    _recv_cq: Arc<NativeCq>,
    srq: Option<Arc<NativeSrq>>,
}

// SAFETY: libibverbs lets several threads use a queue pair.
unsafe impl Send for NativeQp {}
// SAFETY: as above.
unsafe impl Sync for NativeQp {}

impl NativeQp {
    pub(super) fn create(core: &Arc<Core>, request: &QpRequest) -> Result<(Arc<Self>, SendToken)> {
        let call = "create_qp";
        let handle = &core.handle;
        let pd = core.pd(request.pd)?;
        let (send_cq, recv_cq) = (core.own_cq(&request.send_cq)?, core.own_cq(&request.recv_cq)?);
        let srq = request.srq.as_ref().map(|srq| core.own_srq(srq)).transpose()?;
        let send = handle.needs(handle.ops.post_send, call, "sends")?;
        let recv = handle.needs(handle.ops.post_recv, call, "receives")?;
        let mut cap = ibv_qp_cap::from(&request.cap);
        if srq.is_some() {
            // Sizes of a queue that it does not have mean nothing, and some drivers refuse them.
            (cap.max_recv_wr, cap.max_recv_sge) = (0, 0);
        }
        let mut init = ibv_qp_init_attr {
            qp_context: null_mut(),
            send_cq: send_cq.as_ptr(),
            recv_cq: recv_cq.as_ptr(),
            srq: srq.as_ref().map_or(null_mut(), |srq| srq.as_ptr()),
            cap,
            qp_type: request.qp_type.raw(),
            sq_sig_all: 0,
        };
        // SAFETY: a domain, queues and a shared queue of this context, all alive.
        let qp = unsafe { (handle.library.ibv_create_qp)(pd.as_ptr(), &raw mut init) };
        let qp = fault::object(call, &handle.name, qp)
            .map_err(|error| explain::creation(error, &core.profile, request))?;
        // SAFETY: made just now; its number does not change.
        let qp_num = Qpn::masked(unsafe { (*qp.as_ptr()).qp_num });
        let cap = QpCap::from(&init.cap);
        let qp = Arc::new(Self {
            core: Arc::clone(core),
            send: SendCall { qp, post: send },
            recv: ReceiveCall { queue: qp, post: recv },
            qp_num,
            qp_type: request.qp_type,
            cap,
            has_srq: srq.is_some(),
            sends: Account::new(false),
            receives: Account::new(true),
            known: Mutex::new(QpAttr { cap, ..QpAttr::default() }),
            _pd: pd,
            _send_cq: send_cq,
            _recv_cq: recv_cq,
            srq,
        });
        // One thread at a time posts, as the token's owner; the library has its own locks.
        let (_, token) = OwnedLock::new(());
        Ok((qp, token))
    }

    fn as_ptr(&self) -> *mut ibv_qp {
        self.send.qp.as_ptr()
    }

    /// Any list.
    fn post_any(&self, batch: &mut SendBatch) -> (u32, Option<Refused>) {
        let first = self.number_sends(batch);
        let mut begun = 0;
        let mut stopped = None;
        // A window of type 1 is bound by a call of its own, between what comes before and after.
        let is_bound_by_call = |wr: &SendWr| wr.opcode == Opcode::BindMw && self.core.is_type_1(&wr.bind());
        while stopped.is_none() && begun < batch.wrs.len() {
            let rest = &batch.wrs[begun..];
            let end = rest.iter().position(is_bound_by_call).map_or(batch.wrs.len(), |at| begun + at);
            stopped = self.post_range(batch, begun..end);
            begun = end;
            if stopped.is_none() && end < batch.wrs.len() {
                stopped = self.bind_by_call(batch, end).map(|error| (end, Ok(error)));
                begun += 1;
            }
        }
        let posted = stopped.as_ref().map_or(batch.wrs.len(), |(position, _)| *position);
        for (position, ticket) in batch.room.tickets.drain(..) {
            if position >= posted {
                self.core.tickets.revoke(ticket);
            }
        }
        let refused = stopped.map(|(position, why)| match why {
            Ok(error) => self.refused_send(batch, position, error),
            Err(refusal) => (position, refusal),
        });
        (first, refused)
    }

    /// A part of a list that the library takes as one.
    fn post_range(
        &self,
        batch: &mut SendBatch,
        range: Range<usize>,
    ) -> Option<(usize, Result<io::Error, PostRefusal>)> {
        if range.is_empty() {
            return None;
        }
        let is_datagram = self.qp_type == QpType::Ud;
        self.send.post_list(&self.core, batch, range, |wr, remembered| {
            match (&wr.ud, wr.opcode) {
                (Some(to), _) if is_datagram => {
                    let ah = remembered.find(&self.core, to.ah);
                    let ah = ah.ok_or(PostRefusal::WorkRequest(PostErrorKind::MissingUdDestination))?;
                    let (remote_qpn, remote_qkey) = (to.qpn.get(), to.qkey);
                    Ok(Extra::Datagram(ibv_send_wr_ud { ah, remote_qpn, remote_qkey }))
                }
                // Without a destination a driver would follow a pointer to nowhere.
                (None, opcode) if is_datagram => Err(PostRefusal::WorkRequest(match opcode {
                    Opcode::Send | Opcode::SendWithImm => PostErrorKind::MissingUdDestination,
                    opcode => PostErrorKind::OpcodeNotSupported { opcode, qp_type: QpType::Ud },
                })),
                (_, Opcode::BindMw) => self.core.bind(&wr.bind()),
                _ => Ok(Extra::None),
            }
        })
    }

    /// Binds a window of type 1: the library gives it its next key.
    fn bind_by_call(&self, batch: &SendBatch, position: usize) -> Option<io::Error> {
        let invalid = || io::Error::from_raw_os_error(nix::libc::EINVAL);
        let wr = batch.wrs.get(position)?;
        let Ok(Extra::Bind(bind)) = self.core.bind(&wr.bind()) else { return Some(invalid()) };
        let Some(call) = self.core.handle.ops.bind_mw else {
            return Some(io::Error::from_raw_os_error(nix::libc::EOPNOTSUPP));
        };
        let ticket = batch.room.tickets.iter().find(|(at, _)| *at == position);
        let wr_id = ticket.map_or(wr.wr_id, |(_, ticket)| *ticket);
        let mut how = ibv_mw_bind { wr_id, send_flags: wr.flags.bits(), bind_info: bind.bind_info };
        // SAFETY: a live queue pair whose only poster we are, a window and a region of this context that the program holds.
        let returned = unsafe { call(self.as_ptr(), bind.mw, &raw mut how) };
        if let Some(error) = fault::failure(returned) {
            return Some(error);
        }
        let MwBind { window, lkey: region, .. } = wr.bind();
        let key = self.core.windows(|windows| windows.get(&lasting(window)).map(Window::library_key));
        let bound = key.map(|key| Bound { window, key, region });
        match (ticket, bound) {
            (Some((_, ticket)), Some(bound)) => self.core.tickets.binds(*ticket, bound),
            (None, Some(bound)) => self.core.is_bound(bound),
            (_, None) => {}
        }
        None
    }

    /// Numbers for a list that wants them, and tickets for what will complete.
    fn number_sends(&self, batch: &mut SendBatch) -> u32 {
        let binds = |wr: &SendWr| wr.opcode == Opcode::BindMw;
        if !batch.numbered && !batch.wrs.iter().any(binds) {
            return 0;
        }
        let first = self.sends.number(batch.wrs.len());
        batch.room.tickets.clear();
        for (position, wr) in batch.wrs.iter().enumerate() {
            let bind = wr.bind();
            let bound = binds(wr).then_some(Bound { window: bind.window, key: bind.rkey, region: bind.lkey });
            if wr.flags.contains(SendFlags::SIGNALED) {
                let number = first + position as u32;
                let ticket = self.core.tickets.issue(&self.sends, number, wr.wr_id, bound);
                batch.room.tickets.push((position, ticket));
            } else if let Some(bound) = bound {
                // Nothing will tell that it was carried out.
                self.core.is_bound(bound);
            }
        }
        first
    }

    /// What the library did not take, and why: what our own rules find wrong with it says more than its error.
    #[cold]
    pub(super) fn refused_send(&self, batch: &SendBatch, position: usize, error: io::Error) -> Refused {
        let rules = SendRules {
            qp_type: self.qp_type,
            max_send_sge: self.cap.max_send_sge,
            max_inline_data: self.cap.max_inline_data,
            max_msg_size: u64::MAX,
            path_mtu: self.core.profile.port.active_mtu,
            habits: Habits::default(),
        };
        let check = |wr: &SendWr| {
            let (sges, inline) = batch.operands(wr);
            rules.check(wr, sges, inline.len()).err()
        };
        let state = self.query().qp_state;
        if matches!(state, QpState::Reset | QpState::Init | QpState::Rtr) {
            return (position, PostRefusal::State(state));
        }
        let wrong = batch.wrs.get(position).and_then(check);
        (position, refusal(error, self.cap.max_send_wr, wrong))
    }

    fn query_library(&self) -> Option<QpAttr> {
        let query = self.core.handle.library.ibv_query_qp?;
        let mut answer = MaybeUninit::<ibv_qp_attr>::zeroed();
        let mut init = MaybeUninit::<ibv_qp_init_attr>::zeroed();
        let every = QpAttrMask::all() - QpAttrMask::RATE_LIMIT;
        // SAFETY: a live queue pair, and room for both answers.
        let failed =
            unsafe { query(self.as_ptr(), answer.as_mut_ptr(), every.bits() as c_int, init.as_mut_ptr()) };
        // SAFETY: numbers, of which any bits are some.
        let answer = unsafe { answer.assume_init() };
        (failed == 0).then(|| QpAttr::from(&answer))
    }

    fn explained(&self, attr: &QpAttr, mask: QpAttrMask, before: QpState, source: io::Error) -> Error {
        let next = if mask.contains(QpAttrMask::STATE) { attr.qp_state } else { before };
        if source.raw_os_error() == Some(nix::libc::EINVAL) {
            if mask.contains(QpAttrMask::CUR_STATE) && attr.cur_qp_state != before {
                let reason =
                    format!("cur_qp_state is {}, QP {} is in {before}", attr.cur_qp_state, self.qp_num);
                return Error::InvalidArgument { call: "modify_qp", reason };
            }
            let profile = &self.core.profile;
            let rules = check_modify(self.qp_type, before, next, mask)
                .and_then(|()| check_values(attr, mask, &profile.device, &profile.port));
            if let Err(source) = rules {
                return Error::Modify { qp_num: self.qp_num, source };
            }
        }
        explain::modification(&self.core, self.qp_num, next, attr, mask, source)
    }
}

impl DeviceQp for NativeQp {
    fn qp_num(&self) -> Qpn {
        self.qp_num
    }

    fn qp_type(&self) -> QpType {
        self.qp_type
    }

    fn cap(&self) -> QpCap {
        self.cap
    }

    fn post_send(&self, _token: &mut SendToken, batch: &mut SendBatch) -> (u32, Option<Refused>) {
        self.post_any(batch)
    }

    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>) {
        if self.has_srq {
            return (0, at(0, PostRefusal::UsesSharedReceiveQueue));
        }
        let first = self.core.number_receives(&self.receives, batch);
        let stopped = self.recv.post_list(batch);
        let refused = stopped.map(|(position, error)| {
            let refusal = match self.query().qp_state {
                QpState::Reset => PostRefusal::State(QpState::Reset),
                _ => self.core.refused_receive(error, batch, self.cap.max_recv_wr, self.cap.max_recv_sge),
            };
            (position, refusal)
        });
        self.core.keep_tickets(batch, refused.as_ref());
        (first, refused)
    }

    fn modify(&self, attr: &QpAttr, mask: QpAttrMask) -> Result<()> {
        let before = self.query().qp_state;
        if mask.contains(QpAttrMask::AV) && self.qp_type.is_connected() {
            neighbour::greet(&self.core, &attr.ah_attr);
        }
        let mut c = ibv_qp_attr::from(attr);
        let once = |c: &mut ibv_qp_attr| {
            // SAFETY: a live queue pair, and attributes.
            let modify = self.core.handle.library.ibv_modify_qp;
            // SAFETY: as above.
            fault::failure(unsafe { modify(self.as_ptr(), c, mask.bits() as c_int) })
        };
        let failed = neighbour::patiently(&self.core, attr, mask, || once(&mut c));
        if let Some(source) = failed {
            return Err(self.explained(attr, mask, before, source));
        }
        attr::remember(&mut lock(&self.known), attr, mask);
        if mask.contains(QpAttrMask::STATE) && attr.qp_state == QpState::Reset {
            for account in [&self.sends, &self.receives] {
                self.core.tickets.forget(account);
            }
        }
        Ok(())
    }

    fn query(&self) -> QpAttr {
        self.query_library().unwrap_or_else(|| *lock(&self.known))
    }

    fn native(self: Arc<Self>) -> Option<Arc<NativeQp>> {
        // A datagram's destination must be looked up.
        self.qp_type.is_connected().then_some(self)
    }

    fn sends_retired(&self) -> u32 {
        self.sends.retired()
    }

    fn is_receive_retired(&self, number: u32) -> bool {
        // One that a shared queue gave has a number of that queue's.
        self.srq.is_none() && self.receives.has_ended(number)
    }

    fn destroy(&self) {
        // When the last holder lets go, which is next.
    }
}

impl Drop for NativeQp {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once, and nobody posts any more: who could, held it.
        unsafe { (self.core.handle.library.ibv_destroy_qp)(self.as_ptr()) };
        for account in [&self.sends, &self.receives] {
            self.core.tickets.forget(account);
        }
    }
}

impl Core {
    fn is_type_1(&self, bind: &MwBind) -> bool {
        let is_type_1 = |window: &Window| window.mw_type == MwType::Type1;
        self.windows(|windows| windows.get(&lasting(bind.window)).is_some_and(is_type_1))
    }

    /// A binding was carried out: its key is the window's.
    pub(super) fn is_bound(&self, bound: Bound) {
        self.windows(|windows| {
            if let Some(window) = windows.get_mut(&lasting(bound.window)) {
                window.key = bound.key;
                window.region = Some(bound.region);
            }
        });
    }
}
