//! What stands behind the verbs API: the few traits a device implements. The rules common to all devices (attribute tables, work
//! request checks) are proto's and are applied by the device that executes them, once.

use crate::error::{Error, PostRefusal, Result};
use crate::mem::{Held, Place};
use crate::native::{NativeCq, NativeQp};
use crate::sim::Network;
use crate::sync::AtomicU64;
use crate::sys::eventfd::EventFd;
use crate::sys::random;
use crate::verbs::event::AsyncEvent;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use tbrdma_proto::{
    Access, AddressVector, Gid, Guid, MwType, PdHandle, PortAttr, PortState, Profile, QpAttr, QpAttrMask,
    QpCap, QpType, Qpn, Region, SendFlags, SendWr, Sge, WorkCompletion, limits,
};

/// What is on a list of send work requests, as far as a device wants to know at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// Entries of memory, and places at the peer: nothing else.
    #[default]
    Plain,
    /// And immediate data.
    Immediate,
    /// Anything.
    Any,
}

/// Work requests that there is room for at first.
const FIRST_ROOM: usize = 16;

/// A list of send work requests with the storage they refer to: one doorbell.
#[derive(Default, Debug)]
pub(crate) struct SendBatch {
    pub(crate) wrs: Vec<SendWr>,
    pub(crate) sges: Vec<Sge>,
    pub(crate) inline: Vec<u8>,
    /// What the builder has put on it; a list that was made otherwise does not say.
    pub(crate) shape: Shape,
    /// Somebody will ask whether they have retired, by their numbers: a device for which numbers are a burden gives them to such lists only.
    pub(crate) numbered: bool,
    /// Room for a device that makes a list of its own kind of this one.
    pub(crate) room: crate::native::SendRoom,
}

impl SendBatch {
    pub(crate) fn clear(&mut self) {
        self.wrs.clear();
        self.sges.clear();
        self.inline.clear();
        self.shape = Shape::Plain;
        self.numbered = false;
    }

    /// The first room for work requests. They are large, and what is given back when their storage moves is too small for the next: so it is
    /// as much as a list of usual length wants.
    #[cold]
    #[inline(never)]
    pub(crate) fn first_room(&mut self) {
        self.wrs.reserve_exact(FIRST_ROOM);
    }

    /// What a work request of the batch sends or fills: entries, or inline bytes.
    #[inline(always)]
    pub(crate) fn operands(&self, wr: &SendWr) -> (&[Sge], &[u8]) {
        let range = wr.operands();
        if wr.flags.contains(SendFlags::INLINE) {
            (&[], self.inline.get(range).unwrap_or(&[]))
        } else {
            (self.sges.get(range).unwrap_or(&[]), &[])
        }
    }

    /// Its only entry, if it has just one and is not inline.
    #[inline(always)]
    pub(crate) fn only_sge(&self, wr: &SendWr) -> Option<&Sge> {
        if wr.flags.contains(SendFlags::INLINE) || wr.num_sge != 1 {
            return None;
        }
        self.sges.get(wr.first_sge as usize)
    }
}

/// A receive work request; its SGEs are a range of the batch's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveWr {
    pub(crate) wr_id: u64,
    pub(crate) first_sge: u32,
    pub(crate) num_sge: u32,
}

/// A list of receive work requests.
#[derive(Default, Debug)]
pub(crate) struct ReceiveBatch {
    pub(crate) wrs: Vec<ReceiveWr>,
    pub(crate) sges: Vec<Sge>,
    /// Somebody will ask whether they have retired, by their numbers: a device for which numbers are a burden gives them to such lists only.
    pub(crate) numbered: bool,
    /// Room for a device that makes a list of its own kind of this one.
    pub(crate) room: crate::native::ReceiveRoom,
}

impl ReceiveBatch {
    pub(crate) fn clear(&mut self) {
        self.wrs.clear();
        self.sges.clear();
        self.numbered = false;
    }

    pub(crate) fn sges_of(&self, wr: &ReceiveWr) -> &[Sge] {
        let first = wr.first_sge as usize;
        self.sges.get(first..first + wr.num_sge as usize).unwrap_or(&[])
    }
}

/// The right to post to one send queue: held by its send half.
pub(crate) use crate::ring::guard::OwnerToken as SendToken;

/// A post that stopped: the position of the first work request not posted, and why.
pub(crate) type Refused = (usize, PostRefusal);

/// How the bytes of a registered region are reached by peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryPath {
    /// Peers map it and load and store it themselves: memory the library allocated, or [adopted](ForeignMemory::adopt).
    Mapped,
    /// Peers map its whole pages. An access to bytes before the first or after the last of these goes by one of the ways below.
    Partly,
    /// Peers read and write it with `process_vm_readv`/`process_vm_writev`: memory of the application's own.
    ProcessVm,
    /// The owner's service thread copies it for peers: memory of the application's own where the kernel forbids the other way.
    Agent,
    /// By packets, which the owner's side of the device carries out.
    Packets,
    /// An adapter reads and writes it by itself.
    Adapter,
}

