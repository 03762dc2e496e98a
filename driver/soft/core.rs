//! An open device: its link, its tables, its clock, its identity.

use super::cq::SoftCq;
use super::engine::{Receiver, Who};
use super::path::{self, Handles};
use super::qp::SoftQp;
use super::service::Service;
use super::signals::Signals;
use super::srq::SoftSrq;
use super::stalled::Stalled;
use super::timers::Timers;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::link::{Link, Promises};
use crate::mem::{Extents, LocalRegions, Segment};
use crate::ring::layout::SEGMENT_SIZES;
use crate::sim::{Network, Node};
use crate::slots::Slots;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sys::clock::monotonic_nanos;
use crate::sys::random;
use crate::verbs::event::EventQueue;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use tbrdma_proto::fault::Random;
use tbrdma_proto::transport::Counters;
use tbrdma_proto::{Guid, Lids, LinkLayer, Profile, Region, RegionTable, Time, limits};

/// Locks, also after a panic elsewhere: what these locks guard is consistent between statements.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], to read.
pub(crate) fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], to change.
pub(crate) fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Queue pairs by number.
pub(crate) type QpTable = HashMap<u32, Arc<SoftQp>, BuildHasherDefault<Spread>>;

/// A hash for queue pair numbers. We draw them at random ourselves, so nobody can make them collide.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 ^ self.0 >> 56 ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        // The table looks at the upper bits and at the lower ones.
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Everything of a device that its objects and its service thread share.
pub(crate) struct Core {
    pub(crate) link: Box<dyn Link>,
    /// What the link promises.
    pub(crate) promises: Promises,
    pub(crate) profile: Profile,
    /// Tells contexts apart.
    pub(crate) context: u64,
    pub(crate) segment: Arc<Segment>,
    pub(crate) regions: LocalRegions,
    pub(crate) table: Mutex<RegionTable<()>>,
    pub(crate) heap: Mutex<Extents>,
    pub(crate) pds: Mutex<Slots<()>>,
    pub(crate) qps: RwLock<QpTable>,
    /// Numbers of queue pairs that are no more, which are not used again at once.
    pub(crate) retired: Mutex<VecDeque<u32>>,
    pub(crate) cqs: Mutex<Slots<Weak<SoftCq>>>,
    pub(crate) srqs: Mutex<Slots<Weak<SoftSrq>>>,
    pub(crate) ahs: RwLock<Handles>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) timers: Timers,
    pub(crate) receiver: Mutex<Receiver>,
    pub(crate) service: Service,
    /// Completion queues that are armed.
    pub(crate) armed: AtomicU32,
    /// How often one was armed.
    pub(crate) arms: AtomicU64,
    /// Events of completion queues.
    pub(crate) signals: Mutex<Signals>,
    /// The application has polled since the service thread last looked here.
    pub(crate) polled: AtomicBool,
    /// Queue pairs that could not send all they had at their doorbell, and whether there are any.
    pub(crate) unfinished_list: Mutex<Vec<u32>>,
    pub(crate) unfinished: AtomicU32,
    /// Queue pairs whose packets the link has no room for.
    pub(crate) stalled: Stalled,
    /// Counters of queue pairs that are no more.
    pub(crate) past: Mutex<Counters>,
    clock: Clock,
}

/// What a device goes by: the machine's time and numbers nobody can guess, or a simulated network's time and a seed.
enum Clock {
    Real {
        /// When it was opened, by the system's clock.
        origin: u64,
    },
    Simulated {
        network: Arc<Network>,
        random: Mutex<Random>,
    },
}

/// What makes a device one of a simulated network.
pub(crate) struct Simulation {
    pub(crate) network: Arc<Network>,
    /// Where the numbers start that this adapter draws.
    pub(crate) random: Random,
}

/// Where allocated memory lies in a simulated network: real addresses differ from run to run, and packets name them.
const SIMULATED_MEMORY: u64 = 0x10_0000_0000;

