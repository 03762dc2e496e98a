//! Memory windows: access to them, and what the link `bar` needs of one.
//!
//! | file | what |
//! |---|---|
//! | `window` | what a window is to its users: words and bytes to write at the peer, words and bytes that the peer has written here |
//! | `ends` | the two ends of a ring of packets in one: which word is written when, behind which fence |
//! | `file` | windows in files |
//! | `shared` | windows in memory that a device shares, cut in two |
//! | `simulated` | a window for tests, on a bus that does all that PCIe permits |
//! | `slot` | an open device, whatever it was opened through |
//! | `pci` | which PCI functions there are, which of them are windows |
//! | `vfio` | a function through vfio-pci: BARs, interrupts |
//! | `ivshmem` | QEMU's shared memory, as a PCI function and as a process of the host |
//! | `guard`, `guarded` | mappings whose loss is a fact and not a signal |
//! | `refusal` | why a window cannot be opened, or is gone, and what to do |

#![cfg_attr(
    loom,
    allow(dead_code, reason = "the model builds part of this room alone, without those who use it")
)]

pub(crate) mod ends;
pub(crate) mod window;

#[cfg(all(tbrdma_linux, not(loom)))]
pub(crate) mod file;
#[cfg(all(tbrdma_linux, not(loom)))]
mod guard;
#[cfg(all(tbrdma_linux, not(loom)))]
pub(crate) mod guarded;
#[cfg(all(tbrdma_linux, not(loom)))]
mod ivshmem;
#[cfg(all(tbrdma_linux, not(loom)))]
mod pci;
#[cfg(all(tbrdma_linux, not(loom)))]
pub(crate) mod refusal;
#[cfg(all(tbrdma_linux, not(loom)))]
pub(crate) mod shared;
#[cfg(all(tbrdma_linux, test, not(loom)))]
pub(crate) mod simulated;
#[cfg(all(tbrdma_linux, not(loom)))]
pub(crate) mod slot;
#[cfg(all(tbrdma_linux, not(loom)))]
mod vfio;

#[cfg(all(test, loom))]
mod loom_tests;
