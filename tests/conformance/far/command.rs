//! What may be asked of the far party, and its answers: one JSON object a line, each way.

use serde::{Deserialize, Serialize};
use std::num::ParseIntError;
use tbrdma::{
    Access, Connection, QpInit, Qpn, RemoteAddr, RemoteRegion, WcFlags, WcOpcode, WcStatus, WorkCompletion,
};

/// What the queue pairs of a case are made like, where it matters.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Shape {
    pub(crate) max_send_wr: Option<u32>,
    pub(crate) max_recv_wr: Option<u32>,
    pub(crate) max_sge: Option<u32>,
    pub(crate) max_inline_data: Option<u32>,
    pub(crate) sq_sig_all: bool,
}

impl Shape {
    /// A queue pair made so.
    pub(crate) fn of<'a>(&self, mut init: QpInit<'a>) -> QpInit<'a> {
        if let Some(count) = self.max_send_wr {
            init = init.max_send_wr(count);
        }
        if let Some(count) = self.max_recv_wr {
            init = init.max_recv_wr(count);
        }
        if let Some(count) = self.max_sge {
            init = init.max_send_sge(count).max_recv_sge(count);
        }
        if let Some(bytes) = self.max_inline_data {
            init = init.max_inline_data(bytes);
        }
        init.sq_sig_all(self.sq_sig_all)
    }
}

/// The attributes of a connection that cases change. The path MTU is the smaller of the two ports'.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct With {
    access: u32,
    max_rd_atomic: u8,
    max_dest_rd_atomic: u8,
    min_rnr_timer: u8,
    timeout: u8,
    retry_cnt: u8,
    rnr_retry: u8,
    path_mtu: u32,
}

impl From<&Connection> for With {
    fn from(with: &Connection) -> Self {
        Self {
            access: with.access.bits(),
            max_rd_atomic: with.max_rd_atomic,
            max_dest_rd_atomic: with.max_dest_rd_atomic,
            min_rnr_timer: with.min_rnr_timer,
            timeout: with.timeout,
            retry_cnt: with.retry_cnt,
            rnr_retry: with.rnr_retry,
            path_mtu: with.path_mtu.raw(),
        }
    }
}

impl With {
    /// The connection with these.
    pub(crate) fn connection(&self) -> Option<Connection> {
        let mut with = crate::common::patient();
        with.access = Access::from_bits_retain(self.access);
        with.max_rd_atomic = self.max_rd_atomic;
        with.max_dest_rd_atomic = self.max_dest_rd_atomic;
        with.min_rnr_timer = self.min_rnr_timer;
        with.timeout = self.timeout;
        with.retry_cnt = self.retry_cnt;
        with.rnr_retry = self.rnr_retry;
        with.path_mtu = tbrdma::Mtu::from_raw(self.path_mtu)?;
        Some(with)
    }
}

/// Where a message goes that the far party sends to our memory.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Remote {
    addr: u64,
    rkey: u32,
}

impl From<RemoteAddr> for Remote {
    fn from(remote: RemoteAddr) -> Self {
        Self { addr: remote.addr, rkey: remote.rkey }
    }
}

impl From<Remote> for RemoteAddr {
    fn from(remote: Remote) -> Self {
        Self { addr: remote.addr, rkey: remote.rkey }
    }
}

/// An operation that the far party posts, signaled, on a part of its memory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    Send,
    SendWithImm { imm_data: u32 },
    Write { remote: Remote },
    Read { remote: Remote },
    FetchAndAdd { remote: Remote, add: u64 },
}

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Command {
    /// A context, a domain, a completion queue, memory and a queue pair: [`Answer::Opened`]. Comes first.
    Open { qp_type: u32, shape: Shape },
    /// Connects the queue pair.
    Connect { peer: String, with: With },
    /// Brings a datagram queue pair to RTS.
    ActivateUd { qkey: u32 },
    /// A receive into these parts of the memory.
    PostRecv { id: u64, list: Vec<(usize, usize)> },
    /// A work request on a part of the memory.
    Post { id: u64, at: usize, len: usize, operation: Operation },
    /// The next completion, waited for: [`Answer::Completion`].
    Next,
    /// Whether anything completes, or happens, within a short while: [`Answer::Said`] what did.
    Nothing,
    /// Bytes of the memory: [`Answer::Bytes`].
    Read { region: Option<usize>, at: usize, len: usize },
    /// Puts bytes there.
    Write { region: Option<usize>, at: usize, bytes: Bytes },
    /// The same byte everywhere.
    Fill { at: usize, len: usize, byte: u8 },
    /// Another region, of the same domain or one of its own: [`Answer::Region`].
    Register { len: usize, access: u32, own_domain: bool },
    /// Takes that region back.
    Deregister { region: usize },
    /// The state of the queue pair: [`Answer::State`].
    State,
    /// To ERR.
    ToError,
    /// To RESET.
    Reset,
    /// Destroys the queue pair.
    Destroy,
    /// The next asynchronous event of the queue pair, waited for: [`Answer::Said`] its kind.
    Event,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    Opened {
        address: String,
        path_mtu: u32,
        memory: Region,
    },
    Region {
        number: usize,
        region: Region,
    },
    Completion(Completion),
    Bytes(Bytes),
    State(u32),
    Said(String),
    /// What could not be done, and why.
    Failed(String),
}

/// A region, as its peers name it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Region {
    addr: u64,
    length: u64,
    rkey: u32,
}

impl From<RemoteRegion> for Region {
    fn from(region: RemoteRegion) -> Self {
        Self { addr: region.addr, length: region.length, rkey: region.rkey }
    }
}

impl From<Region> for RemoteRegion {
    fn from(region: Region) -> Self {
        Self { addr: region.addr, length: region.length, rkey: region.rkey }
    }
}

/// A completion: of it, what both ends of a connection know.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Completion {
    wr_id: u64,
    status: u32,
    opcode: u32,
    byte_len: u32,
    imm_data: u32,
    qp_num: u32,
    src_qp: u32,
    wc_flags: u32,
}

impl From<&WorkCompletion> for Completion {
    fn from(wc: &WorkCompletion) -> Self {
        Self {
            wr_id: wc.wr_id,
            status: wc.status.raw(),
            opcode: wc.opcode.raw(),
            byte_len: wc.byte_len,
            imm_data: wc.imm_data,
            qp_num: wc.qp_num.get(),
            src_qp: wc.src_qp.get(),
            wc_flags: wc.wc_flags.bits(),
        }
    }
}

impl From<Completion> for WorkCompletion {
    fn from(wc: Completion) -> Self {
        Self {
            wr_id: wc.wr_id,
            status: WcStatus::from_raw(wc.status).unwrap(),
            opcode: WcOpcode::from_raw(wc.opcode).unwrap(),
            byte_len: wc.byte_len,
            imm_data: wc.imm_data,
            qp_num: Qpn::masked(wc.qp_num),
            src_qp: Qpn::masked(wc.src_qp),
            wc_flags: WcFlags::from_bits_retain(wc.wc_flags),
            ..Self::default()
        }
    }
}

/// Bytes, which travel as hexadecimal digits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Bytes {
    type Error = ParseIntError;

    fn try_from(text: String) -> Result<Self, ParseIntError> {
        // Of a pair that is not text, nothing is left to read, which is an error as well.
        let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
        Ok(Self(digits.map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<_, _>>()?))
    }
}
