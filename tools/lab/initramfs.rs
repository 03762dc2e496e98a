//! The guest's file system: one archive in the cpio format "newc" that the kernel unpacks into memory.

use crate::cache::{Cache, LIBRARY_FOLDERS, find_library};
use crate::programs::{IN_GUEST, Programs};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's own programs, unmodified.
const PROGRAMS: [&str; 13] = [
    "ibv_rc_pingpong",
    "ibv_uc_pingpong",
    "ibv_srq_pingpong",
    "ibv_ud_pingpong",
    "ibv_devinfo",
    "ib_send_lat",
    "ib_send_bw",
    "ib_write_lat",
    "ib_write_bw",
    "ib_read_lat",
    "ib_read_bw",
    "ib_atomic_lat",
    "ib_atomic_bw",
];

/// The libraries that these, the programs in C and our own programs need.
const LIBRARIES: [&str; 13] = [
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "libibverbs.so.1",
    "libmlx5.so.1",
    "libefa.so.1",
    "librdmacm.so.1",
    "libibumad.so.3",
    "libpci.so.3",
    "libudev.so.1",
    "libz.so.1",
    "libnl-3.so.200",
    "libnl-route-3.so.200",
];

const INIT: &str = include_str!("guest/init");
/// The guest's own programs in C, and what each is linked with.
const C_PROGRAMS: [(&str, &str, &[&str]); 2] =
    [("verbs", include_str!("guest/verbs.c"), &["-libverbs"]), ("vfio", include_str!("guest/vfio.c"), &[])];

/// Writes the archive, with those of our own programs that there are, and says where.
pub(crate) fn build(cache: &Cache, programs: &Programs) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp", "usr/bin"] {
        archive.folder(folder);
    }
    for name in IN_GUEST.iter().filter(|_| programs.are_there()) {
        archive.file(&format!("bin/{name}"), 0o755, &read(&programs.path(name)?)?);
    }
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("bin/busybox", 0o755, &read(&cache.guest("bin/busybox"))?);
    for (name, source, libraries) in C_PROGRAMS {
        archive.file(&format!("bin/{name}"), 0o755, &compile(cache, name, source, libraries)?);
    }
    for program in PROGRAMS {
        archive.file(&format!("bin/{program}"), 0o755, &read(&cache.guest(&format!("usr/bin/{program}")))?);
    }
    for library in LIBRARIES {
        archive.file(&format!("lib/{library}"), 0o755, &read(&find_library(&cache.guest(""), library)?)?);
    }
    let loader = "ld-linux-x86-64.so.2";
    archive.file(&format!("lib64/{loader}"), 0o755, &read(&find_library(&cache.guest(""), loader)?)?);
    // libibverbs looks for its drivers where it was built to; which ABI number is part of the file's name.
    let drivers = "usr/lib/x86_64-linux-gnu/libibverbs";
    for entry in fs::read_dir(cache.guest(drivers))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("librxe-") {
            archive.file(&format!("{drivers}/{name}"), 0o755, &read(&entry.path())?);
        }
    }
    archive.file("etc/libibverbs.d/rxe.driver", 0o644, b"driver rxe\n");
    for entry in fs::read_dir(cache.modules())? {
        let entry = entry?;
        archive.file(
            &format!("modules/{}", entry.file_name().to_string_lossy()),
            0o644,
            &read(&entry.path())?,
        );
    }
    let path = cache.scratch("initramfs");
    fs::write(&path, archive.finish())?;
    Ok(path)
}

/// Compiles a program with the headers and libraries of the guest, whatever those of this machine are.
fn compile(cache: &Cache, name: &str, text: &str, libraries: &[&str]) -> Result<Vec<u8>> {
    let (source, program) = (cache.scratch(&format!("{name}.c")), cache.scratch(name));
    fs::write(&source, text)?;
    let output = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&program, &source])
        .arg(format!("--sysroot={}", cache.guest("").display()))
        .args(libraries)
        .arg(format!(
            "-Wl,-rpath-link,{}",
            find_library(&cache.guest(""), "libnl-3.so.200")?.with_file_name("").display()
        ))
        .arg(format!("-Wl,-rpath-link,{}", cache.guest(LIBRARY_FOLDERS[1]).display()))
        .output()
        .context("cannot start the C compiler `cc`, which Rust's linker needs too")?;
    ensure!(
        output.status.success(),
        "the guest's program {name} does not compile:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let bytes = read(&program)?;
    fs::remove_file(source)?;
    fs::remove_file(program)?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A cpio archive in the making. Every entry is a header of thirteen 8-digit hexadecimal numbers, the name, and the bytes, each padded to 4.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    const FOLDER: u32 = 0o040_755;
    const FILE: u32 = 0o100_000;

    fn folder(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        if self.folders.insert(path.to_owned()) {
            self.entry(path, Self::FOLDER, &[]);
        }
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        self.entry(path, Self::FILE | mode, bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entries += 1;
        let (size, name_size) = (bytes.len() as u32, name.len() as u32 + 1);
        // Inode, mode, owner, group, links, time, size, device (2), device node (2), length of the name, checksum.
        let header = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for number in header {
            self.bytes.extend(format!("{number:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
