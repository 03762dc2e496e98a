//! What a UDP link counts.

use crate::sync::{AtomicU64, Ordering};

/// Numbers that only grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent_trains: Counter,
    pub(super) cut_off: Counter,
    pub(super) forwarded: Counter,
    pub(super) forwarded_here: Counter,
    pub(super) forward_drops: Counter,
    pub(super) unknown_tag: Counter,
    pub(super) steering_programs: Counter,
}

impl Counters {
    pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
        let list = [
            ("udp_sent_trains", &self.sent_trains),
            ("udp_cut_off", &self.cut_off),
            ("udp_forwarded", &self.forwarded),
            ("udp_forwarded_here", &self.forwarded_here),
            ("udp_forward_drops", &self.forward_drops),
            ("udp_unknown_qpn", &self.unknown_tag),
            ("udp_steering_programs", &self.steering_programs),
        ];
        list.into_iter().map(|(name, counter)| (name, counter.get())).collect()
    }
}

/// One number.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
