//! From facts to findings. Nothing here looks at a host: the same facts always give the same findings.

mod devices;
mod limits;
mod macos;
mod measuring;
mod rdma;
mod streams;
mod thunderbolt;

use super::facts::Facts;
use super::finding::Finding;

/// What is to be said of a host.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(macos) = &facts.macos {
        macos::judge(macos, &mut findings);
        devices::judge(facts, &mut findings);
        return findings;
    }
    rdma::judge(facts, &mut findings);
    thunderbolt::judge(facts, &mut findings);
    devices::judge(facts, &mut findings);
    limits::judge(facts, &mut findings);
    measuring::judge(&facts.machine, &mut findings);
    findings
}

/// Devices that can be used now.
#[must_use]
pub fn usable(facts: &Facts) -> Vec<String> {
    let devices = facts.ours.devices.iter().flatten();
    devices.filter(|device| device.opens == Some(true)).map(|device| device.name.clone()).collect()
}
