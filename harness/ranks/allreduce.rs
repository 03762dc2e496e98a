//! What tensor parallelism does in each layer: every rank has a vector, and gets the sum of all. The elements are f32.
//!
//! What is timed is an operation as a rank sees it: from the moment its vector is ready, in registered memory, until it has the sum and all its sends have
//! completed, so that the memory may be used again. Making the vector and looking at the sum are outside.
//!
//! Elements are whole numbers small enough for every sum of them to be exact, whatever the order. In timed operations the first and the last element of each
//! rank's part differ from operation to operation, and are checked; when these are over, further operations follow in which every element is another one, and
//! every element is checked.
//!
//! Each rank has receives for two operations waiting at every rank that sends to it. That is enough: who has ended an operation has heard, perhaps through others,
//! from all ranks that they have begun it, so nobody is more than one ahead.

use std::collections::VecDeque;
use std::time::Duration;

use tbrdma::{Access, QueuePair, WorkCompletion};

use super::group::Group;
use super::node::{Desk, Node, Room, connect};
use super::plan::{Algorithm, Plan, stride};
use super::told::Told;
use crate::cli::Extent;
use crate::clock::{self, Clock};
use crate::control::Account;
use crate::error::{Context, Error, Result};
use crate::histogram::{Latencies, Measures};
use crate::memory::Area;
use crate::pingpong::in_time;
use crate::plan::Memory;
use crate::progress::Progress;

/// Bytes of an element.
pub const ELEMENT: usize = 4;
/// Vectors up to so many bytes go whole to everybody at once: one step, where two cost more than the bytes that they save.
const AT_ONCE: u64 = 32 << 10;
/// Elements are below this; 64 of them make a sum that is far from where f32 leaves whole numbers out.
const BELOW: u64 = 1000;
/// How long a batch lasts, between two words of rank 0.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// How long the warm-up lasts when the user gives no number.
const WARMUP_TIME: Duration = Duration::from_millis(100);
/// Operations at the head of each batch that are not recorded, after the ranks have slept.
const LEAD_IN: u64 = 4;
/// Operations of which every element is checked.
pub const CHECKED: u64 = 8;
/// Completions taken at once.
const BATCH: usize = 64;
/// In the identifier of a work request: a receive. The low half is the slot, the rank stands above.
const RECEIVE: u64 = 1 << 63;

/// What all ranks do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Next {
    /// So many operations, of which the last so many are recorded.
    Run { count: u64, recorded: u64 },
    /// So many, each checked in full.
    Check { count: u64 },
    /// That was all.
    End,
}

/// Element `index` of rank `rank`'s vector in operation `number`.
fn element(rank: usize, index: usize, number: u64) -> f32 {
    ((index as u64 * 7 + rank as u64 * 13 + number * (3 + index as u64 % 5)) % BELOW) as f32
}

/// One rank.
struct Party {
    rank: usize,
    ranks: usize,
    algorithm: Algorithm,
    at_once: bool,
    desk: Desk,
    pairs: Vec<Option<QueuePair>>,
    /// What is sent.
    outgoing: Area,
    /// What comes: slots for each rank that sends here, one group behind the other.
    incoming: Area,
    /// Where the slots of each rank begin, and how many there are.
    slots_at: Vec<usize>,
    slots: usize,
    stride: usize,
    slot_bytes: usize,
    /// Slots that have been filled, by rank, in their order.
    filled: Vec<VecDeque<(usize, usize)>>,
    under_way: u64,
    /// The vector, and then the sum.
    vector: Vec<f32>,
    bytes: Vec<u8>,
    clock: Clock,
    latencies: Latencies,
    account: Account,
    next: u64,
}

/// One rank's part in operations on vectors of `size` bytes.
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
    let mut party = Party::new(group, node, plan, size, crowded)?;
    let mut conductor = (group.rank() == 0).then(|| Conductor::new(plan, progress));
    let begun = party.clock.now();
    loop {
        let next = conductor.as_mut().map(Conductor::next);
        let next = group.broadcast("next", next)?;
        let since = party.clock.now();
        match next {
            Next::Run { count, recorded } => party.run(count, recorded)?,
            Next::Check { count } => party.check(count)?,
            Next::End => break,
        }
        if let Some(conductor) = &mut conductor {
            conductor.took(party.clock.between(since, party.clock.now()), next);
        }
    }
    // A queue pair that is gone before its last message was acknowledged leaves the sender to wonder.
    group.barrier()?;
    Ok(Told {
        nanoseconds: party.clock.between(begun, party.clock.now()).as_nanos() as u64,
        warmup: conductor.map_or(0, |conductor| conductor.warm),
        operations: party.latencies.distribution(),
        account: party.account,
        ..Told::default()
    })
}

