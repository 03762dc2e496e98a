//! Two ends of a stream in one process, driven by hand: time is what the test says it is.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use super::link::StreamLink;
use crate::link::{Datagram, Link, ReceiveScratch, Train};
use crate::sys::stream::Duct;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tbrdma_proto::stream::{Features, HELLO_BYTES, Hello, Refusal, StreamAddress, Words};
use tbrdma_proto::{Gid, Guid, Mtu, Time};

const PATIENCE: Duration = Duration::from_secs(30);

/// An end, what it has received, and its time.
struct End {
    link: StreamLink,
    scratch: ReceiveScratch,
    got: Vec<(Gid, Vec<u8>, u8, u8)>,
    now: Time,
}

impl End {
    fn of(link: StreamLink) -> Self {
        Self { link, scratch: ReceiveScratch::default(), got: Vec::new(), now: Time::ZERO }
    }

    fn at(address: &str) -> Self {
        Self::of(StreamLink::find(&address.parse::<StreamAddress>().unwrap()).unwrap())
    }

    /// One pass, as the engine makes it.
    fn pass(&mut self) {
        if self.link.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.link.poll(self.now);
        }
        let got = &mut self.got;
        let mut sink = |packet: &Datagram<'_>| {
            got.push((packet.source, packet.payload.to_vec(), packet.traffic_class, packet.hop_limit));
        };
        self.link.receive(self.now, &mut self.scratch, &mut sink).unwrap();
    }

    fn later(&mut self, by: Duration) {
        self.now = self.now + by;
        self.pass();
    }

    fn is_up(&self) -> bool {
        self.link.state().unwrap().is_up()
    }

    fn gid(&self) -> Gid {
        self.link.gids()[0]
    }

    /// Sends packets; false if there was no room for all of them. They are left in the train.
    fn send(&self, train: &mut Train) -> bool {
        self.link.send(self.now, train).is_ok()
    }

    fn train(&self, to: Gid, packets: &[&[u8]]) -> Train {
        let mut train = Train::new();
        train.restart_by(self.link.train_rules(), 0, to);
        train.set_class(0x29, 7);
        for packet in packets {
            assert!(train.can_take(packet.len()));
            train.next_packet(packet.len()).copy_from_slice(packet);
            train.end_packet();
        }
        train
    }

    fn counter(&self, name: &str) -> u64 {
        self.link.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
    }
}

/// Lets both go on until `holds`; time passes when nothing else helps.
fn until(a: &mut End, b: &mut End, what: &str, mut holds: impl FnMut(&End, &End) -> bool) {
    let begun = Instant::now();
    while !holds(a, b) {
        assert!(begun.elapsed() < PATIENCE, "{what}: {} / {}", a.link.describe(), b.link.describe());
        a.later(Duration::from_millis(1));
        b.later(Duration::from_millis(1));
        std::thread::yield_now();
    }
}

fn name() -> String {
    format!("stream-test-{:x}", crate::sys::random::random_u64().unwrap())
}

fn met(address: &str) -> (End, End) {
    let (mut a, mut b) = (End::at(address), End::at(address));
    until(&mut a, &mut b, "they meet", |a, b| a.is_up() && b.is_up());
    (a, b)
}

/// Every kind of stream there is on this machine, by its name.
fn kinds() -> Vec<String> {
    let path = std::env::temp_dir().join(name());
    let mut kinds = vec![format!("unix:{}", path.display())];
    if cfg!(tbrdma_linux) {
        kinds.extend([format!("unix:@{}", name()), format!("standin:{}", name())]);
    }
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    kinds.push(format!("tcp:127.0.0.1:{port}"));
    kinds
}

#[test]
fn whoever_comes_first_is_met_by_the_other_and_packets_arrive_as_they_left() {
    for kind in kinds() {
        let (mut a, mut b) = met(&kind);
        assert_eq!(a.link.promises().intact, kind.starts_with("unix"), "{kind}");
        assert!(a.link.promises().delivers);
        a.link.reach(b.gid()).unwrap();
        a.link.reach(a.gid()).unwrap();
        let packets: Vec<Vec<u8>> = (0..200_usize).map(|len| vec![len as u8; 16 + len * 20]).collect();
        for some in packets.chunks(9) {
            let some: Vec<&[u8]> = some.iter().map(Vec::as_slice).collect();
            let mut train = a.train(b.gid(), &some);
            while !a.send(&mut train) {
                b.pass();
                a.pass();
            }
        }
        until(&mut a, &mut b, "all arrive", |_, b| b.got.len() == packets.len());
        for ((source, packet, class, hops), sent) in b.got.iter().zip(&packets) {
            assert_eq!((*source, packet, *class, *hops), (a.gid(), sent, 0x29, 7));
        }
        // To itself, and to nobody.
        let mut own = a.train(a.gid(), &[b"to myself", b"again"]);
        assert!(a.send(&mut own));
        a.pass();
        assert_eq!(a.got.len(), 2);
        assert_eq!(a.got[1], (a.gid(), b"again".to_vec(), 0x29, 7));
        assert!(a.send(&mut a.train("fe80::1".parse().unwrap(), &[b"nobody"])));
        assert_eq!(a.counter("unreachable_packets"), 1);
    }
}

