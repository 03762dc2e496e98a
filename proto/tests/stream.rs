//! Packets come out of a byte stream as they went in, however it cuts them up; what was never sent comes out as an error; and two ends meet
//! whatever was on the stream before.

use proptest::prelude::*;
use std::time::Duration;
use tbrdma_proto::stream::{
    FRAME_HEADER_BYTES, Features, FrameError, FrameReader, FrameWriter, HELLO_BYTES, Hello, HelloError, Item,
    MAX_FRAMED_PACKET, Manner, Meeting, MeetingError, Refusal, StreamAddress, Words,
};
use tbrdma_proto::{Backend, Guid, Mtu, Time, parse_devices};

fn hello(guid: u64) -> Hello {
    Hello {
        words: Words::Hello,
        features: Features::empty(),
        guid: Guid(guid),
        heard: Guid(0),
        mtu: Mtu::B4096,
    }
}

/// Packets as a stream has them.
fn framed(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = FrameWriter::default();
    let mut bytes = Vec::new();
    for train in packets.chunks(3) {
        for (ahead, packet) in train.iter().enumerate() {
            bytes.extend(writer.header(ahead, packet.len(), packet.len() as u8, 9));
            bytes.extend(packet);
        }
        writer.left(train.len());
    }
    bytes
}

/// What a reader finds in pieces of these lengths, over and over.
fn read(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut reader = FrameReader::new(Guid(7));
    let (mut held, mut rest, mut found) = (Vec::new(), bytes, Vec::new());
    for cut in cuts.iter().cycle() {
        let (piece, behind) = rest.split_at((*cut).min(rest.len()));
        held.extend_from_slice(piece);
        rest = behind;
        loop {
            let taken = match reader.next(&held)? {
                Item::Packet { packet, traffic_class, hop_limit, bytes } => {
                    assert_eq!((traffic_class, hop_limit), (packet.len() as u8, 9));
                    assert_eq!(bytes, packet.len() + FRAME_HEADER_BYTES);
                    found.push(packet.to_vec());
                    bytes
                }
                Item::Said { bytes } => bytes,
                Item::Incomplete => break,
            };
            held.drain(..taken);
        }
        if rest.is_empty() {
            break;
        }
    }
    assert!(held.len() < FRAME_HEADER_BYTES + MAX_FRAMED_PACKET);
    Ok(found)
}

