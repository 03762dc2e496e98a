//! The profiles, by name.

use std::str::FromStr;

/// What devices pretend to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProfileName {
    /// Nothing: all that the device can do.
    #[default]
    Plain,
    /// Linux's rdma_rxe.
    Rxe,
    /// A ConnectX adapter.
    ConnectX,
    /// Apple's RDMA over Thunderbolt 5.
    AppleTb5,
}

impl ProfileName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Rxe, Self::ConnectX, Self::AppleTb5];

    /// The name that is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Rxe => "rxe",
            Self::ConnectX => "connectx",
            Self::AppleTb5 => "apple-tb5",
        }
    }
}

impl FromStr for ProfileName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no such profile; there are {known}")
        })
    }
}
