//! What libibverbs says of the system around it: files of the kernel's, forks, and addresses of the Ethernet below.

use crate::abi::ibv_context;
use crate::errno::Errno;
use crate::export::export;
use core::ffi::{CStr, c_char, c_int, c_void};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where the kernel's files are; libibverbs' own variable says otherwise.
fn sysfs() -> &'static CStr {
    static PATH: std::sync::OnceLock<std::ffi::CString> = std::sync::OnceLock::new();
    PATH.get_or_init(|| {
        let set = std::env::var_os("SYSFS_PATH").filter(|path| !path.is_empty());
        let path = set.unwrap_or_else(|| "/sys".into());
        let trimmed = path.as_bytes().strip_suffix(b"/").unwrap_or_else(|| path.as_bytes());
        std::ffi::CString::new(trimmed).unwrap_or_default()
    })
}

/// Reads a short file into the program's room, without the final newline and with a final zero; how many bytes.
fn read_file(
    folder: *const c_char,
    file: *const c_char,
    to: *mut c_char,
    room: usize,
) -> Result<c_int, Errno> {
    if folder.is_null() || file.is_null() || to.is_null() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the program passes a text, not NULL.
    let folder = unsafe { CStr::from_ptr(folder) };
    // SAFETY: as above.
    let file = unsafe { CStr::from_ptr(file) };
    let path = Path::new(OsStr::from_bytes(folder.to_bytes())).join(OsStr::from_bytes(file.to_bytes()));
    let failed = |error: std::io::Error| Errno(error.raw_os_error().unwrap_or(libc::EIO));
    let mut text = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(room as u64).read_to_end(&mut text).map_err(failed)?;
    if text.last() == Some(&b'\n') {
        text.pop();
    } else if text.len() >= room {
        return Err(Errno::EINVAL);
    }
    text.push(0);
    // SAFETY: the program has so much room, and the text with its zero is no longer.
    unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), text.len().min(room)) };
    Ok(text.len() as c_int - 1)
}

export! {
    "IBVERBS_1.0" plain fn ibv_get_sysfs_path() -> *const c_char {
        Ok(sysfs().as_ptr())
    }

    "IBVERBS_1.0" minus_one fn ibv_read_sysfs_file(
        folder: *const c_char,
        file: *const c_char,
        to: *mut c_char,
        room: usize,
    ) -> c_int {
        read_file(folder, file, to, room)
    }

    /// Children get copies of memory that nobody writes to, so there is nothing to prepare.
    "IBVERBS_1.1" errno fn ibv_fork_init() -> c_int {
        Ok(())
    }

    "IBVERBS_1.13" plain fn ibv_is_fork_initialized() -> c_int {
        /// `IBV_FORK_UNNEEDED`.
        const UNNEEDED: c_int = 2;
        Ok(UNNEEDED)
    }

    "IBVERBS_1.1" errno fn ibv_dontfork_range(_base: *mut c_void, _size: usize) -> c_int {
        Ok(())
    }

    "IBVERBS_1.1" errno fn ibv_dofork_range(_base: *mut c_void, _size: usize) -> c_int {
        Ok(())
    }

    /// Devices here find their peers by themselves.
    "IBVERBS_1.1" minus_one fn ibv_resolve_eth_l2_from_gid(
        _context: *mut ibv_context,
        _attr: *mut c_void,
        _mac: *mut u8,
        _vid: *mut c_void,
    ) -> c_int {
        Err(Errno::EOPNOTSUPP)
    }
}
