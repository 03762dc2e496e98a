//! What was found on a host, as plain values: gathered here, judged elsewhere.

pub mod limits;
pub mod machine;
pub mod macos;
pub mod modules;
pub mod network;
pub mod ours;
pub mod rdma;
pub mod thunderbolt;

use super::host::Host;
use super::probes::Probe;

/// Everything that is known of a host.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Name of the system, as `linux`.
    pub platform: String,
    /// Release of its kernel, or of macOS.
    pub release: String,
    /// Processor architecture.
    pub architecture: String,
    /// RDMA devices, and what stands between them and a program.
    pub rdma: rdma::Rdma,
    /// Kernel modules.
    pub modules: modules::Modules,
    /// Thunderbolt and USB4.
    pub thunderbolt: thunderbolt::Thunderbolt,
    /// Network interfaces.
    pub network: network::Network,
    /// Limits of this process.
    pub limits: limits::Limits,
    /// The machine, as far as it matters to measurements.
    pub machine: machine::Machine,
    /// Our own devices.
    pub ours: ours::Ours,
    /// Only of Macs.
    pub macos: Option<macos::Macos>,
}

/// Looks at a host.
#[must_use]
pub fn gather(host: &dyn Host) -> Facts {
    let platform = host.ask(Probe::Platform).unwrap_or_else(|| "linux".into());
    let architecture = host.ask(Probe::Architecture).unwrap_or_default();
    let ours = ours::gather(host);
    let network = network::gather(host);
    if platform == "macos" {
        let macos = macos::gather(host);
        let release = macos.version.clone().unwrap_or_default();
        let macos = Some(macos);
        return Facts { platform, release, architecture, network, ours, macos, ..Facts::default() };
    }
    let release = host.line("/proc/sys/kernel/osrelease").unwrap_or_default();
    Facts {
        rdma: rdma::gather(host),
        modules: modules::gather(host, &release),
        thunderbolt: thunderbolt::gather(host),
        limits: limits::gather(host),
        machine: machine::gather(host),
        platform,
        release,
        architecture,
        network,
        ours,
        macos: None,
    }
}
