//! Queue pairs. Each is laid out as an extended one, because a program may take any for one.

use crate::abi::*;
use crate::acks::Acks;
use crate::attr;
use crate::context::{Context, Known, context_of};
use crate::cq::Cq;
use crate::errno::Errno;
use crate::export::{export, function};
use crate::lock::Lock;
use crate::object::{Object, Out};
use crate::pd::Pd;
use crate::queues::{Receiving, Sending, Sent};
use crate::srq::Srq;
use crate::watch::{self, Attributes, Use};
use crate::wr::{self, Sends};
use core::cell::UnsafeCell;
use core::ffi::c_int;
use std::time::{Duration, Instant};
use tbrdma::{QpControl, QpInit, ReceiveQueue};
use tbrdma_proto::{QpAttr, QpAttrMask, QpCap, QpState, QpType};

/// A queue pair.
#[repr(C)]
pub(crate) struct Qp {
    /// The program writes `wr_id` and `wr_flags` of it, between a start and a completion.
    pub(crate) c: UnsafeCell<ibv_qp_ex>,
    pub(crate) sends: Lock<Sends>,
    pub(crate) receives: Lock<ReceiveQueue>,
    control: QpControl,
    pub(crate) cap: QpCap,
    pub(crate) is_datagram: bool,
    /// What it was created with; the pointers are the program's.
    init: ibv_qp_init_attr,
    context: *mut ibv_context,
    pd: *mut ibv_pd,
    pub(crate) async_events: Acks,
    is_extended: bool,
    /// Later ones have larger numbers.
    pub(crate) order: u32,
    pub(crate) sending: Sending,
    pub(crate) receiving: Receiving,
}

/// How long a queue pair whose lock is held is left alone.
const BUSY: Duration = Duration::from_micros(100);

// SAFETY: `state` of the C structure changes under both locks; what the program writes of it belongs to the thread that holds `sends`.
unsafe impl Sync for Qp {}

impl Object for Qp {
    type C = ibv_qp;
}

/// The objects of a queue pair. Each has one user more while it lives.
struct Uses<'a> {
    pd: &'a Pd,
    send_cq: &'a Cq,
    recv_cq: &'a Cq,
    srq: Option<&'a Srq>,
}

impl<'a> Uses<'a> {
    fn of(
        pd: *mut ibv_pd,
        send_cq: *mut ibv_cq,
        recv_cq: *mut ibv_cq,
        srq: *mut ibv_srq,
    ) -> Result<Self, Errno> {
        // SAFETY: a domain of the program's, or NULL; so for the others.
        let pd = unsafe { Pd::of(pd).as_ref() }.ok_or(Errno::EINVAL)?;
        // SAFETY: as above.
        let send_cq = unsafe { Cq::of(send_cq).as_ref() }.ok_or(Errno::EINVAL)?;
        // SAFETY: as above.
        let recv_cq = unsafe { Cq::of(recv_cq).as_ref() }.ok_or(Errno::EINVAL)?;
        // SAFETY: as above.
        let srq = unsafe { Srq::of(srq).as_ref() };
        Ok(Uses { pd, send_cq, recv_cq, srq })
    }

    fn all(&self) -> impl Iterator<Item = &'a crate::object::Users> {
        let Self { pd, send_cq, recv_cq, srq } = *self;
        [&pd.users, &send_cq.users, &recv_cq.users].into_iter().chain(srq.map(|srq| &srq.users))
    }
}

