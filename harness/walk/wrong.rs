//! What a walk does wrongly, on purpose: each must be refused, or fail, with the right error and without a trace.

use tbrdma::{
    Error, PostError, PostRefusal, QpAttr, QpAttrMask, QpInit, QpState, QpType, RemoteAddr, WcOpcode,
    WcStatus,
};

use super::world::{BYTES, DEPTH, Found, Want, World, every_right, must};

/// What a remote access may do that it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trespass {
    Key,
    End,
    Gone,
}

impl World {
    /// Does our own code stand behind the device? Adapters let some through that the specification leaves open.
    fn is_ours(&self) -> bool {
        let name = self.device.name();
        name == "shm" || name.starts_with("udp:") || name.starts_with("sim")
    }

    fn refused<T>(&mut self, what: &str, result: Result<T, Error>) -> Found {
        match result {
            Err(
                Error::InvalidArgument { .. }
                | Error::LimitReached { .. }
                | Error::NotSupported { .. }
                | Error::Modify { .. }
                | Error::Register { .. }
                | Error::Refused { .. },
            ) => {
                self.refusals += 1;
                Ok(())
            }
            Err(error) => Err(format!("{what} is refused with the wrong error: {error:?}")),
            Ok(_) => Err(format!("{what} must be refused, and is not")),
        }
    }

    fn not_posted(
        &mut self,
        what: &str,
        result: Result<(), PostError>,
        right: fn(&PostRefusal) -> bool,
    ) -> Found {
        match result {
            Err(error) if right(&error.reason) || !self.is_ours() => {
                self.refusals += 1;
                Ok(())
            }
            Err(error) => Err(format!("{what} is refused with the wrong error: {error:?}")),
            Ok(()) => Err(format!("{what} must be refused, and is not")),
        }
    }

    /// Objects over the limits of the device.
    pub(super) fn step_limits(&mut self) -> Found {
        let limits = self.device.query_device();
        let pd = self.domain()?;
        let device = self.device.clone();
        match self.rng.u8(0..5) {
            0 => self.refused("create_cq over the limit", device.create_cq(limits.max_cqe.saturating_add(1))),
            1 => self.refused("create_cq of no entries", device.create_cq(0)),
            2 => self
                .refused("create_srq over the limit", pd.create_srq(limits.max_srq_wr.saturating_add(1), 1)),
            3 => {
                let cq = must("create_cq", device.create_cq(16))?;
                let kind = self.kinds.first().copied().unwrap_or(QpType::Rc);
                let init = QpInit::new(kind, &cq).max_send_wr(limits.max_qp_wr.saturating_add(1));
                self.refused("create_qp over the limit", pd.create_qp(init))
            }
            _ => {
                let cq = must("create_cq", device.create_cq(16))?;
                let kind = self.kinds.first().copied().unwrap_or(QpType::Rc);
                let init = QpInit::new(kind, &cq).max_send_sge(limits.max_sge.saturating_add(1));
                self.refused("create_qp of too many entries", pd.create_qp(init))
            }
        }
    }

    /// A state that cannot be reached from this one, and work that this one does not take.
    pub(super) fn step_state(&mut self) -> Found {
        let Some(kind) = self.kinds.first().copied() else { return Ok(()) };
        let mut pair = self.pair(kind, false)?;
        let attr = QpAttr { qp_state: QpState::Rts, ..QpAttr::default() };
        let side = &mut pair.sides[0];
        let modified = side.qp.modify(&attr, QpAttrMask::STATE);
        let slice = side.mr.slice(0..8);
        self.refused("modify_qp from RESET to RTS", modified)?;
        if self.is_ours() {
            let side = &mut pair.sides[0];
            let sent = side.qp.post(|wr| _ = wr.send(slice));
            let received = side.qp.post_recv(|rq| _ = rq.recv(slice));
            let right = |reason: &PostRefusal| matches!(reason, PostRefusal::State(QpState::Reset));
            self.not_posted("post_send in RESET", sent, right)?;
            self.not_posted("post_recv in RESET", received, right)?;
        }
        self.expect(&pair, Vec::new())
    }

    /// More receives than a queue holds; those that it took are flushed.
    pub(super) fn step_overflow(&mut self) -> Found {
        self.with_pair(Some(QpType::Rc), |world, pair| {
            let at = usize::from(pair.sides[0].srq.is_some());
            let most = pair.sides[at].qp.cap().max_recv_wr as usize;
            while pair.sides[at].receives.len() < most {
                let id = world.id();
                let side = &mut pair.sides[at];
                let slice = side.mr.slice(0..8);
                must("post_recv", side.qp.post_recv(|rq| _ = rq.recv(slice).id(id)))?;
                side.receives.push_back((id, 0..8));
            }
            if world.is_ours() {
                let side = &mut pair.sides[at];
                let slice = side.mr.slice(0..8);
                let over = side.qp.post_recv(|rq| _ = rq.recv(slice));
                world.not_posted("post_recv to a full queue", over, |reason| {
                    matches!(reason, PostRefusal::QueueFull { .. })
                })?;
            }
            pair.start_over(world, Vec::new())
        })
    }

