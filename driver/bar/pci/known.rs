//! Which PCI devices are memory windows.
//!
//! To add one: its ids here, with the layout of its registers, and what opens it in `slot`. A paired window (NTB) needs more than ids: before a
//! store to its BAR lands anywhere, its translation registers must point at memory of the other host, both sides must have agreed on which, and
//! the link between them must be up. Each maker does that in another way; in Linux the drivers under drivers/ntb do it, for users inside the kernel.
//! None of them was at hand to be tried, so none is supported, and they are listed only to be told from devices that are no windows at all.

/// How a window's registers are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// QEMU's shared memory, with or without doorbells: see `ivshmem::registers`.
    Ivshmem,
    /// A non-transparent bridge, which is not supported.
    Bridge,
}

/// A device by its ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) name: &'static str,
    pub(crate) layout: Layout,
}

const fn bridge(vendor: u16, device: u16, name: &'static str) -> Known {
    Known { vendor, device, name, layout: Layout::Bridge }
}

/// What is known.
const KNOWN: [Known; 13] = [
    Known { vendor: 0x1af4, device: 0x1110, name: "ivshmem", layout: Layout::Ivshmem },
    bridge(0x8086, 0x3c0d, "Intel Xeon E5 NTB"),
    bridge(0x8086, 0x0e0d, "Intel Xeon E5 v2 NTB"),
    bridge(0x8086, 0x2f0d, "Intel Xeon E5 v3 NTB"),
    bridge(0x8086, 0x6f0d, "Intel Xeon E5 v4 NTB"),
    bridge(0x8086, 0x201c, "Intel Xeon Scalable NTB"),
    bridge(0x8086, 0x347e, "Intel Xeon Scalable (3rd) NTB"),
    bridge(0x8086, 0x0db4, "Intel Xeon 6 NTB"),
    bridge(0x1022, 0x145b, "AMD EPYC NTB"),
    bridge(0x1022, 0x148b, "AMD EPYC (2nd) NTB"),
    bridge(0x1022, 0x14c0, "AMD EPYC (3rd) NTB"),
    bridge(0x1022, 0x14c3, "AMD EPYC (4th) NTB"),
    bridge(0x1022, 0x155a, "AMD EPYC (5th) NTB"),
];

/// What is known of a device with these ids.
pub(crate) fn known(vendor: u16, device: u16) -> Option<Known> {
    KNOWN.into_iter().find(|known| (known.vendor, known.device) == (vendor, device))
}

/// The windows that can be used, in words.
pub(crate) fn supported() -> String {
    let supported = KNOWN.iter().filter(|known| known.layout != Layout::Bridge);
    let words = supported.map(|known| format!("{} ({:04x}:{:04x})", known.name, known.vendor, known.device));
    words.collect::<Vec<_>>().join(", ")
}