#[test]
fn who_has_no_room_keeps_what_is_left_and_nothing_is_lost() {
    for kind in kinds() {
        let (mut a, mut b) = met(&kind);
        let packets: Vec<Vec<u8>> = (0..16_u8).map(|number| vec![number; 4100]).collect();
        let all: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let mut sent = 0;
        let mut refused = 0;
        let mut train = a.train(b.gid(), &all);
        while refused < 3 {
            if a.send(&mut train) {
                sent += all.len();
                train = a.train(b.gid(), &all);
            } else {
                refused += 1;
                assert!(train.sent < train.len());
                // Nobody has read: another try finds no room either, or a little.
                let before = train.sent;
                assert!(!a.send(&mut train) || before < all.len());
                if train.sent == train.len() {
                    sent += all.len();
                    train = a.train(b.gid(), &all);
                }
                b.pass();
            }
        }
        let begun = Instant::now();
        while !a.send(&mut train) {
            assert!(begun.elapsed() < PATIENCE);
            b.pass();
        }
        sent += all.len();
        until(&mut a, &mut b, "all arrive", |_, b| b.got.len() >= sent);
        assert_eq!(b.got.len(), sent, "{kind}");
        for (index, (_, packet, ..)) in b.got.iter().enumerate() {
            assert!(*packet == packets[index % 16], "{kind}: packet {index}");
        }
    }
}

#[test]
fn a_peer_that_has_gone_is_noticed_and_another_is_met() {
    for kind in kinds() {
        let (mut a, b) = met(&kind);
        let first = b.gid();
        drop(b);
        let begun = Instant::now();
        while a.is_up() {
            assert!(begun.elapsed() < PATIENCE, "{kind}");
            // Sending must not hide it.
            assert!(a.send(&mut a.train(first, &[b"anybody there?"])));
            a.later(Duration::from_millis(1));
        }
        assert!(a.link.describe().contains("down: "), "{}", a.link.describe());
        let mut b = End::at(&kind);
        until(&mut a, &mut b, "another comes", |a, b| a.is_up() && b.is_up());
        assert_ne!(b.gid(), first);
        assert_eq!((a.counter("link_met"), a.counter("link_downed")), (2, 1), "{kind}");
        // And the other way round: who came first leaves.
        drop(a);
        let mut a = End::at(&kind);
        until(&mut a, &mut b, "another comes", |a, b| {
            a.is_up() && b.is_up() && b.link.describe().contains(&a.gid().to_string())
        });
        assert!(b.link.reach(a.gid()).is_ok());
    }
}

#[test]
fn the_last_words_of_a_device_arrive_although_it_has_not_read_all() {
    for kind in kinds() {
        let (mut a, b) = met(&kind);
        // The other side has something for it that it will not read.
        for _ in 0..4 {
            assert!(a.send(&mut a.train(b.gid(), &[&[1; 2000]])));
        }
        assert!(b.send(&mut b.train(a.gid(), &[&[2; 2000], b"farewell"])));
        let reader = std::thread::spawn(move || {
            let begun = Instant::now();
            while a.is_up() {
                assert!(begun.elapsed() < PATIENCE);
                a.pass();
            }
            a.got.len()
        });
        drop(b);
        assert_eq!(reader.join().unwrap(), 2, "{kind}");
    }
}

/// A device over one end of a socket pair; the other end.
fn given() -> (End, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (End::of(StreamLink::over(Duct::new(ours.into(), None).unwrap()).unwrap()), theirs)
}

/// The hello of somebody who has heard `heard`.
fn hello(guid: u64, heard: Guid) -> Hello {
    Hello { words: Words::Hello, features: Features::empty(), guid: Guid(guid), heard, mtu: Mtu::B4096 }
}

/// What the device said last, once it has said something.
fn said(stream: &mut UnixStream) -> Hello {
    use std::io::Read;
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).unwrap();
    Hello::parse(&bytes).unwrap()
}

