//! Where posted sends are kept: a ring of work requests by running number, their scatter/gather lists and their
//! inline bytes beside it.
//!
//! Everything is allocated when the queue is made. Four running numbers divide it, in this order:
//!
//! ```text
//! reported <= head <= cursor <= begun <= posted
//!  [reported, head)   finished; their completions are still to be given out
//!  [head, begun)      begun, and not finished
//!  [cursor, begun)    to be sent again, or on their way for the first time
//!  [begun, posted)    wait for their turn
//! ```

use crate::flags::SendFlags;
use crate::ident::Qpn;
use crate::qp::QpCap;
use crate::transport::Span;
use crate::transport::shared::Shared;
use crate::work::{Opcode, RemoteAddr, SendWr, Sge, UdDestination, WcStatus};

/// A posted send.
#[derive(Clone, Debug)]
pub(super) struct Wqe {
    pub(super) wr_id: u64,
    pub(super) remote: RemoteAddr,
    pub(super) compare_add: u64,
    pub(super) swap: u64,
    /// Number of its first packet, once begun.
    pub(super) first: u64,
    /// How many packet numbers it takes, once begun; for a READ those of the answer.
    pub(super) packets: u32,
    /// Bytes of the message.
    pub(super) length: u32,
    pub(super) imm_data: u32,
    pub(super) ud: UdDestination,
    pub(super) flags: SendFlags,
    /// The request's place among those of the connection, once begun: what the peer's MSN says when it is done.
    pub(super) ssn: u32,
    pub(super) sges: u16,
    pub(super) opcode: Opcode,
    /// How it ended, or will end when its turn comes.
    pub(super) status: WcStatus,
}

impl Wqe {
    const VACANT: Self = Self {
        wr_id: 0,
        remote: RemoteAddr { addr: 0, rkey: 0 },
        compare_add: 0,
        swap: 0,
        first: 0,
        packets: 0,
        length: 0,
        imm_data: 0,
        ud: UdDestination { ah: 0, qpn: NO_QPN, qkey: 0 },
        flags: SendFlags::empty(),
        ssn: 0,
        sges: 0,
        opcode: Opcode::Send,
        status: WcStatus::Success,
    };

    /// The number of the first packet after it.
    #[inline]
    pub(super) const fn end(&self) -> u64 {
        self.first + self.packets as u64
    }

    /// Whether each of its packets is a request of its own, once begun.
    #[inline]
    pub(super) const fn is_apart(&self, ctx: &Shared) -> bool {
        ctx.writes_apart && self.packets >= APART_FROM && matches!(self.opcode, Opcode::RdmaWrite)
    }

    /// Whether the peer answers it with data, so that no acknowledgement can stand for the answer.
    #[inline]
    pub(super) const fn is_answered(&self) -> bool {
        matches!(self.opcode, Opcode::RdmaRead) || self.opcode.is_atomic()
    }
}

/// The fewest packets for which it pays to make a WRITE of each.
const APART_FROM: u32 = 4;

const NO_QPN: Qpn = match Qpn::new(0) {
    Some(qpn) => qpn,
    None => unreachable!(),
};

/// The storage and its numbers.
#[derive(Debug)]
pub(super) struct SendQueue {
    wqes: Box<[Wqe]>,
    lists: Box<[Sge]>,
    inline: Box<[u8]>,
    mask: u32,
    depth: u32,
    max_sge: usize,
    max_inline: usize,
    pub(super) reported: u32,
    pub(super) head: u32,
    pub(super) cursor: u32,
    pub(super) begun: u32,
    pub(super) posted: u32,
}

impl SendQueue {
    pub(super) fn new(cap: &QpCap) -> Self {
        let slots = cap.max_send_wr.max(1).next_power_of_two() as usize;
        let (max_sge, max_inline) = (cap.max_send_sge as usize, cap.max_inline_data as usize);
        Self {
            wqes: vec![Wqe::VACANT; slots].into_boxed_slice(),
            lists: vec![Sge::default(); slots * max_sge].into_boxed_slice(),
            inline: vec![0; slots * max_inline].into_boxed_slice(),
            mask: slots as u32 - 1,
            depth: cap.max_send_wr,
            max_sge,
            max_inline,
            reported: 0,
            head: 0,
            cursor: 0,
            begun: 0,
            posted: 0,
        }
    }

    /// Forgets everything posted. Running numbers go on.
    pub(super) fn clear(&mut self) {
        self.set_all(self.posted);
    }

    /// Everything posted counts as finished; completions are still given out.
    pub(super) fn finish_all(&mut self) {
        let reported = self.reported;
        self.set_all(self.posted);
        self.reported = reported;
    }

