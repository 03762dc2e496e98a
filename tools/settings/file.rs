//! Settings in a TOML file.

use crate::{Key, Layer, SettingsError};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    devices: Option<Vec<String>>,
    profile: Option<String>,
    fault: Option<String>,
    seed: Option<Seed>,
    link: Option<String>,
    capture: Option<PathBuf>,
    trace: Option<PathBuf>,
    trace_last: Option<u32>,
    trace_signal: Option<String>,
    explain: Option<bool>,
    device_files: Option<bool>,
}

/// TOML's whole numbers end at 2^63; larger seeds are written as text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "it must be a number, or a number in quotes")]
enum Seed {
    Number(u64),
    Text(String),
}

pub(crate) fn parse(text: &str, path: &Path) -> Result<Layer, SettingsError> {
    let file: File = toml::from_str(text).map_err(|error| SettingsError::File {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    })?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut layer = Layer::default();
    let mut set = |key: Key, value: Option<std::ffi::OsString>| {
        if let Some(value) = value {
            layer.set(key, value, format!("{}: {}", path.display(), key.in_file()));
        }
    };
    let switch = |value: bool| if value { "1".into() } else { "0".into() };
    set(Key::Devices, file.devices.map(|devices| devices.join(",").into()));
    set(Key::Profile, file.profile.map(Into::into));
    set(Key::Fault, file.fault.map(Into::into));
    set(
        Key::Seed,
        file.seed.map(|seed| match seed {
            Seed::Number(number) => number.to_string().into(),
            Seed::Text(text) => text.into(),
        }),
    );
    set(Key::Link, file.link.map(Into::into));
    set(Key::Capture, file.capture.map(|path| folder.join(path).into()));
    set(Key::Trace, file.trace.map(|path| folder.join(path).into()));
    set(Key::TraceLast, file.trace_last.map(|count| count.to_string().into()));
    set(Key::TraceSignal, file.trace_signal.map(Into::into));
    set(Key::Explain, file.explain.map(switch));
    set(Key::DeviceFiles, file.device_files.map(switch));
    Ok(layer)
}
