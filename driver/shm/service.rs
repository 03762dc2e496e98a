//! The one thread of a context: it introduces the context to newcomers, notices deaths, keeps deadlines, and is the agent.
//!
//! It sleeps in `epoll` and costs nothing while nobody needs it. It never runs application code and never waits for a peer.

use super::agent;
use super::core::{Core, Listener, header, lock, ready_set};
use super::cq::ShmCq;
use super::hello::{Kind, MESSAGE_BYTES, Message};
use super::peer::{Peer, admit_newcomer, introduction};
use super::qp::{Receives, ShmQp};
use super::send::GRACE;
use super::wire::Wire;
use crate::ring::layout::QPS;
use crate::ring::ready::SLOTS;
use crate::ring::shared_receive::Claimer;
use crate::sync::{AtomicBool, Ordering};
use crate::sys::epoll::Epoll;
use crate::sys::threads::{self, OwnThread};
use crate::sys::wait::wait_one;
use crate::sys::{pidfd, process, socket};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tbrdma_proto::QpState;

const LISTENER: u64 = 0;
const KICK: u64 = 1;
const FIRST_WATCHED: u64 = 2;

/// How often something that waits is looked at even if nobody kicks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What the service thread watches besides its listener and its event descriptor.
pub(crate) struct Watches {
    epoll: Epoll,
    watched: Mutex<(u64, HashMap<u64, Watched>)>,
    stop: AtomicBool,
    /// What agents may still be using.
    pub(crate) abandoned: agent::Abandoned,
}

enum Watched {
    /// Somebody who has connected to us; a peer once it has said hello.
    Inbound { socket: OwnedFd, pid: i32, peer: Option<Arc<Peer>> },
    /// A peer we have met: readable when it ends.
    Outbound(Arc<Peer>),
    /// A peer's process: readable when it exits, even if a forked child still holds its sockets.
    Process(Arc<Peer>, OwnedFd),
}

impl Watches {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            watched: Mutex::new((FIRST_WATCHED, HashMap::new())),
            stop: AtomicBool::new(false),
            abandoned: agent::Abandoned::default(),
        })
    }

    fn add(&self, watched: Watched) {
        let mut guard = lock(&self.watched);
        let token = guard.0;
        guard.0 += 1;
        let added = match &watched {
            Watched::Inbound { socket, .. } => self.epoll.add(socket.as_fd(), token),
            Watched::Process(_, pidfd) => self.epoll.add(pidfd.as_fd(), token),
            Watched::Outbound(peer) => match &peer.socket {
                Some(socket) => self.epoll.add(socket.as_fd(), token),
                None => return,
            },
        };
        if added.is_ok() {
            guard.1.insert(token, watched);
        }
    }

    /// Watches a peer's process.
    fn add_process(&self, peer: &Arc<Peer>) {
        if peer.pid > 0
            && peer.pid != process::process_id()
            && let Ok(pidfd) = pidfd::pidfd_open(peer.pid)
        {
            self.add(Watched::Process(Arc::clone(peer), pidfd));
        }
    }

    /// Stops watching one thing.
    fn remove(&self, token: u64) -> Option<Watched> {
        let watched = lock(&self.watched).1.remove(&token)?;
        let _ = match &watched {
            Watched::Inbound { socket, .. } => self.epoll.delete(socket.as_fd()),
            Watched::Process(_, pidfd) => self.epoll.delete(pidfd.as_fd()),
            Watched::Outbound(peer) => {
                peer.socket.as_ref().map_or(Ok(()), |socket| self.epoll.delete(socket.as_fd()))
            }
        };
        Some(watched)
    }

    /// Stops watching a peer in every way.
    fn forget(&self, peer: &Arc<Peer>) {
        let is_its = |watched: &Watched| match watched {
            Watched::Inbound { peer: other, .. } => {
                other.as_ref().is_some_and(|other| Arc::ptr_eq(other, peer))
            }
            Watched::Outbound(other) | Watched::Process(other, _) => Arc::ptr_eq(other, peer),
        };
        let tokens: Vec<_> = lock(&self.watched)
            .1
            .iter()
            .filter(|(_, watched)| is_its(watched))
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            self.remove(token);
        }
    }
}

impl Core {
    /// Starts to watch a peer we have just met.
    pub(crate) fn watch_peer(&self, peer: &Arc<Peer>) {
        if peer.socket.is_none() {
            return;
        }
        self.watches.add(Watched::Outbound(Arc::clone(peer)));
        self.watches.add_process(peer);
    }

    /// Makes the service thread end.
    pub(crate) fn stop_service(&self) {
        self.watches.stop.store(true, Ordering::Release);
        self.kick_self();
    }
}

/// Starts the thread. It keeps the context's tables alive until it is told to stop.
pub(crate) fn start(core: &Arc<Core>, listener: Listener) -> std::io::Result<std::thread::JoinHandle<()>> {
    core.watches.epoll.add(listener.0.as_fd(), LISTENER)?;
    core.watches.epoll.add(core.kick.as_fd(), KICK)?;
    let core = Arc::clone(core);
    let own = OwnThread::announce();
    std::thread::Builder::new().name(format!("tbrdma-{:04x}", core.lid)).spawn(move || {
        own.begin();
        if core.wire.as_ref().is_some_and(Wire::has_latency) {
            threads::wake_sharply();
        }
        Service { core, listener: listener.0, dying: Vec::new() }.run();
    })
}

