//! A link between two devices of this process that loses nothing and has little room.

use crate::error::Result;
use crate::link::{
    Datagram, Link, LinkState, Port, Promises, QpnTag, ROCE_PORT, ReceiveScratch, Train, wrap,
};
use crate::soft::device::SoftDevice;
use crate::sys::eventfd::EventFd;
use crate::verbs::context::Context;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tbrdma_proto::{Gid, Mtu, Profile, Time};

/// What is on its way to one end, and the end itself.
struct Side {
    gid: Gid,
    /// Packets and their numbers in their trains.
    packets: Vec<(u16, Vec<u8>)>,
    /// The other end has found no room here.
    is_awaited: bool,
    /// Nobody takes what comes.
    is_stopped: bool,
    port: Arc<Port>,
    /// Readable when a packet has come, or there may be room at the other end.
    news: Arc<EventFd>,
}

struct Wire {
    sides: Mutex<[Side; 2]>,
    room: usize,
}

/// Pulls the wire out, and puts it in.
pub(super) struct Plug(Arc<Wire>);

/// One end, which is to become a device.
pub(super) struct End {
    wire: Arc<Wire>,
    at: usize,
    gids: [Gid; 1],
    port: Arc<Port>,
    news: Arc<EventFd>,
}

impl Side {
    fn new(number: u64, is_up: bool) -> Self {
        Self {
            gid: Gid((0xfe80_u128 << 112 | u128::from(number)).to_be_bytes()),
            packets: Vec::new(),
            is_awaited: false,
            is_stopped: false,
            port: Arc::new(Port::new(is_up).unwrap()),
            news: Arc::new(EventFd::new().unwrap()),
        }
    }
}

impl Wire {
    fn sides(&self) -> MutexGuard<'_, [Side; 2]> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(self: &Arc<Self>, at: usize) -> End {
        let Side { gid, port, news, .. } = &self.sides()[at];
        End { wire: Arc::clone(self), at, gids: [*gid], port: Arc::clone(port), news: Arc::clone(news) }
    }
}

/// A wire that is plugged in at both ends, with room for so many packets each way.
pub(super) fn wire(room: usize) -> ([End; 2], Plug) {
    let wire = Arc::new(Wire { sides: Mutex::new([1, 2].map(|number| Side::new(number, true))), room });
    ([0, 1].map(|at| wire.end(at)), Plug(wire))
}

impl Plug {
    /// Takes down both ports, and everything on its way is lost; or brings them up.
    pub(super) fn set(&self, is_up: bool) {
        for side in &mut *self.0.sides() {
            side.packets.clear();
            side.port.set(is_up);
            side.news.signal().unwrap();
        }
    }

    /// Whether nobody takes what comes to this end.
    pub(super) fn stop(&self, at: usize, is_stopped: bool) {
        let side = &mut self.0.sides()[at];
        side.is_stopped = is_stopped;
        side.news.signal().unwrap();
    }

    /// Somebody else at this end.
    pub(super) fn replace(&self, at: usize) -> End {
        self.set(false);
        let number = u64::from(self.0.sides()[at].gid.0[15]) + 2;
        self.0.sides()[at] = Side::new(number, false);
        self.set(true);
        self.0.end(at)
    }
}

impl End {
    /// The device at this end.
    pub(super) fn device(self) -> Context {
        let link = wrap(Box::new(self), None, None).unwrap();
        Context::of(Arc::new(SoftDevice::open(link, Profile::plain()).unwrap()))
    }
}

impl Link for End {
    fn name(&self) -> &str {
        "wire"
    }

    fn describe(&self) -> String {
        format!("end {} of a wire", self.at)
    }

    fn promises(&self) -> Promises {
        Promises { delivers: true, intact: true }
    }

    fn mtu(&self) -> Mtu {
        Mtu::B4096
    }

    fn gids(&self) -> &[Gid] {
        &self.gids
    }

    fn qpn_tag(&self) -> QpnTag {
        QpnTag(self.gids[0].0[15])
    }

    fn open_gid(&self, _gid_index: u8) -> Result<()> {
        Ok(())
    }

    fn source_port(&self, _gid_index: u8, _to: Gid) -> u16 {
        ROCE_PORT
    }

    fn tell_network_fields(&self) {}

    fn send(&self, _now: Time, train: &mut Train) -> io::Result<()> {
        let mut sides = self.wire.sides();
        let from = self.at;
        if !self.port.is_up() || sides[1 - from].gid != train.to() {
            train.sent = train.len();
            return Ok(());
        }
        let to = &mut sides[1 - from];
        while train.sent < train.len() {
            if to.packets.len() >= self.wire.room {
                to.is_awaited = true;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            to.packets.push((train.sent as u16, train.packet(train.sent).to_vec()));
            train.sent += 1;
            to.news.signal()?;
        }
        Ok(())
    }

    fn receive(
        &self,
        _now: Time,
        _scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        self.news.drain()?;
        let (packets, source) = {
            let mut sides = self.wire.sides();
            let source = sides[1 - self.at].gid;
            let side = &mut sides[self.at];
            if side.is_stopped {
                return Ok(0);
            }
            let packets = std::mem::take(&mut side.packets);
            if !packets.is_empty() && std::mem::take(&mut side.is_awaited) {
                sides[1 - self.at].news.signal()?;
            }
            (packets, source)
        };
        for (ident_hint, payload) in &packets {
            sink(&Datagram {
                payload,
                source,
                source_port: ROCE_PORT,
                gid_index: 0,
                ident_hint: *ident_hint,
                traffic_class: 0,
                hop_limit: 64,
            });
        }
        Ok(packets.len())
    }

    fn poll(&self, _now: Time) {}

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    fn watch(&self, _watched: bool) -> io::Result<()> {
        Ok(())
    }

    fn state(&self) -> Option<&dyn LinkState> {
        Some(&*self.port)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
