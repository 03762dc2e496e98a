//! This library's own devices: whether they open, and how they work here.

use crate::doctor::host::Host;
use crate::doctor::probes::Probe;

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
    /// Does it open?
    pub opens: bool,
    /// How it works, or why it does not open.
    pub told: String,
}

/// Tries the devices.
pub(super) fn gather(host: &dyn Host) -> Ours {
    let devices = host.ask(Probe::Devices).map(|text| {
        let device = |line: &str| {
            let mut parts = line.split('\t');
            Some(Device {
                name: parts.next()?.to_owned(),
                opens: parts.next()? == "opened",
                told: parts.next().unwrap_or_default().to_owned(),
            })
        };
        text.lines().filter_map(device).collect()
    });
    Ours {
        devices,
        process_vm: host.ask(Probe::ProcessVm),
        io_uring: host.ask(Probe::IoUring),
        listed: host.variable("TBRDMA_DEVICES"),
    }
}
