//! Headers as values and as bytes: where each field lies, and that nothing is lost on the way.

mod wire_common;

use proptest::prelude::*;
use tbrdma_proto::wire::{
    Aeth, AtomicAckEth, AtomicEth, Bth, CREDITS_UNUSED, Deth, Headers, Ieth, ImmDt, MAX_HEADER_BYTES,
    NakCode, Operation, Packet, PacketOpcode, Reth, Service, Syndrome, credit_code, credit_count,
};
use tbrdma_proto::{Psn, Qpn};
use wire_common::{any_headers, any_headers_of, bytes_of, plain};

/// Bytes of the headers of each opcode: 12 of the base header, and as the specification's figures have them.
const HEADER_BYTES: [(u8, usize); 41] = [
    (0x00, 12), // RC SEND
    (0x01, 12),
    (0x02, 12),
    (0x03, 12 + 4),
    (0x04, 12),
    (0x05, 12 + 4),
    (0x06, 12 + 16), // RC RDMA WRITE
    (0x07, 12),
    (0x08, 12),
    (0x09, 12 + 4),
    (0x0a, 12 + 16),
    (0x0b, 12 + 16 + 4),
    (0x0c, 12 + 16), // RC RDMA READ
    (0x0d, 12 + 4),
    (0x0e, 12),
    (0x0f, 12 + 4),
    (0x10, 12 + 4),
    (0x11, 12 + 4), // RC acknowledgements
    (0x12, 12 + 4 + 8),
    (0x13, 12 + 28), // RC atomics
    (0x14, 12 + 28),
    (0x16, 12 + 4), // RC SEND with invalidate
    (0x17, 12 + 4),
    (0x20, 12), // UC SEND
    (0x21, 12),
    (0x22, 12),
    (0x23, 12 + 4),
    (0x24, 12),
    (0x25, 12 + 4),
    (0x26, 12 + 16), // UC RDMA WRITE
    (0x27, 12),
    (0x28, 12),
    (0x29, 12 + 4),
    (0x2a, 12 + 16),
    (0x2b, 12 + 16 + 4),
    (0x64, 12 + 8), // UD SEND
    (0x65, 12 + 8 + 4),
    (0x81, 12 + 16), // CNP
    (0xc0, 12 + 4),  // credits of tbrdma's own
    (0xc1, 12 + 4),
    (0xff, 0), // nobody's
];

#[test]
fn every_opcode_has_its_headers_and_no_other_number_is_one() {
    for raw in 0..=u8::MAX {
        let known = HEADER_BYTES.iter().find(|&&(known, bytes)| known == raw && bytes > 0);
        let opcode = PacketOpcode::from_raw(raw);
        assert_eq!(opcode.map(|opcode| (opcode.raw(), opcode.header_bytes())), known.copied(), "{raw:#04x}");
    }
    assert_eq!(PacketOpcode::ALL.len(), HEADER_BYTES.len() - 1);
    assert_eq!(PacketOpcode::ALL.iter().map(|opcode| opcode.header_bytes()).max(), Some(MAX_HEADER_BYTES));
}

#[test]
fn an_opcode_says_service_and_place() {
    for &opcode in PacketOpcode::ALL {
        let (service, prefix) = match opcode.raw() >> 5 {
            0 => (Service::Rc, "RC "),
            1 => (Service::Uc, "UC "),
            3 => (Service::Ud, "UD "),
            6 => (Service::Uc, "UC CREDIT"),
            _ => (Service::Cnp, "CNP"),
        };
        assert_eq!(opcode.service(), service);
        let text = opcode.to_string();
        assert!(text.starts_with(prefix), "{text}");
        let has_number = matches!(opcode.operation(), Operation::CreditRequest | Operation::Credit);
        assert_eq!(text.contains("_WITH_IMMEDIATE") || has_number, opcode.has_imm(), "{text}");
        assert_eq!(text.contains("_WITH_INVALIDATE"), opcode.has_ieth(), "{text}");
        if text.contains("FIRST") || text.contains("MIDDLE") {
            assert!(!opcode.is_last(), "{text}");
        }
        if text.contains("LAST") || text.contains("MIDDLE") {
            assert!(!opcode.is_first(), "{text}");
        }
        if text.contains("ONLY") {
            assert!(opcode.is_first() && opcode.is_last(), "{text}");
        }
        assert_eq!(text.contains("SEND"), opcode.operation() == Operation::Send, "{text}");
        assert_eq!(text.contains("RDMA_WRITE"), opcode.operation() == Operation::Write, "{text}");
        let answer = text.contains("RESPONSE")
            || text.contains("ACKNOWLEDGE")
            || ["CNP", "UC CREDIT"].contains(&&*text);
        assert_eq!(opcode.is_request(), !answer, "{text}");
    }
}

