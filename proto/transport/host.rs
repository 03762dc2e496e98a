//! What the transport must ask while it decides: keys, shared receives. Answers come from the owner, at once.

use crate::flags::Access;
use crate::region::{BindError, PdHandle, RegionError};
use crate::wire::GRH_BYTES;
use crate::work::{MwBind, Sge};

/// The owner's side of a decision. Implementations answer from tables; none of these touches memory that work is about.
pub trait Host {
    /// Whether domain `pd` may use `len` bytes at `addr` under `key` in the way `needed` says, by
    /// [`Region::check`](crate::Region::check).
    ///
    /// # Errors
    /// As there; [`RegionError::KeyMismatch`] if no region has the key.
    fn check(&self, pd: PdHandle, key: u32, needed: Access, addr: u64, len: u64) -> Result<(), RegionError>;

    /// The same for a request of the peer's, which may also use the windows open to this queue pair, by
    /// [`Region::check_remote`](crate::Region::check_remote). An owner without windows need not say more.
    ///
    /// # Errors
    /// As there.
    fn check_remote(
        &self,
        pd: PdHandle,
        key: u32,
        needed: Access,
        addr: u64,
        len: u64,
    ) -> Result<(), RegionError> {
        self.check(pd, key, needed, addr, len)
    }

    /// Binds a memory window on behalf of this queue pair, by [`RegionTable::bind`](crate::RegionTable::bind).
    ///
    /// # Errors
    /// As there; [`BindError::Unsupported`] of an owner without windows.
    fn bind(&mut self, _pd: PdHandle, _bind: &MwBind) -> Result<(), BindError> {
        Err(BindError::Unsupported)
    }

    /// Withdraws a key because a peer's SEND with invalidate, or a local one, says so. The key must be of domain `pd`.
    ///
    /// # Errors
    /// There is no such key in that domain; nothing changed.
    fn invalidate(&mut self, pd: PdHandle, key: u32) -> Result<(), RegionError>;

    /// Takes the next receive of the shared receive queue into `receive`, replacing what it held, or says that there is none. Only asked
    /// for queue pairs made with a shared queue.
    fn take_shared_receive(&mut self, receive: &mut Receive) -> bool;
}

/// A receive work request taken from its queue. The list's storage is reused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receive {
    /// The application's number.
    pub wr_id: u64,
    /// Its running number in its queue.
    pub wq_index: u32,
    /// The domain that the keys of its list are of: the queue pair's, or that of the shared queue.
    pub pd: PdHandle,
    /// Where the bytes go, in order.
    pub sges: Vec<Sge>,
}

/// A packet that came, and what its carrier knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The packet, its iCRC verified.
    pub packet: &'a crate::wire::Packet<'a>,
    /// The routing header that a datagram's receiver gets in front of the payload: for IPv6 the header itself, for IPv4
    /// 20 zero bytes and the header (RoCEv2 annex A17.4.5).
    pub grh: &'a [u8; GRH_BYTES],
    /// Whether the network marked it as having met congestion (ECN "CE").
    pub congestion: bool,
}
