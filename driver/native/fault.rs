//! What the library returns, as our errors. It has three ways of failing: no object and `errno`; a positive error number; -1 and `errno`.

use crate::error::Error;
use core::ffi::c_int;
use core::ptr::NonNull;
use std::io;

/// The failure of a call on a device.
pub(super) fn refused(call: &'static str, device: &str, source: io::Error) -> Error {
    refused_for(call, device, source, String::new())
}

/// The failure of a call on a device, with what is known of its cause.
pub(super) fn refused_for(call: &'static str, device: &str, source: io::Error, advice: String) -> Error {
    let advice = if advice.is_empty() { advice } else { format!("; {advice}") };
    Error::Refused { call, device: device.into(), source, advice: advice.into() }
}

/// The library has no such function, or the device's driver has not.
pub(super) fn missing(call: &'static str, device: &str, what: &'static str) -> Error {
    Error::NotSupported { call, device: device.to_owned(), what }
}

/// What a call that gives an object gave.
pub(super) fn object<T>(call: &'static str, device: &str, made: *mut T) -> Result<NonNull<T>, Error> {
    NonNull::new(made).ok_or_else(|| refused(call, device, last()))
}

/// Whether a call that gives a number failed: its error.
pub(super) fn failure(returned: c_int) -> Option<io::Error> {
    match returned {
        0 => None,
        -1 => Some(last()),
        number => Some(io::Error::from_raw_os_error(number.saturating_abs())),
    }
}

/// Whether a call that gives a number worked.
pub(super) fn check(call: &'static str, device: &str, returned: c_int) -> Result<(), Error> {
    failure(returned).map_or(Ok(()), |source| Err(refused(call, device, source)))
}

/// `errno`. A library that fails without saying why is said to have had an I/O error.
fn last() -> io::Error {
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(0) { io::Error::from_raw_os_error(nix::libc::EIO) } else { error }
}