#[test]
fn fields_of_the_base_header_lie_where_the_specification_puts_them() {
    let zero = Bth {
        migrated: false,
        pkey: 0,
        dest_qpn: Qpn::masked(0),
        psn: Psn::masked(0),
        ..plain(PacketOpcode::RcSendFirst).bth
    };
    assert_eq!(zero.to_bytes(), [0; 12]);
    let one = |at: usize, byte: u8| {
        let mut bytes = [0; 12];
        bytes[at] = byte;
        bytes
    };
    assert_eq!(Bth { opcode: PacketOpcode::Cnp, ..zero }.to_bytes(), one(0, 0x81));
    assert_eq!(Bth { solicited: true, ..zero }.to_bytes(), one(1, 0x80));
    assert_eq!(Bth { migrated: true, ..zero }.to_bytes(), one(1, 0x40));
    assert_eq!(Bth { pad: 3, ..zero }.to_bytes(), one(1, 0x30));
    assert_eq!(Bth { pad: 7, ..zero }.to_bytes(), one(1, 0x30), "two bits");
    assert_eq!(Bth { pkey: 0x8000, ..zero }.to_bytes(), one(2, 0x80));
    assert_eq!(Bth { pkey: 1, ..zero }.to_bytes(), one(3, 1));
    assert_eq!(Bth { fecn: true, ..zero }.to_bytes(), one(4, 0x80));
    assert_eq!(Bth { becn: true, ..zero }.to_bytes(), one(4, 0x40));
    assert_eq!(Bth { dest_qpn: Qpn::masked(1 << 16), ..zero }.to_bytes(), one(5, 1));
    assert_eq!(Bth { dest_qpn: Qpn::masked(1), ..zero }.to_bytes(), one(7, 1));
    assert_eq!(Bth { ack_req: true, ..zero }.to_bytes(), one(8, 0x80));
    assert_eq!(Bth { psn: Psn::masked(1 << 16), ..zero }.to_bytes(), one(9, 1));
    assert_eq!(Bth { psn: Psn::masked(1), ..zero }.to_bytes(), one(11, 1));
}

