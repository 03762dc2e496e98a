//! Steering: which of the sockets at one address and port a packet goes to.
//!
//! The sockets of all processes that share an address form a group (`SO_REUSEPORT`), and a program attached to the group picks one by its
//! position. It looks at the tag in the packet's queue pair number. The kernel does not tell positions, and moves the last socket into the
//! place of one that closes; so they are found out by *probes*: datagrams to our own address which every program of ours sends to the position
//! they name, and whose receiver answers with its slot. A position beyond the last goes to some socket of the group, whose slot has
//! been seen then: so the end is found too.
//!
//! Nothing here has to be right for packets to arrive: a process that gets another's packet hands it on, and that is when it looks again.

use crate::sys::udp::{Instruction, instruction};
use nix::libc::{BPF_ABS, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use std::time::Duration;
use tbrdma_proto::Time;

/// What every probe begins with. As a packet it would be of no known opcode and for queue pair 0, which nobody has.
const MAGIC: [u8; 4] = [0xff, b'T', b'b', b'P'];

/// Bytes of a probe.
pub(super) const PROBE_BYTES: usize = 4 + 4 + 8 + 4;

/// Where in a packet the tag is: the top byte of the destination queue pair number.
const TAG_OFFSET: u32 = 5;

/// More positions than there are slots are never tried.
const MAX_POSITIONS: u32 = 255;

/// How long an answer may take. Its sender may have to be woken, and may have lost the processor.
const PATIENCE: Duration = Duration::from_millis(20);

/// How often a probe is sent before its position counts as one that does not answer: its process is stopped.
const TRIES: u32 = 3;

/// So many silent positions in a row are taken for the end.
const SILENT_END: usize = 3;

/// How often a search is repeated at once that has not found ourselves.
const REPEATS: u32 = 3;

/// The rests between two times of finding out, from the first to the longest.
const FIRST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_secs(2);

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The position it is for.
    pub(super) index: u32,
    /// The number of this time of finding out.
    pub(super) nonce: u64,
    /// The slot that asks.
    pub(super) asker: u8,
}

impl Probe {
    pub(super) fn encode(&self) -> [u8; PROBE_BYTES] {
        let mut bytes = [0; PROBE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.index.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.nonce.to_be_bytes());
        bytes[16] = self.asker;
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (index, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let &[asker, 0, 0, 0] = rest else { return None };
        Some(Self { index: u32::from_be_bytes(*index), nonce: u64::from_be_bytes(*nonce), asker })
    }
}

/// The program that sends a probe to the position it names, and a packet to the position of its tag. Any other tag gets a position that does
/// not exist, for which the kernel takes some socket of the group.
pub(super) fn program(positions: &[Option<u8>]) -> Vec<Instruction> {
    let load_word = |at| instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, at);
    let load_byte = |at| instruction(BPF_LD | BPF_B | BPF_ABS, 0, 0, at);
    let equal = |value, then, otherwise| instruction(BPF_JMP | BPF_JEQ | BPF_K, then, otherwise, value);
    let answer = |position| instruction(BPF_RET | BPF_K, 0, 0, position);
    const BPF_A: u32 = 0x10;
    let mut program = vec![
        load_word(0),
        equal(u32::from_be_bytes(MAGIC), 0, 2),
        load_word(4),
        instruction(BPF_RET | BPF_A, 0, 0, 0),
        load_byte(TAG_OFFSET),
    ];
    for (position, tag) in positions.iter().enumerate() {
        if let Some(tag) = tag {
            program.push(equal(u32::from(*tag), 0, 1));
            program.push(answer(position as u32));
        }
    }
    program.push(answer(u32::MAX));
    program
}

/// Finding out, for one address. It says what to do; the link does it.
#[derive(Debug)]
pub(super) struct Steering {
    /// Our own slot.
    own: u8,
    /// What is being found out, if anything is.
    search: Option<Search>,
    /// Whether a packet has gone astray since the last search.
    wanted: bool,
    /// No search before that.
    not_before: Time,
    rest: Duration,
    /// Searches that have not found ourselves and are to be repeated.
    repeats: u32,
    repeat: bool,
}

#[derive(Debug)]
struct Search {
    nonce: u64,
    positions: Vec<Option<u8>>,
    tries: u32,
    /// When the current probe counts as lost.
    deadline: Time,
}

/// What the link is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing now.
    Rest,
    /// Send a probe for this position with this number.
    Probe {
        /// The position.
        index: u32,
        /// The number.
        nonce: u64,
    },
    /// Attach the program for these positions.
    Attach(Vec<Option<u8>>),
}

