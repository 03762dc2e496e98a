//! What a walk does rightly: objects come and go, and work is done.

use tbrdma::{Access, MwType, QpType, WcOpcode, WcStatus};

use super::world::{BYTES, DEPTH, Found, Pair, Want, World, every_right, must};

/// The key of datagram queue pairs.
const QKEY: u32 = 0x1234_5678;
/// What stands before a datagram.
const GRH: usize = 40;

impl World {
    /// A protection domain comes, or goes with all that the model has of it still alive.
    pub(super) fn step_pd(&mut self) -> Found {
        if self.domains.len() < self.most.domains && self.rng.bool() {
            self.domains.push(must("alloc_pd", self.device.alloc_pd())?);
        } else if !self.domains.is_empty() {
            let at = self.rng.usize(0..self.domains.len());
            self.domains.swap_remove(at);
        }
        Ok(())
    }

    /// A completion queue comes, is resized, or goes.
    pub(super) fn step_cq(&mut self) -> Found {
        let size = self.rng.u32(1..200);
        match self.rng.u8(0..3) {
            0 if self.queues.len() < self.most.queues => {
                let queue = must("create_cq", self.device.create_cq(size))?;
                if queue.cqe() < size {
                    return Err(format!("create_cq of {size} entries gave {}", queue.cqe()));
                }
                self.queues.push(queue);
            }
            1 if !self.queues.is_empty() => {
                let at = self.rng.usize(0..self.queues.len());
                self.queues.swap_remove(at);
            }
            _ => {
                if let Some(queue) = self.queues.first() {
                    match queue.resize(size) {
                        Ok(()) if queue.cqe() < size => {
                            return Err(format!("resize_cq to {size} entries gave {}", queue.cqe()));
                        }
                        // Few adapters cannot, and say so.
                        Ok(()) | Err(tbrdma::Error::NotSupported { .. } | tbrdma::Error::Refused { .. }) => {}
                        Err(error) => return Err(format!("resize_cq must succeed, and says: {error}")),
                    }
                }
            }
        }
        Ok(())
    }

    /// A region that nobody works on comes or goes.
    pub(super) fn step_mr(&mut self) -> Found {
        if self.regions.len() < self.most.regions && self.rng.bool() {
            let pd = self.domain()?;
            let length = self.rng.usize(1..10_000);
            let mut model = vec![0; length];
            self.rng.fill(&mut model);
            let mr = must("reg_mr", pd.alloc(length, every_right()))?;
            if mr.len() != length {
                return Err(format!("reg_mr of {length} bytes gave {}", mr.len()));
            }
            mr.write(0, &model);
            self.regions.push((mr, model));
        } else if !self.regions.is_empty() {
            let at = self.rng.usize(0..self.regions.len());
            let (mr, _) = self.regions.swap_remove(at);
            must("dereg_mr", mr.deregister())?;
        }
        Ok(())
    }

    /// A memory window comes or goes.
    pub(super) fn step_mw(&mut self) -> Found {
        if self.windows.len() < self.most.windows && self.rng.bool() {
            let pd = self.domain()?;
            let mw_type = if self.rng.bool() { MwType::Type1 } else { MwType::Type2 };
            match pd.alloc_mw(mw_type) {
                Ok(window) => self.windows.push(window),
                Err(tbrdma::Error::NotSupported { .. } | tbrdma::Error::Refused { .. }) => self.refusals += 1,
                Err(error) => return Err(format!("alloc_mw must succeed, and says: {error}")),
            }
        } else if !self.windows.is_empty() {
            let at = self.rng.usize(0..self.windows.len());
            self.windows.swap_remove(at);
        }
        Ok(())
    }

    /// An address handle comes or goes.
    pub(super) fn step_ah(&mut self) -> Found {
        if self.handles.len() < self.most.handles && self.rng.bool() {
            let address = self.pairs.first().map(|pair| pair.sides[0].qp.address());
            if let Some(address) = address {
                let pd = self.domain()?;
                self.handles.push(must("create_ah", pd.create_ah_to(&address))?);
            }
        } else if !self.handles.is_empty() {
            let at = self.rng.usize(0..self.handles.len());
            self.handles.swap_remove(at);
        }
        Ok(())
    }

    /// A pair of queue pairs comes, of any kind.
    pub(super) fn step_qp(&mut self) -> Found {
        if self.pairs.len() < self.most.pairs {
            let Some(qp_type) = self.rng.choice(&self.kinds).copied() else { return Ok(()) };
            let shares =
                self.device.query_device().max_srq > 0 && qp_type == QpType::Rc && self.rng.u8(0..3) == 0;
            let pair = self.pair(qp_type, shares)?;
            self.pairs.push(pair);
        }
        Ok(())
    }

