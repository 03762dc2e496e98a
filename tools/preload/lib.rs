//! Pretends the files `/dev/infiniband/NAME`, for programs that insist on them before they use a device; UCX is one. To be named in
//! `LD_PRELOAD`; `tbrdma-run --device-files` does.
//!
//! Only a preload can do this. The drop-in cannot, because it is usually loaded by a module of the program, so its symbols are not what the
//! program itself calls.
//!
//! A path that is pretended leads to `/dev/null`: a character device that anybody may open. Others go where they always went. Each function here
//! has the name of one of libc and calls one that does the same and has another name, so nothing must be looked up: the `*at` functions. None
//! allocates or locks: they are called when they are called.

#[cfg(not(target_os = "linux"))]
compile_error!("what pretends /dev/infiniband is for Linux, as that folder is");

use nix::libc::{
    self, AT_EACCESS, AT_FDCWD, AT_SYMLINK_NOFOLLOW, c_char, c_int, mode_t, stat as Stat, stat64 as Stat64,
};
use std::ffi::CStr;

/// Where device files lie.
const FOLDER: &[u8] = b"/dev/infiniband/";
/// What the kernel calls them.
const KERNELS: &[u8] = b"uverbs";
/// What stands for them: its mode is that of a character device, and everybody may read and write it.
const INSTEAD: &CStr = c"/dev/null";
/// `[NAME=]SPEC`, commas between them.
const DEVICES: &CStr = c"TBRDMA_DEVICES";

/// Is this the file of one of our devices: `uverbs0` and so on, or a device's name?
fn is_ours(path: &[u8], devices: &[u8]) -> bool {
    let Some(name) = path.strip_prefix(FOLDER).filter(|name| !name.is_empty()) else { return false };
    let by_number = name
        .strip_prefix(KERNELS)
        .is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit));
    by_number
        || devices
            .split(|&byte| byte == b',')
            .any(|device| device.split(|&byte| byte == b'=').next() == Some(name))
}

/// The path to use for this one.
///
/// # Safety
/// `path` is null, or a C string that stays as it is during the call.
unsafe fn redirect(path: *const c_char) -> *const c_char {
    if path.is_null() {
        return path;
    }
    // SAFETY: not null, so a C string by our own contract.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    if !bytes.starts_with(FOLDER) {
        return path;
    }
    // SAFETY: a constant C string. Who changes the environment beside other threads has the same trouble with libc's own calls.
    let devices = unsafe { libc::getenv(DEVICES.as_ptr()) };
    let devices = match devices.is_null() {
        true => &[],
        // SAFETY: what getenv returns is null or a C string.
        false => unsafe { CStr::from_ptr(devices) }.to_bytes(),
    };
    if is_ours(bytes, devices) { INSTEAD.as_ptr() } else { path }
}

/// Defines functions of libc by others of libc, with the path redirected.
macro_rules! by {
    ($($(#[$doc:meta])* fn $name:ident($($before:ident: $before_type:ty,)* @ $path:ident $(, $argument:ident: $type:ty)*) $call:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for libc's function of this name.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($before: $before_type,)* $path: *const c_char $(, $argument: $type)*) -> c_int {
            $(let _ = $before;)*
            // SAFETY: the caller gives a path as it would to libc.
            let $path = unsafe { redirect($path) };
            // SAFETY: the arguments are the caller's, who promises what libc asks of them; the path is the caller's, or a constant.
            unsafe { $call }
        }
    )*};
}

by! {
    /// `stat(2)`.
    fn stat(@path, to: *mut Stat) libc::fstatat(AT_FDCWD, path, to, 0);
    /// `stat(2)`, as programs with large files call it.
    fn stat64(@path, to: *mut Stat64) libc::fstatat64(AT_FDCWD, path, to, 0);
    /// `lstat(2)`.
    fn lstat(@path, to: *mut Stat) libc::fstatat(AT_FDCWD, path, to, AT_SYMLINK_NOFOLLOW);
    /// `lstat(2)`, as programs with large files call it.
    fn lstat64(@path, to: *mut Stat64) libc::fstatat64(AT_FDCWD, path, to, AT_SYMLINK_NOFOLLOW);
    /// `stat(2)`, as programs call it that were built with glibc before 2.33.
    fn __xstat(version: c_int, @path, to: *mut Stat) libc::fstatat(AT_FDCWD, path, to, 0);
    /// Likewise, with large files.
    fn __xstat64(version: c_int, @path, to: *mut Stat64) libc::fstatat64(AT_FDCWD, path, to, 0);
    /// `access(2)`.
    fn access(@path, mode: c_int) libc::faccessat(AT_FDCWD, path, mode, 0);
    /// `euidaccess(3)`.
    fn euidaccess(@path, mode: c_int) libc::faccessat(AT_FDCWD, path, mode, AT_EACCESS);
    /// `open(2)`. Its third argument is one only if a flag says so; it is handed on as it is.
    fn open(@path, flags: c_int, mode: mode_t) libc::openat(AT_FDCWD, path, flags, mode);
    /// `open(2)`, as programs with large files call it.
    fn open64(@path, flags: c_int, mode: mode_t) libc::openat64(AT_FDCWD, path, flags, mode);
    /// `open(2)`, as programs call it that were built with checks of the call; without flags that need a mode.
    fn __open_2(@path, flags: c_int) libc::openat(AT_FDCWD, path, flags);
    /// Likewise, with large files.
    fn __open64_2(@path, flags: c_int) libc::openat64(AT_FDCWD, path, flags);
}
