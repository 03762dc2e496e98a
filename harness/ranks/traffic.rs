//! Messages between many ranks at once, for `incast` and `mesh`.
//!
//! Each sender keeps so many messages under way to each receiver; nobody waits for a word before sending. Rank 0 says when what happens begins to be measured
//! and when it ends: an empty message to every rank on its queue pair, behind the data there. So all ranks are at work in the whole of the measured time, and a
//! share of it that one sender has got is not made up for after the others have finished.
//!
//! Checking every byte of a stream while it is measured would measure the check. So the length and the order of every message are checked as it comes; when the
//! stream is over, what every buffer holds (each message carries its number); and then, unmeasured, further messages whose bytes are all different.

use std::time::Duration;

use tbrdma::{Access, WorkCompletion};

use super::group::Group;
use super::node::{Desk, Node, Room, connect};
use super::plan::{Plan, SPARE, stride};
use super::told::{Received, Sent, Told};
use crate::cli::Extent;
use crate::clock::{self, Clock, Stamp};
use crate::control::Account;
use crate::error::{Context, Result};
use crate::histogram::{Latencies, Measures};
use crate::memory::Area;
use crate::pattern::{PING, Pattern};
use crate::plan::{Benchmark, Memory};
use crate::progress::Progress;

/// Completions taken at once.
const BATCH: usize = 64;
/// How long the warm-up lasts when the user gives no number.
const WARMUP_TIME: Duration = Duration::from_millis(100);
/// Messages of each sender to each receiver that are checked in full after the stream, if they are not too many bytes.
const VERIFY_MESSAGES: u64 = 128;
const VERIFY_BYTES: u64 = 8 << 20;

/// What a message is, in the two highest bits of its immediate data; the rest is the number of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data = 0,
    Start = 1,
    Stop = 2,
    Last = 3,
}

const NUMBER: u32 = (1 << 30) - 1;

impl Kind {
    fn imm(self, number: u64) -> u32 {
        (self as u32) << 30 | number as u32 & NUMBER
    }

    fn of(imm: u32) -> Self {
        match imm >> 30 {
            0 => Self::Data,
            1 => Self::Start,
            2 => Self::Stop,
            _ => Self::Last,
        }
    }
}

/// In the identifier of a work request: a receive, or a word and no message. The low half is the slot, the rank stands above.
const RECEIVE: u64 = 1 << 63;
const WORD: u64 = 1 << 62;

/// Messages from this rank to another.
struct Outgoing {
    pattern: Pattern,
    /// Where its slots are in the region.
    at: usize,
    /// When the message in each slot was posted.
    posted: Vec<Stamp>,
    next: u64,
    completed: u64,
    /// Messages it may still post.
    left: u64,
    /// Those with smaller numbers were posted before anything was measured.
    measured_from: u64,
    said_last: bool,
    latencies: Latencies,
}

/// Messages from another rank to this one.
struct Incoming {
    pattern: Pattern,
    at: usize,
    /// The number of the message which each slot got last.
    held: Vec<Option<u64>>,
    taken: u64,
    /// How many had come when the measured time began, and when it ended.
    window: [u64; 2],
    heard_last: bool,
    account: Account,
}

struct Lane {
    pair: Option<tbrdma::QueuePair>,
    out: Option<Outgoing>,
    inn: Option<Incoming>,
}

/// Where a rank is in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Warming,
    Measuring(Stamp),
    Over,
}

/// One rank in the middle of all.
struct Hub<'g> {
    rank: usize,
    desk: Desk,
    outgoing: Area,
    incoming: Area,
    lanes: Vec<Lane>,
    size: usize,
    stride: usize,
    depth: u64,
    clock: Clock,
    stage: Stage,
    measured: Duration,
    /// Words under way.
    words: u64,
    checking: bool,
    scratch: Vec<u8>,
    progress: &'g Progress,
}

