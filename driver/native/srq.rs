//! Shared receive queues, and what receives of all queues have in common.

use super::device::Core;
use super::explain;
use super::fault;
use super::handle::Pd;
use super::lock;
use super::numbers::Account;
use super::post::{ReceiveCall, refusal};
use crate::device::{DeviceSrq, ReceiveBatch, Refused};
use crate::error::{PostRefusal, Result};
use core::ffi::c_int;
use core::ptr::without_provenance_mut;
use std::io;
use std::sync::Arc;
use tbrdma_abi::*;
use tbrdma_proto::{PdHandle, PostErrorKind};

/// A shared receive queue.
pub(super) struct NativeSrq {
    core: Arc<Core>,
    recv: ReceiveCall<ibv_srq>,
    index: u32,
    max_wr: u32,
    max_sge: u32,
    receives: Arc<Account>,
    _pd: Arc<Pd>,
}

// SAFETY: libibverbs lets several threads use a shared receive queue.
unsafe impl Send for NativeSrq {}
// SAFETY: as above.
unsafe impl Sync for NativeSrq {}

impl NativeSrq {
    pub(super) fn create(core: &Arc<Core>, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Arc<Self>> {
        let call = "create_srq";
        let what = "shared receive queues";
        let handle = &core.handle;
        let pd = core.pd(pd)?;
        let create = handle.needs(handle.library.ibv_create_srq, call, what)?;
        handle.needs(handle.library.ibv_destroy_srq, call, what)?;
        let post = handle.needs(handle.ops.post_srq_recv, call, what)?;
        let (index, _) = lock(&core.srqs).claim(call, what)?;
        let mut init = ibv_srq_init_attr {
            srq_context: without_provenance_mut(index as usize),
            attr: ibv_srq_attr { max_wr, max_sge, srq_limit: 0 },
        };
        // SAFETY: a domain of this context. What the queue carries as its context is a number.
        let srq = unsafe { create(pd.as_ptr(), &raw mut init) };
        let queue = fault::object(call, &handle.name, srq).map_err(|error| {
            lock(&core.srqs).release(index);
            explain::shared_queue(error, &core.profile, max_wr, max_sge)
        })?;
        let srq = Arc::new(Self {
            core: Arc::clone(core),
            recv: ReceiveCall { queue, post },
            index,
            max_wr: init.attr.max_wr,
            max_sge: init.attr.max_sge,
            receives: Account::new(true),
            _pd: pd,
        });
        lock(&core.srqs).fill(index, Arc::downgrade(&srq));
        Ok(srq)
    }

    pub(super) fn as_ptr(&self) -> *mut ibv_srq {
        self.recv.queue.as_ptr()
    }
}

impl DeviceSrq for NativeSrq {
    fn max_wr(&self) -> u32 {
        self.max_wr
    }

    fn max_sge(&self) -> u32 {
        self.max_sge
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn context(&self) -> u64 {
        self.core.identity
    }

    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>) {
        let first = self.core.number_receives(&self.receives, batch);
        let refused = self.recv.post_list(batch).map(|(position, error)| {
            (position, self.core.refused_receive(error, batch, self.max_wr, self.max_sge))
        });
        self.core.keep_tickets(batch, refused.as_ref());
        (first, refused)
    }

    fn set_limit(&self, limit: u32) -> Result<()> {
        let call = "modify_srq";
        let handle = &self.core.handle;
        let modify = handle.needs(handle.library.ibv_modify_srq, call, "limits of shared receive queues")?;
        let mut attr = ibv_srq_attr { srq_limit: limit, ..ibv_srq_attr::default() };
        // SAFETY: a live queue, and attributes.
        let returned = unsafe { modify(self.as_ptr(), &raw mut attr, IBV_SRQ_LIMIT) };
        fault::check(call, &handle.name, returned)
    }

    fn limit(&self) -> u32 {
        let Some(query) = self.core.handle.library.ibv_query_srq else { return 0 };
        let mut attr = ibv_srq_attr::default();
        // SAFETY: a live queue, and room for the answer.
        let failed = unsafe { query(self.as_ptr(), &raw mut attr) };
        if failed == 0 { attr.srq_limit } else { 0 }
    }

    fn is_retired(&self, number: u32) -> bool {
        self.receives.has_ended(number)
    }
}

impl Drop for NativeSrq {
    fn drop(&mut self) {
        if let Some(destroy) = self.core.handle.library.ibv_destroy_srq {
            // SAFETY: ours, destroyed once; the queue pairs that used it are gone, since they held it.
            let _: c_int = unsafe { destroy(self.as_ptr()) };
        }
        self.core.tickets.forget(&self.receives);
        lock(&self.core.srqs).release(self.index);
    }
}

impl Core {
    /// Numbers for a list that wants them, and tickets.
    #[inline]
    pub(super) fn number_receives(&self, account: &Arc<Account>, batch: &mut ReceiveBatch) -> u32 {
        if !batch.numbered {
            return 0;
        }
        let first = account.number(batch.wrs.len());
        let issue = |(position, wr): (usize, &crate::device::ReceiveWr)| {
            (position, self.tickets.issue(account, first + position as u32, wr.wr_id, None))
        };
        batch.room.tickets.clear();
        batch.room.tickets.extend(batch.wrs.iter().enumerate().map(issue));
        first
    }

    /// After a post: takes back the tickets of what was not posted.
    #[inline]
    pub(super) fn keep_tickets(&self, batch: &mut ReceiveBatch, refused: Option<&Refused>) {
        if !batch.numbered {
            return;
        }
        let posted = refused.map_or(usize::MAX, |(position, _)| *position);
        for (position, ticket) in batch.room.tickets.drain(..) {
            if position >= posted {
                self.tickets.revoke(ticket);
            }
        }
    }

    /// Why the library did not take a receive.
    #[cold]
    pub(super) fn refused_receive(
        &self,
        error: io::Error,
        batch: &ReceiveBatch,
        depth: u32,
        max_sge: u32,
    ) -> PostRefusal {
        let most = batch.wrs.iter().map(|wr| wr.num_sge).max().unwrap_or(0);
        let wrong = (most > max_sge).then_some(PostErrorKind::TooManySges { count: most, max: max_sge });
        refusal(error, depth, wrong)
    }
}
