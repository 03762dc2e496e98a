//! A connected queue: every message is seen once, whole and in order, also when a slot is used again.

use super::{Bytes, check, glance, thread, words};
use crate::ring::receive::{Delivery, ReceiveRing, ReceiveShape};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use loom::sync::Arc;
use tbrdma_proto::{Sge, WcFlags, WcOpcode, WcStatus};

const SHAPE: ReceiveShape = ReceiveShape::new(1, 1);
const QPN: u32 = 0x77;

struct Queue {
    words: Vec<AtomicU64>,
    /// Receives with smaller numbers have been polled, as the driver tells its poster.
    polled: AtomicU32,
    buffer: Bytes,
}

impl Queue {
    fn ring(&self) -> ReceiveRing<'_> {
        ReceiveRing::new(&self.words, SHAPE).unwrap()
    }
}

fn sge(number: u32) -> Sge {
    Sge { addr: 0x1000 + u64::from(number), length: 10 + number, lkey: 100 + number }
}

fn delivery(number: u32) -> Delivery {
    Delivery {
        status: WcStatus::Success,
        opcode: WcOpcode::Recv,
        flags: WcFlags::WITH_IMM,
        byte_len: 20 + number,
        imm_data: 30 + number,
        src_qp: 40 + number,
    }
}

impl Queue {
    /// Owner: posts receive `number` if its slot is free.
    fn post(&self, number: u32) -> Option<()> {
        (number - self.polled.load(Ordering::Acquire) < SHAPE.depth).then(|| {
            self.ring().post(number, std::iter::once(sge(number)));
        })
    }

    /// Peer: sends message `number` if there is a receive for it.
    fn send(&self, number: u32) -> Option<()> {
        let posting = self.ring().posted(number)?;
        assert_eq!(posting.sges().collect::<Vec<_>>(), [sge(number)], "a posting in two halves");
        self.buffer.write(u64::from(number) + 1);
        self.ring().deliver(number, &delivery(number), QPN);
        Some(())
    }

    /// Owner: polls message `number` if it is there.
    fn poll(&self, number: u32) -> Option<()> {
        let ring = self.ring();
        let seen = ring.delivered(number)?;
        assert_eq!(seen, delivery(number), "a completion in two halves");
        assert_eq!(ring.receiver(number), QPN);
        assert!(!ring.is_given_back(number));
        assert_eq!(self.buffer.read(), u64::from(number) + 1);
        assert_eq!(ring.delivered(number + 1), None, "a message that was not sent yet");
        self.polled.store(number + 1, Ordering::Release);
        Some(())
    }
}

/// Does a step for each number in turn until one cannot be done; the number of those done.
fn advance(from: u32, looks: usize, step: impl Fn(u32) -> Option<()>) -> u32 {
    (from..MESSAGES).find(|&number| glance(looks, || step(number)).is_none()).unwrap_or(MESSAGES)
}

const MESSAGES: u32 = 3;

#[test]
fn poster_sender_and_poller_agree_over_laps() {
    check(3, || {
        let queue =
            Arc::new(Queue { words: words(SHAPE.words()), polled: AtomicU32::new(0), buffer: Bytes::new() });
        queue.post(0).unwrap();
        let poster = Arc::clone(&queue);
        let poster = thread::spawn(move || advance(1, 2, |number| poster.post(number)));
        let sender = Arc::clone(&queue);
        let sender = thread::spawn(move || advance(0, 2, |number| sender.send(number)));
        let mut polled = advance(0, 2, |number| queue.poll(number));
        let mut posted = poster.join().unwrap();
        let mut sent = sender.join().unwrap();
        // What did not happen side by side happens now: nothing is lost.
        while polled < MESSAGES {
            posted = advance(posted, 1, |number| queue.post(number));
            sent = advance(sent, 1, |number| queue.send(number));
            let more = advance(polled, 1, |number| queue.poll(number));
            assert!(more > polled, "stuck: {posted} posted, {sent} sent, {polled} polled");
            polled = more;
        }
        assert_eq!((posted, sent), (MESSAGES, MESSAGES));
    });
}
