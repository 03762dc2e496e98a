//! Packets that are lost, damaged, repeated, late or made up, each way round: the operation ends as if nothing had happened, and the
//! record of the wire shows that it was this very fault that was overcome.

use super::operations::{Asker, RESULT, SOURCE, TARGET};
use crate::bench::Bench;
use crate::party::{Family, PATIENCE, Party, Terms, Work, expect_pattern, expect_state, failure, success};
use crate::wire::Wire;
use crate::wire::faults::{Record, Rule, Seen, Verdict, each, nth};
use anyhow::{Context, Result, ensure};
use std::thread;
use std::time::{Duration, Instant};
use tbrdma_kit::Report;
use tbrdma_proto::wire::{Aeth, Bth, Headers, NakCode, Operation, PacketOpcode, Syndrome};
use tbrdma_proto::{Mtu, Opcode, Psn, QpState, QpType, Qpn, RemoteAddr, WcStatus};

/// The size of messages of five packets of 1024 bytes.
const FIVE_PACKETS: u32 = 4600;

/// A wait that is long enough for something that must not happen.
const SOON: Duration = Duration::from_millis(150);

pub(crate) fn run(bench: &mut Bench, report: &mut Report) {
    if bench.ours.wire().is_none() {
        return;
    }
    for asker in Asker::BOTH {
        let name = |what: &str| format!("{what}, {}", asker.name());
        for family in Family::BOTH {
            report.check(
                &format!("{} {}", name("damaged request is dropped in silence"), family.name()),
                || damaged_request(bench, asker, family),
            );
        }
        report.check(&name("damaged acknowledgement is not believed"), || {
            lost_ack(bench, asker, Verdict::Damage)
        });
        report.check(&name("lost acknowledgement"), || lost_ack(bench, asker, Verdict::Lose));
        report.check(&name("lost packet in the middle of a SEND"), || {
            gap(bench, asker, Opcode::Send, Verdict::Lose)
        });
        report.check(&name("lost packet in the middle of a WRITE"), || {
            gap(bench, asker, Opcode::RdmaWrite, Verdict::Lose)
        });
        report.check(&name("packets out of order"), || gap(bench, asker, Opcode::RdmaWrite, Verdict::Delay));
        report.check(&name("every packet twice"), || everything_twice(bench, asker));
        report.check(&name("lost READ response"), || lost_read_response(bench, asker));
        report.check(&name("lost READ request"), || lost_read_request(bench, asker));
        for opcode in [Opcode::AtomicFetchAndAdd, Opcode::AtomicCmpAndSwp] {
            let what = if opcode == Opcode::AtomicFetchAndAdd { "FETCH_ADD" } else { "CMP_SWP" };
            report.check(&name(&format!("repeated {what} is answered with the saved value")), || {
                repeated_atomic(bench, asker, opcode)
            });
        }
        report.check(&name("5 % loss each way"), || heavy_loss(bench, asker));
        report.check(&name("silent peer"), || silence(bench, asker));
    }
    report.check("UC: a message with a hole is dropped whole, guest to ours", || unreliable_gap(bench));
    report.check("SEND with an old PSN is acknowledged and has no effect", || old_psn(bench));
    report.check("SEND with a PSN from the future is refused and has no effect", || future_psn(bench));
    report.check("acknowledgement of what was never sent is ignored", || ghost_ack(bench));
    report.check("packet for no queue pair is ignored", || no_queue_pair(bench));
}

fn terms() -> Terms {
    Terms::new(Family::V4, Mtu::B1024)
}

fn wire(bench: &Bench) -> Result<&Wire> {
    bench.ours.wire().context("the lab is not the wire")
}

/// Whether packets of the requester are ours.
fn requests_are_ours(asker: Asker) -> bool {
    asker == Asker::Ours
}

