//! Requests that must fail, each way round: with the status the specification says, because of the answer it says, and without effect.

use super::operations::{Asker, RESULT, SOURCE, TARGET};
use crate::bench::Bench;
use crate::party::{
    Family, MEMORY, PATIENCE, Terms, Work, completion, expect_pattern, expect_state, failure, success,
};
use anyhow::{Result, bail, ensure};
use std::thread;
use std::time::{Duration, Instant};
use tbrdma_kit::Report;
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::{Access, AsyncEventKind, Mtu, Opcode, QpState, RemoteAddr, WcStatus, rnr_timer};

/// The code of the time to wait after a receiver-not-ready NAK in these checks: 40.96 ms.
const RNR_CODE: u8 = 24;

/// What is wrong with where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Key,
    BeforeStart,
    /// By one byte.
    PastEnd,
    Alignment,
}

impl Wrong {
    /// The place of 8 bytes, made wrong.
    fn apply(self, RemoteAddr { addr, rkey }: RemoteAddr) -> RemoteAddr {
        match self {
            Self::Nothing => RemoteAddr { addr: addr + u64::from(TARGET), rkey },
            Self::Key => RemoteAddr { addr: addr + u64::from(TARGET), rkey: rkey ^ 0x55 },
            Self::BeforeStart => RemoteAddr { addr: addr - 4, rkey },
            Self::PastEnd => RemoteAddr { addr: addr + u64::from(MEMORY) - 7, rkey },
            Self::Alignment => RemoteAddr { addr: addr + u64::from(TARGET) + 4, rkey },
        }
    }
}

/// A request that the responder must refuse.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    what: &'static str,
    opcode: Opcode,
    wrong: Wrong,
    /// What the responder's queue pair grants.
    access: Access,
    nak: NakCode,
}

const ALL: Access = Access::REMOTE_WRITE.union(Access::REMOTE_READ).union(Access::REMOTE_ATOMIC);

const fn access_error(what: &'static str, opcode: Opcode, wrong: Wrong) -> Refusal {
    Refusal { what, opcode, wrong, access: ALL, nak: NakCode::RemoteAccessError }
}

const fn invalid(what: &'static str, opcode: Opcode, wrong: Wrong, access: Access) -> Refusal {
    Refusal { what, opcode, wrong, access, nak: NakCode::InvalidRequest }
}

impl Refusal {
    const ALL: [Self; 8] = [
        access_error("WRITE with a wrong rkey", Opcode::RdmaWrite, Wrong::Key),
        access_error("READ with a wrong rkey", Opcode::RdmaRead, Wrong::Key),
        access_error("FETCH_ADD with a wrong rkey", Opcode::AtomicFetchAndAdd, Wrong::Key),
        access_error("WRITE that begins before the region", Opcode::RdmaWrite, Wrong::BeforeStart),
        access_error("READ past the end of the region", Opcode::RdmaRead, Wrong::PastEnd),
        invalid("CMP_SWP not aligned to 8 bytes", Opcode::AtomicCmpAndSwp, Wrong::Alignment, ALL),
        invalid(
            "WRITE to a queue pair that forbids it",
            Opcode::RdmaWrite,
            Wrong::Nothing,
            Access::REMOTE_READ,
        ),
        invalid(
            "READ from a queue pair that forbids it",
            Opcode::RdmaRead,
            Wrong::Nothing,
            Access::REMOTE_WRITE,
        ),
    ];

    /// How the request ends, and the event at the responder.
    const fn end(&self) -> (WcStatus, AsyncEventKind) {
        match self.nak {
            NakCode::RemoteAccessError => (WcStatus::RemAccessErr, AsyncEventKind::QpAccessErr),
            _ => (WcStatus::RemInvReqErr, AsyncEventKind::QpReqErr),
        }
    }
}

pub(crate) fn run(bench: &mut Bench, report: &mut Report) {
    for asker in Asker::BOTH {
        let name = |what: &str| format!("{what}, {}", asker.name());
        for refusal in Refusal::ALL {
            // librxe itself refuses to post such an atomic.
            if asker == Asker::Guest && refusal.wrong == Wrong::Alignment {
                continue;
            }
            report.check(&name(refusal.what), || refused(bench, asker, &refusal));
        }
        report.check(&name("SEND longer than its receive"), || too_long(bench, asker));
        report.check(&name("receiver not ready, then ready"), || not_ready_then_ready(bench, asker));
        report.check(&name("receiver not ready, until retries run out"), || never_ready(bench, asker));
    }
}