/// What a completion queue is created with.
pub(crate) struct CqRequest {
    pub(crate) cqe: u32,
    pub(crate) channel: Option<Channel>,
}

impl CqRequest {
    /// The counter that the completion queue rings, on a device that has such channels.
    pub(crate) fn counter(&self) -> Option<Arc<EventFd>> {
        match &self.channel {
            Some(Channel::Counter(counter)) => Some(Arc::clone(counter)),
            Some(Channel::Device(_)) | None => None,
        }
    }
}

/// What is behind a completion channel: one descriptor to wait for.
#[derive(Clone)]
pub(crate) enum Channel {
    /// A counter that completion queues ring; which of them did is asked of each.
    Counter(Arc<EventFd>),
    /// The device's own, which says which queue it was.
    Device(Arc<dyn DeviceChannel>),
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Counter(counter) => counter.as_fd(),
            Self::Device(channel) => channel.fd(),
        }
    }
}

/// A completion channel of a device that makes its own.
pub(crate) trait DeviceChannel: Send + Sync {
    /// Readable while there are events.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Takes the oldest event: the index of its completion queue.
    fn take(&self) -> Option<u32>;
    /// The device's number for it.
    fn slot(&self) -> u32;
}

/// Where a device's asynchronous events come from.
pub(crate) trait DeviceEvents: Send + Sync {
    /// Readable while there are events.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Takes the oldest event.
    fn take(&self) -> Option<AsyncEvent>;
}

/// Is the size one that a completion queue can have?
pub(crate) fn check_cqe(call: &'static str, cqe: u32) -> Result<()> {
    if cqe == 0 || cqe > limits::MAX_CQE {
        let reason = format!("cqe = {cqe}, the device takes 1 to {}", limits::MAX_CQE);
        return Err(Error::InvalidArgument { call, reason });
    }
    Ok(())
}

/// A completion queue that holds more completions than it shall have room for stays as it is.
pub(crate) fn check_unpolled(unpolled: usize, cqe: u32) -> Result<()> {
    if unpolled > cqe as usize {
        let reason = format!("cqe = {cqe}, but {unpolled} completions wait to be polled: poll them first");
        return Err(Error::InvalidArgument { call: "resize_cq", reason });
    }
    Ok(())
}

/// Are these sizes that a shared receive queue can have?
pub(crate) fn check_srq(max_wr: u32, max_sge: u32) -> Result<()> {
    if max_wr == 0 || max_wr > limits::MAX_SRQ_WR || max_sge > limits::MAX_SRQ_SGE {
        let reason = format!(
            "max_wr = {max_wr} with max_sge = {max_sge}, the device takes 1 to {} with at most {}",
            limits::MAX_SRQ_WR,
            limits::MAX_SRQ_SGE
        );
        return Err(Error::InvalidArgument { call: "create_srq", reason });
    }
    Ok(())
}

/// What a queue pair is created with.
pub(crate) struct QpRequest {
    pub(crate) qp_type: QpType,
    pub(crate) pd: PdHandle,
    pub(crate) cap: QpCap,
    pub(crate) send_cq: Arc<dyn DeviceCq>,
    pub(crate) recv_cq: Arc<dyn DeviceCq>,
    pub(crate) srq: Option<Arc<dyn DeviceSrq>>,
}

impl QpRequest {
    /// What is granted for the sizes asked for: whole powers of two of work requests, as rings have. Sizes of a receive queue mean
    /// nothing where receives come from a shared one (`ibv_create_qp(3)`).
    pub(crate) fn granted(&self) -> Result<QpCap> {
        let bounded = |value: u32, limit: u32, what: &str| {
            if value > limit {
                let reason = format!("{what} = {value}, the device has at most {limit}");
                return Err(Error::InvalidArgument { call: "create_qp", reason });
            }
            Ok(value)
        };
        let wr =
            |value, what| Ok::<_, Error>(bounded(value, limits::MAX_QP_WR, what)?.max(1).next_power_of_two());
        let asked = &self.cap;
        let (max_recv_wr, max_recv_sge) = match self.srq {
            Some(_) => (0, 0),
            None => (
                wr(asked.max_recv_wr, "max_recv_wr")?,
                bounded(asked.max_recv_sge, limits::MAX_SGE, "max_recv_sge")?.max(1),
            ),
        };
        Ok(QpCap {
            max_send_wr: wr(asked.max_send_wr, "max_send_wr")?,
            max_recv_wr,
            max_send_sge: bounded(asked.max_send_sge, limits::MAX_SGE, "max_send_sge")?.max(1),
            max_recv_sge,
            max_inline_data: bounded(asked.max_inline_data, limits::MAX_INLINE_DATA, "max_inline_data")?,
        })
    }
}

