//! One side's device, buffers and queue pair, made to a plan and connected to the other side's.

use std::path::Path;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use tbrdma::{
    Access, AddressHandle, Context as Device, OpenOptions, ProtectionDomain, QpAddress, QpInit, QueuePair,
    RemoteRegion,
};

use crate::completions::Completions;
use crate::control::{Channel, Endpoint, Message};
use crate::error::{Context, Error, Result};
use crate::memory::Area;
use crate::mixed::Class;
use crate::plan::{Benchmark, GRH_BYTES, Op, Plan, QKEY, Transport};
use crate::watch::Watch;

/// The port of every device.
pub const PORT: u8 = 1;
/// Work requests beyond the plan's depth: credits of a stream.
pub const SPARE_WRS: u32 = 32;

/// Which part a side plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends first and measures.
    Initiator,
    /// Answers.
    Responder,
}

/// The name by which the other side of a run opens a device: the same, or of a socket whose name says who listens, the other end's.
#[must_use]
pub fn other_end(device: &str) -> String {
    for (ours, theirs) in [(",listen", ",connect"), (",connect", ",listen")] {
        if let Some(place) = device.strip_suffix(ours).filter(|place| place.starts_with("stream:")) {
            return format!("{place}{theirs}");
        }
    }
    device.to_owned()
}

/// Does a device with this name reach nobody but the one peer at the other end of a stream or a window?
#[must_use]
pub fn leads_to_one_peer(device: &str) -> bool {
    device.starts_with("stream:") || device.starts_with("bar:")
}

/// An open device which can do what the plan asks.
pub struct OpenDevice {
    /// The device.
    pub device: Device,
    /// Its name.
    pub name: String,
    /// Its profile.
    pub profile: String,
    /// Payload bytes of its largest packet.
    pub mtu: u32,
    /// Bytes of its largest message.
    pub max_msg_sz: u32,
}

/// Opens a device, with the plan's link and its faults on the wire.
///
/// # Errors
/// There is no such device, or it cannot pretend what the plan asks.
pub fn open_device(name: &str, plan: &Plan, role: Role, capture: Option<&Path>) -> Result<OpenDevice> {
    let mut options = OpenOptions::new();
    if let Some(profile) = &plan.profile {
        options = options.profile(profile);
    }
    if let Some(link) = &plan.link {
        options = options.link(link);
    }
    if let (Some(fault), Some(seed)) = (&plan.fault, plan.seed) {
        // Otherwise both directions would lose the same packets.
        options = options.fault(fault).seed(seed.wrapping_add(u64::from(role == Role::Responder)));
    }
    if let Some(file) = capture {
        options = options.capture(file);
    }
    let device = options.open(name).context(|| format!("open device {name}"))?;
    let port = device.query_port(PORT).context(|| format!("query port {PORT} of device {name}"))?;
    Ok(OpenDevice {
        name: device.name().to_owned(),
        profile: device.profile().to_string(),
        mtu: port.active_mtu.bytes(),
        max_msg_sz: port.max_msg_sz,
        device,
    })
}

/// [`open_device`], with the plan checked against the device's limits.
///
/// # Errors
/// As for that, or the device cannot do what the plan asks.
pub fn open(name: &str, plan: &Plan, role: Role, capture: Option<&Path>) -> Result<OpenDevice> {
    let open = open_device(name, plan, role, capture)?;
    let limits = open.device.query_device();
    let refuse = |text: String| Err(Error::Usage(text));
    let size = plan.size;
    let over = |limit: u64, what: &str| {
        refuse(format!("--size {size} is over the limit of device {name}: {what} is {limit} bytes"))
    };
    if size > u64::from(open.max_msg_sz) {
        return over(open.max_msg_sz.into(), "its largest message");
    }
    let mtu = u64::from(open.mtu);
    if plan.transport == Transport::Ud && size > mtu {
        return over(mtu, "the path MTU, which bounds a datagram,");
    }
    if plan.inline && size > u64::from(limits.max_inline_data) {
        return over(limits.max_inline_data.into(), "the most that --inline carries");
    }
    if plan.flows() > u64::from(limits.max_qp) {
        return refuse(format!(
            "--threads {} with --qps {} is over the limit of device {name}: it has {} queue pairs",
            plan.threads, plan.qps, limits.max_qp
        ));
    }
    let most = limits.max_qp_wr.saturating_sub(SPARE_WRS);
    if plan.target_slots().max(plan.depth) > most {
        return refuse(format!(
            "--depth {} is over the limit of device {name}: it holds {} work requests in a queue",
            plan.depth, limits.max_qp_wr
        ));
    }
    let needed =
        [Role::Initiator, Role::Responder].map(|role| Slots::of(plan, role).bytes(plan)).iter().sum::<u64>()
            * plan.flows();
    if let Some(available) = memory_available()
        && needed > available
    {
        return refuse(format!(
            "--size {size} with {} buffers for each queue pair needs {needed} bytes of memory on both sides together, over the limit of this \
             host: {available} bytes are available",
            plan.depth
        ));
    }
    Ok(open)
}