impl Qp {
    fn create(
        pd: *mut ibv_pd,
        init: &mut ibv_qp_init_attr,
        send_ops: Option<u64>,
    ) -> Result<*mut Self, Errno> {
        let uses = Uses::of(pd, init.send_cq, init.recv_cq, init.srq)?;
        let context = uses.pd.context().own()?;
        context.expect("completion queue", uses.send_cq.context())?;
        context.expect("completion queue", uses.recv_cq.context())?;
        if let Some(srq) = uses.srq {
            context.expect("shared receive queue", srq.context())?;
        }
        let qp_type = QpType::from_raw(init.qp_type).ok_or(Errno::EOPNOTSUPP)?;
        let asked = init.cap;
        let mut request = QpInit::new(qp_type, &uses.send_cq.inner)
            .recv_cq(&uses.recv_cq.inner)
            .max_send_wr(asked.max_send_wr)
            .max_recv_wr(asked.max_recv_wr)
            .max_send_sge(asked.max_send_sge)
            .max_recv_sge(asked.max_recv_sge)
            .max_inline_data(asked.max_inline_data)
            .sq_sig_all(init.sq_sig_all != 0);
        let srq = uses.srq.map(|srq| srq.inner.lock());
        if let Some(srq) = &srq {
            request = request.srq(srq);
        }
        let (send, receives, control) = uses.pd.inner.create_qp(request)?.into_parts();
        drop(srq);
        for users in uses.all() {
            users.add();
        }
        let cap = control.cap();
        init.cap = (&cap).into();
        let qp_num = control.qp_num().get();
        let base = ibv_qp {
            context: context.c(),
            qp_context: init.qp_context,
            pd: uses.pd.c(),
            send_cq: init.send_cq,
            recv_cq: init.recv_cq,
            srq: init.srq,
            handle: qp_num,
            qp_num,
            state: 0,
            qp_type: init.qp_type,
            mutex: libc::PTHREAD_MUTEX_INITIALIZER,
            cond: libc::PTHREAD_COND_INITIALIZER,
            events_completed: 0,
        };
        let qp = context.given.give(Box::new(Self {
            c: UnsafeCell::new(wr::table(base, send_ops.unwrap_or(0), qp_type)),
            sends: Lock::new(Sends::new(send)),
            receives: Lock::new(receives),
            control,
            cap,
            is_datagram: qp_type == QpType::Ud,
            init: *init,
            context: context.c(),
            pd: uses.pd.c(),
            async_events: Acks::default(),
            is_extended: send_ops.is_some(),
            order: context.opened.handle(),
            sending: Sending::default(),
            receiving: Receiving::default(),
        }));
        context.objects().qps.insert(qp_num, Known(qp));
        if watch::is_explained() {
            Self::explain(context, &asked);
        }
        Ok(qp)
    }

    /// What creating one with these sizes used, for the report.
    #[cold]
    fn explain(context: &Context, asked: &ibv_qp_cap) {
        context.uses(Use::Qps, context.objects().qps.len());
        context.uses(Use::AskedWr, asked.max_send_wr.max(asked.max_recv_wr) as usize);
        context.uses(Use::AskedSge, asked.max_send_sge.max(asked.max_recv_sge) as usize);
        context.uses(Use::AskedInline, asked.max_inline_data as usize);
    }

    /// A send request is about to be posted, with so many entries or bytes.
    pub(crate) fn sends(&self, sent: Sent, entries: usize, inline: usize) {
        // One more than there is room for is refused.
        let count = self.sending.add(sent).min(self.cap.max_send_wr as usize);
        if watch::is_explained() {
            let number = self.control.qp_num();
            watch::uses(Use::Sends, count, self.cap.max_send_wr, format_args!("QP {number}"));
            watch::uses(Use::SendSges, entries, self.cap.max_send_sge, format_args!("QP {number}"));
            watch::uses(Use::Inline, inline, self.cap.max_inline_data, format_args!("QP {number}"));
        }
    }

    /// Moves it to the error state, as the fault plan wants it. If somebody has its locks, perhaps the caller (from `ibv_wr_start` on), soon after.
    #[cold]
    pub(crate) fn break_down(&self) {
        let (sends, receives) = (self.sends.try_lock(), self.receives.try_lock());
        let (Some(mut sends), Some(mut receives)) = (sends, receives) else {
            let qp_num = self.control.qp_num().get();
            self.context().opened.later(Instant::now() + BUSY, move |objects| {
                if let Some(known) = objects.qps.get(&qp_num) {
                    // SAFETY: in the table of objects, which is locked.
                    unsafe { &*known.0 }.break_down();
                }
            });
            return;
        };
        let attr = QpAttr { qp_state: QpState::Err, ..QpAttr::default() };
        // A queue pair that has not begun cannot fail.
        if self.control.modify(&mut sends.queue, &mut receives, &attr, QpAttrMask::STATE).is_ok() {
            // SAFETY: both locks are held.
            unsafe { (*self.c()).state = attr.qp_state.raw() };
            self.receiving.shows(true, |list| receives.post_recv(list));
        }
    }

