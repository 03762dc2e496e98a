//! Shared receive queues.

use super::buffer::Buffer;
use super::pd::ProtectionDomain;
use super::queues::{Loans, outcome};
use super::work::{Lent, ReceiveWrs};
use crate::device::{DeviceSrq, ReceiveBatch};
use crate::error::{Error, PostError, Result};
use std::sync::Arc;
use tbrdma_proto::{Qpn, WorkCompletion};

/// A shared receive queue (`ibv_create_srq(3)`): receives that any of several queue pairs may use.
pub struct SharedReceiveQueue {
    srq: Arc<dyn DeviceSrq>,
    pd: ProtectionDomain,
    batch: ReceiveBatch,
    lent: Lent,
    loans: Loans,
}

impl std::fmt::Debug for SharedReceiveQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedReceiveQueue")
            .field("number", &self.number())
            .field("max_wr", &self.max_wr())
            .finish()
    }
}

impl SharedReceiveQueue {
    pub(crate) fn new(pd: &ProtectionDomain, srq: Arc<dyn DeviceSrq>) -> Self {
        Self {
            srq,
            pd: pd.clone(),
            batch: ReceiveBatch::default(),
            lent: Lent::new(),
            loans: Loans::default(),
        }
    }

    pub(crate) fn device(&self) -> &Arc<dyn DeviceSrq> {
        &self.srq
    }

    /// The protection domain it belongs to.
    pub fn pd(&self) -> &ProtectionDomain {
        &self.pd
    }

    /// A number that tells the context's shared receive queues apart; events carry it.
    pub fn number(&self) -> u32 {
        self.srq.index()
    }

    /// Receives it holds.
    pub fn max_wr(&self) -> u32 {
        self.srq.max_wr()
    }

    /// Entries of a receive's scatter list.
    pub fn max_sge(&self) -> u32 {
        self.srq.max_sge()
    }

    /// Posts the receives that `build` puts on the list (`ibv_post_srq_recv(3)`).
    ///
    /// # Errors
    /// The first work request that was refused, and why; those before it were posted.
    pub fn post_recv(&mut self, build: impl FnOnce(&mut ReceiveWrs<'_>)) -> Result<(), PostError> {
        self.batch.clear();
        self.lent.clear();
        build(&mut ReceiveWrs { batch: &mut self.batch, lent: &mut self.lent });
        self.batch.numbered = !self.lent.is_empty();
        let result = self.srq.post_recv(&mut self.batch);
        outcome(&mut self.loans, &mut self.lent, self.batch.wrs.len(), Qpn::default(), result)
    }

    /// The buffer that was lent to the work request of this completion.
    pub fn take_buffer(&mut self, wc: &WorkCompletion) -> Option<Buffer> {
        if self.srq.is_retired(wc.wq_index) { self.loans.take(wc.wq_index) } else { None }
    }

    /// Asks for one [`SrqLimitReached`](crate::AsyncEventKind::SrqLimitReached) event when fewer than `limit` receives are left
    /// (`ibv_modify_srq(3)`); 0 asks for none.
    ///
    /// # Errors
    /// The queue never holds as many.
    pub fn set_limit(&self, limit: u32) -> Result<()> {
        let max_wr = self.max_wr();
        if limit > max_wr {
            let reason = format!("srq_limit = {limit}, but the queue holds {max_wr} receives at most");
            return Err(Error::InvalidArgument { call: "modify_srq", reason });
        }
        self.srq.set_limit(limit)
    }

    /// The limit that is armed; zero when it has been reached.
    pub fn limit(&self) -> u32 {
        self.srq.limit()
    }
}
