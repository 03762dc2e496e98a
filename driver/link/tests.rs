//! The wrappers, around a link that only takes notes.

use super::*;
use crate::sync::{AtomicU64, Ordering};
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tbrdma_proto::wire::icrc::{IdentHint, seal, verify};
use tbrdma_proto::wire::ip::Datagram as IpDatagram;

/// What was sent: when, over which GID, with which identification, and the bytes.
type Notes = Arc<Mutex<Vec<(Time, u8, u16, Vec<u8>)>>>;

/// A link that keeps what it is to send, and receives what it is given.
struct Notebook {
    gids: [Gid; 2],
    notes: Notes,
    incoming: Mutex<Vec<(Gid, u16, Vec<u8>)>>,
    promises: Promises,
    /// How many packets there is room for.
    room: Arc<AtomicU64>,
    fd: File,
}

fn us() -> [Gid; 2] {
    ["fe80::1", "::ffff:192.0.2.1"].map(|text| text.parse().unwrap())
}

fn peers() -> [Gid; 2] {
    ["fe80::2", "::ffff:192.0.2.2"].map(|text| text.parse().unwrap())
}

fn notebook() -> (Box<Notebook>, Notes) {
    let notes = Notes::default();
    let fd = File::open("/dev/null").unwrap();
    let link = Notebook {
        gids: us(),
        notes: Arc::clone(&notes),
        incoming: Mutex::default(),
        promises: Promises::default(),
        room: Arc::new(AtomicU64::new(u64::MAX)),
        fd,
    };
    (Box::new(link), notes)
}

