//! The IP and UDP headers around a packet: built, read again, and refused where they are none.

mod wire_common;

use proptest::prelude::*;
use tbrdma_proto::wire::icrc::{Flow, IdentHint, seal, verify};
use tbrdma_proto::wire::ip::{
    Datagram, IpError, IpHeader, Ipv4Header, Ipv6Header, MAX_DATAGRAM_HEADER_BYTES, PROTOCOL_UDP, UdpHeader,
};
use wire_common::golden;

fn flow(from: &str, to: &str) -> Flow {
    Flow::new(from.parse().unwrap(), to.parse().unwrap()).unwrap()
}

fn v4() -> Flow {
    flow("10.0.0.1:49152", "10.0.0.2:4791")
}

fn v6() -> Flow {
    flow("[fe80::1]:49152", "[fe80::2]:4791")
}

fn whole(datagram: &Datagram<'_>) -> Vec<u8> {
    let mut out = [0; MAX_DATAGRAM_HEADER_BYTES];
    let len = datagram.encode_headers(&mut out);
    [&out[..len], datagram.payload].concat()
}

/// The sum in ones' complement of an even number of bytes: 0xffff where a checksum is right.
fn sum(bytes: &[u8]) -> u16 {
    bytes.as_chunks().0.iter().map(|&pair| u16::from_be_bytes(pair)).fold(0, |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

#[test]
fn are_built_for_a_flow() {
    let bytes = whole(&Datagram::of_flow(&v4(), 0x1234, &[0xaa; 16]));
    assert_eq!(bytes[..10], [0x45, 0, 0, 44, 0x12, 0x34, 0x40, 0, 64, 17]);
    assert_eq!(sum(&bytes[..20]), 0xffff);
    assert_eq!(bytes[12..20], [10, 0, 0, 1, 10, 0, 0, 2]);
    assert_eq!(bytes[20..26], [0xc0, 0, 0x12, 0xb7, 0, 24]);
    assert_eq!(bytes[28..], [0xaa; 16]);

    let bytes = whole(&Datagram::of_flow(&v6(), 0x1234, &[0xaa; 16]));
    assert_eq!(bytes[..8], [0x60, 0, 0, 0, 0, 24, 17, 64]);
    assert_eq!(bytes[8..24], [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(bytes[24..40], [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(bytes[40..46], [0xc0, 0, 0x12, 0xb7, 0, 24]);
    assert_eq!(bytes[48..], [0xaa; 16]);
}

#[test]
fn udp_checksums_are_right_and_never_zero() {
    for flow in [v4(), v6()] {
        let addresses = if flow.is_ipv4() { 12..20 } else { 8..40 };
        for byte in 0..=u8::MAX {
            let mut payload = [0x5a; 16];
            payload[0] = byte;
            let datagram = Datagram::of_flow(&flow, 0, &payload);
            let bytes = whole(&datagram);
            let ip_bytes = bytes.len() - 24;
            let pseudo = [&bytes[addresses.clone()], &[0, 17, 0, 24], &bytes[ip_bytes..]].concat();
            assert_eq!(sum(&pseudo), 0xffff);
            assert_ne!(datagram.udp.checksum, 0);
        }
        // The last byte of an odd number counts as the upper one of a pair.
        let ip = IpHeader::of_flow(&flow, 0, 3);
        let header = UdpHeader { source: 1, destination: 2, length: 12, checksum: 0 };
        assert_eq!(header.with_checksum(&ip, &[1, 2, 3]), header.with_checksum(&ip, &[1, 2, 3, 0]));
    }
    // A sum of which nothing remains is said with ones: zero means none.
    let ip = IpHeader::of_flow(&v4(), 0, 2);
    let header = UdpHeader { source: 1, destination: 2, length: 10, checksum: 0 };
    let rest = header.with_checksum(&ip, &[0, 0]).checksum;
    assert_eq!(header.with_checksum(&ip, &rest.to_be_bytes()).checksum, 0xffff);
}

#[test]
fn a_datagrams_receiver_gets_the_header_that_came() {
    let IpHeader::V6(ip) = IpHeader::of_flow(&v6(), 0, 16) else { unreachable!() };
    let ip = Ipv6Header { traffic_class: 0xa5, flow_label: 0xf_1234, ..ip };
    assert_eq!(IpHeader::V6(ip).grh(), ip.to_bytes());
    assert_eq!(ip.to_bytes()[..4], [0x6a, 0x5f, 0x12, 0x34]);

    let ip = IpHeader::of_flow(&v4(), 7, 16);
    let IpHeader::V4(header) = ip else { unreachable!() };
    let grh = ip.grh();
    assert_eq!(grh[..20], [0; 20]);
    assert_eq!(grh[20..], header.to_bytes());
    // ibverbs programs look for the sender's address here.
    assert_eq!(grh[32..36], [10, 0, 0, 1]);
}

#[test]
fn congestion_is_the_ecn_field_saying_ce() {
    for class in 0..=u8::MAX {
        let (IpHeader::V4(v4), IpHeader::V6(v6)) =
            (IpHeader::of_flow(&v4(), 0, 16), IpHeader::of_flow(&v6(), 0, 16))
        else {
            unreachable!()
        };
        assert_eq!(IpHeader::V4(Ipv4Header { tos: class, ..v4 }).congestion(), class & 3 == 3);
        assert_eq!(IpHeader::V6(Ipv6Header { traffic_class: class, ..v6 }).congestion(), class & 3 == 3);
    }
}

#[test]
fn what_is_no_datagram_is_refused() {
    let bytes = whole(&Datagram::of_flow(&v4(), 7, &[0; 16]));
    let parse = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        // A right sum, so that what is behind it is seen.
        bytes[10..12].fill(0);
        let checksum = !sum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        Datagram::parse(&bytes).map(|datagram| datagram.payload.len())
    };
    assert_eq!(parse(&|_| ()), Ok(16));
    assert_eq!(parse(&|bytes| bytes[0] = 0x55), Err(IpError::Version { version: 5 }));
    assert_eq!(parse(&|bytes| bytes[0] = 0x46), Err(IpError::Options { words: 6 }));
    assert_eq!(parse(&|bytes| bytes[0] = 0x44), Err(IpError::Options { words: 4 }));
    assert_eq!(parse(&|bytes| bytes[6] |= 0x20), Err(IpError::Fragment), "more fragments");
    assert_eq!(parse(&|bytes| bytes[7] = 1), Err(IpError::Fragment), "an offset");
    assert_eq!(parse(&|bytes| bytes[6] |= 0x80), Err(IpError::Fragment), "a reserved flag");
    assert_eq!(parse(&|bytes| bytes[9] = 6), Err(IpError::Protocol { protocol: 6 }));
    assert_eq!(parse(&|bytes| bytes[3] = 19), Err(IpError::TooShort { len: 19, need: 28 }));
    assert_eq!(parse(&|bytes| bytes[3] = 45), Err(IpError::TooShort { len: 44, need: 45 }));
    assert_eq!(parse(&|bytes| bytes[3] = 27), Err(IpError::TooShort { len: 27, need: 28 }));
    assert_eq!(parse(&|bytes| bytes[25] = 25), Err(IpError::Length { udp: 25, ip: 24 }));
    assert_eq!(parse(&|bytes| bytes[25] = 7), Err(IpError::Length { udp: 7, ip: 24 }));
    assert_eq!(parse(&|bytes| bytes[25] = 20), Ok(12), "as UDP says");
    assert_eq!(parse(&|bytes| bytes.extend([0; 16])), Ok(16), "Ethernet's padding");

    let mut damaged = bytes;
    damaged[8] ^= 1;
    assert_eq!(Datagram::parse(&damaged), Err(IpError::Checksum));
    assert_eq!(Datagram::parse(&[]), Err(IpError::TooShort { len: 0, need: 1 }));
}

#[test]
fn cut_short_anywhere_it_is_refused() {
    for golden in golden() {
        for len in 0..golden.bytes.len() {
            let error = Datagram::parse(&golden.bytes[..len]).unwrap_err();
            assert!(
                matches!(error, IpError::TooShort { need, .. } if need > len),
                "{}: {error}",
                golden.name
            );
        }
    }
}

proptest! {
    #[test]
    fn are_read_as_they_were_written(
        from: u32, to: u32, ports: [u16; 2], ident: u16, dont_fragment: bool, tos: u8, ttl: u8, payload: Vec<u8>,
    ) {
        let ip = Ipv4Header {
            tos,
            total_length: (28 + payload.len()) as u16,
            ident,
            dont_fragment,
            ttl,
            protocol: PROTOCOL_UDP,
            source: from.into(),
            destination: to.into(),
        };
        let [source, destination] = ports;
        let udp = UdpHeader { source, destination, length: (8 + payload.len()) as u16, checksum: 0 };
        let datagram = Datagram { ip: IpHeader::V4(ip), udp, payload: &payload };
        let bytes = whole(&datagram);
        prop_assert_eq!(Datagram::parse(&bytes), Ok(datagram));
        let flow = datagram.flow().unwrap();
        prop_assert_eq!(flow.has_dont_fragment(), dont_fragment);
        prop_assert_eq!((flow.source().ip(), flow.source().port()), (datagram.ip.source(), source));
        prop_assert_eq!((flow.destination().ip(), flow.destination().port()), (datagram.ip.destination(), destination));
    }

    #[test]
    fn ipv6_too(
        from: u128, to: u128, ports: [u16; 2], traffic_class: u8, flow_label in 0..1u32 << 20, hop_limit: u8, payload: Vec<u8>,
    ) {
        let ip = Ipv6Header {
            traffic_class,
            flow_label,
            payload_length: (8 + payload.len()) as u16,
            next_header: PROTOCOL_UDP,
            hop_limit,
            source: from.into(),
            destination: to.into(),
        };
        let [source, destination] = ports;
        let udp = UdpHeader { source, destination, length: (8 + payload.len()) as u16, checksum: 0 };
        let datagram = Datagram { ip: IpHeader::V6(ip), udp, payload: &payload };
        let bytes = whole(&datagram);
        prop_assert_eq!(Datagram::parse(&bytes), Ok(datagram));
        prop_assert_eq!(datagram.ident(), None);
    }

    /// The headers built for a flow are those its iCRC is about.
    #[test]
    fn a_sealed_packet_survives_the_way(v6_flow: bool, ident: u16, words in 4..100usize, dont_fragment: bool) {
        let flow = if v6_flow { v6() } else { v4().with_dont_fragment(dont_fragment) };
        let mut packet = vec![0x3c; words * 4];
        seal(&flow, ident, &mut packet).unwrap();
        let bytes = whole(&Datagram::of_flow(&flow, ident, &packet));
        let datagram = Datagram::parse(&bytes).unwrap();
        prop_assert_eq!(datagram.flow(), Ok(flow));
        let hint = IdentHint::Known(datagram.ident().unwrap_or(0));
        prop_assert_eq!(verify(&flow, hint, datagram.payload), Ok(datagram.ident()));
    }
}
