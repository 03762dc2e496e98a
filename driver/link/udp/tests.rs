//! The link over loopback: two and more open devices in one process, which share the address as processes do.

use super::link::LOOK_ASIDE;
use super::link::UdpLink;
use super::receiving::Wish;
use super::steering::program;
use crate::link::{Datagram, Link, QpnTag, ROCE_PORT, ReceiveScratch, Train, flow};
use crate::sys::udp::attach_steering;
use crate::sys::wait::wait_readable;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tbrdma_proto::wire::icrc::{IdentHint, seal, verify};
use tbrdma_proto::{Gid, Time};

const V6: u8 = 0;
const V4: u8 = 1;

/// One open device, with what its owner would keep.
struct End {
    link: UdpLink,
    scratch: ReceiveScratch,
    begun: Instant,
    got: Vec<(Vec<u8>, u16, Gid, u8)>,
    /// Traffic class and hop limit of the last packet.
    fields: (u8, u8),
}

impl End {
    /// `None` where loopback has not both addresses.
    fn open() -> Option<Self> {
        Self::open_with(Wish::Plain)
    }

    fn open_with(wish: Wish) -> Option<Self> {
        let link = UdpLink::open_with("lo", wish).unwrap();
        let expected = ["::1", "::ffff:127.0.0.1"].map(|text| text.parse::<Gid>().unwrap());
        if link.gids().get(..2) != Some(&expected[..]) {
            crate::skip::skip("loopback has no ::1 and 127.0.0.1");
            return None;
        }
        let end = Self {
            link,
            scratch: ReceiveScratch::default(),
            begun: Instant::now(),
            got: Vec::new(),
            fields: (0, 0),
        };
        end.link.open_gid(V4).unwrap();
        end.link.open_gid(V6).unwrap();
        Some(end)
    }

    fn now(&self) -> Time {
        Time::ZERO + self.begun.elapsed()
    }

    fn poll(&mut self) {
        let now = self.now();
        if self.link.deadline().is_some_and(|deadline| deadline <= now) {
            self.link.poll(now);
        }
        let (got, fields) = (&mut self.got, &mut self.fields);
        let mut sink = |packet: &Datagram<'_>| {
            *fields = (packet.traffic_class, packet.hop_limit);
            got.push((packet.payload.to_vec(), packet.ident_hint, packet.source, packet.gid_index));
        };
        self.link.receive(now, &mut self.scratch, &mut sink).unwrap();
    }

    fn counter(&self, name: &str) -> u64 {
        self.link.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// Sends a train of packets of these lengths to a slot, each filled with its own number.
    fn send(&self, train: &mut Train, gid_index: u8, tag: QpnTag, lens: &[usize]) {
        self.send_as((0, 0), train, gid_index, tag, lens);
    }

    fn send_as(
        &self,
        (class, hops): (u8, u8),
        train: &mut Train,
        gid_index: u8,
        tag: QpnTag,
        lens: &[usize],
    ) {
        self.fill(train, gid_index, tag, lens);
        train.set_class(class, hops);
        self.link.send(self.now(), train).unwrap();
    }

    fn fill(&self, train: &mut Train, gid_index: u8, tag: QpnTag, lens: &[usize]) {
        train.restart(gid_index, self.link.gids()[usize::from(gid_index)]);
        for (number, len) in lens.iter().enumerate() {
            assert!(train.can_take(*len));
            let [_, q2, q1, q0] = tag.qpn(0x1234).to_be_bytes();
            let packet = train.next_packet(*len);
            packet.fill(number as u8);
            packet[..12].copy_from_slice(&[4, 0, 0xff, 0xff, 0, q2, q1, q0, 0, 0, 0, 0]);
            train.end_packet();
        }
    }
}

#[test]
fn a_train_arrives_as_its_packets() {
    train_arrives(Wish::Plain);
}

#[test]
fn a_train_arrives_through_io_uring() {
    train_arrives(Wish::Uring);
}

