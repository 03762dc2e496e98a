//! What a reliable responder has still to say, in the order in which it must say it, and what it keeps to say it again.
//!
//! Two lists, both by ascending PSN. **Resources** are the READs and atomics that may be asked for again (IBTA volume 1, section
//! 9.7.4.1.2): the range of a READ, the saved old value of an atomic. **Replies** are what is to be sent. An acknowledgement covers
//! everything before it, so it may not overtake the answer to a READ; two with nothing between them are one. So there is at most
//! one reply for each resource, one acknowledgement for each gap between them, and one refusal at the end: both lists are bounded
//! by `max_dest_rd_atomic`, whatever comes.

use std::collections::VecDeque;

use crate::ident::Psn;
use crate::wire::{AtomicEth, PacketOpcode, Reth, Syndrome};

/// A READ or atomic that was carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource {
    /// PSN of the request, and of the first packet of its answer.
    pub(super) first: Psn,
    /// PSNs it takes.
    pub(super) packets: u32,
    /// Requests completed when it was.
    pub(super) msn: u32,
    /// Whether all of its answer has been sent at least once.
    answered: bool,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Read(Reth),
    Atomic {
        opcode: PacketOpcode,
        request: AtomicEth,
        /// What was there before; none until the owner has told.
        old: Option<u64>,
    },
}

/// Something to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    /// The PSN it carries; of a READ's answer, that of its next packet.
    pub(super) psn: Psn,
    pub(super) msn: u32,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A positive acknowledgement.
    Ack,
    /// What is left of the answer to a READ.
    Read { first: Psn, rkey: u32, addr: u64, left: u32, started: bool },
    /// The old value of the atomic at this PSN.
    Atomic,
    /// A refusal.
    Nak(Syndrome),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Answers {
    resources: VecDeque<Resource>,
    replies: VecDeque<Reply>,
}

impl Answers {
    /// Forgets everything, and gets ready for `depth` READs and atomics.
    pub(super) fn reset(&mut self, depth: u8) {
        self.resources.clear();
        self.replies.clear();
        let depth = usize::from(depth);
        self.resources.reserve(depth);
        self.replies.reserve(2 * depth + 2);
    }

    /// Drops what was to be sent.
    pub(super) fn drop_replies(&mut self) {
        self.replies.clear();
    }

    /// Makes room for one more of up to `depth` resources. False if the requester has not got the answers to all of them yet.
    pub(super) fn make_room(&mut self, depth: u8) -> bool {
        while self.resources.len() >= usize::from(depth) {
            match self.resources.front() {
                // By asking for more it says that it has the oldest answer. If it is being repeated, that was for nothing.
                Some(oldest) if oldest.answered => self.drop_oldest(),
                _ => return false,
            }
        }
        true
    }

    /// A READ was accepted; [`make_room`](Self::make_room) was asked before.
    pub(super) fn read(&mut self, first: Psn, packets: u32, msn: u32, reth: Reth) {
        self.resources.push_back(Resource { first, packets, msn, answered: false, kind: Kind::Read(reth) });
        self.replies.push_back(Reply { psn: first, msn, what: What::read(first, &reth) });
    }

    /// An atomic was accepted; [`make_room`](Self::make_room) was asked before.
    pub(super) fn atomic(&mut self, first: Psn, msn: u32, opcode: PacketOpcode, request: AtomicEth) {
        let kind = Kind::Atomic { opcode, request, old: None };
        self.resources.push_back(Resource { first, packets: 1, msn, answered: false, kind });
        self.replies.push_back(Reply { psn: first, msn, what: What::Atomic });
    }

    /// The old value of the oldest atomic that has none yet.
    pub(super) fn atomic_done(&mut self, value: u64) {
        let waiting = self.resources.iter_mut().find_map(|resource| match &mut resource.kind {
            Kind::Atomic { old: old @ None, .. } => Some(old),
            _ => None,
        });
        if let Some(old) = waiting {
            *old = Some(value);
        }
    }

    /// The packet `psn`, of a SEND or WRITE, was carried out. It is acknowledged if that is `wanted`, or if it costs nothing. Answers
    /// whether an acknowledgement was saved by that.
    pub(super) fn done(&mut self, psn: Psn, msn: u32, wanted: bool) -> bool {
        let newest_resource = self.resources.back().map(|resource| resource.first);
        if let Some(Reply { psn: last, msn: last_msn, what: What::Ack }) = self.replies.back_mut()
            && newest_resource.is_none_or(|first| first.precedes(*last))
        {
            *last = psn;
            *last_msn = msn;
            return wanted;
        }
        if wanted {
            self.replies.push_back(Reply { psn, msn, what: What::Ack });
        }
        false
    }

    /// The packet `psn` came again, and had been carried out: says once more how far that is true without a READ or atomic between,
    /// whose answers speak for themselves.
    pub(super) fn done_already(&mut self, psn: Psn, expected: Psn, msn: u32) {
        let after = |other: Psn| other.distance_from(expected) > psn.distance_from(expected);
        let (until, msn) = match self.resources.iter().find(|resource| after(resource.first)) {
            Some(next) => (next.first.add(PSN_BEFORE), next.msn.wrapping_sub(1) & MSN_MASK),
            None => (expected.add(PSN_BEFORE), msn),
        };
        let at = self.place_of(until, expected);
        let before = at.checked_sub(1).and_then(|at| self.replies.get_mut(at));
        if let Some(reply) = before
            && matches!(reply.what, What::Ack)
            && !reply.psn.precedes(psn)
        {
            reply.psn = until;
            reply.msn = msn;
            return;
        }
        self.replies.insert(at, Reply { psn: until, msn, what: What::Ack });
    }

