//! What this process was told to run on: the settings that `tbrdma-run` hands on in `TBRDMA_*` variables, or that somebody set by hand.

use crate::errno::Errno;
use crate::watch;
use std::sync::OnceLock;
use tbrdma::{Context, OpenOptions};
use tbrdma_proto::NamedDevice;
use tbrdma_proto::fault::FaultPlan;
use tbrdma_settings::{Settings, for_process};

/// The settings; `None`, and a word on stderr, where they make no sense: then there are no devices.
pub(crate) fn settings() -> Option<&'static Settings> {
    static SETTINGS: OnceLock<Option<Settings>> = OnceLock::new();
    let settings = SETTINGS.get_or_init(|| {
        // The system's verbs library is us.
        tbrdma::without_native_devices();
        read()
    });
    settings.as_ref()
}

fn read() -> Option<Settings> {
    match Settings::from_environment() {
        Ok(settings) => {
            watch::begin(&settings);
            Some(settings)
        }
        Err(error) => {
            crate::log::tell(&error);
            None
        }
    }
}

/// Opens a device, under its name: what a profile counts, it counts by names.
pub(crate) fn open(device: &NamedDevice) -> Result<Context, Errno> {
    let settings = settings().ok_or(Errno::ENODEV)?;
    let mut options = OpenOptions::new().profile(settings.profile.to_string());
    // What has no packets is left as it is beside what has: tbrdma-run has seen to it that there is one that has.
    if settings.faults.wire != FaultPlan::default() && device.backend.has_packets() {
        options = options.fault(settings.faults.wire.to_string());
    }
    if let Some(link) = settings.link {
        options = options.link(link.to_string());
    }
    if let Some(capture) = &settings.capture {
        options = options.capture(for_process(capture, std::process::id()));
    }
    if let Some(seed) = settings.seed {
        options = options.seed(seed);
    }
    Ok(options.open(&device.to_string())?)
}
