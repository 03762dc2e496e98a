//! Slots: how the processes that share an address tell their packets apart, and how they reach each other.
//!
//! An open device claims one of 254 slots, whose number is the tag of its queue pair numbers, by taking the abstract Unix name of that slot.
//! The kernel gives the name back when the process ends, however it ends. Messages between slots carry packets that came to the wrong process,
//! and answers to probes (see `steering`).

use super::super::QpnTag;
use super::socket;
use crate::error::{Error, Result};
use crate::sys::datagram_socket::DatagramSocket;
use crate::sys::process::effective_user_id;
use crate::sys::random::random_u32;
use crate::sys::udp::{self, Address, MESSAGE_BYTES};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;
use tbrdma_proto::Gid;

/// Tags that slots have. Queue pairs 0 and 1 and the multicast one are never ours.
const TAGS: std::ops::RangeInclusive<u8> = 1..=254;

const FORWARD: [u8; 4] = *b"TBF1";
const ANSWER: [u8; 4] = *b"TBA1";

/// Bytes in front of forwarded packets.
const FORWARD_HEADER: usize = 4 + 16 + 16 + 2 + 2 + 2 + 1 + 1;

/// Bytes of an answer.
const ANSWER_BYTES: usize = 4 + 16 + 8 + 4 + 1;

/// A claimed slot.
#[derive(Debug)]
pub(super) struct Slot {
    interface: String,
    user: u32,
    tag: QpnTag,
    socket: DatagramSocket,
    buffer: Mutex<Vec<u8>>,
}

/// "Probe `index` came to my socket."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The address that was probed.
    pub(super) gid: Gid,
    /// The number that the asker gave the probe.
    pub(super) nonce: u64,
    /// The position that was probed.
    pub(super) index: u32,
    /// The slot whose socket is there.
    pub(super) tag: u8,
}

/// Packets that came to the wrong process: one datagram, or several of one train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forwarded<'a> {
    /// The address at which they arrived.
    pub(super) gid: Gid,
    /// The first one's IPv4 identification, as [`Datagram::ident_hint`](crate::link::Datagram); the others count on.
    pub(super) first_ident: u16,
    /// Their bytes, and what is said of all of them.
    pub(super) message: udp::Message<'a>,
}

/// A message from another slot.
pub(super) enum Message<'a> {
    /// Packets of ours that came to its socket.
    Packets(Forwarded<'a>),
    /// An answer to a probe of ours.
    Answer(Answer),
    /// Nothing that we know, or from somebody else.
    Strange,
}

