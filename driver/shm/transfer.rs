//! The bytes: from a local scatter/gather list to a peer's memory and back, whichever way that memory is reached.

use super::agent::{self, Answer, Job};
use super::core::Core;
use super::peer::{ForeignPath, Peer};
use super::send::Progress;
use crate::mem::{Place, read_from_process, write_bytes_to_process, write_to_process};
use crate::ring::layout::{QpWords, region_at};
use crate::ring::region::{Backing, RegionEntry};
use tbrdma_proto::{Access, PdHandle, RegionError, RegionTable, Sge};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From us to the peer.
    Put,
    /// From the peer to us.
    Get,
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
    /// The peer's process is gone.
    Gone,
    /// Not a fault: the peer's agent is at work, come back.
    Later,
}

/// One queue pair's view of one transfer: who, with which rights on either side.
pub(crate) struct Transfer<'a> {
    pub(crate) core: &'a Core,
    pub(crate) words: &'a QpWords,
    pub(crate) peer: &'a Peer,
    /// The queue pair at the peer, for its agent.
    pub(crate) peer_slot: u32,
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

impl Transfer<'_> {
    /// Our list's entry, as bytes.
    #[inline]
    fn local(&self, sge: &Sge, offset: u64, len: u64) -> Result<Place<'_>, Fault> {
        let needed = if self.direction == Direction::Get { Access::LOCAL_WRITE } else { Access::empty() };
        self.core
            .regions
            .place(self.local_pd, sge.lkey, needed, sge.addr.wrapping_add(offset), len)
            .map_err(|_| Fault::Local)
    }

    /// The peer's memory under a key, if the rules allow it.
    #[inline]
    fn remote(&self, span: &RemoteSpan, offset: u64, len: u64) -> Result<Remote<'_>, Fault> {
        remote_place(self.peer, self.remote_pd, self.needed, span.key, span.addr.wrapping_add(offset), len)
            .map_err(|_| Fault::Remote)
    }

    /// Moves `length` bytes between our list and the peer's spans. Everything is checked before anything moves.
    #[inline]
    pub(crate) fn run(
        &self,
        local: Local<'_>,
        spans: impl Iterator<Item = RemoteSpan> + Clone,
        length: u64,
        progress: &mut Progress,
    ) -> Result<(), Fault> {
        let mut first = spans.clone();
        if let (Some(span), None, 0) = (first.next(), first.next(), progress.moved) {
            // The common shape: one span, and one entry of ours or inline bytes.
            match local {
                Local::List([sge]) => {
                    let ours = self.local(sge, 0, length)?;
                    match self.remote(&span, 0, length)? {
                        Remote::Here(theirs) => {
                            match self.direction {
                                Direction::Put => theirs.copy_from(ours),
                                Direction::Get => ours.copy_from(theirs),
                            };
                            return Ok(());
                        }
                        Remote::Process(at) => return self.cross(ours, at),
                        Remote::Agent => {}
                    }
                }
                Local::Inline(bytes) => match self.remote(&span, 0, length)? {
                    Remote::Here(theirs) => {
                        theirs.write_from(bytes);
                        return Ok(());
                    }
                    Remote::Process(at) => {
                        return write_bytes_to_process(bytes, self.peer.pid, at).map_err(|_| self.crossing_failed());
                    }
                    Remote::Agent => {}
                },
                Local::List(_) => {}
            }
        }
        self.run_pieces(local, spans, length, progress)
    }

    /// The general shape: any number of entries on either side, or an agent that copies piece by piece.
    fn run_pieces(
        &self,
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
                    let (sge, offset) = locate(list.iter(), |sge| u64::from(sge.length), at).ok_or(Fault::Local)?;
                    (Some(sge), u64::from(sge.length), offset)
                }
                Local::Inline(bytes) => (None, bytes.len() as u64, at),
            };
            let piece = (span.len - span_offset).min(entry_len - entry_offset).min(length - at);
            match self.remote(&span, span_offset, piece)? {
                Remote::Here(theirs) => match (entry, local) {
                    (Some(sge), _) => {
                        let ours = self.local(sge, entry_offset, piece)?;
                        match self.direction {
                            Direction::Put => theirs.copy_from(ours),
                            Direction::Get => ours.copy_from(theirs),
                        };
                    }
                    (None, Local::Inline(bytes)) => {
                        theirs.write_from(part(bytes, at, piece));
                    }
                    (None, Local::List(_)) => return Err(Fault::Local),
                },
                Remote::Process(address) => match (entry, local) {
                    (Some(sge), _) => self.cross(self.local(sge, entry_offset, piece)?, address)?,
                    (None, Local::Inline(bytes)) => {
                        write_bytes_to_process(part(bytes, at, piece), self.peer.pid, address)
                            .map_err(|_| self.crossing_failed())?;
                    }
                    (None, Local::List(_)) => return Err(Fault::Local),
                },
                Remote::Agent => {
                    let piece = piece.min(agent::BOUNCE_BYTES);
                    let addr = span.addr.wrapping_add(span_offset);
                    let bounce = agent::bounce(self.core, progress).ok_or(Fault::Local)?;
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
                        self.ask(job, span.key, addr, piece, progress, 0, 0);
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
        &self,
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

    /// An 8-byte atomic on the peer's memory; the old value.
    pub(crate) fn atomic(
        &self,
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
            self.ask(job, span.key, span.addr, span.len, progress, compare_add, swap);
        }
        self.answered(progress)
    }

    /// Puts the old value of an atomic where the work request wants it.
    pub(crate) fn store_old(&self, list: &[Sge], old: u64) -> Result<(), Fault> {
        let sge = list.first().ok_or(Fault::Local)?;
        self.local(sge, 0, 8)?.write_from(&old.to_ne_bytes());
        Ok(())
    }

    /// Is the local list of an atomic fit for its result?
    pub(crate) fn check_result(&self, list: &[Sge]) -> Result<(), Fault> {
        let sge = list.first().ok_or(Fault::Local)?;
        self.local(sge, 0, 8).map(drop)
    }

    fn ask(&self, job: Job, key: u32, addr: u64, len: u64, progress: &mut Progress, operand: u64, swap: u64) {
        let request = agent::Request {
            job,
            pd: self.remote_pd,
            needed: self.needed,
            key,
            addr,
            len: len as u32,
            bounce: progress.bounce.unwrap_or(0),
            compare_add: operand,
            swap,
        };
        progress.number = request.send(self.words);
        progress.asked = true;
        agent::ring(self.peer, self.peer_slot);
    }

    fn answered(&self, progress: &mut Progress) -> Result<u64, Fault> {
        let answer = Answer::read(self.words, progress.number).ok_or(Fault::Later)?;
        progress.asked = false;
        answer.ok().ok_or(Fault::Remote)
    }

    fn cross(&self, ours: Place<'_>, theirs: u64) -> Result<(), Fault> {
        match self.direction {
            Direction::Put => write_to_process(ours, self.peer.pid, theirs),
            Direction::Get => read_from_process(ours, self.peer.pid, theirs),
        }
        .map_err(|_| self.crossing_failed())
    }

    /// The kernel refused a copy that the region table allowed: the process is gone, or has unmapped what it registered.
    fn crossing_failed(&self) -> Fault {
        if self.peer.is_alive() { Fault::Remote } else { Fault::Gone }
    }
}

/// The peer's memory under a key, if proto's rules allow the access.
#[inline]
fn remote_place(
    peer: &Peer,
    pd: PdHandle,
    needed: Access,
    key: u32,
    addr: u64,
    len: u64,
) -> Result<Remote<'_>, RegionError> {
    let missing = RegionError::KeyMismatch { key };
    let index = RegionTable::<()>::key_index(key) as u32;
    let entry: &RegionEntry = peer.segment.get(region_at(index)).ok_or(missing)?;
    let (region, backing) = entry.read(key).ok_or(missing)?;
    let offset = region.check(pd, needed, addr, len)?;
    match backing {
        Backing::Segment(base) => {
            peer.segment.place(base.wrapping_add(offset), len).map(Remote::Here).ok_or(missing)
        }
        Backing::Process(base) => match (peer.path, &peer.local) {
            (ForeignPath::Same, Some(local)) => local.place(pd, key, needed, addr, len).map(Remote::Here),
            (ForeignPath::ProcessVm, _) if !needed.contains(Access::REMOTE_ATOMIC) => {
                Ok(Remote::Process(base.wrapping_add(offset)))
            }
            _ => Ok(Remote::Agent),
        },
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
