//! Questions that no file answers: what the system does when a process asks it to.
//!
//! Each answer is a text, so that it can be recorded.

use std::fmt::Write as _;

use tbrdma::OpenOptions;

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
    /// Our own devices: a line each, with tabs between name, `opened` or `refused`, and how it works or why not.
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
        Probe::Devices => Some(devices()),
        Probe::ProcessVm => process_vm(),
        Probe::IoUring => io_uring(),
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

fn devices() -> String {
    let mut text = String::new();
    for device in tbrdma::devices().into_iter().take(MOST_DEVICES) {
        let opened = OpenOptions::from_environment().and_then(|options| options.open(&device.name));
        let (outcome, told) = match opened {
            Ok(context) => {
                let works = context.describe();
                // A device that has nothing to say of itself says its name.
                let works = if works == device.name { String::new() } else { format!("; {works}") };
                ("opened", format!("{}{works}", device.description))
            }
            Err(error) => ("refused", error.to_string()),
        };
        let _ = writeln!(text, "{}\t{outcome}\t{}", device.name, crate::error::one_line(&told));
    }
    text
}

#[cfg(target_os = "linux")]
fn io_uring() -> Option<String> {
    Some(match io_uring::IoUring::new(2) {
        Ok(_) => "works".into(),
        Err(error) => error.to_string(),
    })
}

#[cfg(not(target_os = "linux"))]
fn io_uring() -> Option<String> {
    None
}

/// What the child of [`process_vm`] looks for.
#[cfg(target_os = "linux")]
const WORD: u64 = 0x7462_7264_6d61_0001;

/// Has a child read a word of ours. It is no ancestor of ours, so what it may do any other process of this user may.
#[cfg(target_os = "linux")]
fn process_vm() -> Option<String> {
    let word = WORD;
    let (pid, address) = (std::process::id().to_string(), std::ptr::from_ref(&word).addr().to_string());
    let program = std::env::current_exe().ok()?;
    let mut command = std::process::Command::new(program);
    let output = command.args(["read-process", &pid, &address]).output().ok()?;
    // Until here the child may look.
    std::hint::black_box(&word);
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(not(target_os = "linux"))]
fn process_vm() -> Option<String> {
    None
}

/// The child's side: reads the word of another process, and says what came of it.
#[cfg(target_os = "linux")]
#[must_use]
pub fn read_process(pid: i32, address: usize) -> String {
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    let mut bytes = [0; 8];
    let remote = [RemoteIoVec { base: address, len: bytes.len() }];
    let pid = nix::unistd::Pid::from_raw(pid);
    match process_vm_readv(pid, &mut [std::io::IoSliceMut::new(&mut bytes)], &remote) {
        Ok(8) if u64::from_ne_bytes(bytes) == WORD => "works".into(),
        Ok(count) => format!("read {count} bytes that were others"),
        Err(error) => error.to_string(),
    }
}

/// There is no such call here.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn read_process(_pid: i32, _address: usize) -> String {
    "ENOSYS: this system has no process_vm_readv".into()
}
