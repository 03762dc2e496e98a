//! The transport headers of one packet as one value: which there are, in which order, and their bytes.

use core::fmt;

use super::bytes::put;
use super::opcode::{AETH, EXTENDED};
use super::{
    Aeth, AtomicAckEth, AtomicEth, Bth, CNP_RESERVED_BYTES, Deth, Ieth, ImmDt, PacketOpcode, Reth, Service,
    WireError,
};

/// Bytes of a UD receive's routing header area.
pub const GRH_BYTES: usize = crate::limits::GRH_BYTES as usize;

/// Bytes of the longest transport headers: those of an atomic.
pub const MAX_HEADER_BYTES: usize = Bth::BYTES + AtomicEth::BYTES;

/// The transport headers of one packet: the base header, and those of the extended ones that its opcode says. Whoever builds one fills in
/// exactly those; encoding writes zeroes for one that is missing, and leaves out one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The base transport header.
    pub bth: Bth,
    /// Of a datagram.
    pub deth: Option<Deth>,
    /// Of a READ request and the first packet of a WRITE.
    pub reth: Option<Reth>,
    /// Of an atomic.
    pub atomic_eth: Option<AtomicEth>,
    /// Of an acknowledgement and the outer packets of a READ response.
    pub aeth: Option<Aeth>,
    /// The old value, of the answer to an atomic.
    pub atomic_ack_eth: Option<u64>,
    /// Immediate data, in host order.
    pub imm: Option<u32>,
    /// The key to invalidate.
    pub ieth: Option<u32>,
}

impl PacketOpcode {
    /// Bytes of the headers of a packet with this opcode, base header included: a multiple of 4.
    #[inline]
    pub const fn header_bytes(self) -> usize {
        match self.flags() & EXTENDED {
            0 => Bth::BYTES,
            AETH => Bth::BYTES + Aeth::BYTES,
            _ => self.bytes_of_headers(),
        }
    }

    /// Their sum, by one look at each.
    const fn bytes_of_headers(self) -> usize {
        const fn of(present: bool, bytes: usize) -> usize {
            if present { bytes } else { 0 }
        }
        Bth::BYTES
            + of(self.has_deth(), Deth::BYTES)
            + of(self.has_reth(), Reth::BYTES)
            + of(self.has_atomic_eth(), AtomicEth::BYTES)
            + of(self.has_aeth(), Aeth::BYTES)
            + of(self.has_atomic_ack_eth(), AtomicAckEth::BYTES)
            + of(self.has_imm(), ImmDt::BYTES)
            + of(self.has_ieth(), Ieth::BYTES)
            + of(matches!(self.service(), Service::Cnp), CNP_RESERVED_BYTES)
    }
}

impl Headers {
    /// Headers with only a base header so far.
    pub const fn new(bth: Bth) -> Self {
        Self {
            bth,
            deth: None,
            reth: None,
            atomic_eth: None,
            aeth: None,
            atomic_ack_eth: None,
            imm: None,
            ieth: None,
        }
    }

    /// Bytes on the wire, as the opcode says.
    // There are always at least 12, so that `is_empty` would mean nothing.
    #[allow(clippy::len_without_is_empty)]
    #[inline]
    pub const fn len(&self) -> usize {
        self.bth.opcode.header_bytes()
    }

    /// Bytes of a whole UDP payload with these headers: with `payload` bytes of payload, the padding of `bth.pad`, and the iCRC.
    #[inline]
    pub const fn packet_len(&self, payload: usize) -> usize {
        self.len() + payload + self.bth.pad as usize + super::icrc::ICRC_BYTES
    }

