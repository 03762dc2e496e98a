//! QEMU's shared memory between virtual machines and processes of their host (docs/specs/ivshmem-spec of QEMU), from both of its sides: as a
//! PCI function in a guest, and as a client of the server on the host.
//!
//! ```text
//!   guest 1                    host                        guest 2
//!   BAR 2: memory  --------  one memory file  --------  BAR 2: memory
//!   BAR 0: doorbell  ----->  event counters  ------>    MSI-X vector
//!   MSI-X vector  <--------  one a peer and vector  <-  BAR 0: doorbell
//!                                 |
//!                            a process: maps the file, writes a counter, waits for its own
//! ```

mod client;
mod function;
mod protocol;
#[cfg(test)]
#[path = "../../../tools/kit/ivshmem.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "it belongs to a crate of tools, whose dependencies are none of ours"
)]
mod server;
#[cfg(test)]
mod tests;

pub(super) use client::Client;
pub(super) use function::IvshmemFunction;

/// The function's registers, in BAR 0, 32 bits each. The two before them, for interrupts without MSI-X, have no use since revision 1.
mod register {
    /// Bytes of all.
    pub(super) const BYTES: u64 = 256;
    /// Our number; 0 where there are no doorbells.
    pub(super) const IV_POSITION: usize = 8;
    /// Write-only: a peer's number in the upper half, its vector in the lower.
    pub(super) const DOORBELL: usize = 12;
}

/// Which BAR is what.
mod bar {
    pub(super) const REGISTERS: usize = 0;
    /// The MSI-X table; where this is missing there are no doorbells.
    pub(super) const MSI_X: usize = 1;
    pub(super) const MEMORY: usize = 2;
}
