//! Memory windows: access to them, and what the link `bar` needs of one.
//!
//! | file | what |
//! |---|---|
//! | `slot` | an open window, whatever it was opened through |
//! | `pci` | which PCI functions there are, which of them are windows |
//! | `vfio` | a function through vfio-pci: BARs, interrupts |
//! | `ivshmem` | QEMU's shared memory, as a PCI function and as a process of the host |
//! | `guard`, `guarded` | mappings whose loss is a fact and not a signal |
//! | `refusal` | why a window cannot be opened, or is gone, and what to do |

mod guard;
pub(crate) mod guarded;
mod ivshmem;
mod pci;
mod refusal;
pub(crate) mod slot;
mod vfio;
