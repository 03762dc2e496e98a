//! Open devices, and what their objects have in common.

use crate::abi::*;
use crate::channel::Channel;
use crate::cq::Cq;
use crate::device::Device;
use crate::dm::Pages;
use crate::errno::Errno;
use crate::event::Events;
use crate::export::export;
use crate::fork;
use crate::object::{Given, Object};
use crate::qp::Qp;
use crate::srq::Srq;
use crate::watch::{self, Use};
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::mem::offset_of;
use core::ptr;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tbrdma::{AsyncEvents, MemoryRegion, ProtectionDomain};

/// Takes a lock that a panic may have left: what it guards is whole after each statement.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An object's address in a table that all threads use.
pub(crate) struct Known<T>(pub(crate) *const T);

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Known<T> {}

// SAFETY: an address; who follows it holds the table's lock, and objects leave the table before they go.
unsafe impl<T: Sync> Send for Known<T> {}

/// Objects by the device's numbers for them, which is how events name them, and the contexts that they are made from. Channels have no numbers.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) contexts: Vec<Known<Context>>,
    pub(crate) channels: Vec<Known<Channel>>,
    pub(crate) qps: HashMap<u32, Known<Qp>>,
    pub(crate) cqs: HashMap<u32, Known<Cq>>,
    pub(crate) srqs: HashMap<u32, Known<Srq>>,
}

/// What can be imported, by handle.
#[derive(Default)]
pub(crate) struct Handles {
    pub(crate) pds: HashMap<u32, ProtectionDomain>,
    pub(crate) mrs: HashMap<u32, Weak<Mutex<MemoryRegion>>>,
    pub(crate) dms: HashMap<u32, Weak<Pages>>,
}

impl Handles {
    /// Forgets what has ended with the context that it was made from.
    fn forget_the_dead(&mut self) {
        self.mrs.retain(|_, region| region.strong_count() > 0);
        self.dms.retain(|_, pages| pages.strong_count() > 0);
    }
}

/// An open device: one a process, however often it is opened or imported. A device has one port with one address, by which
/// queue pairs of all contexts are reached.
pub(crate) struct Opened {
    pub(crate) context: tbrdma::Context,
    pub(crate) device: &'static Device,
    pub(crate) events: AsyncEvents,
    pub(crate) objects: Mutex<Objects>,
    pub(crate) handles: Mutex<Handles>,
    next_handle: AtomicU32,
    /// The fault plan has the port down.
    pub(crate) is_port_down: AtomicBool,
    /// Known by its inode: an import is told a descriptor, which may be a duplicate.
    command: OwnedFd,
    generation: u32,
}

/// All open devices.
static OPENED: Mutex<Vec<Weak<Opened>>> = Mutex::new(Vec::new());

impl Opened {
    fn open(device: &'static Device) -> Result<Arc<Self>, Errno> {
        // Held until the device is open: two threads that open it get the same.
        let mut all = lock(&OPENED);
        let generation = fork::generation();
        let same = |opened: &Arc<Self>| ptr::eq(opened.device, device) && opened.generation == generation;
        if let Some(opened) = all.iter().filter_map(Weak::upgrade).find(same) {
            return Ok(opened);
        }
        let context = crate::settings::open(device.named)?;
        let command = memfd_create(c"tbrdma-device", MFdFlags::MFD_CLOEXEC)?;
        let opened = Arc::new(Self {
            events: context.async_events(),
            context,
            device,
            objects: Mutex::default(),
            handles: Mutex::default(),
            next_handle: AtomicU32::new(0),
            is_port_down: AtomicBool::new(false),
            command,
            generation,
        });
        all.retain(|opened| opened.strong_count() > 0);
        all.push(Arc::downgrade(&opened));
        drop(all);
        watch::opened();
        Ok(opened)
    }

    /// The device that was opened with this descriptor, or a duplicate of it.
    fn find(command: BorrowedFd<'_>) -> Result<Arc<Self>, Errno> {
        let wanted = fstat(command)?;
        let is_it = |opened: &Arc<Self>| {
            fstat(&opened.command).is_ok_and(|own| (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino))
        };
        lock(&OPENED).iter().filter_map(Weak::upgrade).find(is_it).ok_or(Errno::EINVAL)
    }

    /// Does something with the objects later, if the device is still open then.
    pub(crate) fn later(self: &Arc<Self>, due: Instant, task: impl FnOnce(&Objects) + Send + 'static) {
        let opened = Arc::downgrade(self);
        crate::clock::at(due, move || {
            if let Some(opened) = opened.upgrade() {
                task(&lock(&opened.objects));
            }
        });
    }

    /// A number for a new object: larger than those of all before it.
    pub(crate) fn handle(&self) -> u32 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }
}

