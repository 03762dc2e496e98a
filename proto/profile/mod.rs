//! Profiles: what an emulated device pretends to be.
//!
//! A profile is a value: attributes that a device reports and enforces, and [`Switches`], one for each habit by which devices differ.
//! It has a text form, [`Profile::from_str`](core::str::FromStr): a name, and switches that differ from what that name stands for:
//! `apple-tb5,overrun=silent,qps=3`.
//!
//! | file | what is in it |
//! |---|---|
//! | `switches` | the switches and their values |
//! | `apple` | `apple-tb5`: a Thunderbolt 5 port of a Mac, each of its facts with the source it is known from |
//! | `nics` | `rxe`, `connectx` |
//! | `text` | the text form |

mod apple;
mod nics;
mod switches;
mod text;

pub use apple::{FRAME_BYTES, MAX_FRAMES};
pub use switches::{
    Alias, DepthRounding, DepthUnit, EarlyReceive, EmptySend, FlowMode, Habits, LedgerMode, Lids, LocalOnly,
    Match, MrSize, Overrun, Presence, QpCapError, Rkey, Switches, Transports, WriteMode,
};
pub use text::ParseProfileError;

use crate::limits::{DeviceAttr, PortAttr};

/// A device's capabilities and habits.
///
/// A profile narrows a device. It never promises more than [`crate::limits`] has, and never makes a device
/// lie about what happened to a work request, except where that is the very fact that a switch stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Short name.
    pub name: &'static str,
    /// What the device reports of itself, and enforces.
    pub device: DeviceAttr,
    /// What its one port reports.
    pub port: PortAttr,
    /// Its habits.
    pub switches: Switches,
}

impl Profile {
    /// The names there are.
    pub const NAMES: [&'static str; 4] = ["plain", "rxe", "connectx", "apple-tb5"];

    /// The profile that narrows nothing: everything at the values of [`crate::limits`].
    pub fn plain() -> Self {
        Self {
            name: Self::NAMES[0],
            device: DeviceAttr::default(),
            port: PortAttr::default(),
            switches: Switches::default(),
        }
    }

    /// The profile of this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "plain" => Some(Self::plain()),
            "rxe" => Some(Self::rxe()),
            "connectx" => Some(Self::connectx()),
            "apple-tb5" => Some(Self::apple_tb5()),
            _ => None,
        }
    }

    /// What is granted to a queue that asked for room for so many work requests; `None` if it is more than the device has.
    ///
    /// Where depth is counted in frames, the answer is the most frames that may be posted at a time. Elsewhere it is what was asked
    /// for, which a device may round up.
    pub fn granted_depth(&self, asked: u32) -> Option<u32> {
        if asked > self.device.max_qp_wr {
            return None;
        }
        Some(match self.switches.depth {
            DepthUnit::Requests => asked,
            DepthUnit::Frames => apple::granted_frames(asked, self.switches.rounding),
        })
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::plain()
    }
}