fn terms() -> Terms {
    Terms::new(Family::V4, Mtu::B1024)
}

fn refused(bench: &mut Bench, asker: Asker, refusal: &Refusal) -> Result<String> {
    let (requester, responder) = asker.parties(bench);
    let (q, r) = Terms { access: refusal.access, ..terms() }.connect(requester, responder)?;
    let remote = refusal.wrong.apply(responder.memory()?);
    let (status, event) = refusal.end();
    responder.fill(TARGET, 64, 9)?;
    requester.fill(RESULT, 8, 1)?;
    requester.fill(SOURCE, 64, 2)?;
    let before = start_record(bench, asker);
    let (requester, responder) = asker.parties(bench);
    let (offset, length) = if refusal.opcode.is_atomic() { (RESULT, 8) } else { (SOURCE, 8) };
    requester.post_send(
        q,
        &Work { compare_add: 1, swap: 2, ..Work::new(refusal.opcode, offset, length, remote) },
    )?;
    failure(requester, status)?;
    expect_pattern(responder, "the target", TARGET, 64, 9)?;
    expect_pattern(
        requester,
        "the requester's memory",
        offset,
        8,
        if refusal.opcode.is_atomic() { 1 } else { 2 },
    )?;
    expect_state(requester, q, QpState::Err)?;
    expect_state(responder, r, QpState::Err)?;
    cause(bench, asker, &before, refusal.nak, Some(event))
}

/// How many refusals there have been before a check makes its own, where the library counts them.
struct Before {
    naks: Option<u64>,
    not_ready: Option<u64>,
}

/// The record begins now.
fn start_record(bench: &Bench, asker: Asker) -> Before {
    if let Some(wire) = bench.ours.wire() {
        wire.set_rule(None);
    }
    let [naks, not_ready] = counters(asker).map(|name| bench.ours.counter(name));
    Before { naks, not_ready }
}

/// The library's counters of refusals: those it got, or those it gave.
const fn counters(asker: Asker) -> [&'static str; 2] {
    match asker {
        Asker::Ours => ["rcvd_nak_err", "rcvd_rnr_err"],
        Asker::Guest => ["send_nak_err", "send_rnr_err"],
    }
}

/// Proof that the refusal was the responder's NAK with this code, seen on the wire, and if the responder is ours, that it raised this event. The
/// library at least counts NAKs.
fn cause(
    bench: &Bench,
    asker: Asker,
    before: &Before,
    nak: NakCode,
    event: Option<AsyncEventKind>,
) -> Result<String> {
    let Some(wire) = bench.ours.wire() else {
        let [counter, _] = counters(asker);
        let after = bench.ours.counter(counter);
        ensure!(after > before.naks, "the library's {counter} did not count a NAK");
        return Ok(format!("{counter} counted a NAK, without effect"));
    };
    let responder_is_ours = asker == Asker::Guest;
    let naks = wire.record().count(|seen| seen.ours == responder_is_ours && seen.is_nak(nak));
    ensure!(naks > 0, "there was no NAK {nak:?} on the wire");
    if let (true, Some(event)) = (responder_is_ours, event) {
        let events = wire.events();
        ensure!(events.contains(&event), "no event {event:?} but {events:?}");
    }
    Ok(format!("NAK {nak:?}, without effect"))
}

fn too_long(bench: &mut Bench, asker: Asker) -> Result<String> {
    let (requester, responder) = asker.parties(bench);
    let (q, r) = terms().connect(requester, responder)?;
    responder.clear(TARGET, 4096)?;
    responder.post_recv(Some(r), 1, TARGET, 1500)?;
    let before = start_record(bench, asker);
    let (requester, responder) = asker.parties(bench);
    requester.fill(SOURCE, 3000, 1)?;
    requester.post_send(q, &Work::new(Opcode::Send, SOURCE, 3000, RemoteAddr::default()))?;
    // The specification wants "invalid request" and a local length error; rxe of Linux 6.1 says "operational error" and anything.
    let refused = completion(requester)?.status;
    let received = completion(responder)?.status;
    let nak = match (asker, refused) {
        (_, WcStatus::RemInvReqErr) => NakCode::InvalidRequest,
        (Asker::Ours, WcStatus::RemOpErr) => NakCode::RemoteOperationalError,
        _ => bail!("the SEND ended with {refused:?}"),
    };
    let fits =
        if asker == Asker::Guest { received == WcStatus::LocLenErr } else { received != WcStatus::Success };
    ensure!(fits, "the receive ended with {received:?}");
    for at in (1500..3000).step_by(8) {
        ensure!(responder.load(TARGET + at)? == 0, "bytes behind the receive were written");
    }
    cause(bench, asker, &before, nak, None)
}

