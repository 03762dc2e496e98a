//! What happened in a simulation: for the oracle, for people, and as one number.

use core::fmt;
use std::collections::VecDeque;

use crate::event::AsyncEventKind;
use crate::fault::Fate;
use crate::ident::Qpn;
use crate::qp::QpState;
use crate::time::Time;
use crate::transport::{AtomicOp, Half};
use crate::wire::Headers;
use crate::work::{Opcode, WorkCompletion};

/// One thing that happened at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A queue pair sent a packet, and the link decided what becomes of it.
    Sent {
        /// By whom.
        qpn: Qpn,
        /// To which node.
        to: usize,
        /// Its headers.
        headers: Headers,
        /// Payload bytes.
        len: usize,
        /// What becomes of it.
        fate: Fate,
    },
    /// A packet came for a queue pair that there is, unharmed.
    Arrived {
        /// For whom.
        qpn: Qpn,
        /// From which node.
        from: usize,
        /// Its headers.
        headers: Headers,
        /// Payload bytes.
        len: usize,
    },
    /// A packet came that nobody got.
    Discarded {
        /// From which node.
        from: usize,
        /// Why.
        why: Discard,
    },
    /// Bytes were written on behalf of a queue pair.
    Placed {
        /// On whose behalf.
        qpn: Qpn,
        /// Key of the region.
        key: u32,
        /// First address.
        addr: u64,
        /// Bytes.
        len: u32,
    },
    /// An atomic was carried out.
    Atomic {
        /// On whose behalf.
        qpn: Qpn,
        /// Key of the region.
        key: u32,
        /// Address.
        addr: u64,
        /// What was done.
        op: AtomicOp,
        /// The value before.
        old: u64,
    },
    /// A work request completed.
    Completed {
        /// Which half.
        half: Half,
        /// Whether it wakes those who wait for solicited completions.
        solicited: bool,
        /// How.
        wc: WorkCompletion,
    },
    /// An event was raised.
    Event {
        /// About whom.
        qpn: Qpn,
        /// What.
        kind: AsyncEventKind,
    },
    /// A send was posted.
    PostedSend {
        /// Where.
        qpn: Qpn,
        /// Its number.
        wr_id: u64,
        /// What.
        opcode: Opcode,
        /// Bytes.
        len: u64,
    },
    /// A receive was posted; without a queue pair to a shared queue.
    PostedReceive {
        /// Where.
        qpn: Option<Qpn>,
        /// Its number.
        wr_id: u64,
        /// Bytes.
        len: u64,
    },
    /// A queue pair was brought to a state by its owner.
    Modified {
        /// Which.
        qpn: Qpn,
        /// To where.
        state: QpState,
    },
    /// The node lost everything and started anew.
    Restarted,
}

/// Why a packet that arrived was thrown away before any queue pair saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discard {
    /// Its iCRC is wrong.
    BadIcrc,
    /// Its bytes make no packet.
    Malformed,
    /// No queue pair has that number.
    NoQueuePair,
    /// It comes from another node than the peer of the connection.
    Stranger,
}

/// The last things that happened, and a number made of all of them.
#[derive(Debug)]
pub struct Trace {
    last: VecDeque<(Time, usize, Happening)>,
    keep: usize,
    hash: u64,
    count: u64,
    /// Called with each line as it happens, to print it.
    pub echo: Option<fn(&dyn fmt::Display)>,
}

impl Trace {
    /// Keeps the last `keep` happenings.
    pub fn new(keep: usize) -> Self {
        Self { last: VecDeque::with_capacity(keep), keep, hash: 0xcbf2_9ce4_8422_2325, count: 0, echo: None }
    }

    /// Adds one, that happened at `node`.
    pub fn push(&mut self, now: Time, node: usize, happening: Happening) {
        self.count += 1;
        self.mix(now.0 ^ (node as u64) << 56);
        self.mix_in(&happening);
        if let Some(echo) = self.echo {
            echo(&Line(now, node, &happening));
        }
        if self.last.len() >= self.keep {
            self.last.pop_front();
        }
        self.last.push_back((now, node, happening));
    }

