//! The guest's rxe as a [`Party`]: each call is one line to the verbs program that runs there (`guest/verbs.c`).

use crate::guest::{Guest, Running};
use crate::party::{Family, Party, Path, QKEY, Work};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tbrdma_proto::{
    Access, Gid, Opcode, QpState, QpType, Qpn, RemoteAddr, WcFlags, WcOpcode, WcStatus, WorkCompletion,
};

/// The GIDs rxe may have: link-local, IPv4-mapped, and the IPv6 address, in an order that only the table knows.
const GIDS: u32 = 4;

/// A session with the verbs program.
pub(crate) struct Verbs {
    stream: BufReader<TcpStream>,
    _running: Running,
    gids: Vec<Gid>,
}

impl Verbs {
    /// Starts the program in the guest, which finds `listener` at this address.
    pub(crate) fn start(guest: &Guest, listener: &TcpListener, address: &str) -> Result<Self> {
        let port = listener.local_addr()?.port();
        let running = guest.spawn(&format!("verbs serve {address} {port}"), Duration::from_secs(3600))?;
        let stream = accept(listener, Duration::from_secs(30))
            .context("the guest's verbs program does not connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut verbs = Self { stream: BufReader::new(stream), _running: running, gids: Vec::new() };
        for index in 0..GIDS {
            let gid = verbs.ask(&format!("gid {index}")).unwrap_or_default();
            verbs.gids.push(parse_gid(&gid).unwrap_or_default());
        }
        Ok(verbs)
    }

    /// The index of rxe's GID for this family: the IPv4-mapped one, or the one that is neither that nor link-local.
    pub(crate) fn gid_index(&self, family: Family) -> Result<usize> {
        let fits = |gid: &Gid| match family {
            Family::V4 => gid.0.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            Family::V6 => gid.0.first() == Some(&0xfd),
        };
        self.gids
            .iter()
            .position(fits)
            .with_context(|| format!("rxe has no {family:?} address among {:?}", self.gids))
    }

    /// One order; what it answered after "ok".
    fn ask(&mut self, order: &str) -> Result<String> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{order}\n").as_bytes()).context("the guest's verbs program is gone")?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).with_context(|| format!("the guest does not answer `{order}`"))?;
        match answer.trim().strip_prefix("ok") {
            Some(answer) => Ok(answer.trim().to_owned()),
            None => bail!("the guest answers `{order}` with `{}`", answer.trim()),
        }
    }

    fn numbers(&mut self, order: &str) -> Result<Vec<u64>> {
        let answer = self.ask(order)?;
        answer
            .split(' ')
            .map(|word| word.parse().with_context(|| format!("`{order}` answered {answer:?}")))
            .collect()
    }

    fn number(&mut self, order: &str) -> Result<u64> {
        self.numbers(order)?.first().copied().context("no number in an answer")
    }
}

