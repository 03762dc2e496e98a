//! Addresses: how a queue pair is found by its peer, and handles for datagram destinations.

use super::pd::ProtectionDomain;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use tbrdma_proto::{AddressVector, Gid, Psn, Qpn, limits};

/// What a peer must know to connect to a queue pair; exchanged by any means (TCP, MPI, a file, a command line).
///
/// As text: `gid/lid/qpn/psn`, the last three in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QpAddress {
    /// GID of the port.
    pub gid: Gid,
    /// LID of the port; zero where there is none.
    pub lid: u16,
    /// The queue pair's number.
    pub qpn: Qpn,
    /// Its first packet sequence number.
    pub psn: Psn,
}

/// Bytes of a [`QpAddress`] as [`to_bytes`](QpAddress::to_bytes) writes it.
pub const QP_ADDRESS_BYTES: usize = 26;

impl QpAddress {
    /// GID (16 bytes), LID (2), QPN (4), PSN (4), big endian.
    pub fn to_bytes(&self) -> [u8; QP_ADDRESS_BYTES] {
        let mut bytes = [0; QP_ADDRESS_BYTES];
        bytes[..16].copy_from_slice(&self.gid.0);
        bytes[16..18].copy_from_slice(&self.lid.to_be_bytes());
        bytes[18..22].copy_from_slice(&self.qpn.get().to_be_bytes());
        bytes[22..].copy_from_slice(&self.psn.get().to_be_bytes());
        bytes
    }

    /// The address in these bytes; `None` if a number has more than 24 bits.
    pub fn from_bytes(bytes: &[u8; QP_ADDRESS_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut gid = Gid::default();
        gid.0.copy_from_slice(&bytes[..16]);
        Some(Self {
            gid,
            lid: u16::from_be_bytes([bytes[16], bytes[17]]),
            qpn: Qpn::new(word(18))?,
            psn: Psn::new(word(22))?,
        })
    }

    /// The address vector that leads there from port 1.
    pub fn address_vector(&self) -> AddressVector {
        AddressVector {
            dlid: self.lid,
            is_global: !self.gid.is_zero(),
            dgid: self.gid,
            hop_limit: 64,
            port_num: limits::PORT,
            ..AddressVector::default()
        }
    }
}

impl fmt::Display for QpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:#06x}/{}/{}", self.gid, self.lid, self.qpn, self.psn)
    }
}

/// A text that is not a [`QpAddress`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a queue pair address (gid/lid/qpn/psn): {part} is missing or wrong")]
pub struct ParseQpAddressError {
    text: String,
    part: &'static str,
}

impl FromStr for QpAddress {
    type Err = ParseQpAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |part| ParseQpAddressError { text: text.to_owned(), part };
        let mut parts = text.split('/');
        let gid = parts.next().and_then(|part| part.parse().ok()).ok_or_else(|| wrong("the GID"))?;
        let mut number = |part| {
            parts
                .next()
                .and_then(|text| u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok())
                .ok_or_else(|| wrong(part))
        };
        let lid = number("the LID")?.try_into().map_err(|_| wrong("the LID"))?;
        let qpn = Qpn::new(number("the QPN")?).ok_or_else(|| wrong("the QPN"))?;
        let psn = Psn::new(number("the PSN")?).ok_or_else(|| wrong("the PSN"))?;
        if parts.next().is_some() {
            return Err(wrong("the end"));
        }
        Ok(Self { gid, lid, qpn, psn })
    }
}

/// A datagram destination (`ibv_create_ah(3)`).
#[derive(Clone, Debug)]
pub struct AddressHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pd: ProtectionDomain,
    number: u32,
}

impl AddressHandle {
    pub(crate) fn new(pd: &ProtectionDomain, number: u32) -> Self {
        Self { inner: Arc::new(Inner { pd: pd.clone(), number }) }
    }

    /// The number by which a work request names it ([`UdDestination::ah`](tbrdma_proto::UdDestination::ah)).
    pub fn number(&self) -> u32 {
        self.inner.number
    }

    /// The protection domain it belongs to.
    pub fn pd(&self) -> &ProtectionDomain {
        &self.inner.pd
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pd.context().device.destroy_ah(self.number);
    }
}