    /// Acknowledges what came last once more, to say how many receives there are now; not if that is a READ or atomic, which only its own
    /// answer may acknowledge.
    pub(super) fn say_again(&mut self, expected: Psn, msn: u32) {
        let newest = expected.add(PSN_BEFORE);
        if self.find(newest).is_none() {
            self.done_already(newest, expected, msn);
        }
    }

    /// Forgets what is so long ago that its PSN will soon be used again, now that `expected` is next.
    pub(super) fn prune(&mut self, expected: Psn) {
        while let Some(oldest) = self.resources.front()
            && oldest.answered
            && expected.distance_from(oldest.first) < 0
        {
            self.drop_oldest();
        }
    }

    /// The answer to a READ is wanted again, from `psn` on: these bytes of it.
    pub(super) fn read_again(&mut self, resource: &Resource, psn: Psn, part: &Reth, expected: Psn) {
        let reply = Reply { psn, msn: resource.msn, what: What::read(resource.first, part) };
        let end = resource.first.add(resource.packets);
        if let Some(pending) = self.replies.iter_mut().find(|reply| reply.is_of(resource.first, end)) {
            *pending = reply;
        } else {
            self.replies.insert(self.place_of(psn, expected), reply);
        }
    }

    /// The answer to an atomic is wanted again.
    pub(super) fn atomic_again(&mut self, resource: &Resource, expected: Psn) {
        let psn = resource.first;
        if !self.replies.iter().any(|reply| reply.is_of(psn, psn.next())) {
            let reply = Reply { psn, msn: resource.msn, what: What::Atomic };
            self.replies.insert(self.place_of(psn, expected), reply);
        }
    }

    /// The request at `psn`, the one expected, is refused.
    pub(super) fn refuse(&mut self, psn: Psn, msn: u32, syndrome: Syndrome) {
        self.withdraw_refusal();
        self.replies.push_back(Reply { psn, msn, what: What::Nak(syndrome) });
    }

    /// The request that was refused has come again: nobody needs to hear of the refusal any more.
    pub(super) fn withdraw_refusal(&mut self) {
        self.replies.pop_back_if(|reply| matches!(reply.what, What::Nak(_)));
    }

    /// The resource that the packet `psn` belongs to.
    pub(super) fn find(&self, psn: Psn) -> Option<&Resource> {
        self.resources.iter().find(|resource| {
            let distance = psn.distance_from(resource.first);
            distance >= 0 && distance.cast_unsigned() < resource.packets
        })
    }

    /// What is to be sent next. Then [`sent`](Self::sent) it.
    pub(super) fn front(&self) -> Option<Reply> {
        self.replies.front().copied()
    }

    /// How many replies there are.
    pub(super) fn len(&self) -> usize {
        self.replies.len()
    }

    /// The value that answers the atomic at `psn`, if the owner has told it.
    pub(super) fn old_value(&self, psn: Psn) -> Option<u64> {
        match self.find(psn)?.kind {
            Kind::Atomic { old, .. } => old,
            Kind::Read(_) => None,
        }
    }

    /// The next packet of what is in [`front`](Self::front) was sent; of a READ's answer, `len` bytes.
    pub(super) fn sent(&mut self, len: u32) {
        let Some(reply) = self.replies.front_mut() else { return };
        let first = match &mut reply.what {
            What::Read { addr, left, started, .. } if *left > len => {
                reply.psn = reply.psn.next();
                *addr = addr.wrapping_add(u64::from(len));
                *left -= len;
                *started = true;
                return;
            }
            What::Read { first, .. } => Some(*first),
            What::Atomic => Some(reply.psn),
            What::Ack | What::Nak(_) => None,
        };
        self.replies.pop_front();
        let resource = self.resources.iter_mut().find(|resource| Some(resource.first) == first);
        if let Some(resource) = resource {
            resource.answered = true;
        }
    }

    /// The oldest resource goes, and what would still be said of it.
    fn drop_oldest(&mut self) {
        if let Some(Resource { first, packets, .. }) = self.resources.pop_front() {
            let end = first.add(packets);
            self.replies.retain(|reply| !reply.is_of(first, end));
        }
    }

    /// Where a reply with this PSN belongs.
    fn place_of(&self, psn: Psn, expected: Psn) -> usize {
        let distance = psn.distance_from(expected);
        self.replies.partition_point(|reply| reply.psn.distance_from(expected) <= distance)
    }
}

impl Reply {
    /// Whether it answers the READ or atomic whose PSNs are `first..end`.
    fn is_of(&self, first: Psn, end: Psn) -> bool {
        match self.what {
            What::Read { first: own, .. } => own == first,
            What::Atomic => !self.psn.precedes(first) && self.psn.precedes(end),
            What::Ack | What::Nak(_) => false,
        }
    }
}

impl What {
    const fn read(first: Psn, part: &Reth) -> Self {
        Self::Read { first, rkey: part.rkey, addr: part.addr, left: part.length, started: false }
    }
}

/// Added to a PSN, gives the one before it.
const PSN_BEFORE: u32 = (1 << 24) - 1;
/// All bits of a message sequence number.
pub(super) const MSN_MASK: u32 = (1 << 24) - 1;
