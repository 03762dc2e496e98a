//! The bytes: from a local scatter/gather list to a peer's memory and back, whichever way that memory is reached.

use super::agent::{self, Bounce, Job};
use super::core::Core;
use super::peer::{ForeignPath, Peer};
use super::send::Progress;
use crate::mem::{LocalRegion, Place, entry_of, read_from_process, write_bytes_to_process, write_to_process};
use crate::ring::layout::QpWords;
use crate::ring::region::Registration;
use nix::libc;
use std::io;
use tbrdma_proto::{Access, PdHandle, Qpn, Sge};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From us to the peer.
    Put,
    /// From the peer to us.
    Get,
}

impl Direction {
    /// Moves the bytes of two places we can both address.
    #[inline(always)]
    fn copy(self, ours: Place<'_>, theirs: Place<'_>) {
        match self {
            Self::Put => theirs.copy_from(ours),
            Self::Get => ours.copy_from(theirs),
        };
    }
}

/// Our side of a transfer.
#[derive(Clone, Copy)]
pub(crate) enum Local<'a> {
    /// Registered memory.
    List(&'a [Sge]),
    /// Bytes of the work request itself.
    Inline(&'a [u8]),
}

/// A run of the peer's memory as a key names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteSpan {
    pub(crate) key: u32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
}

/// Why a transfer stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Our own list is at fault.
    Local,
    /// The peer's memory refuses.
    Remote,
    /// Not a fault: the peer's agent is at work, come back.
    Later,
}

/// The regions that a send queue has used last, on either side.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) ours: LocalRegion,
    /// Of one peer: a queue pair that is connected anew begins anew.
    pub(crate) theirs: Registration,
}

/// One queue pair's view of one transfer: who, with which rights on either side.
pub(crate) struct Transfer<'a, 'b> {
    pub(crate) seen: &'b mut Seen,
    pub(crate) core: &'a Core,
    pub(crate) words: &'a QpWords,
    pub(crate) peer: &'a Peer,
    /// The queue pair at the peer, for its agent.
    pub(crate) peer_slot: u32,
    /// The same, by whose windows we may go.
    pub(crate) peer_qpn: Qpn,
    pub(crate) local_pd: PdHandle,
    pub(crate) remote_pd: PdHandle,
    /// Rights that the peer's memory must grant.
    pub(crate) needed: Access,
    pub(crate) direction: Direction,
}

/// A piece of the peer's memory, checked.
enum Remote<'a> {
    Here(Place<'a>),
    Process(u64),
    Agent,
}

