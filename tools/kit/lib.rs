//! What the checks against other people's software have in common: Debian's packages, unpacked and not installed; a network namespace;
//! started programs; a server of memory that virtual machines share; holding two rulers against each other; and counting what passed, failed and was skipped.

#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "the checks against other people's software are for Linux: they need Debian's packages and network namespaces"
);

mod agreement;
pub mod debian;
mod folder;
pub mod ivshmem;
mod namespace;
mod process;
mod report;

pub use agreement::{Measured, Medians};
pub use folder::Folder;
pub use namespace::enter_network_namespace;
pub use process::Process;
pub use report::{Counts, Report, Skip};
