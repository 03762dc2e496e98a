//! What is run.

pub(crate) mod perftest;
mod pingpong;
mod qperf;
mod simple;
mod watched;

use crate::stage::Stage;
use anyhow::Result;

/// A device that everything is run on.
#[derive(Clone, Copy)]
pub(crate) struct Device {
    /// What it is called in names of checks, and by the programs.
    pub(crate) name: &'static str,
    spec: &'static str,
    /// Whether its peers are named by GIDs alone, as on Ethernet.
    has_gids_only: bool,
}

/// All of them.
pub(crate) const DEVICES: [Device; 2] = [
    Device { name: "shm", spec: "shm", has_gids_only: false },
    Device { name: "udp", spec: "udp:lo", has_gids_only: true },
];

impl Device {
    /// What tbrdma-run is told.
    pub(crate) fn options(self, profile: Option<&str>) -> Vec<String> {
        let mut options = vec!["--device".to_owned(), format!("{}={}", self.name, self.spec)];
        if let Some(profile) = profile {
            options.extend(["--profile".to_owned(), profile.to_owned()]);
        }
        options
    }
}

/// One program with one set of flags.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Left out when time is short: it takes long, or is much like another.
    pub(crate) is_thorough: bool,
    run: Box<Run>,
}

type Run = dyn Fn(&Stage, Device) -> Result<String>;

impl Case {
    fn new(name: impl Into<String>, run: impl Fn(&Stage, Device) -> Result<String> + 'static) -> Self {
        Self { name: name.into(), is_thorough: false, run: Box::new(run) }
    }

    fn thorough(self, is_thorough: bool) -> Self {
        Self { is_thorough, ..self }
    }

    /// Runs it once, and says what was seen.
    pub(crate) fn run(&self, stage: &Stage, device: Device) -> Result<String> {
        (self.run)(stage, device)
    }
}

/// Everything that is run on a device.
pub(crate) fn all(device: Device) -> Vec<Case> {
    [simple::cases(device), watched::cases(), pingpong::cases(), perftest::cases(), qperf::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Words of a command.
fn words<'a>(all: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    all.into_iter().map(ToOwned::to_owned).collect()
}