/// Two connected queue pairs of the two parties, and a rule on what is between them.
fn connected(bench: &mut Bench, asker: Asker, terms: &Terms, rule: Rule) -> Result<(Qpn, Qpn)> {
    wire(bench)?.set_rule(None);
    let (requester, responder) = asker.parties(bench);
    let (q, r) = terms.connect(requester, responder)?;
    wire(bench)?.set_rule(Some(rule));
    Ok((q, r))
}

/// What passed, with the rule taken away.
fn taken_record(bench: &Bench) -> Result<Record> {
    let wire = wire(bench)?;
    let record = wire.record();
    wire.set_rule(None);
    Ok(record)
}

/// Sends one message and checks it at its receiver.
fn send_one(
    bench: &mut Bench,
    asker: Asker,
    (q, r): (Qpn, Qpn),
    opcode: Opcode,
    size: u32,
    seed: u32,
) -> Result<()> {
    let (requester, responder) = asker.parties(bench);
    let RemoteAddr { addr, rkey } = responder.memory()?;
    requester.fill(SOURCE, size, seed)?;
    responder.clear(TARGET, size)?;
    if opcode.consumes_receive() {
        responder.post_recv(Some(r), u64::from(seed), TARGET, size)?;
    }
    requester.post_send(
        q,
        &Work::new(opcode, SOURCE, size, RemoteAddr { addr: addr + u64::from(TARGET), rkey }),
    )?;
    success(requester)?;
    if opcode.consumes_receive() {
        let wc = success(responder)?;
        ensure!(wc.byte_len == size, "{} bytes received instead of {size}", wc.byte_len);
    }
    expect_pattern(responder, "the message", TARGET, size, seed)
}

