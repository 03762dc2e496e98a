//! Packets to ourselves, which adapters turn around before they reach any wire.

use crate::sync::{AtomicU64, Ordering};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Packets that wait. As many as there are, later ones find no room.
const MOST: usize = 256;

/// A packet as it left.
#[derive(Debug, Default)]
pub(super) struct Looped {
    pub(super) bytes: Vec<u8>,
    pub(super) traffic_class: u8,
    pub(super) hop_limit: u8,
}

/// A queue of them, which is empty as a rule.
#[derive(Debug, Default)]
pub(super) struct Loopback {
    waiting: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Looped>,
    /// Room that was used.
    spare: Vec<Looped>,
}

impl Loopback {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a packet; false if there is no room.
    pub(super) fn add(&self, bytes: &[u8], traffic_class: u8, hop_limit: u8) -> bool {
        let mut queue = self.lock();
        if queue.packets.len() >= MOST {
            return false;
        }
        let mut packet = queue.spare.pop().unwrap_or_default();
        packet.bytes.clear();
        packet.bytes.extend_from_slice(bytes);
        (packet.traffic_class, packet.hop_limit) = (traffic_class, hop_limit);
        queue.packets.push_back(packet);
        self.waiting.fetch_add(1, Ordering::Release);
        true
    }

    /// Whether any packet waits: a look that costs nothing.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// The next packet.
    pub(super) fn take(&self) -> Option<Looped> {
        let packet = self.lock().packets.pop_front()?;
        self.waiting.fetch_sub(1, Ordering::Release);
        Some(packet)
    }

    /// Gives back the room of one that was taken.
    pub(super) fn give_back(&self, packet: Looped) {
        self.lock().spare.push(packet);
    }
}
