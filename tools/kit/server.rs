//! `tbrdma-ivshmem-server`: a server of shared memory for QEMU's ivshmem-doorbell and for devices called `bar:ivshmem:PATH`, where there is none.

#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use nix::sys::signal::{SigSet, Signal};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tbrdma_kit::ivshmem::Server;

const USAGE: &str = "tbrdma-ivshmem-server SOCKET MEGABYTES [VECTORS]";

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let path = PathBuf::from(arguments.next().context(USAGE)?);
    let mut number = |what: &str, default: Option<u64>| match arguments.next() {
        Some(text) => text
            .to_str()
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("{what}: not a number; {USAGE}")),
        None => default.context(USAGE),
    };
    let (megabytes, vectors): (u64, u64) = (number("MEGABYTES", None)?, number("VECTORS", Some(1))?);
    ensure!(
        megabytes.is_power_of_two() && megabytes <= 1 << 20,
        "QEMU takes memory of a power of two, at most 1 TiB"
    );
    ensure!((1..=64).contains(&vectors), "there are 1 to 64 vectors");
    let mut ends = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| ends.add(signal));
    // Before the server's thread begins, which then does not take them either.
    ends.thread_block()?;
    forget_the_dead(&path)?;
    let server = Server::start(&path, megabytes << 20, vectors as u16);
    let _server = server.with_context(|| format!("cannot listen at {}", path.display()))?;
    println!("{megabytes} MiB, {vectors} vectors, at {}", path.display());
    ends.wait()?;
    Ok(())
}

/// Removes a socket that nobody listens at any more: one whose server was killed.
fn forget_the_dead(path: &Path) -> anyhow::Result<()> {
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(std::fs::remove_file(path)?),
        _ => Ok(()),
    }
}
