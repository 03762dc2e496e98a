//! Ethernet as far as one neighbour needs it: finding IP packets in frames, and answering who we are.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Our address on the wire to the guest.
pub(crate) const OUR_MAC: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 1];
/// The guest's.
pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 2];
/// Our IPv4 address.
pub(crate) const OUR_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Our IPv6 address.
pub(crate) const OUR_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

const HEADER: usize = 14;
const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// What a frame is to us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// An IP packet.
    Ip(&'a [u8]),
    /// A question of the neighbour, and this frame as its answer.
    Answer(Vec<u8>),
    /// Nothing of ours.
    Other,
}

/// Looks at a frame from the guest.
pub(crate) fn look(frame: &[u8]) -> Frame<'_> {
    let Some((header, body)) = frame.split_at_checked(HEADER) else { return Frame::Other };
    match header.get(12..14) {
        Some(kind) if kind == ARP => arp_answer(body).map_or(Frame::Other, Frame::Answer),
        Some(kind) if kind == IPV6 => neighbour_answer(body).map_or(Frame::Ip(body), Frame::Answer),
        Some(kind) if kind == IPV4 => Frame::Ip(body),
        _ => Frame::Other,
    }
}

/// The header of a frame to the guest with an IP packet of this version.
pub(crate) fn header(version: u8) -> Vec<u8> {
    ethernet(if version == 4 { IPV4 } else { IPV6 })
}

fn ethernet(kind: [u8; 2]) -> Vec<u8> {
    [GUEST_MAC.as_slice(), &OUR_MAC, &kind].concat()
}

/// "Who has our IPv4 address?" (RFC 826).
fn arp_answer(body: &[u8]) -> Option<Vec<u8>> {
    let body = body.get(..28)?;
    let (fixed, rest) = body.split_at(8);
    let (sender, target) = rest.split_at(10);
    if *fixed != [0, 1, 8, 0, 6, 4, 0, 1] || target.get(6..)? != OUR_V4.octets() {
        return None;
    }
    let mut answer = ethernet(ARP);
    answer.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    answer.extend(OUR_MAC);
    answer.extend(OUR_V4.octets());
    answer.extend(sender);
    Some(answer)
}

/// "Who has our IPv6 address?" (RFC 4861, section 4.3 and 4.4).
fn neighbour_answer(packet: &[u8]) -> Option<Vec<u8>> {
    const ICMPV6: u8 = 58;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    let (header, message) = packet.split_at_checked(40)?;
    let asks = *header.get(6)? == ICMPV6 && *message.first()? == SOLICITATION;
    if !asks || message.get(8..24)? != OUR_V6.octets() {
        return None;
    }
    let asker = header.get(8..24)?;
    // Type, code, checksum, flags "solicited" and "override"; who it is about; the option with our Ethernet address.
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(OUR_V6.octets());
    message.extend([2, 1]);
    message.extend(OUR_MAC);
    let length = message.len() as u8;
    let pseudo = [&OUR_V6.octets(), asker, &[0, 0, 0, length, 0, 0, 0, ICMPV6], &message].concat();
    let sum = checksum(&pseudo).to_be_bytes();
    message.splice(2..4, sum);
    let mut answer = ethernet(IPV6);
    answer.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    answer.extend(OUR_V6.octets());
    answer.extend(asker);
    answer.extend(message);
    Some(answer)
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arp_is_answered_for_our_address_only() {
        let question = |target: [u8; 4]| {
            let sender = [GUEST_MAC.as_slice(), &[10, 77, 0, 2]].concat();
            let ask = [[0, 1, 8, 0, 6, 4, 0, 1].as_slice(), &sender, &[0; 6], &target].concat();
            [[0xff; 6].as_slice(), &GUEST_MAC, &ARP, &ask].concat()
        };
        let asked = question(OUR_V4.octets());
        let Frame::Answer(answer) = look(&asked) else { panic!("no answer") };
        assert_eq!(answer[..6], GUEST_MAC);
        assert_eq!(answer[20..22], [0, 2], "an answer");
        assert_eq!(answer[22..28], OUR_MAC);
        assert_eq!(look(&question([10, 77, 0, 9])), Frame::Other);
    }

    #[test]
    fn a_neighbour_solicitation_is_answered_with_a_good_checksum() {
        let asker: Ipv6Addr = "fd77::2".parse().expect("an address");
        let message = [[135, 0, 0, 0, 0, 0, 0, 0].as_slice(), &OUR_V6.octets()].concat();
        let ip = [[0x60, 0, 0, 0, 0, 24, 58, 255].as_slice(), &asker.octets(), &OUR_V6.octets(), &message]
            .concat();
        let frame = [OUR_MAC.as_slice(), &GUEST_MAC, &IPV6, &ip].concat();
        let Frame::Answer(answer) = look(&frame) else { panic!("no answer") };
        let (header, message) = answer[HEADER..].split_at(40);
        assert_eq!(header[24..40], asker.octets());
        let pseudo = [&header[8..40], &[0, 0, 0, 32, 0, 0, 0, 58], message].concat();
        assert_eq!(checksum(&pseudo), 0, "the sum over a good checksum");
    }

    #[test]
    fn short_and_foreign_frames_are_nothing() {
        assert_eq!(look(&[0; 13]), Frame::Other);
        assert_eq!(look(&[0; 60]), Frame::Other);
        let ip = [[0; 12].as_slice(), &IPV4, &[1, 2, 3]].concat();
        assert_eq!(look(&ip), Frame::Ip(&[1, 2, 3]));
    }
}
