//! What must hold for any bytes that come from a network: one function a fuzz target, as in checks.rs.

use std::net::SocketAddr;

use tbrdma_proto::wire::icrc::{BadIcrc, Flow, IcrcHasher, IdentHint, seal, verify};
use tbrdma_proto::wire::ip::{Datagram, IpHeader, MAX_DATAGRAM_HEADER_BYTES};
use tbrdma_proto::wire::{MAX_HEADER_BYTES, Packet, PacketOpcode, WireError};

/// A packet that is understood lies within its bytes, is written again as it was, and says so in one line. The bytes are taken as the
/// payload of UDP, and as a whole IP packet.
pub(crate) fn wire_parse(data: &[u8]) {
    packet(data);
    if let Ok(datagram) = Datagram::parse(data) {
        let mut out = [0; MAX_DATAGRAM_HEADER_BYTES];
        let len = datagram.encode_headers(&mut out);
        let mut original = data[..len].to_vec();
        if let IpHeader::V4(_) = datagram.ip {
            // A checksum can say zero in two ways.
            original[10..12].copy_from_slice(&out[10..12]);
        }
        assert_eq!(original, out[..len]);
        assert_eq!(data[len..].get(..datagram.payload.len()), Some(datagram.payload));
        one_line(&datagram.to_string());
        packet(datagram.payload);
    }
}

/// The part of [`wire_parse`] about the payload of UDP.
fn packet(data: &[u8]) {
    let packet = match Packet::parse(data) {
        Ok(packet) => packet,
        Err(error) => {
            one_line(&error.to_string());
            match error {
                WireError::TooShort { len, need } => {
                    assert!(len == data.len() && len < need && need <= MAX_HEADER_BYTES + 4)
                }
                WireError::Unaligned { len } => assert!(len == data.len() && len % 4 != 0),
                WireError::Opcode { opcode } => assert_eq!(PacketOpcode::from_raw(opcode), None),
                WireError::TransportVersion { version } => assert_eq!(version, data[1] & 15),
                WireError::Pad { pad, room } => assert!(usize::from(pad) > room),
                WireError::Syndrome { syndrome } => assert_eq!(syndrome, data[12]),
            }
            return;
        }
    };
    one_line(&packet.to_string());
    let headers = packet.headers;
    let len = headers.len();
    let pad = usize::from(headers.bth.pad);
    assert_eq!(len + packet.payload.len() + pad + 4, data.len());
    assert_eq!(headers.packet_len(packet.payload.len()), data.len());
    assert_eq!(packet.payload, &data[len..data.len() - 4 - pad]);

    let mut out = [0; MAX_HEADER_BYTES];
    assert_eq!(headers.encode(&mut out), len);
    assert_eq!(Packet::parse(&[&out[..len], &data[len..]].concat()), Ok(packet));
    // But for what is reserved, they are the bytes that came.
    let mut original = data[..len].to_vec();
    original[4] &= 0xc0;
    original[8] &= 0x80;
    if headers.bth.opcode.has_deth() {
        original[16] = 0;
    }
    if headers.bth.opcode == PacketOpcode::Cnp {
        original[12..].fill(0);
    }
    assert_eq!(original, out[..len]);
}

fn one_line(text: &str) {
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
}

