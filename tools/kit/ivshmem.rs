//! A server for ivshmem-doorbell: the memory that virtual machines and processes of one host share, and the doorbells between them.
//!
//! QEMU connects to its Unix socket (`-chardev socket,path=... -device ivshmem-doorbell,vectors=N`), and so does the device
//! `bar:ivshmem:PATH`. What it says is QEMU's protocol (docs/specs/ivshmem-spec): signed 64-bit numbers, little-endian, some with a descriptor.
//! A newcomer hears the protocol's version (0), its own number, -1 with the memory; then of each peer the number with an event counter, once a
//! vector; at last its own number with its own counters. A peer that comes later is told in the same way, one that leaves by its number alone.
//! Numbers count up, so that one who comes back is somebody new.
//!
//! Tests of the driver use this very file.

use nix::errno::Errno;
use nix::libc::off_t;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::ftruncate;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// The only version of the protocol there is.
const VERSION: i64 = 0;
/// Stands where a number would be, before the memory's descriptor.
const MEMORY: i64 = -1;

/// A server at work, on a thread of its own, until it is dropped. Who is connected then keeps the memory.
pub struct Server {
    path: PathBuf,
    memory: File,
    end: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `path`, where nobody may listen yet, with `bytes` of memory (zeroes at first, a power of two for QEMU's sake) and so many vectors
    /// for each peer.
    ///
    /// # Errors
    /// The name is taken or cannot be made, or the system has no more descriptors, memory or threads.
    pub fn start(path: &Path, bytes: u64, vectors: u16) -> io::Result<Self> {
        let memory = File::from(memfd_create("ivshmem", MFdFlags::MFD_CLOEXEC)?);
        ftruncate(&memory, off_t::try_from(bytes).map_err(|_| ErrorKind::InvalidInput)?)?;
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let end = Arc::new(counter()?);
        let mut desk = Desk { listener, memory: memory.try_clone()?, vectors, next: 0, peers: Vec::new() };
        let bell = Arc::clone(&end);
        let thread =
            std::thread::Builder::new().name("ivshmem".to_owned()).spawn(move || desk.serve(&bell))?;
        Ok(Self { path: path.to_owned(), memory, end, thread: Some(thread) })
    }

    /// The memory that all of them share.
    pub fn memory(&self) -> &File {
        &self.memory
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A counter takes this number unless it was told before, and then the thread has heard.
        let _ = self.end.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn counter() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)
}

struct Peer {
    id: u16,
    socket: UnixStream,
    /// One a vector: who rings writes it, this peer reads it.
    bells: Vec<EventFd>,
}

impl Peer {
    /// One message, whole or not at all. A peer that does not read what it is told is an error.
    fn tell(&self, number: i64, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let raw: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let bytes = number.to_le_bytes();
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            return match sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None)
            {
                Ok(8) => Ok(()),
                Ok(_) => Err(ErrorKind::WriteZero.into()),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Says how `of` is rung.
    fn introduce(&self, of: &Self) -> io::Result<()> {
        of.bells.iter().try_for_each(|bell| self.tell(of.id.into(), Some(bell.as_fd())))
    }

    /// Nobody says anything to a server: what becomes readable is the end.
    fn has_left(&self) -> bool {
        !matches!((&self.socket).read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

struct Desk {
    listener: UnixListener,
    memory: File,
    vectors: u16,
    next: u16,
    peers: Vec<Peer>,
}

impl Desk {
    fn serve(&mut self, end: &EventFd) {
        loop {
            let sockets = self.peers.iter().map(|peer| peer.socket.as_fd());
            let all = [end.as_fd(), self.listener.as_fd()].into_iter().chain(sockets);
            let mut polled: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            let ready: Vec<_> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            if ready.first() == Some(&true) {
                return;
            }
            let left: Vec<_> = self
                .peers
                .iter()
                .zip(&ready[2..])
                .filter(|(peer, ready)| **ready && peer.has_left())
                .map(|(peer, _)| peer.id)
                .collect();
            left.into_iter().for_each(|id| self.see_off(id));
            while let Ok((socket, _)) = self.listener.accept() {
                // One who leaves while it is being introduced is no matter of the server's.
                let _ = self.welcome(socket);
            }
        }
    }

    fn welcome(&mut self, socket: UnixStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let id = self.free_id();
        let bells = (0..self.vectors).map(|_| counter()).collect::<io::Result<_>>()?;
        let peer = Peer { id, socket, bells };
        peer.tell(VERSION, None)?;
        peer.tell(id.into(), None)?;
        peer.tell(MEMORY, Some(self.memory.as_fd()))?;
        self.peers.iter().try_for_each(|other| peer.introduce(other))?;
        peer.introduce(&peer)?;
        let deaf: Vec<_> =
            self.peers.iter().filter(|other| other.introduce(&peer).is_err()).map(|other| other.id).collect();
        self.peers.push(peer);
        deaf.into_iter().for_each(|id| self.see_off(id));
        Ok(())
    }

    /// Tells the others that a peer is gone, and so on for those that do not listen.
    fn see_off(&mut self, id: u16) {
        let mut gone = vec![id];
        while let Some(id) = gone.pop() {
            self.peers.retain(|peer| peer.id != id);
            let deaf = self.peers.iter().filter(|peer| peer.tell(id.into(), None).is_err());
            let deaf: Vec<_> = deaf.map(|peer| peer.id).filter(|id| !gone.contains(id)).collect();
            gone.extend(deaf);
        }
    }

    /// The next number that nobody has. There are far fewer descriptors than numbers.
    fn free_id(&mut self) -> u16 {
        loop {
            let id = self.next;
            self.next = self.next.wrapping_add(1);
            if self.peers.iter().all(|peer| peer.id != id) {
                return id;
            }
        }
    }
}
