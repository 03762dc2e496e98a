//! A context of the `shm` device: its segment, its tables, its identity.

use super::cable::Cable;
use super::cq::ShmCq;
use super::memory::entry;
use super::peer::Peers;
use super::qp::ShmQp;
use super::srq::ShmSrq;
use super::wire::Wire;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::mem::{Extents, GRANULE, LocalRegions, PAGE, Segment, pages};
use crate::ring::layout::{self, CqWords, HEAP_AT, Header, MAGIC, QpWords, SEGMENT_SIZES, SrqWords};
use crate::ring::ready::ReadySet;
use crate::slots::Slots;
use crate::sync::{AtomicU64, Ordering};
use crate::sys::eventfd::EventFd;
use crate::sys::{process, random, socket};
use crate::verbs::event::EventQueue;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tbrdma_proto::{AddressVector, CableEnd, Gid, PdHandle, Profile, Region, RegionTable, limits};

/// Link-local prefix of every GID.
const PREFIX: u64 = 0xfe80_0000_0000_0000;
/// Unicast LIDs end here (IBTA volume 1, section 4.1.3).
const LAST_LID: u16 = 0xbfff;
/// How many LIDs are tried before giving up.
const LID_TRIES: u32 = 1024;

/// Locks, also after a panic elsewhere: what these locks guard is consistent between statements.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything of a context that queue pairs, completion queues and the service thread share.
pub(crate) struct Core {
    pub(crate) profile: Profile,
    /// Whom it may meet.
    pub(crate) cable: Cable,
    /// What it pretends of a wire, if anything.
    pub(crate) wire: Option<Wire>,
    /// Lower half of the GID; never zero, never all ones.
    pub(crate) context: u64,
    pub(crate) lid: u16,
    pub(crate) segment: Arc<Segment>,
    /// What peers are given to map.
    pub(crate) segment_fd: OwnedFd,
    pub(crate) regions: Arc<LocalRegions>,
    pub(crate) table: Mutex<RegionTable<()>>,
    pub(crate) heap: Mutex<Extents>,
    /// Is application memory adopted where that is wished for?
    pub(crate) adopts: bool,
    pub(crate) pds: Mutex<Slots<()>>,
    pub(crate) qps: Mutex<Slots<Weak<ShmQp>>>,
    pub(crate) cqs: Mutex<Slots<Weak<ShmCq>>>,
    pub(crate) srqs: Mutex<Slots<Weak<ShmSrq>>>,
    pub(crate) ahs: Mutex<Slots<Destination>>,
    pub(crate) peers: Peers,
    /// Written by peers, and by our own threads, to make the service thread look.
    pub(crate) kick: Arc<EventFd>,
    /// Queue pairs whose send queue waits for something: a poller that finds nothing looks at them.
    pub(crate) stalled: AtomicU64,
    pub(crate) events: Arc<EventQueue>,
    /// Held while the agent copies.
    pub(crate) serving: Mutex<()>,
    /// Queue pairs that wait for something, for the service thread and for pollers.
    pub(crate) stalled_list: Mutex<Vec<Weak<ShmQp>>>,
    /// What the service thread watches.
    pub(crate) watches: super::service::Watches,
}

/// Where an address handle leads.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) peer: Arc<super::peer::Peer>,
    pub(crate) attr: AddressVector,
}

/// The listening socket of a context, handed to its service thread.
pub(crate) struct Listener(pub(crate) OwnedFd);

