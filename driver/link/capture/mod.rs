//! Captures: every packet of a link in a file that Wireshark reads.
//!
//! A UDP socket shows no IP and UDP headers, so they are made up, as the kernel has made them or will: with right lengths and checksums, and
//! with the identification that the packet's iCRC was computed for. What cannot be known (the IPv6 flow label, another sender's UDP checksum)
//! gets a value that is right in itself.

mod pcapng;
mod recording;

pub(crate) use pcapng::Direction;
pub(crate) use recording::{FLUSH_EVERY, Recorded, Recording};

use super::{Datagram, Link, ROCE_PORT, ReceiveScratch, Train, flow, identity_of_inner, socket_address};
use crate::error::Result;
use std::io;
use std::path::Path;
use tbrdma_proto::Time;
use tbrdma_proto::wire::icrc::{Flow, IdentHint, verify};

/// A link whose packets are written to a file as they pass.
pub(crate) struct CaptureLink {
    inner: Box<dyn Link>,
    file: Recording,
}

impl CaptureLink {
    /// Writes what passes `inner` to a new file, in place of one that is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn new(inner: Box<dyn Link>, file: &Path) -> Result<Self> {
        let file = Recording::create(file, inner.name(), inner.has_virtual_time())?;
        inner.tell_network_fields();
        Ok(Self { inner, file })
    }

    /// Writes packets of a train that have just left.
    fn sent(&self, now: Time, train: &Train, packets: std::ops::Range<usize>) {
        let from = self.gids().get(usize::from(train.from())).copied().unwrap_or_default();
        let Some(flow) = flow(from, train.source_port(), train.to()) else { return };
        let packets = packets.map(|index| Recorded {
            direction: Direction::Out,
            flow: &flow,
            ident: index as u16,
            traffic_class: train.traffic_class(),
            hop_limit: train.hop_limit(),
            payload: train.packet(index),
        });
        self.file.write(now, packets);
    }

    /// Writes a packet that has just arrived.
    fn received(&self, now: Time, packet: &Datagram<'_>) {
        let to = self.gids().get(usize::from(packet.gid_index)).copied().unwrap_or_default();
        let (source, to) = (socket_address(packet.source, packet.source_port), socket_address(to, ROCE_PORT));
        let Ok(flow) = Flow::new(source, to) else { return };
        let ident = match verify(&flow, IdentHint::Known(packet.ident_hint), packet.payload) {
            Ok(_) => packet.ident_hint,
            // Its sender has chosen another. If none fits, the packet is damaged, and shows so.
            Err(_) => {
                verify(&flow, IdentHint::Unknown, packet.payload).ok().flatten().unwrap_or(packet.ident_hint)
            }
        };
        let packet = Recorded {
            direction: Direction::In,
            flow: &flow,
            ident,
            traffic_class: packet.traffic_class,
            hop_limit: packet.hop_limit,
            payload: packet.payload,
        };
        self.file.write(now, std::iter::once(packet));
    }
}

impl Link for CaptureLink {
    identity_of_inner!();

    fn describe(&self) -> String {
        self.file.describe(&self.inner.describe())
    }

    fn send(&self, now: Time, train: &mut Train) -> io::Result<()> {
        let before = train.sent;
        let result = self.inner.send(now, train);
        self.sent(now, train, before..train.sent);
        self.file.flush_if_due(now);
        result
    }

    fn receive(
        &self,
        now: Time,
        scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        let count = self.inner.receive(now, scratch, &mut |packet| {
            self.received(now, packet);
            sink(packet);
        })?;
        self.file.flush_if_due(now);
        Ok(count)
    }

    fn poll(&self, now: Time) {
        self.inner.poll(now);
        self.file.flush_if_due(now);
    }

    fn deadline(&self) -> Option<Time> {
        self.file.deadline().into_iter().chain(self.inner.deadline()).min()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.inner.counters();
        all.push(self.file.counter());
        all
    }
}
