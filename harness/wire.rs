//! The thin file between the measurements and the verbs: posting messages of a plan, waiting for them, checking them.

use tbrdma::WorkCompletion;

use crate::completions::{failure, tag};
use crate::error::{Context, Result};
use crate::memory::Area;
use crate::pattern::Pattern;
use crate::plan::{Benchmark, Op, QKEY};
use crate::session::{Session, header_bytes, message_start};
use crate::watch::Spins;

/// Completions taken at once.
const BATCH: usize = 32;
/// What a result buffer holds before a read or an atomic puts the result there.
const POISON: u8 = 0xa5;

/// The value of the word that atomics work on, after `count` of them.
#[inline]
#[must_use]
pub fn atomic_value(count: u64) -> u64 {
    count.wrapping_mul(ATOMIC_STEP)
}

/// What every atomic adds.
const ATOMIC_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// How the buffers lie in the regions.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Bytes in a message.
    pub size: usize,
    /// From one buffer to the next.
    pub stride: usize,
    /// Bytes from the start of a slot to its message.
    pub lead: usize,
    /// Bytes which the device puts before a received message.
    pub header: usize,
    /// Buffers at the sender.
    pub depth: u64,
    /// Buffers at the target.
    pub target_slots: u64,
}

impl Layout {
    #[inline]
    fn start(&self, slot: u64) -> usize {
        slot as usize * self.stride + self.lead
    }
}

/// Where the next message leaves from, and goes to; kept, since a division is dear next to a message.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    sequence: u64,
    slot: u64,
    target: u64,
    /// Messages until one asks for a completion.
    signal_in: u64,
}

/// How a message made itself known.
#[derive(Debug, Clone, Copy)]
pub enum Arrival {
    /// By a completion.
    Completion(WorkCompletion),
    /// By its last bytes in memory.
    Memory,
}

/// A connected side, seen as buffers that messages go round.
pub struct Wire {
    /// The verbs objects.
    pub session: Session,
    /// How the buffers lie.
    pub layout: Layout,
    /// One message in so many asks for a completion.
    every: u64,
    cursor: Cursor,
    receives_posted: u64,
    /// What the numbers of its work requests have in common.
    tag: u64,
    inline: Vec<u8>,
    scratch: Vec<u8>,
    taken: [WorkCompletion; BATCH],
}

impl Wire {
    /// Takes over a connected session.
    #[must_use]
    pub fn new(session: Session) -> Self {
        let plan = &session.plan;
        let layout = Layout {
            size: plan.size as usize,
            stride: plan.stride() as usize,
            lead: message_start(plan, 0),
            header: header_bytes(plan),
            depth: plan.depth.into(),
            target_slots: plan.target_slots().into(),
        };
        let answered = plan.is_pingpong() && !plan.op.is_one_sided();
        let every = match plan.benchmark {
            Benchmark::Pingpong | Benchmark::Idle if !answered => 1,
            _ => plan.signal_every.max(1).into(),
        };
        let inline = if plan.inline { vec![0; layout.stride * plan.depth as usize] } else { Vec::new() };
        Self {
            layout,
            every,
            cursor: Cursor { signal_in: every, ..Cursor::default() },
            receives_posted: 0,
            tag: tag(session.flow),
            inline,
            scratch: vec![0; layout.size],
            taken: [WorkCompletion::default(); BATCH],
            session,
        }
    }

    /// Writes the bytes of message `sequence`, by `pattern`'s number `number`, where it will leave from.
    pub fn fill(&mut self, sequence: u64, pattern: &Pattern, number: u64) {
        pattern.fill(number, &mut self.scratch);
        self.put(sequence);
    }

    /// Writes the end of message `sequence` alone, by which a target that watches its memory knows it; the rest of its buffer stays.
    pub fn renew(&mut self, sequence: u64, pattern: &Pattern) {
        let start = self.layout.start(sequence % self.layout.depth);
        let (word, byte) = (pattern.last_word(sequence).to_ne_bytes(), [pattern.last_byte(sequence)]);
        let end: &[u8] = if self.layout.size >= word.len() { &word } else { &byte };
        let at = start + self.layout.size.saturating_sub(end.len());
        match self.inline.get_mut(at..at + end.len()) {
            Some(place) if self.session.plan.inline => place.copy_from_slice(end),
            _ => {
                self.session.outgoing.write(at, end);
            }
        }
    }

