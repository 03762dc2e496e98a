//! The floor over a network: what the same two processes do with plain UDP sockets, waited on as the run waits.
//!
//! A *bounce* sends the message's bytes there and back; a message longer than a packet leaves in one call, cut by the kernel
//! (`UDP_SEGMENT`), and arrives in one where the kernel keeps it whole (`UDP_GRO`). A *flood* sends such messages in one direction as
//! fast as it can and counts what arrives: there is no flow control, so it is what the receiving side can take. It goes round as much
//! memory at each side as the run does, because copies from a cache are quicker.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use tbrdma::Gid;

use super::{Floods, Miss, pause, trains};
use crate::control::{Account, Channel, Message, SocketOffer};
use crate::error::{Context, Result};
use crate::histogram::Latencies;
use crate::plan::{MAX_MEMORY, Plan, Wait};
use crate::watch::{Spins, Watch};

/// Room for what may arrive in one call.
const ROOM: usize = 64 << 10;
/// Largest message: what one datagram, or one train of them, carries.
pub(super) const MAX_SIZE: usize = 60 << 10;
/// Most segments that the kernel cuts from one call (`UDP_MAX_SEGMENTS` of old kernels).
const MAX_SEGMENTS: usize = 64;
/// Bounces before the timed ones of a visit.
const WARMUP: u64 = 100;
/// A datagram that has not come back by then is lost. On a busy machine a side that spins and yields may be off its core for long.
const LOST: Duration = Duration::from_secs(2);
/// How long a flood lasts.
const FLOOD_TIME: Duration = Duration::from_millis(40);
/// A flood that has been quiet for so long is over.
const QUIET: Duration = Duration::from_millis(30);

/// How the sockets of a floor are made.
#[derive(Debug, Clone)]
pub struct Way {
    /// This side's address on the network that the device uses.
    pub local: SocketAddr,
    /// Payload bytes of a packet on the way.
    pub segment: u16,
    /// How to wait.
    pub wait: Wait,
}

impl Way {
    /// The way of a device with this name and port address. `None` for a device that is not on a network.
    #[must_use]
    pub fn of(device: &str, gid: Gid, mtu: u32, wait: Wait) -> Option<Self> {
        let interface = device.strip_prefix("udp:")?;
        let v6 = Ipv6Addr::from(gid);
        let local = match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), 0),
            None => {
                let scope = if v6.is_unicast_link_local() { index_of(interface) } else { 0 };
                SocketAddr::V6(SocketAddrV6::new(v6, 0, 0, scope))
            }
        };
        Some(Self { local, segment: u16::try_from(mtu).unwrap_or(u16::MAX), wait })
    }
}

fn index_of(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).unwrap_or(0)
}

/// A socket that sends messages as trains of segments, and a place for what arrives.
struct Socket {
    socket: UdpSocket,
    arrived: Vec<u8>,
    /// Where in that the next message goes.
    at: usize,
    wait: Wait,
}

impl Socket {
    fn new(local: SocketAddr, size: usize, segment: u16, wait: Wait) -> Result<Self> {
        let socket = UdpSocket::bind(local).context(|| format!("bind a UDP socket to {local}"))?;
        socket.set_nonblocking(true).context(|| "make a socket non-blocking".into())?;
        if size > usize::from(segment) {
            trains::cut(&socket, segment)?;
        }
        trains::join(&socket);
        let _ = setsockopt(&socket, sockopt::RcvBuf, &(4 << 20));
        Ok(Self { socket, arrived: vec![0; ROOM], at: 0, wait })
    }

    /// Has what arrives go round so much memory, which is touched now.
    fn spread(&mut self, span: usize) {
        self.arrived = vec![1; span.max(ROOM)];
    }

    fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().context(|| "ask for a socket's address".into())
    }

    fn connect(&self, peer: SocketAddr) -> Result<()> {
        self.socket.connect(peer).context(|| format!("connect a UDP socket to {peer}"))
    }

    /// Sends a message; false if it found no room.
    fn send(&self, message: &[u8]) -> Result<bool> {
        match self.socket.send(message) {
            Ok(_) => Ok(true),
            // No room, or word of an earlier datagram that found nobody.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).context(|| "send on a UDP socket".into()),
        }
    }

    /// Waits until something arrives, at most so long; how many bytes, in `arrived`.
    fn take(&mut self, patience: Duration, watch: &Watch) -> Result<Option<usize>> {
        let mut spins = Spins::default();
        let mut since = None;
        loop {
            let end = (self.at + ROOM).min(self.arrived.len());
            match self.socket.recv(self.arrived.get_mut(self.at..end).unwrap_or_default()) {
                Ok(count) => {
                    self.at = if self.at + count + ROOM > self.arrived.len() { 0 } else { self.at + count };
                    return Ok(Some(count));
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context(|| "receive on a UDP socket".into()),
            }
            let looked = match self.wait {
                Wait::Poll => {
                    tbrdma::relax(spins.count());
                    watch.turn(&mut spins, "bounce of the floor")?
                }
                Wait::Event => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    let most = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
                    let ready = poll(&mut fds, most).unwrap_or_default();
                    watch.look(&mut spins, "bounce of the floor")?;
                    ready == 0
                }
            };
            if looked && since.get_or_insert_with(Instant::now).elapsed() >= patience {
                return Ok(None);
            }
        }
    }
}

