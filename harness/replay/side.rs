//! One side's verbs objects: a queue pair and memory for each lane, and a completion queue for all of them.

use std::time::Duration;

use tbrdma::{Access, Connection, ProtectionDomain, QpInit, QueuePair, RemoteRegion};

use super::workload::{Lane, Outline};
use crate::completions::Completions;
use crate::control::{Channel, Endpoint, Message};
use crate::error::{Context, Error, Result};
use crate::memory::Area;
use crate::plan::{QKEY, Transport, Wait};
use crate::session::{Destination, OpenDevice, PORT, Role, memory_available, understand};
use crate::watch::Watch;

/// Code of the least wait of a peer that found no receive: 10 us. A replay has no credits, as the program perhaps had.
const MIN_RNR_TIMER: u8 = 1;
/// How often it then tries again: for ever; our own waits end.
const RNR_RETRY: u8 = 7;

/// What a lane has on this side. The queue pair is dropped before its memory.
pub(super) struct Track {
    pub(super) qp: QueuePair,
    pub(super) area: Area,
    /// The peer's.
    pub(super) remote: RemoteRegion,
    /// Only of datagrams.
    pub(super) destination: Option<Destination>,
}

/// One side.
pub(super) struct Side {
    pub(super) tracks: Vec<Track>,
    /// Of sends here, of receives at the responder.
    pub(super) completions: Completions,
    pub(super) watch: Watch,
    _pd: ProtectionDomain,
}

impl Side {
    /// Makes everything, and connects each lane with the peer's.
    pub(super) fn establish(
        open: &OpenDevice,
        outline: &Outline,
        role: Role,
        channel: &mut Channel,
    ) -> Result<Self> {
        let needed: u64 =
            outline.lanes.iter().map(|lane| lane.initiator_bytes() + lane.responder_bytes()).sum();
        if let Some(available) = memory_available()
            && needed > available
        {
            return Err(Error::Usage(format!(
                "this replay needs {needed} bytes of memory on both sides together, and this host has {available}"
            )));
        }
        let device = &open.device;
        let pd = device.alloc_pd().context(|| "allocate a protection domain".into())?;
        let each = |lane: &Lane| match role {
            Role::Initiator => lane.depth,
            Role::Responder => lane.receives,
        };
        let entries: u32 = outline.lanes.iter().map(each).sum();
        let most = device.query_device().max_cqe;
        if entries > most {
            return Err(Error::Usage(format!(
                "the queues of the trace hold {entries} work requests together, and a completion queue of device {} {most}: \
                 try a profile with more, as --profile plain",
                open.name
            )));
        }
        let completions = Completions::new(device, entries.max(1), Wait::Poll, 1)?;
        let timeout = Duration::from_millis(outline.plan.timeout_ms);
        let tracks =
            outline.lanes.iter().map(|lane| track(open, outline, lane, role, &pd, &completions, channel));
        let tracks = tracks.collect::<Result<Vec<_>>>()?;
        let watch = Watch::new(channel.alarm(), timeout, channel.peer().to_owned());
        Ok(Self { tracks, completions, watch, _pd: pd })
    }
}

fn track(
    open: &OpenDevice,
    outline: &Outline,
    lane: &Lane,
    role: Role,
    pd: &ProtectionDomain,
    completions: &Completions,
    channel: &mut Channel,
) -> Result<Track> {
    let reliable = lane.transport == Transport::Rc;
    let (bytes, access) = match role {
        Role::Initiator => (lane.initiator_bytes(), Access::LOCAL_WRITE),
        Role::Responder => (lane.responder_bytes(), responder_access(lane.transport)),
    };
    let area = Area::new(pd, outline.plan.memory, usize::try_from(bytes).unwrap_or(usize::MAX), access)
        .context(|| format!("register {bytes} bytes with {access:?}"))?;
    let queue = completions.queue();
    let init = match lane.transport {
        Transport::Rc => QpInit::rc(queue),
        Transport::Uc => QpInit::uc(queue),
        Transport::Ud => QpInit::ud(queue),
    };
    let (sends, receives) = match role {
        Role::Initiator => (lane.depth, 1),
        Role::Responder => (1, lane.receives.max(1)),
    };
    let inline = if role == Role::Initiator { open.device.query_device().max_inline_data } else { 0 };
    let mut qp = pd
        .create_qp(
            init.max_send_wr(sends)
                .max_recv_wr(receives)
                .max_send_sge(1)
                .max_recv_sge(1)
                .max_inline_data(inline)
                .sq_sig_all(false),
        )
        .context(|| format!("create a {} queue pair", lane.transport))?;
    let ours = Endpoint {
        address: qp.address().to_string(),
        region: area.remote().to_bytes().to_vec(),
        device: open.name.clone(),
        profile: open.profile.clone(),
    };
    channel.send(&Message::Endpoint(ours))?;
    let theirs = match channel.receive(Duration::from_millis(outline.plan.timeout_ms))? {
        Message::Endpoint(theirs) => theirs,
        other => return Err(channel.unexpected(&other, "`endpoint`")),
    };
    let (address, remote) = understand(&theirs).map_err(|reason| {
        Error::Run(format!("{} sent an endpoint that makes no sense: {reason}", channel.peer()))
    })?;
    let mut destination = None;
    if lane.transport == Transport::Ud {
        qp.activate_ud(QKEY).context(|| "activate the UD queue pair".into())?;
        let handle =
            pd.create_ah_to(&address).context(|| format!("create an address handle for {address}"))?;
        destination = Some(Destination { handle, qpn: address.qpn });
    } else {
        let mut with = Connection::default();
        let port = open.device.query_port(PORT).context(|| format!("query port {PORT} of {}", open.name))?;
        if port.active_mtu.bytes() < with.path_mtu.bytes() {
            with.path_mtu = port.active_mtu;
        }
        (with.min_rnr_timer, with.rnr_retry) = (MIN_RNR_TIMER, RNR_RETRY);
        if !reliable {
            with.access = Access::REMOTE_WRITE | Access::LOCAL_WRITE;
        }
        qp.connect_with(&address, &with).context(|| format!("connect to {address}"))?;
    }
    Ok(Track { qp, area, remote, destination })
}

fn responder_access(transport: Transport) -> Access {
    match transport {
        Transport::Rc => {
            Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC
        }
        Transport::Uc => Access::LOCAL_WRITE | Access::REMOTE_WRITE,
        Transport::Ud => Access::LOCAL_WRITE,
    }
}