/// Where the other side's queue pair is, for datagrams.
pub struct Destination {
    /// The route.
    pub handle: AddressHandle,
    /// The queue pair.
    pub qpn: tbrdma::Qpn,
}

/// One side, connected. The queue pair is dropped before what it uses.
pub struct Session {
    /// What is measured.
    pub plan: Plan,
    /// Which part this side plays.
    pub role: Role,
    /// The queue pair.
    pub qp: QueuePair,
    /// Which one of the thread's queue pairs it is.
    pub flow: u32,
    /// Which one of all that the side has: no two have messages with the same bytes.
    pub number: u32,
    /// Completions of sends, of all queue pairs of the thread.
    pub sends: Rc<Completions>,
    /// Completions of receives, of all queue pairs of the thread.
    pub receives: Rc<Completions>,
    /// Where messages leave from, and where reads and atomics put their results.
    pub outgoing: Area,
    /// Where messages arrive, and what the peer reads or changes.
    pub incoming: Area,
    /// The peer's `incoming`.
    pub remote: RemoteRegion,
    /// Only for UD.
    pub destination: Option<Destination>,
    /// Looks around during waits.
    pub watch: Watch,
    _pd: ProtectionDomain,
}

impl Session {
    /// Makes everything of a side with one queue pair, exchanges endpoints with the peer and connects.
    ///
    /// # Errors
    /// A verbs call failed, or the peer went away.
    pub fn establish(
        open: &OpenDevice,
        plan: &Plan,
        role: Role,
        channel: &mut Channel,
    ) -> Result<(Self, Endpoint)> {
        let shared = Shared::new(open, plan, role)?;
        Self::flow(open, plan, role, channel, &shared, 0, 0)
    }

    /// Makes everything of a thread: completion queues, and on them as many queue pairs as the plan has for each, connected to those of the
    /// thread at the other end of `channel`.
    ///
    /// # Errors
    /// A verbs call failed, or the peer went away.
    pub fn establish_thread(
        open: &OpenDevice,
        plan: &Plan,
        role: Role,
        channel: &mut Channel,
        thread: u32,
    ) -> Result<Vec<Self>> {
        let shared = Shared::new(open, plan, role)?;
        (0..plan.qps)
            .map(|flow| {
                let number = thread * plan.qps + flow;
                Self::flow(open, plan, role, channel, &shared, flow, number).map(|(session, _)| session)
            })
            .collect()
    }

    fn flow(
        open: &OpenDevice,
        plan: &Plan,
        role: Role,
        channel: &mut Channel,
        shared: &Shared,
        flow: u32,
        number: u32,
    ) -> Result<(Self, Endpoint)> {
        let timeout = Duration::from_millis(plan.timeout_ms);
        let slots = Slots::of(plan, role);
        let Shared { pd, sends, receives } = shared;
        let local = Access::LOCAL_WRITE;
        let region = |count: u32, access: Access| {
            let bytes = usize::try_from(plan.stride() * u64::from(count.max(1))).unwrap_or(usize::MAX);
            Area::new(pd, plan.memory, bytes, access)
                .context(|| format!("register {bytes} bytes with {access:?}"))
        };
        let outgoing = region(slots.outgoing, local)?;
        let incoming = region(slots.incoming, local | remote_access(plan))?;
        let init = match plan.transport {
            Transport::Rc => QpInit::rc(sends.queue()),
            Transport::Uc => QpInit::uc(sends.queue()),
            Transport::Ud => QpInit::ud(sends.queue()),
        };
        let inline = if plan.inline { plan.size as u32 } else { 0 };
        let mut qp = pd
            .create_qp(
                init.recv_cq(receives.queue())
                    .max_send_wr(slots.sends + SPARE_WRS)
                    .max_recv_wr(slots.receives + SPARE_WRS)
                    .max_send_sge(1)
                    .max_recv_sge(1)
                    .max_inline_data(inline)
                    .sq_sig_all(false),
            )
            .context(|| format!("create a {} queue pair", plan.transport))?;

        let ours = Endpoint {
            address: qp.address().to_string(),
            region: incoming.remote().to_bytes().to_vec(),
            device: open.name.clone(),
            profile: open.profile.clone(),
        };
        channel.send(&Message::Endpoint(ours))?;
        let theirs = match channel.receive(timeout)? {
            Message::Endpoint(theirs) => theirs,
            other => return Err(channel.unexpected(&other, "`endpoint`")),
        };
        let (address, remote) = understand(&theirs).map_err(|reason| {
            Error::Run(format!("{} sent an endpoint that makes no sense: {reason}", channel.peer()))
        })?;
        let destination = connect(pd, &mut qp, plan, &address)?;
        let watch = Watch::new(channel.alarm(), timeout, channel.peer().to_owned());
        let session = Self {
            plan: plan.clone(),
            role,
            qp,
            flow,
            number,
            sends: Rc::clone(sends),
            receives: Rc::clone(receives),
            outgoing,
            incoming,
            remote,
            destination,
            watch,
            _pd: pd.clone(),
        };
        Ok((session, theirs))
    }