/// The next connection, waited for at most so long.
pub(crate) fn accept(listener: &TcpListener, limit: Duration) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + limit;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) => {}
        }
        ensure!(Instant::now() < until, "nobody connects within {} s", limit.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A GID in 32 hexadecimal digits.
pub(crate) fn parse_gid(hex: &str) -> Result<Gid> {
    ensure!(hex.len() == 32, "{hex:?} is not a GID of 32 hexadecimal digits");
    Ok(Gid(u128::from_str_radix(hex, 16)?.to_be_bytes()))
}

/// A GID as 32 hexadecimal digits.
pub(crate) fn gid_digits(gid: Gid) -> String {
    format!("{:032x}", u128::from_be_bytes(gid.0))
}

impl Party for Verbs {
    fn gid(&mut self, family: Family) -> Result<Gid> {
        let index = self.gid_index(family)?;
        self.gids.get(index).copied().context("no such GID")
    }

    fn memory(&mut self) -> Result<RemoteAddr> {
        let numbers = self.numbers("memory")?;
        let [addr, rkey, _] = numbers.as_slice() else { bail!("the guest says nothing about its memory") };
        Ok(RemoteAddr { addr: *addr, rkey: u32::try_from(*rkey)? })
    }

    fn reset(&mut self) -> Result<()> {
        // Creating a queue pair forgets the last one.
        Ok(())
    }

    fn create_qp(&mut self, kind: QpType, access: Access, shared_receives: bool) -> Result<Qpn> {
        ensure!(!shared_receives, "the guest's verbs program has no shared receive queue");
        let number = self.number(&format!("qp {} {} {QKEY}", kind.name().to_lowercase(), access.bits()))?;
        Qpn::new(u32::try_from(number)?).context("rxe gave a queue pair number of more than 24 bits")
    }

    fn connect(&mut self, _: Qpn, path: &Path) -> Result<()> {
        let order = format!(
            "rts {} {} {} {} {} {} {} {} {} {} {} {}",
            path.mtu.raw(),
            path.peer.get(),
            path.rq_psn.get(),
            path.sq_psn.get(),
            self.gid_index(path.family)?,
            path.timeout,
            path.retry_cnt,
            path.rnr_retry,
            path.min_rnr_timer,
            path.max_rd_atomic,
            path.max_dest_rd_atomic,
            gid_digits(path.dgid)
        );
        self.ask(&order).map(drop)
    }

    fn state(&mut self, _: Qpn) -> Result<QpState> {
        let number = self.number("state")?;
        QpState::from_raw(u32::try_from(number)?).with_context(|| format!("{number} is no state"))
    }

    fn post_send(&mut self, _: Qpn, work: &Work) -> Result<()> {
        let peer = work.to.map_or(0, |(_, qpn)| qpn.get());
        let Work { id, opcode, flags, offset, length, remote, imm, compare_add, swap, .. } = work;
        let (opcode, flags, RemoteAddr { addr, rkey }) = (opcode.raw(), flags.bits(), remote);
        let order = format!(
            "send {id} {opcode} {flags} {offset} {length} {addr} {rkey} {imm} {compare_add} {swap} {peer} {QKEY}"
        );
        self.ask(&order).map(drop)
    }

    fn post_recv(&mut self, _: Option<Qpn>, id: u64, offset: u32, length: u32) -> Result<()> {
        self.ask(&format!("recv {id} {offset} {length}")).map(drop)
    }

    fn poll(&mut self, limit: Duration) -> Result<Option<WorkCompletion>> {
        let answer = self.ask(&format!("poll {}", limit.as_millis()))?;
        if answer == "none" {
            return Ok(None);
        }
        let numbers = answer.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [wr_id, status, opcode, byte_len, imm_data, flags, src_qp] = numbers.as_slice() else {
            bail!("{answer:?} is no completion")
        };
        Ok(Some(WorkCompletion {
            wr_id: *wr_id,
            status: WcStatus::from_raw(u32::try_from(*status)?).context("unknown status")?,
            opcode: WcOpcode::from_raw(u32::try_from(*opcode)?).unwrap_or_default(),
            byte_len: u32::try_from(*byte_len)?,
            imm_data: u32::try_from(*imm_data)?,
            wc_flags: WcFlags::from_bits_truncate(u32::try_from(*flags)?),
            src_qp: Qpn::new(u32::try_from(*src_qp)?).unwrap_or_default(),
            ..WorkCompletion::default()
        }))
    }

    fn fill(&mut self, offset: u32, length: u32, seed: u32) -> Result<()> {
        self.ask(&format!("fill {offset} {length} {seed}")).map(drop)
    }

    fn matching(&mut self, offset: u32, length: u32, seed: u32) -> Result<u32> {
        Ok(u32::try_from(self.number(&format!("check {offset} {length} {seed}"))?)?)
    }

    fn clear(&mut self, offset: u32, length: u32) -> Result<()> {
        self.ask(&format!("clear {offset} {length}")).map(drop)
    }

    fn load(&mut self, offset: u32) -> Result<u64> {
        self.number(&format!("load {offset}"))
    }

    fn store(&mut self, offset: u32, value: u64) -> Result<()> {
        self.ask(&format!("store {offset} {value}")).map(drop)
    }

    fn invalidatable(&mut self, qpn: Qpn, offset: u32, length: u32) -> Result<RemoteAddr> {
        let rkey = self.number(&format!("bind {offset} {length} {}", Access::REMOTE_WRITE.bits()))?;
        let wc = crate::party::success(self)?;
        ensure!(
            wc.wr_id == u64::MAX && qpn.get() != 0,
            "binding a memory window completed as something else"
        );
        let RemoteAddr { addr, .. } = self.memory()?;
        Ok(RemoteAddr { addr: addr + u64::from(offset), rkey: u32::try_from(rkey)? })
    }
}

/// Whether an opcode's answer carries an immediate at the receiver.
pub(crate) const fn receiver_flag(opcode: Opcode) -> WcFlags {
    match opcode {
        Opcode::SendWithImm | Opcode::RdmaWriteWithImm => WcFlags::WITH_IMM,
        Opcode::SendWithInv => WcFlags::WITH_INV,
        _ => WcFlags::empty(),
    }
}
