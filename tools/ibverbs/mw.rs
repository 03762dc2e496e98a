//! Memory windows: none yet.

use crate::abi::*;
use crate::errno::Errno;
use crate::export::function;
use crate::object::Object;
use crate::pd::Pd;
use crate::qp::Qp;
use core::ffi::c_int;

/// A memory window.
#[repr(C)]
pub(crate) struct Mw {
    c: ibv_mw,
}

impl Object for Mw {
    type C = ibv_mw;
}

function! {
    /// `ibv_alloc_mw(3)`.
    pointer fn alloc_mw(_pd: &Pd, _kind: c_int) -> *mut ibv_mw {
        Err(Errno::EOPNOTSUPP)
    }

    /// `ibv_bind_mw(3)`.
    errno fn bind_mw(_qp: &Qp, _mw: &Mw, _bind: &ibv_mw_bind) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }

    /// `ibv_dealloc_mw(3)`.
    errno fn dealloc_mw(_mw: &Mw) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }
}
