//! Packets that Linux's rdma_rxe wrote are understood, verified, and written again byte for byte.

mod wire_common;

use tbrdma_proto::wire::icrc::{ICRC_BYTES, IcrcHasher, IdentHint, seal, verify};
use tbrdma_proto::wire::ip::{IpHeader, MAX_DATAGRAM_HEADER_BYTES};
use tbrdma_proto::wire::{MAX_HEADER_BYTES, Packet, ROCE_UDP_PORT};
use wire_common::{bytes_of, golden, slow_icrc};

#[test]
fn say_what_the_kernel_meant() {
    let lines: Vec<_> = golden()
        .iter()
        .map(|golden| format!("{}: {}", golden.name, Packet::parse(golden.datagram().payload).unwrap()))
        .collect();
    let expected = "\
v4 RC ACK: RC ACKNOWLEDGE qp 0x0abcde psn 0x800000 ack msn 1
v4 RC SEND_ONLY: RC SEND_ONLY qp 0x0abcde psn 0x4ff931 ackreq len 64
v4 RC SEND_LAST: RC SEND_LAST qp 0x0abcde psn 0xfdd33b ackreq pad 1 len 3
v6 RC ACK: RC ACKNOWLEDGE qp 0x0abcde psn 0x800000 ack msn 1
v6 RC SEND_ONLY: RC SEND_ONLY qp 0x0abcde psn 0x1576dd ackreq len 64
v4 RC WRITE_ONLY: RC RDMA_WRITE_ONLY qp 0x0abcde psn 0xfffffe ackreq pad 3 va 0x70000000004d rkey 0x00c0ffee dmalen 1 len 1
v4 RC READ_REQ: RC RDMA_READ_REQUEST qp 0x0abcde psn 0xffffff ackreq va 0x70000000004d rkey 0x00c0ffee dmalen 1
v4 RC WRITE_LAST: RC RDMA_WRITE_LAST qp 0x0abcde psn 0x000016 ackreq pad 3 len 1
v4 RC FETCH_ADD: RC FETCH_ADD qp 0x0abcde psn 0x00012a ackreq va 0x700000010000 rkey 0x00c0ffee swapadd 5 compare 0
v4 RC CMP_SWAP: RC COMPARE_SWAP qp 0x0abcde psn 0x00012c ackreq va 0x700000010000 rkey 0x00c0ffee swapadd 99 compare 12
v4 RC ATOMIC_ACK: RC ATOMIC_ACKNOWLEDGE qp 0x0abcde psn 0x800025 ack msn 3 old 41
v6 RC WRITE_ONLY: RC RDMA_WRITE_ONLY qp 0x0abcde psn 0xfffffe ackreq pad 3 va 0x70000000004d rkey 0x00c0ffee dmalen 1 len 1
v6 RC READ_REQ: RC RDMA_READ_REQUEST qp 0x0abcde psn 0xffffff ackreq va 0x70000000004d rkey 0x00c0ffee dmalen 1
v6 RC WRITE_LAST: RC RDMA_WRITE_LAST qp 0x0abcde psn 0x000007 ackreq pad 3 len 1
v6 RC FETCH_ADD: RC FETCH_ADD qp 0x0abcde psn 0x000050 ackreq va 0x700000010000 rkey 0x00c0ffee swapadd 5 compare 0
v6 RC CMP_SWAP: RC COMPARE_SWAP qp 0x0abcde psn 0x000052 ackreq va 0x700000010000 rkey 0x00c0ffee swapadd 99 compare 12
v6 RC ATOMIC_ACK: RC ATOMIC_ACKNOWLEDGE qp 0x0abcde psn 0x800007 ack msn 3 old 41";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn are_written_again_byte_for_byte() {
    for golden in golden() {
        let datagram = golden.datagram();
        assert_eq!(datagram.udp.destination, ROCE_UDP_PORT);
        let packet = Packet::parse(datagram.payload).unwrap();
        let mut bytes = bytes_of(&packet.headers, packet.payload);
        seal(&datagram.flow().unwrap(), datagram.ident().unwrap_or(0), &mut bytes).unwrap();
        let mut out = [0; MAX_DATAGRAM_HEADER_BYTES];
        let len = datagram.encode_headers(&mut out);
        assert_eq!([&out[..len], &bytes].concat(), golden.bytes, "{}", golden.name);
        assert_eq!(packet.headers.packet_len(packet.payload.len()), datagram.payload.len());
    }
}

#[test]
fn have_the_icrc_that_both_implementations_compute() {
    for golden in golden() {
        let (body, stored) = golden.bytes.split_last_chunk().unwrap();
        assert_eq!(slow_icrc(&golden.bytes), u32::from_le_bytes(*stored), "{}", golden.name);

        let datagram = golden.datagram();
        let mut hasher =
            IcrcHasher::new(&datagram.flow().unwrap(), datagram.ident().unwrap_or(0), datagram.payload.len());
        hasher.update(&body[golden.bytes.len() - datagram.payload.len()..]);
        assert_eq!(hasher.finish().to_le_bytes(), *stored, "{}", golden.name);
    }
}

#[test]
fn tell_the_identification_that_their_ip_header_had() {
    for golden in golden() {
        let datagram = golden.datagram();
        let flow = datagram.flow().unwrap();
        assert_eq!(
            verify(&flow, IdentHint::Unknown, datagram.payload),
            Ok(datagram.ident()),
            "{}",
            golden.name
        );
        if let Some(ident) = datagram.ident() {
            assert_ne!(ident, 0, "rxe numbers its packets");
            assert_eq!(verify(&flow, IdentHint::Known(ident), datagram.payload), Ok(Some(ident)));
            assert!(verify(&flow, IdentHint::Known(0), datagram.payload).is_err());
            assert!(verify(&flow, IdentHint::Known(ident ^ 1), datagram.payload).is_err());
        }
    }
}

/// The worked example: an acknowledgement of 48 bytes.
#[test]
fn the_first_one_field_by_field() {
    let golden = &golden()[0];
    let datagram = golden.datagram();
    let IpHeader::V4(ip) = datagram.ip else { panic!("{:?}", datagram.ip) };
    assert_eq!((ip.tos, ip.ttl, ip.protocol, ip.total_length), (0, 64, 17, 48));
    assert_eq!((ip.ident, ip.dont_fragment), (0xff5a, true));
    assert_eq!(datagram.to_string(), "10.77.0.2.51887 > 10.77.0.1.4791 ident 0xff5a df");
    assert_eq!((datagram.udp.length, datagram.udp.checksum), (28, 0));
    assert_eq!(golden.bytes[golden.bytes.len() - ICRC_BYTES..], 0xff73_cf87_u32.to_le_bytes());

    let mut out = [0; MAX_HEADER_BYTES];
    let len = Packet::parse(datagram.payload).unwrap().headers.encode(&mut out);
    assert_eq!(out[..len], [0x11, 0, 0xff, 0xff, 0, 0x0a, 0xbc, 0xde, 0, 0x80, 0, 0, 0x1f, 0, 0, 1]);
}
