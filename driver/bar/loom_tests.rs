//! The ring of a window under the model checker: every interleaving, and every value that a weakly ordered memory may show.
//!
//! The words are the checker's atomics, stored relaxed as words of a window are, so that nothing but the fences of `ends.rs` puts them in order. This is the
//! window of which both sides are processors over one memory; what a bus does besides is in `link/bar/tests.rs`.

use super::ends::{Receiver, Sender};
use super::window::Words;
use crate::sync::{AtomicU64, Ordering, UnsafeCell, fence};
use loom::sync::Arc;
use tbrdma_proto::Mtu;
use tbrdma_proto::bar_link::{ARM, Arrival, Geometry, Header, SLOTS, TAKEN, WORD};

/// Slots of the ring in the model: the third packet takes the place of the first.
const COUNT: u32 = 2;

fn geometry() -> Geometry {
    Geometry::told(COUNT, 384, Mtu::B256, SLOTS + 384 * COUNT as usize).unwrap()
}

/// An area: the words of the protocol, and a packet in each slot that is no atomic, so that the checker sees two that touch it at once.
struct Area {
    taken: AtomicU64,
    arm: AtomicU64,
    headers: [AtomicU64; COUNT as usize],
    packets: [UnsafeCell<u64>; COUNT as usize],
    bell: AtomicU64,
}

// SAFETY: the checker tracks every access to the packets and refuses those that race.
unsafe impl Sync for Area {}
// SAFETY: as above.
unsafe impl Send for Area {}

impl Area {
    fn new() -> Self {
        let word = || AtomicU64::new(0);
        Self {
            taken: word(),
            arm: word(),
            headers: [word(), word()],
            packets: [UnsafeCell::new(0), UnsafeCell::new(0)],
            bell: word(),
        }
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        match offset {
            TAKEN => &self.taken,
            ARM => &self.arm,
            _ => &self.headers[(offset - SLOTS) / geometry().slot_bytes() as usize],
        }
    }

    fn packet(&self, offset: usize) -> &UnsafeCell<u64> {
        &self.packets[(offset - SLOTS) / geometry().slot_bytes() as usize]
    }
}

/// One side.
#[derive(Clone)]
struct Side {
    own: Arc<Area>,
    peers: Arc<Area>,
}

impl Side {
    fn pair() -> [Self; 2] {
        let (a, b) = (Arc::new(Area::new()), Arc::new(Area::new()));
        [Self { own: Arc::clone(&a), peers: Arc::clone(&b) }, Self { own: b, peers: a }]
    }

    /// Sends a packet with this content, if there is room.
    fn send(&self, sender: &Sender, content: u64) -> bool {
        let claimed = sender.claim(self, 1);
        let number = claimed.start;
        if claimed.is_empty() {
            return false;
        }
        // SAFETY: the checker refuses a model in which this races.
        self.peers.packet(sender.outbox().slot(number)).with_mut(|packet| unsafe { *packet = content });
        self.order();
        sender.publish(self, number, Header::of(number, 8, 0, 0));
        self.flush();
        if sender.must_ring(self) {
            self.peers.bell.fetch_add(1, Ordering::Release);
        }
        true
    }

    /// Takes the next packet, if it is there.
    fn take(&self, receiver: &mut Receiver) -> Option<u64> {
        let Arrival::Packet { at, header } = receiver.look(self) else { return None };
        assert_eq!(header.len, 8);
        // SAFETY: the checker refuses a model in which this races.
        let content = self.own.packet(at - WORD).with(|packet| unsafe { *packet });
        receiver.take(self);
        Some(content)
    }
}

impl Words for Side {
    fn store(&self, offset: usize, word: u64) {
        self.peers.word(offset).store(word, Ordering::Relaxed);
    }

    fn order(&self) {
        fence(Ordering::Release);
    }

    fn flush(&self) {}

    fn load(&self, offset: usize) -> u64 {
        self.own.word(offset).load(Ordering::Acquire)
    }

    fn reset(&self, offset: usize, word: u64) {
        self.own.word(offset).store(word, Ordering::Relaxed);
    }

    fn meets(&self) -> bool {
        fence(Ordering::SeqCst);
        true
    }
}

/// Runs a model over all interleavings with at most so many involuntary switches.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(model);
}

#[test]
fn packets_arrive_whole_and_in_order_and_no_slot_is_written_while_it_is_read() {
    check(3, || {
        let [a, b] = Side::pair();
        let taker = loom::thread::spawn(move || {
            let mut receiver = Receiver::new(geometry());
            for expected in 1..=3 {
                let content = loop {
                    match b.take(&mut receiver) {
                        Some(content) => break content,
                        None => loom::thread::yield_now(),
                    }
                };
                assert_eq!(content, expected);
            }
            assert_eq!(receiver.look(&b), Arrival::Nothing);
        });
        let sender = Sender::new(geometry());
        for content in 1..=3 {
            while !a.send(&sender, content) {
                loom::thread::yield_now();
            }
        }
        taker.join().unwrap();
    });
}

#[test]
fn two_threads_that_send_take_a_slot_each() {
    check(2, || {
        let [a, b] = Side::pair();
        let sender = Arc::new(Sender::new(geometry()));
        let (other, its) = (a.clone(), Arc::clone(&sender));
        let thread = loom::thread::spawn(move || assert!(other.send(&its, 10)));
        assert!(a.send(&sender, 20));
        thread.join().unwrap();
        let mut receiver = Receiver::new(geometry());
        let both = [b.take(&mut receiver), b.take(&mut receiver)];
        assert!(both == [Some(10), Some(20)] || both == [Some(20), Some(10)]);
    });
}

#[test]
fn who_goes_to_sleep_is_rung_for_what_it_has_not_seen() {
    check(3, || {
        let [a, b] = Side::pair();
        let own = Arc::clone(&b.own);
        let sleeper = loom::thread::spawn(move || {
            let mut receiver = Receiver::new(geometry());
            for taken in 0..2 {
                if b.take(&mut receiver).is_none() {
                    if !receiver.arm(&b) {
                        return taken;
                    }
                    assert!(b.take(&mut receiver).is_some());
                }
            }
            2
        });
        let sender = Sender::new(geometry());
        assert!(a.send(&sender, 1) && a.send(&sender, 2));
        let taken = sleeper.join().unwrap();
        // Who has not seen both sleeps, and must have been rung for the one that is next.
        assert!(taken == 2 || own.bell.load(Ordering::Acquire) > 0, "asleep after {taken}");
    });
}
