//! What an unmodified program is given to run on: its devices, what they pretend to be, what goes wrong with them, and what is recorded.
//!
//! One meaning for two readers: `tbrdma-run` takes flags, variables and a file, checks them, and hands all of them on as variables; the
//! drop-in library reads these, in a process of its own, where a person may also have set them by hand. A flag is stronger than a
//! variable, a variable stronger than the file.
//!
//! | flag | variable | in the file | value |
//! |---|---|---|---|
//! | `--device` (repeatable) | `TBRDMA_DEVICES` | `devices` (a list) | a [list](tbrdma_proto::devices) |
//! | `--profile` | `TBRDMA_PROFILE` | `profile` | a [`Profile`]: `plain`, `rxe`, `connectx`, `apple-tb5`, and switches |
//! | `--fault` | `TBRDMA_FAULT` | `fault` | [`Faults`]: a [`FaultPlan`](tbrdma_proto::fault::FaultPlan) and a [`VerbsPlan`](tbrdma_proto::fault::VerbsPlan) in one |
//! | `--seed` | `TBRDMA_SEED` | `seed` | a number below 2^64 |
//! | `--link` | `TBRDMA_LINK` | `link` | a rate and a latency, `64Gbps,5us` |
//! | `--capture` | `TBRDMA_CAPTURE` | `capture` | a file; `%p` becomes the process's number |
//! | `--trace` | `TBRDMA_TRACE` | `trace` | likewise |
//! | `--trace-last` | `TBRDMA_TRACE_LAST` | `trace_last` | a number of lines kept in memory; 256 with `--trace` |
//! | `--trace-signal` | `TBRDMA_TRACE_SIGNAL` | `trace_signal` | a [`TraceSignal`], `QUIT` |
//! | `--explain` | `TBRDMA_EXPLAIN` | `explain` | on or off: `1` or `0` |
//! | `--device-files` | `TBRDMA_DEVICE_FILES` | `device_files` | likewise |
//! | `--config` | `TBRDMA_CONFIG` | | the file |
//!
//! ```
//! use tbrdma_settings::{Key, Layer};
//!
//! let mut flags = Layer::default();
//! flags.set(Key::Devices, "mlx5_0=udp:lo,shm", Key::Devices.flag());
//! let settings = flags.parse()?;
//! assert_eq!(settings.devices[0].name, "mlx5_0");
//! assert_eq!(settings.devices[1].to_string(), "shm=shm");
//! # Ok::<(), tbrdma_settings::SettingsError>(())
//! ```

#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::panic)]

mod error;
mod faults;
mod file;
mod key;
mod layer;
mod paths;
mod signal;

pub use error::SettingsError;
pub use faults::Faults;
pub use key::{CONFIG_FLAG, CONFIG_VARIABLE, Key};
pub use layer::Layer;
pub use paths::for_process;
pub use signal::TraceSignal;

use std::ffi::OsString;
use std::path::PathBuf;
use tbrdma_proto::fault::LinkModel;
use tbrdma_proto::{NamedDevice, Profile};

/// Everything that can be set, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The devices, in the order in which the program sees them; at least one, no two of one name.
    pub devices: Vec<NamedDevice>,
    /// What the devices pretend to be.
    pub profile: Profile,
    /// What goes wrong.
    pub faults: Faults,
    /// What the faults are drawn from. `None`: from another seed each time.
    pub seed: Option<u64>,
    /// How fast the links are, where that is not to be what the machine makes of them.
    pub link: Option<LinkModel>,
    /// The file that gets all packets, as pcapng: see [`for_process`].
    pub capture: Option<PathBuf>,
    /// The file that gets all calls: see [`for_process`].
    pub trace: Option<PathBuf>,
    /// How many lines of calls are kept in memory; `None`: see [`kept_calls`](Self::kept_calls).
    pub trace_last: Option<u32>,
    /// The signal on which they are told.
    pub trace_signal: TraceSignal,
    /// Whether a report is printed when the program ends.
    pub explain: bool,
    /// Whether the device files that some programs look for are pretended.
    pub device_files: bool,
}

impl Settings {
    /// What the environment says, and the file that it names.
    ///
    /// # Errors
    /// A value makes no sense, or the file cannot be read.
    pub fn from_environment() -> Result<Self, SettingsError> {
        Layer::from_environment()?.parse()
    }

    /// How many lines of calls are kept in memory, to be told on a signal: some where a trace is written, unless another number was given.
    pub fn kept_calls(&self) -> u32 {
        const BESIDE_A_TRACE: u32 = 256;
        let unasked = if self.trace.is_some() { BESIDE_A_TRACE } else { 0 };
        self.trace_last.unwrap_or(unasked)
    }

    /// The variables that say all this to another process. Whatever other variables of [`Key::ALL`] there are, and [`CONFIG_VARIABLE`],
    /// must be removed there: `None`.
    pub fn variables(&self) -> Vec<(&'static str, Option<OsString>)> {
        let mut all: Vec<_> = Key::ALL.into_iter().map(|key| (key.variable(), self.value(key))).collect();
        all.push((CONFIG_VARIABLE, None));
        all
    }

    fn value(&self, key: Key) -> Option<OsString> {
        match key {
            Key::Devices => {
                let devices: Vec<_> = self.devices.iter().map(NamedDevice::to_string).collect();
                Some(devices.join(",").into())
            }
            Key::Profile => Some(self.profile.to_string().into()),
            Key::Fault => (self.faults != Faults::default()).then(|| self.faults.to_string().into()),
            Key::Seed => self.seed.map(|seed| seed.to_string().into()),
            Key::Link => self.link.map(|link| link.to_string().into()),
            Key::Capture => self.capture.clone().map(OsString::from),
            Key::Trace => self.trace.clone().map(OsString::from),
            Key::TraceLast => self.trace_last.map(|count| count.to_string().into()),
            Key::TraceSignal => {
                (self.trace_signal != TraceSignal::default()).then(|| self.trace_signal.to_string().into())
            }
            Key::Explain => self.explain.then(|| "1".into()),
            Key::DeviceFiles => self.device_files.then(|| "1".into()),
        }
    }
}