/// Waits until a packet that is so has passed.
fn await_packet(bench: &Bench, what: &str, which: impl Fn(&Seen) -> bool) -> Result<Seen> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = wire(bench)?.record().0.into_iter().find(&which) {
            return Ok(seen);
        }
        ensure!(Instant::now() < until, "{what} did not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Nothing more completes at either party.
fn quiet(bench: &mut Bench, asker: Asker) -> Result<()> {
    let (requester, responder) = asker.parties(bench);
    for party in [requester, responder] {
        let wc = party.poll(SOON)?;
        ensure!(wc.is_none(), "something completed that had completed before: {wc:?}");
    }
    Ok(())
}

/// A request of one packet with a wrong iCRC: no answer at all to it, and the timeout of the requester cures it.
fn damaged_request(bench: &mut Bench, asker: Asker, family: Family) -> Result<String> {
    let ours = requests_are_ours(asker);
    let rule = nth(0, Verdict::Damage, move |seen| seen.ours == ours && seen.is_request());
    let qps = connected(bench, asker, &Terms { family, ..terms() }, rule)?;
    let before = bench.guest.counter("rcvd_pkts")?;
    send_one(bench, asker, qps, Opcode::Send, 900, 1)?;
    quiet(bench, asker)?;
    let after = bench.guest.counter("rcvd_pkts")?;
    let dropped = wire(bench)?.bad_icrc();
    let record = taken_record(bench)?;
    let requests: Vec<_> = record.0.iter().filter(|seen| seen.ours == ours && seen.is_request()).collect();
    let [first, second, ..] = requests.as_slice() else { anyhow::bail!("the request was not sent again") };
    ensure!(
        first.verdict == Verdict::Damage && second.psn() == first.psn(),
        "not the damaged packet was sent again"
    );
    let between = record.count(|seen| seen.ours != ours && seen.at < second.at);
    ensure!(between == 0, "the damaged packet was answered");
    if ours {
        // rxe counts only packets whose iCRC is right.
        let sent = record.count(|seen| seen.ours) as u64;
        ensure!(
            after - before < sent,
            "rxe counts {} packets of {sent}, one of them damaged",
            after - before
        );
    } else {
        ensure!(dropped == 1, "{dropped} packets dropped for their iCRC instead of one");
    }
    Ok(format!("no answer; sent again after {:.0?}", second.at.since(first.at)))
}

/// An acknowledgement that does not get through: the request comes again, is acknowledged again, and is not carried out again.
fn lost_ack(bench: &mut Bench, asker: Asker, verdict: Verdict) -> Result<String> {
    let ours = requests_are_ours(asker);
    let rule = nth(0, verdict, move |seen| seen.ours != ours && seen.operation() == Operation::Acknowledge);
    let qps = connected(bench, asker, &terms(), rule)?;
    let before = bench.guest.counter("duplicate_request")?;
    {
        // A second receive that a request carried out twice would take.
        let (_, responder) = asker.parties(bench);
        responder.post_recv(Some(qps.1), 77, TARGET, 900)?;
    }
    send_one(bench, asker, qps, Opcode::Send, 900, 1)?;
    quiet(bench, asker)?;
    let after = bench.guest.counter("duplicate_request")?;
    let dropped = wire(bench)?.bad_icrc();
    let record = taken_record(bench)?;
    let requests = record.count(|seen| seen.ours == ours && seen.is_request());
    let acks = record.count(|seen| seen.ours != ours && seen.operation() == Operation::Acknowledge);
    ensure!(
        requests >= 2 && acks >= 2,
        "{requests} requests and {acks} acknowledgements, at least 2 of each are due"
    );
    if ours {
        ensure!(after > before, "rxe saw no repeated request");
        ensure!(
            verdict != Verdict::Damage || dropped == 1,
            "{dropped} packets dropped for their iCRC instead of one"
        );
    }
    Ok(format!("{requests} requests, {acks} acknowledgements, one receive"))
}

/// A hole in a message: a NAK names the first missing packet, and sending goes on from there.
fn gap(bench: &mut Bench, asker: Asker, opcode: Opcode, verdict: Verdict) -> Result<String> {
    let ours = requests_are_ours(asker);
    let rule = nth(1, verdict, move |seen| seen.ours == ours && seen.is_request());
    let qps = connected(bench, asker, &terms(), rule)?;
    let counter = if ours { "out_of_seq_request" } else { "rcvd_seq_err" };
    let before = bench.guest.counter(counter)?;
    send_one(bench, asker, qps, opcode, FIVE_PACKETS, 1)?;
    let after = bench.guest.counter(counter)?;
    let record = taken_record(bench)?;
    let missing =
        record.0.iter().find(|seen| seen.verdict == verdict).context("no packet was touched")?.psn();
    let is_nak = |seen: &&Seen| seen.ours != ours && seen.is_nak(NakCode::PsnSequenceError);
    let nak = record.0.iter().find(is_nak).context("no NAK for a sequence error")?;
    ensure!(nak.psn() == missing, "the NAK names PSN {:#x}, the missing one is {missing:#x}", nak.psn());
    let next = record
        .0
        .iter()
        .find(|seen| seen.ours == ours && seen.is_request() && seen.psn() == missing && seen.at >= nak.at);
    ensure!(next.is_some(), "PSN {missing:#x} did not come again after the NAK");
    ensure!(after > before, "rxe's {counter} did not count it");
    Ok(format!("NAK for PSN {missing:#08x}, and on from there"))
}

/// Every packet either way comes twice: each message arrives once.
fn everything_twice(bench: &mut Bench, asker: Asker) -> Result<String> {
    let qps = connected(bench, asker, &terms(), each(Verdict::Repeat, |_| true))?;
    for (seed, opcode) in (1..).zip([Opcode::Send, Opcode::RdmaWriteWithImm, Opcode::Send, Opcode::RdmaWrite])
    {
        let (requester, responder) = asker.parties(bench);
        if opcode == Opcode::RdmaWriteWithImm {
            responder.post_recv(Some(qps.1), 1, 2 * TARGET, 0)?;
            let RemoteAddr { addr, rkey } = responder.memory()?;
            let remote = RemoteAddr { addr: addr + u64::from(TARGET), rkey };
            requester.fill(SOURCE, FIVE_PACKETS, seed)?;
            requester.post_send(qps.0, &Work::new(opcode, SOURCE, FIVE_PACKETS, remote))?;
            success(requester)?;
            success(responder)?;
            expect_pattern(responder, "the WRITE", TARGET, FIVE_PACKETS, seed)?;
        } else {
            send_one(bench, asker, qps, opcode, FIVE_PACKETS, seed)?;
        }
    }
    let (requester, responder) = asker.parties(bench);
    let RemoteAddr { addr, rkey } = responder.memory()?;
    responder.store(TARGET, 100)?;
    let remote = RemoteAddr { addr: addr + u64::from(TARGET), rkey };
    for _ in 0..5 {
        let work = Work { compare_add: 3, ..Work::new(Opcode::AtomicFetchAndAdd, RESULT, 8, remote) };
        requester.post_send(qps.0, &work)?;
        success(requester)?;
    }
    let sum = responder.load(TARGET)?;
    ensure!(sum == 115, "100 and five times 3 are {sum}: an addition was carried out twice");
    quiet(bench, asker)?;
    let packets = taken_record(bench)?.0.len();
    Ok(format!("{packets} packets, each twice; each request once"))
}

fn read_once(bench: &mut Bench, asker: Asker, q: Qpn) -> Result<()> {
    let (requester, responder) = asker.parties(bench);
    let RemoteAddr { addr, rkey } = responder.memory()?;
    responder.fill(TARGET, FIVE_PACKETS, 6)?;
    requester.clear(SOURCE, FIVE_PACKETS)?;
    let remote = RemoteAddr { addr: addr + u64::from(TARGET), rkey };
    requester.post_send(q, &Work::new(Opcode::RdmaRead, SOURCE, FIVE_PACKETS, remote))?;
    success(requester)?;
    expect_pattern(requester, "what was read", SOURCE, FIVE_PACKETS, 6)
}

fn lost_read_response(bench: &mut Bench, asker: Asker) -> Result<String> {
    let ours = requests_are_ours(asker);
    let rule = nth(2, Verdict::Lose, |seen| seen.operation() == Operation::ReadResponse);
    let (q, _) = connected(bench, asker, &terms(), rule)?;
    read_once(bench, asker, q)?;
    quiet(bench, asker)?;
    let record = taken_record(bench)?;
    let missing =
        record.0.iter().find(|seen| seen.verdict == Verdict::Lose).context("no response was lost")?.psn();
    let requests: Vec<_> = record
        .0
        .iter()
        .filter(|seen| seen.ours == ours && seen.operation() == Operation::ReadRequest)
        .map(Seen::psn)
        .collect();
    ensure!(requests.len() >= 2, "the READ was not asked for again");
    if ours {
        ensure!(
            requests.contains(&missing),
            "asked again from {requests:x?}, not from the missing {missing:#x}"
        );
    }
    let again = record.count(|seen| seen.operation() == Operation::ReadResponse && seen.psn() == missing);
    ensure!(again >= 2, "the missing response did not come again");
    Ok(format!("asked {} times, PSNs {requests:x?}, the missing one is {missing:x}", requests.len()))
}

fn lost_read_request(bench: &mut Bench, asker: Asker) -> Result<String> {
    let rule = nth(0, Verdict::Lose, |seen| seen.operation() == Operation::ReadRequest);
    let (q, _) = connected(bench, asker, &terms(), rule)?;
    read_once(bench, asker, q)?;
    let requests = taken_record(bench)?.times(|seen| seen.operation() == Operation::ReadRequest);
    let waited = Record::between(&requests, 0, 1).context("the READ was not asked for again")?;
    Ok(format!("asked again after {waited:.0?}"))
}

/// The answer to an atomic is lost: it is asked for again, answered with the value of the first time, and carried out once.
fn repeated_atomic(bench: &mut Bench, asker: Asker, opcode: Opcode) -> Result<String> {
    let rule = nth(0, Verdict::Lose, |seen| seen.operation() == Operation::AtomicAcknowledge);
    let (q, _) = connected(bench, asker, &terms(), rule)?;
    let (requester, responder) = asker.parties(bench);
    let RemoteAddr { addr, rkey } = responder.memory()?;
    let remote = RemoteAddr { addr: addr + u64::from(TARGET), rkey };
    responder.store(TARGET, 1000)?;
    // Swapped for its own complement on a second execution, the value would not compare any more and the old one be another.
    let (compare_add, swap, expected) =
        if opcode == Opcode::AtomicFetchAndAdd { (5, 0, 1005) } else { (1000, 2000, 2000) };
    requester.post_send(q, &Work { compare_add, swap, ..Work::new(opcode, RESULT, 8, remote) })?;
    success(requester)?;
    let (old, now) = (requester.load(RESULT)?, responder.load(TARGET)?);
    ensure!(
        old == 1000 && now == expected,
        "old value {old} and new value {now} instead of 1000 and {expected}"
    );
    let record = taken_record(bench)?;
    let answers: Vec<_> = record.0.iter().filter_map(|seen| seen.headers.atomic_ack_eth).collect();
    ensure!(answers.len() >= 2, "the lost answer was not given again");
    ensure!(answers.iter().all(|answer| *answer == 1000), "the answers differ: {answers:?}");
    Ok(format!("{} answers, all 1000; executed once", answers.len()))
}

/// Many messages while every twentieth packet, by a fixed sequence of dice, is lost.
fn heavy_loss(bench: &mut Bench, asker: Asker) -> Result<String> {
    let mut dice: u32 = 12345;
    let rule: Rule = Box::new(move |_| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if dice >> 8 < (1 << 24) / 20 { Verdict::Lose } else { Verdict::Pass }
    });
    // A short timeout, for many will run out.
    let qps = connected(bench, asker, &Terms { timeout: 14, ..terms() }, rule)?;
    for seed in 0..20 {
        let opcode = if seed % 2 == 0 { Opcode::Send } else { Opcode::RdmaWrite };
        send_one(bench, asker, qps, opcode, FIVE_PACKETS + seed, seed)?;
    }
    for _ in 0..4 {
        read_once(bench, asker, qps.0)?;
    }
    let record = taken_record(bench)?;
    let lost = record.count(|seen| seen.verdict == Verdict::Lose);
    ensure!(lost > 0, "nothing was lost");
    Ok(format!("24 messages whole, {lost} of {} packets lost", record.0.len()))
}

