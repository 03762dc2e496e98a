//! Completion channels as programs use them: the descriptor is readable exactly while there is an event to read.

#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a C program has no blocks at all")]

mod common;

use common::verbs::*;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use std::time::{Duration, Instant};

/// A queue pair connected to itself, whose completion queue has the channel.
struct Looped {
    context: Context,
    channel: *mut ibv_comp_channel,
    cq: *mut ibv_cq,
    qp: Qp,
}

impl Looped {
    fn new(channel: *mut ibv_comp_channel, context: Context) -> Self {
        let (pd, cq) = (context.pd(), context.cq(channel));
        let qp = Qp::create(pd, cq, 2, null_mut());
        qp.connect(context.gid(), context.port().lid, qp.c().qp_num);
        Self { context, channel, cq, qp }
    }

    fn open() -> Self {
        let context = Context::open(None);
        Self::new(context.channel(), context)
    }

    fn fd(&self) -> c_int {
        // SAFETY: alive.
        unsafe { (*self.channel).fd }
    }

    fn arm(&self, solicited_only: bool) {
        // SAFETY: alive.
        assert_eq!(unsafe { (self.context.c().ops.req_notify_cq)(self.cq, solicited_only.into()) }, 0);
    }

    /// A message of no bytes to itself, and its two completions.
    fn send(&self, flags: u32) {
        let mut recv = ibv_recv_wr { wr_id: 1, next: null_mut(), sg_list: null_mut(), num_sge: 0 };
        assert_eq!(self.qp.post_recv(&mut recv).0, 0);
        let mut wr = send_wr(2, 2, null_mut(), 0);
        wr.send_flags = flags;
        assert_eq!(self.qp.post_send(&mut wr).0, 0);
    }

    /// The next event.
    fn event(&self) -> Result<(), i32> {
        let (mut cq, mut cq_context) = (null_mut(), null_mut());
        let got = call!(ibv_get_cq_event(
            self.channel => *mut ibv_comp_channel, &mut cq => *mut *mut ibv_cq, &mut cq_context => *mut *mut c_void) -> c_int);
        if got != 0 {
            assert_eq!(got, -1);
            return Err(errno());
        }
        assert_eq!((cq, cq_context), (self.cq, 77 as *mut c_void));
        Ok(())
    }

    fn acknowledge(&self, count: u32) {
        call!(ibv_ack_cq_events(self.cq => *mut ibv_cq, count => u32));
    }

    fn destroy_cq(&self) {
        assert_eq!(self.qp.destroy(), 0);
        assert_eq!(call!(ibv_destroy_cq(self.cq => *mut ibv_cq) -> c_int), 0);
    }
}

#[test]
fn the_descriptor_is_readable_while_there_is_an_event() {
    let looped = Looped::open();
    assert!(!is_readable(looped.fd(), 0));
    looped.send(2);
    poll(looped.cq, 2);
    assert!(!is_readable(looped.fd(), 0), "nobody asked for an event");
    looped.arm(false);
    assert!(!is_readable(looped.fd(), 0));
    looped.send(2);
    assert!(is_readable(looped.fd(), 10_000));
    assert!(is_readable(looped.fd(), 0), "looking takes nothing away");
    assert_eq!(looped.event(), Ok(()));
    assert!(!is_readable(looped.fd(), 0));
    looped.acknowledge(1);
    // Only what is solicited, or has failed.
    poll(looped.cq, 2);
    looped.arm(true);
    looped.send(2);
    poll(looped.cq, 2);
    assert!(!is_readable(looped.fd(), 20));
    looped.send(2 | 4);
    assert!(is_readable(looped.fd(), 10_000));
    assert_eq!(looped.event(), Ok(()));
    looped.acknowledge(1);
    looped.destroy_cq();
}

#[test]
fn a_nonblocking_descriptor_says_eagain() {
    let looped = Looped::open();
    set_nonblocking(looped.fd());
    assert_eq!(looped.event(), Err(libc::EAGAIN));
    looped.arm(false);
    looped.send(2);
    assert!(is_readable(looped.fd(), 10_000));
    assert_eq!(looped.event(), Ok(()));
    assert_eq!(looped.event(), Err(libc::EAGAIN));
    looped.acknowledge(1);
    looped.destroy_cq();
}

