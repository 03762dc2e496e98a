//! What must hold for any bytes that come from a stream: as in wire_checks.rs.

use tbrdma_proto::stream::{
    FRAME_HEADER_BYTES, Features, FrameReader, HELLO_BYTES, Hello, Item, MAX_FRAMED_PACKET, Manner, Meeting,
    StreamAddress, Words,
};
use tbrdma_proto::{Guid, Mtu, Time};

/// The bytes are what arrives, in pieces as long as the first byte says: a meeting, and then frames. What comes out is the same however they are cut,
/// lies within them, and an error is the end. As text they are an address, which is written as it was read.
pub(crate) fn stream(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(address) = text.parse::<StreamAddress>()
    {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    let Some((&first, bytes)) = data.split_first() else { return };
    let manner = if first & 1 == 0 { Manner::Fresh } else { Manner::Standing };
    let whole = arrive(bytes, bytes.len().max(1), manner);
    assert_eq!(arrive(bytes, usize::from(first >> 1) + 1, manner), whole);
    // Frames may come first as well, after a meeting that nobody has looked at.
    let mut reader = FrameReader::new(Guid(2));
    let alone = frames(&mut reader, bytes, bytes.len().max(1));
    let mut reader = FrameReader::new(Guid(2));
    assert_eq!(frames(&mut reader, bytes, usize::from(first >> 1) + 1), alone);
}

/// What came of it: packets, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    met: Option<Guid>,
    packets: Vec<(Vec<u8>, u8, u8)>,
    error: Option<String>,
}

fn arrive(bytes: &[u8], cut: usize, manner: Manner) -> Outcome {
    let own = Hello {
        words: Words::Hello,
        features: Features::empty(),
        guid: Guid(1),
        heard: Guid(0),
        mtu: Mtu::B4096,
    };
    let mut meeting = Meeting::new(Time::ZERO, own, manner);
    assert!(meeting.poll_transmit().is_some());
    let mut at = 0;
    for piece in bytes.chunks(cut) {
        match meeting.take(Time::ZERO, piece) {
            Ok(taken) => {
                assert!(taken <= piece.len());
                at += taken;
                if let Some(said) = meeting.poll_transmit() {
                    assert_eq!(Hello::parse(&said).map(|hello| hello.guid), Ok(Guid(1)));
                }
                if let Some(peer) = meeting.peer() {
                    assert!(at >= HELLO_BYTES && peer.guid.0 > 1);
                    let rest = frames(&mut FrameReader::new(peer.guid), &bytes[at..], cut);
                    return Outcome { met: Some(peer.guid), ..rest };
                }
                assert_eq!(taken, piece.len(), "only a peer's frames are left");
            }
            Err(error) => {
                assert!(!error.to_string().contains('\n'));
                if let Some(said) = meeting.refusal(&error) {
                    assert!(Hello::parse(&said).is_ok_and(|hello| hello.words != Words::Hello));
                }
                return Outcome { error: Some(kind(&format!("{error:?}"))), ..Outcome::default() };
            }
        }
    }
    Outcome::default()
}

/// What of an error does not depend on how much had come.
fn kind(error: &str) -> String {
    error.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

fn frames(reader: &mut FrameReader, bytes: &[u8], cut: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() {
        end = (end + cut).min(bytes.len());
        loop {
            let held = &bytes[start..end];
            match reader.next(held) {
                Ok(Item::Packet { packet, traffic_class, hop_limit, bytes }) => {
                    assert!(packet.len() <= MAX_FRAMED_PACKET && bytes == packet.len() + FRAME_HEADER_BYTES);
                    assert_eq!(&held[FRAME_HEADER_BYTES..bytes], packet);
                    outcome.packets.push((packet.to_vec(), traffic_class, hop_limit));
                    start += bytes;
                }
                Ok(Item::Said { bytes }) => start += bytes,
                Ok(Item::Incomplete) => {
                    assert!(held.len() < FRAME_HEADER_BYTES + MAX_FRAMED_PACKET);
                    break;
                }
                Err(error) => {
                    assert_eq!(reader.next(held), Err(error), "an error is the end");
                    outcome.error = Some(kind(&format!("{error:?}")));
                    return outcome;
                }
            }
        }
    }
    outcome
}