#[test]
fn an_end_that_introduces_itself_wrongly_is_sent_away_and_told_why() {
    use std::io::Write;
    let right = hello(5, Guid(0)).encode();
    let mut other_version = right;
    other_version[9] = 2;
    let check = crc32fast::hash(&other_version[..60]).to_be_bytes();
    other_version[60..].copy_from_slice(&check);
    let mut damaged = right;
    damaged[20] ^= 1;
    let strange = Hello { features: Features::ICRC, ..hello(5, Guid(0)) }.encode();
    let cases: [(&[u8], &str, Option<Refusal>); 6] = [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not speak", None),
        (&other_version, "version 2", Some(Refusal::Version)),
        (&damaged, "damaged", None),
        (&strange, "checksums", Some(Refusal::Features)),
        (&hello(5, Guid(0)).refusing(Refusal::Busy), "it has a peer already", None),
        (&[], "did not introduce itself", None),
    ];
    for (bytes, why, refusal) in cases {
        let (mut end, mut stream) = given();
        said(&mut stream);
        stream.write_all(bytes).unwrap();
        end.later(Duration::from_secs(1));
        end.later(Duration::from_secs(3));
        assert!(!end.is_up());
        assert!(end.link.describe().contains(why), "{} for {why}", end.link.describe());
        if let Some(refusal) = refusal {
            assert_eq!(said(&mut stream).words, Words::Refusal(refusal), "{why}");
        }
        assert_eq!(std::io::Read::read(&mut stream, &mut [0; 1]).unwrap_or(0), 0, "{why}: closed");
        // It stays so: there is no other stream.
        end.later(Duration::from_secs(100));
        assert!(end.link.deadline().is_none_or(|due| !cfg!(tbrdma_linux) || due > end.now));
    }
    // Nor does it talk to itself.
    let (mut end, mut stream) = given();
    let own = said(&mut stream);
    stream.write_all(&own.encode()).unwrap();
    end.pass();
    assert!(end.link.describe().contains("both ends"), "{}", end.link.describe());
}

#[test]
fn bytes_that_are_no_frame_end_the_stream() {
    use std::io::Write;
    for noise in [&b"no frame at all"[..], &hello(6, Guid(9)).encode(), &[0xa5; 64]] {
        let (mut end, mut stream) = given();
        let own = said(&mut stream);
        stream.write_all(&hello(5, own.guid).encode()).unwrap();
        end.pass();
        assert!(end.is_up());
        assert_eq!(said(&mut stream).heard, Guid(5));
        // Once too often, which is no harm; then what is.
        stream.write_all(&hello(5, own.guid).encode()).unwrap();
        end.pass();
        assert!(end.is_up());
        stream.write_all(noise).unwrap();
        end.pass();
        assert!(!end.is_up());
        assert!(end.got.is_empty());
        assert!(end.link.state().unwrap().look().is_some());
    }
}

#[test]
fn a_third_is_told_that_there_is_a_peer_already() {
    let address = format!("unix:{}", std::env::temp_dir().join(name()).display());
    let (mut a, mut b) = met(&address);
    let mut third = End::at(&format!("{address},connect"));
    let begun = Instant::now();
    while !third.link.describe().contains("has a peer already") {
        assert!(begun.elapsed() < PATIENCE, "{}", third.link.describe());
        for end in [&mut a, &mut b, &mut third] {
            end.pass();
        }
    }
    assert!(a.is_up() && b.is_up() && !third.is_up());
    assert_eq!(a.counter("peers_turned_away") + b.counter("peers_turned_away"), 1);
    // Whoever names a peer is told who is there instead, or why nobody is.
    let reach = |end: &End, to| end.link.reach_within(to, Duration::ZERO, Duration::ZERO);
    let error = reach(&third, a.gid()).unwrap_err();
    assert!(error.to_string().contains("has a peer already"), "{error}");
    let error = reach(&a, third.gid()).unwrap_err();
    assert!(error.to_string().contains(&format!("where {} is", b.gid())), "{error}");
}

#[test]
fn a_socket_that_a_dead_process_left_is_replaced_and_ours_is_removed() {
    let path = std::env::temp_dir().join(name());
    // std leaves the path behind, as one does that is killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let address = format!("unix:{}", path.display());
    let mut a = End::at(&format!("{address},listen"));
    let mut b = End::at(&address);
    until(&mut a, &mut b, "they meet", |a, b| a.is_up() && b.is_up());
    drop((a, b));
    assert!(!path.exists());
    // Who lost its path to somebody else connects to that one.
    let mut a = End::at(&address);
    std::fs::remove_file(&path).unwrap();
    let mut b = End::at(&address);
    until(&mut a, &mut b, "they meet", |a, b| a.is_up() && b.is_up());
    // A path that cannot be is an error at once.
    let nowhere = format!("unix:{}", path.join("socket").display());
    let error = StreamLink::find(&nowhere.parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("come by the stream"), "{error}");
    let file = std::env::current_exe().unwrap();
    let error = StreamLink::find(&file.display().to_string().parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("not a character device"), "{error}");
}
