//! What the tests of the C face share.

use std::path::PathBuf;

#[path = "../../../../tests/common/process.rs"]
pub(crate) mod process;
#[macro_use]
pub(crate) mod verbs;

#[allow(unused_imports)]
pub(crate) use process::skip;

/// The built library: Cargo puts it beside the test.
#[allow(dead_code)]
pub(crate) fn library() -> PathBuf {
    let folder = std::env::current_exe().expect("a path").parent().expect("a folder").to_owned();
    folder.join("libibverbs.so")
}