fn train_arrives(wish: Wish) {
    let (Some(mut a), Some(mut b)) = (End::open_with(wish), End::open_with(wish)) else { return };
    if wish == Wish::Uring && !b.link.describe().contains("multishot") {
        return crate::skip::skip(b.link.describe());
    }
    let mut train = Train::new();
    for gid_index in [V4, V6] {
        let mut lens = vec![1040; 62];
        lens.push(100);
        // While processes come and go at this address, packets may be lost as on any network.
        let begun = Instant::now();
        while b.got.len() != lens.len() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} packets", b.got.len());
            b.got.clear();
            a.send(&mut train, gid_index, b.link.qpn_tag(), &lens);
            let sent = Instant::now();
            while b.got.len() < lens.len() && sent.elapsed() < Duration::from_millis(200) {
                a.poll();
                b.poll();
            }
        }
        assert!(a.got.is_empty());
        for (number, (bytes, ident, source, at)) in b.got.drain(..).enumerate() {
            assert_eq!(bytes.len(), lens[number]);
            assert!(bytes[12..].iter().all(|byte| usize::from(*byte) == number));
            // Over IPv6 there is none.
            assert!(gid_index == V6 || usize::from(ident) == number);
            assert_eq!(source, a.link.gids()[usize::from(gid_index)]);
            assert_eq!(at, gid_index);
        }
    }
}

#[test]
fn where_the_kernel_splits_no_trains_packets_leave_alone_and_sealed_anew() {
    let (Some(mut a), Some(mut b)) = (End::open(), End::open()) else { return };
    assert!(a.link.describe().contains("trains split"), "{}", a.link.describe());
    a.link.forbid_trains();
    assert!(a.link.describe().contains("one packet a call"), "{}", a.link.describe());
    for gid_index in [V4, V6] {
        let gid = a.link.gids()[usize::from(gid_index)];
        let flow = flow(gid, ROCE_PORT, gid).unwrap();
        let mut train = Train::new();
        let begun = Instant::now();
        while b.got.len() < 3 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            b.got.clear();
            train.restart(gid_index, gid);
            for number in 0..3 {
                let [_, q2, q1, q0] = b.link.qpn_tag().qpn(1).to_be_bytes();
                let ident = train.next_ident();
                let packet = train.next_packet(100);
                packet.fill(number);
                packet[..12].copy_from_slice(&[4, 0, 0xff, 0xff, 0, q2, q1, q0, 0, 0, 0, number]);
                seal(&flow, ident, packet).unwrap();
                train.end_packet();
            }
            a.link.send(a.now(), &mut train).unwrap();
            let sent = Instant::now();
            while b.got.len() < 3 && sent.elapsed() < Duration::from_millis(200) {
                a.poll();
                b.poll();
                // One that went astray over the other address may still come.
                b.got.retain(|(_, _, _, at)| *at == gid_index);
            }
        }
        for (number, (bytes, _, _, _)) in b.got.drain(..).enumerate() {
            assert_eq!(usize::from(bytes[11]), number);
            verify(&flow, IdentHint::Known(0), &bytes).unwrap();
        }
    }
}

#[test]
fn the_descriptor_says_when_to_look() {
    descriptor_says(Wish::Plain);
}

#[test]
fn the_descriptor_says_when_to_look_at_the_ring() {
    descriptor_says(Wish::Uring);
}

fn descriptor_says(wish: Wish) {
    let (Some(mut a), Some(mut b)) = (End::open_with(wish), End::open_with(wish)) else { return };
    let mut train = Train::new();
    let begun = Instant::now();
    while b.got.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        // What the search for positions sends comes to an end.
        while wait_readable(&[b.link.fd()], Some(Duration::from_millis(20))).unwrap() != 0 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            b.poll();
            // Others' packets that came here must go on, or theirs is the test that waits.
            a.poll();
        }
        // While processes come and go at this address, a packet may go astray.
        a.send(&mut train, V4, b.link.qpn_tag(), &[40]);
        while b.got.is_empty()
            && wait_readable(&[b.link.fd()], Some(Duration::from_millis(200))).unwrap() != 0
        {
            b.poll();
        }
        a.poll();
    }
}

