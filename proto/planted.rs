//! Bugs put in on purpose, to see that the simulation finds them.
//!
//! `cargo xtask swarm --plant all` builds the crate with `--cfg tbrdma_planted` and tries them one at a time. In every other
//! build [`is`] is the constant `false`: the bugs do not exist, not even as a branch.

/// Defines the bugs with what each does, once.
macro_rules! bugs {
    ($( $(#[doc = $what:literal])+ $bug:ident, $name:literal; )+) => {
        /// A bug that can be put in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Bug {
            $( $(#[doc = $what])+ $bug, )+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[ $( Self::$bug, )+ ];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$bug => $name, )+ }
            }

            /// What it does.
            pub const fn what(self) -> &'static str {
                match self { $( Self::$bug => concat!($( $what, )+).trim_ascii(), )+ }
            }
        }
    };
}

bugs! {
    /// An access may reach one byte beyond its region.
    BoundOffByOne, "bound-off-by-one";
    /// Sequence numbers are compared as plain numbers, so that order is lost where they wrap.
    PlainPsn, "plain-psn";
    /// A repeated READ request is not answered.
    LostReadReplay, "lost-read-replay";
    /// A repeated atomic is carried out again instead of being answered from what was saved.
    AtomicTwice, "atomic-twice";
    /// A repeated SEND is delivered again.
    SendTwice, "send-twice";
    /// A packet that continues a UC message is taken although one before it is missing.
    UcGap, "uc-gap";
    /// A message that spans two scatter entries puts one byte too many in the first.
    ScatterSplit, "scatter-split";
    /// A receive still in the queue is not flushed when the queue pair fails.
    ReceiveNotFlushed, "receive-not-flushed";
    /// A SEND with invalidate leaves the key valid.
    KeyNotInvalidated, "key-not-invalidated";
    /// The time that a receiver-not-ready NAK asks for is not waited.
    RnrTimerIgnored, "rnr-timer-ignored";
    /// Receiver-not-ready retries are not counted.
    RnrForever, "rnr-forever";
    /// An acknowledgement outside what is outstanding counts as one of everything outstanding.
    GhostAck, "ghost-ack";
    /// Timeouts are not counted, so that a dead peer is tried for ever.
    RetryForever, "retry-forever";
    /// An acknowledgement completes a READ whose data never came.
    AckOvertakesRead, "ack-overtakes-read";
    /// A send still in the queue is not flushed when the queue pair fails.
    SendNotFlushed, "send-not-flushed";
    /// A fenced request does not wait for READs and atomics before it.
    FenceIgnored, "fence-ignored";
    /// One READ or atomic more than agreed is outstanding.
    OneReadTooMany, "one-read-too-many";
    /// After a sequence NAK, sending resumes one packet too late.
    ResumeLate, "resume-late";
}

#[cfg(tbrdma_planted)]
mod chosen {
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// The number of the bug that is put in, plus one; 0 for none.
    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// Puts a bug in, or takes it out; for the whole process.
    pub fn choose(bug: Option<Bug>) {
        CHOSEN.store(bug.map_or(0, |bug| bug as u8 + 1), Ordering::SeqCst);
    }

    /// Whether this bug is put in.
    #[inline]
    pub fn is(bug: Bug) -> bool {
        CHOSEN.load(Ordering::Relaxed) == bug as u8 + 1
    }
}

#[cfg(tbrdma_planted)]
pub use chosen::{choose, is};

/// Whether this bug is put in: never, in this build.
#[cfg(not(tbrdma_planted))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