    /// A number made of everything that happened, in order: equal for equal runs.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many things happened.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Folds a number in.
    pub const fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn mix_in(&mut self, happening: &Happening) {
        match happening {
            Happening::Sent { qpn, to, headers, len, fate } => {
                self.mix(1 | (qpn.get() as u64) << 8 | (*to as u64) << 32 | (*len as u64) << 40);
                self.mix(header_word(headers));
                match fate {
                    Fate::Dropped(cause) => self.mix(*cause as u64),
                    Fate::Delivered { first, second } => {
                        for delivery in core::iter::once(first).chain(second) {
                            self.mix(delivery.at.0);
                            self.mix(delivery.flip.map_or(0, |bit| bit as u64 + 1));
                        }
                    }
                }
            }
            Happening::Arrived { qpn, from, headers, len } => {
                self.mix(2 | (qpn.get() as u64) << 8 | (*from as u64) << 32 | (*len as u64) << 40);
                self.mix(header_word(headers));
            }
            Happening::Discarded { from, why } => self.mix(3 | (*from as u64) << 8 | (*why as u64) << 32),
            Happening::Placed { qpn, key, addr, len } => {
                self.mix(4 | (qpn.get() as u64) << 8 | (*len as u64) << 32);
                self.mix(*addr ^ (*key as u64) << 24);
            }
            Happening::Atomic { qpn, key, addr, old, .. } => {
                self.mix(5 | (qpn.get() as u64) << 8);
                self.mix(*addr ^ (*key as u64) << 24);
                self.mix(*old);
            }
            Happening::Completed { half, solicited, wc } => {
                self.mix(6 | (*half as u64) << 8 | (*solicited as u64) << 9 | (wc.qp_num.get() as u64) << 16);
                self.mix(wc.wr_id);
                self.mix(wc.status.raw() as u64 | (wc.byte_len as u64) << 8 | (wc.imm_data as u64) << 32);
            }
            Happening::Event { qpn, kind } => {
                self.mix(7 | (qpn.get() as u64) << 8 | (kind.raw() as u64) << 32)
            }
            Happening::PostedSend { qpn, wr_id, opcode, len } => {
                self.mix(8 | (qpn.get() as u64) << 8 | (opcode.raw() as u64) << 32);
                self.mix(*wr_id ^ len.rotate_left(32));
            }
            Happening::PostedReceive { qpn, wr_id, len } => {
                self.mix(9 | (qpn.map_or(0, |qpn| qpn.get() as u64)) << 8);
                self.mix(*wr_id ^ len.rotate_left(32));
            }
            Happening::Modified { qpn, state } => {
                self.mix(10 | (qpn.get() as u64) << 8 | (state.raw() as u64) << 32);
            }
            Happening::Restarted => self.mix(11),
        }
    }
}

/// What tells packets of a connection apart.
fn header_word(headers: &Headers) -> u64 {
    let bth = &headers.bth;
    let extra = headers.reth.map_or(0, |reth| reth.addr.rotate_left(7) ^ reth.length as u64)
        ^ headers.aeth.map_or(0, |aeth| (aeth.msn as u64) << 20)
        ^ headers.imm.map_or(0, u64::from);
    (bth.opcode.raw() as u64 | (bth.psn.get() as u64) << 8 | (bth.ack_req as u64) << 32)
        ^ extra.rotate_left(33)
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.count - self.last.len() as u64;
        if missing > 0 {
            writeln!(f, "... {missing} before")?;
        }
        for (now, node, happening) in &self.last {
            writeln!(f, "{}", Line(*now, *node, happening))?;
        }
        Ok(())
    }
}

/// One line of a trace.
struct Line<'a>(Time, usize, &'a Happening);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(now, node, happening) = self;
        write!(f, "{now} n{node} ")?;
        match happening {
            Happening::Sent { qpn, to, headers, len, fate } => {
                write!(f, "{qpn} > n{to} {headers}")?;
                if *len > 0 {
                    write!(f, " [{len}]")?;
                }
                match fate {
                    Fate::Dropped(cause) => write!(f, "  ** lost ({cause:?})"),
                    Fate::Delivered { first, second } => {
                        if first.flip.is_some() {
                            f.write_str("  ** damaged")?;
                        }
                        if let Some(second) = second {
                            write!(f, "  ** twice, again at {}", second.at)?;
                        }
                        Ok(())
                    }
                }
            }
            Happening::Arrived { qpn, from, headers, len } => {
                write!(f, "{qpn} < n{from} {headers}")?;
                if *len > 0 { write!(f, " [{len}]") } else { Ok(()) }
            }
            Happening::Discarded { from, why } => write!(f, "        < n{from} discarded: {why:?}"),
            Happening::Placed { qpn, key, addr, len } => {
                write!(f, "{qpn}   place {len} at {addr:#x} key {key:#010x}")
            }
            Happening::Atomic { qpn, addr, op, old, .. } => {
                write!(f, "{qpn}   atomic at {addr:#x} {op:x?} was {old:#x}")
            }
            Happening::Completed { half, solicited, wc } => {
                let solicited = if *solicited { " solicited" } else { "" };
                write!(
                    f,
                    "{}   {half:?} wr {} {:?} {:?} {} bytes{solicited}",
                    wc.qp_num, wc.wr_id, wc.opcode, wc.status, wc.byte_len
                )
            }
            Happening::Event { qpn, kind } => write!(f, "{qpn}   event {kind:?}"),
            Happening::PostedSend { qpn, wr_id, opcode, len } => {
                write!(f, "{qpn}   post wr {wr_id} {opcode:?} {len} bytes")
            }
            Happening::PostedReceive { qpn: Some(qpn), wr_id, len } => {
                write!(f, "{qpn}   post receive {wr_id} {len} bytes")
            }
            Happening::PostedReceive { qpn: None, wr_id, len } => {
                write!(f, "shared     post receive {wr_id} {len} bytes")
            }
            Happening::Modified { qpn, state } => write!(f, "{qpn}   to {state}"),
            Happening::Restarted => f.write_str("restarted"),
        }
    }
}