impl Slot {
    /// Claims a free slot of an interface.
    pub(super) fn claim(interface: &str) -> Result<Self> {
        let user = effective_user_id();
        let failed = Error::os("open_device", "claim a slot among the processes that share the interface");
        // Beginning anywhere keeps a tag unused for a while after its process has gone.
        let start = match random_u32() {
            Ok(start) => start,
            Err(error) => return Err(failed(error)),
        };
        let count = TAGS.count() as u32;
        for step in 0..count {
            let tag = QpnTag(*TAGS.start() + (start.wrapping_add(step) % count) as u8);
            match DatagramSocket::bind(&name(user, interface, tag)) {
                Ok(socket) => {
                    let buffer = Mutex::new(vec![0; FORWARD_HEADER + MESSAGE_BYTES]);
                    return Ok(Self { interface: interface.to_owned(), user, tag, socket, buffer });
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::LimitReached {
            call: "open_device",
            what: "processes that have this interface open",
            limit: u64::from(count),
        })
    }

    /// Its tag.
    pub(super) fn tag(&self) -> QpnTag {
        self.tag
    }

    /// Gives packets to the slot they belong to. `ConnectionRefused`: there is no such slot.
    pub(super) fn forward(&self, to: QpnTag, packets: &Forwarded<'_>) -> io::Result<()> {
        let Forwarded { gid, first_ident, message } = packets;
        let mut header = [0; FORWARD_HEADER];
        let port = message.source.port.to_be_bytes();
        let segment = (message.segment as u16).to_be_bytes();
        let network = [message.traffic_class, message.hop_limit];
        let source = socket::gid(&message.source).0;
        fill(
            &mut header,
            &[&FORWARD, &gid.0, &source, &port, &first_ident.to_be_bytes(), &segment, &network],
        );
        self.send(to, &[&header, message.bytes])
    }

    /// Answers a probe that slot `to` sent.
    pub(super) fn answer(&self, to: QpnTag, answer: &Answer) -> io::Result<()> {
        let mut bytes = [0; ANSWER_BYTES];
        let (nonce, index) = (answer.nonce.to_be_bytes(), answer.index.to_be_bytes());
        fill(&mut bytes, &[&ANSWER, &answer.gid.0, &nonce, &index, &[answer.tag]]);
        self.send(to, &[&bytes])
    }

    fn send(&self, to: QpnTag, parts: &[&[u8]]) -> io::Result<()> {
        if !TAGS.contains(&to.0) {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        self.socket.send_to(&name(self.user, &self.interface, to), parts)
    }

    /// Takes the next message; `None` when there is none.
    pub(super) fn receive<R>(&self, visit: impl FnOnce(Message<'_>) -> R) -> io::Result<Option<R>> {
        // A thread that panicked in `visit` left only bytes behind.
        let mut buffer = self.buffer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(len) = self.socket.receive_from(&mut buffer, self.user)? else { return Ok(None) };
        Ok(Some(visit(buffer.get(..len).map_or(Message::Strange, Message::parse))))
    }
}

impl AsFd for Slot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        Self::packets(bytes).or_else(|| Self::answer(bytes)).unwrap_or(Self::Strange)
    }

    fn packets(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&FORWARD)?;
        let (gid, rest) = rest.split_first_chunk()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (ident, rest) = rest.split_first_chunk()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let (&[traffic_class, hop_limit], bytes) = rest.split_first_chunk()?;
        let segment = usize::from(u16::from_be_bytes(*segment));
        let source = Address { port: u16::from_be_bytes(*port), ..socket::address(Gid(*source), 0) };
        (segment > 0).then_some(Self::Packets(Forwarded {
            gid: Gid(*gid),
            first_ident: u16::from_be_bytes(*ident),
            message: udp::Message { bytes, segment, source, traffic_class, hop_limit },
        }))
    }

    fn answer(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&ANSWER)?;
        let (gid, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let &[tag] = rest else { return None };
        let (nonce, index) = (u64::from_be_bytes(*nonce), u32::from_be_bytes(*index));
        Some(Self::Answer(Answer { gid: Gid(*gid), nonce, index, tag }))
    }
}

fn name(user: u32, interface: &str, tag: QpnTag) -> Vec<u8> {
    format!("tbrdma/udp/{user}/{interface}/{}", tag.0).into_bytes()
}

/// Writes `parts` one after the other; the array is as long as they are together.
fn fill(into: &mut [u8], parts: &[&[u8]]) {
    let bytes = parts.iter().flat_map(|part| part.iter());
    into.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::udp::DEFAULT_HOP_LIMIT;

    /// A claimed slot of an interface that no other test has.
    fn slots() -> (Slot, Slot) {
        let interface = format!("test{:x}", random_u32().unwrap());
        (Slot::claim(&interface).unwrap(), Slot::claim(&interface).unwrap())
    }

    #[test]
    fn packets_are_handed_on_with_all_that_is_known_of_them() {
        let (a, b) = slots();
        assert_ne!(a.tag(), b.tag());
        let source = Address { ip: "192.0.2.7".parse().unwrap(), port: 0xc001, scope: 0 };
        let message = udp::Message {
            bytes: b"two packets..",
            segment: 8,
            source,
            traffic_class: 0x63,
            hop_limit: DEFAULT_HOP_LIMIT - 1,
        };
        let packets = Forwarded { gid: "fe80::9".parse().unwrap(), first_ident: 5, message };
        a.forward(b.tag(), &packets).unwrap();
        let seen = b.receive(|message| {
            let Message::Packets(got) = message else { panic!("no packets") };
            assert_eq!(got, packets);
        });
        assert_eq!(seen.unwrap(), Some(()));
        assert!(b.receive(|_| ()).unwrap().is_none());
        let answer = Answer { gid: packets.gid, nonce: 1 << 40, index: 254, tag: 9 };
        b.answer(a.tag(), &answer).unwrap();
        a.receive(|message| assert!(matches!(message, Message::Answer(got) if got == answer)))
            .unwrap()
            .unwrap();
    }

    #[test]
    fn a_slot_that_nobody_has_refuses() {
        let (a, b) = slots();
        let tag = b.tag();
        drop(b);
        let answer = Answer { gid: Gid::default(), nonce: 0, index: 0, tag: 0 };
        for tag in [tag, QpnTag(0), QpnTag(255)] {
            assert_eq!(a.answer(tag, &answer).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn what_makes_no_sense_is_strange() {
        let mut bytes = vec![0; FORWARD_HEADER + 9];
        bytes[..4].copy_from_slice(&FORWARD);
        assert!(matches!(Message::parse(&bytes), Message::Strange), "packets of no length");
        bytes[FORWARD_HEADER - 3] = 8;
        assert!(matches!(Message::parse(&bytes), Message::Packets(_)));
        for len in 0..FORWARD_HEADER {
            assert!(matches!(Message::parse(&bytes[..len]), Message::Strange), "{len}");
        }
        let mut answer = vec![0; ANSWER_BYTES];
        answer[..4].copy_from_slice(&ANSWER);
        assert!(matches!(Message::parse(&answer), Message::Answer(_)));
        answer.push(0);
        assert!(matches!(Message::parse(&answer), Message::Strange));
    }
}
