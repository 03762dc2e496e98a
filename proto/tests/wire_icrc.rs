//! The invariant CRC: what it covers and what not, in pieces as in one, and the identification it gives away.

mod wire_common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use tbrdma_proto::Gid;
use tbrdma_proto::wire::WireError;
use tbrdma_proto::wire::icrc::{BadIcrc, Flow, IcrcHasher, IdentHint, seal, verify};
use tbrdma_proto::wire::ip::{Datagram, Ipv4Header, MAX_DATAGRAM_HEADER_BYTES};
use wire_common::{golden, slow_icrc};

fn v4(source_port: u16) -> Flow {
    let to = SocketAddr::new(Ipv4Addr::new(10, 77, 0, 2).into(), 4791);
    Flow::new(SocketAddr::new(Ipv4Addr::new(10, 77, 0, 1).into(), source_port), to).unwrap()
}

fn v6(source_port: u16) -> Flow {
    let address = |host| Ipv6Addr::new(0xfe80, 0, 0, 0, 0x1234, 0, 0, host).into();
    Flow::new(SocketAddr::new(address(1), source_port), SocketAddr::new(address(2), 4791)).unwrap()
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let v4 = any::<([u8; 4], [u8; 4], u16, u16, bool)>().prop_map(|(from, to, from_port, to_port, df)| {
        let flow = Flow::new(
            SocketAddr::new(Ipv4Addr::from(from).into(), from_port),
            SocketAddr::new(Ipv4Addr::from(to).into(), to_port),
        );
        flow.unwrap().with_dont_fragment(df)
    });
    // Global unicast addresses, so that none is an IPv4-mapped one.
    let v6 = any::<([u8; 16], [u8; 16], u16, u16)>().prop_map(|(mut from, mut to, from_port, to_port)| {
        from[0] = 0x20;
        to[0] = 0x20;
        Flow::new(
            SocketAddr::new(Ipv6Addr::from(from).into(), from_port),
            SocketAddr::new(Ipv6Addr::from(to).into(), to_port),
        )
        .unwrap()
    });
    prop_oneof![v4, v6]
}

/// Any bytes of a length that a packet may have; the iCRC does not care what they mean.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4..40usize, 4..1100usize].prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4))
}

/// The whole IP packet.
fn ip_packet(flow: &Flow, ident: u16, udp_payload: &[u8]) -> Vec<u8> {
    let mut out = [0; MAX_DATAGRAM_HEADER_BYTES];
    let len = Datagram::of_flow(flow, ident, udp_payload).encode_headers(&mut out);
    [&out[..len], udp_payload].concat()
}

