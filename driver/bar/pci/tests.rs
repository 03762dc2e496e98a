//! What is found in a recorded tree, and what is said of one where something is missing.

use super::recorded::{Q35, Recorded};
use super::*;
use crate::bar::slot::{Host, open_function};
use crate::error::Error;

const PLAIN: &str = "0000:00:05.0";
const BELL: &str = "0000:00:06.0";
/// Where the devices of the record are.
const BUS: &str = "devices/pci0000:00";

fn host(tree: &Recorded) -> Host {
    Host { sysfs: tree.sysfs(), dev: tree.dev() }
}

/// Why a window is not opened.
fn refusal(tree: &Recorded, name: &str) -> Error {
    let refusal = open_function(name, 1 << 16, &host(tree)).map(|_| ()).unwrap_err();
    refusal.about("open_device", &format!("bar:{name}"))
}

fn says(tree: &Recorded, name: &str, what: &[&str]) {
    let error = refusal(tree, name).to_string();
    assert!(error.contains(&format!("open_device on device bar:{name}: ")), "{error}");
    what.iter().for_each(|what| assert!(error.contains(what), "{what:?} is not in: {error}"));
}

#[test]
fn addresses_are_read_as_lspci_writes_them() {
    for (text, is) in [
        ("0000:00:04.0", "0000:00:04.0"),
        ("00:1f.7", "0000:00:1f.7"),
        ("10000:E1:00.3", "10000:e1:00.3"),
        ("ffffffff:ff:1f.7", "ffffffff:ff:1f.7"),
    ] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), is);
    }
    for wrong in [
        "",
        ".",
        ":",
        "0",
        "4.0",
        "00:04",
        "00:20.0",
        "00:04.8",
        "00:04.00",
        "000:04.0",
        "0:00:04.0",
        "+000:00:04.0",
        "0000:0000:00:04.0",
        "123456789:00:04.0",
        "00:04.0 ",
        "../0:00.0",
        "0000:00:04.é",
        "0000:-1:04.0",
    ] {
        let error = wrong.parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("lspci -D"), "{wrong:?}: {error}");
    }
}

#[test]
fn windows_are_found_with_their_memory_group_and_driver() {
    let tree = Recorded::new("found", Q35);
    let windows = tree.sysfs().windows().unwrap();
    let addresses: Vec<_> = windows.iter().map(|window| window.address.to_string()).collect();
    assert_eq!(addresses, [PLAIN, BELL]);
    let [plain, bell] = &windows[..] else { unreachable!() };
    let memory = Some(Bar { size: 1 << 20, is_memory: true, is_prefetchable: true });
    assert_eq!((plain.vendor, plain.device, plain.bars[1], plain.bars[2]), (0x1af4, 0x1110, None, memory));
    let registers = Some(Bar { size: 256, is_memory: true, is_prefetchable: false });
    assert_eq!(
        (bell.bars[0], bell.bars[1].map(|bar| bar.size), bell.bars[2]),
        (registers, Some(4096), memory)
    );
    assert_eq!((plain.driver.as_deref(), bell.driver.as_deref()), (None, Some("vfio-pci")));
    assert!(plain.group.is_some() && bell.group.is_some() && plain.group != bell.group);
    assert_eq!(plain.config().unwrap().msi_x, MsiX::None);
    let named = |name: &str, how: &str| (name.to_owned(), format!("memory window of ivshmem through {how}"));
    let usable = host(&tree).functions();
    assert_eq!(usable, [named(PLAIN, "sysfs, for root"), named(BELL, "VFIO")]);
    let config = bell.config().unwrap();
    assert_eq!((config.vendor, config.device), (0x1af4, 0x1110));
    assert_eq!(config.msi_x, MsiX::Vectors { count: 4, bar: 1 });
}

#[test]
fn files_that_vanish_or_say_nonsense_end_in_no_window_or_a_refusal() {
    let tree = Recorded::new("nonsense", Q35);
    for (file, wrong) in [
        ("vendor", "text"),
        ("vendor", "text 0x1af41"),
        ("vendor", "text 1af4"),
        ("device", "hex ff00fe"),
        ("device", "text 0x"),
    ] {
        let (kind, rest) = wrong.split_once(' ').unwrap_or((wrong, ""));
        let path = format!("{BUS}/{PLAIN}/{file}");
        tree.add(&format!("{kind} {path} {rest}"));
        assert_eq!(tree.sysfs().windows().unwrap().len(), 1, "{wrong}");
        tree.remove(&path);
        assert_eq!(tree.sysfs().windows().unwrap().len(), 1, "without {file}");
        tree.add(&format!("text {path} {}", if file == "vendor" { "0x1af4" } else { "0x1110" }));
        assert_eq!(tree.sysfs().windows().unwrap().len(), 2);
    }
    for wrong in [
        "",
        "|||",
        "0x0 0x0 0x0|x y z|0x5",
        "0x0 0x0 0x0|0x0 0x0 0x0|0x2 0x1 0x200",
        "0x0 0x0 0x0|0x0 0x0 0x0|0x1 0xffffffffffffffff",
        "0x0 0x0 0x0|0x0 0x0 0x0|0x0 0xffffffffffffffff 0x200",
    ] {
        tree.add(&format!("lines {BUS}/{PLAIN}/resource {wrong}"));
        says(&tree, PLAIN, &["memory (BAR 2) has 0 bytes", "65536 at least"]);
    }
}

