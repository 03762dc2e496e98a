//! Trains of datagrams: what Linux's kernel cuts from one call, and hands out in one.

use std::net::UdpSocket;

use nix::sys::socket::{setsockopt, sockopt};

use crate::error::{Context, Result};

/// Has what is sent in a call leave as datagrams of so many bytes.
pub(super) fn cut(socket: &UdpSocket, segment: u16) -> Result<()> {
    setsockopt(socket, sockopt::UdpGsoSegment, &i32::from(segment)).context(|| "set UDP_SEGMENT".into())
}

/// Has datagrams of one train arrive as one. Where the kernel cannot, they arrive one by one.
pub(super) fn join(socket: &UdpSocket) {
    let _ = setsockopt(socket, sockopt::UdpGroSegment, &true);
}
