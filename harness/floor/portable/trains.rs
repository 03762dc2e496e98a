//! In place of trains of datagrams where the kernel has none: only messages of one packet have a floor.

use std::net::UdpSocket;

use crate::error::{Error, Result};

/// Says that there are none.
pub(super) fn cut(_socket: &UdpSocket, _segment: u16) -> Result<()> {
    Err(Error::Run("messages of several packets have a floor on Linux only".into()))
}

/// Datagrams arrive one by one.
pub(super) fn join(_socket: &UdpSocket) {}
