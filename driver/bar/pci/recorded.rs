//! Trees of sysfs as a machine has shown them, set up anew in a folder that is deleted again.
//!
//! A record has a line for each file: `text PATH what stands in it`, `lines PATH` with `|` between lines, `hex PATH bytes`, `size PATH bytes` for a file of zeroes,
//! `link PATH target`.

use super::Sysfs;
use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A virtual machine of qemu 7.2, `-machine q35 -device intel-iommu,intremap=on`, Linux 6.1: ivshmem-plain at 00:05.0, ivshmem-doorbell with four
/// vectors at 00:06.0, which vfio-pci has, and others.
pub(crate) const Q35: &str = include_str!("recorded/q35.txt");

/// A tree that is set up: `sys` and `dev` in a folder of its own.
pub(crate) struct Recorded(PathBuf);

impl Recorded {
    pub(crate) fn new(name: &str, record: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tbrdma-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let tree = Self(folder);
        create_dir_all(tree.dev()).unwrap();
        record.lines().for_each(|line| tree.add(line));
        tree
    }

    /// Puts one more file there, or another in the place of one.
    pub(crate) fn add(&self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (kind, path, rest) = (next(), self.0.join("sys").join(next()), next());
        self.remove_path(&path);
        create_dir_all(path.parent().unwrap()).unwrap();
        match kind {
            "text" => write(path, format!("{rest}\n")).unwrap(),
            "lines" => write(path, rest.replace('|', "\n")).unwrap(),
            "hex" => write(path, from_hex(rest)).unwrap(),
            "size" => std::fs::File::create(path).unwrap().set_len(rest.parse().unwrap()).unwrap(),
            "link" => symlink(rest, path).unwrap(),
            _ => panic!("{line}"),
        }
    }

    pub(crate) fn remove(&self, path: &str) {
        self.remove_path(&self.0.join("sys").join(path));
    }

    fn remove_path(&self, path: &Path) {
        if path.symlink_metadata().is_ok() {
            std::fs::remove_file(path).unwrap();
        }
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.0.join("sys"))
    }

    pub(crate) fn dev(&self) -> PathBuf {
        self.0.join("dev")
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}