impl Core {
    pub(crate) fn open(
        profile: Profile,
        cable: Option<&CableEnd>,
        wire: Option<Wire>,
    ) -> Result<(Arc<Self>, Listener)> {
        const CALL: &str = "open_device shm";
        let os = |what| Error::os(CALL, what);
        let (lid, listener) = claim_lid()?;
        let context = random::random_u64().map_err(os("random numbers"))? << 16 | u64::from(lid);
        let segment =
            create_segment().map_err(os("a sparse memory file of at least 1 GiB, mapped shared"))?;
        let segment_fd = segment.share().map_err(os("another descriptor of the memory file"))?;
        let bytes = segment.len();
        let segment = Arc::new(segment);
        let regions = Arc::new(LocalRegions::new(Arc::clone(&segment)).map_err(os("the region table"))?);
        let mut profile = profile;
        profile.device.node_guid = tbrdma_proto::Guid(context);
        profile.device.sys_image_guid = profile.device.node_guid;
        if profile.device.fw_ver.is_empty() {
            profile.device.fw_ver = env!("CARGO_PKG_VERSION").to_owned();
        }
        profile.port.lid = lid;
        let core = Self {
            profile,
            cable: cable.map_or(Cable::NONE, Cable::of),
            wire,
            context,
            lid,
            segment,
            segment_fd,
            regions,
            table: Mutex::new(RegionTable::new(limits::MAX_MR as usize)),
            heap: Mutex::new(Extents::new(HEAP_AT, bytes)),
            // `agent` and `process_vm` ask for these ways.
            adopts: std::env::var_os("TBRDMA_SHM_FOREIGN").is_none(),
            pds: Mutex::new(Slots::new(limits::MAX_PD)),
            qps: Mutex::new(Slots::new(limits::MAX_QP)),
            cqs: Mutex::new(Slots::new(limits::MAX_CQ)),
            srqs: Mutex::new(Slots::new(limits::MAX_SRQ)),
            ahs: Mutex::new(Slots::new(limits::MAX_AH)),
            peers: Peers::default(),
            kick: Arc::new(EventFd::new().map_err(os("an event descriptor"))?),
            stalled: AtomicU64::new(0),
            events: Arc::new(EventQueue::new().map_err(os("an event descriptor"))?),
            serving: Mutex::new(()),
            stalled_list: Mutex::new(Vec::new()),
            watches: super::service::Watches::new().map_err(os("an epoll descriptor"))?,
        };
        let header = core.header();
        header.context.store(context, Ordering::Relaxed);
        header.process.store(process::process_token(), Ordering::Relaxed);
        header.address.store(std::ptr::from_ref(header).expose_provenance() as u64, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        super::peer::remember(context, &core.segment, Some(&core.regions));
        Ok((Arc::new(core), Listener(listener)))
    }

    pub(crate) fn gid(&self) -> Gid {
        gid_of(self.context)
    }

    pub(crate) fn header(&self) -> &Header {
        header(&self.segment)
    }

    /// Makes the service thread look.
    pub(crate) fn kick_self(&self) {
        // Fails only if the counter is full, and then the thread is about to look anyway.
        let _ = self.kick.signal();
    }

    /// Whole zeroed pages of the segment, in address order; `bytes` is rounded up to pages.
    pub(crate) fn allocate_pages(&self, call: &'static str, bytes: u64) -> Result<u64> {
        self.allocate(call, pages(bytes), PAGE)
    }

    /// Gives pages back, to the heap and to the system; they read as zero afterwards.
    pub(crate) fn free_pages(&self, offset: u64, bytes: u64) {
        let _ = self.segment.punch(offset, pages(bytes));
        self.free(offset, pages(bytes));
    }

    /// Cache lines of the segment, with whatever their last user left in them.
    pub(crate) fn allocate_lines(&self, call: &'static str, bytes: u64) -> Result<u64> {
        self.allocate(call, bytes.max(1), GRANULE)
    }

    /// Gives lines back to the heap.
    pub(crate) fn free_lines(&self, offset: u64, bytes: u64) {
        self.free(offset, bytes.max(1));
    }

    fn allocate(&self, call: &'static str, bytes: u64, align: u64) -> Result<u64> {
        lock(&self.heap).allocate(bytes, align).ok_or_else(|| Error::LimitReached {
            call,
            what: "bytes in the shared segment",
            limit: self.segment.len() - HEAP_AT,
        })
    }

    fn free(&self, offset: u64, bytes: u64) {
        let freed = lock(&self.heap).free(offset, bytes);
        debug_assert!(freed.is_ok(), "heap: {freed:?}");
    }

    /// Publishes a region under a new key.
    pub(crate) fn insert_region(
        &self,
        pd: PdHandle,
        access: tbrdma_proto::Access,
        iova: u64,
        length: u64,
    ) -> Result<Region> {
        let entropy = random::random_u32().map_err(Error::os("register memory", "random numbers"))?;
        let key = lock(&self.table).insert(entropy, pd, access, iova, length, ())?;
        Ok(Region { key, pd, access, iova, length })
    }
}

impl Keys for Core {
    fn region_table(&self) -> &Mutex<RegionTable<()>> {
        &self.table
    }

