//! The objects of a walk, and what the model knows of them.
//!
//! A pair is two queue pairs of one context, connected to each other, each with memory of its own of which the model has a copy. Between steps
//! nothing is under way but receives; so after each step the model can say of every byte and of every completion whether it should be there.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use tbrdma::{
    Access, AddressHandle, CompletionQueue, Context as Device, MemoryRegion, MemoryWindow, ProtectionDomain,
    QpInit, QpState, QpType, QueuePair, SharedReceiveQueue, WcOpcode, WcStatus, WorkCompletion,
};

/// Bytes of a side's memory: few, so that all of them are compared after each step.
pub(super) const BYTES: usize = 1024;
/// Work requests that a queue holds.
pub(super) const DEPTH: u32 = 8;
/// The most objects of a kind, however many a device has.
const MOST: usize = 6;
/// What completes does so within this time, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was found to be otherwise than the model says.
pub(super) type Found<T = ()> = Result<T, String>;

/// Every right there is.
pub(super) fn every_right() -> Access {
    Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC | Access::MW_BIND
}

/// A completion that must come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) id: u64,
    pub(super) status: WcStatus,
    /// Told only of success.
    pub(super) opcode: Option<WcOpcode>,
    pub(super) byte_len: Option<u32>,
    pub(super) imm: Option<u32>,
}

impl Want {
    pub(super) fn of(id: u64, status: WcStatus) -> Self {
        Self { id, status, opcode: None, byte_len: None, imm: None }
    }

    pub(super) fn good(id: u64, opcode: WcOpcode) -> Self {
        Self { opcode: Some(opcode), ..Self::of(id, WcStatus::Success) }
    }

    /// Is it the other side that refuses, by a packet?
    fn is_told(&self) -> bool {
        matches!(self.status, WcStatus::RemAccessErr | WcStatus::RemInvReqErr)
    }

    /// Why a completion is not this one.
    fn differs(&self, wc: &WorkCompletion) -> Option<String> {
        let told = self.status == WcStatus::Success;
        let right = wc.status == self.status
            && (!told || self.opcode.is_none_or(|opcode| wc.opcode == opcode))
            && (!told || self.byte_len.is_none_or(|length| wc.byte_len == length))
            && (!told || self.imm.is_none_or(|imm| wc.imm_data == imm));
        (!right).then(|| format!("work request {} completed as {wc:?}, and not as {self:?}", self.id))
    }
}

/// One of a pair.
pub(super) struct Side {
    pub(super) qp: QueuePair,
    pub(super) cq: CompletionQueue,
    pub(super) mr: MemoryRegion,
    /// What the memory holds, by the model.
    pub(super) model: Vec<u8>,
    /// Posted receives: identifier and place.
    pub(super) receives: VecDeque<(u64, Range<usize>)>,
    /// Where those are taken from, if from a shared queue.
    pub(super) srq: Option<SharedReceiveQueue>,
}

/// Two queue pairs.
pub(super) struct Pair {
    pub(super) qp_type: QpType,
    pub(super) sides: [Side; 2],
    pub(super) connected: bool,
}

/// The most objects of each kind that stay.
pub(super) struct Most {
    pub(super) domains: usize,
    pub(super) queues: usize,
    pub(super) regions: usize,
    pub(super) windows: usize,
    pub(super) handles: usize,
    pub(super) pairs: usize,
}

/// Everything there is.
pub(super) struct World {
    pub(super) device: Device,
    pub(super) rng: fastrand::Rng,
    /// Kinds of queue pairs that the device has.
    pub(super) kinds: Vec<QpType>,
    pub(super) most: Most,
    /// Are packets lost on the way?
    pub(super) lossy: bool,
    pub(super) domains: Vec<ProtectionDomain>,
    pub(super) queues: Vec<CompletionQueue>,
    pub(super) regions: Vec<(MemoryRegion, Vec<u8>)>,
    pub(super) windows: Vec<MemoryWindow>,
    pub(super) handles: Vec<AddressHandle>,
    pub(super) pairs: Vec<Pair>,
    next_id: u64,
    /// Completions that came.
    pub(super) completions: u64,
    /// Calls that were refused, as they should be.
    pub(super) refusals: u64,
}