    /// Says that this side is connected and has posted its receives, and waits until the other says the same.
    ///
    /// # Errors
    /// The peer went away.
    pub fn meet(&self, channel: &mut Channel) -> Result<()> {
        channel.send(&Message::Ready)?;
        match channel.receive(Duration::from_millis(self.plan.timeout_ms))? {
            Message::Ready => Ok(()),
            other => Err(channel.unexpected(&other, "`ready`")),
        }
    }
}

/// What the queue pairs of a thread have together.
struct Shared {
    pd: ProtectionDomain,
    sends: Rc<Completions>,
    receives: Rc<Completions>,
}

impl Shared {
    fn new(open: &OpenDevice, plan: &Plan, role: Role) -> Result<Self> {
        let device = &open.device;
        let pd = device.alloc_pd().context(|| "allocate a protection domain".into())?;
        let slots = Slots::of(plan, role);
        let queue = |entries: u32| {
            Completions::new(device, (entries + SPARE_WRS).saturating_mul(plan.qps), plan.wait, plan.qps)
                .map(Rc::new)
        };
        Ok(Self { pd, sends: queue(slots.sends)?, receives: queue(slots.receives)? })
    }
}

/// How many buffers and work requests a queue pair needs.
struct Slots {
    outgoing: u32,
    incoming: u32,
    sends: u32,
    receives: u32,
}

impl Slots {
    /// Bytes of both regions, and of the copy that is checked.
    fn bytes(&self, plan: &Plan) -> u64 {
        plan.stride() * u64::from(self.outgoing + self.incoming) + plan.size
    }

    fn of(plan: &Plan, role: Role) -> Self {
        let (depth, target) = (plan.depth, plan.target_slots());
        match (plan.benchmark, role) {
            (Benchmark::Mixed, Role::Initiator) => {
                Self { outgoing: target, incoming: 1, sends: depth, receives: 1 }
            }
            // The last buffer is the word that atomics work on.
            (Benchmark::Mixed, Role::Responder) => {
                Self { outgoing: 1, incoming: target + 1, sends: 1, receives: target }
            }
            (Benchmark::Pingpong | Benchmark::Idle, _) => {
                Self { outgoing: depth, incoming: target, sends: depth, receives: target }
            }
            (_, Role::Initiator) => Self { outgoing: depth, incoming: 1, sends: depth, receives: SPARE_WRS },
            (_, Role::Responder) => {
                Self { outgoing: 1, incoming: target, sends: SPARE_WRS, receives: target }
            }
        }
    }
}

/// Bytes that programs can have before the system runs out, where it says.
pub(crate) fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn remote_access(plan: &Plan) -> Access {
    let of_class = |access, class: &Class| access | access_of(class.op);
    plan.mix.iter().fold(access_of(plan.op), of_class)
}

fn access_of(op: Op) -> Access {
    match op {
        Op::Send | Op::SendImm => Access::empty(),
        Op::Write | Op::WriteImm => Access::REMOTE_WRITE,
        Op::Read => Access::REMOTE_READ,
        Op::Cas | Op::Faa => Access::REMOTE_ATOMIC,
    }
}

pub(crate) fn understand(endpoint: &Endpoint) -> Result<(QpAddress, RemoteRegion), String> {
    let address = QpAddress::from_str(&endpoint.address)
        .map_err(|error| format!("address {:?}: {error}", endpoint.address))?;
    let bytes: [u8; 20] = endpoint
        .region
        .as_slice()
        .try_into()
        .map_err(|_| format!("a region of {} bytes instead of 20", endpoint.region.len()))?;
    Ok((address, RemoteRegion::from_bytes(&bytes)))
}

fn connect(
    pd: &ProtectionDomain,
    qp: &mut QueuePair,
    plan: &Plan,
    peer: &QpAddress,
) -> Result<Option<Destination>> {
    if plan.transport != Transport::Ud {
        qp.connect(peer).context(|| format!("connect to {peer}"))?;
        return Ok(None);
    }
    qp.activate_ud(QKEY).context(|| "activate the UD queue pair".into())?;
    let handle = pd.create_ah_to(peer).context(|| format!("create an address handle for {peer}"))?;
    Ok(Some(Destination { handle, qpn: peer.qpn }))
}

/// Offset of the first byte of a message in slot `slot`: messages end where their slot ends, which is a multiple of eight.
#[inline]
#[must_use]
pub fn message_start(plan: &Plan, slot: usize) -> usize {
    let stride = plan.stride() as usize;
    (slot + 1) * stride - plan.size as usize
}

/// Bytes which the device puts before a received message.
#[must_use]
pub fn header_bytes(plan: &Plan) -> usize {
    if plan.transport == Transport::Ud { GRH_BYTES } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::other_end;

    #[test]
    fn who_listens_is_met_by_who_connects() {
        for (ours, theirs) in [
            ("stream:unix:@a,listen", "stream:unix:@a,connect"),
            ("stream:tcp:[::1]:7471,connect", "stream:tcp:[::1]:7471,listen"),
            ("stream:unix:/tmp/a", "stream:unix:/tmp/a"),
            ("bar:file:/tmp/a,listen", "bar:file:/tmp/a,listen"),
        ] {
            assert_eq!(other_end(ours), theirs);
        }
    }
}
