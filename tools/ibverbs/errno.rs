//! Why a call failed, as C is told: a number.

use core::ffi::c_int;

/// An `errno` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    pub(crate) const EINVAL: Self = Self(libc::EINVAL);
    pub(crate) const EIO: Self = Self(libc::EIO);
    pub(crate) const ENOMEM: Self = Self(libc::ENOMEM);
    pub(crate) const EBUSY: Self = Self(libc::EBUSY);
    pub(crate) const ENOENT: Self = Self(libc::ENOENT);
    pub(crate) const ENODEV: Self = Self(libc::ENODEV);
    pub(crate) const EAGAIN: Self = Self(libc::EAGAIN);
    pub(crate) const EOPNOTSUPP: Self = Self(libc::EOPNOTSUPP);

    /// What the system has just said.
    pub(crate) fn last() -> Self {
        Self(nix::errno::Errno::last_raw())
    }

    /// Leaves the number for the program.
    pub(crate) fn set(self) {
        nix::errno::Errno::set_raw(self.0);
    }
}

impl From<tbrdma::Error> for Errno {
    fn from(error: tbrdma::Error) -> Self {
        crate::log::say(&error);
        Self(error.errno())
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(errno as c_int)
    }
}
