//! Both sides of a run: two adapters, their clock, and flows of messages from one to the other.
//!
//! Both are driven by one thread. So on a simulated network everything follows from the seed, and elsewhere a run needs one core, and no scheduler
//! stands between a message and its receiver.

use std::collections::BTreeMap;
use std::time::Duration;

use tbrdma::{
    Access, CompletionQueue, Connection, Context as Device, InTurn, MemoryRegion, OpenOptions,
    ProtectionDomain, QpInit, QueuePair, WorkCompletion,
};

use super::plan::Plan;
use crate::error::{Context, Error, Result};
use crate::plan::Op;

/// Work requests beyond the depth: the first word of each side.
const SPARE: u32 = 4;
/// How long the first word may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which device, and where the dice start.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its name.
    pub device: String,
    /// What it pretends to be.
    pub profile: Option<String>,
    /// Where the dice start.
    pub seed: u64,
}

/// One adapter.
pub struct Side {
    /// It.
    pub device: Device,
    /// Where its sends complete.
    pub sends: CompletionQueue,
    /// Where its receives complete.
    pub receives: CompletionQueue,
    pd: ProtectionDomain,
}

/// Two adapters.
pub struct World {
    /// The side that sends.
    pub ours: Side,
    /// The side that answers.
    pub theirs: Side,
    /// Whether their time is virtual.
    pub is_virtual: bool,
    /// When the run began, by the clock of our device.
    begun: Duration,
    _turn: InTurn,
}

/// A connection from one side to the other.
pub struct Pair {
    /// Our end.
    pub ours: QueuePair,
    /// Theirs.
    pub theirs: QueuePair,
}

/// The memory of a flow.
pub struct Buffers {
    /// Where our messages leave from, or what is read arrives.
    pub ours: MemoryRegion,
    /// Where they arrive, or what is read lies.
    pub theirs: MemoryRegion,
    /// From one slot to the next.
    pub stride: usize,
}

impl World {
    /// Opens both devices, with what goes wrong on their way.
    ///
    /// # Errors
    /// There is no such device, or it cannot do what the plan asks.
    pub fn open(plan: &Plan, place: &Place) -> Result<Self> {
        let open = |out: bool| -> Result<Side> {
            let mut options = OpenOptions::new().seed(place.seed.wrapping_add(u64::from(!out)));
            if let Some(profile) = &place.profile {
                options = options.profile(profile);
            }
            if plan.needs_packets() {
                options = options.fault(plan.faults(out).map_err(Error::Usage)?.to_string());
            } else if let Some(link) = &plan.run.link {
                options = options.link(link);
            }
            let device = options.open(&place.device).map_err(|error| refused(plan, place, &error))?;
            Side::new(device, plan)
        };
        let (ours, theirs) = (open(true)?, open(false)?);
        let turn = ours.device.take_turns().begin();
        let begun = ours.device.raw_clock();
        Ok(Self { is_virtual: ours.device.has_virtual_time(), ours, theirs, begun, _turn: turn })
    }

