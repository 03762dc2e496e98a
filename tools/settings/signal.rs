//! The signal on which a program tells what it did last.

use std::fmt;
use std::str::FromStr;

/// A signal, with or without `SIG` before its name, or `none`. By default `QUIT`, which a terminal sends for ^\\.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceSignal(Option<(&'static str, i32)>);

/// Signals that one process sends to another, with Linux's numbers.
const SIGNALS: [(&str, i32); 10] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("URG", 23),
    ("WINCH", 28),
    ("PWR", 30),
];

impl TraceSignal {
    /// Linux's number of it.
    pub fn number(self) -> Option<i32> {
        self.0.map(|(_, number)| number)
    }
}

impl Default for TraceSignal {
    fn default() -> Self {
        Self(Some(SIGNALS[2]))
    }
}

impl FromStr for TraceSignal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let name = text.strip_prefix("SIG").unwrap_or(text);
        let found = SIGNALS.into_iter().find(|(known, _)| *known == name);
        found.map(|known| Self(Some(known))).ok_or_else(|| {
            let names = SIGNALS.map(|(name, _)| name).join(", ");
            format!("it must be a signal, one of {names}, or none")
        })
    }
}

impl fmt::Display for TraceSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or("none", |(name, _)| name))
    }
}
