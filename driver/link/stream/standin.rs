//! A stand-in for `/dev/tbstreamX`: what opens the same name, in this process or in another of this user, is at the other end of the cable.
//!
//! # What is known of the device it stands for
//! Linux 7.2's `thunderbolt-stream` driver: `drivers/thunderbolt/stream.c`, commit 6db21d817b43, and its changes for 7.3;
//! `Documentation/admin-guide/thunderbolt.rst`, "Streaming data directly over Thunderbolt cable"; `Documentation/ABI/testing/configfs-thunderbolt_stream`.
//!
//! | what | 7.2 | 7.3 |
//! |---|---|---|
//! | on the cable | packets of up to 4096 bytes (PDF 2, DATA) and of 256 (PDF 3, CLOSE), flow-controlled from end to end | the same |
//! | rings | 256 packets each way, 32 to 4096 by `ring_size`; a full ring makes `write` wait, or say `EAGAIN` | the same |
//! | `write` | cut into packets of 4096 and a shorter last one; what does not fit is left out and the count says so. A write of more than one packet takes about half, because what is left is counted down twice | takes all that fits |
//! | `read` | takes from as many packets as have come, and keeps the rest of the last; it takes half at most likewise | takes all that has come |
//! | CLOSE | the next `read` without data before it says 0. Later reads that must not wait say `EAGAIN`, and writes go on until the ring is full | all reads say 0, and writes `ENXIO`, until the device is opened anew |
//! | `open` | makes rings and paths, at the first of several; waits, or with `O_NONBLOCK` says `ENXIO`, while no cable is there; `EINVAL` with hop IDs unset | the same |
//! | last `close` | sends CLOSE, gives what is in the ring half a second to leave, and takes the paths down | the same |
//! | cable pulled | `read`, `write` and `open` say `ENXIO`, `poll` says `POLLHUP` and `POLLERR` | the same |
//! | `poll` | in and out by the rings; the end of the stream is a packet, so it is readable | with `busy_poll` set it says `POLLERR` always, for nothing would wake anybody |
//! | who opens first | what he writes before the other end is open may be lost: the reader should be first | the same |
//! | errors on the cable | a packet with a wrong CRC is logged, and handed to the reader like any other | the same |
//! | `O_NONBLOCK` | waits for the device's lock all the same | says `EAGAIN` when another call has it; `IOCB_NOWAIT` of io_uring is heeded |
//!
//! So the link over such a device says hello again until it is answered, finds the first hello behind whatever was there, takes short counts as they come,
//! closes at the first 0 and at once, keeps iCRCs, and looks now and then where it cannot wait.
//!
//! The stand-in behaves as 7.2 does, which is the harder, with what was written before the other end was opened lost. A packet is a message of a
//! `SOCK_SEQPACKET` socket with its PDF in front.

use crate::sys::epoll::Epoll;
use crate::sys::process::effective_user_id;
use crate::sys::socket;
use nix::errno::Errno;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of a packet.
const PACKET: usize = 4096;
/// Bytes of the packet that says that its sender has closed.
const CLOSE_BYTES: usize = 256;
/// PDFs of packets.
const DATA: u8 = 2;
const CLOSE: u8 = 3;
/// Packets that a ring takes while nobody is at the other end.
const RING: usize = 255;

/// One end, opened.
#[derive(Debug)]
pub(super) struct StandIn {
    /// All that is waited for.
    input: Epoll,
    output: Epoll,
    cable: Mutex<Cable>,
}

#[derive(Debug)]
struct Cable {
    /// To the other end, once it is open.
    other: Option<OwnedFd>,
    /// Where the other end comes to.
    listener: Option<OwnedFd>,
    /// The packet that is being read, its PDF in front.
    packet: Box<[u8; 1 + PACKET]>,
    start: usize,
    end: usize,
    /// A packet that is being put together.
    leaving: Box<[u8; 1 + PACKET]>,
    /// Packets that were written to nobody.
    unheard: usize,
    /// It was pulled.
    pulled: bool,
}

fn name_of(name: &str) -> Vec<u8> {
    format!("tbrdma/tbstream/{}/{name}", effective_user_id()).into_bytes()
}

