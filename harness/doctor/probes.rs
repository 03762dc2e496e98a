//! Questions that no file answers: what the system does when a process asks it to.
//!
//! Each answer is a text, so that it can be recorded.

use std::fmt::Write as _;

use tbrdma::OpenOptions;

use super::host::{Host, Live};
use super::kernel;
use crate::error::{Result, one_line};

/// What is said of a device: before it is opened, and what came of it.
pub const TRIED: &str = "tried";
/// See [`TRIED`].
pub const OPENED: &str = "opened";
/// See [`TRIED`].
pub const REFUSED: &str = "refused";

/// At most so many devices are opened: a host of containers has hundreds of interfaces.
const MOST_DEVICES: usize = 12;

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// `linux` or `macos`.
    Platform,
    /// The processor architecture.
    Architecture,
    /// The addresses of network interfaces: a line each, interface and address.
    Addresses,
    /// The devices of this library: lines with tabs between name, `tried`, `opened` or `refused`, and what it is, how it works, or why not. Who is
    /// tried and nothing else does not end.
    Devices,
    /// May one process copy from another's memory, as `shm` does for memory that a program registered? `works`, or why not.
    ProcessVm,
    /// Does the kernel give this process an io_uring? `works`, or why not.
    IoUring,
}

impl Probe {
    /// What the answer is called in a recorded tree.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Architecture => "architecture",
            Self::Addresses => "addresses",
            Self::Devices => "devices",
            Self::ProcessVm => "process_vm",
            Self::IoUring => "io_uring",
        }
    }
}

/// Asks the system.
pub(super) fn ask(probe: Probe) -> Option<String> {
    match probe {
        Probe::Platform => Some(std::env::consts::OS.into()),
        Probe::Architecture => Some(std::env::consts::ARCH.into()),
        Probe::Addresses => addresses(),
        Probe::Devices => devices(),
        Probe::ProcessVm => kernel::process_vm(),
        Probe::IoUring => kernel::io_uring(),
    }
}

fn addresses() -> Option<String> {
    let mut text = String::new();
    for interface in nix::ifaddrs::getifaddrs().ok()? {
        let Some(address) = interface.address else { continue };
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => v4.ip().to_string(),
            (_, Some(v6)) => v6.ip().to_string(),
            _ => continue,
        };
        let _ = writeln!(text, "{} {address}", interface.interface_name);
    }
    Some(text)
}

/// Has a child open the devices, because who waits for a driver that is stuck waits for ever.
fn devices() -> Option<String> {
    of_child(&["try-devices"])
}

/// What a second process of ours says, as far as it comes.
pub(super) fn of_child(arguments: &[&str]) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    Live.run(program.to_str()?, arguments, &[]).map(|ran| ran.text)
}

/// The child's side: tries each device, and says so before and after.
///
/// # Errors
/// Nobody listens.
pub fn try_devices() -> Result<()> {
    for device in tbrdma::devices().into_iter().take(MOST_DEVICES) {
        crate::say(&format!("{}\t{TRIED}\t{}\n", device.name, device.description))?;
        let opened = OpenOptions::from_environment().and_then(|options| options.open(&device.name));
        let (outcome, told) = match opened {
            Ok(context) => {
                let works = context.describe();
                // A device that has nothing to say of itself says its name.
                let works = if works == device.name { String::new() } else { format!("; {works}") };
                (OPENED, format!("{}{works}", device.description))
            }
            Err(error) => (REFUSED, error.to_string()),
        };
        crate::say(&format!("{}\t{outcome}\t{}\n", device.name, one_line(&told)))?;
    }
    Ok(())
}
