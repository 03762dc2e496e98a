//! One end of a connection that does what it is told in lines: here directly, or in a child process by its parent.
//!
//! ```text
//! open rc|uc|ud [events]            -> card          a context and a queue pair, memory of MEMORY bytes
//! connect CARD                      -> ok            CARD is what the other end's `open` (or `card`) said
//! fill SEED OFFSET LEN              -> ok            message SEED into our memory
//! check SEED OFFSET LEN             -> ok            is message SEED there?
//! recv ID OFFSET LEN                -> ok            posts a receive
//! post OP ID OFFSET LEN [REMOTE [A [B]]] -> ok       posts a send work request
//! times COUNT post ...              -> ok            posts and waits, COUNT times
//! window 1|2 OFFSET LEN             -> ADDR LEN KEY  a window of that type, bound to a part of our memory
//! aim ADDR LEN KEY                  -> ok            remote offsets are in this from now on
//! wait                              -> ID STATUS OPCODE BYTES IMM
//! sleep                             -> the same, waited for at the completion channel
//! event MS                          -> KIND          the next asynchronous event
//! ```
#![allow(dead_code, reason = "each test file uses its own part")]

use super::foreign::{Held, Kind};
use super::pattern::{differs, pattern};
use super::process::{Child, PATIENCE, device, hear, say};
use std::time::{Duration, Instant};
use tbrdma::{
    Access, AddressHandle, CompletionChannel, CompletionQueue, Connection, Context, MemoryRegion,
    MemoryWindow, MwType, ProtectionDomain, QpAddress, QpInit, QpType, Qpn, QueuePair, RemoteRegion,
    WorkCompletion,
};

#[path = "patient.rs"]
mod patient;
#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use patient::patient;

/// Bytes of an end's memory.
pub(crate) const MEMORY: usize = 2 << 20;
/// Q_Key of all datagram queue pairs here.
pub(crate) const QKEY: u32 = 0x1234;

/// Every right there is.
pub(crate) fn all_access() -> Access {
    Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC | Access::MW_BIND
}

/// Somebody who does what a line says.
pub(crate) trait Obey {
    fn run(&mut self, line: &str) -> String;

    /// Runs a line that has nothing to say.
    fn ok(&mut self, line: &str) {
        let answer = self.run(line);
        assert_eq!(answer, "ok", "{line}");
    }
}

impl Obey for Child {
    fn run(&mut self, line: &str) -> String {
        self.ask(line)
    }
}

/// One end.
pub(crate) struct End {
    pub(crate) qp: QueuePair,
    pub(crate) mr: MemoryRegion,
    pub(crate) cq: CompletionQueue,
    pub(crate) channel: Option<CompletionChannel>,
    pub(crate) pd: ProtectionDomain,
    pub(crate) ctx: Context,
    pub(crate) remote: RemoteRegion,
    pub(crate) to: Option<(AddressHandle, Qpn)>,
    /// How it connects.
    pub(crate) with: Connection,
    windows: Vec<MemoryWindow>,
}

impl End {
    pub(crate) fn new(qp_type: QpType, events: bool) -> Self {
        let ctx = tbrdma::open(device()).unwrap();
        let pd = ctx.alloc_pd().unwrap();
        let channel = events.then(|| ctx.create_comp_channel().unwrap());
        let cq = channel
            .as_ref()
            .map_or_else(|| ctx.create_cq(1024), |channel| ctx.create_cq_on(1024, channel))
            .unwrap();
        let mr = pd.alloc(MEMORY, all_access()).unwrap();
        let qp = pd.create_qp(QpInit::new(qp_type, &cq)).unwrap();
        Self {
            qp,
            mr,
            cq,
            channel,
            pd,
            ctx,
            remote: RemoteRegion::default(),
            to: None,
            with: patient(),
            windows: Vec::new(),
        }
    }

    /// What the other end must know.
    pub(crate) fn card(&self) -> String {
        card(&self.qp.address(), &self.mr.remote())
    }

    /// What the other end must know of a window bound to a part of our memory.
    fn window(&mut self, mw_type: MwType, offset: usize, len: usize) -> String {
        let mw = self.pd.alloc_mw(mw_type).unwrap();
        let access = all_access() - Access::LOCAL_WRITE - Access::MW_BIND;
        let bind = mw.bind_to(&self.mr, offset..offset + len, access);
        self.qp.post(|wr| drop(wr.bind_mw(&bind))).unwrap();
        let wc = self.wait_for(PATIENCE).unwrap();
        self.windows.push(mw);
        wc.ok().map_or_else(
            |error| error.to_string(),
            |_| format!("{:x} {:x} {:x}", bind.addr, bind.length, bind.rkey),
        )
    }

    pub(crate) fn connect(&mut self, card: &str) -> tbrdma::Result<()> {
        let mut words = card.split(' ');
        let address: QpAddress = words.next().unwrap().parse().unwrap();
        self.remote = region(words);
        if self.qp.qp_type() != QpType::Ud {
            return self.qp.connect_with(&address, &self.with);
        }
        if self.to.is_none() {
            self.qp.activate_ud(QKEY)?;
        }
        self.to = Some((self.pd.create_ah_to(&address)?, address.qpn));
        Ok(())
    }

