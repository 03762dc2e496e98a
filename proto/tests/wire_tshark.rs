//! Wireshark reads packets of every opcode as they were meant: `tshark` is somebody else's reading of the specification.

mod wire_common;

#[path = "../../tests/common/skip.rs"]
mod skip;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tbrdma_proto::wire::icrc::{Flow, seal};
use tbrdma_proto::wire::ip::{Datagram, MAX_DATAGRAM_HEADER_BYTES};
use tbrdma_proto::wire::{
    Aeth, AtomicEth, Bth, Deth, Headers, MAX_HEADER_BYTES, NakCode, Operation, PacketOpcode, Reth, Syndrome,
};
use tbrdma_proto::{Psn, Qpn};
use wire_common::slow_icrc;

/// What is asked of each packet, and how [`expected`] writes the answers.
const FIELDS: [&str; 28] = [
    "_ws.malformed",
    "_ws.expert.message",
    "ip.checksum.status",
    "udp.checksum.status",
    "infiniband.bth.opcode",
    "infiniband.bth.se",
    "infiniband.bth.m",
    "infiniband.bth.padcnt",
    "infiniband.bth.p_key",
    "infiniband.bth.destqp",
    "infiniband.bth.a",
    "infiniband.bth.psn",
    "infiniband.deth.q_key",
    "infiniband.deth.srcqp",
    "infiniband.reth.va",
    "infiniband.reth.r_key",
    "infiniband.reth.dmalen",
    "infiniband.atomiceth.swapdt",
    "infiniband.atomiceth.cmpdt",
    "infiniband.aeth.syndrome.opcode",
    "infiniband.aeth.syndrome.credit_count",
    "infiniband.aeth.syndrome.timer",
    "infiniband.aeth.syndrome.error_code",
    "infiniband.aeth.msn",
    "infiniband.atomicacketh.origremdt",
    "infiniband.immdt",
    "infiniband.ieth",
    "infiniband.invariant.crc",
];

/// A packet of each opcode, and of each thing that an acknowledgement can say, all different in every field.
fn every_kind() -> Vec<Headers> {
    let mut syndromes: Vec<_> = NakCode::ALL.iter().map(|&code| Syndrome::Nak(code)).collect();
    syndromes.extend([Syndrome::ACK, Syndrome::Ack { credits: 9 }, Syndrome::RnrNak { timer: 12 }]);
    let mut kinds = Vec::new();
    for &opcode in PacketOpcode::ALL {
        let refusals = if opcode == PacketOpcode::RcAcknowledge { syndromes.len() } else { 1 };
        for &syndrome in syndromes.iter().rev().take(refusals) {
            let n = kinds.len() as u32 + 1;
            kinds.push(Headers {
                bth: Bth {
                    opcode,
                    solicited: n.is_multiple_of(2),
                    migrated: n.is_multiple_of(3),
                    pad: 0,
                    pkey: 0x8000 | n as u16,
                    fecn: false,
                    becn: false,
                    dest_qpn: Qpn::masked(0x11_0000 * n + n),
                    ack_req: !n.is_multiple_of(5),
                    psn: Psn::masked(0xff_ff00 + 0x101 * n),
                },
                deth: opcode
                    .has_deth()
                    .then_some(Deth { qkey: 0x8001_0000 + n, src_qpn: Qpn::masked(0x22_0000 + n) }),
                reth: opcode.has_reth().then_some(Reth {
                    addr: 0xffff_8000_0000_0000 + u64::from(n),
                    rkey: 0xc0ff_ee00 + n,
                    length: 0x8000_0000 - n,
                }),
                atomic_eth: opcode.has_atomic_eth().then_some(AtomicEth {
                    addr: 0xffff_9000_0000_0000 + u64::from(n),
                    rkey: 0xc1ff_ee00 + n,
                    swap_add: 0x1122_3344_0000_0000 + u64::from(n),
                    compare: 0x5566_7788_0000_0000 + u64::from(n),
                }),
                aeth: opcode.has_aeth().then_some(Aeth { syndrome, msn: 0x80_0000 + n }),
                atomic_ack_eth: opcode.has_atomic_ack_eth().then_some(0x99aa_bbcc_0000_0000 + u64::from(n)),
                imm: opcode.has_imm().then_some(0xdead_0000 + n),
                ieth: opcode.has_ieth().then_some(0xfeed_0000 + n),
            });
        }
    }
    kinds
}

/// The payload of one of them: one byte short of a multiple of 4, where there may be any.
fn payload_of(headers: &mut Headers) -> Vec<u8> {
    let opcode = headers.bth.opcode;
    let carries = match opcode.operation() {
        Operation::Send | Operation::Write | Operation::ReadResponse => true,
        Operation::ReadRequest
        | Operation::Acknowledge
        | Operation::AtomicAcknowledge
        | Operation::CompareSwap
        | Operation::FetchAdd
        | Operation::Congestion
        | Operation::CreditRequest
        | Operation::Credit => false,
    };
    if !carries {
        return Vec::new();
    }
    // Only the last packet of a message may have an odd length.
    headers.bth.pad = u8::from(opcode.is_last());
    vec![0x7b; 256 - usize::from(headers.bth.pad)]
}

