//! This library's own devices: whether they open, and how they work here.

use crate::doctor::host::Host;
use crate::doctor::probes::{OPENED, Probe, TRIED};

/// What is known of our devices.
#[derive(Debug, Clone, Default)]
pub struct Ours {
    /// One each; `None` if nobody tried.
    pub devices: Option<Vec<Device>>,
    /// What came of one process reading another's memory; `None` if nobody tried.
    pub process_vm: Option<String>,
    /// What came of asking for an io_uring; `None` if nobody did.
    pub io_uring: Option<String>,
    /// `TBRDMA_DEVICES`, where it is set.
    pub listed: Option<String>,
}

/// One of our devices.
#[derive(Debug, Clone)]
pub struct Device {
    /// The name that opens it.
    pub name: String,
    /// Does it open? `None` if that did not end.
    pub opens: Option<bool>,
    /// How it works, or why it does not open.
    pub told: String,
}

/// Tries the devices.
pub(super) fn gather(host: &dyn Host) -> Ours {
    let devices = host.ask(Probe::Devices).map(|text| {
        let mut devices: Vec<Device> = Vec::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, '\t');
            let (Some(name), Some(outcome), Some(told)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let opens = match outcome {
                TRIED => None,
                outcome => Some(outcome == OPENED),
            };
            let device = Device { name: name.to_owned(), opens, told: told.to_owned() };
            match devices.last_mut() {
                Some(tried) if tried.name == name => *tried = device,
                _ => devices.push(device),
            }
        }
        devices
    });
    Ours {
        devices,
        process_vm: host.ask(Probe::ProcessVm),
        io_uring: host.ask(Probe::IoUring),
        listed: host.variable("TBRDMA_DEVICES"),
    }
}