impl<'a> Transfer<'a, '_> {
    /// Our list's entry, as bytes.
    #[inline(always)]
    fn local(&mut self, sge: &Sge, offset: u64, len: u64) -> Result<Place<'a>, Fault> {
        let needed = if self.direction == Direction::Get { Access::LOCAL_WRITE } else { Access::empty() };
        let addr = sge.addr.wrapping_add(offset);
        self.core
            .regions
            .place(&mut self.seen.ours, self.local_pd, sge.lkey, needed, addr, len)
            .map_err(|_| Fault::Local)
    }

    /// The peer's memory under a key, if the rules allow it.
    #[inline(always)]
    fn remote(&mut self, span: &RemoteSpan, offset: u64, len: u64) -> Result<Remote<'a>, Fault> {
        let addr = span.addr.wrapping_add(offset);
        let entry = entry_of(&self.peer.regions, span.key);
        let found = entry.find(span.key, &mut self.seen.theirs).ok_or(Fault::Remote)?;
        let at = found
            .region
            .check_remote(self.remote_pd, self.peer_qpn, self.needed, addr, len)
            .map_err(|_| Fault::Remote)?;
        match found.backing.in_segment(at, len, found.region.length) {
            // What the peer says of its memory is believed only as far as it lies within its segment.
            Some(offset) => self.peer.segment.place(offset, len).map(Remote::Here).ok_or(Fault::Remote),
            None => {
                let base = found.backing.in_process().ok_or(Fault::Remote)?;
                self.remote_process(span.key, base.wrapping_add(at), addr, len)
            }
        }
    }

    /// Memory of the peer's process that it did not allocate through the library; the rules allow the access.
    #[cold]
    fn remote_process(&self, key: u32, at: u64, addr: u64, len: u64) -> Result<Remote<'a>, Fault> {
        match (self.peer.path(), &self.peer.local) {
            (ForeignPath::Same, Some(local)) => local
                .place_for_peer((self.remote_pd, self.peer_qpn), key, self.needed, addr, len)
                .map(Remote::Here)
                .map_err(|_| Fault::Remote),
            (ForeignPath::ProcessVm, _) if !self.needed.contains(Access::REMOTE_ATOMIC) => {
                Ok(Remote::Process(at))
            }
            _ => Ok(Remote::Agent),
        }
    }

    /// Moves `length` bytes between our list and the peer's spans, of which `only` is one if there are no others. Everything is checked before
    /// anything moves.
    #[inline(always)]
    pub(crate) fn run(
        &mut self,
        local: Local<'_>,
        only: Option<RemoteSpan>,
        spans: impl Iterator<Item = RemoteSpan> + Clone,
        length: u64,
        progress: &mut Progress,
    ) -> Result<(), Fault> {
        if let (Some(span), 0) = (only, progress.moved)
            && self.run_directly(local, &span, length)?
        {
            return Ok(());
        }
        self.run_pieces(local, spans, length, progress)
    }

    /// The common shape: one span, and one entry of ours or inline bytes, without an agent between. False if it is not.
    #[inline(always)]
    fn run_directly(&mut self, local: Local<'_>, span: &RemoteSpan, length: u64) -> Result<bool, Fault> {
        match local {
            Local::List([sge]) => {
                let ours = self.local(sge, 0, length)?;
                let theirs = self.remote(span, 0, length)?;
                match theirs {
                    Remote::Here(theirs) => {
                        self.direction.copy(ours, theirs);
                        Ok(true)
                    }
                    Remote::Process(at) => self.cross(ours, at),
                    Remote::Agent => Ok(false),
                }
            }
            Local::Inline(bytes) => match self.remote(span, 0, length)? {
                Remote::Here(theirs) => {
                    theirs.write_from(bytes);
                    Ok(true)
                }
                Remote::Process(at) => self.crossed(write_bytes_to_process(bytes, self.peer.pid, at)),
                Remote::Agent => Ok(false),
            },
            Local::List(_) => Ok(false),
        }
    }

    /// The general shape: any number of entries on either side, or an agent that copies piece by piece.
    #[cold]
    fn run_pieces(
        &mut self,
        local: Local<'_>,
        spans: impl Iterator<Item = RemoteSpan> + Clone,
        length: u64,
        progress: &mut Progress,
    ) -> Result<(), Fault> {
        if progress.moved == 0 && !progress.asked {
            self.check_all(local, spans.clone(), length)?;
        }
        while progress.moved < length {
            let at = progress.moved;
            let (span, span_offset) = locate(spans.clone(), |span| span.len, at).ok_or(Fault::Remote)?;
            let (entry, entry_len, entry_offset) = match local {
                Local::List(list) => {
                    let (sge, offset) =
                        locate(list.iter(), |sge| u64::from(sge.length), at).ok_or(Fault::Local)?;
                    (Some(sge), u64::from(sge.length), offset)
                }
                Local::Inline(bytes) => (None, bytes.len() as u64, at),
            };
            let piece = (span.len - span_offset).min(entry_len - entry_offset).min(length - at);
            match self.remote(&span, span_offset, piece)? {
                Remote::Here(theirs) => match (entry, local) {
                    (Some(sge), _) => {
                        let ours = self.local(sge, entry_offset, piece)?;
                        self.direction.copy(ours, theirs);
                    }
                    (None, Local::Inline(bytes)) => {
                        theirs.write_from(part(bytes, at, piece));
                    }
                    (None, Local::List(_)) => return Err(Fault::Local),
                },
                Remote::Process(address) => {
                    let crossed = match (entry, local) {
                        (Some(sge), _) => {
                            let ours = self.local(sge, entry_offset, piece)?;
                            self.cross(ours, address)?
                        }
                        (None, Local::Inline(bytes)) => self.crossed(write_bytes_to_process(
                            part(bytes, at, piece),
                            self.peer.pid,
                            address,
                        ))?,
                        (None, Local::List(_)) => return Err(Fault::Local),
                    };
                    if !crossed {
                        // The same piece again, by the agent.
                        continue;
                    }
                }
                Remote::Agent => {
                    let piece = piece.min(agent::BOUNCE_BYTES);
                    let addr = span.addr.wrapping_add(span_offset);
                    let bounce =
                        agent::bounce(self.core, self.peer, self.words, progress).ok_or(Fault::Local)?;
                    if !progress.asked {
                        if self.direction == Direction::Put {
                            match (entry, local) {
                                (Some(sge), _) => {
                                    bounce.copy_from(self.local(sge, entry_offset, piece)?);
                                }
                                (None, Local::Inline(bytes)) => {
                                    bounce.write_from(part(bytes, at, piece));
                                }
                                (None, Local::List(_)) => return Err(Fault::Local),
                            }
                        }
                        let job = match self.direction {
                            Direction::Put => Job::Put,
                            Direction::Get => Job::Get,
                        };
                        self.ask(job, span.key, addr, piece, progress, 0, 0)?;
                    }
                    self.answered(progress)?;
                    if let (Direction::Get, Some(sge)) = (self.direction, entry) {
                        let ours = self.local(sge, entry_offset, piece)?;
                        ours.copy_from(bounce);
                    }
                    progress.moved += piece;
                    continue;
                }
            }
            progress.moved += piece;
        }
        Ok(())
    }

    /// Every piece of either side, before the first byte moves.
    fn check_all(
        &mut self,
        local: Local<'_>,
        spans: impl Iterator<Item = RemoteSpan>,
        length: u64,
    ) -> Result<(), Fault> {
        if let Local::List(list) = local {
            for sge in list {
                self.local(sge, 0, u64::from(sge.length))?;
            }
        }
        let mut left = length;
        for span in spans {
            let len = span.len.min(left);
            if len > 0 || length == 0 {
                self.remote(&span, 0, len)?;
            }
            left -= len;
        }
        if left == 0 { Ok(()) } else { Err(Fault::Remote) }
    }

    /// Is there anything among the peer's spans that only its agent may copy, and nothing that the rules forbid?
    #[cold]
    pub(crate) fn needs_agent(&mut self, mut spans: impl Iterator<Item = RemoteSpan> + Clone) -> bool {
        spans.clone().all(|span| self.remote(&span, 0, span.len).is_ok())
            && spans.any(|span| matches!(self.remote(&span, 0, span.len), Ok(Remote::Agent)))
    }

    /// Gathers a message behind its header at one place.
    #[cold]
    pub(crate) fn land(&mut self, header: &[u8], local: Local<'_>, place: Place<'_>) -> Result<(), Fault> {
        let mut at = place.write_from(header);
        match local {
            Local::Inline(bytes) => {
                place.sub(at, bytes.len()).ok_or(Fault::Local)?.write_from(bytes);
            }
            Local::List(list) => {
                for sge in list {
                    let len = sge.length as usize;
                    let ours = self.local(sge, 0, u64::from(sge.length))?;
                    place.sub(at, len).ok_or(Fault::Local)?.copy_from(ours);
                    at += len;
                }
            }
        }
        Ok(())
    }

    /// An 8-byte atomic on the peer's memory; the old value.
    pub(crate) fn atomic(
        &mut self,
        span: &RemoteSpan,
        job: Job,
        compare_add: u64,
        swap: u64,
        progress: &mut Progress,
    ) -> Result<u64, Fault> {
        if let Remote::Here(place) = self.remote(span, 0, span.len)? {
            return agent::atomic(place, job, compare_add, swap).ok_or(Fault::Remote);
        }
        // Another process' own memory: only that process can make the access one indivisible step.
        if !progress.asked {
            // No bytes are staged; it stands for the request, which must be withdrawn if we give up.
            agent::bounce(self.core, self.peer, self.words, progress).ok_or(Fault::Local)?;
            self.ask(job, span.key, span.addr, span.len, progress, compare_add, swap)?;
        }
        self.answered(progress)
    }

    /// Has the peer take one of its keys out of use: its own tables say whether it may.
    pub(crate) fn invalidate(&self, key: u32, progress: &mut Progress) -> Result<(), Fault> {
        if !progress.asked {
            // As for an atomic: nothing is staged.
            agent::bounce(self.core, self.peer, self.words, progress).ok_or(Fault::Local)?;
            self.ask(Job::Invalidate, key, 0, 0, progress, 0, 0)?;
        }
        self.answered(progress).map(drop)
    }

    /// Puts the old value of an atomic where the work request wants it.
    pub(crate) fn store_old(&mut self, list: &[Sge], old: u64) -> Result<(), Fault> {
        let sge = list.first().ok_or(Fault::Local)?;
        self.local(sge, 0, 8)?.write_from(&old.to_ne_bytes());
        Ok(())
    }

    /// Is the local list of an atomic fit for its result?
    pub(crate) fn check_result(&mut self, list: &[Sge]) -> Result<(), Fault> {
        let sge = list.first().ok_or(Fault::Local)?;
        self.local(sge, 0, 8).map(drop)
    }

    fn ask(
        &self,
        job: Job,
        key: u32,
        addr: u64,
        len: u64,
        progress: &mut Progress,
        operand: u64,
        swap: u64,
    ) -> Result<(), Fault> {
        let request = agent::Request {
            job,
            pd: self.remote_pd,
            needed: self.needed,
            key,
            addr,
            len: len as u32,
            bounce: progress.bounce.as_ref().map_or(0, Bounce::offset),
            compare_add: operand,
            swap,
        };
        // While the agent is still at an abandoned request this one waits its turn.
        progress.number = request.send(self.words).ok_or(Fault::Later)?;
        progress.asked = true;
        agent::ring(self.peer, self.peer_slot);
        Ok(())
    }

    fn answered(&self, progress: &mut Progress) -> Result<u64, Fault> {
        let outcome = agent::answer(self.words, progress.number).ok_or(Fault::Later)?;
        progress.asked = false;
        outcome.ok_or(Fault::Remote)
    }

    /// Copies straight to or from the peer's process. False if the kernel does not let us: then its agent copies from now on.
    fn cross(&self, ours: Place<'_>, theirs: u64) -> Result<bool, Fault> {
        self.crossed(match self.direction {
            Direction::Put => write_to_process(ours, self.peer.pid, theirs),
            Direction::Get => read_from_process(ours, self.peer.pid, theirs),
        })
    }

    fn crossed(&self, result: io::Result<()>) -> Result<bool, Fault> {
        match result {
            Ok(()) => Ok(true),
            // The region table allowed it: the owner has unmapped what it registered.
            Err(error)
                if error.raw_os_error() == Some(libc::EFAULT) || error.kind() == io::ErrorKind::WriteZero =>
            {
                Err(Fault::Remote)
            }
            // Forbidden meanwhile; or the process has just ended, and whoever waits for its agent will hear of that in a moment.
            Err(_) => {
                self.peer.use_agent();
                Ok(false)
            }
        }
    }
}

/// The item that holds byte `at` of a list of runs, and where in it.
fn locate<T>(items: impl Iterator<Item = T>, len: impl Fn(&T) -> u64, at: u64) -> Option<(T, u64)> {
    let mut begin = 0;
    for item in items {
        let end = begin + len(&item);
        if at < end {
            return Some((item, at - begin));
        }
        begin = end;
    }
    None
}

fn part(bytes: &[u8], at: u64, len: u64) -> &[u8] {
    bytes.get(at as usize..(at + len) as usize).unwrap_or(&[])
}
