//! Packets into a stream: a train in one write, headers and all, from where it was put together.

use super::ends::Ends;
use crate::link::Train;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use tbrdma_proto::stream::FrameWriter;
use tbrdma_proto::{Gid, Guid};

/// The stream as those see it who send.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The stream; none while the port is down.
    open: Option<Open>,
    /// What is left of a packet, or of a hello, that did not fit whole. It leaves before anything else.
    rest: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    ends: Arc<Ends>,
    writer: FrameWriter,
    /// Who is met; before that only hellos leave.
    peer: Option<Gid>,
    /// Why nothing leaves any more.
    failed: Option<io::Error>,
}

/// What became of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it has left.
    All,
    /// There is no room for the rest.
    Blocked,
    /// The rest leads nowhere.
    Astray,
    /// The stream has just failed, and the rest is lost.
    Failed,
}

impl Output {
    /// A stream is there, with nobody met yet.
    pub(super) fn open(&mut self, ends: Arc<Ends>) {
        self.rest.clear();
        self.open = Some(Open { ends, writer: FrameWriter::default(), peer: None, failed: None });
    }

    /// Packets may leave.
    pub(super) fn met(&mut self, peer: Guid) {
        if let Some(open) = &mut self.open {
            open.peer = Some(super::link::gid_of(peer));
        }
    }

    /// The stream is over.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.rest.clear();
    }

    /// Why nothing leaves any more, said once.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.open.as_mut()?.failed.take()
    }

    /// The stream.
    pub(super) fn ends(&self) -> Option<&Ends> {
        self.open.as_ref().map(|open| &*open.ends)
    }

    /// Says something that is no packet. What does not fit leaves later; where even what was said before has not left, the other end does not
    /// listen yet, and will be told again.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        if self.flush() {
            self.rest.extend_from_slice(bytes);
            self.flush();
        }
    }

    /// Sends what is left over; whether all of it has gone.
    pub(super) fn flush(&mut self) -> bool {
        let Some(open) = &mut self.open else { return true };
        while !self.rest.is_empty() {
            match open.ends.write(&self.rest) {
                Ok(count) => drop(self.rest.drain(..count.min(self.rest.len()))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.rest.clear();
                    open.failed = Some(error);
                }
            }
        }
        true
    }

    /// Sends what is left of a train.
    pub(super) fn send(&mut self, train: &mut Train) -> Sent {
        let to = train.to();
        if self.open.as_ref().is_none_or(|open| open.peer != Some(to)) {
            return Sent::Astray;
        }
        if !self.rest.is_empty() && !self.flush() {
            return Sent::Blocked;
        }
        let Some(open) = &mut self.open else { return Sent::Astray };
        let (class, hops) = (train.traffic_class(), train.hop_limit());
        let first = train.sent;
        for index in first..train.len() {
            let header = open.writer.header(index - first, train.packet(index).len(), class, hops);
            if let Some(room) = train.lead_of(index) {
                *room = header;
            }
        }
        let bytes = train.packets(first..train.len());
        match open.ends.write(bytes) {
            Ok(count) if count >= bytes.len() => {
                open.writer.left(train.len() - first);
                train.sent = train.len();
                Sent::All
            }
            Ok(count) => {
                // A packet that has begun to leave has left; the others stay.
                let mut end = 0;
                let mut index = first;
                while end < count {
                    index += 1;
                    end = train.packets(first..index).len();
                }
                self.rest.extend_from_slice(bytes.get(count..end).unwrap_or_default());
                open.writer.left(index - first);
                train.sent = index;
                if index == train.len() { Sent::All } else { Sent::Blocked }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Blocked,
            Err(error) => {
                open.failed = Some(error);
                Sent::Failed
            }
        }
    }

    /// Whether something is left over.
    pub(super) fn is_behind(&self) -> bool {
        !self.rest.is_empty()
    }
}
