//! Every operation between the guest's rxe and our side, each way round, over both families, in packets of three sizes.

use crate::bench::Bench;
use crate::party::{Family, Party, Terms, Work, expect_pattern, expect_state, failure, success};
use crate::verbs::receiver_flag;
use anyhow::{Result, ensure};
use tbrdma_kit::Report;
use tbrdma_proto::{Mtu, Opcode, QpState, QpType, RemoteAddr, WcFlags, WcOpcode, WcStatus};

/// Where a requester's data is, where a responder's, and where results of atomics go.
pub(super) const SOURCE: u32 = 0;
pub(super) const TARGET: u32 = 1 << 20;
pub(super) const RESULT: u32 = 3 << 20;

const IMM: u32 = 0x1234_5678;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Ours,
    Guest,
}

impl Asker {
    pub(crate) const BOTH: [Self; 2] = [Self::Ours, Self::Guest];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours to guest",
            Self::Guest => "guest to ours",
        }
    }

    /// Requester and responder.
    pub(crate) fn parties(self, bench: &mut Bench) -> (&mut dyn Party, &mut dyn Party) {
        let (ours, guest) = (bench.ours.party(), &mut bench.verbs as &mut dyn Party);
        match self {
            Self::Ours => (ours, guest),
            Self::Guest => (guest, ours),
        }
    }
}

pub(crate) fn run(bench: &mut Bench, report: &mut Report) {
    for family in Family::BOTH {
        for mtu in [Mtu::B256, Mtu::B1024, Mtu::B4096] {
            for asker in Asker::BOTH {
                let terms = Terms::new(family, mtu);
                let name = |what: &str| format!("{what}, {} {mtu}, {}", family.name(), asker.name());
                for opcode in [
                    Opcode::Send,
                    Opcode::SendWithImm,
                    Opcode::RdmaWrite,
                    Opcode::RdmaWriteWithImm,
                    Opcode::RdmaRead,
                ] {
                    report.check(&name(title(opcode)), || {
                        let (requester, responder) = asker.parties(bench);
                        transfer(requester, responder, &terms, opcode)
                    });
                }
                report.check(&name("CMP_SWP"), || {
                    let (requester, responder) = asker.parties(bench);
                    compare_and_swap(requester, responder, &terms)
                });
                report.check(&name("FETCH_ADD"), || {
                    let (requester, responder) = asker.parties(bench);
                    fetch_and_add(requester, responder, &terms)
                });
            }
        }
        for asker in Asker::BOTH {
            let terms = Terms::new(family, Mtu::B1024);
            let name = |what: &str| format!("{what}, {}, {}", family.name(), asker.name());
            for opcode in [Opcode::Send, Opcode::SendWithImm, Opcode::RdmaWrite, Opcode::RdmaWriteWithImm] {
                report.check(&name(&format!("UC {}", title(opcode))), || {
                    let (requester, responder) = asker.parties(bench);
                    transfer(requester, responder, &Terms { kind: QpType::Uc, ..terms }, opcode)
                });
            }
            for opcode in [Opcode::Send, Opcode::SendWithImm] {
                report.check(&name(&format!("UD {}", title(opcode))), || {
                    let (sender, receiver) = asker.parties(bench);
                    datagram(sender, receiver, &Terms { kind: QpType::Ud, ..terms }, opcode)
                });
            }
            report.check(&name("SEND with invalidate"), || {
                let (requester, responder) = asker.parties(bench);
                send_with_invalidate(requester, responder, &terms)
            });
        }
    }
}

/// Each reliable operation once more each way, with a side of ours that loses, damages, repeats and delays some of what it sends; rxe's counters
/// must show that it did.
pub(crate) fn run_faulty(bench: &mut Bench, report: &mut Report) {
    let prefix = "faulty wire: ";
    let before = irregularities(bench);
    for asker in Asker::BOTH {
        // A short timeout: many will run out.
        let terms = Terms { timeout: 14, ..Terms::new(Family::V4, Mtu::B1024) };
        for opcode in [Opcode::Send, Opcode::RdmaWrite, Opcode::RdmaWriteWithImm, Opcode::RdmaRead] {
            report.check(&format!("{prefix}{}, {}", title(opcode), asker.name()), || {
                let (requester, responder) = asker.parties(bench);
                (0..3).try_for_each(|_| transfer(requester, responder, &terms, opcode).map(drop))?;
                Ok("24 messages".into())
            });
        }
        report.check(&format!("{prefix}FETCH_ADD, {}", asker.name()), || {
            let (requester, responder) = asker.parties(bench);
            (0..10).try_for_each(|_| fetch_and_add(requester, responder, &terms).map(drop))?;
            Ok("30 additions".into())
        });
    }
    report.check(&format!("{prefix}rxe noticed"), || {
        let ([gaps, repeats], [gaps_now, repeats_now]) = (before?, irregularities(bench)?);
        let (gaps, repeats) = (gaps_now - gaps, repeats_now - repeats);
        ensure!(gaps > 0 && repeats > 0, "{gaps} packets out of sequence, {repeats} repeated");
        Ok(format!("{gaps} packets out of sequence, {repeats} repeated"))
    });
}

