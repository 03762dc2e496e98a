//! A rank's device and queue pairs, made to the plan and connected to the other ranks'.

use std::str::FromStr;

use tbrdma::{
    CompletionQueue, Connection, Context as Device, Mtu, OpenOptions, ProtectionDomain, QpAddress, QpInit,
    QueuePair, WorkCompletion,
};

use super::group::Group;
use super::plan::Plan;
use crate::affinity;
use crate::error::{Context, Error, Result, one_line};
use crate::plan::{MAX_DEPTH, Transport};
use crate::watch::{Spins, Watch};

/// The port of every device.
const PORT: u8 = 1;
/// How long a sender waits whose message found no receive, as a code: 0.64 ms. The default, half a second, is for peers that are slow for other reasons.
const RNR_TIMER: u8 = 12;
/// It tries for ever: the harness has a bound of its own.
const RNR_RETRY: u8 = 7;

/// A rank's open device.
pub struct Node {
    /// The device.
    pub device: Device,
    /// Its name.
    pub name: String,
    /// Its profile.
    pub profile: String,
    mtu: Mtu,
    transport: Transport,
}

impl Node {
    /// Opens the device of a rank, with the plan's link and its faults on the wire.
    ///
    /// # Errors
    /// There is no such device, or it cannot do what the plan asks.
    pub fn open(name: &str, plan: &Plan, rank: usize) -> Result<Self> {
        let mut options = OpenOptions::new();
        if let Some(profile) = &plan.profile {
            options = options.profile(profile);
        }
        if let Some(link) = &plan.link {
            options = options.link(link);
        }
        if let (Some(fault), Some(seed)) = (&plan.fault, plan.seed) {
            // Otherwise all ranks would lose the same packets.
            options = options.fault(fault).seed(seed.wrapping_add(rank as u64));
        }
        let device = options.open(name).context(|| format!("open device {name}"))?;
        let limits = device.query_device();
        let port = device.query_port(PORT).context(|| format!("query port {PORT} of device {name}"))?;
        if let Some(size) = plan.sizes.iter().find(|size| **size > u64::from(port.max_msg_sz)) {
            return Err(Error::Usage(format!(
                "--size {size} is over the limit of device {name}: its largest message is {} bytes",
                port.max_msg_sz
            )));
        }
        let most = limits.max_qp_wr.min(MAX_DEPTH);
        if plan.depth.max(plan.receives) + super::plan::SPARE > most {
            return Err(Error::Usage(format!(
                "--depth {} and --receives {} are over the limit of device {name}: it holds {} work requests in a queue",
                plan.depth, plan.receives, limits.max_qp_wr
            )));
        }
        Ok(Self {
            name: device.name().to_owned(),
            profile: device.profile().to_string(),
            mtu: port.active_mtu,
            transport: plan.transport,
            device,
        })
    }

    /// What the device has counted.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        self.device.counters().into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}

/// What a rank waits with: one completion queue for everything, and the means to wait for it.
pub struct Desk {
    /// The domain of all its queue pairs and memory.
    pub pd: ProtectionDomain,
    cq: CompletionQueue,
    watch: Watch,
    spins: Spins,
    crowded: bool,
    mtu: Mtu,
    transport: Transport,
}

impl Desk {
    /// For queue pairs that hold so many work requests together.
    ///
    /// # Errors
    /// The device refuses.
    pub fn new(node: &Node, group: &Group, entries: u32, crowded: bool) -> Result<Self> {
        let pd = node.device.alloc_pd().context(|| "allocate a protection domain".into())?;
        let cq = node.device.create_cq(entries).context(|| format!("create a CQ of {entries} entries"))?;
        let (mtu, transport) = (node.mtu, node.transport);
        Ok(Self { pd, cq, watch: group.watch(), spins: Spins::default(), crowded, mtu, transport })
    }

    /// Takes what completions there are. Where there are none, it looks around, and with more ranks than cores gives its core away.
    ///
    /// # Errors
    /// A completion failed, a rank went away, nothing came for too long, or the user interrupted.
    #[inline]
    pub fn poll<'t>(&mut self, taken: &'t mut [WorkCompletion]) -> Result<&'t [WorkCompletion]> {
        let count = self.cq.poll(taken).len();
        let taken = taken.get(..count).unwrap_or_default();
        if taken.is_empty() {
            if self.crowded {
                std::thread::yield_now();
            }
            self.watch.turn(&mut self.spins, "message or completion")?;
            return Ok(taken);
        }
        self.spins = Spins::default();
        match taken.iter().find_map(|wc| wc.ok().err()) {
            None => Ok(taken),
            Some(error) => Err(Error::Run(one_line(&error.to_string()))),
        }
    }
}

/// How many work requests a queue pair to another rank holds.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// In its send queue.
    pub sends: u32,
    /// In its receive queue.
    pub receives: u32,
}

/// A queue pair to each rank for which there is room, connected; all ranks come here together, and leave it together. `before` runs when the queue pair
/// to a rank is there, and posts its first receives.
///
/// # Errors
/// A verbs call failed, or a rank went away.
pub fn connect(
    group: &mut Group,
    desk: &Desk,
    rooms: &[Option<Room>],
    mut before: impl FnMut(usize, &mut QueuePair) -> Result<()>,
) -> Result<Vec<Option<QueuePair>>> {
    let mut pairs = Vec::new();
    for room in rooms {
        let pair = room.map(|room| {
            let init = match desk.transport {
                Transport::Uc => QpInit::uc(&desk.cq),
                _ => QpInit::rc(&desk.cq),
            };
            let init = init.max_send_wr(room.sends).max_recv_wr(room.receives);
            let init = init.max_send_sge(1).max_recv_sge(1).max_inline_data(0);
            desk.pd
                .create_qp(init)
                .context(|| format!("create a queue pair of --transport {}", desk.transport))
        });
        pairs.push(pair.transpose()?);
    }
    let own: Vec<_> = pairs.iter().map(|pair| pair.as_ref().map(|pair| pair.address().to_string())).collect();
    let theirs = group.exchange("queue pairs", own)?;
    let mut with = Connection::default();
    with.path_mtu = desk.mtu;
    with.min_rnr_timer = RNR_TIMER;
    with.rnr_retry = RNR_RETRY;
    for (rank, (pair, address)) in pairs.iter_mut().zip(theirs).enumerate() {
        let Some(pair) = pair else { continue };
        let address = address.unwrap_or_default();
        let peer = QpAddress::from_str(&address).map_err(|error| {
            Error::Run(format!("rank {rank} sent an address that makes no sense: {address:?}: {error}"))
        })?;
        pair.connect_with(&peer, &with).context(|| format!("connect to rank {rank} at {peer}"))?;
        before(rank, pair)?;
    }
    // Nobody sends before everybody's receives are there.
    group.barrier()?;
    Ok(pairs)
}

/// The cores this process may use, and whether so many ranks on its host are more.
///
/// # Errors
/// The system does not say.
pub fn cores(ranks_here: usize) -> Result<(Vec<usize>, bool)> {
    let allowed = affinity::allowed()?;
    let crowded = ranks_here > allowed.len();
    Ok((allowed, crowded))
}
