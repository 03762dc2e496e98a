//! The `stream` link: RoCEv2 packets over a reliable byte stream that leads to one peer. Above all Linux's `/dev/tbstreamX`, which is a raw ring of
//! a Thunderbolt/USB4 controller; and sockets and pipes for everyone else.
//!
//! - `link`: the link itself; `stage`: what becomes of it from looking for a peer to losing it
//! - `finding`: how it comes by a stream: connecting, listening, opening a device
//! - `ends`: a stream, of whatever kind; `standin`: what behaves like a `/dev/tbstreamX`
//! - `input`, `output`: packets out of the stream and into it; `inward`: those to this device itself
//! - `watch`: the one descriptor that stands for all of them
//!
//! What is said on the stream is `tbrdma_proto::stream`'s to decide.

mod ends;
mod finding;
mod input;
mod inward;
mod link;
mod output;
mod stage;
#[cfg_attr(not(tbrdma_linux), path = "portable/standin.rs")]
mod standin;
#[cfg(test)]
mod tests;
#[cfg_attr(not(tbrdma_linux), path = "portable/watch.rs")]
mod watch;

use super::Link;
use crate::error::{Error, Result};
use crate::sys::stream::Duct;
use crate::verbs::context::DeviceInfo;
use std::os::fd::OwnedFd;
use tbrdma_proto::stream::StreamAddress;

/// What the names of these devices begin with; the rest is a [`StreamAddress`].
const PREFIX: &str = "stream:";

/// Where the system's own streams are.
const FOLDER: &str = "/dev";

/// The streams that this host has whether or not anybody asks: one for each that was set up over a Thunderbolt or USB4 cable.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    let entries = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| name.strip_prefix("tbstream").is_some_and(|number| number.parse::<u32>().is_ok()))
        .collect();
    names.sort();
    let described = |name: String| DeviceInfo {
        name: format!("{PREFIX}{FOLDER}/{name}"),
        description: "RoCEv2 over a stream of the Thunderbolt/USB4 cable".to_owned(),
    };
    names.into_iter().map(described).collect()
}

/// The link over the stream with this address. It need not lead anywhere yet.
///
/// # Errors
/// There can be no such stream: a name that does not resolve, a path that is no device, an address that is not ours to listen at.
pub(crate) fn open(address: &StreamAddress) -> Result<Box<dyn Link>> {
    Ok(Box::new(link::StreamLink::find(address)?))
}

/// The link over a stream that is there: one descriptor for both directions, or a second for what leaves.
///
/// # Errors
/// Bytes do not stream through them.
pub(crate) fn over(input: OwnedFd, output: Option<OwnedFd>) -> Result<Box<dyn Link>> {
    let duct =
        Duct::new(input, output).map_err(Error::os("open_stream", "use the descriptor as a stream"))?;
    Ok(Box::new(link::StreamLink::over(duct)?))
}
