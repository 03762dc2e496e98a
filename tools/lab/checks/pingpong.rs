//! Debian's own `ibv_*_pingpong` in the guest, unmodified, against our side, each way round.

use crate::bench::{Bench, Control};
use crate::exchange::{self, Address};
use crate::guest::{Guest, Outcome, Running};
use crate::party::{Family, PATIENCE, Party, QKEY, Terms, Work, completion, expect_pattern};
use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};
use tbrdma_kit::Report;
use tbrdma_proto::{Access, Mtu, Opcode, Psn, QpType, Qpn, RemoteAddr, WcStatus};

/// Receives we keep posted, for all queue pairs together.
const RECEIVES: u32 = 32;

/// Which identifiers are receives; the rest says which queue pair, or which place in memory.
const RECEIVE: u64 = 1 << 32;

/// The bytes at the start of a datagram's receive that are its routing header.
const GRH: u32 = 40;

/// Queue pairs of `ibv_srq_pingpong`, by default.
const SHARED_QPS: usize = 16;

/// Addresses it exchanges, however many queue pairs it has.
const SHARED_ADDRESSES: usize = 256;

/// One run of one program.
#[derive(Clone, Copy, Debug)]
struct Game {
    program: &'static str,
    kind: QpType,
    family: Family,
    mtu: Mtu,
    size: u32,
    rounds: u32,
    /// The guest's program checks what it receives, and sends what it would expect.
    checked: bool,
    shared: bool,
}

impl Game {
    const fn new(
        program: &'static str,
        kind: QpType,
        family: Family,
        mtu: Mtu,
        size: u32,
        rounds: u32,
    ) -> Self {
        Self { program, kind, family, mtu, size, rounds, checked: false, shared: false }
    }

    fn command(&self, gid_index: usize) -> String {
        let Self { program, mtu, size, rounds, kind, .. } = self;
        let mtu = if kind.is_connected() { format!("-m {mtu}") } else { String::new() };
        let check = if self.checked { "-c" } else { "" };
        format!("{program} -d rxe0 -g {gid_index} -p {} {mtu} -s {size} -n {rounds} {check}", Control::PORT)
    }

    const fn qps(&self) -> usize {
        if self.shared { SHARED_QPS } else { 1 }
    }

    /// Bytes of a receive.
    const fn receive_size(&self) -> u32 {
        if matches!(self.kind, QpType::Ud) { self.size + GRH } else { self.size }
    }
}

/// All programs, both families, each way round.
pub(crate) fn run(bench: &mut Bench, report: &mut Report) {
    let mut games = Vec::new();
    for family in Family::BOTH {
        for (mtu, size, rounds) in [(Mtu::B256, 1000, 60), (Mtu::B1024, 4096, 100), (Mtu::B4096, 16_384, 50)]
        {
            let game = Game::new("ibv_rc_pingpong", QpType::Rc, family, mtu, size, rounds);
            games.push(Game { checked: true, ..game });
        }
        games.push(Game::new("ibv_uc_pingpong", QpType::Uc, family, Mtu::B1024, 4096, 100));
        let shared = Game::new("ibv_srq_pingpong", QpType::Rc, family, Mtu::B1024, 4096, 200);
        games.push(Game { shared: true, ..shared });
        games.push(Game::new("ibv_ud_pingpong", QpType::Ud, family, Mtu::B1024, 1000, 100));
    }
    for game in games {
        let Game { program, family, mtu, .. } = game;
        let family = family.name();
        let mtu = if game.checked { format!("-c {mtu} ") } else { String::new() };
        report.check(&format!("{program} {mtu}{family}, guest is client"), || guest_is_client(bench, &game));
        report.check(&format!("{program} {mtu}{family}, guest is server"), || guest_is_server(bench, &game));
    }
}

fn guest_is_client(bench: &mut Bench, game: &Game) -> Result<String> {
    let ours = bench.ours.party();
    let mut side = Side::new(ours, game)?;
    // The port is on the guest's command line.
    let listener = bench.control.listener()?;
    let port = listener.local_addr()?.port();
    let command = game
        .command(bench.verbs.gid_index(game.family)?)
        .replace(&format!("-p {}", Control::PORT), &format!("-p {port}"));
    let running = bench.guest.spawn(&format!("{command} {}", bench.control.host), PATIENCE)?;
    let addresses = side.addresses.clone();
    let stream = exchange::serve(&listener, &addresses, |theirs| side.connect(theirs));
    let played = stream.and_then(|_stream| side.play(false));
    let outcome = end(&bench.guest, game, &running, played.is_ok())?;
    judge(game, played, outcome.ok())
}