/// Nothing gets through: the request fails when its retries have run out, and not before.
fn silence(bench: &mut Bench, asker: Asker) -> Result<String> {
    let ours = requests_are_ours(asker);
    let terms = Terms { timeout: 13, retry_cnt: 3, ..terms() };
    let (q, _) = connected(bench, asker, &terms, each(Verdict::Lose, |_| true))?;
    let (requester, _) = asker.parties(bench);
    let begun = Instant::now();
    requester.post_send(q, &Work::new(Opcode::Send, SOURCE, 100, RemoteAddr::default()))?;
    failure(requester, WcStatus::RetryExcErr)?;
    let took = begun.elapsed();
    expect_state(requester, q, QpState::Err)?;
    let tries = taken_record(bench)?.count(|seen| seen.ours == ours && seen.is_request());
    // Ours asks again before a timeout too, in case only an acknowledgement was lost; that spends no retry.
    let as_often_as_due = if ours { tries >= 4 } else { tries == 4 };
    ensure!(as_often_as_due, "retry_cnt is 3, but it was sent {tries} times");
    // How much later than that it is depends on how busy this machine is; the count above says that it was the fourth timeout.
    let least = Duration::from_millis(100);
    ensure!(took >= least, "given up after {took:?} instead of four timeouts of 33 ms");
    Ok(format!("sent {tries} times in {took:.0?}"))
}