impl World {
    pub(super) fn new(device: Device, seed: u64) -> Self {
        let mut kinds = vec![QpType::Rc, QpType::Uc, QpType::Ud];
        kinds.retain(|kind| has(&device, *kind));
        let limits = device.query_device();
        // A third of what there is: steps make some for themselves.
        let third = |limit: u32| (limit as usize / 3).clamp(1, MOST);
        let most = Most {
            domains: third(limits.max_pd),
            queues: third(limits.max_cq / 2),
            regions: third(limits.max_mr / 3),
            windows: (limits.max_mw as usize / 3).min(MOST),
            handles: third(limits.max_ah),
            pairs: third(limits.max_qp / 2).min(third(limits.max_cq / 2)),
        };
        Self {
            kinds,
            most,
            lossy: false,
            device,
            rng: fastrand::Rng::with_seed(seed),
            domains: Vec::new(),
            queues: Vec::new(),
            regions: Vec::new(),
            windows: Vec::new(),
            handles: Vec::new(),
            pairs: Vec::new(),
            next_id: 0,
            completions: 0,
            refusals: 0,
        }
    }

    /// An identifier that no other work request has.
    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A part of a side's memory, of this length at most; never empty.
    pub(super) fn part(&mut self, most: usize) -> Range<usize> {
        let length = self.rng.usize(1..=most.min(BYTES));
        let start = self.rng.usize(0..=BYTES - length);
        start..start + length
    }

    /// The place of a word.
    pub(super) fn word(&mut self) -> usize {
        self.rng.usize(0..BYTES / 8) * 8
    }

    /// A protection domain, made if there is none.
    pub(super) fn domain(&mut self) -> Found<ProtectionDomain> {
        if self.domains.is_empty() {
            self.domains.push(must("alloc_pd", self.device.alloc_pd())?);
        }
        let at = self.rng.usize(0..self.domains.len());
        self.domains.get(at).cloned().ok_or_else(|| "there is no protection domain".to_owned())
    }

    /// A new pair.
    pub(super) fn pair(&mut self, qp_type: QpType, shared: bool) -> Found<Pair> {
        let first = self.side(qp_type, shared)?;
        let second = self.side(qp_type, false)?;
        Ok(Pair { qp_type, sides: [first, second], connected: false })
    }

    fn side(&mut self, qp_type: QpType, shared: bool) -> Found<Side> {
        let pd = self.domain()?;
        let cq = must("create_cq", self.device.create_cq(4 * DEPTH))?;
        let mr = must("reg_mr", pd.alloc(BYTES, every_right()))?;
        let mut model = vec![0; BYTES];
        self.rng.fill(&mut model);
        mr.write(0, &model);
        let srq = match shared {
            true => Some(must("create_srq", pd.create_srq(DEPTH, 1))?),
            false => None,
        };
        let entries = self.device.query_device().max_sge.min(2);
        let mut init = QpInit::new(qp_type, &cq)
            .max_send_wr(DEPTH)
            .max_recv_wr(DEPTH)
            .max_send_sge(entries)
            .max_recv_sge(1);
        if let Some(srq) = &srq {
            init = init.srq(srq);
        }
        let qp = must("create_qp", pd.create_qp(init))?;
        Ok(Side { qp, cq, mr, model, receives: VecDeque::new(), srq })
    }

    /// Takes completions of both sides of a pair until all that are wanted have come, each once.
    pub(super) fn expect(&mut self, pair: &Pair, wants: Vec<Want>) -> Found {
        let mut wants: BTreeMap<u64, Want> = wants.into_iter().map(|want| (want.id, want)).collect();
        let mut wrong = None;
        let mut came = 0;
        let waited = self.device.wait_for(Some(PATIENCE), || {
            for side in &pair.sides {
                let mut room = [WorkCompletion::default(); 16];
                for wc in side.cq.poll(&mut room) {
                    came += 1;
                    let found = match wants.remove(&wc.wr_id) {
                        Some(want) => want.differs(wc),
                        None => Some(format!("a completion came that should not: {wc:?}")),
                    };
                    wrong = wrong.take().or(found);
                }
            }
            (wants.is_empty() || wrong.is_some()).then_some(())
        });
        self.completions += came;
        verdict(wrong, waited, &wants)
    }

