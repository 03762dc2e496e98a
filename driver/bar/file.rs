//! Windows in ordinary files, for two processes of one host: one file whose halves are the two areas, or a file for each area.
//!
//! Which side a process is, a lock says: side A has the first byte of the file it reads locked, side B the second (or the first of the other file). The
//! kernel lets go of it when the process ends, however that comes about, so a side is free again after a crash, and the other side can tell. The lock
//! belongs to the open file, so both sides may be in one process.

use super::guarded::Guarded;
use super::refusal;
use super::window::{Gone, Life, Window, Words};
use crate::error::{Error, Result};
use crate::ring::arm::publish_fence;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::sys::datagram_socket::DatagramSocket;
use crate::sys::lock_file::{is_locked, try_lock};
use crate::sys::process::effective_user_id;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a page, of which areas are made.
const PAGE: u64 = crate::mem::PAGE;
const CALL: &str = "open_device";
/// Bytes of an area in a file that is made: rings of some 250 of the longest packets, which caches still hold.
const AREA: u64 = 1 << 20;

/// A window of which each side has a place in a file.
#[derive(Debug)]
pub(crate) struct FileWindow {
    what: String,
    inbound: Guarded,
    outbound: Guarded,
    /// The file that we have locked, for as long as we live.
    #[expect(dead_code, reason = "held for its lock")]
    own: File,
    /// The file and the byte of it that the peer has locked.
    peer: (File, u32),
    bell: DatagramSocket,
    peer_bell: Vec<u8>,
}

/// Where a side has its area, and its lock.
struct Side {
    file: File,
    lock: u32,
    offset: u64,
    bytes: u64,
    bell: Vec<u8>,
}

impl Side {
    fn new(path: &Path, file: File, lock: u32, offset: u64, bytes: u64) -> Result<Self> {
        let id = file.metadata().map_err(os(path, "look at it"))?;
        let bell = format!("tbrdma/bar/{:x}/{:x}/{lock}", id.dev(), id.ino()).into_bytes();
        Ok(Self { file, lock, offset, bytes, bell })
    }

    fn map(&self, path: &Path) -> Result<Guarded> {
        Guarded::map(&self.file, self.offset, self.bytes as usize).map_err(os(path, "map it"))
    }
}

impl FileWindow {
    /// One file, whose first half is written to side A and whose second half to side B. It is made where there is none.
    ///
    /// # Errors
    /// It cannot be opened, or two processes have it already.
    pub(crate) fn shared(path: &Path) -> Result<Self> {
        let (first, bytes) = open(path, 2 * AREA)?;
        let second = first.try_clone().map_err(os(path, "keep a descriptor"))?;
        let half = bytes / 2 / PAGE * PAGE;
        let sides = [Side::new(path, first, 0, 0, half)?, Side::new(path, second, 1, half, half)?];
        Self::of(path, "shared", sides)
    }

    /// Two files, `PATH.a` that side A reads and `PATH.b` that side B reads. They are made where there are none.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub(crate) fn paired(path: &Path) -> Result<Self> {
        let side = |end| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            let path = PathBuf::from(name);
            let (file, bytes) = open(&path, AREA)?;
            Side::new(&path, file, 0, 0, bytes / PAGE * PAGE)
        };
        Self::of(path, "paired", [side(".a")?, side(".b")?])
    }

    /// The side that is free, side A first.
    fn of(path: &Path, kind: &str, [a, b]: [Side; 2]) -> Result<Self> {
        let free = |side: &Side| try_lock(&side.file, side.lock).map_err(os(path, "lock a side of it"));
        let (own, peer, side) = if free(&a)? {
            (a, b, 'A')
        } else if free(&b)? {
            (b, a, 'B')
        } else {
            let reason = format!(
                "{}: both sides of this window are taken; end one of the programs that have it open, or name another file",
                path.display()
            );
            return Err(Error::Busy { call: CALL, reason });
        };
        Ok(Self {
            what: format!("side {side} of a {kind} window in {}", path.display()),
            inbound: own.map(path)?,
            outbound: peer.map(path)?,
            bell: DatagramSocket::bind(&own.bell).map_err(os(path, "take the name of its doorbell"))?,
            own: own.file,
            peer: (peer.file, peer.lock),
            peer_bell: peer.bell,
        })
    }
}

/// Opens a file, or makes one of so many bytes; how many there are.
fn open(path: &Path, bytes: u64) -> Result<(File, u64)> {
    let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = open.map_err(os(path, "open it"))?;
    let len = || file.metadata().map(|meta| meta.len()).map_err(os(path, "look at it"));
    if len()? == 0 {
        // Two sides that make it at once make it of one length.
        file.set_len(bytes).map_err(os(path, "give it its length"))?;
    }
    let len = len()?;
    Ok((file, len))
}

fn os(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |error| {
        let source = io::Error::new(error.kind(), format!("{path}: {error}"));
        Error::Os { call: CALL, what, source }
    }
}

/// The word at an offset.
#[inline(always)]
fn word(pages: &Guarded, offset: usize) -> Option<&AtomicU64> {
    pages.place().sub(offset, size_of::<u64>())?.atomic_u64()
}

impl Words for FileWindow {
    #[inline(always)]
    fn store(&self, offset: usize, value: u64) {
        if let Some(word) = word(&self.outbound, offset) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn order(&self) {
        fence(Ordering::Release);
    }

    #[inline(always)]
    fn flush(&self) {}

    #[inline(always)]
    fn load(&self, offset: usize) -> u64 {
        word(&self.inbound, offset).map_or(u64::MAX, |word| word.load(Ordering::Acquire))
    }

    fn reset(&self, offset: usize, value: u64) {
        if let Some(word) = word(&self.inbound, offset) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn meets(&self) -> bool {
        publish_fence();
        true
    }
}

impl Window for FileWindow {
    fn describe(&self) -> String {
        self.what.clone()
    }

    fn outbound_bytes(&self) -> usize {
        self.outbound.place().len()
    }

    fn inbound_bytes(&self) -> usize {
        self.inbound.place().len()
    }

    #[inline]
    fn write(&self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.outbound.place().sub(offset, bytes.len()) {
            place.write_from(bytes);
        }
    }

    #[inline]
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        if let Some(place) = self.inbound.place().sub(offset, bytes.len()) {
            place.read_into(bytes);
        }
    }

    fn ring(&self, _doorbell: u16) -> io::Result<()> {
        match self.bell.send_to(&self.peer_bell, &[b"!"]) {
            // Rung often enough.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }

    fn quiet(&self) {
        let user = effective_user_id();
        while let Ok(Some(_)) = self.bell.receive_from(&mut [0; 8], user) {}
    }

    fn peer(&self) -> Life {
        match is_locked(&self.peer.0, self.peer.1) {
            Ok(true) => Life::Alive,
            Ok(false) => Life::Dead,
            Err(_) => Life::Unknown,
        }
    }

    #[inline]
    fn gone(&self) -> Option<Gone> {
        (self.inbound.is_lost() || self.outbound.is_lost()).then_some(Gone::Device(refusal::Gone::Pages))
    }
}