    fn publish_part(&self, of: u32, part: &Region, offset: u64) -> bool {
        self.regions.publish_part(of, part, offset)
            && entry(self, part.key).publish_part(entry(self, of), of, part, offset)
    }

    fn publish_change(&self, region: &Region) -> bool {
        self.regions.publish_change(region) && entry(self, region.key).publish_change(region)
    }

    fn withdraw_key(&self, key: u32) {
        self.regions.withdraw(key);
        entry(self, key).withdraw();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Peers that still map the segment must not take its words for a live context's.
        self.header().magic.store(0, Ordering::Release);
    }
}

/// The GID of a context.
pub(crate) fn gid_of(context: u64) -> Gid {
    Gid::from_prefix_and_interface_id(PREFIX, context)
}

/// The IPv4-mapped GID of a context whose port is to have an IPv4 address: one that no network routes, and that says its LID.
pub(crate) fn ipv4_gid_of(lid: u16) -> Gid {
    let [high, low] = lid.to_be_bytes();
    Gid::from(std::net::Ipv4Addr::new(169, 254, high, low).to_ipv6_mapped())
}

/// The LID in such a GID.
pub(crate) fn lid_of_ipv4(gid: &Gid) -> Option<u16> {
    let lid = u16::from_be_bytes([gid.0[14], gid.0[15]]);
    (ipv4_gid_of(lid) == *gid).then_some(lid)
}

/// The largest segment that this process' address space has room for.
fn create_segment() -> std::io::Result<Segment> {
    let mut last = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
    for bytes in SEGMENT_SIZES {
        match Segment::create("tbrdma-shm", bytes) {
            Ok(segment) => return Ok(segment),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn claim_lid() -> Result<(u16, OwnedFd)> {
    const CALL: &str = "open_device shm";
    let user = process::effective_user_id();
    for _ in 0..LID_TRIES {
        let random = random::random_u32().map_err(Error::os(CALL, "random numbers"))?;
        let lid = (random % u32::from(LAST_LID)) as u16 + 1;
        match socket::listen(&super::hello::socket_name(user, lid)) {
            Ok(listener) => return Ok((lid, listener)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(Error::os(CALL, "an abstract Unix socket")(error)),
        }
    }
    Err(Error::LimitReached {
        call: CALL,
        what: "contexts of this user on this host",
        limit: u64::from(LAST_LID),
    })
}

const IN_LAYOUT: &str = "the layout lies within every segment, whose size is checked when it is mapped";

/// A segment's header.
#[inline]
pub(crate) fn header(segment: &Segment) -> &Header {
    segment.get(0).expect(IN_LAYOUT)
}

/// A queue pair's words.
#[inline]
pub(crate) fn qp_words(segment: &Segment, slot: u32) -> &QpWords {
    segment.get(layout::qp_at(slot)).expect(IN_LAYOUT)
}

/// A completion queue's words.
#[inline]
pub(crate) fn cq_words(segment: &Segment, slot: u32) -> &CqWords {
    segment.get(layout::cq_at(slot)).expect(IN_LAYOUT)
}

/// A shared receive queue's words.
#[inline]
pub(crate) fn srq_words(segment: &Segment, slot: u32) -> &SrqWords {
    segment.get(layout::srq_at(slot)).expect(IN_LAYOUT)
}

/// A ready set in shared words.
#[inline]
pub(crate) fn ready_set(words: &[AtomicU64]) -> ReadySet<'_> {
    ReadySet::new(words).expect("the layout gives every ready set its words")
}

/// The queue pair slot of a QPN; the upper bits tell one use of a slot from the next.
#[inline]
pub(crate) fn slot_of(qpn: u32) -> u32 {
    qpn % layout::QPS
}