    /// Its state has changed, for somebody who watches: what is hidden goes with what is flushed, and a reset forgets everything.
    #[cold]
    fn has_moved(&self, receives: &mut ReceiveQueue, state: QpState) {
        match state {
            QpState::Err => self.receiving.shows(true, |list| receives.post_recv(list)),
            QpState::Reset => self.forget(),
            _ => {}
        }
    }

    /// Forgets what was posted.
    fn forget(&self) {
        self.sending.clear();
        self.receiving.clear();
        let qp_num = self.control.qp_num().get();
        for cq in [self.init.send_cq, self.init.recv_cq] {
            // SAFETY: a queue pair is among the users of its completion queues.
            unsafe { &*Cq::of(cq) }.late.purge(qp_num);
        }
    }

    /// Posts, at that time, the receives that are hidden until then.
    #[cold]
    pub(crate) fn show_receives_at(&self, due: Instant) {
        let qp_num = self.control.qp_num().get();
        self.context().opened.later(due, move |objects| {
            if let Some(known) = objects.qps.get(&qp_num) {
                // SAFETY: in the table of objects, which is locked.
                let qp = unsafe { &*known.0 };
                let mut receives = qp.receives.lock();
                qp.receiving.shows(false, |list| receives.post_recv(list));
            }
        });
    }

    pub(crate) fn qp_type(&self) -> QpType {
        self.control.qp_type()
    }

    pub(crate) fn state(&self) -> QpState {
        self.control.query().qp_state
    }

    /// Whether completions of it go to this queue.
    pub(crate) fn completes_in(&self, cq: &Cq) -> bool {
        [self.init.send_cq, self.init.recv_cq].contains(&cq.c())
    }

    /// Whether its receives come from this queue.
    pub(crate) fn takes_from(&self, srq: &Srq) -> bool {
        self.init.srq == srq.c()
    }

    /// The receives that it takes from: its own, or those it shares.
    pub(crate) fn receiving(&self) -> &Receiving {
        // SAFETY: a queue pair is among the users of its shared receive queue, or has none.
        unsafe { Srq::of(self.init.srq).as_ref() }.map_or(&self.receiving, |srq| &srq.receiving)
    }

    /// Whether each send request is to report, whatever it says itself.
    pub(crate) fn reports_all(&self) -> bool {
        self.init.sq_sig_all != 0
    }

    pub(crate) fn c(&self) -> *mut ibv_qp {
        self.c.get().cast()
    }

    pub(crate) fn context(&self) -> &Context {
        // SAFETY: a queue pair in use.
        unsafe { context_of(self.context) }
    }

    fn uses(&self) -> Result<Uses<'_>, Errno> {
        Uses::of(self.pd, self.init.send_cq, self.init.recv_cq, self.init.srq)
    }
}

