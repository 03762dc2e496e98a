//! The side that answers: it takes what arrives, posts receives anew, and looks at every byte.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tbrdma::WorkCompletion;

use super::bytes::Bytes;
use super::side::Side;
use super::workload::{Known, Lane, Outline, is_of};
use crate::clock;
use crate::completions::failure;
use crate::control::{Account, Channel, Go, Message, Phase};
use crate::error::{Context, Error, Result};
use crate::plan::{Op, Transport};
use crate::session::{OpenDevice, Role};
use crate::signals;
use crate::wire::atomic_value;

/// How long an unreliable transport may take to deliver what it has completed.
const SETTLE_TIME: Duration = Duration::from_millis(300);
/// How far ahead a message is looked for when those before it seem lost.
const MOST_LOST_AT_ONCE: usize = 4096;
/// Turns of the loop between two looks for Ctrl-C.
const TURNS_BETWEEN_LOOKS: u32 = 4096;
/// Completions taken at once.
const BATCH: usize = 32;

/// Takes the requests that follow an outline.
///
/// # Errors
/// What comes is something else, or makes no sense.
pub fn requests(outline: &Outline, channel: &mut Channel, timeout: Duration) -> Result<Vec<Known>> {
    outline.validate()?;
    let mut known = Vec::new();
    while (known.len() as u64) < outline.requests {
        let chunk = match channel.receive(timeout)? {
            Message::Requests { requests } => requests,
            other => return Err(channel.unexpected(&other, "`requests`")),
        };
        let fits = known.len() as u64 + chunk.len() as u64 <= outline.requests;
        if chunk.is_empty() || !fits || !chunk.iter().all(|known| is_of(&outline.lanes, known)) {
            return Err(Error::Run(format!("{} sent requests that are not of its outline", channel.peer())));
        }
        known.extend(chunk);
    }
    Ok(known)
}

/// What a lane is to receive, and has.
struct Expected {
    lane: Lane,
    /// Requests of the lane.
    count: u64,
    /// Number, operation and size of what uses up a receive, in order.
    arrivals: Vec<(u64, Op, u32)>,
    /// How many of them are settled.
    next: usize,
    /// Receives posted so far.
    posted: u64,
    /// Receives completed so far.
    completed: u64,
    /// The last write to each buffer.
    writes: BTreeMap<u64, (u64, u32)>,
    atomics: u64,
}

/// The responder of a replay.
pub struct Responder {
    side: Side,
    expected: Vec<Expected>,
    messages: Bytes,
    scratch: Vec<u8>,
    account: Account,
    lost: u64,
}

impl Responder {
    /// Makes what the outline needs, and meets the initiator.
    ///
    /// # Errors
    /// A verbs call failed, or the peer went away.
    pub fn new(open: &OpenDevice, outline: &Outline, known: &[Known], channel: &mut Channel) -> Result<Self> {
        let side = Side::establish(open, outline, Role::Responder, channel)?;
        let longest = |lane: &Lane| lane.stride as usize;
        let most = outline.lanes.iter().map(longest).max().unwrap_or_default();
        let mut responder = Self {
            side,
            expected: outline.lanes.iter().map(Expected::new).collect(),
            messages: Bytes::of_messages(most),
            scratch: vec![0; most],
            account: Account::default(),
            lost: 0,
        };
        for (lane, op, size) in known {
            if let Some(expected) = responder.expected.get_mut(usize::from(*lane)) {
                expected.add(*op, *size);
            }
        }
        let to_read = Bytes::to_read(most);
        for (lane, (expected, track)) in responder.expected.iter().zip(&responder.side.tracks).enumerate() {
            let of = expected.lane;
            for number in 0..2 {
                let at = of.read_at(number) as usize;
                if track.area.write(at, to_read.plain(number, of.stride as usize)) != of.stride as usize {
                    return Err(Error::Run(format!("fill the memory of queue pair {lane}")));
                }
            }
        }
        for lane in 0..responder.expected.len() {
            let count = responder.expected.get(lane).map_or(0, |expected| expected.lane.receives.into());
            responder.post_receives(lane, count)?;
        }
        channel.send(&Message::Ready)?;
        match channel.receive(Duration::from_millis(outline.plan.timeout_ms))? {
            Message::Ready => Ok(responder),
            other => Err(channel.unexpected(&other, "`ready`")),
        }
    }

