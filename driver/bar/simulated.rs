//! A window between two sides of one thread, on a bus that does all that PCIe permits, for tests: memory that combines writes, buffers that leave in any
//! order, partly filled and late, posted writes that arrive one after the other, some time. Every access is counted.

#![allow(clippy::unwrap_used, reason = "tests alone use it, and a test may fail")]

use super::window::{Gone, Life, Window, Words};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use tbrdma_proto::fault::Random;

/// Bytes of a buffer that combines writes.
const LINE: usize = 64;

/// What was done to a window, by kind. There is no count of loads from the peer's area: nothing can do that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Words stored into the peer's area.
    pub(crate) stores: u64,
    /// Copies into the peer's area.
    pub(crate) copies_out: u64,
    /// Fences of either kind.
    pub(crate) fences: u64,
    /// Doorbells rung.
    pub(crate) rings: u64,
    /// Words loaded from the own area.
    pub(crate) loads: u64,
    /// Copies out of the own area.
    pub(crate) copies_in: u64,
}

/// Bytes of a line, and a bit for each that was written.
#[derive(Clone, Copy, Debug)]
struct Line {
    number: usize,
    bytes: [u8; LINE],
    written: u64,
}

impl Line {
    /// Those of its bytes alone which a mask names.
    fn only(&self, mask: u64) -> Option<Self> {
        let written = self.written & mask;
        (written != 0).then_some(Self { written, ..*self })
    }
}

/// What is on its way.
#[derive(Debug)]
enum Posted {
    Write(Line),
    Interrupt,
}

/// One way.
#[derive(Debug)]
struct Way {
    /// Buffers that have not left.
    combining: Vec<Line>,
    /// What has left, in order.
    posted: VecDeque<Posted>,
    /// The area at its end.
    area: Vec<u8>,
    interrupt: bool,
    random: Random,
    counts: Counts,
}

impl Way {
    /// One of the buffers leaves, any. One that is not full leaves in aligned pieces of 8 bytes, which is what an aligned word is: some of them now, others
    /// behind them.
    fn evict_any(&mut self) {
        if self.combining.is_empty() {
            return;
        }
        let which = self.random.next_u32() as usize % self.combining.len();
        let line = self.combining.swap_remove(which);
        // A bit for each byte.
        let mask = u64::MAX.checked_shl(self.random.next_u32() % 9 * 8).unwrap_or(0);
        self.posted.extend([mask, !mask].into_iter().filter_map(|mask| line.only(mask)).map(Posted::Write));
    }

    /// All of them, in any order.
    fn drain(&mut self) {
        while !self.combining.is_empty() {
            self.evict_any();
        }
        self.counts.fences += 1;
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.area.len()) {
            return;
        }
        for (at, byte) in (offset..).zip(bytes) {
            let number = at / LINE;
            let known = self.combining.iter().rposition(|line| line.number == number);
            let index = known.unwrap_or_else(|| {
                // Processors have a dozen of these buffers; and any may leave at any time.
                if self.combining.len() >= 12 || self.random.next_u32().is_multiple_of(4) {
                    self.evict_any();
                }
                self.combining.push(Line { number, bytes: [0; LINE], written: 0 });
                self.combining.len() - 1
            });
            let line = &mut self.combining[index];
            line.bytes[at % LINE] = *byte;
            line.written |= 1 << (at % LINE);
        }
        if self.random.next_u32().is_multiple_of(4) {
            self.evict_any();
        }
    }

    /// The next thing arrives; false if nothing is under way.
    fn deliver(&mut self) -> bool {
        match self.posted.pop_front() {
            None => return false,
            Some(Posted::Interrupt) => self.interrupt = true,
            Some(Posted::Write(line)) => {
                let into = &mut self.area[line.number * LINE..][..LINE];
                for (at, (into, from)) in into.iter_mut().zip(line.bytes).enumerate() {
                    if line.written >> at & 1 == 1 {
                        *into = from;
                    }
                }
            }
        }
        true
    }
}

/// One side of a simulated window.
#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    out: Arc<Mutex<Way>>,
    inward: Arc<Mutex<Way>>,
    /// Whether it is one memory, which combines nothing and delays nothing.
    is_coherent: bool,
    life: Arc<Mutex<Life>>,
    gone: Arc<Mutex<Option<Gone>>>,
    /// What is waited for; `None` where nobody can ring.
    fd: Option<Arc<crate::sys::eventfd::EventFd>>,
}

