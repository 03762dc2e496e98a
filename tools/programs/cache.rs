//! The programs and the libraries they need: Debian packages, unpacked into a folder of ours. Nothing is installed.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use tbrdma_kit::Folder;
use tbrdma_kit::debian::{self, Apt};

/// Changes when what is unpacked, or how, changes.
const LAYOUT: &str = "1";

const PACKAGES: [&str; 11] = [
    "ibverbs-utils",
    "perftest",
    "qperf",
    "libibverbs1",
    "ibverbs-providers",
    "librdmacm1",
    "libibumad3",
    "libnl-3-200",
    "libnl-route-3-200",
    "libpci3",
    "busybox-static",
];

/// rdma-core's tests, and the Python they are built for.
const PYVERBS: [&str; 4] =
    ["python3-pyverbs", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"];

const DEBIAN: &str = "debian";

/// The folder of unpacked packages.
pub(crate) struct Cache(Folder);

impl Cache {
    /// The folder, filled if it was not. `TBRDMA_PROGRAMS_DIR` names it; without, it is `target/programs` of this repository.
    pub(crate) fn open() -> Result<Self> {
        Self::of("programs", &PACKAGES)
    }

    /// The folder beside it that has rdma-core's Python tests too.
    pub(crate) fn with_pyverbs() -> Result<Self> {
        Self::of("pyverbs", &[&PACKAGES[..], &PYVERBS].concat())
    }

    fn of(name: &str, packages: &[&str]) -> Result<Self> {
        let root = std::env::var_os("TBRDMA_PROGRAMS_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/programs"),
            PathBuf::from,
        );
        let folder = Folder::open(root.join(name), LAYOUT, |root| {
            println!("programs: unpacking Debian's {name} into {}, once", root.display());
            let apt = Apt::new(root, packages[0])?;
            let debs = root.join("debs");
            apt.download(&debs, packages.iter().copied())?;
            for package in packages {
                debian::unpack(&debs, package, &root.join(DEBIAN))?;
            }
            Ok(fs::remove_dir_all(debs)?)
        })?;
        Ok(Self(folder))
    }

    /// The root of the unpacked packages.
    pub(crate) fn debian(&self) -> PathBuf {
        self.0.path(DEBIAN)
    }
}

/// The folders of libraries below such a root, for the loader: their name has the machine's in it.
pub(crate) fn libraries(root: &Path) -> Result<OsString> {
    let folders = fs::read_dir(root.join("usr/lib"))?;
    let mut folders = folders.filter_map(|entry| Some(entry.ok()?.path()));
    let first = folders
        .find(|folder| folder.join("libibverbs.so.1").exists())
        .with_context(|| format!("no libibverbs.so.1 in a folder below {}/usr/lib", root.display()))?;
    let second = root.join("lib").join(first.file_name().unwrap_or_default());
    Ok(std::env::join_paths([first, second])?)
}