/// An open device.
pub(crate) trait Device: Send + Sync {
    fn name(&self) -> &str;
    fn node_guid(&self) -> Guid;
    fn profile(&self) -> &Profile;
    fn gid(&self, index: u32) -> Option<Gid>;

    /// Whether the port works now.
    fn port_state(&self) -> PortState {
        PortState::Active
    }
    /// The port as it is now.
    fn port(&self) -> PortAttr {
        let port = self.profile().port;
        if self.port_state() == PortState::Down { port.down() } else { port }
    }
    /// An entry of the P_Key table, which has this index.
    fn pkey(&self, _index: u16) -> u16 {
        limits::DEFAULT_PKEY
    }
    fn lid(&self) -> u16;
    /// The entry of the GID table by which a peer at this GID is reached; without one, the entry that peers are told.
    fn gid_index_towards(&self, _peer: Option<&Gid>) -> u8 {
        0
    }
    /// How it works on this machine, in a line.
    fn describe(&self) -> String {
        self.name().to_owned()
    }
    /// What it has counted, in the names of rdma_rxe's `hw_counters` where it has them.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    fn events(&self) -> Arc<dyn DeviceEvents>;
    /// The simulated network that it is in: then time is that one's.
    fn network(&self) -> Option<&Arc<Network>> {
        None
    }
    /// What a completion channel waits with.
    fn create_comp_channel(&self) -> Result<Channel> {
        let counter = EventFd::new().map_err(Error::os("create_comp_channel", "eventfd"))?;
        Ok(Channel::Counter(Arc::new(counter)))
    }
    /// A random 24-bit number, for a starting PSN.
    fn random_psn(&self) -> u32 {
        random::random_u32().unwrap_or_default() & 0x00ff_ffff
    }
    fn alloc_pd(&self) -> Result<PdHandle>;
    /// Gives the protection domain back; the last object of it is gone.
    fn dealloc_pd(&self, pd: PdHandle);
    fn alloc_memory(&self, pd: PdHandle, len: usize, access: Access) -> Result<Arc<dyn DeviceMemory>>;
    /// Registers memory that the library does not own, to be named from `iova` on.
    fn register_memory(
        &self,
        pd: PdHandle,
        memory: ForeignMemory,
        access: Access,
        iova: u64,
    ) -> Result<Arc<dyn DeviceMemory>>;
    /// A memory window, and its key.
    fn alloc_mw(&self, pd: PdHandle, mw_type: MwType) -> Result<u32>;
    /// Deallocates the window, bound or not, that has this key or had it once.
    fn dealloc_mw(&self, rkey: u32);
    /// The key that this window has now.
    fn mw_rkey(&self, rkey: u32) -> u32;
    fn create_cq(&self, request: CqRequest) -> Result<Arc<dyn DeviceCq>>;
    fn create_srq(&self, pd: PdHandle, max_wr: u32, max_sge: u32) -> Result<Arc<dyn DeviceSrq>>;
    /// A queue pair, and the right to post to its send queue.
    fn create_qp(&self, request: QpRequest) -> Result<(Arc<dyn DeviceQp>, SendToken)>;
    /// A number by which datagram work requests name this destination.
    fn create_ah(&self, pd: PdHandle, attr: &AddressVector) -> Result<u32>;
    fn destroy_ah(&self, ah: u32);
    /// Closes the device at once. Everything that was made from it has been ended, and nobody makes a call any more: the process is about to end.
    fn close(&self) {}
}

/// Memory of the application's own that it promises to keep: made only by those who were promised.
pub(crate) use crate::mem::ForeignMemory;