    fn set_all(&mut self, number: u32) {
        [self.reported, self.head, self.cursor, self.begun, self.posted] = [number; 5];
    }

    #[inline]
    pub(super) const fn is_full(&self) -> bool {
        self.posted.wrapping_sub(self.reported) >= self.depth
    }

    pub(super) const fn depth(&self) -> u32 {
        self.depth
    }

    #[inline]
    const fn slot(&self, number: u32) -> usize {
        (number & self.mask) as usize
    }

    /// The work request with this running number, or one that had the same place.
    #[inline]
    pub(super) fn at(&self, number: u32) -> &Wqe {
        // `mask` is the number of slots less one.
        &self.wqes[self.slot(number)]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, number: u32) -> &mut Wqe {
        let slot = self.slot(number);
        &mut self.wqes[slot]
    }

    /// Stores a work request that the rules allow; its running number.
    #[inline]
    pub(super) fn push(
        &mut self,
        wr: &SendWr,
        sges: &[Sge],
        inline: &[u8],
        length: u32,
        status: WcStatus,
    ) -> u32 {
        let number = self.posted;
        let slot = self.slot(number);
        let is_inline = wr.flags.contains(SendFlags::INLINE);
        if is_inline {
            let at = slot * self.max_inline;
            if let Some(room) = self.inline.get_mut(at..at + inline.len()) {
                room.copy_from_slice(inline);
            }
        } else {
            let at = slot * self.max_sge;
            if let Some(room) = self.lists.get_mut(at..at + sges.len()) {
                room.copy_from_slice(sges);
            }
        }
        let no_one = Wqe::VACANT.ud;
        self.wqes[slot] = Wqe {
            wr_id: wr.wr_id,
            remote: wr.remote,
            compare_add: wr.compare_add,
            swap: wr.swap,
            first: 0,
            packets: 0,
            length,
            imm_data: wr.imm_data,
            ud: wr.ud.unwrap_or(no_one),
            flags: wr.flags,
            ssn: 0,
            sges: if is_inline { 0 } else { sges.len() as u16 },
            opcode: wr.opcode,
            status,
        };
        self.posted = number.wrapping_add(1);
        number
    }

    /// Its scatter/gather list; empty if it is inline.
    #[inline]
    pub(super) fn list(&self, number: u32) -> &[Sge] {
        let at = self.slot(number) * self.max_sge;
        self.lists.get(at..at + usize::from(self.at(number).sges)).unwrap_or(&[])
    }

    /// Where `len` bytes from `offset` on of its message are.
    #[inline]
    pub(super) fn spans(&self, number: u32, offset: u32, len: u32) -> Spans<'_> {
        if self.at(number).flags.contains(SendFlags::INLINE) {
            let at = self.slot(number) * self.max_inline + offset as usize;
            let bytes = self.inline.get(at..at + len as usize).filter(|bytes| !bytes.is_empty());
            return Spans::One(bytes.map(Span::Bytes));
        }
        Spans::List(ListSpans { list: self.list(number), skip: offset, left: len })
    }

    /// The parts of its list that hold `len` bytes from `offset` on.
    #[inline]
    pub(super) fn list_spans(&self, number: u32, offset: u32, len: u32) -> ListSpans<'_> {
        ListSpans { list: self.list(number), skip: offset, left: len }
    }
}

/// The runs of a payload.
#[derive(Clone, Debug)]
pub(in crate::transport) enum Spans<'a> {
    /// One, or none.
    One(Option<Span<'a>>),
    /// Those of a scatter/gather list.
    List(ListSpans<'a>),
}

impl<'a> Iterator for Spans<'a> {
    type Item = Span<'a>;

    #[inline]
    fn next(&mut self) -> Option<Span<'a>> {
        match self {
            Self::One(span) => span.take(),
            Self::List(list) => {
                list.next().map(|Sge { addr, length, lkey }| Span::Region { key: lkey, addr, len: length })
            }
        }
    }
}

/// A part of a scatter/gather list, as the entries it would have as a list of its own, without empty ones.
#[derive(Clone, Debug)]
pub(in crate::transport) struct ListSpans<'a> {
    list: &'a [Sge],
    skip: u32,
    left: u32,
}

impl Iterator for ListSpans<'_> {
    type Item = Sge;

    #[inline]
    fn next(&mut self) -> Option<Sge> {
        while self.left > 0 {
            let (sge, rest) = self.list.split_first()?;
            self.list = rest;
            if sge.length <= self.skip {
                self.skip -= sge.length;
                continue;
            }
            let length = (sge.length - self.skip).min(self.left);
            let addr = sge.addr.wrapping_add(u64::from(self.skip));
            self.skip = 0;
            self.left -= length;
            return Some(Sge { addr, length, lkey: sge.lkey });
        }
        None
    }
}