/// What rxe counts when packets are missing or come again.
fn irregularities(bench: &Bench) -> Result<[u64; 2]> {
    Ok([bench.guest.counter("out_of_seq_request")?, bench.guest.counter("duplicate_request")?])
}

const fn title(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::Send => "SEND",
        Opcode::SendWithImm => "SEND with immediate",
        Opcode::RdmaWrite => "WRITE",
        Opcode::RdmaWriteWithImm => "WRITE with immediate",
        Opcode::RdmaRead => "READ",
        _ => "other",
    }
}

/// One operation with messages of every interesting size: none, one byte, around one packet, several packets, odd ends.
fn transfer(
    requester: &mut dyn Party,
    responder: &mut dyn Party,
    terms: &Terms,
    opcode: Opcode,
) -> Result<String> {
    let (q, r) = terms.connect(requester, responder)?;
    let mtu = terms.mtu.bytes();
    let sizes = [0, 1, mtu - 1, mtu, mtu + 1, 2 * mtu, 5 * mtu + 3, 30_001];
    let place = responder.memory()?;
    let remote = RemoteAddr { addr: place.addr + u64::from(TARGET) + 1, rkey: place.rkey };
    for (seed, size) in (1..).zip(sizes) {
        let (from, to): (&mut dyn Party, &mut dyn Party) = if opcode == Opcode::RdmaRead {
            (&mut *responder, &mut *requester)
        } else {
            (&mut *requester, &mut *responder)
        };
        let (source, target) =
            if opcode == Opcode::RdmaRead { (TARGET + 1, SOURCE) } else { (SOURCE, TARGET + 1) };
        from.fill(source, size, seed)?;
        // One byte before and one behind tell whether too much was written.
        to.clear(target, size + 16)?;
        if opcode.consumes_receive() {
            // An RDMA WRITE's receive gets no bytes.
            let room = if opcode.is_rdma() { 0 } else { size };
            responder.post_recv(Some(r), u64::from(seed), TARGET + 1, room)?;
        }
        let work = Work { id: u64::from(seed), imm: IMM, ..Work::new(opcode, SOURCE, size, remote) };
        requester.post_send(q, &work)?;
        let sent = success(requester)?;
        ensure!(
            sent.wr_id == u64::from(seed) && sent.opcode == opcode.wc_opcode(),
            "{sent:?} is not of {work:?}"
        );
        if opcode == Opcode::RdmaRead {
            ensure!(sent.byte_len == size, "a READ of {size} bytes says it has {}", sent.byte_len);
        }
        if opcode.consumes_receive() {
            let received = success(responder)?;
            ensure!(
                received.wr_id == u64::from(seed) && received.byte_len == size,
                "{received:?} is not of {size} bytes"
            );
            let expected = if opcode.is_rdma() { WcOpcode::RecvRdmaWithImm } else { WcOpcode::Recv };
            ensure!(received.opcode == expected, "{received:?} is not {expected:?}");
            let flag = receiver_flag(opcode);
            ensure!(
                received.wc_flags & (WcFlags::WITH_IMM | WcFlags::WITH_INV) == flag,
                "{received:?} has no {flag}"
            );
            ensure!(
                !opcode.has_imm() || received.imm_data == IMM,
                "the immediate is {:#x}",
                received.imm_data
            );
        } else if terms.kind == QpType::Uc {
            // Nobody says when a WRITE without acknowledgement has arrived.
            wait_for_pattern(responder, TARGET + 1, size, seed)?;
        }
        let (to, target): (&mut dyn Party, u32) = if opcode == Opcode::RdmaRead {
            (&mut *requester, SOURCE)
        } else {
            (&mut *responder, TARGET + 1)
        };
        expect_pattern(to, &format!("{size} bytes"), target, size, seed)?;
        let behind = to.load(target + size)?;
        ensure!(behind == 0, "bytes behind the {size} were written: {behind:#x}");
    }
    Ok(format!("{} messages, up to {} B", sizes.len(), 30_001))
}

fn wait_for_pattern(party: &mut dyn Party, offset: u32, length: u32, seed: u32) -> Result<()> {
    let until = std::time::Instant::now() + crate::party::PATIENCE;
    while party.matching(offset, length, seed)? < length && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}

fn atomic(requester: &mut dyn Party, q: tbrdma_proto::Qpn, work: &Work) -> Result<u64> {
    requester.store(RESULT, 0xdead)?;
    requester.post_send(q, work)?;
    let wc = success(requester)?;
    ensure!(wc.opcode == work.opcode.wc_opcode() && wc.byte_len == 8, "{wc:?} is not of an atomic");
    requester.load(RESULT)
}

