//! What the programs of `ibverbs-utils` tell each other over TCP before they ping and pong: their queue pairs' addresses, as text.
//!
//! Each address is `LID:QPN:PSN:GID` in hexadecimal, 4, 6, 6 and 32 digits, and a zero byte. The client says its own first (the
//! shared-receive program: one after the other for each queue pair), the server answers with as many, the client says "done".

use crate::verbs::{accept, gid_digits, parse_gid};
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use tbrdma_proto::{Gid, Psn, Qpn};

/// Bytes of an address, the zero byte included.
const ADDRESS: usize = 4 + 1 + 6 + 1 + 6 + 1 + 32 + 1;

/// How long the other side may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Where a queue pair is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) qpn: Qpn,
    pub(crate) psn: Psn,
    pub(crate) gid: Gid,
}

impl Address {
    fn to_bytes(self) -> Vec<u8> {
        let Self { qpn, psn, gid } = self;
        format!("0000:{:06x}:{:06x}:{}\0", qpn.get(), psn.get(), gid_digits(gid)).into_bytes()
    }

    fn read(stream: &mut TcpStream) -> Result<Self> {
        let mut bytes = [0; ADDRESS];
        stream.read_exact(&mut bytes)?;
        let text = std::str::from_utf8(&bytes)?.trim_end_matches('\0');
        let parts: Vec<_> = text.split(':').collect();
        let [lid, qpn, psn, gid] = parts.as_slice() else { anyhow::bail!("{text:?} is not LID:QPN:PSN:GID") };
        ensure!(lid.len() == 4, "{text:?} has no LID of four digits");
        let number = |hex: &str| u32::from_str_radix(hex, 16).with_context(|| format!("{hex:?} in {text:?}"));
        let qpn = Qpn::new(number(qpn)?).context("a queue pair number of more than 24 bits")?;
        Ok(Self { qpn, psn: Psn::masked(number(psn)?), gid: parse_gid(gid)? })
    }
}

/// The server's part: hears the client's addresses, lets `connect` do with them what must be done before the client may send, answers.
pub(crate) fn serve(
    listener: &TcpListener,
    ours: &[Address],
    connect: impl FnOnce(&[Address]) -> Result<()>,
) -> Result<TcpStream> {
    let mut stream = accept(listener, LIMIT).context("the guest's program does not connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    let theirs = ours.iter().map(|_| Address::read(&mut stream)).collect::<Result<Vec<_>>>()?;
    connect(&theirs)?;
    for address in ours {
        stream.write_all(&address.to_bytes())?;
    }
    let mut done = [0; 5];
    stream.read_exact(&mut done).context("the client does not say that it is done")?;
    ensure!(&done == b"done\0", "the client says {done:?} instead of done");
    Ok(stream)
}

/// The client's part. The server may still be starting: whatever breaks before it has answered is tried again.
pub(crate) fn call(server: SocketAddr, ours: &[Address]) -> Result<(TcpStream, Vec<Address>)> {
    let until = Instant::now() + LIMIT;
    loop {
        match try_call(server, ours) {
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(50)),
            result => return result.context("the guest's program does not answer"),
        }
    }
}

fn try_call(server: SocketAddr, ours: &[Address]) -> Result<(TcpStream, Vec<Address>)> {
    let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    for address in ours {
        stream.write_all(&address.to_bytes())?;
    }
    let theirs = ours.iter().map(|_| Address::read(&mut stream)).collect::<Result<Vec<_>>>()?;
    Ok((stream, theirs))
}

/// The client's last word, once it is connected.
pub(crate) fn done(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"done\0").context("the server is gone")
}
