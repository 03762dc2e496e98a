//! The two halves of a queue pair: each can be owned by a thread of its own, with no lock between them.

use super::buffer::Buffer;
use super::qp::Shared;
use super::work::{Lent, ReceiveWrs, SendWrs};
use crate::device::{ReceiveBatch, Refused, SendBatch, SendToken, Shape};
use crate::error::{Error, PostError, Result};
use crate::native::{NativeQp, Posted};
use std::collections::HashMap;
use std::sync::Arc;
use tbrdma_proto::{QpAttr, QpAttrMask, QpCap, QpState, QpType, Qpn, SendFlags, WorkCompletion};

/// Buffers that are with the device, by the running number of their work request. Those of a shared queue end in any order, so
/// there is no telling how far apart their numbers are.
#[derive(Default)]
pub(crate) struct Loans(HashMap<u32, Buffer>);

impl Loans {
    /// After a post: keeps what was lent to posted work requests, and returns the rest.
    pub(crate) fn keep(&mut self, lent: &mut Lent, first: u32, posted: usize) -> Vec<Buffer> {
        let mut back = Vec::new();
        for (position, buffer) in lent.drain(..) {
            if position < posted {
                self.0.insert(first.wrapping_add(position as u32), buffer);
            } else {
                back.push(buffer);
            }
        }
        back
    }

    /// The buffer lent to work request `number`, which has ended.
    pub(crate) fn take(&mut self, number: u32) -> Option<Buffer> {
        self.0.remove(&number)
    }

    pub(crate) fn take_all(&mut self) -> Vec<Buffer> {
        self.0.drain().map(|(_, buffer)| buffer).collect()
    }
}

/// Has work request `number` been retired, when all below `retired` have?
fn is_before(number: u32, retired: u32) -> bool {
    let behind = retired.wrapping_sub(number);
    behind != 0 && behind < 1 << 31
}

/// Turns the outcome of a post into what the caller gets.
pub(crate) fn outcome(
    loans: &mut Loans,
    lent: &mut Lent,
    posted: usize,
    qp_num: Qpn,
    result: (u32, Option<Refused>),
) -> Result<(), PostError> {
    let (first, refused) = result;
    let posted = refused.as_ref().map_or(posted, |(index, _)| *index);
    let buffers = if lent.is_empty() { Vec::new() } else { loans.keep(lent, first, posted) };
    match refused {
        None => Ok(()),
        Some((index, reason)) => Err(PostError { qp_num, index, reason, buffers }),
    }
}

/// The send half of a queue pair.
pub struct SendQueue {
    pub(crate) shared: Arc<Shared>,
    /// The queue pair, if plain lists are posted to it as they are.
    native: Option<Arc<NativeQp>>,
    token: SendToken,
    batch: SendBatch,
    lent: Lent,
    loans: Loans,
}

impl std::fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SendQueue of QP {}", self.qp_num())
    }
}

impl SendQueue {
    pub(crate) fn new(shared: &Arc<Shared>, token: SendToken) -> Self {
        let device = Arc::clone(&shared.device);
        // A list whose flags change is not posted as it is.
        let native = if shared.sq_sig_all { None } else { device.native() };
        Self {
            shared: Arc::clone(shared),
            native,
            token,
            batch: SendBatch::default(),
            lent: Lent::new(),
            loans: Loans::default(),
        }
    }

    /// The queue pair's number.
    pub fn qp_num(&self) -> Qpn {
        self.shared.device.qp_num()
    }

    /// Posts the work requests that `build` puts on the list, in order, with one doorbell (`ibv_post_send(3)`).
    ///
    /// # Errors
    /// The first work request that was refused, and why; those before it were posted. What goes wrong with a posted one arrives as its
    /// completion.
    #[inline(always)]
    pub fn post(&mut self, build: impl FnOnce(&mut SendWrs<'_>)) -> Result<(), PostError> {
        build(&mut self.start());
        self.complete()
    }

    /// A new list, empty, to be posted by [`complete`](Self::complete): [`post`](Self::post) in two steps (`ibv_wr_start(3)`).
    #[inline(always)]
    pub fn start(&mut self) -> SendWrs<'_> {
        self.batch.sges.clear();
        if !self.batch.wrs.is_empty() {
            self.abandon();
        }
        if self.batch.wrs.capacity() == 0 {
            self.batch.first_room();
        }
        self.list()
    }

    /// Forgets a list that was begun and never posted.
    #[cold]
    fn abandon(&mut self) {
        self.batch.clear();
        self.lent.clear();
    }