export! {
    "IBVERBS_1.1" pointer fn ibv_create_qp(pd: &Pd, init: *mut ibv_qp_init_attr) -> *mut ibv_qp {
        // SAFETY: the program passes the structure, and wants what was granted in it.
        let init = unsafe { init.as_mut() }.ok_or(Errno::EINVAL)?;
        Ok(Qp::create(pd.c(), init, None)?.cast())
    }

    "IBVERBS_1.1" errno fn ibv_modify_qp(qp: &Qp, attr: &ibv_qp_attr, mask: c_int) -> c_int {
        qp.context().own()?;
        let (attr, mask) = attr::from_c(attr, mask)?;
        if watch::is_on() {
            watch::detail(format_args!("{}", Attributes(&attr, mask)));
        }
        // In the middle of a list, too: it stays as it is, and what becomes of it is found out when it is posted.
        let mut sends = qp.sends.lock_or_kept();
        let mut receives = qp.receives.lock();
        qp.control.modify(&mut sends.queue, &mut receives, &attr, mask)?;
        if mask.contains(QpAttrMask::STATE) {
            // SAFETY: both locks are held.
            unsafe { (*qp.c()).state = attr.qp_state.raw() };
            if watch::is_on() {
                qp.has_moved(&mut receives, attr.qp_state);
            }
        }
        Ok(())
    }

    "IBVERBS_1.1" errno fn ibv_query_qp(
        qp: &Qp,
        attr: Out<'_, ibv_qp_attr>,
        _mask: c_int,
        init: Option<Out<'_, ibv_qp_init_attr>>,
    ) -> c_int {
        qp.context().own()?;
        attr.put(attr::to_c(&qp.control.query(), &qp.cap));
        if let Some(init) = init {
            init.put(qp.init);
        }
        Ok(())
    }

    "IBVERBS_1.1" errno fn ibv_destroy_qp(qp: &Qp) -> c_int {
        let context = qp.context();
        if !context.is_own() {
            return Ok(());
        }
        let uses = qp.uses()?.all().collect::<Vec<_>>();
        context.objects().qps.remove(&qp.control.qp_num().get());
        context.events.purge(qp);
        qp.async_events.wait("a queue pair");
        qp.forget();
        for users in uses {
            users.remove();
        }
        // SAFETY: the program gives it back, and all its events are acknowledged.
        drop(unsafe { context.given.take_back(qp) });
        Ok(())
    }

    "IBVERBS_1.6" plain fn ibv_qp_to_qp_ex(qp: &Qp) -> *mut ibv_qp_ex {
        Ok(if qp.is_extended { qp.c.get() } else { core::ptr::null_mut() })
    }

    "IBVERBS_1.14" plain fn ibv_query_qp_data_in_order(_qp: &Qp, _opcode: u32, _flags: u32) -> c_int {
        // Nothing is promised: the last byte of a message is placed last, but nobody says so of the others.
        Ok(0)
    }

    "IBVERBS_1.10" errno fn ibv_query_ece(_qp: &Qp, _ece: *mut ibv_ece) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }

    "IBVERBS_1.10" errno fn ibv_set_ece(_qp: &Qp, _ece: *mut ibv_ece) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }

    "IBVERBS_1.1" errno fn ibv_attach_mcast(_qp: &Qp, _gid: *mut ibv_gid, _lid: u16) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }

    "IBVERBS_1.1" errno fn ibv_detach_mcast(_qp: &Qp, _gid: *mut ibv_gid, _lid: u16) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }
}

function! {
    /// `ibv_create_qp_ex(3)`.
    pointer fn create_qp_ex(context: &Context, init: *mut ibv_qp_init_attr_ex) -> *mut ibv_qp {
        context.own()?;
        // SAFETY: the program passes the structure, and wants what was granted in it.
        let init = unsafe { init.as_mut() }.ok_or(Errno::EINVAL)?;
        const KNOWN: u32 = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        if init.comp_mask & !KNOWN != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if init.comp_mask & IBV_QP_INIT_ATTR_PD == 0 {
            return Err(Errno::EINVAL);
        }
        if init.comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS != 0 && init.create_flags != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut send_ops = None;
        if init.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS != 0 {
            let qp_type = QpType::from_raw(init.qp_type).ok_or(Errno::EOPNOTSUPP)?;
            if init.send_ops_flags & !wr::offered(qp_type) != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            send_ops = Some(init.send_ops_flags);
        }
        let mut base = ibv_qp_init_attr {
            qp_context: init.qp_context,
            send_cq: init.send_cq,
            recv_cq: init.recv_cq,
            srq: init.srq,
            cap: init.cap,
            qp_type: init.qp_type,
            sq_sig_all: init.sq_sig_all,
        };
        // SAFETY: a domain of the program's, or NULL.
        let pd = unsafe { Pd::of(init.pd).as_ref() }.ok_or(Errno::EINVAL)?;
        context.expect("protection domain", pd.context())?;
        let qp = Qp::create(init.pd, &mut base, send_ops)?;
        init.cap = base.cap;
        Ok(qp.cast())
    }
}