/// What a receiver of the whole IP packet says, who knows the identification. The IPv4 checksum is put right first, as a router would.
fn accepted(mut ip_packet: Vec<u8>) -> bool {
    if let Some(header) =
        ip_packet.first_chunk_mut::<{ Ipv4Header::BYTES }>().filter(|header| header[0] >> 4 == 4)
    {
        header[10..12].fill(0);
        let sum: u32 = header.as_chunks().0.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok(datagram) = Datagram::parse(&ip_packet) else { return false };
    let Ok(flow) = datagram.flow() else { return false };
    let hint = IdentHint::Known(datagram.ident().unwrap_or(0));
    verify(&flow, hint, datagram.payload).is_ok()
}

#[test]
fn only_what_routers_change_may_change() {
    for golden in golden() {
        let ipv4 = golden.bytes[0] >> 4 == 4;
        let ip_bytes = if ipv4 { 20 } else { 40 };
        assert!(accepted(golden.bytes.clone()), "{}", golden.name);
        for bit in 0..golden.bytes.len() * 8 {
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            let mut changed = golden.bytes.clone();
            changed[byte] ^= mask;
            let free = match byte {
                // Type of service, time to live, checksum.
                1 | 8 | 10 | 11 if ipv4 => true,
                // Traffic class, flow label, hop limit.
                0 if !ipv4 => mask <= 8,
                1 | 2 | 3 | 7 if !ipv4 => true,
                // The UDP checksum; the congestion marks and the reserved bits beside them.
                _ => byte == ip_bytes + 6 || byte == ip_bytes + 7 || byte == ip_bytes + 8 + 4,
            };
            assert_eq!(accepted(changed), free, "{}: byte {byte}, bit {mask:#04x}", golden.name);
        }
    }
}

#[test]
fn a_changed_bit_is_found_even_without_the_identification() {
    for golden in golden() {
        let datagram = golden.datagram();
        let flow = datagram.flow().unwrap();
        for bit in 0..datagram.payload.len() * 8 {
            let mut changed = datagram.payload.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let marks = bit / 8 == 4;
            let found = verify(&flow, IdentHint::Unknown, &changed);
            assert_eq!(found.is_ok(), marks, "{}: bit {bit}: {found:?}", golden.name);
        }
    }
}

#[test]
fn a_crc_stored_as_other_numbers_are_is_wrong() {
    for golden in golden() {
        let datagram = golden.datagram();
        let mut swapped = datagram.payload.to_vec();
        swapped.last_chunk_mut::<4>().unwrap().reverse();
        let flow = datagram.flow().unwrap();
        assert!(verify(&flow, IdentHint::Unknown, &swapped).is_err(), "{}", golden.name);
    }
}

#[test]
fn every_identification_is_found() {
    for len in [16, 80, 4112] {
        let flow = v4(49152);
        let mut packet = vec![0x5a; len];
        for ident in 0..=u16::MAX {
            // The long one takes its time.
            if len > 100 && ident % 97 != 0 {
                continue;
            }
            seal(&flow, ident, &mut packet).unwrap();
            assert_eq!(verify(&flow, IdentHint::Unknown, &packet), Ok(Some(ident)));
        }
    }
}

#[test]
fn noise_passes_the_weak_check_as_rarely_as_16_bits_allow_and_the_strong_one_never() {
    let flow = v4(49152);
    let mut packet = vec![0x5a; 80];
    let mut passed = 0;
    let mut noise = 1_u32;
    for _ in 0..1 << 20 {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *packet.last_chunk_mut().unwrap() = noise.to_le_bytes();
        assert!(verify(&flow, IdentHint::Known(7), &packet).is_err());
        passed += u32::from(verify(&flow, IdentHint::Unknown, &packet).is_ok());
    }
    // 16 are to be expected.
    assert!((1..=48).contains(&passed), "{passed}");
}

#[test]
fn the_longest_datagrams_are_handled_too() {
    let longest = 65_535 - 28 - 3;
    for (flow, hint, ident) in [(v4(1), IdentHint::Unknown, Some(0xfedc)), (v6(1), IdentHint::Unknown, None)]
    {
        let mut packet = vec![0xc3; longest];
        seal(&flow, 0xfedc, &mut packet).unwrap();
        let whole = ip_packet(&flow, 0xfedc, &packet);
        assert_eq!(slow_icrc(&whole).to_le_bytes(), packet[longest - 4..]);
        assert_eq!(verify(&flow, hint, &packet), Ok(ident));
    }
}

#[test]
fn the_last_of_a_packet_that_is_none_is_not_looked_for() {
    for len in 0..40 {
        let mut bytes = vec![0; len];
        let sealed = seal(&v4(1), 0, &mut bytes);
        let verified = verify(&v4(1), IdentHint::Unknown, &bytes);
        if len < 16 {
            assert_eq!(sealed, Err(WireError::TooShort { len, need: 16 }));
        }
        if len < 16 || len % 4 != 0 {
            assert_eq!(verified, Err(BadIcrc::Shape { len }));
        } else {
            assert_eq!(verified, Ok(Some(0)));
        }
    }
    let text = BadIcrc::Shape { len: 3 }.to_string();
    assert!(text.contains("3 bytes"), "{text}");
    let text = BadIcrc::Mismatch { stored: 0xab, computed: 0xcd }.to_string();
    assert!(text.contains("0x000000ab") && text.contains("0x000000cd"), "{text}");
}

#[test]
fn flows_know_their_ends() {
    assert_eq!(v4(7).source().to_string(), "10.77.0.1:7");
    assert_eq!(v4(7).destination().to_string(), "10.77.0.2:4791");
    assert_eq!(v6(7).source().to_string(), "[fe80::1234:0:0:1]:7");
    assert!(v4(7).is_ipv4() && !v6(7).is_ipv4());
    assert!(v4(7).has_dont_fragment());
    assert_eq!(v4(7).with_dont_fragment(false).with_dont_fragment(true), v4(7));
    assert_ne!(v4(7).with_dont_fragment(false), v4(7));
    assert_eq!(v6(7).with_dont_fragment(false), v6(7));

    // A GID is an address.
    let gid: Gid = "::ffff:10.77.0.1".parse().unwrap();
    let mapped = SocketAddr::new(Ipv6Addr::from(gid).into(), 7);
    assert_eq!(Flow::new(mapped, v4(7).destination()), Ok(v4(7)));
    assert_eq!(IpAddr::from(gid), v4(7).source().ip());
    assert_eq!(Gid::from(v4(7).source().ip()), gid);
    assert_eq!(IpAddr::from(Gid::from(v6(7).source().ip())), v6(7).source().ip());

    let mixed = Flow::new(v4(7).source(), v6(7).destination()).unwrap_err();
    assert_eq!((mixed.from, mixed.to), (v4(7).source().ip(), v6(7).destination().ip()));
    assert!(mixed.to_string().contains("10.77.0.1"), "{mixed}");
}

proptest! {
    /// Whatever the addresses, the lengths and the identification.
    #[test]
    fn agrees_with_the_slow_one(flow in any_flow(), ident: u16, mut packet in any_packet()) {
        seal(&flow, ident, &mut packet).unwrap();
        let whole = ip_packet(&flow, ident, &packet);
        prop_assert_eq!(slow_icrc(&whole).to_le_bytes(), *packet.last_chunk::<4>().unwrap());
        let found = flow.is_ipv4().then_some(ident);
        prop_assert_eq!(verify(&flow, IdentHint::Known(ident), &packet), Ok(found));
        prop_assert_eq!(verify(&flow, IdentHint::Unknown, &packet), Ok(found));
        prop_assert!(accepted(whole));
    }

    /// Wherever the parts of a packet are cut, also within the header.
    #[test]
    fn is_the_same_in_pieces(
        flow in any_flow(), ident: u16, packet in any_packet(), mut cuts in prop::collection::vec(0..60usize, 0..6), far: usize,
    ) {
        let (body, _) = packet.split_last_chunk::<4>().unwrap();
        let mut whole = IcrcHasher::new(&flow, ident, packet.len());
        whole.update(body);
        cuts.push(far % body.len());
        cuts.retain(|&cut| cut <= body.len());
        cuts.sort_unstable();
        let mut pieces = IcrcHasher::new(&flow, ident, packet.len());
        let mut done = 0;
        for cut in cuts {
            pieces.update(&body[done..cut]);
            done = cut;
        }
        pieces.update(&body[done..]);
        prop_assert_eq!(pieces.finish(), whole.finish());
    }
}

#[test]
fn a_crc_that_another_has_computed_is_taken_on_trust() {
    let payload: Vec<u8> = (0..=255).collect();
    let flow = v6(4791);
    let mut whole = IcrcHasher::new(&flow, 0, 12 + 256 + 4);
    let mut other = whole.clone();
    for hasher in [&mut whole, &mut other] {
        hasher.update(&[4, 0, 0xff, 0xff, 9, 0, 0, 17, 0, 0, 0, 1]);
    }
    whole.update(&payload);
    assert_eq!(other.update_by(|_| None), None, "and nothing is taken");
    let continued = other.update_by(|crc| {
        let mut hasher = crc32fast::Hasher::new_with_initial(crc);
        hasher.update(&payload);
        Some(hasher.finalize())
    });
    assert_eq!(continued, Some(()));
    assert_eq!(whole.finish(), other.finish());
}