    /// The list that [`start`](Self::start) began, to put more on it.
    #[inline(always)]
    pub fn list(&mut self) -> SendWrs<'_> {
        SendWrs { batch: &mut self.batch, lent: &mut self.lent }
    }

    /// Posts the list, with one doorbell, and empties it.
    ///
    /// # Errors
    /// As for [`post`](Self::post).
    #[inline(always)]
    pub fn complete(&mut self) -> Result<(), PostError> {
        let Some(native) = &self.native else { return self.complete_any() };
        match native.post_one_directly(&mut self.batch) {
            Posted::All => {
                self.batch.wrs.clear();
                self.batch.sges.clear();
                Ok(())
            }
            not_yet => self.complete_natively(not_yet),
        }
    }

    /// The rest of posting to an adapter what is not one plain work request, or was refused.
    #[inline(never)]
    fn complete_natively(&mut self, posted: Posted) -> Result<(), PostError> {
        let Some(native) = self.native.as_ref().filter(|_| self.batch.shape != Shape::Any) else {
            return self.complete_any();
        };
        let refused = native.post_list_directly(&mut self.batch, posted);
        self.batch.clear();
        let Some((index, reason)) = refused else { return Ok(()) };
        Err(PostError { qp_num: self.qp_num(), index, reason, buffers: Vec::new() })
    }

    #[inline(never)]
    fn complete_any(&mut self) -> Result<(), PostError> {
        if self.shared.sq_sig_all {
            for wr in &mut self.batch.wrs {
                wr.flags |= SendFlags::SIGNALED;
            }
        }
        for (position, _) in &self.lent {
            // A buffer comes back with a completion, so there must be one.
            self.batch.wrs[*position].flags |= SendFlags::SIGNALED;
            self.batch.numbered = true;
        }
        let posted = self.batch.wrs.len();
        let result = self.shared.device.post_send(&mut self.token, &mut self.batch);
        self.batch.clear();
        if result.1.is_none() && self.lent.is_empty() {
            return Ok(());
        }
        outcome(&mut self.loans, &mut self.lent, posted, self.shared.device.qp_num(), result)
    }

    /// The buffer that was lent to the work request of this completion.
    pub fn take_buffer(&mut self, wc: &WorkCompletion) -> Option<Buffer> {
        let is_ours =
            wc.qp_num == self.qp_num() && is_before(wc.wq_index, self.shared.device.sends_retired());
        if is_ours { self.loans.take(wc.wq_index) } else { None }
    }

    /// All buffers still lent, once the queue pair has been reset: their work requests have no completions.
    pub fn take_lent(&mut self) -> Vec<Buffer> {
        if self.shared.device.query().qp_state == QpState::Reset { self.loans.take_all() } else { Vec::new() }
    }
}

/// The receive half of a queue pair.
pub struct ReceiveQueue {
    pub(crate) shared: Arc<Shared>,
    batch: ReceiveBatch,
    lent: Lent,
    loans: Loans,
}

impl std::fmt::Debug for ReceiveQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReceiveQueue of QP {}", self.qp_num())
    }
}

impl ReceiveQueue {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            batch: ReceiveBatch::default(),
            lent: Lent::new(),
            loans: Loans::default(),
        }
    }

    /// The queue pair's number.
    pub fn qp_num(&self) -> Qpn {
        self.shared.device.qp_num()
    }

    /// Posts the receives that `build` puts on the list, in order (`ibv_post_recv(3)`).
    ///
    /// # Errors
    /// The first work request that was refused, and why; those before it were posted.
    #[inline]
    pub fn post_recv(&mut self, build: impl FnOnce(&mut ReceiveWrs<'_>)) -> Result<(), PostError> {
        self.batch.clear();
        if !self.lent.is_empty() {
            self.lent.clear();
        }
        build(&mut ReceiveWrs { batch: &mut self.batch, lent: &mut self.lent });
        self.batch.numbered = !self.lent.is_empty();
        let result = self.shared.device.post_recv(&mut self.batch);
        if result.1.is_none() && self.lent.is_empty() {
            return Ok(());
        }
        outcome(&mut self.loans, &mut self.lent, self.batch.wrs.len(), self.shared.device.qp_num(), result)
    }

    /// The buffer that was lent to the work request of this completion.
    pub fn take_buffer(&mut self, wc: &WorkCompletion) -> Option<Buffer> {
        let is_ours = wc.qp_num == self.qp_num() && self.shared.device.is_receive_retired(wc.wq_index);
        if is_ours { self.loans.take(wc.wq_index) } else { None }
    }

    /// All buffers still lent, once the queue pair has been reset: their work requests have no completions.
    pub fn take_lent(&mut self) -> Vec<Buffer> {
        if self.shared.device.query().qp_state == QpState::Reset { self.loans.take_all() } else { Vec::new() }
    }
}

/// What a queue pair is besides its halves: its attributes and its state, to be asked for and changed from any thread.
#[derive(Clone)]
pub struct QpControl {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for QpControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QP {} in state {}", self.qp_num(), self.query().qp_state)
    }
}

impl QpControl {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// The queue pair's number.
    pub fn qp_num(&self) -> Qpn {
        self.shared.device.qp_num()
    }

    /// Its transport service.
    pub fn qp_type(&self) -> QpType {
        self.shared.device.qp_type()
    }

    /// What was granted of what was asked for at creation; at least that.
    pub fn cap(&self) -> QpCap {
        self.shared.device.cap()
    }

    /// Its attributes (`ibv_query_qp(3)`).
    pub fn query(&self) -> QpAttr {
        self.shared.device.query()
    }

    /// Changes the attributes that `mask` names (`ibv_modify_qp(3)`). Nobody may be posting meanwhile: it borrows both halves.
    ///
    /// # Errors
    /// As for [`QueuePair::modify`](crate::QueuePair::modify), or the halves are another queue pair's.
    pub fn modify(
        &self,
        send: &mut SendQueue,
        recv: &mut ReceiveQueue,
        attr: &QpAttr,
        mask: QpAttrMask,
    ) -> Result<()> {
        if !Arc::ptr_eq(&send.shared, &self.shared) || !Arc::ptr_eq(&recv.shared, &self.shared) {
            let reason = format!("the halves are those of another queue pair than {}", self.qp_num());
            return Err(Error::InvalidArgument { call: "modify_qp", reason });
        }
        self.shared.device.modify(attr, mask)
    }
}