/// Without acknowledgements, a message that misses a packet does not arrive; the next one does, in the first receive.
fn unreliable_gap(bench: &mut Bench) -> Result<String> {
    let rule = nth(2, Verdict::Lose, |seen| !seen.ours && seen.is_request());
    let (s, r) = connected(bench, Asker::Guest, &Terms { kind: QpType::Uc, ..terms() }, rule)?;
    let (sender, receiver) = Asker::Guest.parties(bench);
    receiver.clear(TARGET, FIVE_PACKETS)?;
    for id in 1..=2 {
        receiver.post_recv(Some(r), id, TARGET, FIVE_PACKETS)?;
    }
    for seed in 1..=2 {
        sender.fill(SOURCE, FIVE_PACKETS, seed)?;
        sender.post_send(s, &Work::new(Opcode::Send, SOURCE, FIVE_PACKETS, RemoteAddr::default()))?;
        success(sender)?;
    }
    let wc = success(receiver)?;
    ensure!(
        wc.wr_id == 1 && wc.byte_len == FIVE_PACKETS,
        "{wc:?} is not the first receive with one whole message"
    );
    expect_pattern(receiver, "the second message", TARGET, FIVE_PACKETS, 2)?;
    quiet(bench, Asker::Guest)?;
    let answers = taken_record(bench)?.count(|seen| seen.ours);
    ensure!(answers == 0, "{answers} packets sent back on an unreliable connection");
    Ok("the second of two messages, in the first receive; no answers".into())
}