impl Steering {
    /// Nothing is known yet; the first search is due at once.
    pub(super) fn new(own: u8) -> Self {
        Self {
            own,
            search: None,
            wanted: true,
            not_before: Time::ZERO,
            rest: FIRST_REST,
            repeats: 0,
            repeat: false,
        }
    }

    /// A packet came that belongs to another live slot.
    pub(super) fn astray(&mut self) {
        self.wanted = true;
    }

    /// Whether positions are being found out now.
    pub(super) fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(super) fn deadline(&self) -> Option<Time> {
        match &self.search {
            Some(search) => Some(search.deadline),
            None => self.wanted.then_some(self.not_before),
        }
    }

    /// Begins a search that is due, or goes on with one whose probe got no answer. `nonce` is a fresh random number.
    pub(super) fn poll(&mut self, now: Time, nonce: u64) -> Step {
        match &mut self.search {
            None if self.wanted && now >= self.not_before => {
                // A search that follows soon on another has not helped, so they become rarer; a quiet time makes them quick again.
                self.rest = if now.since(self.not_before) > LONGEST_REST {
                    FIRST_REST
                } else {
                    (self.rest * 2).min(LONGEST_REST)
                };
                self.wanted = false;
                self.repeats = 0;
                self.begin(now, nonce)
            }
            None => Step::Rest,
            Some(search) if now < search.deadline => Step::Rest,
            Some(search) if search.tries < TRIES => {
                search.tries += 1;
                search.deadline = now + PATIENCE;
                Step::Probe { index: search.positions.len() as u32, nonce: search.nonce }
            }
            Some(search) => {
                search.positions.push(None);
                let silent = search.positions.iter().rev().take_while(|tag| tag.is_none()).count();
                if silent < SILENT_END {
                    return self.next(now);
                }
                search.positions.truncate(search.positions.len() - silent);
                self.finish(now)
            }
        }
    }

    /// A probe was answered by slot `tag`.
    pub(super) fn answered(&mut self, now: Time, nonce: u64, index: u32, tag: u8) -> Step {
        let Some(search) = &mut self.search else { return Step::Rest };
        if search.nonce != nonce || search.positions.len() as u32 != index {
            return Step::Rest;
        }
        if search.positions.contains(&Some(tag)) {
            return self.finish(now);
        }
        search.positions.push(Some(tag));
        self.next(now)
    }

    /// After the program of a search has been attached: repeats the search if it has not found ourselves. We are one of the group, so its probes
    /// did not go where they said, as none do before the first program is attached. `nonce` is a fresh random number.
    pub(super) fn attached(&mut self, now: Time, nonce: u64) -> Step {
        if std::mem::take(&mut self.repeat) && self.search.is_none() {
            self.begin(now, nonce)
        } else {
            Step::Rest
        }
    }

    fn begin(&mut self, now: Time, nonce: u64) -> Step {
        self.search = Some(Search { nonce, positions: Vec::new(), tries: 1, deadline: now + PATIENCE });
        Step::Probe { index: 0, nonce }
    }

    fn next(&mut self, now: Time) -> Step {
        let Some(search) = &mut self.search else { return Step::Rest };
        let (index, nonce) = (search.positions.len() as u32, search.nonce);
        search.tries = 1;
        search.deadline = now + PATIENCE;
        if index >= MAX_POSITIONS { self.finish(now) } else { Step::Probe { index, nonce } }
    }

