//! Completions that are late: the device has had them for some time before the program does, as the fault plan wants it.

use crate::context::lock;
use crate::watch;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;
use tbrdma::WorkCompletion;

/// The completions of a queue that the program has not been given yet, in the order of the device.
#[derive(Default)]
pub(crate) struct Late(Mutex<VecDeque<(Instant, WorkCompletion)>>);

impl Late {
    /// Adds what the device has. Those of a queue pair stay in their order, so one that is late makes others late. `later` is told when there is something to
    /// be given that cannot be given now.
    pub(crate) fn add(&self, wcs: &[WorkCompletion], mut later: impl FnMut(Instant)) {
        let mut held = lock(&self.0);
        let now = Instant::now();
        for wc in wcs {
            let own = watch::delays().map_or(now, |time| now + time);
            let before = held.iter().rev().find(|(_, earlier)| earlier.qp_num == wc.qp_num);
            let due = before.map_or(own, |(due, _)| own.max(*due));
            if due > now {
                later(due);
            }
            held.push_back((due, *wc));
        }
    }

    /// Gives those whose time has come: as many as there is room for.
    pub(crate) fn give(&self, out: &mut [WorkCompletion]) -> usize {
        let mut held = lock(&self.0);
        let now = Instant::now();
        let mut count = 0;
        held.retain(|(due, wc)| {
            let given = *due <= now && count < out.len();
            if given {
                out[count] = *wc;
                count += 1;
            }
            !given
        });
        count
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Forgets those of a queue pair that is reset or destroyed.
    pub(crate) fn purge(&self, qp_num: u32) {
        lock(&self.0).retain(|(_, wc)| wc.qp_num.get() != qp_num);
    }
}
