//! What is not simply received: packets that belong to other processes at the same address, theirs that are ours, and the search for
//! positions that makes both rare.

use super::super::{Datagram, QpnTag, ReceiveScratch};
use super::link::{Delivery, UdpLink};
use super::slot::{Answer, Forwarded, Message};
use super::socket::{Socket, gid};
use super::steering::{Probe, Step, program};
use crate::sync::Ordering;
use crate::sys::random::random_u64;
use crate::sys::udp::{self, Envelope, attach_steering};
use crate::sys::wait::wait_readable;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tbrdma_proto::{Gid, Time};

/// How long opening a socket waits for the processes that share its address to say where they are.
const SETTLING: Duration = Duration::from_millis(30);

/// Batches that are handed on at most when a device is closed: others may go on sending.
const LAST_BATCHES: usize = 64;

impl UdpLink {
    /// Searches for positions at once, and waits for that a little: then the first packets that come are steered right. What is left goes on
    /// with the usual calls.
    pub(super) fn settle(&self, gid_index: u8, socket: &Socket) {
        let Ok(nonce) = random_u64() else { return };
        let step = socket.steering().poll(Time::ZERO, nonce);
        self.carry_out(Time::ZERO, socket, step);
        // With a ring, the answers are in it, for whoever looks there.
        if self.receiving.ring().is_some() {
            return;
        }
        let mut scratch = ReceiveScratch::default();
        // No queue pair of ours uses the address yet. What others hand on meanwhile for another address of ours is lost, as packets may be.
        let mut delivery = Delivery { sink: &mut |_| {}, count: 0 };
        let begun = Instant::now();
        while socket.steering().is_searching() {
            let Some(left) = SETTLING.checked_sub(begun.elapsed()) else { return };
            let waited = wait_readable(&[socket.as_fd(), self.slot.as_fd()], Some(left));
            // A failure shows again when packets are to be received.
            if waited.is_err()
                || self.receive_from(Time::ZERO, gid_index, socket, &mut scratch, &mut delivery).is_err()
                || self.receive_from_slots(Time::ZERO, &mut delivery).is_err()
            {
                return;
            }
        }
    }

    /// Remembers when the searches for positions want to go on.
    pub(super) fn note_steering(&self) {
        // One at a time, so that what is remembered is not what was true before.
        let _noting = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = self.sockets.iter().filter_map(OnceLock::get);
        let due = sockets.filter_map(|socket| socket.steering().deadline()).min().unwrap_or(Time::NEVER);
        self.steering_due.store(due.0, Ordering::Relaxed);
    }

    /// Begins the searches for positions that are due, and goes on with those that wait for an answer no longer.
    pub(super) fn go_on_searching(&self, now: Time) {
        if self.steering_due.load(Ordering::Relaxed) > now.0 {
            return;
        }
        for socket in self.sockets.iter().filter_map(OnceLock::get) {
            let mut steering = socket.steering();
            if steering.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            // Without randomness there is no search; packets are handed on.
            let Ok(nonce) = random_u64() else { break };
            let step = steering.poll(now, nonce);
            drop(steering);
            self.carry_out(now, socket, step);
        }
        self.note_steering();
    }

