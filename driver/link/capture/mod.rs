//! Captures: every packet of a link in a file that Wireshark reads.
//!
//! A UDP socket shows no IP and UDP headers, so they are made up, as the kernel has made them or will: with right lengths and checksums, and
//! with the identification that the packet's iCRC was computed for. What cannot be known (the IPv6 flow label, another sender's UDP checksum)
//! gets a value that is right in itself.

mod pcapng;

use super::{Datagram, Link, ROCE_PORT, ReceiveScratch, Train, flow, identity_of_inner, socket_address};
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use pcapng::{Direction, Writer};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tbrdma_proto::Time;
use tbrdma_proto::wire::icrc::{Flow, IdentHint, verify};
use tbrdma_proto::wire::ip::{Datagram as IpDatagram, IpHeader, MAX_DATAGRAM_HEADER_BYTES};

/// What a crash may cost: the packets of so much time.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// A link whose packets are written to a file as they pass.
pub(crate) struct CaptureLink {
    inner: Box<dyn Link>,
    state: Mutex<State>,
    /// When what was written must be in the file, in nanoseconds; the end of time if all of it is.
    flush_at: AtomicU64,
    /// The file takes no more, for want of space, say. The link goes on.
    failed: AtomicBool,
}

struct State {
    file: Writer<File>,
    packets: u64,
}

impl CaptureLink {
    /// Writes what passes `inner` to a new file, in place of one that is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn new(inner: Box<dyn Link>, file: &Path) -> Result<Self> {
        let created = File::create(file).and_then(|file| Writer::new(file, inner.name()));
        let file = created.map_err(|source| Error::InvalidArgument {
            call: "open_device",
            reason: format!("the capture file {} cannot be written: {source}", file.display()),
        })?;
        inner.tell_network_fields();
        let state = Mutex::new(State { file, packets: 0 });
        Ok(Self { inner, state, flush_at: AtomicU64::new(u64::MAX), failed: AtomicBool::new(false) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Who panicked with the lock held has lost a packet of the capture.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what became of a write.
    fn wrote(&self, now: Time, result: io::Result<()>) {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        } else if self.flush_at.load(Ordering::Relaxed) == u64::MAX {
            self.flush_at.store((now + FLUSH_EVERY).0, Ordering::Relaxed);
        }
    }

    fn flush_if_due(&self, now: Time) {
        if self.flush_at.load(Ordering::Relaxed) <= now.0 {
            self.flush_at.store(u64::MAX, Ordering::Relaxed);
            let flushed = self.state().file.flush();
            if flushed.is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Writes packets of a train that have just left.
    fn sent(&self, now: Time, train: &Train, packets: std::ops::Range<usize>) {
        let from = self.gids().get(usize::from(train.from())).copied().unwrap_or_default();
        let Some(flow) = flow(from, train.source_port(), train.to()) else { return };
        let mut state = self.state();
        let State { file, packets: count } = &mut *state;
        let mut result = Ok(());
        for index in packets {
            let packet = train.packet(index);
            let network = (train.traffic_class(), train.hop_limit());
            result = result.and_then(|()| write(file, Direction::Out, &flow, index as u16, network, packet));
            *count += 1;
        }
        drop(state);
        self.wrote(now, result);
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
        let network = (packet.traffic_class, packet.hop_limit);
        let mut state = self.state();
        state.packets += 1;
        let result = write(&mut state.file, Direction::In, &flow, ident, network, packet.payload);
        drop(state);
        self.wrote(now, result);
    }
}

impl Drop for CaptureLink {
    fn drop(&mut self) {
        // Nobody is left to be told of a failure.
        let _ = self.state().file.flush();
    }
}

/// Writes one packet with the headers it has, or may have had.
fn write(
    file: &mut Writer<File>,
    direction: Direction,
    flow: &Flow,
    ident: u16,
    (traffic_class, hop_limit): (u8, u8),
    payload: &[u8],
) -> io::Result<()> {
    let mut whole = IpDatagram::of_flow(flow, ident, payload);
    match &mut whole.ip {
        IpHeader::V4(v4) => (v4.tos, v4.ttl) = (traffic_class, hop_limit),
        IpHeader::V6(v6) => (v6.traffic_class, v6.hop_limit) = (traffic_class, hop_limit),
    }
    let mut headers = [0; MAX_DATAGRAM_HEADER_BYTES];
    let len = whole.encode_headers(&mut headers);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    file.packet(time, direction, &[headers.get(..len).unwrap_or_default(), payload])
}

impl Link for CaptureLink {
    identity_of_inner!();

    fn describe(&self) -> String {
        let failed = if self.failed.load(Ordering::Relaxed) { " (the file takes no more)" } else { "" };
        format!("{}; captured{failed}", self.inner.describe())
    }

    fn send(&self, now: Time, train: &mut Train) -> io::Result<()> {
        let before = train.sent;
        let result = self.inner.send(now, train);
        self.sent(now, train, before..train.sent);
        self.flush_if_due(now);
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
        self.flush_if_due(now);
        Ok(count)
    }

    fn poll(&self, now: Time) {
        self.inner.poll(now);
        self.flush_if_due(now);
    }

    fn deadline(&self) -> Option<Time> {
        let flush = Time(self.flush_at.load(Ordering::Relaxed));
        let ours = (flush != Time::NEVER).then_some(flush);
        ours.into_iter().chain(self.inner.deadline()).min()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.inner.counters();
        all.push(("captured_packets", self.state().packets));
        all
    }
}