/// The iCRC is that of a copy with ones where the annex says so, however the packet is cut up; and the identification that a receiver
/// finds is the one that 65536 trials find.
pub(crate) fn icrc(data: &[u8]) {
    // Flags, identification, where to cut, what to add to the CRC, ports, addresses; then the packet.
    let Some((&[flags, i1, i0, cut, far, d3, d2, d1, d0], rest)) = data.split_first_chunk() else { return };
    let Some((ports, rest)) = rest.split_first_chunk::<4>() else { return };
    let Some((addresses, rest)) = rest.split_first_chunk::<32>() else { return };
    let (dont_fragment, v6) = (flags & 1 != 0, flags & 2 != 0);
    let ident = u16::from_be_bytes([i1, i0]);
    let [p1, p0, q1, q0] = *ports;
    let (from_port, to_port) = (u16::from_be_bytes([p1, p0]), u16::from_be_bytes([q1, q0]));
    let (from, to) = addresses.split_at(16);
    let address = |bytes: &[u8], port| {
        let mut v6_bytes: [u8; 16] = bytes.try_into().unwrap();
        let mut v4_bytes = [0; 4];
        v4_bytes.copy_from_slice(&bytes[..4]);
        // No IPv4-mapped one, which would mean IPv4.
        v6_bytes[0] |= 1;
        if v6 { SocketAddr::new(v6_bytes.into(), port) } else { SocketAddr::new(v4_bytes.into(), port) }
    };
    let flow =
        Flow::new(address(from, from_port), address(to, to_port)).unwrap().with_dont_fragment(dont_fragment);

    let mut packet = rest.to_vec();
    packet.truncate(packet.len() / 4 * 4);
    if packet.len() < 16 {
        let len = packet.len();
        assert_eq!(seal(&flow, ident, &mut packet), Err(WireError::TooShort { len, need: 16 }));
        assert_eq!(verify(&flow, IdentHint::Unknown, &packet), Err(BadIcrc::Shape { len }));
        return;
    }
    let body = packet.len() - 4;
    let covered = |ident| covered(&flow, ident, &packet[..body]);
    let expected = slow_crc(&covered(ident));

    // Anywhere in the header, anywhere at all.
    let first = usize::from(cut) % body.min(20);
    let second = first + usize::from(far) * 16 % (body - first + 1);
    let mut hasher = IcrcHasher::new(&flow, ident, packet.len());
    for piece in [&packet[..first], &packet[first..second], &packet[second..body]] {
        hasher.update(piece);
    }
    assert_eq!(hasher.finish(), expected);

    // Sixteen identifications of one bit give all the others, because sums of identifications add sums to the CRC.
    let none = slow_crc(&covered(0));
    let bits: Vec<u32> = (0..16).map(|bit| slow_crc(&covered(1 << bit)) ^ none).collect();
    packet[body..].copy_from_slice(&expected.to_le_bytes());
    let mut sealed = packet.clone();
    sealed[body..].fill(0);
    seal(&flow, ident, &mut sealed).unwrap();
    assert_eq!(sealed, packet);
    let found = flow.is_ipv4().then_some(ident);
    assert_eq!(verify(&flow, IdentHint::Known(ident), &packet), Ok(found));
    assert_eq!(verify(&flow, IdentHint::Unknown, &packet), Ok(found));

    let damage = u32::from_be_bytes([d3, d2, d1, d0]);
    let stored = expected ^ damage;
    packet[body..].copy_from_slice(&stored.to_le_bytes());
    assert_eq!(verify(&flow, IdentHint::Known(ident), &packet).is_ok(), damage == 0);
    let found = verify(&flow, IdentHint::Unknown, &packet);
    if flow.is_ipv4() {
        // In the order in which one bit changes at a time.
        let mut sum = none;
        let tried = (0..1_u32 << 16).find_map(|step| {
            if step > 0 {
                sum ^= bits[step.trailing_zeros() as usize];
            }
            (sum == stored).then_some((step ^ step >> 1) as u16)
        });
        assert_eq!(found.ok(), tried.map(Some));
    } else {
        assert_eq!(
            found,
            if damage == 0 { Ok(None) } else { Err(BadIcrc::Mismatch { stored, computed: expected }) }
        );
    }
}

/// What the iCRC of a packet covers, as one piece.
fn covered(flow: &Flow, ident: u16, body: &[u8]) -> Vec<u8> {
    let mut out = [0; MAX_DATAGRAM_HEADER_BYTES];
    // Lengths are with the iCRC.
    let len = Datagram::of_flow(flow, ident, &[body, &[0; 4]].concat()).encode_headers(&mut out);
    let ip_bytes = len - 8;
    let ones: &[usize] = if ip_bytes == 20 { &[1, 8, 10, 11] } else { &[1, 2, 3, 7] };
    for &at in ones {
        out[at] = 0xff;
    }
    if ip_bytes == 40 {
        out[0] = 0x6f;
    }
    out[ip_bytes + 6..len].fill(0xff);
    let mut all = [&[0xff; 8], &out[..len], body].concat();
    all[8 + len + 4] = 0xff;
    all
}

/// CRC-32, a bit at a time.
fn slow_crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}