/// The devices that this process has open.
pub(crate) fn opened() -> Vec<Arc<Opened>> {
    let generation = fork::generation();
    let all = lock(&OPENED);
    all.iter().filter_map(Weak::upgrade).filter(|opened| opened.generation == generation).collect()
}

/// What programs hold: `ibv_context`, with the tables of functions around it.
#[repr(C)]
pub(crate) struct Context {
    c: UnsafeCell<verbs_context>,
    pub(crate) opened: Arc<Opened>,
    pub(crate) events: Events,
    pub(crate) given: Given,
    _command: OwnedFd,
}

// SAFETY: the C structure does not change once the program has it; the rest is made for threads.
unsafe impl Sync for Context {}

impl Object for Context {
    type C = ibv_context;

    fn of(c: *mut ibv_context) -> *mut Self {
        c.wrapping_byte_sub(offset_of!(verbs_context, context)).cast()
    }
}

impl Context {
    fn make(opened: Arc<Opened>) -> Result<*mut ibv_context, Errno> {
        let events = Events::new(&opened.events)?;
        let command = opened.command.try_clone().map_err(|_| Errno::last())?;
        let verbs = verbs(opened.device, command.as_raw_fd(), events.fd());
        let given = Given::default();
        let context = Box::new(Self { c: UnsafeCell::new(verbs), opened, events, given, _command: command });
        let context = Box::into_raw(context);
        // SAFETY: just made.
        let made = unsafe { &*context };
        made.objects().contexts.push(Known(context));
        Ok(made.c())
    }

    pub(crate) fn c(&self) -> *mut ibv_context {
        self.c.get().wrapping_byte_add(offset_of!(verbs_context, context)).cast()
    }

    /// `EINVAL` where the object of a call belongs to another context: it would not outlive that, and a kernel would not find it.
    pub(crate) fn expect(&self, object: &'static str, context: &Self) -> Result<(), Errno> {
        if ptr::eq(self, context) {
            return Ok(());
        }
        crate::log::say(&format_args!(
            "this {object} belongs to another context of {}",
            self.opened.device.name()
        ));
        Err(Errno::EINVAL)
    }

    /// The device as `tbrdma` has it.
    pub(crate) fn inner(&self) -> &tbrdma::Context {
        &self.opened.context
    }

    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        lock(&self.opened.objects)
    }

    /// Nobody finds this context any more, nor its objects.
    fn leave_tables(&self) {
        let mut objects = self.objects();
        let Objects { contexts, channels, qps, cqs, srqs } = &mut *objects;
        contexts.retain(|known| !ptr::eq(known.0, self));
        // SAFETY: objects leave the table before they go; so for the others.
        channels.retain(|known| !ptr::eq(unsafe { &*known.0 }.context(), self));
        // SAFETY: as above.
        qps.retain(|_, known| !ptr::eq(unsafe { &*known.0 }.context(), self));
        // SAFETY: as above.
        cqs.retain(|_, known| !ptr::eq(unsafe { &*known.0 }.context(), self));
        // SAFETY: as above.
        srqs.retain(|_, known| !ptr::eq(unsafe { &*known.0 }.context(), self));
    }

    pub(crate) fn handles(&self) -> MutexGuard<'_, Handles> {
        lock(&self.opened.handles)
    }

    /// So much of something is used of what the device has, for the report.
    #[cold]
    pub(crate) fn uses(&self, what: Use, count: usize) {
        let (attr, switches) = (self.inner().query_device(), &self.inner().profile().switches);
        let limit = match what {
            // What can really be had may be less than what is said.
            Use::Qps => attr.max_qp.min(switches.qps),
            Use::Cqs => attr.max_cq.min(switches.cqs),
            Use::Mrs => attr.max_mr.min(switches.mrs),
            Use::Pds => attr.max_pd.min(switches.pds),
            Use::Srqs => attr.max_srq,
            Use::AskedWr => attr.max_qp_wr,
            Use::AskedSge => attr.max_sge,
            Use::AskedInline => attr.max_inline_data,
            Use::AskedCqe => attr.max_cqe,
            // Of one object, which knows its own.
            _ => return,
        };
        watch::uses(what, count, limit, format_args!("{}", self.opened.device.name()));
    }

    /// Was it opened by this process, and not by one that it was forked from?
    pub(crate) fn is_own(&self) -> bool {
        self.opened.generation == fork::generation()
    }

    /// `ENODEV` in a child of the process that opened it.
    pub(crate) fn own(&self) -> Result<&Self, Errno> {
        if self.is_own() {
            return Ok(self);
        }
        crate::log::say(&format_args!(
            "{} was opened before a fork: the child opens its own",
            self.opened.device.name()
        ));
        Err(Errno::ENODEV)
    }
}

