//! Giving the core away for programs that wait in their memory and not in a completion queue.
//!
//! Such a program writes to its peer and then looks at its own memory until the peer has written back; of that we see nothing. Where both
//! share a core, each turn takes as long as the scheduler lets the other look in vain: milliseconds. So when a few writes in a row come
//! that slowly, the next many give the core away after they are posted: the peer, if it waits for this core, has it at once. Where nobody
//! waits for it this costs under a microsecond, at the pace of a program that takes its time.

use std::time::{Duration, Instant};

/// Posts from one look at the clock to the next: it takes time too.
const WINDOW: u32 = 8;
/// A pace at which time slices are suspected.
const SLOW: Duration = Duration::from_micros(200 * WINDOW as u64);
/// Posts that give the core away once the pace was slow.
const PATIENT: u32 = 1024;

/// The pace of one queue's writes.
#[derive(Default)]
pub(crate) struct Pace {
    posts: u32,
    since: Option<Instant>,
    /// Posts left that give the core away.
    patient: u32,
}

impl Pace {
    /// Another post. Should the core be given away, once no lock is held?
    #[inline(always)]
    pub(crate) fn posted(&mut self) -> bool {
        self.posts = self.posts.wrapping_add(1);
        if self.posts.is_multiple_of(WINDOW) {
            self.look();
        }
        if self.patient == 0 {
            return false;
        }
        self.patient -= 1;
        true
    }

    #[cold]
    fn look(&mut self) {
        let now = Instant::now();
        if self.since.is_some_and(|since| now.duration_since(since) > SLOW) {
            self.patient = PATIENT;
        }
        self.since = Some(now);
    }
}

/// Gives the core away.
#[cold]
pub(crate) fn step_aside() {
    // Linux's sched_yield cannot fail.
    let _ = nix::sched::sched_yield();
}