    /// A pair goes, with whatever is posted to it.
    pub(super) fn step_destroy(&mut self) -> Found {
        if !self.pairs.is_empty() {
            let at = self.rng.usize(0..self.pairs.len());
            self.pairs.swap_remove(at);
        }
        Ok(())
    }

    /// Does something with a pair, which is connected first.
    pub(super) fn with_pair(
        &mut self,
        only: Option<QpType>,
        work: impl FnOnce(&mut Self, &mut Pair) -> Found,
    ) -> Found {
        let fitting = |pair: &Pair| only.is_none_or(|only| pair.qp_type == only);
        let chosen: Vec<usize> =
            self.pairs.iter().enumerate().filter(|(_, pair)| fitting(pair)).map(|(at, _)| at).collect();
        let mut pair = match self.rng.choice(&chosen) {
            Some(at) => self.pairs.swap_remove(*at),
            None => match only.or_else(|| self.kinds.first().copied()) {
                Some(kind) if self.kinds.contains(&kind) => self.pair(kind, false)?,
                // The device has none of that kind.
                _ => return Ok(()),
            },
        };
        self.connect(&mut pair)?;
        let worked = work(self, &mut pair);
        self.pairs.push(pair);
        worked
    }

    fn connect(&self, pair: &mut Pair) -> Found {
        if pair.connected {
            return Ok(());
        }
        let [one, other] = &mut pair.sides;
        if pair.qp_type == QpType::Ud {
            must("activate_ud", one.qp.activate_ud(QKEY))?;
            must("activate_ud", other.qp.activate_ud(QKEY))?;
        } else {
            let (first, second) = (one.qp.address(), other.qp.address());
            must("connect", one.qp.connect(&second))?;
            must("connect", other.qp.connect(&first))?;
        }
        pair.connected = true;
        Ok(())
    }

    /// Which side begins, and which is the other.
    pub(super) fn direction(&mut self) -> (usize, usize) {
        if self.rng.bool() { (0, 1) } else { (1, 0) }
    }

    /// A receive is posted and waits.
    pub(super) fn step_receive(&mut self) -> Found {
        self.with_pair(None, |world, pair| {
            let (at, _) = world.direction();
            world.post_receive(pair, at).map(|_| ())
        })
    }

    /// Posts a receive for any message, where one finds room.
    pub(super) fn post_receive(&mut self, pair: &mut Pair, at: usize) -> Found<bool> {
        let id = self.id();
        let side = &mut pair.sides[at];
        if side.receives.len() >= DEPTH as usize {
            return Ok(false);
        }
        // Halves of memory of their own for what arrives: what is sent comes from elsewhere.
        let place = self.rng.usize(0..BYTES / 2 - 200);
        let place = place..place + 200;
        let slice = side.mr.slice(place.clone());
        let posted = match &mut side.srq {
            Some(srq) => srq.post_recv(|rq| _ = rq.recv(slice).id(id)),
            None => side.qp.post_recv(|rq| _ = rq.recv(slice).id(id)),
        };
        must("post_recv", posted)?;
        side.receives.push_back((id, place));
        Ok(true)
    }