/// Headers of a packet with a PSN of the check's choice.
const fn made_up(opcode: PacketOpcode, to: Qpn, psn: Psn) -> Headers {
    Headers::new(Bth { ack_req: true, ..Bth::new(opcode, to, psn) })
}

/// A SEND that the guest has had long ago: it must be acknowledged again and not take a receive.
fn old_psn(bench: &mut Bench) -> Result<String> {
    let (q, r) = connected(bench, Asker::Ours, &terms(), each(Verdict::Pass, |_| true))?;
    for seed in 0..3 {
        send_one(bench, Asker::Ours, (q, r), Opcode::Send, 64, seed)?;
    }
    let before = bench.guest.counter("duplicate_request")?;
    let first = wire(bench)?
        .record()
        .0
        .iter()
        .find(|seen| seen.ours && seen.is_request())
        .context("no request")?
        .headers;
    bench.verbs.post_recv(Some(r), 5, TARGET, 64)?;
    bench.verbs.fill(TARGET, 64, 50)?;
    wire(bench)?.set_rule(None);
    wire(bench)?.inject(q, &made_up(PacketOpcode::RcSendOnly, r, first.bth.psn), &[0xee; 64])?;
    await_packet(bench, "an acknowledgement of the repeated request", |seen| {
        !seen.ours && seen.operation() == Operation::Acknowledge
    })?;
    quiet(bench, Asker::Ours)?;
    expect_pattern(&mut bench.verbs, "the receive", TARGET, 64, 50)?;
    ensure!(bench.guest.counter("duplicate_request")? > before, "rxe did not count a repeated request");
    // That acknowledgement, of something done long ago, must not disturb us.
    let work = Work::new(Opcode::Send, SOURCE, 64, RemoteAddr::default());
    let ours = bench.ours.party();
    ours.fill(SOURCE, 64, 51)?;
    ours.post_send(q, &work)?;
    success(ours)?;
    success(&mut bench.verbs)?;
    expect_pattern(&mut bench.verbs, "the message", TARGET, 64, 51)?;
    Ok("acknowledged, no receive taken, and on with the next".into())
}