    fn post_receives(&mut self, lane: usize, count: u64) -> Result<()> {
        let (Some(expected), Some(track)) = (self.expected.get_mut(lane), self.side.tracks.get_mut(lane))
        else {
            return Ok(());
        };
        let of = expected.lane;
        let (first, area) = (expected.posted, &track.area);
        expected.posted += count;
        let posted = track.qp.post_recv(|batch| {
            for number in first..first + count {
                let at = of.receive_at(number) as usize;
                batch
                    .recv(area.slice(at..at + of.stride as usize))
                    .id((lane as u64) << 32 | number & 0xffff_ffff);
            }
        });
        posted.context(|| format!("post {count} receives"))
    }

    /// Takes part until the initiator has posted everything, and checks what is left to check.
    ///
    /// # Errors
    /// A completion failed, the peer went away, or the user interrupted.
    pub fn run(&mut self, channel: &mut Channel) -> Result<(Account, u64)> {
        let mut taken = [WorkCompletion::default(); BATCH];
        let mut over = false;
        let mut quiet: Option<Instant> = None;
        let mut turns = 0_u32;
        loop {
            let count = self.side.completions.poll(&mut taken);
            for wc in taken.iter().take(count) {
                if wc.ok().is_err() {
                    return Err(failure(wc, &self.side.completions));
                }
                self.arrived(wc)?;
            }
            if count > 0 {
                quiet = None;
                continue;
            }
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_BETWEEN_LOOKS) {
                signals::check()?;
            }
            if over {
                let since = *quiet.get_or_insert_with(clock::now);
                let all_there = self.expected.iter().all(|expected| expected.next == expected.arrivals.len());
                if all_there || clock::now().saturating_duration_since(since) >= SETTLE_TIME {
                    break;
                }
                continue;
            }
            match channel.try_receive()? {
                None => {}
                Some(Message::Go(Go { phase: Phase::CheckSlots, .. })) => over = true,
                Some(other) => return Err(channel.unexpected(&other, "`go`")),
            }
        }
        self.settle();
        Ok((std::mem::take(&mut self.account), self.lost))
    }

    /// A message is there.
    fn arrived(&mut self, wc: &WorkCompletion) -> Result<()> {
        let lane = (wc.wr_id >> 32) as usize;
        let Some(expected) = self.expected.get(lane) else { return Ok(()) };
        let (at, from) = (expected.completed, expected.next);
        let ahead = if expected.lane.transport == Transport::Rc { 1 } else { MOST_LOST_AT_ONCE };
        let mut first_reason = None;
        let mut found = None;
        for next in from..expected.arrivals.len().min(from + ahead) {
            match self.check(lane, next, at, wc) {
                Ok(()) => {
                    found = Some(next);
                    break;
                }
                Err(reason) => {
                    first_reason.get_or_insert(reason);
                }
            }
        }
        let is_write = |expected: &Expected, at: usize| {
            expected.arrivals.get(at).is_some_and(|(_, op, _)| *op == Op::WriteImm)
        };
        let Some(expected) = self.expected.get_mut(lane) else { return Ok(()) };
        expected.completed += 1;
        match found {
            Some(next) => {
                self.lost += sends(expected.arrivals.get(from..next).unwrap_or_default());
                expected.next = next + 1;
                if !is_write(expected, next) {
                    self.account.count(Ok(()));
                }
            }
            None => {
                expected.next = (from + 1).min(expected.arrivals.len());
                let reason = first_reason
                    .unwrap_or_else(|| format!("queue pair {lane} received more messages than were posted"));
                self.account.count(Err(reason));
            }
        }
        self.post_receives(lane, 1)
    }

    /// Whether what receive `at` of a lane holds is arrival `next`.
    fn check(&mut self, lane: usize, next: usize, at: u64, wc: &WorkCompletion) -> Result<(), String> {
        let (Some(expected), Some(track)) = (self.expected.get(lane), self.side.tracks.get(lane)) else {
            return Ok(());
        };
        let Some((number, op, size)) = expected.arrivals.get(next).copied() else { return Ok(()) };
        let of = expected.lane;
        let header = if op == Op::WriteImm { 0 } else { of.header() };
        let length = u64::from(size) + header;
        if u64::from(wc.byte_len) != length || (op.has_imm() && wc.imm_data != number as u32) {
            return Err(format!(
                "queue pair {lane}, {op} {number}: {} bytes and immediate {:#x} where {length} bytes and {number:#x} were due",
                wc.byte_len, wc.imm_data
            ));
        }
        if op == Op::WriteImm {
            return Ok(());
        }
        let place = (of.receive_at(at) + of.header()) as usize;
        let Some(got) = self.scratch.get_mut(..size as usize) else { return Ok(()) };
        let read = track.area.read(place, got);
        match self.messages.mismatch_of_stamped(lane, number, got) {
            Some(byte) => Err(format!("queue pair {lane}, {op} {number}: byte {byte} of {size} is wrong")),
            None if read < got.len() => Err(format!("queue pair {lane}: {read} of {size} bytes can be read")),
            None => Ok(()),
        }
    }

    /// Nothing more will come.
    fn settle(&mut self) {
        for lane in 0..self.expected.len() {
            let (Some(expected), Some(track)) = (self.expected.get(lane), self.side.tracks.get(lane)) else {
                continue;
            };
            let of = expected.lane;
            let missing = expected.arrivals.get(expected.next..).unwrap_or_default();
            if of.transport == Transport::Rc {
                for (number, op, _) in missing {
                    self.account.count(Err(format!("queue pair {lane}, {op} {number} never arrived")));
                }
            } else {
                self.lost += sends(missing);
            }
            for (at, (number, size)) in &expected.writes {
                let Some(got) = self.scratch.get_mut(..*size as usize) else { continue };
                track.area.read(*at as usize, got);
                match self.messages.mismatch_of_stamped(lane, *number, got) {
                    None => self.account.count(Ok(())),
                    // It may be the bytes of the one before.
                    Some(_) if of.transport != Transport::Rc => self.lost += 1,
                    Some(byte) => self.account.count(Err(format!(
                        "queue pair {lane}, write {number}: byte {byte} of {size} is wrong in the end"
                    ))),
                }
            }
            if expected.atomics > 0 {
                let (got, want) =
                    (track.area.load_u64(of.word_at() as usize), atomic_value(expected.atomics));
                self.account.count(if got == want {
                    Ok(())
                } else {
                    Err(format!("queue pair {lane}: the atomics left {got:#x} instead of {want:#x}"))
                });
            }
        }
    }
}

/// How many of these arrivals bring their bytes with them; those of writes are looked at in the end.
fn sends(arrivals: &[(u64, Op, u32)]) -> u64 {
    arrivals.iter().filter(|(_, op, _)| *op != Op::WriteImm).count() as u64
}

impl Expected {
    fn new(lane: &Lane) -> Self {
        Self {
            lane: *lane,
            count: 0,
            arrivals: Vec::new(),
            next: 0,
            posted: 0,
            completed: 0,
            writes: BTreeMap::new(),
            atomics: 0,
        }
    }

    fn add(&mut self, op: Op, size: u32) {
        let number = self.count;
        self.count += 1;
        if op.consumes_receive() {
            self.arrivals.push((number, op, size));
        }
        if matches!(op, Op::Write | Op::WriteImm) {
            self.writes.insert(self.lane.write_at(number), (number, size));
        }
        self.atomics += u64::from(op.is_atomic());
    }
}
