//! Completion queues. Each is laid out as an extended one, because a program may take any for one.

use crate::abi::*;
use crate::acks::Acks;
use crate::channel::Channel;
use crate::context::{Context, Known, context_of};
use crate::errno::Errno;
use crate::export::{export, function};
use crate::late::Late;
use crate::lock::Lock;
use crate::object::{Object, Users};
use crate::pd::Pd;
use crate::poll;
use crate::watch::{self, Use};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tbrdma::{CompletionQueue, WorkCompletion};
use tbrdma_proto::WcStatus;

/// A completion queue.
#[repr(C)]
pub(crate) struct Cq {
    /// The program reads `status` and `wr_id` of it between a start and an end of polling, and only we write it.
    pub(crate) c: UnsafeCell<ibv_cq_ex>,
    pub(crate) inner: CompletionQueue,
    /// The completion that the readers read; locked from the start of polling to its end.
    pub(crate) current: Lock<WorkCompletion>,
    channel: Option<Known<Channel>>,
    pub(crate) completion_events: Acks,
    pub(crate) async_events: Acks,
    /// Queue pairs, and shared receive queues of the extended kinds.
    pub(crate) users: Users,
    pub(crate) late: Late,
    /// The program waits for an event, where completions may be late.
    pub(crate) is_awaited: AtomicBool,
    /// Later ones have larger numbers.
    pub(crate) order: u32,
}

// SAFETY: what changes of the C structure is written by the thread that holds `current`.
unsafe impl Sync for Cq {}

impl Object for Cq {
    type C = ibv_cq;
}

/// What the program asks for.
struct Request {
    cqe: u32,
    cq_context: *mut c_void,
    channel: *mut ibv_comp_channel,
    comp_vector: i64,
}

impl Cq {
    fn create(context: &Context, request: &Request) -> Result<*mut Self, Errno> {
        let vectors = i64::from(VECTORS);
        if !(0..vectors).contains(&request.comp_vector) {
            return Err(Errno::EINVAL);
        }
        // SAFETY: a channel of the program's, or NULL.
        let channel = unsafe { Channel::of(request.channel).as_ref() };
        if let Some(channel) = channel {
            context.expect("completion channel", channel.context())?;
        }
        let inner = match channel {
            None => context.inner().create_cq(request.cqe)?,
            Some(channel) => context.inner().create_cq_on(request.cqe, &channel.inner)?,
        };
        if let Some(channel) = channel {
            channel.users.add();
        }
        let number = inner.number();
        let c = ibv_cq_ex {
            base: ibv_cq {
                context: context.c(),
                channel: request.channel,
                cq_context: request.cq_context,
                handle: number,
                cqe: inner.cqe() as c_int,
                mutex: libc::PTHREAD_MUTEX_INITIALIZER,
                cond: libc::PTHREAD_COND_INITIALIZER,
                comp_events_completed: 0,
                async_events_completed: 0,
            },
            comp_mask: 0,
            status: 0,
            wr_id: 0,
            start_poll: Some(poll::start_poll),
            next_poll: Some(poll::next_poll),
            end_poll: Some(poll::end_poll),
            read_opcode: Some(poll::read_opcode),
            read_vendor_err: Some(poll::read_vendor_err),
            read_byte_len: Some(poll::read_byte_len),
            read_imm_data: Some(poll::read_imm_data),
            read_qp_num: Some(poll::read_qp_num),
            read_src_qp: Some(poll::read_src_qp),
            read_wc_flags: Some(poll::read_wc_flags),
            read_slid: Some(poll::read_slid),
            read_sl: Some(poll::read_sl),
            read_dlid_path_bits: Some(poll::read_dlid_path_bits),
            read_completion_ts: None,
            read_cvlan: None,
            read_flow_tag: None,
            read_tm_info: ptr::null(),
            read_completion_wallclock_ns: None,
        };
        let cq = context.given.give(Box::new(Self {
            c: UnsafeCell::new(c),
            inner,
            current: Lock::new(WorkCompletion::default()),
            channel: channel.map(|channel| Known(channel)),
            completion_events: Acks::default(),
            async_events: Acks::default(),
            users: Users::default(),
            late: Late::default(),
            is_awaited: AtomicBool::new(false),
            order: context.opened.handle(),
        }));
        context.objects().cqs.insert(number, Known(cq));
        if watch::is_explained() {
            context.uses(Use::Cqs, context.objects().cqs.len());
            context.uses(Use::AskedCqe, request.cqe as usize);
        }
        Ok(cq)
    }

    pub(crate) fn c(&self) -> *mut ibv_cq {
        self.c.get().cast()
    }

    /// Takes completions, watched: some fail or come later, and all are shown.
    #[cold]
    pub(crate) fn poll_watched(&self, out: &mut [WorkCompletion]) -> usize {
        if watch::is_explained() {
            let waiting = self.inner.unpolled() + self.late.len();
            watch::uses(
                Use::Completions,
                waiting,
                self.inner.cqe(),
                format_args!("CQ {}", self.inner.number()),
            );
        }
        let count = if watch::delays_completions() {
            self.hold_back();
            self.late.give(out)
        } else {
            let count = self.inner.poll(out).len();
            self.change(&mut out[..count]);
            count
        };
        out[..count].iter().for_each(watch::completed);
        count
    }

