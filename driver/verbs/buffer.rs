//! Buffers: registered bytes that are the program's own between work requests.

use super::memory::MrSlice;
use super::pd::ProtectionDomain;
use crate::device::DeviceMemory;
use crate::mem::ExclusiveBytes;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tbrdma_proto::Sge;

/// Registered bytes for local use. It reads and writes like a slice; to send it or receive into it, lend it to a work request
/// ([`SendWrs::send_buffer`](crate::SendWrs::send_buffer), [`ReceiveWrs::recv_buffer`](crate::ReceiveWrs::recv_buffer)) and get it back with
/// the completion. Nothing is copied.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ctx = tbrdma::open("shm")?;
/// # let (pd, cq) = (ctx.alloc_pd()?, ctx.create_cq(16)?);
/// # let mut qp = pd.create_qp(tbrdma::QpInit::rc(&cq))?;
/// # qp.connect(&qp.address())?;
/// let mut buffer = pd.alloc_buffer(64)?;
/// buffer[0] = 1;
/// qp.post_recv(|rq| { rq.recv_buffer(buffer); })?;
/// # Ok(())
/// # }
/// ```
///
/// A lent buffer is out of the program's hands until then:
///
/// ```compile_fail,E0382
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ctx = tbrdma::open("shm")?;
/// # let (pd, cq) = (ctx.alloc_pd()?, ctx.create_cq(16)?);
/// # let mut qp = pd.create_qp(tbrdma::QpInit::rc(&cq))?;
/// # qp.connect(&qp.address())?;
/// let mut buffer = pd.alloc_buffer(64)?;
/// qp.post_recv(|rq| { rq.recv_buffer(buffer); })?;
/// buffer[0] = 1; // not ours any more
/// # Ok(())
/// # }
/// ```
pub struct Buffer {
    bytes: ExclusiveBytes,
    pd: ProtectionDomain,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

impl Buffer {
    pub(crate) fn new(pd: &ProtectionDomain, memory: Arc<dyn DeviceMemory>) -> Self {
        let bytes = ExclusiveBytes::new(memory).expect("fresh memory for local use is ours alone");
        Self { bytes, pd: pd.clone() }
    }

    /// The protection domain it belongs to.
    pub fn pd(&self) -> &ProtectionDomain {
        &self.pd
    }

    /// Its first `len` bytes as a work request names them.
    pub(crate) fn slice(&self, len: usize) -> MrSlice {
        let memory = self.bytes.memory();
        let length = u32::try_from(len.min(memory.len())).unwrap_or(u32::MAX);
        MrSlice(Sge { addr: memory.iova(), length, lkey: memory.lkey() })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.bytes()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.bytes_mut()
    }
}