    fn finish(&mut self, now: Time) -> Step {
        self.not_before = now + self.rest;
        let Some(search) = self.search.take() else { return Step::Rest };
        self.repeat = !search.positions.contains(&Some(self.own)) && self.repeats < REPEATS;
        self.repeats += u32::from(self.repeat);
        Step::Attach(search.positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins a search and answers its probes from these slots, where `None` does not answer; what it finds, and when.
    fn search(steering: &mut Steering, mut now: Time, slots: &[Option<u8>]) -> (Vec<Option<u8>>, Time) {
        let mut step = steering.poll(now, 7);
        loop {
            let (index, nonce) = match step {
                Step::Probe { index, nonce } => (index, nonce),
                Step::Attach(positions) => return (positions, now),
                Step::Rest => panic!("nothing to do in the middle of a search"),
            };
            assert_eq!(nonce, 7);
            // Beyond the last one, the kernel takes any.
            let owner = slots.get(index as usize).copied().unwrap_or(slots[0]);
            step = match owner {
                Some(tag) => steering.answered(now, nonce, index, tag),
                None => {
                    now = steering.deadline().unwrap();
                    steering.poll(now, 8)
                }
            };
        }
    }

    #[test]
    fn positions_are_found_to_the_last() {
        for slots in [&[Some(9)][..], &[Some(9), Some(4), Some(200)], &[Some(1), None, Some(3)]] {
            let (found, took) = search(&mut Steering::new(9), Time::ZERO, slots);
            assert_eq!(found, slots);
            let silent = slots.iter().filter(|slot| slot.is_none()).count() as u32;
            assert_eq!(took, Time::ZERO + PATIENCE * TRIES * silent);
        }
        // Nobody answers: that ends too.
        assert_eq!(search(&mut Steering::new(9), Time::ZERO, &[None; 9]).0, []);
    }

    #[test]
    fn answers_to_other_probes_are_not_heard() {
        let mut steering = Steering::new(1);
        assert_eq!(steering.answered(Time::ZERO, 7, 0, 1), Step::Rest);
        assert_eq!(steering.poll(Time::ZERO, 7), Step::Probe { index: 0, nonce: 7 });
        assert_eq!(steering.answered(Time::ZERO, 6, 0, 1), Step::Rest);
        assert_eq!(steering.answered(Time::ZERO, 7, 1, 1), Step::Rest);
        assert_eq!(steering.answered(Time::ZERO, 7, 0, 1), Step::Probe { index: 1, nonce: 7 });
        assert_eq!(steering.answered(Time::ZERO, 7, 0, 1), Step::Rest);
    }

    #[test]
    fn searches_that_do_not_help_become_rare() {
        let mut steering = Steering::new(1);
        let (_, mut now) = search(&mut steering, Time::ZERO, &[Some(1)]);
        assert_eq!(steering.deadline(), None);
        let mut rests = Vec::new();
        for _ in 0..10 {
            steering.astray();
            let due = steering.deadline().unwrap();
            assert_eq!(steering.poll(Time(due.0 - 1), 7), Step::Rest);
            rests.push(due.since(now));
            (_, now) = search(&mut steering, due, &[Some(1)]);
        }
        assert!(rests.is_sorted() && rests[0] < LONGEST_REST && rests[9] == LONGEST_REST, "{rests:?}");
        // After a quiet time the next is quick, and so is the one after it.
        now = now + LONGEST_REST * 4;
        steering.astray();
        assert!(steering.deadline().unwrap() <= now);
        (_, now) = search(&mut steering, now, &[Some(1)]);
        steering.astray();
        assert_eq!(steering.deadline().unwrap().since(now), FIRST_REST);
    }

    #[test]
    fn a_search_that_does_not_find_ourselves_is_repeated_at_once() {
        let mut steering = Steering::new(4);
        assert_eq!(steering.attached(Time::ZERO, 7), Step::Rest, "there was no search");
        // Without a program, all probes go to one socket.
        let (found, now) = search(&mut steering, Time::ZERO, &[Some(9)]);
        assert_eq!(found, [Some(9)]);
        let mut step = steering.attached(now, 8);
        for (index, tag) in [(0, 9), (1, 4), (2, 9)] {
            assert_eq!(step, Step::Probe { index, nonce: 8 });
            step = steering.answered(now, 8, index, tag);
        }
        assert_eq!(step, Step::Attach(vec![Some(9), Some(4)]));
        assert_eq!(steering.attached(now, 9), Step::Rest);
        // It ends if we are never found.
        let mut repeats = 0;
        steering.astray();
        let due = steering.deadline().unwrap();
        let (_, mut now) = search(&mut steering, due, &[Some(9)]);
        while steering.attached(now, 7) != Step::Rest {
            repeats += 1;
            assert_eq!(steering.answered(now, 7, 0, 9), Step::Probe { index: 1, nonce: 7 });
            assert_eq!(steering.answered(now, 7, 1, 9), Step::Attach(vec![Some(9)]));
            now = now + PATIENCE;
        }
        assert_eq!(repeats, REPEATS);
    }

    #[test]
    fn probes_are_no_packets_and_packets_no_probes() {
        let probe = Probe { index: 3, nonce: 0x0102_0304_0506_0708, asker: 200 };
        let bytes = probe.encode();
        assert_eq!(Probe::parse(&bytes), Some(probe));
        assert_eq!(bytes[usize::try_from(TAG_OFFSET).unwrap()], 0, "a tag that no slot has");
        for len in 0..bytes.len() {
            assert_eq!(Probe::parse(&bytes[..len]), None);
        }
        assert_eq!(Probe::parse(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Probe::parse(&[4; PROBE_BYTES]), None);
    }
}