/// Asks the responder for its socket, and connects both.
fn meet(
    channel: &mut Channel,
    timeout: Duration,
    way: &Way,
    size: usize,
    count: u64,
    span: u64,
) -> Result<Socket, Miss> {
    let refused = |error: crate::error::Error| Miss::None(error.to_string());
    let socket = Socket::new(way.local, size, way.segment, way.wait).map_err(refused)?;
    let address = socket.address().map_err(refused)?;
    let offer = SocketOffer { address, size, segment: way.segment, count, span };
    channel.send(&Message::SocketFloor(offer))?;
    match channel.receive(timeout)? {
        Message::SocketReady { address } => socket.connect(address).map_err(refused)?,
        Message::NoFloor { reason } => return Err(Miss::None(reason)),
        other => return Err(channel.unexpected(&other, "`socket-ready` or `no-floor`").into()),
    }
    Ok(socket)
}

/// The initiator's part in bounces.
pub(super) fn bounce(
    channel: &mut Channel,
    watch: &Watch,
    timeout: Duration,
    way: &Way,
    size: usize,
    gap: Duration,
    count: u64,
    latencies: &mut Latencies,
) -> Result<(), Miss> {
    let count = WARMUP + count;
    let mut socket = meet(channel, timeout, way, size, count, 0)?;
    let message = vec![0x5a; size];
    let clock = crate::clock::chosen();
    for number in 1..=count {
        if number > WARMUP {
            pause(gap, way.wait == Wait::Event, watch)?;
        }
        let before = clock.now();
        if !socket.send(&message)? || !hear(&mut socket, size, watch)? {
            let reason =
                format!("bounce {number} of {count} on plain sockets did not come back within {LOST:?}");
            end(channel, timeout)?;
            return Err(Miss::None(reason));
        }
        let after = clock.now();
        if number > WARMUP {
            latencies.record(clock.between(before, after));
        }
    }
    end(channel, timeout)?;
    Ok(())
}

fn end(channel: &mut Channel, timeout: Duration) -> Result<()> {
    match channel.receive(timeout)? {
        Message::Done(_) => Ok(()),
        other => Err(channel.unexpected(&other, "`done`")),
    }
}

/// Takes a whole message, in as many pieces as it comes.
fn hear(socket: &mut Socket, size: usize, watch: &Watch) -> Result<bool> {
    let mut left = size;
    loop {
        let Some(count) = socket.take(LOST, watch)? else { return Ok(false) };
        left = left.saturating_sub(count);
        if left == 0 {
            return Ok(true);
        }
    }
}

/// The responder's part in bounces and floods.
///
/// # Errors
/// The peer went away; a floor that cannot be is only reported to the peer.
pub fn respond(offer: SocketOffer, local: Option<&Way>, channel: &mut Channel, watch: &Watch) -> Result<()> {
    let refuse = |reason: String| Message::NoFloor { reason };
    let Some(way) = local else {
        return channel.send(&refuse("the responder's device is not on a network".into()));
    };
    if offer.size > MAX_SIZE || offer.segment == 0 || offer.span > MAX_MEMORY {
        return channel.send(&refuse("the sizes make no sense".into()));
    }
    let made = Socket::new(way.local, offer.size, offer.segment, way.wait)
        .and_then(|socket| socket.connect(offer.address).map(|()| socket))
        .and_then(|socket| socket.address().map(|address| (socket, address)));
    let (mut socket, address) = match made {
        Ok(made) => made,
        Err(error) => return channel.send(&refuse(error.to_string())),
    };
    if offer.count == 0 {
        socket.spread(usize::try_from(offer.span).unwrap_or(usize::MAX));
    }
    channel.send(&Message::SocketReady { address })?;
    if offer.count == 0 {
        return channel.send(&take_flood(&mut socket, watch)?);
    }
    let message = vec![0xa5; offer.size];
    for _ in 0..offer.count {
        if !hear(&mut socket, offer.size, watch)? || !socket.send(&message)? {
            break;
        }
    }
    channel.send(&Message::Done(Account::default())).context(|| "report the floor".into())
}