/// Two ends that talk over two streams which cut up what passes, with something on each before.
fn meet(manner: Manner, cut: usize, before: &[u8]) -> Result<(), MeetingError> {
    let now = Time::ZERO;
    let mut ends = [hello(1), hello(2)].map(|own| Meeting::new(now, own, manner));
    let mut streams = [before.to_vec(), before.to_vec()];
    for _ in 0..1000 {
        for (at, end) in ends.iter_mut().enumerate() {
            if let Some(hello) = end.poll_transmit() {
                streams[1 - at].extend(hello);
            }
            let stream = &mut streams[at];
            let taken = end.take(now, &stream[..cut.min(stream.len())])?;
            stream.drain(..taken);
        }
        if let [Some(first), Some(second)] = ends.each_ref().map(Meeting::peer) {
            assert_eq!((first.guid, second.guid), (Guid(2), Guid(1)));
            assert!(ends.iter_mut().all(|end| end.poll_transmit().is_none()));
            return Ok(());
        }
    }
    Err(MeetingError::Silence)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_come_out_as_they_went_in(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000_usize.min(MAX_FRAMED_PACKET)), 0..12),
        cuts in prop::collection::vec(1..9000_usize, 1..9),
    ) {
        prop_assert_eq!(read(&framed(&packets), &cuts), Ok(packets));
    }

    #[test]
    fn a_stream_that_loses_or_repeats_bytes_is_found_out(
        lens in prop::collection::vec(4..200_usize, 4..20),
        at in any::<prop::sample::Index>(),
        lost in 1..64_usize,
        repeats in any::<bool>(),
    ) {
        let packets: Vec<Vec<u8>> = lens.iter().map(|len| vec![0xa5; *len]).collect();
        let mut bytes = framed(&packets);
        let all = bytes.len();
        let start = at.index(all - 200.min(all / 2));
        let end = (start + lost).min(all);
        if repeats {
            let again = bytes[start..end].to_vec();
            bytes.splice(start..start, again);
        } else {
            bytes.drain(start..end);
        }
        match read(&bytes, &[4096]) {
            Err(error) => prop_assert!(!error.to_string().is_empty()),
            // The last packet may just not be complete; what came is what was sent, but for the packet around the loss.
            Ok(found) => {
                let wrong = found.iter().zip(&packets).filter(|(found, sent)| found != sent).count();
                prop_assert!(wrong == 0 && (found.len() < packets.len() || repeats), "{} of {}", found.len(), packets.len());
            }
        }
    }

    #[test]
    fn two_ends_meet_behind_whatever_was_there(
        mut before in prop::collection::vec(prop_oneof![Just(b'T'), any::<u8>()], 0..300),
        old in any::<u64>(),
        cut in 1..200_usize,
    ) {
        // An end that has died has left its hello, and the beginning of another.
        before.extend(hello(old | 4).encode());
        before.extend(&hello(old | 4).encode()[..cut.min(HELLO_BYTES - 1)]);
        prop_assert_eq!(meet(Manner::Standing, cut, &before), Ok(()));
        prop_assert_eq!(meet(Manner::Fresh, cut, &[]), Ok(()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1..50_usize) {
        let _ = read(&bytes, &[cut]);
        let _ = meet(Manner::Fresh, cut, &bytes);
    }
}

#[test]
fn a_hello_says_what_it_said() {
    let refusals = [Refusal::Busy, Refusal::Version, Refusal::Features, Refusal::Mtu, Refusal::Unknown(99)];
    let words = refusals.into_iter().map(Words::Refusal).chain([Words::Hello]);
    for words in words {
        let said =
            Hello { words, features: Features::ICRC, heard: Guid(3), mtu: Mtu::B1024, ..hello(u64::MAX) };
        let bytes = said.encode();
        assert_eq!(Hello::parse(&bytes), Ok(said));
        for index in 0..HELLO_BYTES {
            let mut damaged = bytes;
            damaged[index] ^= 0x10;
            let error = Hello::parse(&damaged).unwrap_err();
            assert_eq!(matches!(error, HelloError::Magic { .. }), index < 8, "{index}: {error}");
        }
    }
}

#[test]
fn a_meeting_ends_within_its_bound_or_goes_on_calling() {
    let mut fresh = Meeting::new(Time::ZERO, hello(1), Manner::Fresh);
    assert!(fresh.poll_transmit().is_some());
    assert_eq!(fresh.handle_timeout(Time(1)), Ok(()));
    let due = fresh.poll_timeout();
    assert!(due <= Time::ZERO + Duration::from_secs(5));
    assert_eq!(fresh.handle_timeout(due), Err(MeetingError::Silence));
    let mut standing = Meeting::new(Time::ZERO, hello(1), Manner::Standing);
    let mut calls = 0;
    let mut now = Time::ZERO;
    while now < Time::ZERO + Duration::from_secs(60) {
        calls += u32::from(standing.poll_transmit().is_some());
        now = standing.poll_timeout();
        standing.handle_timeout(now).unwrap();
    }
    assert!((20..60).contains(&calls), "{calls}");
    // Once somebody was heard it does not take for ever.
    standing.take(now, &hello(2).encode()).unwrap();
    assert_eq!(standing.peer(), None);
    assert_eq!(standing.handle_timeout(now + Duration::from_secs(5)), Err(MeetingError::Silence));
    // Noise without end is not listened to without end.
    let mut noisy = Meeting::new(Time::ZERO, hello(1), Manner::Standing);
    let noise = vec![b'T'; 1 << 16];
    let error = (0..1000).find_map(|_| noisy.take(Time::ZERO, &noise).err());
    assert_eq!(error, Some(MeetingError::Noise));
}

#[test]
fn addresses_are_read_as_they_are_written() {
    for text in [
        "unix:/tmp/cable",
        "unix:@cable,listen",
        "tcp:host.example:7,connect",
        "tcp:[::1]:65535",
        "vsock:2:1024",
        "standin:left",
        "/dev/tbstream0",
    ] {
        let address: StreamAddress = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        let named = format!("rdma_en2=stream:{text},shm");
        let devices = parse_devices(&named, "").unwrap();
        assert_eq!(devices.len(), 2, "{named}");
        assert_eq!(devices[0].backend, Backend::Stream(address));
        assert_eq!(devices[0].to_string(), format!("rdma_en2=stream:{text}"));
    }
    for text in [
        "",
        "unix:",
        "unix:@",
        "tcp:host",
        "tcp::7",
        "tcp:host:0",
        "tcp:host:70000",
        "tcp:::1:7",
        "tcp:[::1:7",
        "vsock:2",
        "vsock:x:1",
        "standin:",
        "dev/tbstream0",
        "/dev/tbstream0,listen",
        "unix:/a,both",
        "unix:/a b",
        "udp:lo",
    ] {
        let error = text.parse::<StreamAddress>().unwrap_err();
        assert!(error.to_string().contains("stream:unix:/PATH"), "{error}");
        assert!(format!("stream:{text}").parse::<Backend>().is_err());
    }
    let long = format!("unix:/{}", "x".repeat(200));
    assert!(long.parse::<StreamAddress>().is_err());
}