    /// The next completion, if one comes in time.
    pub(crate) fn wait_for(&self, patience: Duration) -> Option<WorkCompletion> {
        let begun = Instant::now();
        let mut wcs = [WorkCompletion::default()];
        while self.cq.poll(&mut wcs).is_empty() {
            if begun.elapsed() > patience {
                return None;
            }
        }
        Some(wcs[0])
    }

    fn sleep(&self, patience: Duration) -> Option<WorkCompletion> {
        let channel = self.channel.as_ref().unwrap();
        let mut wcs = [WorkCompletion::default()];
        loop {
            self.cq.req_notify(false).unwrap();
            if !self.cq.poll(&mut wcs).is_empty() {
                return Some(wcs[0]);
            }
            channel.wait(Some(patience)).unwrap()?;
        }
    }

    fn post(&mut self, op: &str, id: u64, numbers: &[u64]) -> Result<(), tbrdma::PostError> {
        let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
        let (offset, len) = (number(0) as usize, number(1) as usize);
        let slice = self.mr.slice(offset..offset + len);
        let remote = self.remote.at(number(2));
        let mut inline = vec![0; if op.ends_with("inline") { len } else { 0 }];
        self.mr.read(offset, &mut inline);
        let to = self.to.as_ref();
        self.qp.post(|wr| {
            let wr = match op {
                "send" => wr.send(slice),
                "send-inline" => wr.send_inline(&inline),
                "send-inv" => wr.send_with_inv(slice, self.remote.rkey),
                "send-imm" => wr.send_with_imm(slice, number(3) as u32),
                "write" => wr.write(slice, remote),
                "write-inline" => wr.write_inline(&inline, remote),
                "write-imm" => wr.write_with_imm(slice, remote, number(3) as u32),
                "read" => wr.read(slice, remote),
                "faa" => wr.fetch_and_add(slice, remote, number(3)),
                "cas" => wr.compare_and_swap(slice, remote, number(3), number(4)),
                other => panic!("no operation {other}"),
            };
            let wr = wr.id(id);
            if let Some((ah, qpn)) = to {
                wr.to(ah, *qpn, QKEY);
            }
        })
    }

    fn obey(&mut self, words: &[&str]) -> String {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let said = |result: Result<(), String>| {
            result.map_or_else(|error| format!("error: {error}"), |()| "ok".to_owned())
        };
        match words[0] {
            "card" => self.card(),
            "connect" => said(self.connect(&words[1..].join(" ")).map_err(|error| error.to_string())),
            "window" => {
                let mw_type = MwType::from_raw(number(1) as u32).unwrap();
                self.window(mw_type, number(2) as usize, number(3) as usize)
            }
            "aim" => {
                self.remote = region(words[1..].iter().copied());
                "ok".to_owned()
            }
            "fill" => {
                self.mr.write(number(2) as usize, &pattern(number(1), number(3) as usize));
                "ok".to_owned()
            }
            "check" => {
                let mut bytes = vec![0; number(3) as usize];
                assert_eq!(self.mr.read(number(2) as usize, &mut bytes), bytes.len());
                differs(number(1), &bytes)
                    .map_or_else(|| "ok".to_owned(), |at| format!("differs at {at} of {}", bytes.len()))
            }
            "all" => {
                // all VALUE OFFSET LEN: is every byte VALUE?
                let mut bytes = vec![0; number(3) as usize];
                assert_eq!(self.mr.read(number(2) as usize, &mut bytes), bytes.len());
                let differs = bytes.iter().position(|byte| u64::from(*byte) != number(1));
                differs.map_or_else(|| "ok".to_owned(), |at| format!("{:#x} at {at}", bytes[at]))
            }
            "store" => {
                assert!(self.mr.store_u64(number(1) as usize, number(2)));
                "ok".to_owned()
            }
            "load" => self.mr.load_u64(number(1) as usize).to_string(),
            "recv" => {
                let slice = self.mr.slice(number(2) as usize..(number(2) + number(3)) as usize);
                said(
                    self.qp
                        .post_recv(|rq| drop(rq.recv(slice).id(number(1))))
                        .map_err(|error| error.to_string()),
                )
            }
            "post" => {
                let numbers: Vec<u64> = words[3..].iter().map(|word| word.parse().unwrap()).collect();
                said(self.post(words[1], number(2), &numbers).map_err(|error| error.to_string()))
            }
            "times" => {
                for _ in 0..number(1) {
                    let posted = self.obey(&words[2..]);
                    let ended = self.wait_for(PATIENCE);
                    if posted != "ok" || ended.is_none_or(|wc| wc.ok().is_err()) {
                        return format!("{posted} {ended:?}");
                    }
                }
                "ok".to_owned()
            }
            "wait" => self.wait_for(PATIENCE).map_or_else(|| "nothing".to_owned(), |wc| show(&wc)),
            // Until a message wakes it, or for so many milliseconds.
            "sleep" => self
                .sleep(words.get(1).map_or(PATIENCE, |_| Duration::from_millis(number(1))))
                .map_or_else(|| "nothing".to_owned(), |wc| show(&wc)),
            "idle" => {
                // Nothing comes for a while.
                self.wait_for(Duration::from_millis(number(1)))
                    .map_or_else(|| "ok".to_owned(), |wc| show(&wc))
            }
            "event" => {
                let event = self.ctx.async_events().next(Some(Duration::from_millis(number(1)))).unwrap();
                event.map_or_else(|| "nothing".to_owned(), |event| format!("{:?}", event.kind))
            }
            "state" => format!("{:?}", self.qp.state()),
            "path" => format!("{:?}", self.mr.path()),
            "length" => self.mr.len().to_string(),
            other => panic!("no command {other}"),
        }
    }
}