impl Link for Notebook {
    fn name(&self) -> &str {
        "note:book"
    }
    fn describe(&self) -> String {
        "notes".to_owned()
    }
    fn promises(&self) -> Promises {
        self.promises
    }
    fn mtu(&self) -> Mtu {
        Mtu::B1024
    }
    fn gids(&self) -> &[Gid] {
        &self.gids
    }
    fn qpn_tag(&self) -> QpnTag {
        QpnTag(7)
    }
    fn open_gid(&self, _gid_index: u8) -> Result<()> {
        Ok(())
    }
    fn source_port(&self, _gid_index: u8, _to: Gid) -> u16 {
        ROCE_PORT
    }
    fn tell_network_fields(&self) {}
    fn send(&self, now: Time, train: &mut Train) -> io::Result<()> {
        for index in train.sent..train.len() {
            if self.room.load(Ordering::Relaxed) == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room.fetch_sub(1, Ordering::Relaxed);
            let bytes = train.packet(index).to_vec();
            self.notes.lock().unwrap().push((now, train.from(), index as u16, bytes));
            train.sent += 1;
        }
        Ok(())
    }
    fn receive(
        &self,
        _now: Time,
        _scratch: &mut ReceiveScratch,
        sink: &mut dyn FnMut(&Datagram<'_>),
    ) -> io::Result<usize> {
        let incoming = std::mem::take(&mut *self.incoming.lock().unwrap());
        for (source, ident_hint, payload) in &incoming {
            let gid_index = peers().iter().position(|gid| gid == source).unwrap() as u8;
            sink(&Datagram {
                payload,
                source: *source,
                source_port: 0xc123,
                gid_index,
                ident_hint: *ident_hint,
                traffic_class: 2,
                hop_limit: 63,
            });
        }
        Ok(incoming.len())
    }
    fn poll(&self, _now: Time) {}
    fn deadline(&self) -> Option<Time> {
        None
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    fn watch(&self, _watched: bool) -> io::Result<()> {
        Ok(())
    }
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A packet whose body is `number`, sealed.
fn packet(flow: &Flow, ident: u16, number: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![number; len];
    packet[..12].copy_from_slice(&[4, 0, 0xff, 0xff, 0, 7, 0x12, 0x34, 0x80, 0, 0, number]);
    seal(flow, ident, &mut packet).unwrap();
    packet
}

/// Fills a train with `count` packets of `len` bytes.
fn fill(train: &mut Train, gid_index: u8, count: u8, len: usize) {
    let at = usize::from(gid_index);
    let flow = flow(us()[at], ROCE_PORT, peers()[at]).unwrap();
    train.restart(gid_index, peers()[at]);
    for number in 0..count {
        assert!(train.can_take(len));
        let packet = packet(&flow, train.next_ident(), number, len);
        train.next_packet(len).copy_from_slice(&packet);
        train.end_packet();
    }
}

fn counter(link: &dyn Link, name: &str) -> u64 {
    link.counters().into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn a_train_takes_packets_of_one_length_and_a_shorter_one_at_the_end() {
    let mut train = Train::new();
    fill(&mut train, 1, 3, 1040);
    assert!(!train.can_take(1044));
    assert!(train.can_take(1036));
    train.next_packet(100).fill(0);
    train.end_packet();
    assert!(!train.can_take(100));
    assert_eq!(train.len(), 4);
    fill(&mut train, 1, 15, 4112);
    assert!(!train.can_take(4112), "that would be more than a datagram");
    fill(&mut train, 1, 64, 40);
    assert!(!train.can_take(40), "a kernel splits no more than 64");
}

#[test]
fn what_is_put_together_comes_out_in_order() {
    let mut train = Train::new();
    for _ in 0..2 {
        train.restart(0, Gid::default());
        train.next_packet(3).copy_from_slice(&[1, 2, 3]);
        train.end_packet();
        // Given up, and its room used again.
        train.next_packet(3).copy_from_slice(&[9, 9, 9]);
        train.next_packet(2).copy_from_slice(&[4, 5]);
        train.end_packet();
        assert_eq!(train.len(), 2);
        assert_eq!([train.packet(0), train.packet(1), train.packet(2)], [&[1, 2, 3][..], &[4, 5], &[]]);
        assert_eq!(train.packets(0..2), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn without_a_fault_every_packet_leaves_alone_and_sealed() {
    let (inner, notes) = notebook();
    let link = wrap(inner, Some((FaultPlan::default(), 1)), None).unwrap();
    let mut train = Train::new();
    for gid_index in [0, 1] {
        fill(&mut train, gid_index, 20, 100);
        link.send(Time(5), &mut train).unwrap();
        let at = usize::from(gid_index);
        let flow = flow(us()[at], ROCE_PORT, peers()[at]).unwrap();
        let notes = std::mem::take(&mut *notes.lock().unwrap());
        assert_eq!(notes.len(), 20);
        for (number, (time, from, ident, bytes)) in notes.iter().enumerate() {
            assert_eq!((*time, *from, *ident), (Time(5), gid_index, 0));
            assert_eq!(usize::from(bytes[20]), number);
            assert!(verify(&flow, IdentHint::Known(0), bytes).is_ok());
        }
    }
    assert_eq!(link.deadline(), None);
    assert_eq!(counter(&*link, "port_xmit_packets"), 40);
}

#[test]
fn a_plan_is_carried_out_and_a_seed_repeats_it() {
    let run = |seed| {
        let (inner, notes) = notebook();
        let plan: FaultPlan = "loss=20%,delay=50us~20us,dup=10%,corrupt=10%".parse().unwrap();
        let link = wrap(inner, Some((plan, seed)), None).unwrap();
        let mut train = Train::new();
        for _ in 0..50 {
            fill(&mut train, 1, 20, 100);
            link.send(Time::ZERO, &mut train).unwrap();
        }
        assert!(notes.lock().unwrap().is_empty(), "nothing arrives before its time");
        while let Some(deadline) = link.deadline() {
            assert!(deadline <= Time::ZERO + Duration::from_micros(70));
            link.poll(deadline);
        }
        let counts =
            ["fault_dropped", "fault_duplicated", "fault_corrupted"].map(|name| counter(&*link, name));
        let notes = std::mem::take(&mut *notes.lock().unwrap());
        (notes, counts)
    };
    let (notes, [dropped, duplicated, corrupted]) = run(3);
    assert_eq!(notes.len() as u64, 1000 - dropped + duplicated);
    assert!((100..300).contains(&dropped) && (40..160).contains(&duplicated), "{dropped} {duplicated}");
    assert!(notes.is_sorted_by_key(|note| note.0), "in the order of their times");
    let flow = flow(us()[1], ROCE_PORT, peers()[1]).unwrap();
    let bad = notes.iter().filter(|note| verify(&flow, IdentHint::Known(0), &note.3).is_err()).count() as u64;
    assert_eq!(bad, corrupted);
    assert_eq!(run(3).0, notes);
    assert_ne!(run(4).0, notes);
}

#[test]
fn a_capture_has_whole_ip_packets() {
    let path = std::env::temp_dir().join(format!("tbrdma-capture-{}.pcapng", std::process::id()));
    let (inner, _notes) = notebook();
    let incoming = Flow::new(socket_address(peers()[1], 0xc123), socket_address(us()[1], ROCE_PORT)).unwrap();
    // The identification of a foreign sender, which the socket does not tell.
    inner.incoming.lock().unwrap().push((peers()[1], 0, packet(&incoming, 0xbeef, 99, 60)));
    let link = wrap(inner, None, Some(&path)).unwrap();
    let mut train = Train::new();
    for gid_index in [0, 1] {
        fill(&mut train, gid_index, 5, 100);
        link.send(Time::ZERO, &mut train).unwrap();
    }
    let received = link.receive(Time::ZERO, &mut ReceiveScratch::default(), &mut |_| {}).unwrap();
    assert_eq!(received, 1);
    // What a crash would leave.
    let deadline = link.deadline().unwrap();
    assert!(deadline <= Time::ZERO + Duration::from_secs(1));
    link.poll(deadline);
    let file = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let packets = packets_of(&file);
    assert_eq!(packets.len(), 11);
    for (number, bytes) in packets.iter().enumerate() {
        let whole = IpDatagram::parse(bytes).unwrap();
        let ident = if number == 10 { 0xbeef } else { number as u16 % 5 };
        let flow = whole.flow().unwrap();
        assert_eq!(whole.ident(), flow.is_ipv4().then_some(ident));
        verify(&flow, IdentHint::Known(ident), whole.payload).unwrap();
        assert_eq!(whole.udp.with_checksum(&whole.ip, whole.payload), whole.udp);
        assert_eq!(flow.is_ipv4(), number >= 5);
    }
}

#[test]
fn faults_take_away_the_promises_that_they_break() {
    let both = Promises { delivers: true, intact: true };
    for (plan, delivers) in [
        ("none", true),
        ("delay=50us~20us,rate=1Gbps", true),
        ("loss=1%", false),
        ("delay=1us; 1s: partition=0s..1ms", false),
    ] {
        let (mut inner, _notes) = notebook();
        inner.promises = both;
        let link = wrap(inner, Some((plan.parse().unwrap(), 1)), None).unwrap();
        assert_eq!(link.promises(), Promises { delivers, ..both }, "{plan}");
    }
    let (inner, _notes) = notebook();
    assert_eq!(
        wrap(inner, None, None).unwrap().promises(),
        Promises::default(),
        "a network promises nothing"
    );
}

#[test]
fn a_delay_before_a_link_that_makes_wait_loses_nothing() {
    let (mut inner, notes) = notebook();
    inner.promises.delivers = true;
    let room = Arc::clone(&inner.room);
    room.store(3, Ordering::Relaxed);
    let link = wrap(inner, Some(("delay=10us".parse().unwrap(), 1)), None).unwrap();
    let mut train = Train::new();
    fill(&mut train, 0, 8, 100);
    link.send(Time::ZERO, &mut train).unwrap();
    for _ in 0..5 {
        link.poll(link.deadline().unwrap());
        assert_eq!(notes.lock().unwrap().len(), 3);
    }
    room.store(100, Ordering::Relaxed);
    link.poll(link.deadline().unwrap());
    let numbers: Vec<_> = notes.lock().unwrap().iter().map(|note| note.3[20]).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((link.deadline(), counter(&*link, "fault_dropped")), (None, 0));
}

#[test]
fn a_capture_seals_what_needs_no_seal_on_its_link() {
    let path = std::env::temp_dir().join(format!("tbrdma-capture-unsealed-{}.pcapng", std::process::id()));
    let (mut inner, notes) = notebook();
    inner.promises.intact = true;
    let mut bare = vec![7; 60];
    bare[56..].fill(0);
    inner.incoming.lock().unwrap().push((peers()[0], 0, bare.clone()));
    let link = wrap(inner, None, Some(&path)).unwrap();
    let mut train = Train::new();
    train.restart(0, peers()[0]);
    train.next_packet(60).copy_from_slice(&bare);
    train.end_packet();
    link.send(Time::ZERO, &mut train).unwrap();
    link.receive(Time::ZERO, &mut ReceiveScratch::default(), &mut |packet| assert_eq!(packet.payload, bare))
        .unwrap();
    assert_eq!(notes.lock().unwrap()[0].3, bare, "only the file has it");
    link.poll(link.deadline().unwrap());
    let file = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let packets = packets_of(&file);
    assert_eq!(packets.len(), 2);
    for bytes in packets {
        let whole = IpDatagram::parse(&bytes).unwrap();
        assert_eq!(whole.payload[..56], bare[..56]);
        verify(&whole.flow().unwrap(), IdentHint::Known(0), whole.payload).unwrap();
        assert_eq!(whole.udp.with_checksum(&whole.ip, whole.payload), whole.udp);
    }
}

/// The packets of a pcapng file.
fn packets_of(mut file: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while !file.is_empty() {
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        if word(0) == 6 {
            packets.push(file[28..28 + word(20)].to_vec());
        }
        file = &file[word(4)..];
    }
    packets
}