/// Counts what arrives, until nothing has for a while.
fn take_flood(socket: &mut Socket, watch: &Watch) -> Result<Message> {
    let (mut bytes, mut first, mut last) = (0, None, Instant::now());
    while let Some(count) = socket.take(if first.is_some() { QUIET } else { LOST }, watch)? {
        last = Instant::now();
        // The first only starts the clock.
        match first {
            None => first = Some(last),
            Some(_) => bytes += count as u64,
        }
    }
    let elapsed = first.map_or(Duration::ZERO, |first| last.duration_since(first));
    Ok(Message::Arrived { bytes, nanoseconds: elapsed.as_nanos() as u64 })
}

/// The floor of a stream: floods between its sections.
pub struct Flood {
    way: Way,
    /// What is sent, train after train, from the front again when it ends.
    memory: Vec<u8>,
    /// Bytes of a train.
    train: usize,
    /// Bytes of memory at the receiving side.
    span: u64,
    segment: u16,
    /// What they brought.
    pub floods: Floods,
}

impl Flood {
    /// For the messages of a plan. Long ones go as trains, and short ones too: the plain way to send many.
    #[must_use]
    pub fn new(plan: &Plan, way: Way) -> Self {
        let size = usize::try_from(plan.size).unwrap_or(usize::MAX).max(1);
        let segment = size.min(usize::from(way.segment));
        let segments = (MAX_SIZE / segment).clamp(1, MAX_SEGMENTS);
        let train = segment * segments;
        let memory = usize::try_from(plan.stride() * u64::from(plan.depth)).unwrap_or(usize::MAX);
        Self {
            memory: vec![0x5a; memory.max(train)],
            train,
            span: plan.stride() * u64::from(plan.target_slots()),
            segment: segment as u16,
            way,
            floods: Floods::default(),
        }
    }

    /// Floods once; payload bytes per second that arrived. `None`, with the reason kept, where there can be no floor.
    ///
    /// # Errors
    /// The peer went away, or the user interrupted.
    pub fn measure(
        &mut self,
        channel: &mut Channel,
        watch: &Watch,
        timeout: Duration,
    ) -> Result<Option<f64>> {
        if self.floods.missing.is_some() {
            return Ok(None);
        }
        let way = Way { segment: self.segment, ..self.way.clone() };
        let met = meet(channel, timeout, &way, self.train, 0, self.span);
        let Some(socket) = self.floods.met(met)? else { return Ok(None) };
        let start = Instant::now();
        let mut spins = Spins::default();
        let mut trains = self.memory.chunks_exact(self.train).cycle();
        while start.elapsed() < FLOOD_TIME {
            if !socket.send(trains.next().unwrap_or_default())? {
                tbrdma::relax(spins.count());
            }
            watch.turn(&mut spins, "room in a socket")?;
        }
        self.floods.heard(channel, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::{Flood, Way};
    use crate::cli::{Cli, Command, parse};
    use crate::plan::{Benchmark, Wait};
    use tbrdma::Gid;

    #[test]
    fn only_network_devices_have_a_way() {
        let gid = Gid::from_ipv4_mapped("127.0.0.1".parse().unwrap());
        assert!(Way::of("shm", gid, 4096, Wait::Poll).is_none());
        let way = Way::of("udp:lo", gid, 4096, Wait::Poll).unwrap();
        assert_eq!(way.local, "127.0.0.1:0".parse().unwrap());
        let way = Way::of("udp:lo", "::1".parse().unwrap(), 1024, Wait::Poll).unwrap();
        assert_eq!(way.local, "[::1]:0".parse().unwrap());
    }

    #[test]
    fn trains_are_made_of_whole_segments() {
        let arguments = ["tbrdma-bench", "bw", "--size", "100000"].map(Into::into);
        let Ok(Cli { command: Command::Bw(flags) }) = parse(arguments) else { panic!("flags") };
        let plan = flags.plan(Benchmark::Bw).unwrap();
        let gid = Gid::from_ipv4_mapped("127.0.0.1".parse().unwrap());
        let flood = Flood::new(&plan, Way::of("udp:lo", gid, 4096, Wait::Poll).unwrap());
        assert_eq!(
            (flood.train, flood.memory.len() as u64),
            (15 * 4096, plan.stride() * u64::from(plan.depth))
        );
        let flood = Flood::new(&crate::plan::Plan { size: 8, ..plan }, flood.way);
        assert_eq!((flood.train, flood.segment), (64 * 8, 8));
    }
}