/// Whether messages go from one rank to another.
fn goes(benchmark: Benchmark, from: usize, to: usize) -> bool {
    from != to && (benchmark == Benchmark::Mesh || to == 0)
}

/// One rank's part in messages of `size` bytes.
///
/// # Errors
/// A verbs call or a completion failed, a rank went away, or the user interrupted.
pub fn take_part(
    group: &mut Group,
    node: &Node,
    plan: &Plan,
    size: u64,
    crowded: bool,
    progress: &Progress,
) -> Result<Told> {
    progress.stage("connecting");
    let mut hub = Hub::new(group, node, plan, size, crowded, progress)?;
    progress.stage("measuring");
    hub.stream(plan)?;
    progress.stage("checking");
    let mut told = Told { nanoseconds: hub.measured.as_nanos() as u64, ..Told::default() };
    for lane in &mut hub.lanes {
        told.warmup += lane.inn.as_ref().map_or(0, |inn| inn.window[0]);
    }
    hub.check_slots();
    group.barrier()?;
    hub.verify(size)?;
    for (rank, lane) in hub.lanes.iter_mut().enumerate() {
        if let Some(out) = &lane.out {
            told.sent.push(Sent { to: rank, distribution: out.latencies.distribution() });
        }
        if let Some(inn) = &mut lane.inn {
            let [first, last] = inn.window;
            let (messages, account) = (last.saturating_sub(first), std::mem::take(&mut inn.account));
            told.received.push(Received { from: rank, messages, taken: inn.taken, account });
        }
    }
    // A queue pair that is gone before its last message was acknowledged leaves the sender to wonder.
    group.barrier()?;
    Ok(told)
}

/// Messages of each sender that each receiver checks in full.
#[must_use]
pub fn checked_singly(size: u64) -> u64 {
    VERIFY_MESSAGES.min(VERIFY_BYTES / size.max(1)).max(4)
}

impl<'g> Hub<'g> {
    fn new(
        group: &mut Group,
        node: &Node,
        plan: &Plan,
        size: u64,
        crowded: bool,
        progress: &'g Progress,
    ) -> Result<Self> {
        let (rank, ranks) = (group.rank(), group.size());
        let (depth, receives, stride) = (plan.depth as usize, plan.receives as usize, stride(size) as usize);
        let (mut sending, mut receiving) = (0, 0);
        let mut lanes = Vec::new();
        let mut rooms = Vec::new();
        let mut entries = 0;
        for other in 0..ranks {
            let pattern = |from: usize, to: usize| {
                Pattern::new(PING.wrapping_add((from * ranks + to) as u64), size as usize, depth)
            };
            let mut lane = Lane { pair: None, out: None, inn: None };
            if goes(plan.benchmark, rank, other) {
                lane.out = Some(Outgoing {
                    pattern: pattern(rank, other),
                    at: sending * depth * stride,
                    posted: Vec::new(),
                    next: 0,
                    completed: 0,
                    left: u64::MAX,
                    measured_from: u64::MAX,
                    said_last: false,
                    latencies: Latencies::new(Measures::WholeOperation)?,
                });
                sending += 1;
            }
            if goes(plan.benchmark, other, rank) {
                lane.inn = Some(Incoming {
                    pattern: pattern(other, rank),
                    at: receiving * receives * stride,
                    held: vec![None; receives],
                    taken: 0,
                    window: [0; 2],
                    heard_last: false,
                    account: Account::default(),
                });
                receiving += 1;
            }
            let joined = lane.out.is_some() || lane.inn.is_some();
            let room = joined.then_some(Room {
                sends: plan.depth + SPARE,
                receives: if lane.inn.is_some() { plan.receives } else { SPARE },
            });
            entries += room.map_or(0, |room| room.sends + room.receives);
            lanes.push(lane);
            rooms.push(room);
        }
        let desk = Desk::new(node, group, entries.max(1), crowded)?;
        let region = |count: usize| {
            let bytes = (count * stride).max(stride);
            Area::new(&desk.pd, Memory::Library, bytes, Access::LOCAL_WRITE)
                .context(|| format!("register {bytes} bytes"))
        };
        let (outgoing, incoming) = (region(sending * depth)?, region(receiving * receives)?);
        let pairs = connect(group, &desk, &rooms, |other, pair| {
            let id = RECEIVE | (other as u64) << 32;
            let posted = pair.post_recv(|batch| match lanes.get(other).and_then(|lane| lane.inn.as_ref()) {
                Some(inn) => {
                    for slot in 0..receives {
                        let start = inn.at + slot * stride;
                        batch.recv(incoming.slice(start..start + size as usize)).id(id | slot as u64);
                    }
                }
                None => {
                    for _ in 0..SPARE {
                        batch.recv_nothing().id(id);
                    }
                }
            });
            posted.context(|| format!("post receives for rank {other}"))
        })?;
        for (lane, pair) in lanes.iter_mut().zip(pairs) {
            lane.pair = pair;
        }
        let clock = clock::chosen();
        let hub = Self {
            rank,
            desk,
            outgoing,
            incoming,
            lanes,
            size: size as usize,
            stride,
            depth: depth as u64,
            clock,
            stage: Stage::Warming,
            measured: Duration::ZERO,
            words: 0,
            checking: false,
            scratch: vec![0; size as usize],
            progress,
        };
        Ok(hub)
    }