    /// A message is sent into a posted receive, perhaps with unsignaled ones before it.
    pub(super) fn step_send(&mut self) -> Found {
        self.with_pair(None, |world, pair| {
            let (from, to) = world.direction();
            if pair.sides[to].receives.is_empty() {
                world.post_receive(pair, to)?;
            }
            let Some((receive, place)) = pair.sides[to].receives.pop_front() else { return Ok(()) };
            let head = if pair.qp_type == QpType::Ud { GRH } else { 0 };
            let length = world.rng.usize(1..=200 - head);
            let start = world.rng.usize(BYTES / 2..BYTES - length);
            let imm = world.rng.bool().then(|| world.rng.u32(..));
            let (id, inline) = (world.id(), world.rng.u8(0..4) == 0);
            let bytes = pair.sides[from].model.get(start..start + length).unwrap_or_default().to_vec();
            let handle = match pair.qp_type {
                QpType::Ud => {
                    let address = pair.sides[to].qp.address();
                    let pd = pair.sides[from].qp.pd().clone();
                    Some((must("create_ah", pd.create_ah_to(&address))?, address.qpn))
                }
                _ => None,
            };
            let side = &mut pair.sides[from];
            let slice = side.mr.slice(start..start + length);
            let inline = inline && side.qp.cap().max_inline_data as usize >= length;
            let posted = side.qp.post(|wr| {
                let wr = match (imm, inline) {
                    (None, false) => wr.send(slice),
                    (Some(imm), false) => wr.send_with_imm(slice, imm),
                    (None, true) => wr.send_inline(&bytes),
                    (Some(imm), true) => wr.send_inline_with_imm(&bytes, imm),
                };
                let wr = wr.id(id);
                if let Some((handle, qpn)) = &handle {
                    wr.to(handle, *qpn, QKEY);
                }
            });
            must("post_send", posted)?;
            let arrived =
                Want { byte_len: Some((head + length) as u32), imm, ..Want::good(receive, WcOpcode::Recv) };
            world.expect(pair, vec![Want::good(id, WcOpcode::Send), arrived])?;
            let side = &mut pair.sides[to];
            if head > 0 {
                // The routing header is the device's.
                let header = place.start..place.start + head;
                if let Some(model) = side.model.get_mut(header) {
                    side.mr.read(place.start, model);
                }
            }
            let arrived = place.start + head..place.start + head + length;
            if let Some(model) = side.model.get_mut(arrived) {
                model.copy_from_slice(&bytes);
            }
            Ok(())
        })
    }

    /// Bytes are written into the other's memory, as a list of which only the last asks for a completion.
    pub(super) fn step_write(&mut self) -> Found {
        let only = if self.rng.bool() { QpType::Rc } else { QpType::Uc };
        self.with_pair(Some(only), |world, pair| {
            let (from, to) = world.direction();
            let count = world.rng.u32(1..=DEPTH);
            if pair.sides[to].mr.rkey() == 0 {
                // Peers of such a device reach no memory.
                return Ok(());
            }
            let (id, mut writes) = (world.id(), Vec::new());
            for _ in 0..count {
                let source = world.part(64);
                let target = world.rng.usize(0..=BYTES - source.len());
                writes.push((source, target));
            }
            let remote = pair.sides[to].mr.remote();
            let side = &mut pair.sides[from];
            let slices: Vec<_> = writes.iter().map(|(source, _)| side.mr.slice(source.clone())).collect();
            let posted = side.qp.post(|wr| {
                for (number, (slice, (_, target))) in (1..).zip(slices.iter().zip(&writes)) {
                    let wr = wr.write(*slice, remote.at(*target as u64)).id(id);
                    if number < count {
                        wr.unsignaled();
                    }
                }
            });
            must("post_send", posted)?;
            for (source, target) in &writes {
                let bytes = pair.sides[from].model.get(source.clone()).unwrap_or_default().to_vec();
                if let Some(model) = pair.sides[to].model.get_mut(*target..*target + bytes.len()) {
                    model.copy_from_slice(&bytes);
                }
            }
            world.expect(pair, vec![Want::good(id, WcOpcode::RdmaWrite)])?;
            world.settle(pair, to);
            Ok(())
        })
    }

    /// Of an unreliable connection, a write has left when it completes, and arrives a little later.
    fn settle(&self, pair: &Pair, at: usize) {
        if pair.qp_type == QpType::Uc {
            let side = &pair.sides[at];
            let arrived = || {
                let mut bytes = vec![0; BYTES];
                side.mr.read(0, &mut bytes);
                (bytes == side.model).then_some(())
            };
            // What has not arrived by then is told by the check of all memory.
            let _ = self.device.wait_for(Some(std::time::Duration::from_secs(5)), arrived);
        }
    }

    /// Bytes are read from the other's memory.
    pub(super) fn step_read(&mut self) -> Found {
        self.with_pair(Some(QpType::Rc), |world, pair| {
            let (from, to) = world.direction();
            let (id, target) = (world.id(), world.part(300));
            let source = world.rng.usize(0..=BYTES - target.len());
            let remote = pair.sides[to].mr.remote();
            let slice = pair.sides[from].mr.slice(target.clone());
            let posted = pair.sides[from].qp.post(|wr| _ = wr.read(slice, remote.at(source as u64)).id(id));
            must("post_send", posted)?;
            world.expect(pair, vec![Want::good(id, WcOpcode::RdmaRead)])?;
            let bytes = pair.sides[to].model.get(source..source + target.len()).unwrap_or_default().to_vec();
            if let Some(model) = pair.sides[from].model.get_mut(target) {
                model.copy_from_slice(&bytes);
            }
            Ok(())
        })
    }