struct Service {
    core: Arc<Core>,
    listener: OwnedFd,
    dying: Vec<Dying>,
}

/// A peer that has ended.
struct Dying {
    peer: Arc<Peer>,
    /// The queue pairs that were connected to it.
    bereaved: Vec<Weak<ShmQp>>,
    /// When what it left behind is to be settled.
    settle: Instant,
}

impl Service {
    fn run(mut self) {
        let mut ready = Vec::new();
        while !self.core.watches.stop.load(Ordering::Acquire) {
            let timeout = self.await_wire(self.timeout());
            if self.core.watches.epoll.wait(&mut ready, timeout).is_err() {
                // Nothing sensible is left to do; the deadlines below must still be kept.
                std::thread::sleep(LOOK_AGAIN);
            }
            for &token in &ready {
                match token {
                    LISTENER => self.accept(),
                    KICK => {
                        let _ = self.core.kick.drain();
                    }
                    token => self.look_at(token),
                }
            }
            self.settle_the_dead();
            self.attend();
            self.core.progress_stalled();
            if let Some(wire) = &self.core.wire {
                wire.flush_if_due();
            }
        }
    }

    /// On a wire, waits the time itself: its deadlines are nanoseconds, and the set knows milliseconds only. What is left to wait.
    fn await_wire(&self, timeout: Option<Duration>) -> Option<Duration> {
        let Some(wire) = &self.core.wire else { return timeout };
        // If it fails, the wait for the set will.
        wire.sleep(timeout, |timeout| drop(wait_one(self.core.watches.epoll.as_fd(), timeout)));
        Some(Duration::ZERO)
    }

    /// Until when nothing has to be done.
    fn timeout(&self) -> Option<Duration> {
        let stalled: Vec<_> = lock(&self.core.stalled_list).iter().filter_map(Weak::upgrade).collect();
        let now = Instant::now();
        let deadlines =
            stalled.iter().map(|qp| qp.deadline().map_or(LOOK_AGAIN, |at| at.saturating_duration_since(now)));
        let funerals = self.dying.iter().map(|dying| dying.settle.saturating_duration_since(now));
        deadlines.chain(funerals).min().map(|wait| wait.min(LOOK_AGAIN))
    }

    fn accept(&self) {
        while let Ok(Some(socket)) = socket::accept(self.listener.as_fd()) {
            let Ok(credentials) = socket::peer_credentials(socket.as_fd()) else { continue };
            if credentials.uid == process::effective_user_id() {
                self.core.watches.add(Watched::Inbound { socket, pid: credentials.pid, peer: None });
            }
        }
    }

    /// A watched descriptor became readable.
    fn look_at(&mut self, token: u64) {
        let mut newcomer = None;
        let mut guard = lock(&self.core.watches.watched);
        let ended = match guard.1.get_mut(&token) {
            None => return,
            Some(Watched::Process(..)) => true,
            // A peer never says anything unasked on these: readable is the end.
            Some(Watched::Outbound(_)) => true,
            Some(Watched::Inbound { socket, pid, peer }) => {
                let stranger = peer.is_none();
                let goes_on = hear(&self.core, socket, *pid, peer);
                if let (true, true, Some(peer)) = (goes_on, stranger, peer) {
                    newcomer = Some(Arc::clone(peer));
                }
                !goes_on
            }
        };
        drop(guard);
        if let Some(newcomer) = newcomer {
            self.core.watches.add_process(&newcomer);
        }
        if !ended {
            return;
        }
        match self.core.watches.remove(token) {
            Some(
                Watched::Outbound(peer)
                | Watched::Process(peer, _)
                | Watched::Inbound { peer: Some(peer), .. },
            ) => {
                self.mourn(peer);
            }
            Some(Watched::Inbound { .. }) | None => {}
        }
    }

    /// A peer has ended: sends to it fail now, the rest is settled after a grace.
    fn mourn(&mut self, peer: Arc<Peer>) {
        self.core.watches.forget(&peer);
        // Taken before sends fail, so that those that fail first raise their event too.
        let bereaved = self.connected_to(&peer);
        if !peer.alive.swap(false, Ordering::AcqRel) {
            return;
        }
        self.core.peers.forget(peer.context, &peer);
        self.bury_claims(peer.theirs);
        let bereaved = bereaved.iter().map(Arc::downgrade).collect();
        self.dying.push(Dying { peer, bereaved, settle: Instant::now() + GRACE });
    }

    /// The working queue pairs that are connected to a peer.
    fn connected_to(&self, peer: &Peer) -> Vec<Arc<ShmQp>> {
        let mut all = self.queue_pairs();
        all.retain(|qp| {
            qp.words().peer_context.load(Ordering::Relaxed) == peer.context
                && matches!(qp.state(), QpState::Rtr | QpState::Rts | QpState::Sqd | QpState::Sqe)
        });
        all
    }