fn guest_is_server(bench: &mut Bench, game: &Game) -> Result<String> {
    let ours = bench.ours.party();
    let mut side = Side::new(ours, game)?;
    let command = game.command(bench.verbs.gid_index(game.family)?);
    let running = bench.guest.spawn(&command, PATIENCE)?;
    let played = exchange::call(bench.control.guest, &side.addresses).and_then(|(mut stream, theirs)| {
        side.connect(&theirs)?;
        exchange::done(&mut stream)?;
        side.play(true)
    });
    let outcome = end(&bench.guest, game, &running, played.is_ok())?;
    judge(game, played, outcome.ok())
}

/// What the guest's program did; if our side has given up, it need not go on either.
fn end(guest: &Guest, game: &Game, running: &Running, played: bool) -> Result<Outcome> {
    if !played {
        guest.run(&format!("killall {}", game.program), Duration::from_secs(10))?;
    }
    guest.wait(running)
}

/// Both must have been content, and the guest must have seen every round and only good bytes.
fn judge(game: &Game, ours: Result<()>, guests: Result<String>) -> Result<String> {
    let said = match (ours, guests) {
        (Ok(()), Ok(said)) => said,
        (Ok(()), Err(guests)) => return Err(guests),
        (Err(ours), Ok(said)) => bail!("{ours:#}; the guest's program was content:\n{}", said.trim_end()),
        (Err(ours), Err(guests)) => bail!("{ours:#}; {guests:#}"),
    };
    ensure!(!said.contains("invalid"), "the guest received wrong bytes:\n{said}");
    let rounds = format!("{} iters in", game.rounds);
    let line = said
        .lines()
        .find(|line| line.contains(&rounds))
        .with_context(|| format!("no {rounds:?} in\n{said}"))?;
    let time = line.split(" = ").nth(1).unwrap_or(line);
    Ok(format!("{} x {} B, {time}", game.rounds, game.size))
}

/// Our side of a game.
struct Side<'a> {
    party: &'a mut dyn Party,
    game: Game,
    qpns: Vec<Qpn>,
    addresses: Vec<Address>,
    peers: Vec<Address>,
    sent: u32,
}

impl<'a> Side<'a> {
    /// Where what we send is; before it are the receives.
    const SEND: u32 = 2 << 20;

    fn new(party: &'a mut dyn Party, game: &Game) -> Result<Self> {
        party.reset()?;
        let gid = party.gid(game.family)?;
        let mut qpns = Vec::new();
        let mut addresses = Vec::new();
        for index in 0..game.qps() {
            let qpn = party.create_qp(game.kind, Access::empty(), game.shared)?;
            qpns.push(qpn);
            addresses.push(Address { qpn, psn: Psn::masked(0xff_ffe0 + index as u32), gid });
        }
        if game.shared {
            addresses.resize(SHARED_ADDRESSES, Address { qpn: Qpn::default(), psn: Psn::default(), gid });
        }
        party.clear(Self::SEND, game.size)?;
        let mut side = Self { party, game: *game, qpns, addresses, peers: Vec::new(), sent: 0 };
        for place in 0..RECEIVES {
            side.post_receive(place)?;
        }
        Ok(side)
    }

    fn post_receive(&mut self, place: u32) -> Result<()> {
        let size = self.game.receive_size();
        let qpn = if self.game.shared { None } else { self.qpns.first().copied() };
        self.party.post_recv(qpn, RECEIVE | u64::from(place), place * size, size)
    }

    fn connect(&mut self, peers: &[Address]) -> Result<()> {
        let terms = Terms { kind: self.game.kind, ..Terms::new(self.game.family, self.game.mtu) };
        for ((qpn, own), peer) in self.qpns.iter().zip(&self.addresses).zip(peers) {
            self.party.connect(*qpn, &terms.path(peer.gid, peer.qpn, peer.psn, own.psn))?;
        }
        peers.clone_into(&mut self.peers);
        Ok(())
    }