    /// Messages until rank 0 says that it is over.
    fn stream(&mut self, plan: &Plan) -> Result<()> {
        let size = self.size;
        let mut scratch = vec![0; size];
        for lane in &mut self.lanes {
            let Some(out) = &mut lane.out else { continue };
            out.posted = vec![self.clock.now(); self.depth as usize];
            for slot in 0..self.depth {
                out.pattern.fill(slot, &mut scratch);
                self.outgoing.write(out.at + slot as usize * self.stride, &scratch);
            }
        }
        let begun = self.clock.now();
        let mut taken = [WorkCompletion::default(); BATCH];
        while !self.is_done() {
            if self.rank == 0 {
                self.conduct(plan, begun)?;
            }
            self.push()?;
            self.look(&mut taken)?;
        }
        Ok(())
    }

    /// Further messages, each with bytes of its own, all of them checked.
    fn verify(&mut self, size: u64) -> Result<()> {
        self.checking = true;
        for lane in &mut self.lanes {
            if let Some(out) = &mut lane.out {
                (out.left, out.said_last, out.measured_from) = (checked_singly(size), false, u64::MAX);
            }
            if let Some(inn) = &mut lane.inn {
                inn.heard_last = false;
            }
        }
        let mut taken = [WorkCompletion::default(); BATCH];
        while !self.is_done() {
            self.push()?;
            self.look(&mut taken)?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let lane_is_done = |lane: &Lane| {
            lane.out.as_ref().is_none_or(|out| out.said_last && out.completed == out.next)
                && lane.inn.as_ref().is_none_or(|inn| inn.heard_last)
        };
        self.stage == Stage::Over && self.words == 0 && self.lanes.iter().all(lane_is_done)
    }

    fn taken(&self) -> u64 {
        self.lanes.iter().filter_map(|lane| Some(lane.inn.as_ref()?.taken)).sum()
    }

    /// Rank 0 has the baton: says when measuring begins, and when it ends.
    fn conduct(&mut self, plan: &Plan, begun: Stamp) -> Result<()> {
        let so_far = |since: Stamp| self.clock.between(since, self.clock.now());
        match self.stage {
            Stage::Warming => {
                let warm = match plan.warmup {
                    Some(messages) => self.taken() >= messages,
                    None => so_far(begun) >= WARMUP_TIME,
                };
                if warm { self.say_to_all(Kind::Start) } else { Ok(()) }
            }
            Stage::Measuring(since) => {
                let share = match plan.extent() {
                    Extent::Messages(messages) => {
                        let before: u64 =
                            self.lanes.iter().filter_map(|lane| Some(lane.inn.as_ref()?.window[0])).sum();
                        (self.taken() - before) as f64 / messages as f64
                    }
                    Extent::Time(time) => so_far(since).as_secs_f64() / time.as_secs_f64(),
                };
                self.progress.done(share);
                if share >= 1.0 { self.say_to_all(Kind::Stop) } else { Ok(()) }
            }
            Stage::Over => Ok(()),
        }
    }

    fn say_to_all(&mut self, kind: Kind) -> Result<()> {
        for rank in 0..self.lanes.len() {
            self.say(rank, kind)?;
        }
        self.hear(kind);
        Ok(())
    }

    fn say(&mut self, rank: usize, kind: Kind) -> Result<()> {
        let Some(pair) = self.lanes.get_mut(rank).and_then(|lane| lane.pair.as_mut()) else { return Ok(()) };
        let posted = pair.post(|batch| {
            let word = batch.send_inline_with_imm(&[], kind.imm(0));
            word.id(WORD | (rank as u64) << 32).signaled();
        });
        self.words += 1;
        posted.context(|| format!("post a word to rank {rank}"))
    }

    /// What rank 0 has said, on all ranks.
    fn hear(&mut self, kind: Kind) {
        let now = self.clock.now();
        let (from, window) = match (kind, self.stage) {
            (Kind::Start, _) => {
                self.stage = Stage::Measuring(now);
                (true, 0)
            }
            (_, Stage::Measuring(since)) => {
                self.measured = self.clock.between(since, now);
                self.stage = Stage::Over;
                (false, 1)
            }
            _ => return,
        };
        for lane in &mut self.lanes {
            if let Some(out) = &mut lane.out {
                (out.measured_from, out.left) = if from { (out.next, out.left) } else { (u64::MAX, 0) };
            }
            if let Some(inn) = &mut lane.inn {
                inn.window[window] = inn.taken;
            }
        }
    }

    /// Posts as many messages to each rank as there is room for, with one doorbell a rank.
    fn push(&mut self) -> Result<()> {
        for rank in 0..self.lanes.len() {
            let Some(Lane { pair: Some(pair), out: Some(out), .. }) = self.lanes.get_mut(rank) else {
                continue;
            };
            let count = (self.depth - (out.next - out.completed)).min(out.left);
            if count > 0 {
                let now = self.clock.now();
                let (first, id) = (out.next, (rank as u64) << 32);
                let (outgoing, depth, stride, size) = (&self.outgoing, self.depth, self.stride, self.size);
                let (sends, _) = pair.halves();
                let mut batch = sends.start();
                for sequence in first..first + count {
                    let slot = sequence % depth;
                    let start = out.at + slot as usize * stride;
                    if self.checking {
                        out.pattern.fill(sequence, &mut self.scratch);
                        outgoing.write(start, &self.scratch);
                    } else if size >= 8 {
                        outgoing.store_u64(start, sequence);
                    }
                    if let Some(posted) = out.posted.get_mut(slot as usize) {
                        *posted = now;
                    }
                    let message = outgoing.slice(start..start + size);
                    batch.send_with_imm(message, Kind::Data.imm(sequence)).id(id | slot);
                }
                out.next += count;
                out.left -= count;
                sends.complete().context(|| format!("post messages to rank {rank}"))?;
            }
            if self.stage == Stage::Over && out.left == 0 && !out.said_last && out.completed == out.next {
                out.said_last = true;
                self.say(rank, Kind::Last)?;
            }
        }
        Ok(())
    }

    /// Takes what has completed.
    fn look(&mut self, taken: &mut [WorkCompletion; BATCH]) -> Result<()> {
        let count = self.desk.poll(taken)?.len();
        if count == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        for wc in taken.iter().take(count) {
            let (rank, slot) = ((wc.wr_id >> 32 & 0xffff) as usize, (wc.wr_id & 0xffff_ffff) as usize);
            if wc.wr_id & RECEIVE != 0 {
                self.arrived(rank, slot, wc)?;
            } else if wc.wr_id & WORD != 0 {
                self.words -= 1;
            } else if let Some(out) = self.lanes.get_mut(rank).and_then(|lane| lane.out.as_mut()) {
                if out.completed >= out.measured_from
                    && let Some(posted) = out.posted.get(slot)
                {
                    out.latencies.record(self.clock.between(*posted, now));
                }
                out.completed += 1;
            }
        }
        Ok(())
    }

    fn arrived(&mut self, rank: usize, slot: usize, wc: &WorkCompletion) -> Result<()> {
        match Kind::of(wc.imm_data) {
            Kind::Data => {
                if let Some(inn) = self.lanes.get_mut(rank).and_then(|lane| lane.inn.as_mut()) {
                    let number = inn.taken;
                    inn.taken += 1;
                    if let Some(held) = inn.held.get_mut(slot) {
                        *held = Some(number);
                    }
                    let in_order = wc.imm_data == Kind::Data.imm(number);
                    let mut found = if in_order && wc.byte_len as usize == self.size {
                        Ok(())
                    } else {
                        Err(format!(
                            "message {number} of rank {rank} came as number {} with {} of {} bytes",
                            wc.imm_data & NUMBER,
                            wc.byte_len,
                            self.size
                        ))
                    };
                    if self.checking {
                        let start = inn.at + slot * self.stride;
                        self.incoming.read(start, &mut self.scratch);
                        if let (Ok(()), Some(at)) = (&found, inn.pattern.mismatch(number, &self.scratch)) {
                            found = Err(format!(
                                "message {number} of rank {rank}: byte {at} is not what was sent"
                            ));
                        }
                        inn.account.count(found);
                    } else if let Err(error) = found {
                        inn.account.errors += 1;
                        inn.account.first_error.get_or_insert(error);
                    }
                }
            }
            Kind::Last => {
                if let Some(inn) = self.lanes.get_mut(rank).and_then(|lane| lane.inn.as_mut()) {
                    inn.heard_last = true;
                }
            }
            kind => self.hear(kind),
        }
        self.repost(rank, slot)
    }

    /// The receive that has been used is there again.
    fn repost(&mut self, rank: usize, slot: usize) -> Result<()> {
        let (incoming, stride, size) = (&self.incoming, self.stride, self.size);
        let Some(Lane { pair: Some(pair), inn, .. }) = self.lanes.get_mut(rank) else { return Ok(()) };
        let id = RECEIVE | (rank as u64) << 32 | slot as u64;
        let posted = pair.post_recv(|batch| {
            match inn {
                Some(inn) => {
                    let start = inn.at + slot * stride;
                    batch.recv(incoming.slice(start..start + size)).id(id)
                }
                None => batch.recv_nothing().id(id),
            };
        });
        posted.context(|| format!("post a receive for rank {rank}"))
    }

    /// What the stream has left in each buffer: the last message that it got, with its number.
    fn check_slots(&mut self) {
        let mut want = vec![0; self.size];
        for (rank, lane) in self.lanes.iter_mut().enumerate() {
            let Some(inn) = &mut lane.inn else { continue };
            for (slot, number) in inn.held.iter().enumerate() {
                let Some(number) = number else { continue };
                inn.pattern.fill(number % self.depth, &mut want);
                if let Some(first) = want.first_chunk_mut::<8>() {
                    *first = number.to_ne_bytes();
                }
                self.incoming.read(inn.at + slot * self.stride, &mut self.scratch);
                let found = match self.scratch.iter().zip(&want).position(|(got, want)| got != want) {
                    None => Ok(()),
                    Some(at) => {
                        Err(format!("message {number} of rank {rank}: byte {at} is not what was sent"))
                    }
                };
                inn.account.count(found);
            }
        }
    }
}
