//! What the words of a memory window mean: whatever they are, offsets stay inside, and two sides that start, stop and start again meet.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;
use tbrdma_proto::Mtu;
use tbrdma_proto::bar_link::{
    Arrival, Geometry, HELLO_WORDS, Header, Hello, HelloError, Inbox, Outbox, SLOTS, Session, WORD,
};

#[test]
fn an_area_is_cut_for_the_largest_mtu_of_which_it_holds_enough() {
    assert_eq!(Geometry::of_area(Geometry::smallest_area() - 1), None);
    for (bytes, mtu, slots) in [
        (Geometry::smallest_area(), Mtu::B256, 24),
        (16 << 10, Mtu::B512, 25),
        (64 << 10, Mtu::B2048, 30),
        (1 << 20, Mtu::B4096, 248),
        (1 << 30, Mtu::B4096, 256),
    ] {
        let cut = Geometry::of_area(bytes).unwrap();
        assert_eq!((cut.mtu(), cut.slots()), (mtu, slots), "{bytes}");
        assert!(cut.slot(u64::from(slots) - 1) + cut.slot_bytes() as usize <= bytes);
        assert_eq!(Geometry::told(slots, cut.slot_bytes(), mtu, bytes), Some(cut));
    }
}

#[test]
fn a_slot_holds_its_packet_once_and_a_full_ring_has_no_room() {
    let geometry = Geometry::told(3, 384, Mtu::B256, SLOTS + 3 * 384).unwrap();
    let (mut inbox, outbox) = (Inbox::new(geometry), Outbox::new(geometry));
    let mut words = [0_u64; 3];
    let (mut sent, mut told) = (0, 0);
    for round in 0..10_u64 {
        while outbox.room(sent, told) > 0 {
            words[(sent % 3) as usize] = Header::of(sent, sent as u16, 1, 2).to_word();
            sent += 1;
        }
        assert_eq!(sent, told + 3);
        let header = Header { number: round as u32 + 1, len: round as u16, traffic_class: 1, hop_limit: 2 };
        let at = inbox.next() + WORD;
        assert_eq!(inbox.look(words[(round % 3) as usize]), Arrival::Packet { at, header });
        inbox.take();
        // What was there before is not there again.
        assert_eq!(inbox.look(words[(round % 3) as usize]), Arrival::Nothing);
        told = inbox.credit().unwrap_or(told);
    }
}

proptest! {
    #[test]
    fn nothing_outside_is_reached_whatever_the_words(
        bytes in 0..3_000_000_usize,
        (slots, slot_bytes) in any::<(u32, u32)>(),
        small in (1..300_u32, (2..34_u32).prop_map(|pairs| pairs * 128)),
        number: u64,
        word: u64,
        (sent, taken) in any::<(u64, u64)>(),
    ) {
        let told = [(slots, slot_bytes), small].map(|(slots, len)| Geometry::told(slots, len, Mtu::B256, bytes));
        for geometry in told.into_iter().flatten().chain(Geometry::of_area(bytes)) {
            let slot = Outbox::new(geometry).slot(number);
            prop_assert!(slot >= SLOTS && slot + WORD + geometry.longest() <= bytes);
            prop_assert!(Outbox::new(geometry).room(sent, taken) <= u64::from(geometry.slots()));
            let mut inbox = Inbox::new(geometry);
            for word in [word, word & 0xffff_ffff | 1 << 32, u64::MAX, Header::of(0, 5, 0, 0).to_word()] {
                if let Arrival::Packet { at, header } = inbox.look(word) {
                    prop_assert!(at + usize::from(header.len) <= bytes);
                    inbox.take();
                }
            }
        }
    }

    #[test]
    fn a_hello_is_read_whole_or_not_at_all(incarnation in 1..u64::MAX, answers: u64, at in 0..HELLO_WORDS, other: u64) {
        let hello = Hello { incarnation, answers, is_ready: true, is_closing: false, slots: 25, slot_bytes: 640, doorbell: 3 };
        let words = hello.to_words();
        prop_assert_eq!(Hello::from_words(&words), Ok(hello));
        let mut torn = words;
        torn[at] = other;
        prop_assert!(torn == words || Hello::from_words(&torn).is_err());
    }

    /// Two sides look, start again and die in any order; what is written arrives in order. In the end both are up for each other.
    #[test]
    fn two_sides_meet_whatever_came_before(steps in prop::collection::vec((0..2_usize, 0..6_u8), 0..60)) {
        let geometry = Geometry::of_area(16 << 10).unwrap();
        let open = |incarnation| Session::new(incarnation, geometry, 0, 16 << 10);
        let mut next = 10_u64;
        let mut sides = [open(1), open(2)];
        // What is under way to either side, and what it finds when it looks.
        let mut ways: [Vec<[u64; HELLO_WORDS]>; 2] = [vec![sides[1].opening().to_words()], vec![sides[0].opening().to_words()]];
        let mut found = [[0; HELLO_WORDS]; 2];
        // Enough for all that sixty beginnings have left on the way.
        let end = (0..600).map(|step| (step % 2, step as u8 / 2 % 2));
        for (at, what) in steps.into_iter().chain(end) {
            match what {
                0 if !ways[at].is_empty() => found[at] = ways[at].remove(0),
                1 => {
                    let turn = sides[at].look(Hello::from_words(&found[at]));
                    prop_assert!(turn.up.is_none_or(|peer| peer.geometry == geometry));
                    if let Some(hello) = turn.say {
                        ways[1 - at].push(hello.to_words());
                    }
                }
                2 => {
                    if next.is_multiple_of(2) {
                        ways[1 - at].push(sides[at].closing().to_words());
                    }
                    next += 1;
                    sides[at] = open(next);
                    ways[1 - at].push(sides[at].opening().to_words());
                }
                _ => {}
            }
        }
        prop_assert!(sides[0].is_up() && sides[1].is_up());
    }
}

#[test]
fn another_version_and_a_cut_that_does_not_fit_are_refused_with_the_reason() {
    let geometry = Geometry::of_area(16 << 10).unwrap();
    let mut session = Session::new(5, geometry, 0, 16 << 10);
    assert!(session.look(Err(HelloError::Version(9))).up.is_none());
    assert!(session.refused().unwrap().to_string().contains("version 9"));
    let hello = Hello {
        incarnation: 6,
        answers: 5,
        is_ready: true,
        is_closing: false,
        slots: 1000,
        slot_bytes: geometry.slot_bytes(),
        doorbell: 0,
    };
    let turn = session.look(Ok(hello));
    assert!(turn.up.is_none() && turn.say.is_none());
    assert!(session.refused().unwrap().to_string().contains("1000 slots"));
    // One that fits is met, and given up only until it is another.
    let fits = Hello { slots: geometry.slots(), ..hello };
    assert!(session.look(Ok(fits)).up.is_some() && session.refused().is_none());
    assert!(session.give_up().down && session.look(Ok(fits)).up.is_none());
    assert!(session.look(Ok(Hello { incarnation: 7, ..fits })).up.is_some());
}
