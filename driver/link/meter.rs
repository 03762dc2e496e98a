//! What passes a link, counted under the names that RDMA ports use in the kernel's `counters` and `hw_counters`.

use super::{Datagram, Link, Promises, ReceiveScratch, Train, identity_of_inner};
use crate::sync::{AtomicU64, Ordering};
use std::io;
use tbrdma_proto::Time;

/// A link that counts. What queue pairs count (`out_of_seq_request` and the like) is theirs to say.
pub(crate) struct Meter {
    inner: Box<dyn Link>,
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
    send_errors: AtomicU64,
    send_waits: AtomicU64,
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    marked: AtomicU64,
}

impl Meter {
    /// Counts what `inner` sends and receives.
    pub(crate) fn new(inner: Box<dyn Link>) -> Self {
        Self {
            inner,
            sent_packets: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            send_errors: AtomicU64::new(0),
            send_waits: AtomicU64::new(0),
            received_packets: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            marked: AtomicU64::new(0),
        }
    }
}

impl Link for Meter {
    identity_of_inner!();

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    fn send(&self, now: Time, train: &mut Train) -> io::Result<()> {
        let before = train.sent;
        let result = self.inner.send(now, train);
        self.sent_packets.fetch_add((train.sent - before) as u64, Ordering::Relaxed);
        self.sent_bytes.fetch_add(train.packets(before..train.sent).len() as u64, Ordering::Relaxed);
        match &result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.send_waits.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.send_errors.fetch_add((train.len() - train.sent) as u64, Ordering::Relaxed);
            }
        }
        result
    }

    fn receive(
        &self,
        now: Time,
        scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        let (mut bytes, mut marked) = (0, 0);
        let count = self.inner.receive(now, scratch, &mut |packet| {
            bytes += packet.payload.len() as u64;
            marked += u64::from(packet.congestion());
            sink(packet);
        })?;
        if count > 0 {
            self.received_packets.fetch_add(count as u64, Ordering::Relaxed);
            self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
            if marked > 0 {
                self.marked.fetch_add(marked, Ordering::Relaxed);
            }
        }
        Ok(count)
    }

    fn poll(&self, now: Time) {
        self.inner.poll(now);
    }

    fn deadline(&self) -> Option<Time> {
        self.inner.deadline()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut all = vec![
            ("port_xmit_packets", get(&self.sent_packets)),
            // The kernel counts these two in words of 4 bytes.
            ("port_xmit_data", get(&self.sent_bytes) / 4),
            ("port_xmit_wait", get(&self.send_waits)),
            ("port_xmit_discards", get(&self.send_errors)),
            ("port_rcv_packets", get(&self.received_packets)),
            ("port_rcv_data", get(&self.received_bytes) / 4),
            ("np_ecn_marked_roce_packets", get(&self.marked)),
        ];
        all.extend(self.inner.counters());
        all
    }
}
