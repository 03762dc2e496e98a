//! Posting: what happens to a list of send work requests while its doorbell rings.

use super::qp::ShmQp;
use super::remote::{Readiness, Remote};
use super::send::{Doorbell, SendFifo, SendState, Work};
use super::transfer::Local;
use crate::device::{Refused, SendBatch, SendToken};
use crate::error::PostRefusal;
use crate::ring::busy::Busy;
use crate::sync::Ordering;
use tbrdma_proto::{PostDisposition, SendFlags, WcStatus};

/// From so many work requests that follow in a list on, it pays to look whether they are alike.
const RUN: usize = 3;

impl ShmQp {
    /// `post_send` of a list: one doorbell.
    pub(crate) fn post_list(&self, token: &mut SendToken, batch: &SendBatch) -> (u32, Option<Refused>) {
        let words = self.words();
        let busy = Busy(&words.busy);
        let mut guard = self.send.enter(token, busy, self.target.load(Ordering::Relaxed));
        let SendState { remote, queue, seen } = &mut *guard;
        let first = queue.posted;
        let mut disposition = self.send_disposition();
        if disposition == PostDisposition::Refuse {
            busy.leave();
            return (first, Some((0, PostRefusal::State(self.state()))));
        }
        if let Some(remote) = remote {
            remote.find_queue();
        }
        let remote = remote.as_ref();
        let mut doorbell = Doorbell::new(seen);
        let full_at = self.sends_retired.load(Ordering::Acquire).wrapping_add(self.cap.max_send_wr);
        // The peer, while the common work requests may go to it by the short way.
        let direct = remote.filter(|remote| {
            disposition == PostDisposition::Execute
                && queue.pending.is_empty()
                && self.is_plain
                && remote.readiness() == Readiness::Ready
        });
        doorbell.ready = direct.is_some();
        let mut done = 0;
        if let Some(remote) = direct
            && let Some(wr) = batch.wrs.first()
            && first != full_at
            && let Some(length) = self.execute_directly(remote, wr, batch, &mut doorbell)
        {
            queue.posted = first.wrapping_add(1);
            self.complete(wr, first, WcStatus::Success, length as u32, &mut doorbell);
            done = 1;
        }
        let mut refused = None;
        if done < batch.wrs.len() {
            (refused, disposition) =
                self.post_rest((remote, direct), queue, (batch, done), full_at, disposition, &mut doorbell);
        }
        busy.leave();
        self.ring_doorbell(remote, &doorbell);
        let stalled = !queue.pending.is_empty() && disposition == PostDisposition::Execute;
        drop(guard);
        if stalled && !(self.core.wire.is_some() && self.arrives_at_once()) {
            self.list_stalled();
        }
        (first, refused)
    }

    /// Posts a list from the second work request on, or from the first if that was not a common one. What was refused, and what becomes of
    /// those posted later. Apart from the first, so that a list of one is done with less.
    #[inline(never)]
    fn post_rest(
        &self,
        (remote, mut direct): (Option<&Remote>, Option<&Remote>),
        queue: &mut SendFifo,
        (batch, done): (&SendBatch, usize),
        full_at: u32,
        mut disposition: PostDisposition,
        doorbell: &mut Doorbell<'_>,
    ) -> (Option<Refused>, PostDisposition) {
        // On a wire everything takes its time.
        let travels = self.core.wire.is_some();
        let mut next = done;
        while let Some(wr) = batch.wrs.get(next) {
            if let Some(remote) = direct
                && let Some(model) = next.checked_sub(1).and_then(|before| batch.wrs.get(before))
                && let Some(rest) = batch.wrs.get(next..)
                && rest.len() >= RUN
            {
                let room = full_at.wrapping_sub(queue.posted);
                let alike = self.write_on(remote, batch, model, rest, queue.posted, room, doorbell);
                queue.posted = queue.posted.wrapping_add(alike as u32);
                next += alike;
                if alike > 0 {
                    continue;
                }
            }
            let index = next;
            next += 1;
            let number = queue.posted;
            if number == full_at {
                return (Some((index, PostRefusal::QueueFull { depth: self.cap.max_send_wr })), disposition);
            }
            if let Some(remote) = direct
                && let Some(length) = self.execute_directly(remote, wr, batch, doorbell)
            {
                queue.posted = number.wrapping_add(1);
                self.complete(wr, number, WcStatus::Success, length as u32, doorbell);
                continue;
            }
            let (sges, inline) = batch.operands(wr);
            let length = match self.rules.check(wr, sges, inline.len()) {
                Ok(length) => length,
                Err(kind) => return (Some((index, PostRefusal::WorkRequest(kind))), disposition),
            };
            queue.posted = number.wrapping_add(1);
            if disposition == PostDisposition::Flush {
                self.complete(wr, number, WcStatus::WrFlushErr, 0, doorbell);
                continue;
            }
            let is_inline = wr.flags.contains(SendFlags::INLINE);
            let local = if is_inline { Local::Inline(inline) } else { Local::List(sges) };
            let may_run = disposition == PostDisposition::Execute && queue.pending.is_empty() && !travels;
            let work = Work { wr, local, length };
            if let Some(next) = self.take_up(remote, queue, &work, number, may_run, doorbell) {
                disposition = next;
            }
            if disposition != PostDisposition::Execute || !queue.pending.is_empty() || !doorbell.ready {
                direct = None;
            }
        }
        (None, disposition)
    }
}