impl Core {
    pub(crate) fn open(
        link: Box<dyn Link>,
        profile: Profile,
        simulation: Option<Simulation>,
    ) -> Result<Arc<Self>> {
        const CALL: &str = "open_device";
        let os = |what| Error::os(CALL, what);
        let context = random::random_u64().map_err(os("random numbers"))?;
        let segment = create_segment().map_err(os("sparse memory of at least 1 GiB"))?;
        let bytes = segment.len();
        let segment = Arc::new(segment);
        let regions = LocalRegions::new(Arc::clone(&segment)).map_err(os("the region table"))?;
        let service = Service::new(&*link).map_err(os("descriptors to wake and be woken by"))?;
        let mut profile = profile;
        let clock = match simulation {
            None => Clock::Real { origin: monotonic_nanos() },
            Some(Simulation { network, random }) => Clock::Simulated { network, random: Mutex::new(random) },
        };
        let number = match &clock {
            Clock::Real { .. } => hardware_address(link.name()).unwrap_or(context),
            Clock::Simulated { random, .. } => lock(random).next_u64(),
        };
        let guid = Guid(number);
        profile.device.node_guid = guid;
        profile.device.sys_image_guid = guid;
        if profile.device.fw_ver.is_empty() {
            profile.device.fw_ver = env!("CARGO_PKG_VERSION").to_owned();
        }
        if profile.switches.lids == Lids::Ipv4 {
            if profile.port.link_layer == LinkLayer::Ethernet {
                profile.port.link_layer = LinkLayer::InfiniBand;
            }
            profile.port.lid = path::lid_of(link.gids());
        }
        profile.port.active_mtu = link.mtu().min(profile.port.active_mtu);
        profile.port.gid_tbl_len = limits::GID_TABLE_LEN.max(link.gids().len() as u32);
        Ok(Arc::new(Self {
            promises: link.promises(),
            link,
            profile,
            context,
            segment,
            regions,
            table: Mutex::new(RegionTable::new(limits::MAX_MR as usize)),
            heap: Mutex::new(Extents::new(0, bytes)),
            pds: Mutex::new(Slots::new(limits::MAX_PD)),
            qps: RwLock::new(QpTable::default()),
            retired: Mutex::new(VecDeque::new()),
            cqs: Mutex::new(Slots::new(limits::MAX_CQ)),
            srqs: Mutex::new(Slots::new(limits::MAX_SRQ)),
            ahs: RwLock::new(Handles::new()),
            events: Arc::new(EventQueue::new().map_err(os("an event descriptor"))?),
            timers: Timers::new(),
            receiver: Mutex::new(Receiver::default()),
            service,
            armed: AtomicU32::new(0),
            arms: AtomicU64::new(0),
            signals: Mutex::default(),
            polled: AtomicBool::new(false),
            unfinished_list: Mutex::new(Vec::new()),
            unfinished: AtomicU32::new(0),
            stalled: Stalled::default(),
            past: Mutex::new(Counters::default()),
            clock,
        }))
    }

    /// The time now, as the transport wants it told.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        match &self.clock {
            Clock::Real { origin } => Time(monotonic_nanos().saturating_sub(*origin)),
            Clock::Simulated { network, .. } => network.now(),
        }
    }

    /// The network that this is an adapter of, if it is a simulated one.
    #[inline]
    pub(crate) fn network(&self) -> Option<&Arc<Network>> {
        match &self.clock {
            Clock::Real { .. } => None,
            Clock::Simulated { network, .. } => Some(network),
        }
    }

    /// Work was posted or has completed, by a call and not by a pass: others in a simulated network may have something to do.
    #[inline]
    pub(crate) fn stir(&self) {
        if let Some(network) = self.network() {
            network.stir();
        }
    }

    /// A number nobody can guess; in a simulated network the seed's next.
    pub(crate) fn random_u32(&self) -> std::io::Result<u32> {
        match &self.clock {
            Clock::Real { .. } => random::random_u32(),
            Clock::Simulated { random, .. } => Ok(lock(random).next_u32()),
        }
    }

    /// The address of allocated memory that begins at this offset of the segment.
    pub(crate) fn address_of(&self, offset: u64) -> u64 {
        match &self.clock {
            Clock::Real { .. } => self.segment.base() as u64 + offset,
            Clock::Simulated { .. } => SIMULATED_MEMORY + offset,
        }
    }

    /// All queue pairs there are now.
    pub(crate) fn queue_pairs(&self) -> Vec<Arc<SoftQp>> {
        read(&self.qps).values().cloned().collect()
    }

    /// What queue pairs, link and device have counted.
    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut sum = *lock(&self.past);
        for qp in self.queue_pairs() {
            sum.merge(&lock(&qp.inner).qp.counters());
        }
        let mut all: Vec<_> = sum.iter().collect();
        all.extend(lock(&self.receiver).drops.iter());
        for (name, count) in self.link.counters() {
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name, count));
            }
        }
        all
    }
}

impl Keys for Core {
    fn region_table(&self) -> &Mutex<RegionTable<()>> {
        &self.table
    }

    fn publish_part(&self, of: u32, part: &Region, offset: u64) -> bool {
        self.regions.publish_part(of, part, offset)
    }

    fn publish_change(&self, region: &Region) -> bool {
        self.regions.publish_change(region)
    }

    fn withdraw_key(&self, key: u32) {
        self.regions.withdraw(key);
    }

    fn random_u32(&self) -> std::io::Result<u32> {
        self.random_u32()
    }
}

impl Node for Core {
    fn next_event(&self) -> Time {
        if self.unfinished.load(Ordering::SeqCst) != 0 {
            return Time::ZERO;
        }
        self.timers.next().min(self.link.deadline().unwrap_or(Time::NEVER))
    }

    fn work(&self, now: Time) -> bool {
        // No acknowledgement waits for a ride: its way is virtual.
        self.pass(now, Who::Service).is_some()
    }
}

/// The largest segment that this process' address space has room for.
fn create_segment() -> std::io::Result<Segment> {
    let mut last = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
    for bytes in SEGMENT_SIZES {
        match Segment::create("tbrdma-soft", bytes) {
            Ok(segment) => return Ok(segment),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The interface's hardware address as an EUI-64, by which the machine's devices are told apart; none if it has no such address.
fn hardware_address(device: &str) -> Option<u64> {
    let interface = device.strip_prefix("udp:")?;
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/address")).ok()?;
    let mut bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
    let mut next = || bytes.next()?.ok();
    let mac = [next()?, next()?, next()?, next()?, next()?, next()?];
    let [a, b, c, d, e, f] = mac;
    // The universal/local bit is inverted in an EUI-64 (RFC 4291, appendix A).
    (mac != [0; 6]).then(|| u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]))
}
