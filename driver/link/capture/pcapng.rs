//! The few blocks of the pcapng format (IETF draft-ietf-opsawg-pcapng) that a capture of IP packets needs.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

/// Block types.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// Tells readers in which order the bytes of numbers are.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Packets begin with their IPv4 or IPv6 header.
const LINKTYPE_RAW: u16 = 101;

/// Options: the application of a section; the name and the clock's resolution of an interface; a packet's direction.
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;

/// Times count nanoseconds: the negative power of ten.
const NANOSECONDS: u8 = 9;

/// Bytes of packets that may wait in memory.
const BUFFER_BYTES: usize = 1 << 18;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// It arrived.
    In = 1,
    /// It was sent.
    Out = 2,
}

/// Writes a file with one section, of one or more interfaces.
#[derive(Debug)]
pub(super) struct Writer<W: Write> {
    to: BufWriter<W>,
    /// The block being built, from behind its first length to before its last.
    body: Vec<u8>,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Begins the file.
    pub(super) fn new(to: W) -> io::Result<Self> {
        let to = BufWriter::with_capacity(BUFFER_BYTES, to);
        let mut writer = Self { to, body: Vec::new(), interfaces: 0 };
        writer.number(BYTE_ORDER_MAGIC);
        // Version 1.0; and -1 for a section whose length is not told.
        writer.body.extend_from_slice(&[1, 0, 0, 0]);
        writer.body.extend_from_slice(&[0xff; 8]);
        writer.option(SECTION_APPLICATION, b"tbrdma");
        writer.end_options();
        writer.block(SECTION_HEADER)?;
        Ok(writer)
    }

    /// Adds an interface of this name: the number by which its packets say so.
    pub(super) fn interface(&mut self, name: &str) -> io::Result<u32> {
        self.body.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
        // Reserved; and no limit of a packet's length.
        self.body.extend_from_slice(&[0; 6]);
        self.option(INTERFACE_NAME, name.as_bytes());
        self.option(INTERFACE_RESOLUTION, &[NANOSECONDS]);
        self.end_options();
        self.block(INTERFACE_DESCRIPTION)?;
        self.flush()?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes a packet of an interface, made of `parts`; `time` counts from 1970.
    pub(super) fn packet(
        &mut self,
        interface: u32,
        time: Duration,
        direction: Direction,
        parts: &[&[u8]],
    ) -> io::Result<()> {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let len = parts.iter().map(|part| part.len() as u32).sum();
        // The interface, the time's upper half and its lower, the bytes here, the bytes there were.
        for number in [interface, (nanoseconds >> 32) as u32, nanoseconds as u32, len, len] {
            self.number(number);
        }
        for part in parts {
            self.body.extend_from_slice(part);
        }
        self.pad();
        self.option(PACKET_FLAGS, &(direction as u32).to_le_bytes());
        self.end_options();
        self.block(ENHANCED_PACKET)
    }

    /// Hands everything to the system.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn number(&mut self, number: u32) {
        self.body.extend_from_slice(&number.to_le_bytes());
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.body.extend_from_slice(&code.to_le_bytes());
        self.body.extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.body.extend_from_slice(value);
        self.pad();
    }

    fn end_options(&mut self) {
        self.number(0);
    }

    fn pad(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    /// Ends the block being built.
    fn block(&mut self, kind: u32) -> io::Result<()> {
        // Two types and lengths of 4 bytes, and the body.
        let total = (12 + self.body.len() as u32).to_le_bytes();
        let result = [&kind.to_le_bytes(), &total, self.body.as_slice(), &total]
            .into_iter()
            .try_for_each(|part: &[u8]| self.to.write_all(part));
        self.body.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_the_format_says() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        assert_eq!(["udp:lo", "shm"].map(|name| writer.interface(name).unwrap()), [0, 1]);
        writer.packet(1, Duration::new(1, 2), Direction::Out, &[&[0x45], &[1, 2, 3, 4]]).unwrap();
        drop(writer);
        let mut blocks = Vec::new();
        let mut rest = file.as_slice();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(len - 4) as usize, len);
            blocks.push((word(0), rest[8..len - 4].to_vec()));
            rest = &rest[len..];
        }
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE_DESCRIPTION, INTERFACE_DESCRIPTION, ENHANCED_PACKET]);
        assert_eq!(blocks[0].1[..8], [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
        assert_eq!(blocks[1].1[..8], [101, 0, 0, 0, 0, 0, 0, 0]);
        let time = 1_000_000_002u64;
        let packet = &blocks[3].1;
        assert_eq!(packet[..4], [1, 0, 0, 0]);
        assert_eq!(packet[4..12], [(time >> 32) as u32, time as u32].map(u32::to_le_bytes).concat());
        assert_eq!(packet[12..20], [5, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(packet[20..28], [0x45, 1, 2, 3, 4, 0, 0, 0]);
        assert_eq!(packet[28..], [2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    }
}