#[test]
fn several_queues_of_a_channel_have_an_event_each() {
    let first = Looped::open();
    let second = Looped::new(first.channel, first.context);
    for round in 0..50 {
        for looped in [&first, &second] {
            looped.arm(false);
            looped.send(2);
        }
        for left in [2, 1] {
            assert!(is_readable(first.fd(), 10_000), "round {round}: {left} events are left");
            let (mut cq, mut cq_context) = (null_mut::<ibv_cq>(), null_mut::<c_void>());
            let got = call!(ibv_get_cq_event(
                first.channel => *mut ibv_comp_channel, &mut cq => *mut *mut ibv_cq, &mut cq_context => *mut *mut c_void) -> c_int);
            assert_eq!(got, 0);
            assert!(cq == first.cq || cq == second.cq);
            call!(ibv_ack_cq_events(cq => *mut ibv_cq, 1 => u32));
        }
        assert!(!is_readable(first.fd(), 0), "round {round}");
        poll(first.cq, 2);
        poll(second.cq, 2);
    }
    first.destroy_cq();
    second.destroy_cq();
}

#[test]
fn an_unread_event_goes_with_its_queue() {
    let first = Looped::open();
    let second = Looped::new(first.channel, first.context);
    first.arm(false);
    first.send(2);
    second.arm(false);
    second.send(2);
    assert!(is_readable(first.fd(), 10_000));
    first.destroy_cq();
    assert_eq!(second.event(), Ok(()));
    assert!(!is_readable(second.fd(), 0));
    // More acknowledgements than events do no harm, and later events still count.
    second.acknowledge(3);
    second.destroy_cq();
    assert_eq!(call!(ibv_destroy_comp_channel(second.channel => *mut ibv_comp_channel) -> c_int), 0);
}

#[test]
fn destroying_a_queue_waits_for_what_was_read() {
    let looped = Looped::open();
    looped.arm(false);
    looped.send(2);
    assert_eq!(looped.event(), Ok(()));
    assert_eq!(looped.qp.destroy(), 0);
    let cq = looped.cq as usize;
    let destroying = std::thread::spawn(move || {
        let begun = Instant::now();
        assert_eq!(call!(ibv_destroy_cq(cq as *mut ibv_cq => *mut ibv_cq) -> c_int), 0);
        begun.elapsed()
    });
    // It must be in the call by now, or will find the acknowledgement there: either way it returns, and not before.
    std::thread::sleep(Duration::from_millis(50));
    assert!(!destroying.is_finished());
    looped.acknowledge(1);
    destroying.join().expect("destroyed");
}

extern "C" fn ignore(_signal: c_int) {}

/// Waits for an event while another thread sends signals to this one: twenty and then the event, or until it returns if the handler does not ask for the
/// call to be restarted.
fn wait_through_signals(flags: c_int) -> Result<(), i32> {
    let looped = Looped::open();
    // SAFETY: a structure of numbers.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = ignore as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: the handler does nothing.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, null_mut()) }, 0);
    looped.arm(false);
    // SAFETY: asks who this is.
    let (thread, qp) = (unsafe { libc::pthread_self() }, looped.qp.0 as usize);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A call that ignores them all shall end too.
            let most = if flags & libc::SA_RESTART == 0 { 4000 } else { 20 };
            for _ in 0..most {
                std::thread::sleep(Duration::from_millis(5));
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                // SAFETY: the thread is in this scope.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            }
            let mut wr = send_wr(2, 0, null_mut(), 0);
            wr.wr.rdma = ibv_send_wr_rdma { remote_addr: 0, rkey: 0 };
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = Qp(qp as *mut ibv_qp).post_send(&mut wr);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let waited = looped.event();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        waited
    })
}

#[test]
fn a_blocking_wait_is_interrupted_as_a_read_is() {
    assert_eq!(wait_through_signals(libc::SA_RESTART), Ok(()));
    assert_eq!(wait_through_signals(0), Err(libc::EINTR));
}
