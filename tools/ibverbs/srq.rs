//! Shared receive queues.

use crate::abi::*;
use crate::acks::Acks;
use crate::context::{Context, Known, context_of};
use crate::errno::Errno;
use crate::export::{export, function};
use crate::lock::Lock;
use crate::object::{Object, Out, Users};
use crate::pd::Pd;
use crate::queues::Receiving;
use crate::watch::{self, Use};
use core::ffi::{c_int, c_void};
use std::time::Instant;
use tbrdma::SharedReceiveQueue;

/// A shared receive queue.
#[repr(C)]
pub(crate) struct Srq {
    c: ibv_srq,
    pub(crate) inner: Lock<SharedReceiveQueue>,
    number: u32,
    /// Receives it holds, and entries of each.
    pub(crate) max_wr: u32,
    pub(crate) max_sge: u32,
    pub(crate) async_events: Acks,
    /// Queue pairs.
    pub(crate) users: Users,
    pub(crate) receiving: Receiving,
    /// Later ones have larger numbers.
    pub(crate) order: u32,
}

// SAFETY: the C structure does not change once the program has it.
unsafe impl Sync for Srq {}

impl Object for Srq {
    type C = ibv_srq;
}

impl Srq {
    fn create(pd: &Pd, srq_context: *mut c_void, attr: &mut ibv_srq_attr) -> Result<*mut ibv_srq, Errno> {
        let context = pd.context().own()?;
        let inner = pd.inner.create_srq(attr.max_wr, attr.max_sge)?;
        let number = inner.number();
        let (max_wr, max_sge) = (inner.max_wr(), inner.max_sge());
        (attr.max_wr, attr.max_sge) = (max_wr, max_sge);
        pd.users.add();
        let c = ibv_srq {
            context: context.c(),
            srq_context,
            pd: pd.c(),
            handle: number,
            mutex: libc::PTHREAD_MUTEX_INITIALIZER,
            cond: libc::PTHREAD_COND_INITIALIZER,
            events_completed: 0,
        };
        let srq = context.given.give(Box::new(Self {
            c,
            inner: Lock::new(inner),
            number,
            max_wr,
            max_sge,
            async_events: Acks::default(),
            users: Users::default(),
            receiving: Receiving::default(),
            order: context.opened.handle(),
        }));
        context.objects().srqs.insert(number, Known(srq));
        if watch::is_explained() {
            context.uses(Use::Srqs, context.objects().srqs.len());
        }
        Ok(srq.cast())
    }

    pub(crate) fn c(&self) -> *mut ibv_srq {
        core::ptr::from_ref(&self.c).cast_mut()
    }

    /// Posts, at that time, the receives that are hidden until then.
    #[cold]
    pub(crate) fn show_receives_at(&self, due: Instant) {
        let number = self.number;
        self.context().opened.later(due, move |objects| {
            if let Some(known) = objects.srqs.get(&number) {
                // SAFETY: in the table of objects, which is locked.
                let srq = unsafe { &*known.0 };
                let mut inner = srq.inner.lock();
                srq.receiving.shows(false, |list| inner.post_recv(list));
            }
        });
    }

    pub(crate) fn context(&self) -> &Context {
        // SAFETY: a shared receive queue in use.
        unsafe { context_of(self.c.context) }
    }
}

export! {
    "IBVERBS_1.1" pointer fn ibv_create_srq(pd: &Pd, init: *mut ibv_srq_init_attr) -> *mut ibv_srq {
        // SAFETY: the program passes the structure, and wants what was granted in it.
        let init = unsafe { init.as_mut() }.ok_or(Errno::EINVAL)?;
        Srq::create(pd, init.srq_context, &mut init.attr)
    }

    "IBVERBS_1.1" errno fn ibv_modify_srq(srq: &Srq, attr: &ibv_srq_attr, mask: c_int) -> c_int {
        srq.context().own()?;
        if mask & !(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT) != 0 {
            return Err(Errno::EINVAL);
        }
        // `IBV_DEVICE_SRQ_RESIZE` is not among our capabilities.
        if mask & IBV_SRQ_MAX_WR != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if mask & IBV_SRQ_LIMIT != 0 {
            srq.inner.lock().set_limit(attr.srq_limit)?;
        }
        Ok(())
    }

    "IBVERBS_1.1" errno fn ibv_query_srq(srq: &Srq, attr: Out<'_, ibv_srq_attr>) -> c_int {
        let inner = srq.inner.lock();
        attr.put(ibv_srq_attr { max_wr: inner.max_wr(), max_sge: inner.max_sge(), srq_limit: inner.limit() });
        Ok(())
    }

    "IBVERBS_1.1" errno fn ibv_destroy_srq(srq: &Srq) -> c_int {
        let context = srq.context();
        if !context.is_own() {
            return Ok(());
        }
        srq.users.none()?;
        context.objects().srqs.remove(&srq.number);
        context.events.purge(srq);
        srq.async_events.wait("a shared receive queue");
        // SAFETY: a shared receive queue counts among the users of its domain.
        unsafe { &*Pd::of(srq.c.pd) }.users.remove();
        // SAFETY: the program gives it back, no queue pair has it, and all its events are acknowledged.
        drop(unsafe { context.given.take_back(srq) });
        Ok(())
    }
}

function! {
    /// `ibv_create_srq_ex(3)`: the basic kind.
    pointer fn create_srq_ex(context: &Context, init: *mut ibv_srq_init_attr_ex) -> *mut ibv_srq {
        context.own()?;
        // SAFETY: the program passes the structure, and wants what was granted in it.
        let init = unsafe { init.as_mut() }.ok_or(Errno::EINVAL)?;
        let has_type = init.comp_mask & IBV_SRQ_INIT_ATTR_TYPE != 0;
        if init.comp_mask & !(IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD) != 0
            || has_type && init.srq_type != IBV_SRQT_BASIC
        {
            return Err(Errno::EOPNOTSUPP);
        }
        if init.comp_mask & IBV_SRQ_INIT_ATTR_PD == 0 || init.pd.is_null() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: a domain of the program's, not NULL.
        let pd = unsafe { &*Pd::of(init.pd) };
        context.expect("protection domain", pd.context())?;
        Srq::create(pd, init.srq_context, &mut init.attr)
    }

    /// `ibv_get_srq_num(3)`: only queues of the XRC kind have a number that peers use.
    errno fn get_srq_num(_srq: &Srq, _number: Out<'_, u32>) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }
}
