//! A capture file that is being written: packets get the IP and UDP headers of their flow, and what was written is in the file soon after.

use super::pcapng::{Direction, Writer};
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tbrdma_proto::Time;
use tbrdma_proto::wire::icrc::Flow;
use tbrdma_proto::wire::ip::{Datagram as IpDatagram, IpHeader, MAX_DATAGRAM_HEADER_BYTES};

/// What a crash may cost: the packets of so much time.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// A file of packets.
pub(crate) struct Recording {
    state: Mutex<State>,
    /// When what was written must be in the file, in nanoseconds; the end of time if all of it is.
    flush_at: AtomicU64,
    /// The file takes no more, for want of space, say. The device goes on.
    failed: AtomicBool,
}

struct State {
    file: Writer<File>,
    packets: u64,
}

/// One packet, and what of its way is not in its own bytes.
pub(crate) struct Recorded<'a> {
    pub(crate) direction: Direction,
    pub(crate) flow: &'a Flow,
    /// The IPv4 identification that its iCRC was computed for.
    pub(crate) ident: u16,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    /// From its base transport header to its iCRC.
    pub(crate) payload: &'a [u8],
}

impl Recording {
    /// Begins a file, in place of one that is there, for the packets of this device.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn create(path: &Path, device: &str) -> Result<Self> {
        let created = File::create(path).and_then(|file| Writer::new(file, device));
        let file = created.map_err(|source| Error::InvalidArgument {
            call: "open_device",
            reason: format!("the capture file {} cannot be written: {source}", path.display()),
        })?;
        let state = Mutex::new(State { file, packets: 0 });
        Ok(Self { state, flush_at: AtomicU64::new(u64::MAX), failed: AtomicBool::new(false) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Who panicked with the lock held has lost a packet of the capture.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes packets that pass now, in this order.
    pub(crate) fn write<'a>(&self, now: Time, packets: impl Iterator<Item = Recorded<'a>>) {
        let mut state = self.state();
        let State { file, packets: count } = &mut *state;
        let mut result = Ok(());
        for packet in packets {
            result = result.and_then(|()| packet.write_to(file));
            *count += 1;
        }
        drop(state);
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        } else if self.flush_at.load(Ordering::Relaxed) == u64::MAX {
            self.flush_at.store((now + FLUSH_EVERY).0, Ordering::Relaxed);
        }
    }

    /// Hands everything to the system, if it is time.
    pub(crate) fn flush_if_due(&self, now: Time) {
        if self.flush_at.load(Ordering::Relaxed) <= now.0 {
            self.flush_at.store(u64::MAX, Ordering::Relaxed);
            let flushed = self.state().file.flush();
            if flushed.is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// When [`flush_if_due`](Self::flush_if_due) has something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let flush = Time(self.flush_at.load(Ordering::Relaxed));
        (flush != Time::NEVER).then_some(flush)
    }

    /// What `described` is with this around it.
    pub(crate) fn describe(&self, described: &str) -> String {
        let failed = if self.failed.load(Ordering::Relaxed) { " (the file takes no more)" } else { "" };
        format!("{described}; captured{failed}")
    }

    /// Its counter.
    pub(crate) fn counter(&self) -> (&'static str, u64) {
        ("captured_packets", self.state().packets)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Nobody is left to be told of a failure.
        let _ = self.state().file.flush();
    }
}

impl Recorded<'_> {
    /// Writes it with the headers it has, or may have had.
    fn write_to(&self, file: &mut Writer<File>) -> io::Result<()> {
        let mut whole = IpDatagram::of_flow(self.flow, self.ident, self.payload);
        let (class, hops) = (self.traffic_class, self.hop_limit);
        match &mut whole.ip {
            IpHeader::V4(v4) => (v4.tos, v4.ttl) = (class, hops),
            IpHeader::V6(v6) => (v6.traffic_class, v6.hop_limit) = (class, hops),
        }
        let mut headers = [0; MAX_DATAGRAM_HEADER_BYTES];
        let len = whole.encode_headers(&mut headers);
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        file.packet(time, self.direction, &[headers.get(..len).unwrap_or_default(), self.payload])
    }
}
