//! The side that posts: each list of requests when it is due, or as soon as there is room, and what became of them.

use std::collections::VecDeque;
use std::time::Duration;

use tbrdma::WorkCompletion;

use super::bytes::{Bytes, put_stamp, stamp};
use super::figures::Figures;
use super::side::Side;
use super::workload::{Item, Outline, Workload};
use crate::clock::{self, Clock, Stamp};
use crate::completions::failure;
use crate::control::{Account, Channel, Message};
use crate::error::{Context, Error, Result};
use crate::plan::{Op, QKEY};
use crate::progress::Progress;
use crate::session::{OpenDevice, Role};
use crate::watch::Spins;
use crate::wire::atomic_value;

/// What every atomic adds: as [`atomic_value`] counts.
fn atomic_step() -> u64 {
    atomic_value(1)
}

/// Completions taken at once.
const BATCH: usize = 32;
/// What a result buffer holds before there is a result.
const POISON: u8 = 0xa5;
/// Turns of a wait between two looks around.
const TURNS_BETWEEN_LOOKS: u32 = 1024;
/// The first list is due so long after the replay begins: nothing is late because it came first.
const LEAD: Duration = Duration::from_micros(200);
/// Lists between two moves of the progress bar.
const LISTS_BETWEEN_NEWS: usize = 256;

/// When lists are posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// When the clock of the trace says.
    Trace,
    /// As soon as there is room.
    Fast,
}

/// A request that has not completed.
#[derive(Debug, Clone, Copy)]
struct Flight {
    item: usize,
    due: Stamp,
    posted: Stamp,
    /// Atomics of the lane before it.
    atomics: u64,
}

/// What this side remembers of a lane.
struct Course {
    flights: VecDeque<Flight>,
    atomics: u64,
    /// The bytes of both patterns, to be stamped and handed over inside requests.
    inline: [Vec<u8>; 2],
}

/// The initiator of a replay.
pub struct Initiator<'a> {
    work: &'a Workload,
    side: Side,
    courses: Vec<Course>,
    read: Bytes,
    scratch: Vec<u8>,
    clock: Clock,
    taken: [WorkCompletion; BATCH],
    account: Account,
    figures: Figures,
}

impl<'a> Initiator<'a> {
    /// Makes what the outline needs, and meets the responder.
    ///
    /// # Errors
    /// A verbs call failed, or the peer went away.
    pub fn new(
        open: &OpenDevice,
        outline: &Outline,
        work: &'a Workload,
        channel: &mut Channel,
    ) -> Result<Self> {
        let side = Side::establish(open, outline, Role::Initiator, channel)?;
        let most = outline.lanes.iter().map(|lane| lane.stride as usize).max().unwrap_or_default();
        let messages = Bytes::of_messages(most);
        let most_inline = open.device.query_device().max_inline_data as usize;
        let mut courses = Vec::new();
        for (lane, track) in outline.lanes.iter().zip(&side.tracks) {
            let stride = lane.stride as usize;
            for number in 0..lane.outgoing() {
                track.area.write(lane.leaves_from(number) as usize, messages.plain(number, stride));
            }
            for number in 0..lane.results() {
                track.area.write(lane.result_at(number) as usize, &vec![POISON; stride]);
            }
            let inline = |number| messages.plain(number, stride.min(most_inline)).to_vec();
            courses.push(Course {
                flights: VecDeque::with_capacity(lane.depth as usize),
                atomics: 0,
                inline: [inline(0), inline(1)],
            });
        }
        channel.send(&Message::Ready)?;
        match channel.receive(Duration::from_millis(outline.plan.timeout_ms))? {
            Message::Ready => {}
            other => return Err(channel.unexpected(&other, "`ready`")),
        }
        Ok(Self {
            work,
            side,
            courses,
            read: Bytes::to_read(most),
            scratch: vec![0; most],
            clock: clock::chosen(),
            taken: [WorkCompletion::default(); BATCH],
            account: Account::default(),
            figures: Figures::new(work)?,
        })
    }

