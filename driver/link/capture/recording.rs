//! A capture file that is being written: packets get the IP and UDP headers of their flow, and what was written is in the file soon after.

use super::pcapng::{Direction, Writer};
use crate::error::{Error, Result};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::sys::process::process_id;
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tbrdma_proto::Time;
use tbrdma_proto::wire::icrc::Flow;
use tbrdma_proto::wire::ip::{Datagram as IpDatagram, IpHeader, MAX_DATAGRAM_HEADER_BYTES};

/// What a crash may cost: the packets of so much time.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// The files that are being written, with the process that began them: a forked child begins its own.
static OPEN: Mutex<Vec<(i32, PathBuf, Weak<Shared>)>> = Mutex::new(Vec::new());

/// The packets of a device in a file, which other devices of this process may share.
pub(crate) struct Recording {
    shared: Arc<Shared>,
    interface: u32,
    packets: AtomicU64,
    /// The times of packets are a simulated network's, which begins in 1970.
    is_virtual: bool,
    /// When what was written must be in the file, in nanoseconds; the end of time if all of it is.
    flush_at: AtomicU64,
}

/// A file of packets.
struct Shared {
    file: Mutex<Writer<File>>,
    /// The file takes no more, for want of space, say. The devices go on.
    failed: AtomicBool,
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
    pub(crate) payload: Cow<'a, [u8]>,
}

impl Recording {
    /// Begins a file for the packets of this device, in place of one that is there; or adds the device to a file that this process is writing.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn create(path: &Path, device: &str, is_virtual: bool) -> Result<Self> {
        let wrong = |source: io::Error| Error::InvalidArgument {
            call: "open_device",
            reason: format!("the capture file {} cannot be written: {source}", path.display()),
        };
        let shared = Shared::of(path).map_err(wrong)?;
        let interface = shared.file().interface(device).map_err(wrong)?;
        let (packets, flush_at) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Ok(Self { shared, interface, packets, is_virtual, flush_at })
    }

    /// Writes packets that pass now, in this order.
    pub(crate) fn write<'a>(&self, now: Time, packets: impl Iterator<Item = Recorded<'a>>) {
        let mut file = self.shared.file();
        let mut result = Ok(());
        let mut count = 0;
        let time = match self.is_virtual {
            true => now.since(Time::ZERO),
            false => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        };
        for packet in packets {
            result = result.and_then(|()| packet.write_to(self.interface, time, &mut file));
            count += 1;
        }
        drop(file);
        self.packets.fetch_add(count, Ordering::Relaxed);
        if result.is_err() {
            self.shared.failed.store(true, Ordering::Relaxed);
        } else if self.is_virtual {
            // That a capture is written must not show in what happens when: it makes no event. What waits to be written is bounded by the
            // writer's buffer, and written when the device is closed.
        } else if self.flush_at.load(Ordering::Relaxed) == u64::MAX {
            self.flush_at.store((now + FLUSH_EVERY).0, Ordering::Relaxed);
        }
    }

    /// Hands everything to the system, if it is time.
    pub(crate) fn flush_if_due(&self, now: Time) {
        if self.flush_at.load(Ordering::Relaxed) <= now.0 {
            self.flush_at.store(u64::MAX, Ordering::Relaxed);
            let flushed = self.shared.file().flush();
            if flushed.is_err() {
                self.shared.failed.store(true, Ordering::Relaxed);
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
        let failed =
            if self.shared.failed.load(Ordering::Relaxed) { " (the file takes no more)" } else { "" };
        format!("{described}; captured{failed}")
    }

    /// Its counter.
    pub(crate) fn counter(&self) -> (&'static str, u64) {
        ("captured_packets", self.packets.load(Ordering::Relaxed))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Nobody is left to be told of a failure.
        let _ = self.shared.file().flush();
    }
}

impl Shared {
    /// The file at this path.
    fn of(path: &Path) -> io::Result<Arc<Self>> {
        let path = std::path::absolute(path)?;
        let process = process_id();
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(.., shared)| shared.strong_count() > 0);
        let known = open.iter().find(|(by, at, _)| *by == process && *at == path);
        if let Some(shared) = known.and_then(|(.., shared)| shared.upgrade()) {
            return Ok(shared);
        }
        let file = Mutex::new(Writer::new(File::create(&path)?)?);
        let shared = Arc::new(Self { file, failed: AtomicBool::new(false) });
        open.push((process, path, Arc::downgrade(&shared)));
        Ok(shared)
    }

    fn file(&self) -> MutexGuard<'_, Writer<File>> {
        // Who panicked with the lock held has lost a packet of the capture.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded<'_> {
    /// Writes it with the headers it has, or may have had.
    fn write_to(&self, interface: u32, time: Duration, file: &mut Writer<File>) -> io::Result<()> {
        let mut whole = IpDatagram::of_flow(self.flow, self.ident, &self.payload);
        let (class, hops) = (self.traffic_class, self.hop_limit);
        match &mut whole.ip {
            IpHeader::V4(v4) => (v4.tos, v4.ttl) = (class, hops),
            IpHeader::V6(v6) => (v6.traffic_class, v6.hop_limit) = (class, hops),
        }
        let mut headers = [0; MAX_DATAGRAM_HEADER_BYTES];
        let len = whole.encode_headers(&mut headers);
        file.packet(interface, time, self.direction, &[headers.get(..len).unwrap_or_default(), &self.payload])
    }
}