#[test]
fn a_link_that_nobody_watches_is_quiet_until_somebody_does() {
    let (Some(mut a), Some(mut b)) = (End::open(), End::open()) else { return };
    let mut train = Train::new();
    let begun = Instant::now();
    // Packets of others, and those that go astray, make the descriptor readable all the same: until it is quiet once.
    b.link.watch(false).unwrap();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(20), "each packet was announced");
        b.poll();
        b.got.clear();
        a.send(&mut train, V4, b.link.qpn_tag(), &[40]);
        let announced = wait_readable(&[b.link.fd()], Some(Duration::from_millis(20))).unwrap() != 0;
        b.poll();
        a.poll();
        if !announced && !b.got.is_empty() {
            break;
        }
    }
    b.got.clear();
    while b.got.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(40), "what came before was not announced");
        a.send(&mut train, V4, b.link.qpn_tag(), &[40]);
        b.link.watch(true).unwrap();
        if wait_readable(&[b.link.fd()], Some(Duration::from_millis(200))).unwrap() != 0 {
            b.poll();
        }
        b.link.watch(false).unwrap();
        a.poll();
    }
}

#[test]
fn packets_of_a_frequent_path_leave_from_the_port_that_was_told() {
    let (Some(mut a), Some(mut b)) = (End::open(), End::open()) else { return };
    let told = [V6, V4].map(|index| a.link.source_port(index, b.link.gids()[usize::from(index)]));
    assert_ne!(told[0], ROCE_PORT);
    assert_eq!(told[0], a.link.source_port(V6, b.link.gids()[usize::from(V6)]));
    assert_eq!(told[1], ROCE_PORT, "of a connected socket's packets nobody would know the identification");
    let begun = Instant::now();
    for index in [V6, V4] {
        let mut train = Train::new();
        let mut ports = Vec::new();
        while ports.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            // While processes come and go at this address, a packet may go astray.
            a.fill(&mut train, index, b.link.qpn_tag(), &[40, 40]);
            train.set_source_port(told[usize::from(index)]);
            a.link.send(a.now(), &mut train).unwrap();
            a.poll();
            let mut sink = |packet: &Datagram<'_>| {
                if packet.gid_index == index {
                    ports.push(packet.source_port);
                }
            };
            let now = b.now();
            b.link.poll(now);
            b.link.receive(now, &mut b.scratch, &mut sink).unwrap();
        }
        assert!(ports.iter().all(|port| *port == told[usize::from(index)]), "{ports:?} {told:?}");
    }
}

#[test]
fn network_fields_arrive_when_asked_for() {
    for wish in [Wish::Plain, Wish::Uring] {
        let (Some(mut a), Some(mut b)) = (End::open_with(wish), End::open_with(wish)) else { return };
        b.link.tell_network_fields();
        // For a moment, and for packets from others' hands, the usual values may be told.
        let begun = Instant::now();
        for gid_index in [V4, V6] {
            b.fields = (0, 0);
            while b.fields != (0x63, 7) {
                assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", b.fields);
                a.send_as((0x63, 7), &mut Train::new(), gid_index, b.link.qpn_tag(), &[40, 40]);
                a.poll();
                b.poll();
            }
        }
    }
}

#[test]
fn packets_for_a_tag_nobody_has_are_dropped_and_counted() {
    let (Some(mut a), Some(mut b)) = (End::open(), End::open()) else { return };
    let counted = |a: &End, b: &End| a.counter("udp_unknown_qpn") + b.counter("udp_unknown_qpn");
    let before = counted(&a, &b);
    let begun = Instant::now();
    // Another process at this address may be the one that gets it.
    while counted(&a, &b) == before {
        assert!(begun.elapsed() < Duration::from_secs(20), "never counted");
        a.send(&mut Train::new(), V4, QpnTag(255), &[40]);
        a.poll();
        b.poll();
    }
    assert!(a.got.is_empty() && b.got.is_empty());
}

