//! Two links at a simulated window: packets arrive once and in order whatever the bus does, sleepers are woken, peers come and go, and whoever scribbles
//! over the window spoils his own traffic only.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use super::BarLink;
use crate::bar::simulated::{Counts, Simulated};
use crate::bar::window::{Gone, Life};
use crate::link::{Link, LinkState, ReceiveScratch, Train};
use std::time::Duration;
use tbrdma_proto::Time;
use tbrdma_proto::bar_link::{Geometry, HELLO, SLOTS};
use tbrdma_proto::fault::Random;

/// Bytes of an area with the smallest number of slots, of 512 bytes each.
const AREA: usize = 16 << 10;

struct Side {
    link: BarLink<Simulated>,
    window: Simulated,
    /// Numbers of packets sent and received.
    sent: u32,
    received: u32,
    now: Time,
    asleep: bool,
}

impl Side {
    fn open(window: &Simulated, incarnation: u64) -> Self {
        // Alone at first, so that opening does not wait.
        window.set_peer(Life::Dead);
        let link = BarLink::open("bar:test".to_owned(), window.clone(), incarnation).unwrap();
        window.set_peer(Life::Alive);
        link.watch(false).unwrap();
        Self { link, window: window.clone(), sent: 0, received: 0, now: Time::ZERO, asleep: false }
    }

    fn is_up(&self) -> bool {
        self.link.state().is_some_and(LinkState::is_up)
    }

    /// Sends so many numbered packets of some length to the peer; how many found room.
    fn send(&mut self, to: &Self, count: u32, len: usize) -> u32 {
        let mut train = Train::new();
        train.restart(0, to.link.gids()[0]);
        for number in self.sent..self.sent + count {
            let packet = train.next_packet(len);
            packet.fill(number as u8);
            packet[..4].copy_from_slice(&number.to_le_bytes());
            train.end_packet();
        }
        let result = self.link.send(self.now, &mut train);
        assert_eq!(result.is_ok(), train.sent == train.len());
        self.sent += train.sent as u32;
        train.sent as u32
    }

    /// Takes what has arrived, and checks it; how many packets.
    fn receive(&mut self) -> usize {
        if self.link.deadline().is_some_and(|due| due <= self.now) {
            self.link.poll(self.now);
        }
        let mut expected = self.received;
        let count = self
            .link
            .receive(self.now, &mut ReceiveScratch::default(), &mut |datagram| {
                let (number, rest) = datagram.payload.split_first_chunk().unwrap();
                assert_eq!(u32::from_le_bytes(*number), expected, "in order, once");
                assert!(rest.iter().all(|&byte| byte == expected as u8), "whole");
                expected += 1;
            })
            .unwrap();
        self.received = expected;
        count
    }
}

/// Everything under way arrives, and both sides look, until nothing happens any more.
fn settle(sides: &mut [Side; 2]) {
    let mut quiet = 0;
    for _ in 0..1000 {
        let mut busy = false;
        for side in sides.iter_mut() {
            while side.window.deliver() {
                busy = true;
            }
            busy |= side.receive() > 0;
        }
        quiet = if busy { 0 } else { quiet + 1 };
        // Hellos are no packets.
        if quiet == 8 {
            return;
        }
    }
    panic!("it never ends");
}

fn pair(is_coherent: bool, seed: u64) -> [Side; 2] {
    let windows = Simulated::pair(AREA, is_coherent, seed);
    let mut sides = [Side::open(&windows[0], 1001), Side::open(&windows[1], 1002)];
    settle(&mut sides);
    assert!(sides.iter().all(Side::is_up));
    sides
}

#[test]
fn packets_arrive_once_and_in_order_and_sleepers_are_woken() {
    let geometry = Geometry::of_area(AREA).unwrap();
    for seed in 0..15 {
        let is_coherent = seed % 3 == 0;
        let mut random = Random::new(seed);
        let mut sides = pair(is_coherent, seed);
        for _ in 0..400 {
            let at = random.next_u32() as usize % 2;
            match random.next_u32() % 8 {
                0 | 1 => {
                    let (count, len) = (
                        1 + random.next_u32() % 9,
                        4 + random.next_u32() as usize % (geometry.longest() - 4),
                    );
                    let [a, b] = &mut sides;
                    let (from, to) = if at == 0 { (a, b) } else { (b, a) };
                    from.send(to, count, len);
                }
                2..=4 => _ = sides[at].window.deliver(),
                5 => {
                    // Somebody who polls.
                    if std::mem::take(&mut sides[at].asleep) {
                        sides[at].link.watch(false).unwrap();
                    }
                    sides[at].receive();
                }
                _ => {
                    // Somebody who goes to sleep, if there is nothing.
                    let side = &mut sides[at];
                    if !side.asleep {
                        side.link.watch(true).unwrap();
                        side.asleep = side.receive() == 0;
                    }
                }
            }
            wake(&mut sides);
        }
        // Who sleeps looks only when rung, or when it is time.
        for _ in 0..60 {
            for side in &mut sides {
                while side.window.deliver() {}
                if !side.asleep {
                    side.link.watch(true).unwrap();
                    side.asleep = side.receive() == 0;
                }
            }
            wake(&mut sides);
            if !is_coherent {
                for side in &mut sides {
                    side.now = side.now + Duration::from_micros(50);
                }
            }
        }
        for (at, side) in sides.iter().enumerate() {
            assert_eq!(side.received, sides[1 - at].sent, "seed {seed}: nobody was lost asleep");
        }
    }
}