/// The context of an object.
///
/// # Safety
/// The object is one that the program may still use: its context is open.
pub(crate) unsafe fn context_of<'a>(c: *mut ibv_context) -> &'a Context {
    // SAFETY: objects hold the pointer that `Context::make` returned; the context outlives them, as the manual page of
    // `ibv_close_device(3)` demands.
    unsafe { &*Context::of(c) }
}

/// The structure with its tables.
fn verbs(device: &Device, cmd_fd: c_int, async_fd: c_int) -> verbs_context {
    const EMPTY: Slot = ptr::null();
    verbs_context {
        query_port: Some(crate::query::query_port),
        advise_mr: Some(crate::mr::advise_mr),
        alloc_null_mr: None,
        read_counters: EMPTY,
        attach_counters_point_flow: EMPTY,
        create_counters: EMPTY,
        destroy_counters: EMPTY,
        reg_dm_mr: Some(crate::dm::reg_dm_mr),
        alloc_dm: Some(crate::dm::alloc_dm),
        free_dm: Some(crate::dm::free_dm),
        modify_flow_action_esp: EMPTY,
        destroy_flow_action: EMPTY,
        create_flow_action_esp: EMPTY,
        modify_qp_rate_limit: EMPTY,
        alloc_parent_domain: Some(crate::pd::alloc_parent_domain),
        dealloc_td: Some(crate::pd::dealloc_td),
        alloc_td: Some(crate::pd::alloc_td),
        modify_cq: EMPTY,
        post_srq_ops: EMPTY,
        destroy_rwq_ind_table: EMPTY,
        create_rwq_ind_table: EMPTY,
        destroy_wq: EMPTY,
        modify_wq: EMPTY,
        create_wq: EMPTY,
        query_rt_values: Some(crate::query::query_rt_values),
        create_cq_ex: Some(crate::cq::create_cq_ex),
        private: EMPTY,
        query_device_ex: Some(crate::query::query_device_ex),
        destroy_flow: EMPTY,
        placeholder2: EMPTY,
        create_flow: EMPTY,
        placeholder1: EMPTY,
        open_qp: EMPTY,
        create_qp_ex: Some(crate::qp::create_qp_ex),
        get_srq_num: Some(crate::srq::get_srq_num),
        create_srq_ex: Some(crate::srq::create_srq_ex),
        open_xrcd: EMPTY,
        close_xrcd: EMPTY,
        placeholder3: 0,
        sz: size_of::<verbs_context>(),
        context: ibv_context {
            device: device.c(),
            ops: ibv_context_ops {
                compat0: [EMPTY; 7],
                alloc_mw: crate::mw::alloc_mw,
                bind_mw: crate::mw::bind_mw,
                dealloc_mw: crate::mw::dealloc_mw,
                compat10: EMPTY,
                poll_cq: crate::poll::poll_cq,
                req_notify_cq: crate::poll::req_notify_cq,
                compat13: [EMPTY; 7],
                post_srq_recv: crate::post::post_srq_recv,
                compat21: [EMPTY; 4],
                post_send: crate::post::post_send,
                post_recv: crate::post::post_recv,
                compat27: [EMPTY; 5],
            },
            cmd_fd,
            async_fd,
            num_comp_vectors: 1,
            mutex: libc::PTHREAD_MUTEX_INITIALIZER,
            abi_compat: VERBS_ABI_IS_EXTENDED,
        },
    }
}

export! {
    "IBVERBS_1.1" pointer fn ibv_open_device(device: &Device) -> *mut ibv_context {
        let device = crate::device::all().iter().find(|known| ptr::eq(*known, device)).ok_or(Errno::ENODEV)?;
        Context::make(Opened::open(device)?)
    }

    "IBVERBS_1.1" errno fn ibv_close_device(context: &Context) -> c_int {
        if context.is_own() {
            context.leave_tables();
            // SAFETY: the program gives it back, and with it what it made from it and did not destroy; no table names that any more.
            unsafe { context.given.end_all() };
            context.handles().forget_the_dead();
            // SAFETY: it came out of a box in `make`, and this is the last use of it.
            drop(unsafe { Box::from_raw(ptr::from_ref(context).cast_mut()) });
        }
        Ok(())
    }

    "IBVERBS_1.10" pointer fn ibv_import_device(command: c_int) -> *mut ibv_context {
        // A number that is no descriptor is found out by asking.
        if command < 0 {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the program keeps its descriptor open for the time of the call.
        let command = unsafe { BorrowedFd::borrow_raw(command) };
        fcntl(command, FcntlArg::F_GETFD)?;
        Context::make(Opened::find(command)?)
    }
}
