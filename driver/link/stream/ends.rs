//! A stream, of whatever kind.
//!
//! It is read and written by plain calls, and not through io_uring. Measured on two cores over a Unix socket, polling, 64 bytes there and back, half the
//! median: 2.0 us by `recv` and `send`, 3.1 us with receives through a ring of DEFER_TASKRUN and SINGLE_ISSUER, the quickest kind (the `udp` link's table
//! says the same). A ring saves a thread that waits the call; one that polls asks the kernel at each look anyway, and a ring answers in two steps. Registered
//! buffers save pinning pages, which a copy between sockets does not do.

use super::standin::StandIn;
use super::watch::Watch;
use crate::sys::stream::{Duct, can_be_waited_for};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use tbrdma_proto::stream::Manner;

/// This end of a stream. It is closed when the last who has it lets go.
#[derive(Debug)]
pub(super) struct Ends {
    kind: Kind,
    /// What the handshake has to reckon with.
    pub(super) manner: Manner,
    /// Whether its descriptors say when there is something to do. Else somebody must look now and then.
    pub(super) can_be_waited_for: bool,
}

#[derive(Debug)]
enum Kind {
    Duct(Duct),
    StandIn(StandIn),
}

impl Ends {
    /// A stream through descriptors.
    pub(super) fn new(duct: Duct, manner: Manner) -> Self {
        let can_be_waited_for = manner == Manner::Fresh || can_be_waited_for(duct.input());
        Self { kind: Kind::Duct(duct), manner, can_be_waited_for }
    }

    /// One that pretends to be a device.
    pub(super) fn stand_in(stand_in: StandIn) -> Self {
        Self { kind: Kind::StandIn(stand_in), manner: Manner::Standing, can_be_waited_for: true }
    }

    /// Takes what has arrived: 0 is the end, `WouldBlock` that there is nothing.
    #[inline]
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.kind {
            Kind::Duct(duct) => duct.read(into),
            Kind::StandIn(stand_in) => stand_in.read(into),
        }
    }

    /// Gives as much as there is room for; `WouldBlock` if there is none.
    #[inline]
    pub(super) fn write(&self, from: &[u8]) -> io::Result<usize> {
        match &self.kind {
            Kind::Duct(duct) => duct.write(from),
            Kind::StandIn(stand_in) => stand_in.write(from),
        }
    }

    /// Before it is closed: what was written is to arrive, if the other end takes it within this time.
    pub(super) fn finish(&self, bound: Duration) {
        match &self.kind {
            Kind::Duct(duct) => duct.finish(bound),
            // Its end comes behind what was written.
            Kind::StandIn(_) => {}
        }
    }

    /// Readable when there is something to read.
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Duct(duct) => duct.input(),
            Kind::StandIn(stand_in) => stand_in.input(),
        }
    }

    /// Has it be waited for, that there is room.
    pub(super) fn wait_for_room(&self, watch: &Watch) {
        match &self.kind {
            _ if !self.can_be_waited_for => {}
            Kind::Duct(duct) => watch.add_output(duct.output()),
            Kind::StandIn(stand_in) => watch.add_input(stand_in.output()),
        }
    }

    /// Has it be waited for no more.
    pub(super) fn forget_room(&self, watch: &Watch) {
        watch.remove(match &self.kind {
            Kind::Duct(duct) => duct.output(),
            Kind::StandIn(stand_in) => stand_in.output(),
        });
    }
}