fn compare_and_swap(requester: &mut dyn Party, responder: &mut dyn Party, terms: &Terms) -> Result<String> {
    let (q, _) = terms.connect(requester, responder)?;
    let RemoteAddr { addr, rkey } = responder.memory()?;
    let remote = RemoteAddr { addr: addr + u64::from(TARGET), rkey };
    let (first, second, third) = (0x0102_0304_0506_0708, 0x1112_1314_1516_1718, u64::MAX);
    responder.store(TARGET, first)?;
    let work = Work::new(Opcode::AtomicCmpAndSwp, RESULT, 8, remote);
    let old = atomic(requester, q, &Work { compare_add: first, swap: second, ..work })?;
    ensure!(old == first && responder.load(TARGET)? == second, "equal: old value {old:#x}");
    let old = atomic(requester, q, &Work { compare_add: first, swap: third, ..work })?;
    ensure!(old == second && responder.load(TARGET)? == second, "unequal: old value {old:#x}");
    Ok("swapped if equal, not if unequal, old value each time".into())
}

fn fetch_and_add(requester: &mut dyn Party, responder: &mut dyn Party, terms: &Terms) -> Result<String> {
    let (q, _) = terms.connect(requester, responder)?;
    let RemoteAddr { addr, rkey } = responder.memory()?;
    let remote = RemoteAddr { addr: addr + u64::from(TARGET), rkey };
    let mut value = u64::MAX - 20;
    responder.store(TARGET, value)?;
    for add in [7, 13, 1 << 40] {
        let work = Work { compare_add: add, ..Work::new(Opcode::AtomicFetchAndAdd, RESULT, 8, remote) };
        let old = atomic(requester, q, &work)?;
        ensure!(old == value, "old value {old:#x} instead of {value:#x}");
        value = value.wrapping_add(add);
        ensure!(responder.load(TARGET)? == value, "the sum is not {value:#x}");
    }
    Ok("three sums, one of them past 2^64".into())
}

/// A datagram with its routing header, which must name the two addresses.
fn datagram(
    sender: &mut dyn Party,
    receiver: &mut dyn Party,
    terms: &Terms,
    opcode: Opcode,
) -> Result<String> {
    const GRH: u32 = 40;
    let (s, r) = terms.connect(sender, receiver)?;
    let (from, to) = (sender.gid(terms.family)?, receiver.gid(terms.family)?);
    for (seed, size) in (1..).zip([0, 1, 63, 1000, 1024]) {
        sender.fill(SOURCE, size, seed)?;
        receiver.clear(TARGET, size + GRH + 8)?;
        receiver.post_recv(Some(r), 9, TARGET, size + GRH)?;
        let work =
            Work { imm: IMM, to: Some((to, r)), ..Work::new(opcode, SOURCE, size, RemoteAddr::default()) };
        sender.post_send(s, &work)?;
        success(sender)?;
        let wc = success(receiver)?;
        ensure!(wc.byte_len == size + GRH && wc.src_qp == s, "{wc:?} is not {size} bytes from {s}");
        ensure!(wc.wc_flags.contains(WcFlags::GRH | receiver_flag(opcode)), "{wc:?} lacks flags");
        ensure!(!opcode.has_imm() || wc.imm_data == IMM, "the immediate is {:#x}", wc.imm_data);
        expect_pattern(receiver, "the datagram", TARGET + GRH, size, seed)?;
        let header = (0..5).map(|word| receiver.load(TARGET + 8 * word)).collect::<Result<Vec<_>>>()?;
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let (source, target) = match terms.family {
            Family::V4 => (from.0[12..].to_vec(), to.0[12..].to_vec()),
            Family::V6 => (from.0.to_vec(), to.0.to_vec()),
        };
        let addresses = [source, target].concat();
        ensure!(
            header.ends_with(&addresses),
            "the routing header {header:02x?} does not name {from} and {to}"
        );
    }
    Ok("5 datagrams with routing headers".into())
}

/// The key works, is taken away with a SEND, and does not work any more.
fn send_with_invalidate(
    requester: &mut dyn Party,
    responder: &mut dyn Party,
    terms: &Terms,
) -> Result<String> {
    let (q, r) = terms.connect(requester, responder)?;
    let remote = responder.invalidatable(r, TARGET, 4096)?;
    requester.fill(SOURCE, 100, 3)?;
    responder.clear(TARGET, 4096)?;
    requester.post_send(q, &Work::new(Opcode::RdmaWrite, SOURCE, 100, remote))?;
    success(requester)?;
    expect_pattern(responder, "the WRITE before", TARGET, 100, 3)?;
    responder.post_recv(Some(r), 5, 2 * TARGET, 100)?;
    requester.post_send(
        q,
        &Work { imm: remote.rkey, ..Work::new(Opcode::SendWithInv, SOURCE, 100, RemoteAddr::default()) },
    )?;
    success(requester)?;
    let wc = success(responder)?;
    ensure!(
        wc.wc_flags.contains(WcFlags::WITH_INV) && wc.imm_data == remote.rkey,
        "{wc:?} does not name key {:#x}",
        remote.rkey
    );
    requester.fill(SOURCE, 100, 4)?;
    requester.post_send(q, &Work::new(Opcode::RdmaWrite, SOURCE, 100, remote))?;
    failure(requester, WcStatus::RemAccessErr)?;
    expect_pattern(responder, "the WRITE after", TARGET, 100, 3)?;
    expect_state(requester, q, QpState::Err)?;
    Ok("the key worked, then it did not".into())
}
