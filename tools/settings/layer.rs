//! One source of settings: values as they were written, and where each comes from. Layers are laid over each other, and what is on top is
//! parsed, so that nobody is told of an error in a value that has no effect.

use crate::{CONFIG_VARIABLE, Faults, Key, Settings, SettingsError, TraceSignal, file};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tbrdma_proto::fault::{FaultPlan, LinkModel};
use tbrdma_proto::{NamedDevice, Profile, parse_devices};

/// Calls that can be kept in memory.
const MAX_TRACE_LAST: u32 = 1 << 20;

/// Settings as they were written in one place or in several.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    texts: [Option<Text>; Key::ALL.len()],
}

#[derive(Clone, Debug)]
struct Text {
    value: OsString,
    origin: String,
}

impl Layer {
    /// Sets a value, which comes from `origin`: a flag, say. It is checked by [`parse`](Self::parse).
    pub fn set(&mut self, key: Key, value: impl Into<OsString>, origin: impl Into<String>) {
        self.texts[key as usize] = Some(Text { value: value.into(), origin: origin.into() });
    }

    /// The variables of this process, over the file that [`CONFIG_VARIABLE`] names.
    ///
    /// # Errors
    /// The file cannot be read, or is not of the form.
    pub fn from_environment() -> Result<Self, SettingsError> {
        let file = match std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()) {
            None => Self::default(),
            Some(path) => Self::from_file(Path::new(&path), CONFIG_VARIABLE)?,
        };
        Ok(Self::from_variables(|name| std::env::var_os(name)).over(file))
    }

    /// The variables of an environment, without a file. An empty variable is none.
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut layer = Self::default();
        for key in Key::ALL {
            if let Some(value) = get(key.variable()).filter(|value| !value.is_empty()) {
                layer.set(key, value, key.variable());
            }
        }
        layer
    }

    /// A TOML file; relative paths in it count from the folder it lies in. `origin` is who named it.
    ///
    /// # Errors
    /// The file cannot be read, or is not of the form.
    pub fn from_file(path: &Path, origin: &str) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Unreadable {
            origin: origin.to_owned(),
            path: path.to_owned(),
            source,
        })?;
        file::parse(&text, path)
    }

    /// This layer on top of another.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        let mut both = self;
        for (text, lower) in both.texts.iter_mut().zip(lower.texts) {
            *text = text.take().or(lower);
        }
        both
    }

    /// What was written, checked. What was not written is at its default: one device `shm`, which pretends nothing.
    ///
    /// # Errors
    /// A value that makes no sense, with where it comes from.
    pub fn parse(&self) -> Result<Settings, SettingsError> {
        let profile = self.value::<Profile>(Key::Profile)?.unwrap_or_default();
        let settings = Settings {
            devices: self.devices(profile.name)?,
            profile,
            faults: self.value::<Faults>(Key::Fault)?.unwrap_or_default(),
            seed: self.with(Key::Seed, |text| {
                text.parse().map_err(|_| format!("it must be a number from 0 to {}", u64::MAX))
            })?,
            link: self.value::<LinkModel>(Key::Link)?,
            capture: self.path(Key::Capture)?,
            trace: self.path(Key::Trace)?,
            trace_last: self.with(Key::TraceLast, |text| {
                let count = text.parse().ok().filter(|&count| count <= MAX_TRACE_LAST);
                count.ok_or_else(|| format!("it must be a number from 0 to {MAX_TRACE_LAST}"))
            })?,
            trace_signal: self.value::<TraceSignal>(Key::TraceSignal)?.unwrap_or_default(),
            explain: self.switch(Key::Explain)?,
            device_files: self.switch(Key::DeviceFiles)?,
        };
        self.check(&settings)?;
        Ok(settings)
    }

    /// What no value is wrong in by itself.
    fn check(&self, settings: &Settings) -> Result<(), SettingsError> {
        let plan = &settings.faults.wire;
        if *plan != FaultPlan::default()
            && !settings.devices.iter().any(|device| device.backend.has_packets())
            && let Some(text) = self.text(Key::Fault)
        {
            let reason = "none of the devices has packets for it; add one that has, as in --device udp:lo";
            return Err(text.error(reason.to_owned()));
        }
        match (settings.link, self.text(Key::Link)) {
            (Some(link), Some(text)) => {
                link.with_faults(plan.clone()).map(drop).map_err(|error| text.error(error.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn text(&self, key: Key) -> Option<&Text> {
        self.texts[key as usize].as_ref()
    }

    fn with<T>(
        &self,
        key: Key,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        self.text(key).map(|text| text.with(parse)).transpose()
    }

    fn value<T: FromStr<Err: ToString>>(&self, key: Key) -> Result<Option<T>, SettingsError> {
        self.with(key, |text| text.parse::<T>().map_err(|error| error.to_string()))
    }

    fn switch(&self, key: Key) -> Result<bool, SettingsError> {
        let switch = self.with(key, |text| match text {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err("it must be 1 or 0".to_owned()),
        })?;
        Ok(switch.unwrap_or_default())
    }

    fn path(&self, key: Key) -> Result<Option<PathBuf>, SettingsError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        // Absolute, because the program may go to another folder before it opens a device.
        std::path::absolute(&text.value).map(Some).map_err(|error| text.error(error.to_string()))
    }

    /// Without a list, there is the one device that every machine has.
    fn devices(&self, profile: &str) -> Result<Vec<NamedDevice>, SettingsError> {
        let default = Text { value: "shm".into(), origin: "without devices".to_owned() };
        let text = self.text(Key::Devices).unwrap_or(&default);
        text.with(|list| parse_devices(list, profile).map_err(|error| error.to_string()))
    }
}

impl Text {
    fn with<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, SettingsError> {
        let parsed = match self.value.to_str() {
            Some(value) => parse(value),
            None => Err("it is not UTF-8".to_owned()),
        };
        parsed.map_err(|reason| self.error(reason))
    }

    fn error(&self, reason: String) -> SettingsError {
        let value = OsStr::to_string_lossy(&self.value).into_owned();
        SettingsError::Value { origin: self.origin.clone(), value, reason }
    }
}