impl StandIn {
    /// Opens one end of the cable with this name.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let name = name_of(name);
        let mut listener = None;
        let other = match socket::connect(&name, Duration::ZERO) {
            Ok(other) => Some(other),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                listener = Some(socket::listen(&name)?);
                None
            }
            // Both ends are open: there is no third.
            Err(error) => return Err(error),
        };
        let stand_in = Self {
            input: Epoll::new()?,
            output: Epoll::new()?,
            cable: Mutex::new(Cable {
                other: None,
                listener,
                packet: Box::new([0; 1 + PACKET]),
                start: 0,
                end: 0,
                leaving: Box::new([0; 1 + PACKET]),
                unheard: 0,
                pulled: false,
            }),
        };
        let mut cable = stand_in.cable();
        match (&cable.listener, other) {
            (_, Some(other)) => stand_in.attach(&mut cable, other)?,
            (Some(listener), None) => stand_in.input.add(listener, 0)?,
            (None, None) => {}
        }
        drop(cable);
        Ok(stand_in)
    }

    fn cable(&self) -> MutexGuard<'_, Cable> {
        self.cable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other end is open.
    fn attach(&self, cable: &mut Cable, other: OwnedFd) -> io::Result<()> {
        self.input.add(&other, 0)?;
        self.output.add_output(&other, 0)?;
        (cable.start, cable.end, cable.unheard) = (0, 0, 0);
        // The one before is closed with this.
        cable.other = Some(other);
        Ok(())
    }

    /// Looks whether the other end was opened.
    fn look(&self, cable: &mut Cable) -> io::Result<()> {
        if cable.pulled {
            return Err(Errno::ENXIO.into());
        }
        if cable.other.is_none()
            && let Some(listener) = &cable.listener
            && let Some(other) = socket::accept(listener.as_fd())?
        {
            self.attach(cable, other)?;
        }
        Ok(())
    }

    /// read(2) of the device.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let cable = &mut *self.cable();
        self.look(cable)?;
        let mut count = 0;
        // What is left to be read counts down from both sides.
        while count < into.len() - count {
            if cable.start == cable.end {
                let Some(other) = &cable.other else { break };
                match socket::receive_message(other.as_fd(), &mut *cable.packet, Some(Duration::ZERO)) {
                    Ok((len, _)) => (cable.start, cable.end) = (1, len.max(1)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The other end was closed before it had read everything. That is said once, and what it had written follows.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
                    // Who dies closes too.
                    Err(_) => {
                        cable.packet[0] = CLOSE;
                        (cable.start, cable.end) = (0, 1);
                    }
                }
            }
            if cable.packet[0] == CLOSE {
                if count > 0 {
                    break;
                }
                (cable.start, cable.end) = (0, 0);
                cable.packet[0] = DATA;
                cable.other = None;
                return Ok(0);
            }
            let len = (cable.end - cable.start).min(into.len() - count);
            into[count..count + len].copy_from_slice(&cable.packet[cable.start..cable.start + len]);
            cable.start += len;
            count += len;
        }
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// write(2) to the device.
    pub(super) fn write(&self, from: &[u8]) -> io::Result<usize> {
        let cable = &mut *self.cable();
        self.look(cable)?;
        let mut count = 0;
        while count < from.len() - count {
            // As the driver reckons it: what has left is taken off twice.
            let len = PACKET.min(from.len() - 2 * count);
            match &cable.other {
                Some(other) => {
                    cable.leaving[0] = DATA;
                    cable.leaving[1..=len].copy_from_slice(&from[count..count + len]);
                    match socket::send_message(other.as_fd(), &cable.leaving[..=len], &[]) {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        // It has closed, which only reading says.
                        Err(_) => {}
                    }
                }
                None if cable.unheard < RING => cable.unheard += 1,
                None => break,
            }
            count += len;
        }
        if count == 0 && !from.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// As poll(2) of the device says of what is to be read.
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// As it says of what may be written: this is readable then.
    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Pulls the cable.
    #[cfg(test)]
    pub(super) fn pull(&self) {
        let mut cable = self.cable();
        cable.pulled = true;
        if let Some(other) = &cable.other {
            // Who waits is woken, here and there.
            use nix::sys::socket::{Shutdown, shutdown};
            let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(other), Shutdown::Both);
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(other) = &self.cable().other {
            // Whoever is there sees the end of the connection all the same.
            let _ = socket::send_message(other.as_fd(), &[&[CLOSE][..], &[0; CLOSE_BYTES]].concat(), &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::random::random_u64;
    use crate::sys::wait::wait_one;

    /// Both ends of a cable, opened.
    fn ends() -> (StandIn, StandIn) {
        let name = format!("{:x}", random_u64().unwrap());
        (StandIn::open(&name).unwrap(), StandIn::open(&name).unwrap())
    }

    fn nothing(end: &StandIn) -> bool {
        end.read(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    #[test]
    fn counts_are_short_and_packets_are_not_seen() {
        let (a, b) = ends();
        assert!(nothing(&b));
        let bytes: Vec<u8> = (0..20_000_u32).map(|index| index as u8).collect();
        let (mut written, mut read) = (0, Vec::new());
        while written < bytes.len() {
            let left = bytes.len() - written;
            let count = a.write(&bytes[written..]).unwrap();
            assert!(count == left || left > PACKET && count < left, "{count} of {left}");
            written += count;
        }
        assert!(wait_one(b.input(), None).unwrap());
        let mut into = vec![0; 30_000];
        while read.len() < bytes.len() {
            let count = b.read(&mut into).unwrap();
            assert!(count <= 15_000 + PACKET);
            read.extend_from_slice(&into[..count]);
        }
        assert!(read == bytes);
        // A piece of a packet at a time.
        assert_eq!(a.write(b"in pieces").unwrap(), 9);
        let mut piece = [0; 4];
        assert_eq!((b.read(&mut piece).unwrap(), piece), (4, *b"in p"));
        assert_eq!(b.read(&mut into).unwrap(), 5);
        assert!(nothing(&b));
    }

    #[test]
    fn the_end_comes_behind_the_data_and_once() {
        let (a, b) = ends();
        a.write(b"last words").unwrap();
        drop(a);
        let mut into = [0; 64];
        assert_eq!(b.read(&mut into).unwrap(), 10);
        assert_eq!(b.read(&mut into).unwrap(), 0);
        assert!(nothing(&b));
        // Nobody hears what is said now, until the ring is full.
        let full = (0..=RING).find(|_| b.write(b"hello?").is_err());
        assert_eq!(full, Some(RING));
    }

    #[test]
    fn a_full_ring_takes_no_more_and_a_pulled_cable_is_an_error() {
        let (a, b) = ends();
        let packet = [7; PACKET];
        let packets = (0..100_000).take_while(|_| a.write(&packet).is_ok()).count();
        assert!(packets > 8, "{packets}");
        assert!(!wait_one(a.output(), Some(Duration::ZERO)).unwrap());
        while b.read(&mut [0; 3 * PACKET]).is_ok() {}
        assert!(wait_one(a.output(), None).unwrap());
        a.pull();
        for result in [a.read(&mut [0; 1]), a.write(&[0])] {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(Errno::ENXIO as i32));
        }
        assert!(wait_one(a.input(), None).unwrap());
        assert_eq!(b.read(&mut [0; 8]).unwrap(), 0);
    }
}