/// No receive; one is posted while the requester waits: it must wait at least as long as it was told, and then succeed.
fn not_ready_then_ready(bench: &mut Bench, asker: Asker) -> Result<String> {
    let (requester, responder) = asker.parties(bench);
    let (q, r) = Terms { min_rnr_timer: RNR_CODE, ..terms() }.connect(requester, responder)?;
    requester.fill(SOURCE, 100, 5)?;
    responder.clear(TARGET, 100)?;
    let before = start_record(bench, asker);
    let (requester, _) = asker.parties(bench);
    requester.post_send(q, &Work::new(Opcode::Send, SOURCE, 100, RemoteAddr::default()))?;
    let until = Instant::now() + PATIENCE;
    while not_ready(bench, asker, &before) == 0 {
        ensure!(Instant::now() < until, "the responder does not say that it is not ready");
        thread::sleep(Duration::from_millis(1));
    }
    let (requester, responder) = asker.parties(bench);
    ensure!(requester.poll(Duration::ZERO)?.is_none(), "the SEND completed without a receive");
    responder.post_recv(Some(r), 1, TARGET, 100)?;
    success(requester)?;
    success(responder)?;
    expect_pattern(responder, "the message", TARGET, 100, 5)?;
    let Some(wire) = bench.ours.wire() else { return Ok("refused first, then arrived".into()) };
    let record = wire.record();
    let ours = asker == Asker::Ours;
    let naks = record.times(|seen| seen.ours != ours && seen.is_rnr_nak());
    let Some(nak) = naks.first() else { bail!("there was no receiver-not-ready NAK on the wire") };
    let again = record.times(|seen| seen.ours == ours && seen.is_request() && seen.at > *nak);
    let Some(again) = again.first() else { bail!("it was never sent again") };
    let waited = again.since(*nak);
    // rxe counts in ticks of 4 ms, and the clock that stamps packets is not the one it waits with.
    let least = rnr_timer(RNR_CODE).mul_f64(if ours { 1.0 } else { 0.85 });
    ensure!(waited >= least, "sent again after {waited:?}, though told to wait {:?}", rnr_timer(RNR_CODE));
    Ok(format!("told to wait {:?}, waited {waited:.1?}", rnr_timer(RNR_CODE)))
}

/// How often the responder has said since then that it is not ready.
fn not_ready(bench: &Bench, asker: Asker, before: &Before) -> u64 {
    if let Some(wire) = bench.ours.wire() {
        return wire.record().count(|seen| seen.is_rnr_nak()) as u64;
    }
    let [_, counter] = counters(asker);
    bench.ours.counter(counter).unwrap_or(0) - before.not_ready.unwrap_or(0)
}

fn never_ready(bench: &mut Bench, asker: Asker) -> Result<String> {
    let (requester, responder) = asker.parties(bench);
    let (q, _) = Terms { min_rnr_timer: 14, rnr_retry: 2, ..terms() }.connect(requester, responder)?;
    let before = start_record(bench, asker);
    let (requester, _) = asker.parties(bench);
    requester.post_send(q, &Work::new(Opcode::Send, SOURCE, 100, RemoteAddr::default()))?;
    failure(requester, WcStatus::RnrRetryExcErr)?;
    expect_state(requester, q, QpState::Err)?;
    let naks = not_ready(bench, asker, &before);
    ensure!(naks >= 3, "rnr_retry is 2, but it was refused {naks} times only");
    let Some(wire) = bench.ours.wire() else { return Ok(format!("refused {naks} times")) };
    let ours = asker == Asker::Ours;
    let tries = wire.record().count(|seen| seen.ours == ours && seen.is_request());
    ensure!(tries >= 3, "rnr_retry is 2, but it was sent {tries} times only");
    Ok(format!("sent {tries} times, refused {naks} times"))
}