/// Rank 0 says what comes next.
struct Conductor<'p> {
    extent: Extent,
    /// Operations of the warm-up that are left, where they are counted.
    warmup: Option<u64>,
    warm: u64,
    warm_for: Duration,
    each: Duration,
    measured: Duration,
    recorded: u64,
    has_checked: bool,
    progress: &'p Progress,
}

impl<'p> Conductor<'p> {
    fn new(plan: &Plan, progress: &'p Progress) -> Self {
        Self {
            extent: plan.extent(),
            warmup: plan.warmup,
            warm: 0,
            warm_for: Duration::ZERO,
            each: Duration::from_millis(1),
            measured: Duration::ZERO,
            recorded: 0,
            has_checked: false,
            progress,
        }
    }

    fn next(&mut self) -> Next {
        let cold = match self.warmup {
            Some(operations) => operations - self.warm.min(operations),
            None if self.warm_for < WARMUP_TIME => (self.warm * 4).max(8).min(in_time(BATCH_TIME, self.each)),
            None => 0,
        };
        if cold > 0 {
            self.progress.stage("warming up");
            return Next::Run { count: cold, recorded: 0 };
        }
        let left = match self.extent {
            Extent::Messages(operations) => operations - self.recorded.min(operations),
            Extent::Time(time) if self.measured < time => u64::MAX,
            Extent::Time(_) => 0,
        };
        if left > 0 {
            self.progress.stage("measuring");
            let recorded = left.min(in_time(BATCH_TIME, self.each));
            return Next::Run { count: recorded + LEAD_IN, recorded };
        }
        if self.has_checked {
            return Next::End;
        }
        self.progress.stage("checking");
        self.has_checked = true;
        Next::Check { count: CHECKED }
    }

    fn took(&mut self, elapsed: Duration, what: Next) {
        let Next::Run { count, recorded } = what else { return };
        self.each = elapsed / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        if recorded == 0 {
            self.warm += count;
            self.warm_for += elapsed;
            return;
        }
        self.measured += elapsed;
        self.recorded += recorded;
        self.progress.done(match self.extent {
            Extent::Messages(operations) => self.recorded as f64 / operations as f64,
            Extent::Time(time) => self.measured.as_secs_f64() / time.as_secs_f64(),
        });
    }
}