#[test]
fn many_share_an_address_and_find_their_packets_again_when_one_leaves() {
    let mut ends = Vec::new();
    for _ in 0..6 {
        let Some(end) = End::open() else { return };
        ends.push(end);
    }
    let tags: HashSet<_> = ends.iter().map(|end| end.link.qpn_tag().0).collect();
    assert_eq!(tags.len(), ends.len());
    for leaves in [1, 0, 2] {
        let begun = Instant::now();
        loop {
            let handed_on: u64 = ends.iter().map(|end| end.counter("udp_forwarded")).sum();
            each_to_each(&mut ends);
            // And soon the kernel gives each to the right one.
            if ends.iter().map(|end| end.counter("udp_forwarded")).sum::<u64>() == handed_on {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "positions are never right");
            std::thread::sleep(Duration::from_millis(1));
        }
        ends.remove(leaves);
    }
}

#[test]
fn packets_of_others_outlive_the_device_they_came_to() {
    const PACKETS: usize = 5;
    let Some(mut b) = End::open() else { return };
    let begun = Instant::now();
    // While processes come and go at this address, what we think of as the position of a device may be another's.
    'again: while begun.elapsed() < Duration::from_secs(20) {
        let Some(mut a) = End::open() else { return };
        for position in 0..16 {
            let send = |b: &End, count: usize| {
                let mut positions = vec![None; position];
                positions.push(Some(b.link.qpn_tag().0));
                attach_steering(b.link.socket(V4).unwrap().as_fd(), &program(&positions)).unwrap();
                b.send(&mut Train::new(), V4, b.link.qpn_tag(), &vec![40 + position; count]);
            };
            let before = a.counter("udp_forwarded");
            send(&b, 1);
            for _ in 0..2 * LOOK_ASIDE {
                a.poll();
            }
            if a.counter("udp_forwarded") == before {
                continue;
            }
            while wait_readable(&[b.link.fd()], Some(Duration::from_millis(20))).unwrap() != 0 {
                b.poll();
            }
            b.got.clear();
            send(&b, PACKETS);
            drop(a);
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_millis(200) {
                b.poll();
                if b.got.len() == PACKETS && b.counter("udp_forwarded_here") >= PACKETS as u64 {
                    return;
                }
            }
            continue 'again;
        }
        b.poll();
    }
    panic!("lost: {} of {PACKETS}", b.got.len());
}

/// Each sends to each, until everything has arrived, whoever the kernel gave it to.
fn each_to_each(ends: &mut [End]) {
    let tags: Vec<_> = ends.iter().map(|end| end.link.qpn_tag()).collect();
    // The length says who sent it.
    let heard = |end: &End, from: usize| end.got.iter().any(|packet| packet.0.len() == 40 + from);
    let (begun, mut train) = (Instant::now(), Train::new());
    loop {
        let mut missing = 0;
        for (from, sender) in ends.iter().enumerate() {
            for (tag, receiver) in tags.iter().zip(&*ends) {
                if !heard(receiver, from) {
                    missing += 1;
                    sender.send(&mut train, V4, *tag, &[40 + from]);
                }
            }
        }
        if missing == 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{missing} are missing");
        // One that a process got which has just ended is lost, as on any network, and sent again.
        let sent = Instant::now();
        while sent.elapsed() < Duration::from_millis(200)
            && !ends.iter().all(|end| (0..ends.len()).all(|from| heard(end, from)))
        {
            ends.iter_mut().for_each(End::poll);
        }
    }
    ends.iter_mut().for_each(|end| end.got.clear());
}

#[test]
fn a_ring_serves_whichever_thread_looks() {
    let (Some(mut a), Some(mut b)) = (End::open(), End::open_with(Wish::Uring)) else { return };
    if !b.link.describe().contains("multishot") {
        return crate::skip::skip(b.link.describe());
    }
    let mut train = Train::new();
    for round in 0..40 {
        // A thread looks until it has something, and ends or sleeps while the next one looks.
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let tag = b.link.qpn_tag();
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let begun = Instant::now();
                while b.got.len() < 100 && begun.elapsed() < Duration::from_secs(20) {
                    let before = b.got.len();
                    b.poll();
                    if b.got.len() == before {
                        a.poll();
                        a.send(&mut train, V4, tag, &[40; 10]);
                    }
                }
                assert!(b.got.len() >= 100, "round {round}");
                sender.send(()).unwrap();
            });
            receiver.recv_timeout(Duration::from_secs(30)).unwrap();
            looking.join().unwrap();
        });
        b.got.clear();
        b.poll();
        b.got.clear();
    }
}