#[test]
fn fields_of_the_other_headers_lie_where_the_specification_puts_them() {
    let reth = Reth { addr: 0x0102_0304_0506_0708, rkey: 0x090a_0b0c, length: 0x0d0e_0f10 };
    assert_eq!(reth.to_bytes(), core::array::from_fn::<u8, 16, _>(|i| i as u8 + 1));
    let atomic = AtomicEth {
        addr: 0x0102_0304_0506_0708,
        rkey: 0x090a_0b0c,
        swap_add: 0x0d0e_0f10_1112_1314,
        compare: 0x1516_1718_191a_1b1c,
    };
    assert_eq!(atomic.to_bytes(), core::array::from_fn::<u8, 28, _>(|i| i as u8 + 1));
    let deth = Deth { qkey: 0x0102_0304, src_qpn: Qpn::masked(0x06_0708) };
    assert_eq!(deth.to_bytes(), [1, 2, 3, 4, 0, 6, 7, 8]);
    assert_eq!(Deth::from_bytes(&[1, 2, 3, 4, 0xff, 6, 7, 8]), deth, "a reserved byte");
    assert_eq!(AtomicAckEth(0x0102_0304_0506_0708).to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(ImmDt(0x0102_0304).to_bytes(), [1, 2, 3, 4]);
    assert_eq!(Ieth(0x0102_0304).to_bytes(), [1, 2, 3, 4]);
    let aeth = Aeth { syndrome: Syndrome::Nak(NakCode::RemoteAccessError), msn: 0x02_0304 };
    assert_eq!(aeth.to_bytes(), [0x62, 2, 3, 4]);
    assert_eq!(Aeth { msn: 0xff02_0304, ..aeth }.to_bytes(), [0x62, 2, 3, 4], "24 bits");
}

#[test]
fn extended_headers_come_in_the_order_of_the_specification() {
    let write = Headers {
        reth: Some(Reth { addr: 1, rkey: 2, length: 3 }),
        imm: Some(4),
        ..plain(PacketOpcode::RcWriteOnlyWithImm)
    };
    assert_eq!(bytes_of(&write, &[])[12..32], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]);
    let datagram = Headers {
        deth: Some(Deth { qkey: 1, src_qpn: Qpn::masked(2) }),
        imm: Some(3),
        ..plain(PacketOpcode::UdSendOnlyWithImm)
    };
    assert_eq!(bytes_of(&datagram, &[])[12..24], [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
    let answer = Headers {
        aeth: Some(Aeth { syndrome: Syndrome::ACK, msn: 1 }),
        atomic_ack_eth: Some(2),
        ..plain(PacketOpcode::RcAtomicAcknowledge)
    };
    assert_eq!(bytes_of(&answer, &[])[12..24], [0x1f, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
}

#[test]
fn a_header_too_few_is_zeroes_and_one_too_many_is_left_out() {
    let mut headers = plain(PacketOpcode::RcReadRequest);
    headers.imm = Some(7);
    let mut out = [0xee; MAX_HEADER_BYTES];
    assert_eq!(headers.encode(&mut out), 28);
    assert_eq!(out[12..28], [0; 16]);
    assert_eq!(out[28..], [0xee; MAX_HEADER_BYTES - 28]);
}

#[test]
fn a_congestion_notification_is_a_base_header_and_16_zeroes() {
    let headers = Headers::cnp(Qpn::masked(0x11));
    let bytes = bytes_of(&headers, &[]);
    assert_eq!(bytes[..12], [0x81, 0x40, 0xff, 0xff, 0x40, 0, 0, 0x11, 0, 0, 0, 0]);
    assert_eq!(bytes[12..28], [0; 16]);
    assert_eq!(bytes.len(), 32);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.headers, packet.payload), (headers, &[][..]));
    assert!(Packet::parse(&bytes[..28]).is_err());
}

#[test]
fn syndromes_are_those_of_the_table() {
    for raw in 0..=u8::MAX {
        let value = raw & 31;
        let expected = match raw >> 5 {
            0 => Some(Syndrome::Ack { credits: value }),
            1 => Some(Syndrome::RnrNak { timer: value }),
            3 => NakCode::ALL.get(usize::from(value)).map(|&code| Syndrome::Nak(code)),
            _ => None,
        };
        assert_eq!(Syndrome::from_raw(raw), expected, "{raw:#04x}");
        if let Some(syndrome) = expected {
            assert_eq!(syndrome.raw(), raw);
        }
    }
    assert_eq!(Syndrome::ACK.raw(), 0x1f);
    assert_eq!(Syndrome::Nak(NakCode::PsnSequenceError).raw(), 0x60);
    assert_eq!(NakCode::from_raw(5), None);
}

#[test]
fn credits_are_those_of_the_table() {
    let counts: Vec<_> = (0..31).map(|code| credit_count(code).unwrap()).collect();
    let expected = [
        0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
        3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768,
    ];
    assert_eq!(counts, expected);
    assert_eq!(credit_count(CREDITS_UNUSED), None);
    assert_eq!(credit_count(32), None);
    for count in (0..40_000).chain([u32::MAX]) {
        let code = credit_code(count);
        assert!(credit_count(code).unwrap() <= count, "{count}");
        assert!(credit_count(code + 1).is_none_or(|more| more > count), "{count}");
    }
}

/// Any headers with a payload that its padding fits.
fn any_packet(headers: impl Strategy<Value = Headers>) -> impl Strategy<Value = (Headers, Vec<u8>)> {
    (headers, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(mut headers, payload)| {
        headers.bth.pad = (payload.len().wrapping_neg() % 4) as u8;
        (headers, payload)
    })
}

fn round_trip(headers: &Headers, payload: &[u8]) {
    let bytes = bytes_of(headers, payload);
    assert_eq!(bytes.len(), headers.packet_len(payload.len()));
    assert_eq!(Packet::parse(&bytes), Ok(Packet { headers: *headers, payload }));
    assert_eq!(Headers::parse(&bytes).unwrap().0, *headers);
}

#[test]
fn nothing_is_lost_on_the_way_whatever_the_opcode() {
    for &opcode in PacketOpcode::ALL {
        proptest!(ProptestConfig::with_cases(64), |((headers, payload) in any_packet(any_headers_of(opcode)))| {
            round_trip(&headers, &payload);
        });
    }
}

proptest! {
    /// A reader ignores what is reserved.
    #[test]
    fn reserved_bits_mean_nothing((headers, payload) in any_packet(any_headers()), a in 0..64u8, b in 0..128u8) {
        let mut bytes = bytes_of(&headers, &payload);
        bytes[4] |= a;
        bytes[8] |= b;
        prop_assert_eq!(Packet::parse(&bytes), Ok(Packet { headers, payload: &payload }));
    }

    /// One line, whatever the headers.
    #[test]
    fn text_is_one_line((headers, payload) in any_packet(any_headers())) {
        let text = Packet { headers, payload: &payload }.to_string();
        prop_assert!(!text.contains('\n') && !text.contains("  ") && text == text.trim(), "{:?}", text);
        prop_assert!(text.starts_with(headers.bth.opcode.name()));
    }
}