impl Party {
    fn new(group: &mut Group, node: &Node, plan: &Plan, size: u64, crowded: bool) -> Result<Self> {
        let (rank, ranks) = (group.rank(), group.size());
        let algorithm = plan.algorithm.unwrap_or(Algorithm::Mesh);
        let elements = size as usize / ELEMENT;
        let at_once = algorithm == Algorithm::Mesh && (size <= AT_ONCE || ranks == 2);
        // Messages from one rank to another in one operation, and the bytes of the largest.
        let (messages, slot_bytes) = match algorithm {
            Algorithm::Mesh if at_once => (1, size as usize),
            Algorithm::Mesh => (2, elements.div_ceil(ranks) * ELEMENT),
            Algorithm::Ring => (2 * (ranks - 1), elements.div_ceil(ranks) * ELEMENT),
        };
        let slots = 2 * messages;
        let (left, right) = ((rank + ranks - 1) % ranks, (rank + 1) % ranks);
        let comes_from = |other: usize| match algorithm {
            Algorithm::Mesh => other != rank,
            Algorithm::Ring => other == left,
        };
        let goes_to = |other: usize| match algorithm {
            Algorithm::Mesh => other != rank,
            Algorithm::Ring => other == right,
        };
        let stride = stride(slot_bytes as u64) as usize;
        let (mut slots_at, mut rooms, mut bytes, mut entries) = (Vec::new(), Vec::new(), 0, 0);
        for other in 0..ranks {
            slots_at.push(bytes);
            let (sends, receives) = (messages as u32, slots as u32);
            let room = (comes_from(other) || goes_to(other)).then_some(Room { sends, receives });
            entries += room.map_or(0, |room| room.sends + room.receives);
            rooms.push(room);
            bytes += if comes_from(other) { slots * stride } else { 0 };
        }
        let desk = Desk::new(node, group, entries, crowded)?;
        let region = |bytes: usize| {
            Area::new(&desk.pd, Memory::Library, bytes, Access::LOCAL_WRITE)
                .context(|| format!("register {bytes} bytes"))
        };
        let (outgoing, incoming) = (region(size as usize)?, region(bytes)?);
        let pairs = connect(group, &desk, &rooms, |other, pair| {
            if !comes_from(other) {
                return Ok(());
            }
            let first = slots_at.get(other).copied().unwrap_or_default();
            let posted = pair.post_recv(|batch| {
                for slot in 0..slots {
                    let start = first + slot * stride;
                    let id = RECEIVE | (other as u64) << 32 | slot as u64;
                    batch.recv(incoming.slice(start..start + slot_bytes)).id(id);
                }
            });
            posted.context(|| format!("post receives for rank {other}"))
        })?;
        Ok(Self {
            rank,
            ranks,
            algorithm,
            at_once,
            desk,
            pairs,
            outgoing,
            incoming,
            slots_at,
            slots,
            stride,
            slot_bytes,
            filled: vec![VecDeque::with_capacity(slots); ranks],
            under_way: 0,
            vector: vec![0.0; elements],
            bytes: vec![0; size as usize],
            clock: clock::chosen(),
            latencies: Latencies::new(Measures::Collective)?,
            account: Account::default(),
            next: 0,
        })
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.ranks).filter(move |other| *other != rank)
    }

    /// The elements of a rank's part.
    fn part(&self, part: usize) -> std::ops::Range<usize> {
        let at = |part: usize| part * self.vector.len() / self.ranks;
        at(part)..at(part + 1)
    }

    /// The first and the last element of each part.
    fn marks(&self) -> impl Iterator<Item = usize> + use<> {
        let ends: Vec<_> = (0..self.ranks).map(|part| self.part(part)).collect();
        ends.into_iter().filter(|part| !part.is_empty()).flat_map(|part| [part.start, part.end - 1])
    }

    /// Timed operations.
    fn run(&mut self, count: u64, recorded: u64) -> Result<()> {
        let plain: Vec<f32> = (0..self.vector.len()).map(|index| element(self.rank, index, 0)).collect();
        for turn in 0..count {
            let number = self.next;
            self.vector.copy_from_slice(&plain);
            for index in self.marks() {
                if let Some(place) = self.vector.get_mut(index) {
                    *place = element(self.rank, index, number);
                }
            }
            self.hand_over(0..self.vector.len());
            let before = self.clock.now();
            self.operate()?;
            let after = self.clock.now();
            if turn + recorded >= count {
                self.latencies.record(self.clock.between(before, after));
            }
            let wrong = self.marks().find(|index| !self.is_right(*index, number));
            if let Some(index) = wrong {
                self.account.errors += 1;
                let told = self.wrong(index, number);
                self.account.first_error.get_or_insert(told);
            }
            self.next += 1;
        }
        Ok(())
    }

    /// Operations with all elements others, and all checked.
    fn check(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            let number = self.next;
            for (index, place) in self.vector.iter_mut().enumerate() {
                *place = element(self.rank, index, number);
            }
            self.hand_over(0..self.vector.len());
            self.operate()?;
            let wrong = (0..self.vector.len()).find(|index| !self.is_right(*index, number));
            self.account.count(wrong.map_or(Ok(()), |index| Err(self.wrong(index, number))));
            self.next += 1;
        }
        Ok(())
    }

    fn expected(&self, index: usize, number: u64) -> f32 {
        (0..self.ranks).map(|rank| element(rank, index, number)).sum()
    }

    fn is_right(&self, index: usize, number: u64) -> bool {
        self.vector.get(index) == Some(&self.expected(index, number))
    }

    fn wrong(&self, index: usize, number: u64) -> String {
        format!(
            "element {index} of operation {number} is {} at rank {} where the sum is {}",
            self.vector.get(index).copied().unwrap_or_default(),
            self.rank,
            self.expected(index, number)
        )
    }

    /// The operation.
    fn operate(&mut self) -> Result<()> {
        match self.algorithm {
            Algorithm::Mesh if self.at_once => self.at_once()?,
            Algorithm::Mesh => self.in_two_steps()?,
            Algorithm::Ring => self.round_the_ring()?,
        }
        while self.under_way > 0 {
            self.look()?;
        }
        Ok(())
    }

    /// All that everybody has, to everybody; summed in the order of ranks, so that all have the same sum to the last bit.
    fn at_once(&mut self) -> Result<()> {
        let all = 0..self.vector.len();
        for other in self.others() {
            self.send(other, all.clone())?;
        }
        self.sum(all)
    }

    /// Each part to the rank that sums it, and the sum of that part to everybody.
    fn in_two_steps(&mut self) -> Result<()> {
        for other in self.others() {
            let part = self.part(other);
            self.send(other, part)?;
        }
        let own = self.part(self.rank);
        self.sum(own.clone())?;
        self.hand_over(own.clone());
        for other in self.others() {
            self.send(other, own.clone())?;
        }
        for other in self.others() {
            let part = self.part(other);
            self.take(other, part, |place, came| *place = came)?;
        }
        Ok(())
    }

    /// Sums what all have of these elements, in the order of ranks.
    fn sum(&mut self, part: std::ops::Range<usize>) -> Result<()> {
        let own: Vec<f32> = self.vector.get(part.clone()).unwrap_or_default().to_vec();
        if let Some(places) = self.vector.get_mut(part.clone()) {
            places.fill(0.0);
        }
        for other in 0..self.ranks {
            if other == self.rank {
                for (place, own) in self.vector.get_mut(part.clone()).unwrap_or_default().iter_mut().zip(&own)
                {
                    *place += own;
                }
            } else {
                self.take(other, part.clone(), |place, came| *place += came)?;
            }
        }
        Ok(())
    }

    /// Parts go round twice: the first time each rank adds its own, the second time the sums come by.
    fn round_the_ring(&mut self) -> Result<()> {
        let (rank, ranks) = (self.rank, self.ranks);
        let (left, right) = ((rank + ranks - 1) % ranks, (rank + 1) % ranks);
        for step in 0..2 * (ranks - 1) {
            let summing = step < ranks - 1;
            let sent = self.part((rank + 2 * ranks - step) % ranks);
            let came = self.part((rank + 2 * ranks - step - 1) % ranks);
            self.send(right, sent)?;
            if summing {
                self.take(left, came.clone(), |place, came| *place += came)?;
            } else {
                self.take(left, came.clone(), |place, came| *place = came)?;
            }
            if step + 1 < 2 * (ranks - 1) {
                self.hand_over(came);
            }
        }
        Ok(())
    }

    /// Puts elements of the vector where they are sent from.
    fn hand_over(&mut self, part: std::ops::Range<usize>) {
        let elements = self.vector.get(part.clone()).unwrap_or_default();
        let bytes = self.bytes.get_mut(..elements.len() * ELEMENT).unwrap_or_default();
        for (bytes, element) in bytes.chunks_exact_mut(ELEMENT).zip(elements) {
            bytes.copy_from_slice(&element.to_ne_bytes());
        }
        self.outgoing.write(part.start * ELEMENT, bytes);
    }

    fn send(&mut self, to: usize, part: std::ops::Range<usize>) -> Result<()> {
        let Some(Some(pair)) = self.pairs.get_mut(to) else {
            return Err(Error::Run(format!("there is no queue pair to rank {to}")));
        };
        let message = self.outgoing.slice(part.start * ELEMENT..part.end * ELEMENT);
        pair.post(|batch| drop(batch.send(message).id(to as u64)))
            .context(|| format!("post to rank {to}"))?;
        self.under_way += 1;
        Ok(())
    }

    /// Waits for the next message of a rank, does something with each of its elements and those of the vector, and posts its receive again.
    fn take(
        &mut self,
        from: usize,
        part: std::ops::Range<usize>,
        each: impl Fn(&mut f32, f32),
    ) -> Result<()> {
        let (slot, length) = loop {
            match self.filled.get_mut(from).and_then(VecDeque::pop_front) {
                Some(slot) => break slot,
                None => self.look()?,
            }
        };
        let start = self.slots_at.get(from).copied().unwrap_or_default() + slot * self.stride;
        let bytes = self.bytes.get_mut(..part.len() * ELEMENT).unwrap_or_default();
        if length != bytes.len() || self.incoming.read(start, bytes) != bytes.len() {
            return Err(Error::Run(format!(
                "a message of {length} bytes came from rank {from} where {} were due",
                bytes.len()
            )));
        }
        let elements = self.vector.get_mut(part).unwrap_or_default();
        for (place, bytes) in elements.iter_mut().zip(bytes.as_chunks::<ELEMENT>().0) {
            each(place, f32::from_ne_bytes(*bytes));
        }
        let receive = self.incoming.slice(start..start + self.slot_bytes);
        let id = RECEIVE | (from as u64) << 32 | slot as u64;
        let Some(Some(pair)) = self.pairs.get_mut(from) else { return Ok(()) };
        pair.post_recv(|batch| drop(batch.recv(receive).id(id)))
            .context(|| format!("post a receive for rank {from}"))
    }

    /// Takes what has completed.
    fn look(&mut self) -> Result<()> {
        let mut taken = [WorkCompletion::default(); BATCH];
        for wc in self.desk.poll(&mut taken)? {
            if wc.wr_id & RECEIVE == 0 {
                self.under_way -= 1;
                continue;
            }
            let (from, slot) = ((wc.wr_id >> 32 & 0xffff) as usize, (wc.wr_id & 0xffff_ffff) as usize);
            if let Some(filled) = self.filled.get_mut(from).filter(|_| slot < self.slots) {
                filled.push_back((slot, wc.byte_len as usize));
            }
        }
        Ok(())
    }
}
