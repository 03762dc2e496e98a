//! Profiles: what an emulated device pretends to be.

use crate::limits::{DeviceAttr, PortAttr};

/// What a receiver does with a message for which nothing was posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowMode {
    /// As network cards do: RC retries after a receiver-not-ready NAK; UC and UD drop the message, and the
    /// sender's completion is a success all the same.
    #[default]
    Nic,
    /// As Apple's Thunderbolt RDMA does: a UC SEND waits until a receive is posted.
    HoldUc,
}

/// A device's capabilities and habits.
///
/// A profile narrows a device. It never promises more than [`crate::limits`] has, and never makes a device
/// lie about what happened to a work request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Short name.
    pub name: &'static str,
    /// What the device reports of itself.
    pub device: DeviceAttr,
    /// What its one port reports.
    pub port: PortAttr,
    /// What it does with a message for which nothing was posted.
    pub flow: FlowMode,
}

impl Profile {
    /// The profile that narrows nothing: everything at the values of [`crate::limits`].
    pub fn plain() -> Self {
        Self {
            name: "plain",
            device: DeviceAttr::default(),
            port: PortAttr::default(),
            flow: FlowMode::default(),
        }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::plain()
    }
}