    /// Takes completions until those have come that queue pairs fail with. Receives of both may be flushed by then, each once.
    pub(super) fn expect_errors(&mut self, pair: &mut Pair, wants: Vec<Want>) -> Found {
        let mut wants: BTreeMap<u64, Want> = wants.into_iter().map(|want| (want.id, want)).collect();
        let (mut wrong, mut came, lossy) = (None, 0, self.lossy);
        let waited = self.device.wait_for(Some(PATIENCE), || {
            for side in &mut pair.sides {
                let mut room = [WorkCompletion::default(); 16];
                for wc in side.cq.poll(&mut room) {
                    came += 1;
                    let posted = side.receives.iter().position(|(id, _)| *id == wc.wr_id);
                    let flushed = posted.filter(|_| wc.status == WcStatus::WrFlushErr && side.srq.is_none());
                    let found = match (flushed, wants.remove(&wc.wr_id)) {
                        (Some(at), _) => {
                            side.receives.remove(at);
                            None
                        }
                        // The word of the refusal was lost, and whoever sent it says nothing more.
                        (None, Some(want))
                            if lossy && wc.status == WcStatus::RetryExcErr && want.is_told() =>
                        {
                            None
                        }
                        (None, Some(want)) => want.differs(wc),
                        (None, None) => Some(format!("a completion came that should not: {wc:?}")),
                    };
                    wrong = wrong.take().or(found);
                }
            }
            (wants.is_empty() || wrong.is_some()).then_some(())
        });
        self.completions += came;
        verdict(wrong, waited, &wants)
    }

    /// What holds between steps: nothing is in any completion queue, memory is as the model says, and states are.
    pub(super) fn check(&mut self) -> Found {
        let pairs = std::mem::take(&mut self.pairs);
        let checked = pairs.iter().try_for_each(|pair| {
            self.expect(pair, Vec::new())?;
            for side in &pair.sides {
                memory_is(&side.mr, &side.model)?;
                let wanted = if pair.connected { QpState::Rts } else { QpState::Reset };
                if side.qp.state() != wanted {
                    return Err(format!(
                        "{:?} is in {:?}, not in {wanted:?}",
                        side.qp.qp_num(),
                        side.qp.state()
                    ));
                }
            }
            Ok(())
        });
        self.pairs = pairs;
        checked?;
        for queue in &self.queues {
            let mut room = [WorkCompletion::default(); 1];
            if let Some(wc) = queue.poll(&mut room).first() {
                return Err(format!("a completion came in a queue that nobody uses: {wc:?}"));
            }
        }
        self.regions.iter().try_for_each(|(mr, model)| memory_is(mr, model))
    }
}

impl Pair {
    /// Both queue pairs out of service: what is posted is flushed, each once. Then they are as new.
    pub(super) fn start_over(&mut self, world: &mut World, mut wants: Vec<Want>) -> Found {
        for side in &mut self.sides {
            must("modify_qp to ERR", side.qp.to_error())?;
            // Those of a shared queue stay there for others.
            if side.srq.is_none() {
                let flushed = side.receives.drain(..).map(|(id, _)| Want::of(id, WcStatus::WrFlushErr));
                wants.extend(flushed);
            }
        }
        world.expect(self, wants)?;
        for side in &mut self.sides {
            must("modify_qp to RESET", side.qp.reset())?;
        }
        self.connected = false;
        Ok(())
    }
}

/// Does the device have queue pairs of this kind? One that does not says so, and nothing else.
fn has(device: &Device, kind: QpType) -> bool {
    let made = || {
        let (pd, cq) = (device.alloc_pd()?, device.create_cq(1)?);
        pd.create_qp(QpInit::new(kind, &cq)).map(|_| ())
    };
    !matches!(made(), Err(tbrdma::Error::NotSupported { .. } | tbrdma::Error::Refused { .. }))
}

/// What became of a wait for completions: something `wrong`, the last of those that were wanted, or not all of them in time.
fn verdict(wrong: Option<String>, waited: Option<()>, wants: &BTreeMap<u64, Want>) -> Found {
    match (wrong, waited) {
        (Some(wrong), _) => Err(wrong),
        (None, Some(())) => Ok(()),
        (None, None) => {
            Err(format!("no completion within {PATIENCE:?}: {:?}", wants.values().collect::<Vec<_>>()))
        }
    }
}

/// Fails unless a region holds what the model says.
fn memory_is(mr: &MemoryRegion, model: &[u8]) -> Found {
    let mut bytes = vec![0; model.len()];
    mr.read(0, &mut bytes);
    let differ = bytes.iter().zip(model).enumerate().find(|(_, (is, should))| is != should);
    match differ {
        None => Ok(()),
        Some((at, (is, should))) => {
            Err(format!("byte {at} of the region with lkey {:#x} is {is:#04x}, not {should:#04x}", mr.lkey()))
        }
    }
}

/// What must succeed.
pub(super) fn must<T, E: std::fmt::Display>(call: &str, result: Result<T, E>) -> Found<T> {
    result.map_err(|error| format!("{call} must succeed, and says: {error}"))
}