    /// Spoils the place where the result of operation `sequence` will be, so that only a real result is right.
    pub fn spoil(&mut self, sequence: u64) {
        self.scratch.fill(POISON);
        self.put(sequence);
    }

    fn put(&mut self, sequence: u64) {
        let start = self.layout.start(sequence % self.layout.depth);
        match self.inline.get_mut(start..start + self.scratch.len()) {
            Some(place) if self.session.plan.inline => place.copy_from_slice(&self.scratch),
            _ => {
                self.session.outgoing.write(start, &self.scratch);
            }
        }
    }

    /// Posts the next `count` messages with one doorbell: [`stage`](Self::stage) and [`ring`](Self::ring).
    ///
    /// # Errors
    /// The queue pair refuses them.
    #[inline]
    pub fn post(&mut self, count: u64, also: Option<u64>, stamped: bool) -> Result<()> {
        self.stage(count, also, stamped);
        self.ring()
    }

    /// Writes the work requests of the next `count` messages, as a program does that has them ready when their moment comes. One in so many is
    /// signaled, as the plan has it, and message number `also`. With `stamped`, each is marked with its own number in its first eight
    /// bytes, if it has as many.
    #[inline]
    pub fn stage(&mut self, count: u64, also: Option<u64>, stamped: bool) {
        let (layout, every, tag) = (self.layout, self.every, self.tag);
        let (op, inline) = (self.session.plan.op, self.session.plan.inline);
        let stamped = stamped && layout.size >= 8;
        let Session { qp, outgoing, remote, destination, .. } = &mut self.session;
        let plain = self.inline.as_mut_slice();
        let cursor = &mut self.cursor;
        let (sends, _) = qp.halves();
        let mut batch = sends.start();
        for _ in 0..count {
            let sequence = cursor.sequence;
            let start = layout.start(cursor.slot);
            let range = start..start + layout.size;
            let there = remote.at(layout.start(cursor.target) as u64);
            let imm = sequence as u32;
            if stamped {
                stamp(outgoing, plain, start, sequence);
            }
            let mut request = match op {
                Op::Send if inline => batch.send_inline(plain.get(range).unwrap_or_default()),
                Op::Send => batch.send(outgoing.slice(range)),
                Op::SendImm if inline => {
                    batch.send_inline_with_imm(plain.get(range).unwrap_or_default(), imm)
                }
                Op::SendImm => batch.send_with_imm(outgoing.slice(range), imm),
                Op::Write if inline => batch.write_inline(plain.get(range).unwrap_or_default(), there),
                Op::Write => batch.write(outgoing.slice(range), there),
                Op::WriteImm if inline => {
                    batch.write_inline_with_imm(plain.get(range).unwrap_or_default(), there, imm)
                }
                Op::WriteImm => batch.write_with_imm(outgoing.slice(range), there, imm),
                Op::Read => batch.read(outgoing.slice(range), there),
                Op::Cas => {
                    let (compare, swap) = (atomic_value(sequence), atomic_value(sequence + 1));
                    batch.compare_and_swap(outgoing.slice(range), remote.at(0), compare, swap)
                }
                Op::Faa => batch.fetch_and_add(outgoing.slice(range), remote.at(0), ATOMIC_STEP),
            };
            request = request.id(tag | sequence);
            if let Some(destination) = destination {
                request = request.to(&destination.handle, destination.qpn, QKEY);
            }
            cursor.signal_in -= 1;
            if cursor.signal_in == 0 {
                cursor.signal_in = every;
            } else if also != Some(sequence) {
                request.unsignaled();
            }
            cursor.sequence += 1;
            cursor.slot = if cursor.slot + 1 == layout.depth { 0 } else { cursor.slot + 1 };
            cursor.target = if cursor.target + 1 == layout.target_slots { 0 } else { cursor.target + 1 };
        }
    }

    /// Posts what was [staged](Self::stage), with one doorbell.
    ///
    /// # Errors
    /// The queue pair refuses it.
    #[inline]
    pub fn ring(&mut self) -> Result<()> {
        let op = self.session.plan.op;
        let (sends, _) = self.session.qp.halves();
        sends.complete().context(|| format!("post {op}"))
    }