    /// Takes from the device what it has.
    fn hold_back(&self) {
        let mut batch = [WorkCompletion::default(); 16];
        // No more than there is room for: the device may go on for ever.
        for _ in 0..=self.inner.cqe() as usize / batch.len() {
            let polled = self.inner.poll(&mut batch).len();
            self.change(&mut batch[..polled]);
            self.late.add(&batch[..polled], |due| self.raise_at(due));
            if polled < batch.len() {
                break;
            }
        }
    }

    /// Does to completions what the fault plan wants, and breaks the queue pairs of those that fail because of it.
    fn change(&self, wcs: &mut [WorkCompletion]) {
        if wcs.is_empty() {
            return;
        }
        let objects = self.context().objects();
        for wc in wcs {
            // SAFETY: in the table of objects, which is locked.
            let qp = objects.qps.get(&wc.qp_num.get()).map(|known| unsafe { &*known.0 });
            match qp {
                Some(qp) if wc.opcode.is_recv() => qp.receiving().completed(),
                Some(qp) => qp.sending.correct(wc),
                None => {}
            }
            if wc.status == WcStatus::Success
                && let Some(status) = watch::fails()
            {
                wc.status = status;
                if let Some(qp) = qp {
                    qp.break_down();
                }
            }
        }
    }

    /// Raises an event at that time, for the completions that are seen from then on.
    fn raise_at(&self, due: Instant) {
        if self.channel.is_none() {
            return;
        }
        let number = self.inner.number();
        self.context().opened.later(due, move |objects| {
            if let Some(known) = objects.cqs.get(&number) {
                // SAFETY: in the table of objects, which is locked.
                let cq = unsafe { &*known.0 };
                if let Some(channel) = cq.channel
                    && cq.is_awaited.swap(false, Ordering::Relaxed)
                {
                    // SAFETY: the queue is among the channel's users.
                    unsafe { &*channel.0 }.raise(cq);
                }
            }
        });
    }

    /// The program reads an event of it.
    pub(crate) fn is_told(&self) {
        self.completion_events.read();
        self.is_awaited.store(false, Ordering::Relaxed);
    }

    pub(crate) fn cq_context(&self) -> *mut c_void {
        // SAFETY: this field does not change.
        unsafe { (*self.c()).cq_context }
    }

    pub(crate) fn context(&self) -> &Context {
        // SAFETY: this field does not change.
        let context = unsafe { (*self.c()).context };
        // SAFETY: a completion queue in use.
        unsafe { context_of(context) }
    }
}

/// Completion vectors: one thread serves them all.
pub(crate) const VECTORS: c_int = 1;

export! {
    "IBVERBS_1.1" pointer fn ibv_create_cq(
        context: &Context,
        cqe: c_int,
        cq_context: *mut c_void,
        channel: *mut ibv_comp_channel,
        comp_vector: c_int,
    ) -> *mut ibv_cq {
        let cqe = u32::try_from(cqe).map_err(|_| Errno::EINVAL)?;
        let request = Request { cqe, cq_context, channel, comp_vector: comp_vector.into() };
        Ok(Cq::create(context.own()?, &request)?.cast())
    }

    "IBVERBS_1.1" errno fn ibv_resize_cq(cq: &Cq, cqe: c_int) -> c_int {
        cq.context().own()?;
        cq.inner.resize(u32::try_from(cqe).map_err(|_| Errno::EINVAL)?)?;
        // SAFETY: the program does not look at the size while it changes it.
        unsafe { (*cq.c()).cqe = cq.inner.cqe() as c_int };
        Ok(())
    }

    "IBVERBS_1.1" errno fn ibv_destroy_cq(cq: &Cq) -> c_int {
        let context = cq.context();
        if !context.is_own() {
            return Ok(());
        }
        cq.users.none()?;
        // From here on nobody reads events of it.
        context.objects().cqs.remove(&cq.inner.number());
        context.events.purge(cq);
        // SAFETY: we are among the channel's users, if there is one.
        let channel = cq.channel.map(|known| unsafe { &*known.0 });
        if let Some(channel) = channel {
            channel.purge(cq);
        }
        cq.completion_events.wait("a completion queue");
        cq.async_events.wait("a completion queue");
        // SAFETY: the program gives it back, no queue pair has it, and all its events are acknowledged.
        drop(unsafe { context.given.take_back(cq) });
        if let Some(channel) = channel {
            channel.users.remove();
        }
        Ok(())
    }
}

function! {
    /// `ibv_create_cq_ex(3)`.
    pointer fn create_cq_ex(context: &Context, attr: &ibv_cq_init_attr_ex) -> *mut ibv_cq_ex {
        const KNOWN: u32 = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD;
        let flags = if attr.comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS == 0 { 0 } else { attr.flags };
        if attr.comp_mask & !KNOWN != 0 || flags & !IBV_CREATE_CQ_ATTR_FLAGS != 0 {
            return Err(Errno::EINVAL);
        }
        if attr.wc_flags & !IBV_WC_STANDARD_FLAGS != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if attr.comp_mask & IBV_CQ_INIT_ATTR_MASK_PD != 0 {
            // SAFETY: a domain of the program's, or NULL.
            let domain = unsafe { Pd::of(attr.parent_domain).as_ref() }.ok_or(Errno::EINVAL)?;
            context.expect("parent domain", domain.context())?;
        }
        let request = Request {
            cqe: attr.cqe,
            cq_context: attr.cq_context,
            channel: attr.channel,
            comp_vector: attr.comp_vector.into(),
        };
        Ok(Cq::create(context.own()?, &request)?.cast())
    }
}
