//! What the tests of the wire share: packets that a kernel wrote, headers of any kind, and a second, slow opinion of the iCRC.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]

use proptest::prelude::*;
use tbrdma_proto::wire::ip::Datagram;
use tbrdma_proto::wire::{
    Aeth, AtomicEth, Bth, Deth, Headers, MAX_HEADER_BYTES, NakCode, PacketOpcode, Reth, Syndrome,
};
use tbrdma_proto::{Psn, Qpn};

/// A packet that Linux's rdma_rxe wrote.
pub struct Golden {
    /// What it is.
    pub name: &'static str,
    /// From the IP header to the iCRC.
    pub bytes: Vec<u8>,
}

impl Golden {
    /// Its parts.
    pub fn datagram(&self) -> Datagram<'_> {
        Datagram::parse(&self.bytes).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// All of them.
pub fn golden() -> Vec<Golden> {
    let packets: Vec<_> = include_str!("../data/rxe_packets.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, hex) = line.split_once(": ").unwrap();
            let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
            Golden { name, bytes: digits.as_chunks().0.iter().map(|[high, low]| high << 4 | low).collect() }
        })
        .collect();
    assert_eq!(packets.len(), 17);
    packets
}

/// CRC-32 as the polynomial says it, bit by bit.
pub fn slow_crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

/// The iCRC of an IP packet as the annex says it: a copy with ones where it says so, behind eight bytes of ones.
pub fn slow_icrc(ip_packet: &[u8]) -> u32 {
    let mut masked = ip_packet[..ip_packet.len() - 4].to_vec();
    let ip_bytes = if masked[0] >> 4 == 4 {
        for at in [1, 8, 10, 11] {
            masked[at] = 0xff;
        }
        20
    } else {
        masked[0] |= 0x0f;
        for at in [1, 2, 3, 7] {
            masked[at] = 0xff;
        }
        40
    };
    for at in [6, 7, 8 + 4] {
        masked[ip_bytes + at] = 0xff;
    }
    slow_crc32([0xff; 8].into_iter().chain(masked))
}

/// Any base header.
pub fn any_bth(opcode: PacketOpcode) -> impl Strategy<Value = Bth> {
    (any::<[bool; 5]>(), 0..4u8, any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
        move |([solicited, migrated, fecn, becn, ack_req], pad, pkey, qpn, psn)| Bth {
            opcode,
            solicited,
            migrated,
            pad,
            pkey,
            fecn,
            becn,
            dest_qpn: Qpn::masked(qpn),
            ack_req,
            psn: Psn::masked(psn),
        },
    )
}

/// Any acknowledgement.
pub fn any_aeth() -> impl Strategy<Value = Aeth> {
    let syndrome = prop_oneof![
        (0..32u8).prop_map(|credits| Syndrome::Ack { credits }),
        (0..32u8).prop_map(|timer| Syndrome::RnrNak { timer }),
        prop::sample::select(NakCode::ALL).prop_map(Syndrome::Nak),
    ];
    (syndrome, 0..1u32 << 24).prop_map(|(syndrome, msn)| Aeth { syndrome, msn })
}

/// The headers of any packet with this opcode.
pub fn any_headers_of(opcode: PacketOpcode) -> impl Strategy<Value = Headers> {
    (any_bth(opcode), any_aeth(), any::<[u32; 5]>(), any::<[u64; 5]>()).prop_map(
        move |(bth, aeth, [rkey, length, qkey, imm, ieth], [addr, swap_add, compare, old, qpn])| Headers {
            bth,
            deth: opcode.has_deth().then_some(Deth { qkey, src_qpn: Qpn::masked(qpn as u32) }),
            reth: opcode.has_reth().then_some(Reth { addr, rkey, length }),
            atomic_eth: opcode.has_atomic_eth().then_some(AtomicEth { addr, rkey, swap_add, compare }),
            aeth: opcode.has_aeth().then_some(aeth),
            atomic_ack_eth: opcode.has_atomic_ack_eth().then_some(old),
            imm: opcode.has_imm().then_some(imm),
            ieth: opcode.has_ieth().then_some(ieth),
        },
    )
}

/// The headers of any packet.
pub fn any_headers() -> impl Strategy<Value = Headers> {
    prop::sample::select(PacketOpcode::ALL).prop_flat_map(any_headers_of)
}

/// The packet's bytes with zeroes for the iCRC. The padding of the headers must fit the payload.
pub fn bytes_of(headers: &Headers, payload: &[u8]) -> Vec<u8> {
    let mut out = [0; MAX_HEADER_BYTES];
    let len = headers.encode(&mut out);
    let padding = vec![0; headers.bth.pad.into()];
    [&out[..len], payload, &padding, &[0; 4]].concat()
}

/// A base header with nothing special.
pub fn plain(opcode: PacketOpcode) -> Headers {
    Headers::new(Bth {
        opcode,
        solicited: false,
        migrated: false,
        pad: 0,
        pkey: 0xffff,
        fecn: false,
        becn: false,
        dest_qpn: Qpn::masked(0x11),
        ack_req: false,
        psn: Psn::masked(0xabcd),
    })
}
