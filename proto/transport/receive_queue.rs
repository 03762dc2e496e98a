//! Posted receives in their order: a ring whose storage is all there from the start.

use super::{PostFault, Receive};
use crate::region::PdHandle;
use crate::work::Sge;

/// A queue of receive work requests, of a queue pair or shared.
///
/// Receives are numbered from 0 on as they are posted, wrapping at 2^32, and taken in that order. The numbers go on when the queue is
/// cleared, so that none names two receives within 2^32 postings.
#[derive(Debug)]
pub(super) struct ReceiveQueue {
    pd: PdHandle,
    max_sge: u32,
    heads: Box<[Head]>,
    /// `max_sge` entries for each head.
    sges: Box<[Sge]>,
    /// Place of the oldest receive.
    first: usize,
    len: usize,
    /// Number of the oldest receive, or of the next one if there is none.
    number: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    wr_id: u64,
    sges: u32,
}

impl ReceiveQueue {
    /// A queue for `depth` receives of up to `max_sge` scatter entries, whose keys are of domain `pd`.
    pub(super) fn new(pd: PdHandle, depth: u32, max_sge: u32) -> Self {
        let entries = (depth as usize).saturating_mul(max_sge as usize);
        Self {
            pd,
            max_sge,
            heads: vec![Head::default(); depth as usize].into_boxed_slice(),
            sges: vec![Sge::default(); entries].into_boxed_slice(),
            first: 0,
            len: 0,
            number: 0,
        }
    }

    /// Adds a receive behind the others and answers its number.
    ///
    /// # Errors
    /// The queue is full, or the list too long.
    pub(super) fn post(&mut self, wr_id: u64, sges: &[Sge]) -> Result<u32, PostFault> {
        let count = u32::try_from(sges.len()).unwrap_or(u32::MAX);
        if count > self.max_sge {
            return Err(PostFault::TooManySges { count, max: self.max_sge });
        }
        let depth = self.heads.len();
        let full = PostFault::Full { depth: depth as u32 };
        if self.len >= depth {
            return Err(full);
        }
        let at = (self.first + self.len) % depth;
        let (Some(head), Some(list)) =
            (self.heads.get_mut(at), self.sges.get_mut(at * self.max_sge as usize..))
        else {
            return Err(full);
        };
        *head = Head { wr_id, sges: count };
        for (entry, sge) in list.iter_mut().zip(sges) {
            *entry = *sge;
        }
        let number = self.number.wrapping_add(self.len as u32);
        self.len += 1;
        Ok(number)
    }

    /// Moves the oldest receive into `receive`, replacing what it held; false if there is none.
    pub(super) fn take(&mut self, receive: &mut Receive) -> bool {
        if self.len == 0 {
            return false;
        }
        let Some(head) = self.heads.get(self.first) else { return false };
        receive.wr_id = head.wr_id;
        receive.wq_index = self.number;
        receive.pd = self.pd;
        receive.sges.clear();
        let list = self.sges.iter().skip(self.first * self.max_sge as usize).take(head.sges as usize);
        receive.sges.extend(list);
        self.first = (self.first + 1) % self.heads.len().max(1);
        self.len -= 1;
        self.number = self.number.wrapping_add(1);
        true
    }

    /// Forgets every receive.
    pub(super) fn clear(&mut self) {
        self.number = self.number.wrapping_add(self.len as u32);
        self.first = 0;
        self.len = 0;
    }

    /// How many there are.
    pub(super) const fn len(&self) -> u32 {
        self.len as u32
    }
}
