//! Files that several processes are told of.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The path for one process: `%p` becomes its number and `%%` a `%`, so that processes with the same settings need not write to one file.
pub fn for_process(path: &Path, process: u32) -> PathBuf {
    let mut result = Vec::new();
    let mut bytes = path.as_os_str().as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'%', Some(b'p')) => result.extend(process.to_string().bytes()),
            (b'%', Some(b'%')) => result.push(b'%'),
            _ => {
                result.push(byte);
                continue;
            }
        }
        bytes.next();
    }
    OsString::from_vec(result).into()
}