#[test]
fn a_function_that_is_none_or_no_window_is_told_what_there_is() {
    let tree = Recorded::new("none", Q35);
    says(&tree, "0000:00:1e.0", &["no PCI function 0000:00:1e.0", "bar:0000:00:05.0, bar:0000:00:06.0"]);
    assert_eq!(refusal(&tree, "0000:00:1e.0").errno(), nix::libc::ENODEV);
    says(&tree, "00:00.0", &["8086:29c0 is no device that is known", "ivshmem (1af4:1110)"]);
    tree.add(&format!("text {BUS}/{PLAIN}/vendor 0x8086"));
    tree.add(&format!("text {BUS}/{PLAIN}/device 0x201c"));
    says(&tree, PLAIN, &["Intel Xeon Scalable NTB is a non-transparent bridge", "not supported yet"]);
    says(&tree, "0000:00:1e.0", &["windows of this host: bar:0000:00:06.0"]);
    says(&tree, "4.0", &["is no address of a PCI function", "lspci -D"]);
    for wrong in ["0000:00:06.0,fast", "0000:00:06.0,vfio,sysfs", "0000:00:06.0,uc,uc", "0000:00:06.0,"] {
        says(&tree, wrong, &["is not understood, or said twice"]);
        assert_eq!(refusal(&tree, wrong).errno(), nix::libc::EINVAL);
    }
    let empty = Recorded::new("empty", "");
    says(&empty, PLAIN, &["shows no PCI devices", "bar:file:PATH"]);
}

#[test]
fn a_function_without_vfio_is_told_how_to_get_it() {
    let tree = Recorded::new("vfio", Q35);
    says(
        &tree,
        &format!("{PLAIN},vfio"),
        &["no driver has it", "driver_override", "drivers_probe", ",sysfs"],
    );
    tree.remove(&format!("{BUS}/{PLAIN}/iommu_group"));
    says(&tree, &format!("{PLAIN},vfio"), &["has no IOMMU group", "intel_iommu=on"]);
    tree.add(&format!("link {BUS}/{PLAIN}/driver ../../../bus/pci/drivers/virtio-pci"));
    says(
        &tree,
        PLAIN,
        &["the kernel's driver virtio-pci has it", &format!("echo {PLAIN} > /sys/bus/pci/devices")],
    );
    assert_eq!(refusal(&tree, PLAIN).errno(), nix::libc::EBUSY);
    assert_eq!(host(&tree).functions().len(), 1);
    says(&tree, &format!("{BELL},sysfs"), &["leave out ,sysfs"]);
    // vfio-pci has it, and /dev is empty.
    says(&tree, BELL, &["vfio/vfio is missing", "modprobe vfio-pci"]);
    std::fs::write(tree.dev().join("iommu"), "").unwrap();
    says(&tree, BELL, &["iommufd alone"]);
    // What is there is no VFIO.
    std::fs::create_dir(tree.dev().join("vfio")).unwrap();
    std::fs::write(tree.dev().join("vfio/vfio"), "").unwrap();
    says(&tree, BELL, &["ask for VFIO's version"]);
    tree.remove(&format!("{BUS}/{BELL}/iommu_group"));
    says(&tree, BELL, &["has no IOMMU group"]);
}

#[test]
fn what_is_used_through_sysfs_is_mapped_and_its_end_noticed() {
    let tree = Recorded::new("sysfs", Q35);
    // As a file, a configuration space answers no write; it says that its memory does.
    tree.add(&format!("hex {BUS}/{PLAIN}/config f41a1011060010000100000500000000{}", "00".repeat(48)));
    let window = open_function(PLAIN, 1 << 20, &host(&tree)).unwrap();
    assert!(
        window.is_write_combining() && window.describe().contains("sysfs, 1048576 bytes, write-combining")
    );
    let uncached = open_function(&format!("{PLAIN},uc"), 1 << 20, &host(&tree)).unwrap();
    assert!(!uncached.is_write_combining());
    assert_eq!((window.own_id(), window.interrupt().is_none(), window.news().is_none()), (None, true, true));
    window.memory().write_from(b"here");
    let mut bytes = [0; 4];
    window.memory().read_into(&mut bytes);
    assert_eq!((&bytes, window.gone(), window.probe()), (b"here", None, None));
    // It is pulled: the function's space reads as all ones.
    let config = tree.sysfs().function(PLAIN.parse().unwrap()).unwrap().file("config");
    std::fs::write(&config, [0xff; 64]).unwrap();
    assert_eq!((window.gone(), window.probe()), (None, Some(crate::bar::refusal::Gone::Ones)));
    window.memory().read_into(&mut bytes);
    assert_eq!((bytes, window.gone().is_some()), ([0; 4], true));
    says(&tree, PLAIN, &["reads as all ones", "unplugged"]);
    // The other is cut short while it is in use.
    File::options().write(true).open(config.with_file_name("resource2")).unwrap().set_len(0).unwrap();
    uncached.memory().read_into(&mut bytes);
    assert_eq!(uncached.probe(), Some(crate::bar::refusal::Gone::Pages));
}

#[test]
fn a_function_that_sleeps_is_woken_and_put_to_sleep_again() {
    let tree = Recorded::new("wake", Q35);
    let enable = tree.sysfs().function(PLAIN.parse().unwrap()).unwrap().file("enable");
    tree.add(&format!("hex {BUS}/{PLAIN}/config f41a1011000010000100000500000000{}", "00".repeat(48)));
    tree.add(&format!("text {BUS}/{PLAIN}/enable 0"));
    let window = open_function(PLAIN, 1 << 16, &host(&tree)).unwrap();
    assert_eq!(std::fs::read_to_string(&enable).unwrap(), "1");
    drop(window);
    assert_eq!(std::fs::read_to_string(&enable).unwrap(), "0");
}
