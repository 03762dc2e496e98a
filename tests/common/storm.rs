//! A process that sends without end, until it is killed: messages that say who sent them, in which order, and whether they are whole.
#![allow(dead_code, reason = "each test file uses its own part")]

use super::process::{hear, say};
use super::puppet::{End, MEMORY};
use tbrdma::{QpType, WorkCompletion};

/// What a storm is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storm {
    /// SENDs into the other's own receives.
    Send,
    /// The same, long: killed in the middle of a copy.
    SendLong,
    /// SENDs into a shared receive queue.
    Shared,
    /// Datagrams.
    Datagram,
    /// WRITEs.
    Write,
    /// READs.
    Read,
    /// Atomics.
    Atomic,
    /// WRITEs with immediate.
    WriteImm,
    /// Contexts opened, introduced and closed.
    Meet,
}

impl Storm {
    pub(crate) const ALL: [Self; 9] = [
        Self::Send,
        Self::SendLong,
        Self::Shared,
        Self::Datagram,
        Self::Write,
        Self::Read,
        Self::Atomic,
        Self::WriteImm,
        Self::Meet,
    ];

    pub(crate) fn parse(name: &str) -> Self {
        Self::ALL.into_iter().find(|storm| format!("{storm:?}") == name).unwrap()
    }

    pub(crate) fn qp_type(self) -> QpType {
        if matches!(self, Self::Datagram | Self::Meet) { QpType::Ud } else { QpType::Rc }
    }

    /// Bytes of a message.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::SendLong => 60_000,
            Self::Write | Self::Read => 40_000,
            Self::Atomic => 8,
            Self::Shared => 3000,
            _ => 1000,
        }
    }

    /// Does every message take a receive of the other's own queue?
    pub(crate) fn takes_receives(self) -> bool {
        matches!(self, Self::Send | Self::SendLong | Self::WriteImm)
    }
}

/// The words of message `number` of sender `who`.
fn words(who: u64, number: u64, len: usize) -> impl Iterator<Item = u64> {
    let seed = (who << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [who, number].into_iter().chain((2..).map(move |at: u64| seed.wrapping_add(at))).take(len / 8)
}

/// Message `number` of sender `who`.
pub(crate) fn message(who: u64, number: u64, len: usize) -> Vec<u8> {
    words(who, number, len).flat_map(u64::to_le_bytes).collect()
}

/// Sender and number of a message; fails if it is not whole.
pub(crate) fn whole(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(bytes[8 * at..8 * at + 8].try_into().unwrap());
    let (who, number) = (word(0), word(1));
    for (at, expected) in words(who, number, bytes.len()).enumerate() {
        assert_eq!(word(at), expected, "word {at} of message {number} of {who} ({} bytes)", bytes.len());
    }
    (who, number)
}

/// Work requests under way at a time.
const DEPTH: usize = 8;

/// Child: the storm that the first line names, at the card that the second one has, once told to go.
pub(crate) fn rage() {
    let line = hear();
    let (name, who) = line.split_once(' ').unwrap();
    let (storm, who) = (Storm::parse(name), who.parse::<u64>().unwrap());
    let mut end = End::new(storm.qp_type(), false);
    // Whoever is raged at posts receives when it gets to it.
    end.with.rnr_retry = 7;
    say(end.card());
    let card = hear();
    let card = card.strip_prefix("connect ").unwrap();
    if storm != Storm::Meet {
        end.connect(card).unwrap();
    }
    say("ok");
    assert_eq!(hear(), "go");
    let mut wcs = [WorkCompletion::default(); DEPTH];
    let mut under_way = 0;
    for number in 0.. {
        if storm == Storm::Meet {
            let mut end = End::new(QpType::Ud, false);
            end.connect(card).unwrap();
            continue;
        }
        let (size, slot) = (storm.size(), number as usize % DEPTH);
        let at = slot * 65_536 % MEMORY;
        if !matches!(storm, Storm::Read | Storm::Atomic) {
            end.mr.write(at, &message(who, number, size));
        }
        let slice = end.mr.slice(at..at + size);
        let remote = end.remote.at(at as u64);
        let to = end.to.as_ref();
        end.qp
            .post(|wr| match storm {
                Storm::Write => drop(wr.write(slice, remote)),
                Storm::WriteImm => drop(wr.write_with_imm(slice, remote, number as u32)),
                Storm::Read => drop(wr.read(slice, remote)),
                Storm::Atomic => drop(wr.fetch_and_add(slice, remote, 1)),
                Storm::Datagram => {
                    let (ah, qpn) = to.unwrap();
                    wr.send(slice).to(ah, *qpn, super::puppet::QKEY);
                }
                _ => drop(wr.send(slice)),
            })
            .unwrap();
        under_way += 1;
        while under_way == DEPTH {
            for wc in end.cq.poll(&mut wcs) {
                wc.ok().unwrap();
                under_way -= 1;
            }
        }
    }
}
