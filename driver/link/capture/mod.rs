//! Captures: every packet of a link in a file that Wireshark reads.
//!
//! A UDP socket shows no IP and UDP headers, so they are made up, as the kernel has made them or will: with right lengths and checksums, and
//! with the identification that the packet's iCRC was computed for. What cannot be known (the IPv6 flow label, another sender's UDP checksum)
//! gets a value that is right in itself.

mod pcapng;
mod recording;

pub(crate) use pcapng::Direction;
pub(crate) use recording::{FLUSH_EVERY, Recorded, Recording};

use super::{
    Datagram, Link, Promises, ROCE_PORT, ReceiveScratch, Train, flow, identity_of_inner, socket_address,
};
use crate::error::Result;
use std::borrow::Cow;
use std::io;
use std::path::Path;
use tbrdma_proto::Time;
use tbrdma_proto::wire::icrc::{Flow, ICRC_BYTES, IdentHint, seal, verify};

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

    /// The packet with an iCRC, if it needs none on this link: whoever reads the file wants one.
    fn sealed<'a>(&self, flow: &Flow, ident: u16, packet: &'a [u8]) -> Cow<'a, [u8]> {
        let mut packet = Cow::Borrowed(packet);
        if self.inner.promises().intact && packet.ends_with(&[0; ICRC_BYTES]) {
            // One that is too short for it is shown as it is.
            let _ = seal(flow, ident, packet.to_mut());
        }
        packet
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
            payload: self.sealed(&flow, index as u16, train.packet(index)),
        });
        self.file.write(now, packets);
    }

    /// Writes a packet that has just arrived.
    fn received(&self, now: Time, packet: &Datagram<'_>) {
        let to = self.gids().get(usize::from(packet.gid_index)).copied().unwrap_or_default();
        let (source, to) = (socket_address(packet.source, packet.source_port), socket_address(to, ROCE_PORT));
        let Ok(flow) = Flow::new(source, to) else { return };
        let payload = self.sealed(&flow, packet.ident_hint, packet.payload);
        let ident = match verify(&flow, IdentHint::Known(packet.ident_hint), &payload) {
            Ok(_) => packet.ident_hint,
            // Its sender has chosen another. If none fits, the packet is damaged, and shows so.
            Err(_) => verify(&flow, IdentHint::Unknown, &payload).ok().flatten().unwrap_or(packet.ident_hint),
        };
        let packet = Recorded {
            direction: Direction::In,
            flow: &flow,
            ident,
            traffic_class: packet.traffic_class,
            hop_limit: packet.hop_limit,
            payload,
        };
        self.file.write(now, std::iter::once(packet));
    }
}

impl Link for CaptureLink {
    identity_of_inner!();

    fn describe(&self) -> String {
        self.file.describe(&self.inner.describe())
    }

    fn promises(&self) -> Promises {
        self.inner.promises()
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