    fn settle_the_dead(&mut self) {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.dying).into_iter().partition(|dying| dying.settle <= now);
        self.dying = later;
        if due.is_empty() {
            return;
        }
        // Before an event says that there will be no more.
        self.look_everywhere();
        for Dying { peer, bereaved, .. } in due {
            // A send of its own may have failed before, and have said so to its poster only.
            for qp in bereaved.iter().filter_map(Weak::upgrade) {
                qp.bereave(peer.context);
            }
            for qp in self.connected_to(&peer) {
                qp.bereave(peer.context);
            }
        }
        self.wake_everyone();
    }

    /// Whoever died between publishing a completion and telling us of it: every completion queue is looked at once.
    fn look_everywhere(&self) -> Vec<Arc<ShmCq>> {
        let queues: Vec<_> = lock(&self.core.cqs).iter().filter_map(Weak::upgrade).collect();
        for cq in &queues {
            for bit in 0..cq.bits_in_use() {
                cq.ready().insert(bit);
            }
        }
        queues
    }

    /// The same, and those that wait for an event get one.
    fn wake_everyone(&self) {
        for cq in self.look_everywhere() {
            cq.signal();
        }
    }

    /// Receives that a dead sender had claimed come back.
    fn bury_claims(&self, dead: Claimer) {
        let shared: Vec<_> = lock(&self.core.srqs).iter().filter_map(Weak::upgrade).collect();
        for srq in shared {
            srq.bury(dead);
        }
        for qp in self.queue_pairs() {
            if let Receives::Shared(own) = &qp.receives
                && own.shared_slot().is_none()
            {
                own.bury(dead);
            }
        }
    }

    fn queue_pairs(&self) -> Vec<Arc<ShmQp>> {
        lock(&self.core.qps).iter().filter_map(Weak::upgrade).collect()
    }

    /// What peers have asked for in our segment's header.
    fn attend(&self) {
        let header = header(&self.core.segment);
        ready_set(&header.attention).drain(|bit| {
            for slot in (bit..QPS).step_by(SLOTS as usize) {
                let qp = lock(&self.core.qps).get(slot).and_then(Weak::upgrade);
                if let Some(qp) = qp {
                    attend_to(&self.core, &qp);
                }
            }
        });
        ready_set(&header.wake).drain(|bit| {
            let queues: Vec<_> = lock(&self.core.cqs).iter().filter_map(Weak::upgrade).collect();
            for cq in queues.iter().filter(|cq| cq.slot % SLOTS == bit) {
                cq.pass_on_event();
            }
        });
    }
}

/// One queue pair to which a peer has drawn attention: a fault it found, or a request to the agent.
fn attend_to(core: &Core, qp: &ShmQp) {
    qp.heed_fault();
    agent::serve(core, qp);
}

/// Hears out somebody who is connected to us. False when the conversation is over.
fn hear(core: &Core, socket: &OwnedFd, pid: i32, peer: &mut Option<Arc<Peer>>) -> bool {
    let mut bytes = [0; MESSAGE_BYTES];
    let (len, fds) = match socket::receive_message(socket.as_fd(), &mut bytes, Some(Duration::ZERO)) {
        Ok(received) => received,
        Err(error) => return error.kind() == ErrorKind::WouldBlock,
    };
    let tell = |kind, argument, reach, fds: &[BorrowedFd<'_>]| {
        let message = introduction(core, kind, Claimer(argument), reach).encode();
        socket::send_message(socket.as_fd(), &message, fds).is_ok()
    };
    let answer = |kind, argument, fds: &[BorrowedFd<'_>]| tell(kind, argument, 0, fds);
    // Another version, or not one of us, gets an answer it can read as a refusal, and no memory.
    let Ok(message) = Message::decode(bytes.get(..len).unwrap_or(&[])) else {
        answer(Kind::Refused, 0, &[]);
        return false;
    };
    match message.kind {
        Kind::Hello if peer.is_none() => match admit_newcomer(core, &message, fds, pid) {
            Ok(newcomer) => {
                let (theirs, reach) = (newcomer.theirs.0, newcomer.told_reach());
                *peer = Some(newcomer);
                tell(Kind::Welcome, theirs, reach, &[core.segment_fd.as_fd(), core.kick.as_fd()])
            }
            Err(_) => {
                answer(Kind::Refused, 0, &[]);
                false
            }
        },
        Kind::Channel => {
            let queue = lock(&core.cqs).get(message.argument).and_then(Weak::upgrade);
            match queue.and_then(|cq| cq.channel().cloned()) {
                Some(channel) => answer(Kind::ChannelIs, message.argument, &[channel.as_fd()]),
                None => answer(Kind::Refused, 0, &[]),
            }
        }
        Kind::Reach => peer.as_ref().is_some_and(|peer| {
            peer.reaches_us.learn(message.reach);
            answer(Kind::Reach, message.argument, &[])
        }),
        Kind::Hello | Kind::Welcome | Kind::ChannelIs | Kind::Refused => false,
    }
}
