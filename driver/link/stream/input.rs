//! Packets out of a stream: read in large pieces, and handed out from where they were read to.

use super::ends::Ends;
use std::{fmt, io};
use tbrdma_proto::Time;
use tbrdma_proto::stream::{FrameError, FrameReader, Item, Meeting, MeetingError};

/// Bytes read at once. More than a processor's cache holds would be read from memory again.
const ROOM: usize = 256 << 10;

/// What has arrived and was not handed out.
pub(super) struct Input {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("bytes", &(self.end - self.start)).finish_non_exhaustive()
    }
}

impl Input {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; ROOM].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Another stream begins.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Reads once. 0 is the end of the stream, `WouldBlock` that there is nothing.
    #[inline]
    pub(super) fn fill(&mut self, ends: &Ends) -> io::Result<usize> {
        if self.start > 0 {
            // At most the beginning of one packet is left.
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        let count = ends.read(room)?;
        self.end += count.min(room.len());
        Ok(count)
    }

    /// Gives a meeting what is there.
    pub(super) fn meet(&mut self, now: Time, meeting: &mut Meeting) -> Result<(), MeetingError> {
        let bytes = self.bytes.get(self.start..self.end).unwrap_or_default();
        let taken = meeting.take(now, bytes)?;
        self.start += taken.min(bytes.len());
        Ok(())
    }

    /// Hands out every packet that is there whole, with its traffic class and hop limit; how many.
    #[inline]
    pub(super) fn packets(
        &mut self,
        reader: &mut FrameReader,
        mut deliver: impl FnMut(&[u8], u8, u8),
    ) -> Result<usize, FrameError> {
        let mut count = 0;
        let mut rest = self.bytes.get(self.start..self.end).unwrap_or_default();
        let result = loop {
            match reader.next(rest) {
                Ok(Item::Packet { packet, traffic_class, hop_limit, bytes }) => {
                    deliver(packet, traffic_class, hop_limit);
                    rest = rest.get(bytes..).unwrap_or_default();
                    count += 1;
                }
                Ok(Item::Said { bytes }) => rest = rest.get(bytes..).unwrap_or_default(),
                Ok(Item::Incomplete) => break Ok(count),
                Err(error) => break Err(error),
            }
        };
        self.start = self.end - rest.len();
        if rest.is_empty() {
            self.clear();
        }
        result
    }
}
