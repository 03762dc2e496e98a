//! Debian's kernel: out of its compressed image, and its modules in the order in which they must be loaded.

use anyhow::{Context, Result, bail, ensure};
use lzma_rust2::XzReader;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a guest loads, for each kind of guest a list that its init reads; what these depend on comes before them.
const ORDERS: [(&str, &[&str]); 2] = [
    ("rxe", &["virtio_pci", "virtio_net", "virtio_console", "crc32_generic", "rdma_rxe", "ib_uverbs"]),
    ("pci", &["virtio_pci", "virtio_net", "virtio_console", "vfio_iommu_type1", "vfio_pci"]),
];

/// Writes the ELF kernel inside `boot/vmlinuz-*` to `to`. Starting that directly saves an emulated machine the seconds of decompressing it.
pub(crate) fn extract(boot: &Path, to: &Path) -> Result<()> {
    let image = fs::read(find(boot, "vmlinuz-")?)?;
    // Documentation/arch/x86/boot.rst of the kernel: where the compressed part is, counted from the end of the setup code.
    let field = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("the kernel image is too short for its header")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let setup_sectors = usize::from(*image.get(0x1f1).context("the kernel image is empty")?).max(1);
    let start = (setup_sectors + 1) * 512 + field(0x248)?;
    let payload = image.get(start..start + field(0x24c)?).context("the kernel image is cut short")?;
    let vmlinux = unxz(payload).context("the kernel inside the image is not compressed with xz")?;
    ensure!(vmlinux.starts_with(b"\x7fELF"), "what the kernel image holds is not an ELF file");
    fs::write(to, vmlinux)?;
    Ok(())
}

/// Copies the modules to load from below `all` to `to`, with a file `order.KIND` for each kind of guest that lists its own, one a line.
pub(crate) fn select_modules(all: &Path, to: &Path) -> Result<()> {
    let mut files = HashMap::new();
    collect(&find(all, "")?.join("kernel"), &mut files)?;
    fs::create_dir_all(to)?;
    for (kind, names) in ORDERS {
        let mut modules = Vec::new();
        for name in names {
            load_order(name, &files, &mut modules)?;
        }
        let mut order = String::new();
        for (name, bytes) in modules {
            fs::write(to.join(&name), bytes)?;
            order.push_str(&name);
            order.push('\n');
        }
        fs::write(to.join(format!("order.{kind}")), order)?;
    }
    Ok(())
}

/// Puts what `name` depends on, then `name`, in `order`. What has no file is built into the kernel, or not needed by this one: the guest
/// would say what it misses.
fn load_order(
    name: &str,
    files: &HashMap<String, PathBuf>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let Some(path) = files.get(name) else { return Ok(()) };
    let file = format!("{name}.ko");
    if order.iter().any(|(loaded, _)| *loaded == file) {
        return Ok(());
    }
    let mut bytes = fs::read(path)?;
    if path.extension().is_some_and(|end| end == "xz") {
        bytes = unxz(&bytes)?;
    }
    for dependency in depends(&bytes) {
        load_order(&dependency, files, order)?;
    }
    order.push((file, bytes));
    Ok(())
}

/// The names in a module's `depends=` line: the package has no list made by depmod.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let list: Vec<u8> = module.iter().skip(at + KEY.len()).take_while(|byte| **byte != 0).copied().collect();
    let list = String::from_utf8_lossy(&list).replace('-', "_");
    list.split(',').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
}

fn collect(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("no modules in {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some((name, _)) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once(".ko"))
        {
            files.insert(name.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

fn find(folder: &Path, start: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(start) {
            return Ok(entry.path());
        }
    }
    bail!("there is no {start}* in {}", folder.display())
}

fn unxz(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    XzReader::new(bytes, false).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_a_module() {
        let module = b"\x7fELF..license=GPL\0depends=ib_core,ip6-udp-tunnel\0vermagic=6.1\0";
        assert_eq!(depends(module), ["ib_core", "ip6_udp_tunnel"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
