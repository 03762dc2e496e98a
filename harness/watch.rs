//! What a waiting loop must not forget: Ctrl-C, a peer that has gone, a peer that no longer answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{Error, Result};
use crate::signals;

/// Looked at by loops that wait for the peer; cheap enough for every empty poll.
#[derive(Debug, Clone)]
pub struct Watch {
    alarms: Vec<Arc<AtomicBool>>,
    timeout: Duration,
    peer: String,
}

/// The state of one wait.
#[derive(Debug, Default)]
pub struct Spins {
    count: u32,
    since: Option<Instant>,
}

impl Spins {
    /// How often this wait has come round.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// How long a sleep lasts before the flags are looked at.
const NAP: Duration = Duration::from_millis(100);

/// A wait looks at the clock and the flags once in so many turns.
const TURNS_BETWEEN_LOOKS: u32 = 1024;

impl Watch {
    /// `alarm` is raised by the control channel; a wait longer than `timeout` is an error that names `peer`.
    #[must_use]
    pub fn new(alarm: Arc<AtomicBool>, timeout: Duration, peer: String) -> Self {
        Self::of_all(vec![alarm], timeout, peer)
    }

    /// The same with several peers, of whom any may raise the alarm.
    #[must_use]
    pub fn of_all(alarms: Vec<Arc<AtomicBool>>, timeout: Duration, peer: String) -> Self {
        Self { alarms, timeout, peer }
    }

    /// One more turn of a busy wait; `true` when this turn was one of the rare ones that looked around.
    ///
    /// # Errors
    /// The user interrupted, the peer asks for attention, or nothing has come for the whole timeout.
    #[inline]
    pub fn turn(&self, spins: &mut Spins, waiting_for: &'static str) -> Result<bool> {
        spins.count = spins.count.wrapping_add(1);
        if !spins.count.is_multiple_of(TURNS_BETWEEN_LOOKS) {
            return Ok(false);
        }
        self.look(spins, waiting_for)?;
        Ok(true)
    }

    /// Sleeps for so long, and looks around meanwhile.
    ///
    /// # Errors
    /// As [`Watch::turn`], but for the time it takes.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
            self.look(&mut Spins::default(), "end of a pause")?;
        }
    }

    /// Looks around now, for waits that sleep instead of spinning.
    ///
    /// # Errors
    /// As [`Watch::turn`].
    #[cold]
    pub fn look(&self, spins: &mut Spins, waiting_for: &'static str) -> Result<()> {
        signals::check()?;
        if self.alarms.iter().any(|alarm| alarm.load(Ordering::Acquire)) {
            return Err(Error::Alarm);
        }
        let since = *spins.since.get_or_insert_with(clock::now);
        if clock::now().duration_since(since) >= self.timeout {
            return Err(Error::Run(format!(
                "no {waiting_for} from {} within {} s: it is stuck, stopped or the message was lost; --timeout waits longer",
                self.peer,
                self.timeout.as_secs_f64()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Spins, Watch};
    use crate::error::Error;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    fn spin_to_error(watch: &Watch) -> Error {
        let mut spins = Spins::default();
        loop {
            if let Err(error) = watch.turn(&mut spins, "answer") {
                return error;
            }
        }
    }

    #[test]
    fn a_silent_peer_is_named() {
        let watch = Watch::new(Arc::default(), Duration::from_millis(20), "process 7".into());
        assert!(spin_to_error(&watch).to_string().starts_with("no answer from process 7 within 0.02 s"));
    }

    #[test]
    fn an_alarm_ends_the_wait_at_once() {
        let alarm = Arc::new(AtomicBool::new(false));
        let watch = Watch::new(alarm.clone(), Duration::from_secs(600), String::new());
        alarm.store(true, Ordering::Release);
        assert_eq!(spin_to_error(&watch), Error::Alarm);
    }
}
