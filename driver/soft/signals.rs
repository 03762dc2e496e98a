//! Events of completion queues that are held back until a pass over the device has ended.
//!
//! A program that waits wakes up with the first completion of a pass. What came with it, the acknowledgement of its own last send above all,
//! must be there by then, and what it owes the peer must have left: on an adapter an acknowledgement overtakes the answer to the message.
//! Programs rely on that: they wait for one event, poll once, and post the next send into a queue of one.

use crate::sync::{AtomicU64, Ordering};
use crate::sys::eventfd::EventFd;
use std::sync::Arc;

const NO_EVENT: u64 = u64::MAX;

/// The event of a completion queue, as its channel sees it.
pub(crate) struct CqEvent {
    /// Which event of the device it was that was raised and not yet taken.
    order: AtomicU64,
    channel: Option<Arc<EventFd>>,
}

impl CqEvent {
    pub(crate) fn new(channel: Option<Arc<EventFd>>) -> Arc<Self> {
        Arc::new(Self { order: AtomicU64::new(NO_EVENT), channel })
    }

    /// The place among the device's events of the one that waits to be taken.
    pub(crate) fn order(&self) -> Option<u64> {
        let order = self.order.load(Ordering::Acquire);
        (order != NO_EVENT).then_some(order)
    }

    pub(crate) fn take(&self) -> bool {
        self.order.swap(NO_EVENT, Ordering::AcqRel) != NO_EVENT
    }

    fn tell(&self, order: u64) {
        // One that was not taken yet keeps its place.
        let _ = self.order.compare_exchange(NO_EVENT, order, Ordering::AcqRel, Ordering::Relaxed);
        if let Some(channel) = &self.channel {
            let _ = channel.signal();
        }
    }
}

/// The events of a device.
#[derive(Default)]
pub(crate) struct Signals {
    /// A pass is under way, and will tell.
    held: bool,
    waiting: Vec<(Arc<CqEvent>, u64)>,
    raised: u64,
}

impl Signals {
    /// A pass begins.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// An event: told now, or when the pass has ended. Until then nobody sees it: who happens to look at the queues of its channel must not
    /// learn of it sooner than who sleeps.
    pub(crate) fn raise(&mut self, event: &Arc<CqEvent>) {
        let order = self.raised;
        self.raised += 1;
        if self.held {
            self.waiting.push((Arc::clone(event), order));
        } else {
            event.tell(order);
        }
    }

    /// The pass has ended.
    pub(crate) fn release(&mut self) {
        self.held = false;
        for (event, order) in self.waiting.drain(..) {
            event.tell(order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_raised_during_a_pass_is_seen_after_it_and_in_its_order() {
        let channel = Arc::new(EventFd::new().unwrap());
        let [first, second] = [(); 2].map(|()| CqEvent::new(Some(Arc::clone(&channel))));
        let mut signals = Signals::default();
        signals.hold();
        signals.raise(&second);
        signals.raise(&first);
        assert_eq!((first.order(), second.order(), channel.drain().unwrap()), (None, None, 0));
        assert!(!first.take(), "an event was seen before the pass had ended");
        signals.release();
        assert!(second.order() < first.order() && channel.drain().unwrap() == 2);
        assert!(first.take() && second.take() && !first.take());
        signals.raise(&first);
        assert!(first.take(), "without a pass, at once");
    }
}