    /// A word of the other's memory is changed, and what it was is brought.
    pub(super) fn step_atomic(&mut self) -> Found {
        self.with_pair(Some(QpType::Rc), |world, pair| {
            let (from, to) = world.direction();
            let (id, into, word) = (world.id(), world.word(), world.word());
            let (adds, value, matches) = (world.rng.bool(), world.rng.u64(..), world.rng.bool());
            let old = word_of(&pair.sides[to].model, word);
            let compare = if matches { old } else { !old };
            let remote = pair.sides[to].mr.remote().at(word as u64);
            let slice = pair.sides[from].mr.slice(into..into + 8);
            let posted = pair.sides[from].qp.post(|wr| match adds {
                true => _ = wr.fetch_and_add(slice, remote, value).id(id),
                false => _ = wr.compare_and_swap(slice, remote, compare, value).id(id),
            });
            must("post_send", posted)?;
            let opcode = if adds { WcOpcode::FetchAdd } else { WcOpcode::CompSwap };
            world.expect(pair, vec![Want::good(id, opcode)])?;
            let new = match (adds, matches) {
                (true, _) => old.wrapping_add(value),
                (false, true) => value,
                (false, false) => old,
            };
            set_word(&mut pair.sides[to].model, word, new);
            set_word(&mut pair.sides[from].model, into, old);
            Ok(())
        })
    }

    /// A window of type 2 is bound to a part of memory; what is in it may be written, and after it is invalidated no more.
    pub(super) fn step_window(&mut self) -> Found {
        self.with_pair(Some(QpType::Rc), |world, pair| {
            let (from, to) = world.direction();
            let Ok(window) = pair.sides[to].qp.pd().alloc_mw(MwType::Type2) else {
                world.refusals += 1;
                return Ok(());
            };
            let part = world.part(128);
            let bind = window.bind_to(&pair.sides[to].mr, part.clone(), Access::REMOTE_WRITE);
            let (bound, written, ended, late) = (world.id(), world.id(), world.id(), world.id());
            must("post_send of BIND_MW", pair.sides[to].qp.post(|wr| _ = wr.bind_mw(&bind).id(bound)))?;
            world.expect(pair, vec![Want::good(bound, WcOpcode::BindMw)])?;
            let source = world.rng.usize(0..=BYTES - part.len());
            let slice = pair.sides[from].mr.slice(source..source + part.len());
            let remote =
                tbrdma::RemoteAddr { addr: pair.sides[to].mr.addr() + part.start as u64, rkey: bind.rkey };
            must("post_send", pair.sides[from].qp.post(|wr| _ = wr.write(slice, remote).id(written)))?;
            world.expect(pair, vec![Want::good(written, WcOpcode::RdmaWrite)])?;
            let bytes = pair.sides[from].model.get(source..source + part.len()).unwrap_or_default().to_vec();
            if let Some(model) = pair.sides[to].model.get_mut(part) {
                model.copy_from_slice(&bytes);
            }
            must(
                "post_send of LOCAL_INV",
                pair.sides[to].qp.post(|wr| _ = wr.local_inv(bind.rkey).id(ended)),
            )?;
            world.expect(pair, vec![Want::good(ended, WcOpcode::LocalInv)])?;
            must("post_send", pair.sides[from].qp.post(|wr| _ = wr.write(slice, remote).id(late)))?;
            pair.start_over_after(world, Want::of(late, WcStatus::RemAccessErr))
        })
    }

    /// A pair is taken out of service with receives posted, which are flushed.
    pub(super) fn step_flush(&mut self) -> Found {
        self.with_pair(None, |world, pair| {
            for _ in 0..world.rng.u8(0..4) {
                let (at, _) = world.direction();
                world.post_receive(pair, at)?;
            }
            pair.start_over(world, Vec::new())
        })
    }
}

impl Pair {
    /// After an error that a work request must end with: the rest is flushed.
    pub(super) fn start_over_after(&mut self, world: &mut World, want: Want) -> Found {
        world.expect_errors(self, vec![want])?;
        self.start_over(world, Vec::new())
    }
}

/// The word at a place of memory.
fn word_of(memory: &[u8], at: usize) -> u64 {
    let bytes = memory.get(at..at + 8).and_then(|bytes| bytes.first_chunk::<8>());
    u64::from_ne_bytes(bytes.copied().unwrap_or_default())
}

fn set_word(memory: &mut [u8], at: usize, word: u64) {
    if let Some(bytes) = memory.get_mut(at..at + 8) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
}
