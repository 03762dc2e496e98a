//! Memory windows: keys of their own for parts of regions.

use super::memory::MemoryRegion;
use super::pd::ProtectionDomain;
use std::fmt;
use std::ops::Range;
use tbrdma_proto::{Access, MwBind, MwType, inc_rkey};

/// A memory window (`ibv_alloc_mw(3)`): a key that peers get for a part of a [`MemoryRegion`], bound and taken back by work requests in
/// little time, where a registration takes much.
///
/// ```
/// # use tbrdma::{Access, MwType, QpInit, WorkCompletion};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ctx = tbrdma::open("shm")?;
/// # let (pd, cq) = (ctx.alloc_pd()?, ctx.create_cq(16)?);
/// # let mut qp = pd.create_qp(QpInit::rc(&cq))?;
/// # qp.connect(&qp.address())?;
/// let mr = pd.alloc(4096, Access::LOCAL_WRITE | Access::MW_BIND)?;
/// let mw = pd.alloc_mw(MwType::Type2)?;
/// let bind = mw.bind_to(&mr, 1024..2048, Access::REMOTE_WRITE);
/// qp.post(|wr| { wr.bind_mw(&bind); })?;
/// # let mut wcs = [WorkCompletion::default()];
/// # while cq.poll(&mut wcs).is_empty() {}
/// # wcs[0].ok()?;
/// assert_eq!(mw.rkey(), bind.rkey); // for the peer, with the address of the bytes
/// qp.post(|wr| { wr.local_inv(bind.rkey); })?;
/// # Ok(())
/// # }
/// ```
///
/// A region cannot be deregistered while windows are bound to it. Dropping a window deallocates it, bound or not.
pub struct MemoryWindow {
    pd: ProtectionDomain,
    mw_type: MwType,
    /// Its first key: the device knows it by that for ever.
    first: u32,
}

impl fmt::Debug for MemoryWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWindow")
            .field("rkey", &format_args!("{:#010x}", self.rkey()))
            .field("mw_type", &self.mw_type)
            .finish()
    }
}

impl MemoryWindow {
    pub(crate) fn new(pd: &ProtectionDomain, mw_type: MwType, rkey: u32) -> Self {
        Self { pd: pd.clone(), mw_type, first: rkey }
    }

    /// The key by which peers name what it is bound to: that of the last binding that was carried out.
    pub fn rkey(&self) -> u32 {
        self.pd.context().device.mw_rkey(self.first)
    }

    /// Its type.
    pub fn mw_type(&self) -> MwType {
        self.mw_type
    }

    /// The protection domain it belongs to.
    pub fn pd(&self) -> &ProtectionDomain {
        &self.pd
    }

    /// The binding of this window, under its next key, to a part of a region; with [`Access::ZERO_BASED`], which type 2 may have, peers name the
    /// part's bytes from 0 on, else by the region's addresses. An empty part takes from a window of type 1 what it has. What is asked is
    /// checked when the work request is carried out.
    pub fn bind_to(&self, mr: &MemoryRegion, range: Range<usize>, access: Access) -> MwBind {
        let rkey = self.rkey();
        MwBind {
            window: rkey,
            rkey: inc_rkey(rkey),
            lkey: mr.lkey(),
            addr: mr.addr().wrapping_add(range.start as u64),
            length: range.len() as u64,
            access,
        }
    }
}

impl Drop for MemoryWindow {
    fn drop(&mut self) {
        self.pd.context().device.dealloc_mw(self.first);
    }
}