    /// Writes the headers to the front of `out` and returns how many bytes they are.
    #[inline]
    pub fn encode(&self, out: &mut [u8; MAX_HEADER_BYTES]) -> usize {
        let opcode = self.bth.opcode;
        let mut rest = put(out, &self.bth.to_bytes());
        match opcode.flags() & EXTENDED {
            // Most packets by far.
            0 => return Bth::BYTES,
            AETH => {
                put(rest, &self.aeth.map_or([0; Aeth::BYTES], |aeth| aeth.to_bytes()));
                return Bth::BYTES + Aeth::BYTES;
            }
            _ => {}
        }
        if opcode.has_deth() {
            rest = put(rest, &self.deth.unwrap_or_default().to_bytes());
        }
        if opcode.has_reth() {
            rest = put(rest, &self.reth.unwrap_or_default().to_bytes());
        }
        if opcode.has_atomic_eth() {
            rest = put(rest, &self.atomic_eth.unwrap_or_default().to_bytes());
        }
        if opcode.has_aeth() {
            rest = put(rest, &self.aeth.map_or([0; Aeth::BYTES], |aeth| aeth.to_bytes()));
        }
        if opcode.has_atomic_ack_eth() {
            rest = put(rest, &AtomicAckEth(self.atomic_ack_eth.unwrap_or_default()).to_bytes());
        }
        if opcode.has_imm() {
            rest = put(rest, &ImmDt(self.imm.unwrap_or_default()).to_bytes());
        }
        if opcode.has_ieth() {
            rest = put(rest, &Ieth(self.ieth.unwrap_or_default()).to_bytes());
        }
        if matches!(opcode.service(), Service::Cnp) {
            put(rest, &[0; CNP_RESERVED_BYTES]);
        }
        self.len()
    }

    /// Reads the headers at the front of `bytes` and returns them with what follows.
    ///
    /// # Errors
    /// All of [`WireError`] but [`Unaligned`](WireError::Unaligned) and [`Pad`](WireError::Pad), which only the whole packet tells.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let short = |need| WireError::TooShort { len: bytes.len(), need };
        let (bth, rest) = bytes.split_first_chunk().ok_or_else(|| short(Bth::BYTES))?;
        let mut headers = Self::new(Bth::from_bytes(bth)?);
        let opcode = headers.bth.opcode;
        if opcode.flags() & EXTENDED == 0 {
            return Ok((headers, rest));
        }
        let mut reader = Reader(rest);
        let whole = || short(opcode.header_bytes());
        if opcode.has_deth() {
            headers.deth = Some(Deth::from_bytes(reader.take().ok_or_else(whole)?));
        }
        if opcode.has_reth() {
            headers.reth = Some(Reth::from_bytes(reader.take().ok_or_else(whole)?));
        }
        if opcode.has_atomic_eth() {
            headers.atomic_eth = Some(AtomicEth::from_bytes(reader.take().ok_or_else(whole)?));
        }
        if opcode.has_aeth() {
            headers.aeth = Some(Aeth::from_bytes(reader.take().ok_or_else(whole)?)?);
        }
        if opcode.has_atomic_ack_eth() {
            headers.atomic_ack_eth = Some(AtomicAckEth::from_bytes(reader.take().ok_or_else(whole)?).0);
        }
        if opcode.has_imm() {
            headers.imm = Some(ImmDt::from_bytes(reader.take().ok_or_else(whole)?).0);
        }
        if opcode.has_ieth() {
            headers.ieth = Some(Ieth::from_bytes(reader.take().ok_or_else(whole)?).0);
        }
        if matches!(opcode.service(), Service::Cnp) {
            reader.take::<CNP_RESERVED_BYTES>().ok_or_else(whole)?;
        }
        Ok((headers, reader.0))
    }
}

/// Takes headers off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(front)
    }
}

/// The base header, then each extended one that there is, in the order of the wire.
impl fmt::Display for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn more(f: &mut fmt::Formatter<'_>, header: Option<impl fmt::Display>) -> fmt::Result {
            header.map_or(Ok(()), |header| write!(f, " {header}"))
        }
        write!(f, "{}", self.bth)?;
        more(f, self.deth)?;
        more(f, self.reth)?;
        more(f, self.atomic_eth)?;
        more(f, self.aeth)?;
        more(f, self.atomic_ack_eth.map(AtomicAckEth))?;
        more(f, self.imm.map(ImmDt))?;
        more(f, self.ieth.map(Ieth))
    }
}