/// A region in the words of a card.
fn region<'a>(mut words: impl Iterator<Item = &'a str>) -> RemoteRegion {
    let mut hex = || u64::from_str_radix(words.next().unwrap(), 16).unwrap();
    RemoteRegion { addr: hex(), length: hex(), rkey: hex() as u32 }
}

/// What the other end of a connection must know, in a line.
pub(crate) fn card(address: &QpAddress, remote: &RemoteRegion) -> String {
    format!("{address} {:x} {:x} {:x}", remote.addr, remote.length, remote.rkey)
}

/// A completion in a line.
pub(crate) fn show(wc: &WorkCompletion) -> String {
    format!("{} {:?} {:?} {} {}", wc.wr_id, wc.status, wc.opcode, wc.byte_len, wc.imm_data)
}

/// An end and the application memory its region may lie in.
#[derive(Default)]
pub(crate) struct Puppet {
    pub(crate) end: Option<End>,
    pub(crate) held: Option<Held>,
}

impl Puppet {
    fn open(&mut self, words: &[&str]) -> String {
        let qp_type = match words[1] {
            "rc" => QpType::Rc,
            "uc" => QpType::Uc,
            _ => QpType::Ud,
        };
        let end = self.end.insert(End::new(qp_type, words.contains(&"events")));
        end.card()
    }
}

impl Obey for Puppet {
    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        match (words[0], &mut self.end) {
            ("open", _) => self.open(&words),
            // Our region becomes one of application memory of this kind, adopted if it says so.
            ("memory", Some(end)) => match Held::new(Kind::parse(words[1])) {
                Err(reason) => format!("skip {reason}"),
                Ok(held) => match if words.contains(&"adopt") {
                    held.register_adopted(&end.pd)
                } else {
                    held.register(&end.pd)
                } {
                    Ok(region) => {
                        end.mr = region;
                        self.held = Some(held);
                        end.card()
                    }
                    Err(error) => format!("error: {error}"),
                },
            },
            // return SEED OFFSET LEN: the region goes; is message SEED still in the memory?
            ("return", Some(end)) => {
                let number = |at: usize| words[at].parse::<u64>().unwrap();
                end.mr = end.pd.alloc(MEMORY, all_access()).unwrap();
                let held = self.held.as_ref().unwrap();
                let from = held.begin() + number(2) as usize;
                differs(number(1), &held.bytes()[from..from + number(3) as usize])
                    .map_or_else(|| "ok".to_owned(), |at| format!("differs at {at}"))
            }
            ("canaries", _) => self.held.as_ref().unwrap().canaries(),
            ("unmap", _) => self.held.as_mut().unwrap().unmap(),
            ("close", _) => {
                self.end = None;
                self.held = None;
                "ok".to_owned()
            }
            // From now on this thread may not reach into other processes.
            ("lock", _) => super::seccomp::forbid_foreign_memory()
                .map_or_else(|error| error.to_string(), |()| "ok".to_owned()),
            // From now on this thread may do nothing but read commands and answer them.
            ("confine", _) => super::seccomp::allow_only(&[
                nix::libc::SYS_read,
                nix::libc::SYS_write,
                nix::libc::SYS_exit_group,
            ])
            .map_or_else(|error| error.to_string(), |()| "ok".to_owned()),
            ("pid", _) => std::process::id().to_string(),
            (_, Some(end)) => end.obey(&words),
            _ => "error: nothing is open".to_owned(),
        }
    }
}

/// Child: obeys until told to exit, or the parent is gone.
pub(crate) fn play() {
    let mut puppet = Puppet::default();
    loop {
        let line = hear();
        if line == "exit" {
            return;
        }
        say(puppet.run(&line));
    }
}

/// A connected pair: an end here and one in a child of role `puppet`.
pub(crate) fn pair(open: &str) -> (Puppet, Child) {
    let mut here = Puppet::default();
    let mut there = Child::start("puppet");
    meet(&mut here, &mut there, open);
    (here, there)
}

/// Opens and connects two ends.
pub(crate) fn meet(a: &mut dyn Obey, b: &mut dyn Obey, open: &str) {
    let (a_card, b_card) = (a.run(open), b.run(open));
    a.ok(&format!("connect {b_card}"));
    b.ok(&format!("connect {a_card}"));
}