    /// A list with more entries than the queue pair has room for, behind a good work request, which is posted.
    pub(super) fn step_entries(&mut self) -> Found {
        self.with_pair(Some(QpType::Rc), |world, pair| {
            let (from, to) = world.direction();
            let id = world.id();
            let side = &mut pair.sides[from];
            let slice = side.mr.slice(0..8);
            let many = vec![slice; side.qp.cap().max_send_sge as usize + 1];
            let remote = pair.sides[to].mr.remote().at(0);
            let posted = pair.sides[from].qp.post(|wr| {
                wr.write(slice, remote).id(id);
                wr.write(many, remote);
            });
            match &posted {
                Err(error) if error.index == 1 => {}
                other => return Err(format!("a list with one wrong request at 1 is answered by {other:?}")),
            }
            world.not_posted("post_send of too many entries", posted, |reason| {
                matches!(reason, PostRefusal::WorkRequest(_))
            })?;
            world.expect(pair, vec![Want::good(id, WcOpcode::RdmaWrite)])?;
            let bytes = pair.sides[from].model.get(..8).unwrap_or_default().to_vec();
            if let Some(model) = pair.sides[to].model.get_mut(..8) {
                model.copy_from_slice(&bytes);
            }
            Ok(())
        })
    }

    /// A write or a read of what it has no right to.
    pub(super) fn step_trespass(&mut self) -> Found {
        self.with_pair(Some(QpType::Rc), |world, pair| {
            let (from, to) = world.direction();
            let kinds = [Trespass::Key, Trespass::End, Trespass::Gone];
            let kind = *world.rng.choice(kinds.iter()).unwrap_or(&Trespass::Key);
            let (id, reads) = (world.id(), world.rng.bool());
            let good = pair.sides[to].mr.remote().at(0);
            let remote = match kind {
                Trespass::Key => RemoteAddr { rkey: good.rkey ^ 0x5a00, ..good },
                Trespass::End => RemoteAddr { addr: good.addr + BYTES as u64 - 8, ..good },
                Trespass::Gone => {
                    let pd = pair.sides[to].qp.pd().clone();
                    let gone = must("reg_mr", pd.alloc(BYTES, every_right()))?;
                    let remote = gone.remote().at(0);
                    must("dereg_mr", gone.deregister())?;
                    remote
                }
            };
            let slice = pair.sides[from].mr.slice(0..16);
            let posted = pair.sides[from].qp.post(|wr| match reads {
                true => _ = wr.read(slice, remote).id(id),
                false => _ = wr.write(slice, remote).id(id),
            });
            must("post_send", posted)?;
            pair.start_over_after(world, Want::of(id, WcStatus::RemAccessErr))
        })
    }

    /// Bytes from a region of another protection domain.
    pub(super) fn step_domain(&mut self) -> Found {
        self.with_pair(Some(QpType::Rc), |world, pair| {
            let (from, to) = world.direction();
            let id = world.id();
            let other = must("alloc_pd", world.device.alloc_pd())?;
            let foreign = must("reg_mr", other.alloc(64, every_right()))?;
            let (slice, remote) = (foreign.slice(0..16), pair.sides[to].mr.remote().at(0));
            let posted = pair.sides[from].qp.post(|wr| _ = wr.write(slice, remote).id(id));
            must("post_send", posted)?;
            pair.start_over_after(world, Want::of(id, WcStatus::LocProtErr))
        })
    }

    /// A message that is longer than the receive it finds: both sides hear of it.
    pub(super) fn step_long(&mut self) -> Found {
        self.with_pair(Some(QpType::Rc), |world, pair| {
            let (from, to) = if pair.sides[0].srq.is_some() { (0, 1) } else { world.direction() };
            if pair.sides[to].receives.len() >= DEPTH as usize {
                return Ok(());
            }
            if pair.sides[to].receives.is_empty() {
                world.post_receive(pair, to)?;
            }
            let Some((receive, place)) = pair.sides[to].receives.pop_front() else { return Ok(()) };
            let id = world.id();
            let slice = pair.sides[from].mr.slice(0..place.len() + 100);
            must("post_send", pair.sides[from].qp.post(|wr| _ = wr.send(slice).id(id)))?;
            // Which of the two comes first is nobody's promise, and flushed receives may come between.
            world.expect_errors(
                pair,
                vec![Want::of(id, WcStatus::RemInvReqErr), Want::of(receive, WcStatus::LocLenErr)],
            )?;
            // What fitted may be there.
            let side = &mut pair.sides[to];
            if let Some(model) = side.model.get_mut(place.clone()) {
                side.mr.read(place.start, model);
            }
            pair.start_over(world, Vec::new())
        })
    }
}
