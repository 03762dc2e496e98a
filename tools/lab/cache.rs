//! What the lab is made of: Debian packages, unpacked into a folder of ours. Nothing is installed.
//!
//! The first run downloads about 100 MB. Later runs find the folder ready and ask the network nothing.

use crate::kernel;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tbrdma_kit::debian::{self, Apt};
use tbrdma_kit::{Folder, Skip};

/// Changes when what is unpacked, or how, changes.
const LAYOUT: &str = "6";

/// What runs in the guest, apart from the kernel.
const GUEST_PACKAGES: [&str; 14] = [
    "busybox-static",
    "ibverbs-utils",
    "ibverbs-providers",
    "libibverbs1",
    "libnl-3-200",
    "libnl-route-3-200",
    "libc6",
    // What Rust's standard library unwinds with.
    "libgcc-s1",
    "perftest",
    "librdmacm1",
    "libibumad3",
    "libpci3",
    "libudev1",
    "zlib1g",
];

/// Libraries that the programs need here too, which a machine without RDMA may not have. Not the C library: this machine's own is meant.
const HOST_LIBRARIES: [&str; 8] = [
    "libibverbs.so.1",
    "libmlx5.so.1",
    "libefa.so.1",
    "librdmacm.so.1",
    "libibumad.so.3",
    "libpci.so.3",
    "libnl-3.so.200",
    "libnl-route-3.so.200",
];

/// Where a Debian package may have put a library.
pub(crate) const LIBRARY_FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// What the guest's verbs program is compiled against.
const BUILD_PACKAGES: [&str; 3] = ["libc6-dev", "linux-libc-dev", "libibverbs-dev"];

/// The emulator. The libraries it needs are asked of apt.
const EMULATOR: &str = "qemu-system-x86";

const GUEST: &str = "guest";
const HOST: &str = "host";
const VMLINUX: &str = "vmlinux";
const MODULES: &str = "modules";

/// The folder of unpacked packages.
pub(crate) struct Cache(Folder);

impl Cache {
    /// The folder, filled if it was not. `TBRDMA_LAB_DIR` names it; without, it is `target/lab` of this repository.
    ///
    /// # Errors
    /// [`Skip`] if this machine cannot get the packages; anything else is a fault of the lab.
    pub(crate) fn open() -> Result<Self> {
        let root = std::env::var_os("TBRDMA_LAB_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab"), PathBuf::from);
        Folder::open(root, LAYOUT, |root| {
            println!("lab: unpacking Debian's kernel, qemu and rdma-core into {}, once", root.display());
            fill(root)
        })
        .map(Self)
    }

    /// A file or folder of the guest's system.
    pub(crate) fn guest(&self, path: &str) -> PathBuf {
        self.0.path(GUEST).join(path)
    }

    /// A folder of the libraries that the programs need on this machine.
    pub(crate) fn host_libraries(&self) -> PathBuf {
        self.0.path(HOST)
    }

    /// A file or folder of the emulator's system.
    pub(crate) fn emulator(&self, path: &str) -> PathBuf {
        self.0.path("emulator").join(path)
    }

    /// The kernel as an ELF file, which qemu starts without a boot loader.
    pub(crate) fn vmlinux(&self) -> PathBuf {
        self.0.path(VMLINUX)
    }

    /// The folder of the kernel's modules that guests load, and of the files `order.KIND`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.0.path(MODULES)
    }

    /// A file of results, which stays until the next run.
    pub(crate) fn results(&self, name: &str) -> PathBuf {
        self.0.path(format!("conformance-{name}.json"))
    }

    /// A file of this run.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.0.scratch(name)
    }
}

fn fill(root: &Path) -> Result<()> {
    let apt = Apt::new(root, EMULATOR)?;
    let mut guest = vec![kernel_package(&apt)?];
    guest.extend(GUEST_PACKAGES.iter().chain(&BUILD_PACKAGES).map(ToString::to_string));
    let emulator = emulator_packages(&apt)?;
    let debs = root.join("debs");
    apt.download(&debs, guest.iter().chain(&emulator).map(String::as_str))?;
    let guest_root = root.join(GUEST);
    for (packages, to) in [(&guest, &guest_root), (&emulator, &root.join("emulator"))] {
        for package in packages {
            debian::unpack(&debs, package, to)?;
        }
    }
    kernel::extract(&guest_root.join("boot"), &root.join(VMLINUX))?;
    kernel::select_modules(&guest_root.join("lib/modules"), &root.join(MODULES))?;
    fs::create_dir_all(root.join(HOST))?;
    for library in HOST_LIBRARIES {
        fs::copy(find_library(&guest_root, library)?, root.join(HOST).join(library))?;
    }
    // What is left of a kernel package is 400 MB that nobody needs.
    for done in [debs, guest_root.join("boot"), guest_root.join("lib/modules")] {
        fs::remove_dir_all(done)?;
    }
    Ok(())
}

/// A library below the root of unpacked packages.
pub(crate) fn find_library(root: &Path, name: &str) -> Result<PathBuf> {
    LIBRARY_FOLDERS
        .iter()
        .map(|folder| root.join(folder).join(name))
        .find(|path| path.exists())
        .with_context(|| format!("none of the guest's packages has {name}"))
}

/// The package of the newest kernel.
fn kernel_package(apt: &Apt) -> Result<String> {
    let said = apt.run("apt-cache", &["depends", "linux-image-amd64"])?;
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(ToOwned::to_owned)
        .ok_or_else(|| Skip::new("apt knows no kernel behind linux-image-amd64".into()).into())
}

/// The emulator, and those libraries it needs that this machine does not have.
fn emulator_packages(apt: &Apt) -> Result<Vec<String>> {
    let no = [
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
    ];
    let mut arguments = vec!["depends", "--recurse"];
    arguments.extend(no);
    arguments.push(EMULATOR);
    let needed = apt.run("apt-cache", &arguments)?;
    let here = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}${Package}\n"]).output()?;
    let here = String::from_utf8_lossy(&here.stdout);
    let here: Vec<_> = here.lines().filter_map(|line| line.strip_prefix("ii ")).collect();
    let mut packages: Vec<_> = needed
        .lines()
        .filter(|name| ["lib", "qemu-system", "seabios"].iter().any(|start| name.starts_with(start)))
        .filter(|name| name.starts_with("qemu-system") || !here.contains(name))
        .map(ToOwned::to_owned)
        .collect();
    packages.sort();
    packages.dedup();
    Ok(packages)
}