/// A registered memory region. Dropping the last reference deregisters it, after those who are touching it are done.
pub(crate) trait DeviceMemory: Send + Sync {
    /// What it was registered as; domain and rights may have [changed](Self::change_rights) since.
    fn region(&self) -> &Region;
    fn lkey(&self) -> u32 {
        self.region().key
    }
    fn rkey(&self) -> u32 {
        self.region().key
    }
    /// The address by which work requests name its first byte.
    fn iova(&self) -> u64 {
        self.region().iova
    }
    fn len(&self) -> usize {
        self.region().length as usize
    }
    /// Lends the bytes for a moment; not at all once they have been given back.
    fn with_place(&self, use_place: &mut dyn FnMut(Place<'_>));
    /// The bytes, if the library allocated them.
    fn segment_place(&self) -> Option<Place<'_>>;
    /// The same as whole words from the first on, to keep at hand: nobody is told of looks at them.
    fn words(&self) -> Option<Held<[AtomicU64]>> {
        None
    }
    fn path(&self) -> MemoryPath;
    /// Must [`is_looked_at`](Self::is_looked_at) be called when the program looks at the bytes?
    fn wants_looks(&self) -> bool {
        false
    }
    /// The program looks at the bytes, perhaps until a peer has written them: a device that needs the program's time takes some.
    fn is_looked_at(&self) {}
    /// Gives it another domain and other rights; keys and addresses stay. [`Error::Busy`] if that was done, and a stopped peer does not cease in
    /// time to use the old ones.
    fn change_rights(&self, pd: PdHandle, access: Access) -> Result<()>;
    /// Withdraws the keys and waits for those who are touching the bytes. `Err` if a stopped peer does not let go in time.
    fn deregister(&self) -> Result<()>;
    /// Deregisters, and gives back the bytes that were handed over.
    fn give_back_foreign(&self) -> Result<Option<ForeignMemory>>;
}

/// In the `DeviceMemory` of a type that wraps the region `inner`: the methods by which that one's bytes are reached.
macro_rules! bytes_of_inner {
    () => {
        fn with_place(&self, use_place: &mut dyn FnMut(crate::mem::Place<'_>)) {
            self.inner.with_place(use_place);
        }

        fn segment_place(&self) -> Option<crate::mem::Place<'_>> {
            self.inner.segment_place()
        }

        fn words(&self) -> Option<crate::mem::Held<[crate::sync::AtomicU64]>> {
            self.inner.words()
        }

        fn path(&self) -> crate::device::MemoryPath {
            self.inner.path()
        }

        fn wants_looks(&self) -> bool {
            self.inner.wants_looks()
        }

        fn is_looked_at(&self) {
            self.inner.is_looked_at();
        }
    };
}
pub(crate) use bytes_of_inner;

/// A completion queue.
pub(crate) trait DeviceCq: Send + Sync {
    fn cqe(&self) -> u32;
    /// How many completions a poll would find. It may look at each queue, so it is not for data paths.
    fn unpolled(&self) -> usize;
    /// Makes room for `cqe` completions, or for fewer than before; as large as was checked by the caller.
    fn resize(&self, cqe: u32) -> Result<()>;
    fn poll(&self, out: &mut [WorkCompletion]) -> usize;
    /// The adapter's own, with nothing around it: polled past this trait.
    fn native(self: Arc<Self>) -> Option<Arc<NativeCq>> {
        None
    }
    fn arm(&self, solicited_only: bool) -> Result<()>;
    /// If a completion event was raised since the last was taken, its place among those of the context's other queues: the lowest came first. Equal where
    /// that is not known.
    fn event_order(&self) -> Option<u64>;
    /// Takes the mark that a completion event was raised since the last call.
    fn take_event(&self) -> bool;
    /// The device's number for it, to tell whether a queue pair may be attached.
    fn index(&self) -> u32;
    /// Identity of the context it belongs to.
    fn context(&self) -> u64;
}

/// A queue pair. Dropping the last reference destroys it.
pub(crate) trait DeviceQp: Send + Sync {
    fn qp_num(&self) -> Qpn;
    fn qp_type(&self) -> QpType;
    fn cap(&self) -> QpCap;
    /// Posts the list: the number of the first work request (of a list that is `numbered`), and where and why it stopped, if it did.
    fn post_send(&self, token: &mut SendToken, batch: &mut SendBatch) -> (u32, Option<Refused>);
    /// The adapter's own, with nothing around it, if plain work may be posted to it past this trait.
    fn native(self: Arc<Self>) -> Option<Arc<NativeQp>> {
        None
    }
    /// One thread at a time posts: the owner of the queue pair's receive half.
    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>);
    fn modify(&self, attr: &QpAttr, mask: QpAttrMask) -> Result<()>;
    fn query(&self) -> QpAttr;
    /// Send work requests with smaller numbers have completed and been polled.
    fn sends_retired(&self) -> u32;
    /// Has the receive with this number, which was posted, completed and been polled?
    fn is_receive_retired(&self, number: u32) -> bool;
    /// Puts the queue pair out of reach of everyone, for good.
    fn destroy(&self);
}

/// A shared receive queue.
pub(crate) trait DeviceSrq: Send + Sync {
    fn max_wr(&self) -> u32;
    fn max_sge(&self) -> u32;
    fn index(&self) -> u32;
    fn context(&self) -> u64;
    fn post_recv(&self, batch: &mut ReceiveBatch) -> (u32, Option<Refused>);
    /// Arms the limit event: raised once when fewer receives than this are left.
    fn set_limit(&self, limit: u32) -> Result<()>;
    fn limit(&self) -> u32;
    /// Has the receive with this number completed and been polled?
    fn is_retired(&self, number: u32) -> bool;
}