/// A line of what tshark should say.
fn expected(headers: &Headers, ipv4: bool, crc: u32) -> String {
    fn of<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
        value.map(text).unwrap_or_default()
    }
    let bth = &headers.bth;
    let aeth = headers.aeth.map(|aeth| aeth.syndrome.raw());
    let aeth_of = |kind: u8| of(aeth.filter(|raw| raw >> 5 == kind), |raw| (raw & 31).to_string());
    let memory = headers.reth.map(|reth| (reth.addr, reth.rkey));
    let memory = memory.or_else(|| headers.atomic_eth.map(|atomic| (atomic.addr, atomic.rkey)));
    [
        String::new(),
        String::new(),
        if ipv4 { "1".to_owned() } else { String::new() },
        "1".to_owned(),
        bth.opcode.raw().to_string(),
        u8::from(bth.solicited).to_string(),
        u8::from(bth.migrated).to_string(),
        bth.pad.to_string(),
        bth.pkey.to_string(),
        format!("0x{:06x}", bth.dest_qpn.get()),
        u8::from(bth.ack_req).to_string(),
        bth.psn.get().to_string(),
        of(headers.deth, |deth| format!("0x{:016x}", deth.qkey)),
        of(headers.deth, |deth| format!("0x{:08x}", deth.src_qpn.get())),
        of(memory, |(addr, _)| format!("0x{addr:016x}")),
        of(memory, |(_, rkey)| format!("0x{rkey:08x}")),
        of(headers.reth, |reth| reth.length.to_string()),
        of(headers.atomic_eth, |atomic| atomic.swap_add.to_string()),
        of(headers.atomic_eth, |atomic| atomic.compare.to_string()),
        of(aeth, |raw| (raw >> 5).to_string()),
        aeth_of(0),
        aeth_of(1),
        aeth_of(3),
        of(headers.aeth, |aeth| aeth.msn.to_string()),
        of(headers.atomic_ack_eth, |old| old.to_string()),
        of(headers.imm, |imm| format!("{imm:08x}")),
        of(headers.ieth, |rkey| format!("{rkey:08x}")),
        // Too new for some tsharks, which call the rest of it unknown.
        if bth.opcode == PacketOpcode::Cnp { String::new() } else { format!("0x{:08x}", crc.swap_bytes()) },
    ]
    .join("|")
}

/// A file that goes when the test is over.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn tshark_agrees_about_every_field_of_every_opcode() {
    if Command::new("tshark").arg("--version").output().is_err() {
        return skip::skip("there is no tshark");
    }
    // A classic pcap file of link type 101: packets that begin with their IP header.
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 1 << 16, 101] {
        file.extend(word.to_be_bytes());
    }
    let mut lines = String::new();
    for family in [4, 6] {
        // It knows no opcodes of manufacturers.
        let known = |headers: &Headers| headers.bth.opcode.raw() < 0xc0;
        for mut headers in every_kind().into_iter().filter(known) {
            let (from, to): (SocketAddr, SocketAddr) = match family {
                4 => ("10.0.0.1:49152".parse().unwrap(), "10.0.0.2:4791".parse().unwrap()),
                _ => ("[fe80::1]:49152".parse().unwrap(), "[fe80::2]:4791".parse().unwrap()),
            };
            let flow = Flow::new(from, to).unwrap();
            let payload = payload_of(&mut headers);
            let mut out = [0; MAX_HEADER_BYTES];
            let len = headers.encode(&mut out);
            let pad = vec![0; headers.bth.pad.into()];
            let mut packet = [&out[..len], &payload, &pad, &[0; 4]].concat();
            seal(&flow, 0, &mut packet).unwrap();
            let mut out = [0; MAX_DATAGRAM_HEADER_BYTES];
            let len = Datagram::of_flow(&flow, 0, &packet).encode_headers(&mut out);
            let whole = [&out[..len], &packet].concat();
            for word in [0, 0, whole.len() as u32, whole.len() as u32] {
                file.extend(word.to_be_bytes());
            }
            writeln!(lines, "{}", expected(&headers, family == 4, slow_icrc(&whole))).unwrap();
            file.extend(whole);
        }
    }
    let scratch = Scratch(std::env::temp_dir().join(format!("tbrdma-wire-{}.pcap", std::process::id())));
    std::fs::write(&scratch.0, file).unwrap();
    let mut tshark = Command::new("tshark");
    // Not whatever the user has configured; and with checks of checksums.
    tshark.args(["-n", "-C", "Default", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    tshark.args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=f", "-r"]).arg(&scratch.0);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    for (number, (said, expected)) in said.lines().zip(lines.lines()).enumerate() {
        assert_eq!(said, expected, "packet {}: {}", number + 1, FIELDS.join("|"));
    }
    assert_eq!(said.lines().count(), lines.lines().count());
}