    fn send(&mut self, index: usize) -> Result<()> {
        let (Some(&qpn), Some(&peer)) = (self.qpns.get(index), self.peers.get(index)) else {
            bail!("no queue pair {index}")
        };
        self.prepare(self.sent)?;
        self.sent += 1;
        let work = Work::new(Opcode::Send, Self::SEND, self.game.size, RemoteAddr::default());
        let to = (self.game.kind == QpType::Ud).then_some((peer.gid, peer.qpn));
        self.party.post_send(qpn, &Work { id: index as u64, to, ..work })
    }

    /// Sends and receives until both counts are full, as the guest's program does. Who serves waits to be sent to first.
    fn play(&mut self, first: bool) -> Result<()> {
        let (mut received, mut finished) = (0, 0);
        if first {
            for index in 0..self.qpns.len() {
                self.send(index)?;
            }
        }
        // Whose message a round's echo is of.
        let ahead = u32::from(first);
        let until = Instant::now() + PATIENCE;
        while received < self.game.rounds || finished < self.sent {
            // The guest's program ends when it has its rounds, and acknowledges nothing more then: a last send of ours may fail.
            let over = received >= self.game.rounds && finished + self.qpns.len() as u32 >= self.sent;
            ensure!(
                Instant::now() < until,
                "{received} of {} rounds in {} s",
                self.game.rounds,
                PATIENCE.as_secs()
            );
            let limit = if over { Duration::from_millis(300) } else { PATIENCE };
            let wc = match self.party.poll(limit)? {
                Some(wc) => wc,
                None if over => break,
                None => completion(self.party)?,
            };
            if wc.wr_id & RECEIVE == 0 {
                finished += 1;
                ensure!(wc.status == WcStatus::Success || over, "a send ended with {:?}", wc.status);
                continue;
            }
            ensure!(
                wc.status == WcStatus::Success,
                "a receive ended with {:?} in round {received}",
                wc.status
            );
            let place = (wc.wr_id & !RECEIVE) as u32;
            self.inspect(place, wc.byte_len, received + ahead)
                .with_context(|| format!("round {received}"))?;
            received += 1;
            self.post_receive(place)?;
            let index =
                self.qpns.iter().position(|qpn| *qpn == wc.qp_num).context("a receive of no queue pair")?;
            if self.sent < self.game.rounds {
                self.send(index)?;
            }
        }
        Ok(())
    }

    /// The programs send from the buffer they receive to. So what comes is what we sent before, or what they began with: the byte 0x7b,
    /// and with `-c` a zero at the start of each page. With many queue pairs on one buffer it can be
    /// any of these, and zero, for the shared-receive program begins with zeros: only the length counts.
    fn inspect(&mut self, place: u32, byte_len: u32, round: u32) -> Result<()> {
        let (size, header) = (self.game.size, self.game.receive_size() - self.game.size);
        ensure!(byte_len == size + header, "{byte_len} bytes received instead of {}", size + header);
        let start = place * self.game.receive_size() + header;
        if self.game.shared {
            return Ok(());
        }
        if round > 0 {
            return self.each_page(start, |party, at, length| {
                expect_pattern(party, "the echo", at, length, round - 1)
            });
        }
        self.each_page(start, |party, at, _| {
            let word = party.load(at)?;
            ensure!(word == u64::from_ne_bytes([0x7b; 8]), "the first message has {word:#x}");
            Ok(())
        })
    }

    /// Writes the message of a round.
    fn prepare(&mut self, round: u32) -> Result<()> {
        self.each_page(Self::SEND, |party, at, length| party.fill(at, length, round))
    }

    /// Does something with each page of a message that begins there, without the first byte, which `-c` wants to be zero.
    fn each_page(
        &mut self,
        start: u32,
        mut with: impl FnMut(&mut dyn Party, u32, u32) -> Result<()>,
    ) -> Result<()> {
        for page in (0..self.game.size).step_by(4096) {
            let length = (self.game.size - page).min(4096);
            with(self.party, start + page + 1, length - 1)?;
        }
        Ok(())
    }
}

// The programs' own Q_Key.
const _: () = assert!(QKEY == 0x1111_1111);
