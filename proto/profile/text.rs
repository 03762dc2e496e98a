//! The text form of a profile: `NAME[,SWITCH=VALUE]...`.

use core::fmt;
use core::str::FromStr;

use super::{Profile, Switches};

/// A text that is not a [`Profile`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile: {what} in {part:?}: write {expected}")]
pub struct ParseProfileError {
    /// The part between commas that was refused.
    pub part: String,
    /// What is wrong with it.
    pub what: &'static str,
    /// What would be right.
    pub expected: String,
}

impl FromStr for Profile {
    type Err = ParseProfileError;

    fn from_str(text: &str) -> Result<Self, ParseProfileError> {
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refuse = |part: &str, what, expected: &str| ParseProfileError {
            part: part.to_owned(),
            what,
            expected: expected.to_owned(),
        };
        let mut profile = Self::named(name).ok_or_else(|| {
            let names = format!("one of: {}; perhaps with switches behind commas", Self::NAMES.join(" "));
            refuse(name, "an unknown name", &names)
        })?;
        let unknown = || format!("SWITCH=VALUE, the switches are: {}", Switches::NAMES.join(" "));
        let mut seen: Vec<&str> = Vec::new();
        for part in parts {
            let (switch, value) = part.split_once('=').ok_or_else(|| refuse(part, "no value", &unknown()))?;
            if seen.contains(&switch) {
                return Err(refuse(part, "a switch given twice", "each at most once"));
            }
            seen.push(switch);
            profile.switches.set(switch, value).map_err(|expected| match expected {
                None => refuse(part, "an unknown switch", &unknown()),
                Some(expected) => refuse(part, "a value that the switch does not have", expected),
            })?;
        }
        Ok(profile)
    }
}

/// Its name and the switches that differ from what the name stands for. Attributes have no text: those changed by hand do not show.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = Self::named(self.name).unwrap_or_default().switches;
        let mut text = self.name.to_owned();
        for (switch, value) in self.switches.differing(&base) {
            text.push(',');
            text.push_str(switch);
            text.push('=');
            text.push_str(&value);
        }
        f.pad(&text)
    }
}
