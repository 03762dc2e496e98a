//! The two ends of a ring over the words of a window: which is loaded and stored when, and behind which fence. What the words mean is proto's.
//!
//! **A packet.** The sender writes packets, then [`Words::order`], then their headers, then [`Words::flush`]. The fence between makes a header the proof of
//! its packet: whatever buffers combine and reorder, no header is posted before the last byte of any packet of the train, and a bus delivers posted writes
//! of one requester in order. Headers may overtake each other; the receiver looks for them in their order. The last fence is for time and not for order: a
//! header alone in a buffer that combines writes may stay there for as long as it likes.
//!
//! **A slot again.** The receiver copies packets out, then [`Words::order`], which holds loads as well, then tells that their slots are free; the sender, before
//! it writes a slot, has loaded a number that says so, and loads acquire. So nothing is written over that is still being read.
//!
//! **Sleep.** Who is going to sleep writes into the peer's area which packet it waits for, and looks once more; who has published looks into its own area
//! whether the peer waits. Where the two meet in one memory, both put a full fence in between, so one of them sees the other. Over a bus the wish may be under
//! way while the packet comes; so there nobody sleeps for long before a second look, when both have arrived. A wish holds a number, and is rung for once: if
//! that packet has come, the next wish holds another.

#![forbid(unsafe_code)]

use super::window::Words;
use crate::sync::{AtomicU64, Ordering};
use std::ops::Range;
use tbrdma_proto::bar_link::{ARM, Arrival, Geometry, Header, Inbox, Outbox, TAKEN};

/// Where packets are put. Any number of threads may.
#[derive(Debug)]
pub(crate) struct Sender {
    outbox: Outbox,
    /// Packets that have a slot.
    sent: AtomicU64,
    /// The wish that was rung for last.
    rung: AtomicU64,
}

impl Sender {
    /// For an area that was emptied, and cut so.
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { outbox: Outbox::new(geometry), sent: AtomicU64::new(0), rung: AtomicU64::new(0) }
    }

    /// The ring as it is cut.
    pub(crate) const fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Takes slots for at most so many packets; none if the ring is full. All that are taken must be published, soon.
    #[inline]
    pub(crate) fn claim(&self, window: &impl Words, most: u64) -> Range<u64> {
        let mut sent = self.sent.load(Ordering::Relaxed);
        loop {
            let count = self.outbox.room(sent, window.load(TAKEN)).min(most);
            if count == 0 {
                return sent..sent;
            }
            let claimed =
                self.sent.compare_exchange_weak(sent, sent + count, Ordering::Relaxed, Ordering::Relaxed);
            match claimed {
                Ok(_) => return sent..sent + count,
                Err(now) => sent = now,
            }
        }
    }

    /// Publishes a packet that was written into its slot, behind [`Words::order`].
    #[inline]
    pub(crate) fn publish(&self, window: &impl Words, number: u64, header: Header) {
        window.store(self.outbox.slot(number), header.to_word());
    }

    /// After publishing and [`Words::flush`]: must the peer be woken?
    #[inline]
    pub(crate) fn must_ring(&self, window: &impl Words) -> bool {
        window.meets();
        let wish = window.load(ARM);
        wish != 0 && self.rung.swap(wish, Ordering::Relaxed) != wish
    }
}

/// Where packets are taken: by one thread at a time.
#[derive(Debug)]
pub(crate) struct Receiver {
    inbox: Inbox,
    /// The wish that the peer was told, 0 for none.
    armed: u64,
    /// The peer is told nothing any more.
    is_over: bool,
}

impl Receiver {
    /// For an area that is empty.
    pub(crate) const fn new(geometry: Geometry) -> Self {
        Self { inbox: Inbox::new(geometry), armed: 0, is_over: false }
    }

    /// Whether the next packet is there.
    #[inline]
    pub(crate) fn look(&self, window: &impl Words) -> Arrival {
        self.inbox.look(window.load(self.inbox.next()))
    }

    /// The packet that was found has been copied out.
    #[inline]
    pub(crate) fn take(&mut self, window: &impl Words) {
        self.inbox.take();
        if let Some(taken) = self.inbox.credit()
            && !self.is_over
        {
            window.order();
            window.store(TAKEN, taken);
            window.flush();
        }
    }

    /// Asks the peer to ring for the next packet. True if it is there already: then nobody may ring for it.
    pub(crate) fn arm(&mut self, window: &impl Words) -> bool {
        let wish = self.inbox.taken().wrapping_add(1);
        if self.armed != wish {
            self.armed = wish;
            window.store(ARM, wish);
            window.flush();
        }
        window.meets();
        self.look(window) != Arrival::Nothing
    }

    /// The session is over: what has come may still be taken, and the peer's area is not ours to write.
    pub(crate) const fn part(&mut self) {
        self.is_over = true;
    }

    /// Nobody need ring: it is looked.
    pub(crate) fn disarm(&mut self, window: &impl Words) {
        if self.armed != 0 {
            self.armed = 0;
            window.store(ARM, 0);
            window.flush();
        }
    }
}