/// A SEND with a hole before it: NAK, no effect, and the connection lives on.
fn future_psn(bench: &mut Bench) -> Result<String> {
    let (q, r) = connected(bench, Asker::Ours, &terms(), each(Verdict::Pass, |_| true))?;
    send_one(bench, Asker::Ours, (q, r), Opcode::Send, 64, 1)?;
    let last = wire(bench)?
        .record()
        .0
        .iter()
        .rfind(|seen| seen.ours && seen.is_request())
        .context("no request")?
        .headers;
    bench.verbs.post_recv(Some(r), 5, TARGET, 64)?;
    bench.verbs.fill(TARGET, 64, 50)?;
    wire(bench)?.set_rule(None);
    wire(bench)?.inject(q, &made_up(PacketOpcode::RcSendOnly, r, last.bth.psn.add(100)), &[0xee; 64])?;
    let is_nak = |seen: &Seen| !seen.ours && seen.is_nak(NakCode::PsnSequenceError);
    let nak = await_packet(bench, "a NAK", is_nak)?;
    quiet(bench, Asker::Ours)?;
    expect_pattern(&mut bench.verbs, "the receive", TARGET, 64, 50)?;
    ensure!(
        nak.headers.bth.psn == last.bth.psn.next(),
        "the NAK names {}, not the one expected",
        nak.headers.bth.psn
    );
    let ours = bench.ours.party();
    ours.fill(SOURCE, 64, 51)?;
    ours.post_send(q, &Work::new(Opcode::Send, SOURCE, 64, RemoteAddr::default()))?;
    success(ours)?;
    success(&mut bench.verbs)?;
    expect_pattern(&mut bench.verbs, "the message", TARGET, 64, 51)?;
    Ok(format!("NAK for {}, no effect, and on with the next", nak.headers.bth.psn))
}

/// While no packet of ours gets through, acknowledgements come for packets before and after it: it is not done until it has really arrived.
fn ghost_ack(bench: &mut Bench) -> Result<String> {
    let (q, r) = connected(bench, Asker::Ours, &terms(), each(Verdict::Lose, |seen| seen.ours))?;
    bench.verbs.clear(TARGET, 64)?;
    bench.verbs.post_recv(Some(r), 1, TARGET, 64)?;
    let ours = bench.ours.party();
    ours.fill(SOURCE, 64, 52)?;
    ours.post_send(q, &Work::new(Opcode::Send, SOURCE, 64, RemoteAddr::default()))?;
    let sent = await_packet(bench, "the SEND", |seen| seen.ours && seen.is_request())?.headers.bth.psn;
    let ghosts = [sent.add(1), sent.add(50), sent.add(0x80_0001), sent.add(0xff_ff00)];
    for psn in ghosts {
        let mut ack = made_up(PacketOpcode::RcAcknowledge, q, psn);
        ack.aeth = Some(Aeth { syndrome: Syndrome::ACK, msn: 1 });
        wire(bench)?.forge(q, &ack)?;
    }
    quiet(bench, Asker::Ours)?;
    wire(bench)?.set_rule(None);
    success(bench.ours.party())?;
    success(&mut bench.verbs)?;
    expect_pattern(&mut bench.verbs, "the message", TARGET, 64, 52)?;
    Ok(format!("{} of them; the SEND was done when it had arrived", ghosts.len()))
}

fn no_queue_pair(bench: &mut Bench) -> Result<String> {
    let (q, r) = connected(bench, Asker::Ours, &terms(), each(Verdict::Pass, |_| true))?;
    wire(bench)?.inject(
        q,
        &made_up(PacketOpcode::RcSendOnly, Qpn::masked(r.get() + 5000), Psn::masked(0xff_fffd)),
        &[0; 64],
    )?;
    quiet(bench, Asker::Ours)?;
    let answers = wire(bench)?.record().count(|seen| !seen.ours);
    ensure!(answers == 0, "{answers} answers to a packet for nobody");
    send_one(bench, Asker::Ours, (q, r), Opcode::Send, 64, 1)?;
    Ok("no answer".into())
}
