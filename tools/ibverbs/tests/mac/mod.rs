//! Programs as they are on a Mac: they load `librdma.dylib` by that name, and see ports called `rdma_en2` and so on.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::common;
use crate::common::process::{PATIENCE, role};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

pub(crate) mod collective;
pub(crate) mod port;
pub(crate) mod rdma;

/// The name that programs written for macOS load.
const DYLIB: &str = "librdma.dylib";

/// Loads the library as those programs do: by its name alone, wherever the loader finds it.
pub(crate) fn load() -> Library {
    // SAFETY: our own library, whose constructors do nothing.
    unsafe { Library::open(Some(DYLIB), RTLD_NOW | RTLD_GLOBAL) }.expect("librdma.dylib loads by its name")
}

/// A folder that has the library under that name. Each process makes the same one, perhaps at the same time.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mac");
        std::fs::create_dir_all(&folder).expect("a folder");
        let made = folder.join(format!("{DYLIB}.{}", std::process::id()));
        let _ = std::fs::remove_file(&made);
        symlink(common::library(), &made).expect("a link");
        std::fs::rename(made, folder.join(DYLIB)).expect("in place of what was there");
        folder
    })
}

/// What `tbrdma-run --profile PROFILE --device DEVICES` starts a program with.
pub(crate) fn environment(profile: &str, devices: &str) -> Vec<(&'static str, String)> {
    let mut search = OsString::from(folder());
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH") {
        search.push(":");
        search.push(before);
    }
    vec![
        ("LD_LIBRARY_PATH", search.into_string().expect("UTF-8")),
        ("TBRDMA_PROFILE", profile.to_owned()),
        ("TBRDMA_DEVICES", devices.to_owned()),
    ]
}

/// Runs the body of a test in a process of its own, on the [ports](port::PORTS): what a process is told holds for all that it does. `test` is
/// the test itself, which that process runs again.
pub(crate) fn program<F: Fn()>(test: F, profile: &str, more: &[(&str, &str)], body: impl FnOnce()) {
    let _ = test;
    let path = std::any::type_name::<F>();
    let name = path.split_once("::").expect("a path").1;
    match role() {
        Some(role) if role == name => {
            let _library = load();
            return body();
        }
        Some(role) => panic!("{name} was started as {role}"),
        None => {}
    }
    // What these programs send is not sent again, and is lost where others open and close devices at the same address.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args([name, "--exact", "--nocapture", "--test-threads=1", "--quiet"])
        .env("TBRDMA_TEST_ROLE", name)
        .envs(environment(profile, port::PORTS))
        .envs(more.iter().copied())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if begun.elapsed() > 2 * PATIENCE {
            child.kill().and_then(|()| child.wait()).expect("an end");
            panic!("{name} does not end");
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert!(status.success(), "{name}: {status}; what it said is above");
}
