//! Executing the work request of a connected queue pair: every operation, against the peer's segment.

use super::agent::Job;
use super::qp::ShmQp;
use super::remote::{Readiness, Remote};
use super::send::{Doorbell, Progress, Step, Wait, Work};
use super::transfer::{Direction, Fault, Local, RemoteSpan, Seen, Transfer};
use crate::keys::{Keys, local_status};
use crate::ring::busy::Busy;
use crate::ring::receive::Delivery;
use crate::sync::Ordering;
use tbrdma_proto::{
    Access, AsyncEventKind, Habits, Opcode, PdHandle, QpType, Qpn, SendFlags, WcFlags, WcOpcode, WcStatus,
};

impl ShmQp {
    /// Executes a work request of a connected queue pair against the peer's segment.
    #[inline(always)]
    pub(crate) fn execute<'a>(
        &'a self,
        remote: Option<&'a Remote>,
        work: &Work<'_>,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        let Some(remote) = remote else { return Step::Failed(WcStatus::LocQpOpErr) };
        if matches!(work.wr.opcode, Opcode::LocalInv | Opcode::BindMw) {
            return self.change_keys(work, doorbell);
        }
        let reliable = self.qp_type == QpType::Rc;
        if !doorbell.ready {
            match remote.readiness() {
                Readiness::Ready => doorbell.ready = true,
                // A message that is held for its receive is held for the peer that will post it.
                Readiness::NotYet if self.rules.habits.contains(Habits::HOLDS_UC) => {
                    return Step::Wait(Wait::Ready);
                }
                _ if !reliable => return Step::Done(work.length as u32),
                Readiness::Gone => return Step::Wait(Wait::Gone),
                Readiness::NotYet => return Step::Wait(Wait::Ready),
            }
        }
        let step = match work.wr.opcode {
            Opcode::SendWithInv => self.deliver_and_invalidate(remote, work, progress, doorbell),
            Opcode::Send | Opcode::SendWithImm => self.deliver(remote, work, progress, doorbell),
            Opcode::RdmaWrite => self.write(remote, work, progress, doorbell),
            Opcode::RdmaWriteWithImm => self.write_with_imm(remote, work, progress, doorbell),
            Opcode::RdmaRead => self.read(remote, work, progress, doorbell),
            Opcode::AtomicCmpAndSwp | Opcode::AtomicFetchAndAdd => {
                self.atomic(remote, work, progress, doorbell)
            }
            Opcode::LocalInv | Opcode::BindMw => Step::Failed(WcStatus::LocQpOpErr),
        };
        match step {
            // An unreliable connection does not learn what the peer thinks of a message; it is dropped there.
            Step::Failed(status) if !reliable && is_remote(status) => Step::Done(work.length as u32),
            step => step,
        }
    }

    #[inline(always)]
    fn transfer<'a, 'b>(
        &'a self,
        remote: &'a Remote,
        seen: &'b mut Seen,
        needed: Access,
        direction: Direction,
        remote_pd: PdHandle,
    ) -> Transfer<'a, 'b> {
        Transfer {
            seen,
            core: &self.core,
            words: self.words(),
            peer: &remote.peer,
            peer_slot: remote.slot,
            peer_qpn: Qpn::masked(remote.qpn),
            local_pd: self.pd,
            remote_pd,
            needed,
            direction,
        }
    }

    /// Rights of the peer's queue pair: its protection domain, and whether it grants `needed` at all.
    #[inline(always)]
    fn remote_rights(&self, remote: &Remote, needed: Access) -> Result<PdHandle, WcStatus> {
        remote.grants(needed).ok_or_else(|| {
            self.report(remote, AsyncEventKind::QpReqErr);
            WcStatus::RemInvReqErr
        })
    }

    #[inline(always)]
    fn write<'a>(
        &'a self,
        remote: &'a Remote,
        work: &Work<'_>,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        self.one_sided(remote, work, progress, doorbell, Access::REMOTE_WRITE, Direction::Put)
    }

    fn read<'a>(
        &'a self,
        remote: &'a Remote,
        work: &Work<'_>,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        if let Some(refused) = self.no_responder_resources(remote) {
            return refused;
        }
        self.one_sided(remote, work, progress, doorbell, Access::REMOTE_READ, Direction::Get)
    }

    #[inline(always)]
    fn one_sided<'a>(
        &'a self,
        remote: &'a Remote,
        work: &Work<'_>,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
        needed: Access,
        direction: Direction,
    ) -> Step {
        let pd = match self.remote_rights(remote, needed) {
            Ok(pd) => pd,
            Err(status) => return Step::Failed(status),
        };
        if work.length == 0 {
            // Nothing is accessed, so no key is checked (IBTA volume 1, section 9.7.4.1.5 and C9-88).
            return Step::Done(0);
        }
        let span = RemoteSpan { key: work.wr.remote.rkey, addr: work.wr.remote.addr, len: work.length };
        let mut transfer = self.transfer(remote, doorbell.seen, needed, direction, pd);
        match transfer.run(work.local, Some(span), std::iter::once(span), work.length, progress) {
            Ok(()) => Step::Done(work.length as u32),
            Err(fault) => self.faulted(remote, fault),
        }
    }

    fn atomic<'a>(
        &'a self,
        remote: &'a Remote,
        work: &Work<'_>,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        if let Some(refused) = self.no_responder_resources(remote) {
            return refused;
        }
        if let Some(status) = self.rules.completion_status_for_remote(work.wr) {
            self.report(remote, AsyncEventKind::QpReqErr);
            return Step::Failed(status);
        }
        let needed = Access::REMOTE_ATOMIC;
        let pd = match self.remote_rights(remote, needed) {
            Ok(pd) => pd,
            Err(status) => return Step::Failed(status),
        };
        let Local::List(list) = work.local else { return Step::Failed(WcStatus::LocQpOpErr) };
        let mut transfer = self.transfer(remote, doorbell.seen, needed, Direction::Get, pd);
        let span = RemoteSpan { key: work.wr.remote.rkey, addr: work.wr.remote.addr, len: 8 };
        let job = if work.wr.opcode == Opcode::AtomicFetchAndAdd { Job::FetchAdd } else { Job::CompareSwap };
        let mut act = || {
            transfer.check_result(list)?;
            let old = transfer.atomic(&span, job, work.wr.compare_add, work.wr.swap, progress)?;
            transfer.store_old(list, old)
        };
        match act() {
            Ok(()) => Step::Done(8),
            Err(fault) => self.faulted(remote, fault),
        }
    }

    /// LOCAL_INV and BIND_MW: keys of ours, which the peer may be using. Whoever is in the middle of that is waited for with our own busy
    /// word down, since it may be waiting for us; so what this doorbell has found out of the peer holds no longer.
    #[cold]
    fn change_keys(&self, work: &Work<'_>, doorbell: &mut Doorbell<'_>) -> Step {
        let (key, bind) = (work.wr.imm_data, work.wr.bind());
        let status = if work.wr.opcode == Opcode::LocalInv {
            local_status(self.core.invalidate(self.pd, self.qpn, key), WcStatus::LocQpOpErr)
        } else {
            local_status(self.core.bind(self.pd, self.qpn, &bind), WcStatus::MwBindErr)
        };
        if status != WcStatus::Success {
            return Step::Failed(status);
        }
        doorbell.ready = false;
        let busy = Busy(&self.words().busy);
        busy.leave();
        let quiet = self.await_quiet();
        busy.enter(self.target.load(Ordering::Relaxed));
        if quiet { Step::Done(0) } else { Step::Failed(WcStatus::LocQpOpErr) }
    }

    /// SEND with invalidate: the peer's own service thread takes the key out of use, then the message is delivered.
    #[cold]
    fn deliver_and_invalidate<'a>(
        &'a self,
        remote: &'a Remote,
        work: &Work<'_>,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        let receive = match self.next_receive(remote, work.length as u32, progress) {
            Ok(receive) => receive,
            Err(step) => return step,
        };
        // One that is too long is refused before anything else happens.
        if !progress.invalidated && receive.room() >= work.length {
            let transfer = self.transfer(remote, doorbell.seen, Access::empty(), Direction::Put, receive.pd);
            match transfer.invalidate(work.wr.imm_data, progress) {
                Ok(()) => progress.invalidated = true,
                Err(fault) => {
                    if fault != Fault::Later {
                        receive.put_back(progress, doorbell);
                    }
                    return self.faulted(remote, fault);
                }
            }
        }
        self.deliver(remote, work, progress, doorbell)
    }

    /// READ and atomics need a responder that has been told to keep resources for them (`max_dest_rd_atomic`).
    fn no_responder_resources(&self, remote: &Remote) -> Option<Step> {
        let to = remote.words.receive_to.load(Ordering::Relaxed);
        if (to >> 24) as u8 == 0 {
            self.report(remote, AsyncEventKind::QpReqErr);
            return Some(Step::Failed(WcStatus::RemInvReqErr));
        }
        None
    }

    /// What a fault means for the work request, and for the peer.
    pub(crate) fn faulted(&self, remote: &Remote, fault: Fault) -> Step {
        match fault {
            Fault::Local => Step::Failed(WcStatus::LocProtErr),
            Fault::Remote => {
                self.report(remote, AsyncEventKind::QpAccessErr);
                Step::Failed(WcStatus::RemAccessErr)
            }
            Fault::Later => Step::Wait(Wait::Agent),
        }
    }

    /// Tells the peer's queue pair that we found a fault of this kind: a reliable one goes to the error state there too.
    pub(crate) fn report(&self, remote: &Remote, kind: AsyncEventKind) {
        if self.qp_type == QpType::Rc {
            remote.note(kind);
        }
    }

    /// What the receiver is told of a message that arrives well.
    #[inline(always)]
    fn delivery(&self, work: &Work<'_>, opcode: WcOpcode) -> Delivery {
        Delivery {
            status: WcStatus::Success,
            opcode,
            flags: match work.wr.opcode {
                opcode if opcode.has_imm() => WcFlags::WITH_IMM,
                Opcode::SendWithInv => WcFlags::WITH_INV,
                _ => WcFlags::empty(),
            },
            byte_len: work.length as u32,
            imm_data: work.wr.imm_data,
            src_qp: self.qpn.get(),
        }
    }

    /// SEND: the next receive of the peer, filled and completed.
    #[inline]
    fn deliver<'a>(
        &'a self,
        remote: &'a Remote,
        work: &Work<'_>,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        let delivery = self.delivery(work, WcOpcode::Recv);
        self.consume_receive(remote, work, Some(work.length), &delivery, progress, doorbell)
    }

    /// WRITE with immediate: the bytes go where the work request says, then a receive is completed without being filled.
    fn write_with_imm<'a>(
        &'a self,
        remote: &'a Remote,
        work: &Work<'_>,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        // Without a receive nothing is written, so that a retry writes it once.
        let receive = match self.next_receive(remote, work.length as u32, progress) {
            Ok(receive) => receive,
            Err(step) => return step,
        };
        if progress.moved < work.length || work.length == 0 {
            match self.write(remote, work, progress, doorbell) {
                Step::Done(_) => progress.moved = work.length,
                Step::Wait(wait) => return Step::Wait(wait),
                Step::Failed(status) => {
                    receive.put_back(progress, doorbell);
                    return Step::Failed(status);
                }
            }
        }
        let delivery = self.delivery(work, WcOpcode::RecvRdmaWithImm);
        self.consume_receive(remote, work, None, &delivery, progress, doorbell)
    }

    /// Takes the peer's next receive, fills it if there is something to `fill`, and completes it.
    #[inline(always)]
    fn consume_receive<'a>(
        &'a self,
        remote: &'a Remote,
        work: &Work<'_>,
        fill: Option<u64>,
        delivery: &Delivery,
        progress: &mut Progress,
        doorbell: &mut Doorbell<'_>,
    ) -> Step {
        let receive = match self.next_receive(remote, work.length as u32, progress) {
            Ok(receive) => receive,
            Err(step) => return step,
        };
        let mut delivery = *delivery;
        let mut step = Step::Done(work.length as u32);
        if let Some(length) = fill {
            let room = receive.only().map_or_else(|| receive.room(), |span| span.len);
            if !self.rules.habits.fits(length, room) {
                delivery.status = WcStatus::LocLenErr;
                step = Step::Failed(WcStatus::RemInvReqErr);
            } else if length > 0 {
                let mut transfer =
                    self.transfer(remote, doorbell.seen, Access::LOCAL_WRITE, Direction::Put, receive.pd);
                match transfer.run(work.local, receive.only(), receive.spans(), length, progress) {
                    Ok(()) => {}
                    Err(Fault::Later) => return Step::Wait(Wait::Agent),
                    Err(Fault::Local) => {
                        // Ours to bear: the peer's receive stays where it is.
                        receive.put_back(progress, doorbell);
                        return Step::Failed(WcStatus::LocProtErr);
                    }
                    Err(Fault::Remote) => {
                        delivery.status = WcStatus::LocProtErr;
                        step = Step::Failed(WcStatus::RemOpErr);
                    }
                }
            }
        }
        // Where frames must match, the receiver is told that they do not.
        let told =
            delivery.status == WcStatus::LocLenErr && self.rules.habits.contains(Habits::MATCHES_FRAMES);
        let dropped = delivery.status != WcStatus::Success && self.qp_type == QpType::Uc && !told;
        if dropped {
            receive.put_back(progress, doorbell);
            return Step::Done(work.length as u32);
        }
        if delivery.status != WcStatus::Success {
            delivery.byte_len = 0;
            self.report(remote, AsyncEventKind::QpReqErr);
        }
        receive.finish(&delivery);
        progress.claimed = None;
        doorbell.received = true;
        doorbell.solicited |=
            work.wr.flags.contains(SendFlags::SOLICITED) || delivery.status != WcStatus::Success;
        step
    }
}

fn is_remote(status: WcStatus) -> bool {
    matches!(
        status,
        WcStatus::RemAccessErr | WcStatus::RemInvReqErr | WcStatus::RemOpErr | WcStatus::RetryExcErr
    )
}