impl Simulated {
    /// The two sides of a window with areas of so many bytes.
    pub(crate) fn pair(bytes: usize, is_coherent: bool, seed: u64) -> [Self; 2] {
        let way = |stream| {
            let random = Random::new(seed).stream(stream);
            let area = vec![0; bytes];
            let (combining, posted, counts) = Default::default();
            Arc::new(Mutex::new(Way { combining, posted, area, interrupt: false, random, counts }))
        };
        let ways = [way(0), way(1)];
        [0, 1].map(|side: usize| Self {
            out: Arc::clone(&ways[side]),
            inward: Arc::clone(&ways[1 - side]),
            is_coherent,
            life: Arc::new(Mutex::new(Life::Alive)),
            gone: Arc::default(),
            fd: Some(Arc::new(crate::sys::eventfd::EventFd::new().unwrap())),
        })
    }

    /// The same, where nobody can ring.
    pub(crate) fn mute(self) -> Self {
        Self { fd: None, ..self }
    }

    fn out(&self) -> MutexGuard<'_, Way> {
        self.out.lock().unwrap()
    }

    fn inward(&self) -> MutexGuard<'_, Way> {
        self.inward.lock().unwrap()
    }

    fn settle(&self, way: &mut Way) {
        if self.is_coherent {
            way.drain();
            way.counts.fences -= 1;
            while way.deliver() {}
        }
    }

    /// Something that is on its way to this side arrives; false if nothing is.
    pub(crate) fn deliver(&self) -> bool {
        self.inward().deliver()
    }

    /// Whether the peer has rung.
    pub(crate) fn is_rung(&self) -> bool {
        self.inward().interrupt
    }

    /// What this side has done.
    pub(crate) fn counts(&self) -> Counts {
        let (out, inward) = (self.out().counts, self.inward().counts);
        Counts { loads: inward.loads, copies_in: inward.copies_in, ..out }
    }

    /// Says this of the peer.
    pub(crate) fn set_peer(&self, life: Life) {
        *self.life.lock().unwrap() = life;
    }

    /// Takes the window away.
    pub(crate) fn take_away(&self, gone: Gone) {
        *self.gone.lock().unwrap() = Some(gone);
        self.inward().area.fill(0xff);
    }

    /// Writes anything into this side's area, as a peer may.
    pub(crate) fn scribble(&self, offset: usize, bytes: &[u8]) {
        let mut way = self.inward();
        let end = (offset + bytes.len()).min(way.area.len());
        if let Some(area) = way.area.get_mut(offset..end) {
            area.copy_from_slice(&bytes[..area.len()]);
        }
    }
}

impl Words for Simulated {
    fn store(&self, offset: usize, word: u64) {
        let mut way = self.out();
        way.counts.stores += 1;
        way.write(offset, &word.to_ne_bytes());
        self.settle(&mut way);
    }

    fn order(&self) {
        self.out().drain();
    }

    fn flush(&self) {
        self.out().drain();
    }

    fn load(&self, offset: usize) -> u64 {
        let mut way = self.inward();
        way.counts.loads += 1;
        let word = way.area.get(offset..).and_then(|rest| rest.first_chunk());
        word.map_or(u64::MAX, |word| u64::from_ne_bytes(*word))
    }

    fn reset(&self, offset: usize, word: u64) {
        let mut way = self.inward();
        if let Some(place) = way.area.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()) {
            *place = word.to_ne_bytes();
        }
    }

    fn meets(&self) -> bool {
        self.is_coherent
    }
}

impl Window for Simulated {
    fn describe(&self) -> String {
        "simulated".to_owned()
    }

    fn outbound_bytes(&self) -> usize {
        self.out().area.len()
    }

    fn inbound_bytes(&self) -> usize {
        self.inward().area.len()
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let mut way = self.out();
        way.counts.copies_out += 1;
        way.write(offset, bytes);
        self.settle(&mut way);
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        let mut way = self.inward();
        way.counts.copies_in += 1;
        if let Some(found) = way.area.get(offset..offset + bytes.len()) {
            bytes.copy_from_slice(found);
        }
    }

    fn doorbell(&self) -> Option<u16> {
        Some(7)
    }

    fn ring(&self, doorbell: u16) -> io::Result<()> {
        assert!([0, 7].contains(&doorbell));
        let mut way = self.out();
        way.counts.rings += 1;
        // It goes the same way, so it overtakes nothing that has left; what still is in a buffer it does overtake.
        way.posted.push_back(Posted::Interrupt);
        self.settle(&mut way);
        Ok(())
    }

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(|fd| fd.as_fd())
    }

    fn quiet(&self) {
        self.inward().interrupt = false;
    }

    fn peer(&self) -> Life {
        *self.life.lock().unwrap()
    }

    fn gone(&self) -> Option<Gone> {
        *self.gone.lock().unwrap()
    }
}