/// Sleepers wake who were rung, or whose time has come.
fn wake(sides: &mut [Side; 2]) {
    for side in sides.iter_mut().filter(|side| side.asleep) {
        if side.window.is_rung() || side.link.deadline().is_some_and(|due| due <= side.now) {
            side.asleep = side.receive() == 0;
        }
    }
}

#[test]
fn a_small_packet_costs_so_many_accesses_and_none_across() {
    let [mut a, mut b] = pair(true, 1);
    let slots = u64::from(Geometry::of_area(AREA).unwrap().slots());
    let before = [a.window.counts(), b.window.counts()];
    let rounds = 10 * slots;
    for _ in 0..rounds {
        assert_eq!((a.send(&b, 1, 80), b.receive(), b.send(&a, 1, 80), a.receive()), (1, 1, 1, 1));
    }
    for (side, before) in [&a, &b].into_iter().zip(before) {
        let now = side.window.counts();
        // One copy and one header a packet, a credit a quarter of the ring; the rest is near. Nobody waits, so nobody is rung.
        let credits = rounds / slots.div_ceil(4);
        let expected = Counts {
            stores: rounds + credits,
            copies_out: rounds,
            fences: 2 * (rounds + credits),
            rings: 0,
            // Before sending the credit and the wish; the packet's header, and none behind it.
            loads: now.loads - before.loads,
            copies_in: rounds,
        };
        let spent = Counts {
            stores: now.stores - before.stores,
            copies_out: now.copies_out - before.copies_out,
            fences: now.fences - before.fences,
            rings: now.rings - before.rings,
            loads: now.loads - before.loads,
            copies_in: now.copies_in - before.copies_in,
        };
        assert_eq!(spent, expected);
        assert!(spent.loads <= 4 * rounds, "{} loads of near memory for {rounds} round trips", spent.loads);
    }
}

#[test]
fn where_nobody_rings_it_is_looked_often() {
    for (is_mute, soon) in [(false, Duration::from_millis(50)), (true, Duration::from_millis(1))] {
        let windows = Simulated::pair(AREA, true, 3);
        let windows = windows.map(|window| if is_mute { window.mute() } else { window });
        let mut sides = [Side::open(&windows[0], 1001), Side::open(&windows[1], 1002)];
        settle(&mut sides);
        assert!(sides.iter().all(Side::is_up));
        sides[0].link.poll(Time::ZERO);
        assert_eq!(sides[0].link.deadline(), Some(Time::ZERO + soon));
    }
}

#[test]
fn a_full_ring_makes_the_sender_wait_and_loses_nothing() {
    let mut sides = pair(false, 2);
    let slots = Geometry::of_area(AREA).unwrap().slots();
    let [a, b] = &mut sides;
    assert_eq!(a.send(b, 60, 100), slots);
    assert_eq!(a.send(b, 1, 100), 0);
    assert!(a.link.deadline().is_some_and(|due| due < Time::ZERO + Duration::from_millis(1)));
    settle(&mut sides);
    let [a, b] = &mut sides;
    assert_eq!((b.received, a.send(b, 5, 100)), (slots, 5));
    settle(&mut sides);
    assert_eq!(sides[1].received, slots + 5);
}