    /// Whose memory it is.
    #[must_use]
    pub fn memory(&self) -> &'static str {
        self.side.tracks.first().map_or("none", |track| track.area.says())
    }

    /// Posts everything, and waits until all of it has completed.
    ///
    /// # Errors
    /// A verbs call or a completion failed, the peer went away, or the user interrupted.
    pub fn run(mut self, timing: Timing, progress: &Progress) -> Result<(Figures, Account)> {
        let work = self.work;
        let begin = self.clock.after(self.clock.now(), LEAD);
        let mut first = None;
        let mut last = begin;
        for (at, post) in work.posts.iter().enumerate() {
            let due =
                (timing == Timing::Trace).then(|| self.clock.after(begin, Duration::from_nanos(post.due_ns)));
            let posted = self.post(post.items.clone(), due)?;
            first.get_or_insert(posted);
            last = posted;
            if let Some(due) = due {
                let next = work.posts.get(at + 1);
                let next = next.map(|next| self.clock.after(begin, Duration::from_nanos(next.due_ns)));
                self.figures.waited(self.clock.between(due, posted), next.is_some_and(|next| next < posted));
            }
            if at.is_multiple_of(LISTS_BETWEEN_NEWS) {
                progress.done(at as f64 / work.posts.len() as f64);
            }
        }
        while self.courses.iter().any(|course| !course.flights.is_empty()) {
            self.wait()?;
        }
        self.figures.posted_in(self.clock.between(first.unwrap_or(begin), last));
        Ok((self.figures, self.account))
    }

    /// Posts the items, in one list if there is room for all; when that was.
    fn post(&mut self, items: std::ops::Range<usize>, due: Option<Stamp>) -> Result<Stamp> {
        let mut at = items.start;
        let mut begun = None;
        while at < items.end {
            let lane = self.work.items.get(at).map_or(0, |item| usize::from(item.known.0));
            let under_way = self.courses.get(lane).map_or(0, |course| course.flights.len());
            let room =
                self.work.lanes.get(lane).map_or(0, |lane| lane.depth as usize).saturating_sub(under_way);
            if room == 0 {
                self.wait()?;
                continue;
            }
            let next = items.end.min(at + room);
            self.stage(lane, at..next);
            if let Some(due) = due {
                self.wait_until(due)?;
            }
            let posted = self.clock.now();
            let Some(track) = self.side.tracks.get_mut(lane) else { break };
            let (sends, _) = track.qp.halves();
            sends.complete().context(|| "post requests of the trace".into())?;
            self.fly(lane, at..next, due.unwrap_or(posted), posted);
            begun.get_or_insert(posted);
            at = next;
        }
        Ok(begun.unwrap_or_else(|| self.clock.now()))
    }

    /// Writes the work requests of some items, to be posted when they are due.
    fn stage(&mut self, lane: usize, items: std::ops::Range<usize>) {
        let (Some(track), Some(course), Some(of)) =
            (self.side.tracks.get_mut(lane), self.courses.get_mut(lane), self.work.lanes.get(lane))
        else {
            return;
        };
        let (area, remote) = (&track.area, &track.remote);
        let mut atomics = course.atomics;
        let (sends, _) = track.qp.halves();
        let mut batch = sends.start();
        for (index, item) in items.clone().zip(self.work.items.get(items).unwrap_or_default()) {
            let (_, op, size) = item.known;
            let (number, size) = (item.number, size as usize);
            let from = of.leaves_from(number);
            let result = of.result_at(number) as usize;
            let there = remote.at(of.write_at(number));
            let imm = number as u32;
            let leaving = area.slice(from as usize..from as usize + size);
            let [even, odd] = &mut course.inline;
            let inside = if number.is_multiple_of(2) { even } else { odd };
            if item.inline {
                let stamp = stamp(lane, number);
                inside.iter_mut().zip(stamp).for_each(|(to, from)| *to = from);
            } else if !op.is_one_sided() {
                put_stamp(area, from, size, lane, number);
            }
            let inside = inside.get(..size).unwrap_or_default();
            let mut request = match op {
                Op::Send if item.inline => batch.send_inline(inside),
                Op::Send => batch.send(leaving),
                Op::SendImm if item.inline => batch.send_inline_with_imm(inside, imm),
                Op::SendImm => batch.send_with_imm(leaving, imm),
                Op::Write if item.inline => batch.write_inline(inside, there),
                Op::Write => batch.write(leaving, there),
                Op::WriteImm if item.inline => batch.write_inline_with_imm(inside, there, imm),
                Op::WriteImm => batch.write_with_imm(leaving, there, imm),
                Op::Read => batch.read(area.slice(result..result + size), remote.at(of.read_at(number))),
                Op::Cas | Op::Faa => {
                    let (result, word) = (area.slice(result..result + 8), remote.at(of.word_at()));
                    let count = atomics;
                    atomics += 1;
                    match op {
                        Op::Cas => {
                            batch.compare_and_swap(result, word, atomic_value(count), atomic_value(count + 1))
                        }
                        _ => batch.fetch_and_add(result, word, atomic_step()),
                    }
                }
            };
            request = request.id(index as u64);
            if let Some(destination) = &track.destination {
                request = request.to(&destination.handle, destination.qpn, QKEY);
            }
            if item.fence {
                request = request.fence();
            }
            if !item.signaled {
                request.unsignaled();
            }
        }
    }

    /// Remembers what was posted.
    fn fly(&mut self, lane: usize, items: std::ops::Range<usize>, due: Stamp, posted: Stamp) {
        let Some(course) = self.courses.get_mut(lane) else { return };
        for (index, item) in items.clone().zip(self.work.items.get(items).unwrap_or_default()) {
            course.flights.push_back(Flight { item: index, due, posted, atomics: course.atomics });
            course.atomics += u64::from(item.known.1.is_atomic());
        }
    }

    /// Takes completions until a moment has come.
    fn wait_until(&mut self, due: Stamp) -> Result<()> {
        let mut turns = 0_u32;
        loop {
            let now = self.clock.now();
            if now >= due {
                return Ok(());
            }
            let left = self.clock.between(now, due);
            let completions = &self.side.completions;
            // Where time is virtual an empty poll would let it go on beyond the moment.
            if clock::wait_in_turn(left, || (completions.queue().unpolled() > 0).then_some(())) == Some(None)
            {
                continue;
            }
            let count = completions.poll(&mut self.taken);
            self.completed(count)?;
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_BETWEEN_LOOKS) {
                // Each look is the first of a wait: the trace may rest for as long as it likes.
                self.side.watch.look(&mut Spins::default(), "moment to post")?;
            }
        }
    }

    /// Waits for at least one completion.
    fn wait(&mut self) -> Result<()> {
        let count = self.side.completions.wait(&mut self.taken, &self.side.watch, "completion")?;
        self.completed(count)
    }

    /// Deals with the completions that were taken.
    fn completed(&mut self, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let taken = self.taken;
        for wc in taken.iter().take(count) {
            if wc.ok().is_err() {
                return Err(failure(wc, &self.side.completions));
            }
            let index = usize::try_from(wc.wr_id).unwrap_or(usize::MAX);
            let item = self.work.items.get(index).copied();
            let item = item.ok_or_else(|| Error::Run(format!("a completion of no request: {}", wc.wr_id)))?;
            let lane = usize::from(item.known.0);
            while let Some(flight) = self.courses.get_mut(lane).and_then(|course| course.flights.pop_front())
            {
                self.look_at_result(lane, &flight);
                if flight.item == index {
                    if item.measured {
                        let service = self.clock.between(flight.posted, now);
                        self.figures.record(index, service, self.clock.between(flight.due, now));
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Checks what a read or an atomic has brought.
    fn look_at_result(&mut self, lane: usize, flight: &Flight) {
        let (Some(Item { known: (_, op, size), number, .. }), Some(of), Some(track)) = (
            self.work.items.get(flight.item).copied(),
            self.work.lanes.get(lane),
            self.side.tracks.get(lane),
        ) else {
            return;
        };
        let place = of.result_at(number) as usize;
        match op {
            Op::Read => {
                let Some(got) = self.scratch.get_mut(..size as usize) else { return };
                let read = track.area.read(place, got);
                self.account.count(match self.read.mismatch(number, got) {
                    None if read == got.len() => Ok(()),
                    None => Err(format!("queue pair {lane}: {read} of {size} bytes can be read")),
                    Some(byte) => {
                        Err(format!("queue pair {lane}, read {number}: byte {byte} of {size} is wrong"))
                    }
                });
            }
            Op::Cas | Op::Faa => {
                let (got, want) = (track.area.load_u64(place), atomic_value(flight.atomics));
                self.account.count(if got == want {
                    Ok(())
                } else {
                    Err(format!("queue pair {lane}, {op} {number} returned {got:#x} instead of {want:#x}"))
                });
            }
            _ => {}
        }
    }
}
