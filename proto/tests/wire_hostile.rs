//! Bytes that are no packet get a clear refusal, and whatever the bytes, nothing panics and nothing lies outside of them.

mod wire_common;

use proptest::prelude::*;
use tbrdma_proto::wire::ip::Datagram;
use tbrdma_proto::wire::{MAX_HEADER_BYTES, Packet, PacketOpcode, WireError};
use wire_common::{bytes_of, golden, plain};

#[test]
fn a_forged_pad_count_does_not_make_the_payload_negative() {
    for &opcode in PacketOpcode::ALL {
        for pad in 1..=3 {
            let mut headers = plain(opcode);
            let mut bytes = bytes_of(&headers, &[]);
            headers.bth.pad = pad;
            let forged = bytes_of(&headers, &[]);
            bytes[..12].copy_from_slice(&forged[..12]);
            if opcode.has_aeth() {
                bytes[12] = 0x1f;
            }
            assert_eq!(Packet::parse(&bytes), Err(WireError::Pad { pad, room: 0 }), "{opcode}");
            // With a word of payload and padding it is what it says.
            let len = bytes.len();
            bytes.splice(len - 4..len - 4, [1, 2, 3, 4]);
            assert_eq!(
                Packet::parse(&bytes).map(|packet| packet.payload.len()),
                Ok(4 - usize::from(pad)),
                "{opcode}"
            );
        }
    }
}

#[test]
fn a_packet_cut_short_says_how_much_is_missing() {
    for &opcode in PacketOpcode::ALL {
        let mut whole = bytes_of(&plain(opcode), &[]);
        if opcode.has_aeth() {
            whole[12] = 0x1f;
        }
        let need = opcode.header_bytes() + 4;
        assert_eq!(whole.len(), need);
        assert!(Packet::parse(&whole).is_ok(), "{opcode}");
        for len in 0..need {
            let expected = if len < 16 { 16 } else { need };
            let error = Packet::parse(&whole[..len]).unwrap_err();
            assert_eq!(error, WireError::TooShort { len, need: expected }, "{opcode}");
        }
    }
    let text = WireError::TooShort { len: 3, need: 16 }.to_string();
    assert!(text.contains("3 bytes") && text.contains("16"), "{text}");
}

#[test]
fn a_length_that_is_no_multiple_of_4_is_refused() {
    for extra in [1, 2, 3, 5] {
        let bytes = bytes_of(&plain(PacketOpcode::RcSendOnly), &vec![0; extra]);
        assert_eq!(Packet::parse(&bytes), Err(WireError::Unaligned { len: bytes.len() }));
    }
}

#[test]
fn unknown_numbers_are_refused() {
    let mut bytes = bytes_of(&plain(PacketOpcode::RcSendOnly), &[]);
    // RDMA FLUSH, ATOMIC WRITE, reliable datagrams, XRC, manufacturers' own.
    for opcode in [0x15, 0x18, 0x1c, 0x1d, 0x2c, 0x40, 0x63, 0x66, 0xa0, 0xc2, 0xff] {
        bytes[0] = opcode;
        assert_eq!(Packet::parse(&bytes), Err(WireError::Opcode { opcode }));
    }
    let mut bytes = bytes_of(&plain(PacketOpcode::RcSendOnly), &[]);
    for version in 1..16 {
        bytes[1] = version;
        assert_eq!(Packet::parse(&bytes), Err(WireError::TransportVersion { version }));
    }
    let mut bytes = bytes_of(&plain(PacketOpcode::RcAcknowledge), &[]);
    for syndrome in [0x40, 0x5f, 0x65, 0x7f, 0x80, 0x9f, 0xff] {
        bytes[12] = syndrome;
        assert_eq!(Packet::parse(&bytes), Err(WireError::Syndrome { syndrome }));
    }
}

/// Whatever is accepted is made of the bytes given, and would be written as they are but for reserved bits and padding.
fn check(bytes: &[u8]) {
    let Ok(packet) = Packet::parse(bytes) else { return };
    let len = packet.headers.len();
    let pad = usize::from(packet.headers.bth.pad);
    assert_eq!(packet.payload, &bytes[len..bytes.len() - 4 - pad]);
    let mut out = [0; MAX_HEADER_BYTES];
    assert_eq!(packet.headers.encode(&mut out), len);
    let mut again = [&out[..len], &bytes[len..]].concat();
    assert_eq!(Packet::parse(&again), Ok(packet));
    again[4] |= bytes[4] & 0x3f;
    again[8] |= bytes[8] & 0x7f;
    assert_eq!(again[..12], bytes[..12]);
    assert!(!packet.to_string().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn noise(mut bytes in prop::collection::vec(any::<u8>(), 0..120), opcode in prop::sample::select(PacketOpcode::ALL)) {
        check(&bytes);
        let _ = Datagram::parse(&bytes);
        // Nearly a packet.
        if let [first, flags, ..] = bytes.as_mut_slice() {
            *first = opcode.raw();
            *flags &= 0xf0;
        }
        check(&bytes);
    }

    #[test]
    fn damaged_packets(which in 0..17usize, damage in prop::collection::vec((0..120usize, any::<u8>()), 1..4), cut in 0..130usize) {
        let golden = &golden()[which];
        let mut bytes = golden.bytes.clone();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        if let Ok(datagram) = Datagram::parse(&bytes) {
            check(datagram.payload);
        }
        check(bytes.get(28..).unwrap_or_default());
        check(bytes.get(48..).unwrap_or_default());
    }
}