    /// Posts `count` receives.
    ///
    /// # Errors
    /// The queue pair refuses them.
    #[inline]
    pub fn post_receives(&mut self, count: u64) -> Result<()> {
        let (layout, tag) = (self.layout, self.tag);
        let empty = self.session.plan.op == Op::WriteImm;
        let first = self.receives_posted;
        let Session { qp, incoming, .. } = &mut self.session;
        let mut slot = first % layout.target_slots;
        let posted = qp.post_recv(|batch| {
            for number in first..first + count {
                let start = layout.start(slot);
                let range = start - layout.header..start + layout.size;
                if empty { batch.recv_nothing() } else { batch.recv(incoming.slice(range)) }.id(tag | number);
                slot = if slot + 1 == layout.target_slots { 0 } else { slot + 1 };
            }
        });
        self.receives_posted += count;
        posted.context(|| format!("post {count} receives"))
    }

    /// Sends with smaller numbers have completed.
    #[inline]
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.session.sends.done(self.session.flow as usize)
    }

    /// Waits until the sends with numbers below `sequence` have completed.
    ///
    /// # Errors
    /// One of them failed, or none came in time.
    #[inline]
    pub fn reap(&mut self, sequence: u64) -> Result<()> {
        while self.completed() < sequence {
            self.reap_some()?;
        }
        Ok(())
    }

    /// Waits until at least one more send has completed, of this queue pair or of another of the thread.
    ///
    /// # Errors
    /// It failed, or none came in time.
    #[inline]
    pub fn reap_some(&mut self) -> Result<()> {
        let Session { sends, watch, .. } = &self.session;
        let count = sends.wait(&mut self.taken, watch, "completion")?;
        for wc in self.taken.iter().take(count) {
            if wc.ok().is_err() {
                return Err(failure(wc, sends));
            }
            sends.note(wc);
        }
        Ok(())
    }

    /// Waits for receive completions, at most `most`, and hands each to `each`.
    ///
    /// # Errors
    /// One of them failed, or none came in time.
    #[inline]
    pub fn receive_some(&mut self, most: usize, mut each: impl FnMut(&WorkCompletion)) -> Result<u64> {
        let Session { sends, receives, watch, .. } = &self.session;
        let room = self.taken.get_mut(..most.clamp(1, BATCH)).unwrap_or_default();
        let count = receives.wait(room, watch, "message")?;
        for wc in self.taken.iter().take(count) {
            if wc.ok().is_err() {
                return Err(failure(wc, sends));
            }
            each(wc);
        }
        Ok(count as u64)
    }

    /// Waits for one receive completion.
    ///
    /// # Errors
    /// It failed, or none came in time.
    #[inline]
    pub fn receive_one(&mut self) -> Result<Arrival> {
        let Session { sends, receives, watch, .. } = &self.session;
        let mut one = [WorkCompletion::default()];
        receives.wait(&mut one, watch, "message")?;
        let [wc] = one;
        if wc.ok().is_err() {
            return Err(failure(&wc, sends));
        }
        Ok(Arrival::Completion(wc))
    }

    /// Watches this side's memory until the end of message `sequence` is there.
    ///
    /// # Errors
    /// It did not come in time, or a send of this side failed.
    #[inline]
    pub fn watch_memory(&mut self, sequence: u64, pattern: &Pattern) -> Result<Arrival> {
        let end = (sequence % self.layout.target_slots + 1) as usize * self.layout.stride;
        let (word, byte) = (pattern.last_word(sequence), pattern.last_byte(sequence));
        let wide = self.layout.size >= 8;
        let mut spins = Spins::default();
        loop {
            let seen = self.session.incoming.load_u64(end - 8);
            let [.., last] = seen.to_ne_bytes();
            if (wide && seen == word) || (!wide && last == byte) {
                return Ok(Arrival::Memory);
            }
            tbrdma::relax(spins.count());
            if self.session.watch.turn(&mut spins, "message")? {
                self.notice_failures()?;
            }
        }
    }

    /// Checks a message that has arrived: its length, its order, its immediate data and every byte.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn check(&mut self, sequence: u64, arrival: &Arrival, pattern: &Pattern) -> Result<(), String> {
        if let Arrival::Completion(wc) = arrival {
            self.check_completion(sequence, wc)?;
        }
        self.check_bytes(sequence, pattern, sequence, None)
    }

    /// Checks what the completion of message `sequence` says.
    ///
    /// # Errors
    /// What is wrong, in one line.
    #[inline]
    pub fn check_completion(&self, sequence: u64, wc: &WorkCompletion) -> Result<(), String> {
        let header = if self.session.plan.op == Op::WriteImm { 0 } else { self.layout.header };
        let imm_right = !self.session.plan.op.has_imm() || wc.imm_data == sequence as u32;
        if wc.wr_id == self.tag | sequence && wc.byte_len as usize == self.layout.size + header && imm_right {
            return Ok(());
        }
        Err(format!(
            "message {sequence} completed receive {} with {} bytes (expected {}) and immediate {:#x}",
            wc.wr_id ^ self.tag,
            wc.byte_len,
            self.layout.size + header,
            wc.imm_data
        ))
    }

    /// Checks every byte of the target's slot of message `sequence` against `pattern`'s number `number`, or against that
    /// with a stamp over it.
    ///
    /// # Errors
    /// Which byte is wrong, in one line.
    pub fn check_bytes(
        &mut self,
        sequence: u64,
        pattern: &Pattern,
        number: u64,
        stamp: Option<u64>,
    ) -> Result<(), String> {
        let start = self.layout.start(sequence % self.layout.target_slots);
        let read = self.session.incoming.read(start, &mut self.scratch);
        self.whole(sequence, read)?;
        self.compare(sequence, pattern, number, stamp)
    }

    /// Checks every byte of this side's own slot of operation `sequence`: the result of a read.
    ///
    /// # Errors
    /// Which byte is wrong, in one line.
    pub fn check_result(&mut self, sequence: u64, pattern: &Pattern, number: u64) -> Result<(), String> {
        let start = self.layout.start(sequence % self.layout.depth);
        let read = self.session.outgoing.read(start, &mut self.scratch);
        self.whole(sequence, read)?;
        self.compare(sequence, pattern, number, None)
    }

    /// Checks what atomic operation `sequence` returned.
    ///
    /// # Errors
    /// What it returned instead, in one line.
    pub fn check_atomic(&self, sequence: u64) -> Result<(), String> {
        let start = self.layout.start(sequence % self.layout.depth);
        let mut bytes = [0; 8];
        self.whole(sequence, self.session.outgoing.read(start, &mut bytes) + self.layout.size - bytes.len())?;
        let (got, want) = (u64::from_ne_bytes(bytes), atomic_value(sequence));
        if got == want {
            Ok(())
        } else {
            Err(format!("atomic {sequence} returned {got:#x} instead of {want:#x}"))
        }
    }

    /// A message that could not be read whole would be compared with what was read before it.
    #[inline]
    fn whole(&self, sequence: u64, read: usize) -> Result<(), String> {
        if read == self.layout.size {
            return Ok(());
        }
        Err(format!("message {sequence}: only {read} of {} bytes could be read back", self.layout.size))
    }

    fn compare(
        &self,
        sequence: u64,
        pattern: &Pattern,
        number: u64,
        stamp: Option<u64>,
    ) -> Result<(), String> {
        let wrong = match stamp.filter(|_| self.layout.size >= 8) {
            None => pattern.mismatch(number, &self.scratch),
            Some(stamp) => {
                let mut want = vec![0; self.layout.size];
                pattern.fill(number, &mut want);
                if let Some(first) = want.first_chunk_mut::<8>() {
                    *first = stamp.to_ne_bytes();
                }
                self.scratch.iter().zip(&want).position(|(got, want)| got != want)
            }
        };
        match wrong {
            None => Ok(()),
            Some(at) => {
                Err(format!("message {sequence}: byte {at} of {} is not what was sent", self.layout.size))
            }
        }
    }

    /// Takes what sends have completed so far without waiting; a failure is a reason to stop waiting for an answer.
    #[cold]
    fn notice_failures(&mut self) -> Result<()> {
        let sends = &self.session.sends;
        let count = sends.poll(&mut self.taken);
        for wc in self.taken.iter().take(count) {
            if wc.ok().is_err() {
                return Err(failure(wc, sends));
            }
            sends.note(wc);
        }
        Ok(())
    }
}

/// Marks the message at `start` with its number.
#[inline]
fn stamp(outgoing: &Area, plain: &mut [u8], start: usize, sequence: u64) {
    let bytes = sequence.to_ne_bytes();
    match plain.get_mut(start..start + bytes.len()) {
        Some(place) => place.copy_from_slice(&bytes),
        None => {
            if !outgoing.store_u64(start, sequence) {
                outgoing.write(start, &bytes);
            }
        }
    }
}