#[test]
fn a_peer_that_starts_again_is_met_anew_and_nothing_old_arrives() {
    for seed in 0..12 {
        let mut sides = pair(seed % 2 == 0, seed);
        let mut random = Random::new(seed);
        for incarnation in 2000..2006 {
            // Some of it still under way when the peer dies, or says good-bye.
            let [a, b] = &mut sides;
            a.send(b, 1 + random.next_u32() % 30, 60);
            b.send(a, 1 + random.next_u32() % 30, 60);
            for _ in 0..random.next_u32() % 20 {
                a.window.deliver();
                b.window.deliver();
            }
            let window = b.window.clone();
            let new = Side::open(&window, incarnation);
            let old = std::mem::replace(&mut sides[1], new);
            if random.next_u32().is_multiple_of(2) {
                std::mem::forget(old.link);
            }
            // What the survivor had been sent before may still arrive.
            for _ in 0..random.next_u32() % 60 {
                let at = random.next_u32() as usize % 2;
                sides[at].window.deliver();
                if at == 1 {
                    sides[1].receive();
                }
            }
            let before = sides[0].received;
            while sides[0].window.deliver() {}
            sides[0].receive();
            assert!(sides[0].received >= before);
            // From here on both count from 0.
            while sides[0].receive() > 0 {}
            (sides[0].sent, sides[0].received) = (0, 0);
            settle(&mut sides);
            assert!(sides.iter().all(Side::is_up), "seed {seed}");
            let [a, b] = &mut sides;
            assert_eq!((a.send(b, 7, 90), b.send(a, 7, 90)), (7, 7));
            settle(&mut sides);
            assert_eq!(sides.each_ref().map(|side| side.received), [7, 7], "seed {seed}");
        }
    }
}

#[test]
fn a_dead_peer_takes_the_port_down_and_a_silent_one_until_it_is_heard() {
    let mut sides = pair(true, 3);
    let [a, b] = &mut sides;
    a.window.set_peer(Life::Dead);
    a.now = a.now + Duration::from_secs(1);
    a.receive();
    assert!(!a.is_up() && b.is_up());
    assert_eq!(a.send(b, 3, 50), 3, "what cannot arrive is dropped, and nobody waits");
    assert_eq!(
        a.link.counters().iter().find(|(name, _)| *name == "bar_unreachable_packets"),
        Some(&("bar_unreachable_packets", 3))
    );

    let mut sides = pair(true, 4);
    for side in &sides {
        side.window.set_peer(Life::Unknown);
    }
    for step in 0..100_u32 {
        // The second one is stopped for a while.
        let is_stopped = (20..70).contains(&step);
        for (at, side) in sides.iter_mut().enumerate() {
            side.now = Time::ZERO + Duration::from_millis(100) * step;
            if at == 0 || !is_stopped {
                side.receive();
            }
        }
        // It hears a pulse of up to 100 ms before, and takes 2 s to despair of it.
        if !(38..42).contains(&step) && !(70..72).contains(&step) {
            assert_eq!(sides[0].is_up(), !(42..70).contains(&step), "step {step}");
        }
    }
    let [a, b] = &mut sides;
    assert_eq!(a.send(b, 3, 50), 3);
    settle(&mut sides);
    assert_eq!(sides[1].received, 3);
}

#[test]
fn a_window_that_is_gone_takes_the_port_down_for_good() {
    let mut sides = pair(true, 5);
    let [a, b] = &mut sides;
    a.window.take_away(Gone::Ousted);
    a.receive();
    assert!(!a.is_up());
    assert!(a.link.describe().contains("its side was taken"), "{}", a.link.describe());
    a.link.poll(a.now);
    assert_eq!(a.link.deadline(), None, "there is nothing to look for");
    assert_eq!(a.send(b, 1, 50), 1, "dropped");
}

#[test]
fn scribbles_spoil_no_more_than_the_traffic() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let [mut a, mut b] = pair(true, seed);
        for _ in 0..300 {
            let len = 1 + random.next_u32() as usize % 16;
            let bytes: Vec<_> = (0..len)
                .map(|_| if random.next_u32().is_multiple_of(3) { 0xff } else { random.next_u32() as u8 })
                .collect();
            let places = [HELLO, 64, 72, SLOTS, random.next_u32() as usize % AREA];
            a.window
                .scribble(places[random.next_u32() as usize % 5] + random.next_u32() as usize % 8, &bytes);
            a.now = a.now + Duration::from_millis(u64::from(random.next_u32() % 60));
            let now = a.now;
            // Whatever comes of it: no panic, no packet longer than a slot, and calls that end.
            if a.link.deadline().is_some_and(|due| due <= now) {
                a.link.poll(now);
            }
            let longest = Geometry::of_area(AREA).unwrap().longest();
            let mut seen = 0;
            a.link
                .receive(now, &mut ReceiveScratch::default(), &mut |datagram| {
                    assert!(datagram.payload.len() <= longest);
                    seen += 1;
                })
                .unwrap();
            assert!(seen <= 64);
            a.send(&b, 1, 60);
            // Nor does what it makes of that hurt the other side.
            b.received = 0;
            let _ = b.link.receive(now, &mut ReceiveScratch::default(), &mut |_| {});
        }
    }
}