    /// The time since the run began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.ours.device.raw_clock().saturating_sub(self.begun)
    }

    /// Memory for a flow of this plan.
    ///
    /// # Errors
    /// The device has none.
    pub fn buffers(&self, plan: &Plan) -> Result<Buffers> {
        let stride = (plan.run.size as usize).next_multiple_of(64);
        let remote = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ;
        let theirs = if plan.run.op == Op::Send { plan.run.receives } else { plan.run.depth };
        let alloc = |side: &Side, slots: u32| {
            let bytes = stride * slots as usize;
            side.pd.alloc(bytes, remote).context(|| format!("register {bytes} bytes"))
        };
        Ok(Buffers { ours: alloc(&self.ours, plan.run.depth)?, theirs: alloc(&self.theirs, theirs)?, stride })
    }

    /// A new connection.
    ///
    /// # Errors
    /// A verbs call failed.
    pub fn connect(&self, plan: &Plan) -> Result<Pair> {
        let create = |side: &Side, sends: u32, receives: u32| {
            let init =
                QpInit::rc(&side.sends).recv_cq(&side.receives).max_send_wr(sends).max_recv_wr(receives);
            side.pd.create_qp(init.max_send_sge(1).max_recv_sge(1)).map_err(|error| {
                let text = format!("create a queue pair: {}", crate::error::one_line(&error.to_string()));
                let cannot = matches!(error, tbrdma::Error::NotSupported { .. });
                if cannot { Error::Usage(text) } else { Error::Run(text) }
            })
        };
        let mut pair = Pair {
            ours: create(&self.ours, plan.run.depth + SPARE, SPARE)?,
            theirs: create(&self.theirs, SPARE, plan.run.receives)?,
        };
        let mut with = Connection::default();
        with.timeout = plan.run.timeout_code();
        with.retry_cnt = plan.run.retry_cnt;
        with.rnr_retry = plan.run.rnr_retry;
        with.min_rnr_timer = plan.run.rnr_code();
        let port = self.ours.device.query_port(1).context(|| "query port 1".into())?;
        with.path_mtu = port.active_mtu;
        let addresses = (pair.ours.address(), pair.theirs.address());
        pair.ours.connect_with(&addresses.1, &with).context(|| format!("connect to {}", addresses.1))?;
        pair.theirs.connect_with(&addresses.0, &with).context(|| format!("connect to {}", addresses.0))?;
        Ok(pair)
    }

    /// Begins: both sides of each pair send a first word, so that both directions of the link, and what goes wrong on them, count from this moment.
    ///
    /// # Errors
    /// It did not arrive.
    pub fn begin(&mut self, pairs: &mut [(&mut Pair, &Buffers)]) -> Result<()> {
        self.begun = self.ours.device.raw_clock();
        for (pair, buffers) in pairs.iter_mut() {
            let word = |qp: &mut QueuePair, from: &MemoryRegion, to: &MemoryRegion| {
                let to = to.remote().at(0);
                qp.post(|batch| drop(batch.write(from.slice(0..0), to).id(0)))
                    .context(|| "post the first word".into())
            };
            word(&mut pair.ours, &buffers.ours, &buffers.theirs)?;
            word(&mut pair.theirs, &buffers.theirs, &buffers.ours)?;
        }
        let mut left = [pairs.len(); 2];
        let mut taken = [WorkCompletion::default(); 16];
        while left != [0, 0] {
            let before = left;
            for (side, left) in [&self.ours, &self.theirs].into_iter().zip(&mut left) {
                for wc in side.take(&side.sends, self.is_virtual, &mut taken) {
                    wc.ok().context(|| "send the first word".into())?;
                    *left = left.saturating_sub(1);
                }
            }
            if self.now() > PATIENCE {
                return Err(Error::Run(format!(
                    "the first word did not arrive within {} s",
                    PATIENCE.as_secs()
                )));
            }
            crate::signals::check()?;
            if left != before {
                continue;
            }
            self.rest(self.now() + PATIENCE, |world| {
                world.ours.sends.unpolled() + world.theirs.sends.unpolled() > 0
            });
        }
        Ok(())
    }

    /// Waits until something has happened that `is_news`, but not beyond a time. In real time it does not wait: who polls again finds out.
    pub fn rest(&self, until: Duration, is_news: impl Fn(&Self) -> bool) {
        if !self.is_virtual {
            std::hint::spin_loop();
        } else if let Some(left) = until.checked_sub(self.now()).filter(|left| !left.is_zero()) {
            self.ours.device.wait_for(Some(left), || is_news(self).then_some(()));
        }
    }

    /// What both devices have counted.
    #[must_use]
    pub fn counters(&self) -> [BTreeMap<&'static str, u64>; 2] {
        [&self.ours, &self.theirs].map(|side| side.device.counters().into_iter().collect())
    }
}

/// Why a device cannot be had: because it cannot do what the plan asks, where that is so.
fn refused(plan: &Plan, place: &Place, error: &tbrdma::Error) -> Error {
    let device = &place.device;
    let text = crate::error::one_line(&error.to_string());
    match error {
        tbrdma::Error::NotSupported { .. } => {
            let phases =
                plan.phases.iter().filter(|phase| phase.needs_packets()).map(|phase| phase.name.as_str());
            let phases: Vec<_> = phases.collect();
            let asks = if phases.is_empty() {
                "a link of another speed".to_owned()
            } else {
                format!("faults of packets (in {})", phases.join(", "))
            };
            Error::Usage(format!(
                "plan {} cannot be run on device {device}: it asks for {asks}, and: {text}",
                plan.name
            ))
        }
        _ => Error::Run(format!("open device {device}: {text}")),
    }
}

impl Side {
    fn new(device: Device, plan: &Plan) -> Result<Self> {
        let pd = device.alloc_pd().context(|| "allocate a protection domain".into())?;
        let entries = (plan.run.depth.max(plan.run.receives) + 2 * SPARE) * plan.run.queue_pairs;
        let entries = entries.min(device.query_device().max_cqe);
        let queue = || device.create_cq(entries).context(|| format!("create a CQ of {entries} entries"));
        Ok(Self { sends: queue()?, receives: queue()?, pd, device })
    }

    /// What a queue has now. In virtual time looking takes none.
    pub fn take<'t>(
        &self,
        queue: &CompletionQueue,
        is_virtual: bool,
        into: &'t mut [WorkCompletion],
    ) -> &'t [WorkCompletion] {
        if is_virtual && queue.unpolled() == 0 { &[] } else { queue.poll(into) }
    }
}