    /// Packets for another slot, a probe, or rubbish.
    #[cold]
    pub(super) fn not_ours(
        &self,
        now: Time,
        socket: &Socket,
        tag: Option<QpnTag>,
        first_ident: u16,
        message: udp::Message<'_>,
    ) {
        let here = gid(&socket.address);
        if let Some(probe) = Probe::parse(message.bytes) {
            // Only a process of this host asks. Where a socket is that closes is not worth knowing.
            if gid(&message.source) == here && !self.closing {
                self.answer(now, socket, here, &probe);
            }
            return;
        }
        let count = message.bytes.len().div_ceil(message.segment);
        let Some(tag) = tag else { return self.counters.unknown_tag.add(count) };
        match self.slot.forward(tag, &Forwarded { gid: here, first_ident, message }) {
            Ok(()) => self.counters.forwarded.add(count),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                return self.counters.unknown_tag.add(count);
            }
            Err(_) => self.counters.forward_drops.add(count),
        }
        socket.steering().astray();
        self.note_steering();
    }

    /// Tells the asker that the probe came to us.
    fn answer(&self, now: Time, socket: &Socket, here: Gid, probe: &Probe) {
        let (nonce, index, tag) = (probe.nonce, probe.index, self.slot.tag());
        if probe.asker == tag.0 {
            let step = socket.steering().answered(now, nonce, index, tag.0);
            self.carry_out(now, socket, step);
            return self.note_steering();
        }
        // One that does not arrive is asked for again.
        let _ = self.slot.answer(QpnTag(probe.asker), &Answer { gid: here, nonce, index, tag: tag.0 });
    }

    /// Takes what other slots sent; says how many messages there were.
    pub(super) fn receive_from_slots(&self, now: Time, delivery: &mut Delivery<'_>) -> io::Result<usize> {
        let mut count = 0;
        while count < udp::BATCH {
            let taken = self.slot.receive(|message| match message {
                Message::Packets(packets) => self.take_forwarded(&packets, delivery),
                Message::Answer(answer) => {
                    let index = self.interface.gids.iter().position(|gid| *gid == answer.gid);
                    if let Some(socket) = index.and_then(|index| self.socket(index as u8)) {
                        let step = socket.steering().answered(now, answer.nonce, answer.index, answer.tag);
                        self.carry_out(now, socket, step);
                        self.note_steering();
                    }
                }
                Message::Strange => {}
            })?;
            if taken.is_none() {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Hands out packets that came to another process.
    fn take_forwarded(&self, packets: &Forwarded<'_>, delivery: &mut Delivery<'_>) {
        let Some(gid_index) = self.interface.gids.iter().position(|gid| *gid == packets.gid) else { return };
        let message = &packets.message;
        for (index, payload) in message.bytes.chunks(message.segment).enumerate() {
            if QpnTag::of_packet(payload) != Some(self.slot.tag()) {
                continue;
            }
            self.counters.forwarded_here.add(1);
            delivery.packet(&Datagram {
                payload,
                source: gid(&message.source),
                source_port: message.source.port,
                gid_index: gid_index as u8,
                ident_hint: packets.first_ident.wrapping_add(index as u16),
                traffic_class: message.traffic_class,
                hop_limit: message.hop_limit,
            });
        }
    }

    /// Does what the search for positions wants.
    fn carry_out(&self, now: Time, socket: &Socket, step: Step) {
        match step {
            Step::Rest => {}
            Step::Probe { index, nonce } => {
                let probe = Probe { index, nonce, asker: self.slot.tag().0 }.encode();
                let envelope = Envelope {
                    to: socket.address,
                    connected: false,
                    segment: 0,
                    traffic_class: 0,
                    hop_limit: udp::DEFAULT_HOP_LIMIT,
                };
                // One that is lost is sent again.
                let _ = udp::send(socket.as_fd(), &envelope, &probe);
            }
            Step::Attach(positions) => {
                self.counters.steering_programs.add(1);
                // Without a program packets are handed on, which is slow but right.
                let _ = attach_steering(socket.as_fd(), &program(&positions));
                if let Ok(nonce) = random_u64() {
                    let step = socket.steering().attached(now, nonce);
                    self.carry_out(now, socket, step);
                }
            }
        }
    }
}

impl Drop for UdpLink {
    /// Hands on what came to our sockets for others. With the sockets it would be lost, and datagrams are not sent again.
    fn drop(&mut self) {
        self.closing = true;
        let mut scratch = ReceiveScratch { streak: true, ..ReceiveScratch::default() };
        let mut delivery = Delivery { sink: &mut |_| {}, count: 0 };
        if let Some(ring) = self.receiving.ring() {
            let _ = self.receive_from_ring(Time::ZERO, ring, delivery);
            return;
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            let Some(socket) = socket.get() else { continue };
            for _ in 0..LAST_BATCHES {
                let taken = self.receive_from(Time::ZERO, index as u8, socket, &mut scratch, &mut delivery);
                if taken.unwrap_or(0) == 0 {
                    break;
                }
            }
        }
    }
}
