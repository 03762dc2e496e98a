//! What happens when nothing happens: the timers, and how often each may run out.

use super::{Requester, Shared, is_reliable};
use crate::planted::{self, Bug};
use crate::qp::ack_timeout;
use crate::time::Time;
use crate::transport::congestion::Congestion;
use crate::transport::recovery::Recovery;
use crate::work::WcStatus;

/// `rnr_retry` that never gives up.
pub(super) const FOR_EVER: u8 = 7;

/// How much longer, in nanoseconds, to be patient with packets that asked for no acknowledgement: the peer may take
/// its time.
const UNASKED_PATIENCE: u64 = 1_000_000;

/// Deadlines and budgets. Those of silence run while something is unacknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timers {
    /// When the queue pair's timeout runs out.
    pub(super) timeout: Time,
    /// When it is worth a try to send again.
    pub(super) probe: Time,
    /// Until when to wait for a receiver that is not ready.
    pub(super) rnr: Option<Time>,
    pub(super) retries_left: u8,
    pub(super) rnr_retries_left: u8,
    /// The probe was put off once, since nothing outstanding asked for an acknowledgement.
    extended: bool,
    /// The queue pair's timeout in nanoseconds; `u64::MAX` is never.
    timeout_nanos: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            timeout: Time::NEVER,
            probe: Time::NEVER,
            rnr: None,
            retries_left: 0,
            rnr_retries_left: 0,
            extended: false,
            timeout_nanos: u64::MAX,
        }
    }
}

impl Timers {
    pub(super) const fn stop(&mut self) {
        self.timeout = Time::NEVER;
        self.probe = Time::NEVER;
        self.rnr = None;
    }
}

impl Requester {
    /// The next deadline.
    #[inline]
    pub(in crate::transport) fn poll_timeout(&self, ctx: &Shared) -> Option<Time> {
        if !is_reliable(ctx) {
            return self.asks_at(ctx);
        }
        let next = match self.timers.rnr {
            Some(rnr) => rnr,
            None => self.timers.timeout.min(self.timers.probe),
        };
        (next != Time::NEVER).then_some(next)
    }

    /// Does what is due.
    pub(in crate::transport) fn handle_timeout(&mut self, now: Time, ctx: &Shared) {
        if let Some(rnr) = self.timers.rnr {
            if now < rnr {
                return;
            }
            self.timers.rnr = None;
            self.restart_silence(now, ctx);
            return;
        }
        if now >= self.timers.timeout {
            self.counters.ack_timeout_err += 1;
            // Who was not asked has not failed to answer: the packets go again, and ask.
            if self.asked > self.unacked {
                if self.timers.retries_left == 0 {
                    self.fail(WcStatus::RetryExcErr);
                    return;
                }
                if !planted::is(Bug::RetryForever) {
                    self.timers.retries_left -= 1;
                }
            }
            // Where nothing is lost, the peer is asked how far it is. Only the last try trusts in nothing.
            if ctx.delivers && self.timers.retries_left > 0 {
                self.owes_probe = true;
            } else {
                self.presume_lost(now);
            }
            self.restart_silence(now, ctx);
        } else if now >= self.timers.probe {
            if self.asked <= self.unacked && !self.timers.extended {
                self.timers.extended = true;
                self.timers.probe = Time(now.0.saturating_add(UNASKED_PATIENCE));
                return;
            }
            self.presume_lost(now);
            self.timers.probe = self.next_probe(now);
        }
    }

    /// Takes over the timeout that is in force.
    pub(in crate::transport) fn configure(&mut self, ctx: &Shared) {
        let timeout = ack_timeout(ctx.attr.timeout).filter(|_| is_reliable(ctx));
        self.timers.timeout_nanos = timeout.map_or(u64::MAX, |timeout| timeout.as_nanos() as u64);
    }

    /// Something was sent: silence is measured if it was not yet.
    #[inline]
    pub(super) fn start_silence(&mut self, now: Time, ctx: &Shared) {
        if self.timers.timeout == Time::NEVER {
            self.restart_silence(now, ctx);
        }
    }

    /// Something was heard.
    #[inline]
    pub(super) fn restart_silence(&mut self, now: Time, ctx: &Shared) {
        self.timers.extended = false;
        if self.unacked != self.sent && self.timers.timeout_nanos != u64::MAX {
            self.timers.timeout = Time(now.0.saturating_add(self.timers.timeout_nanos));
            self.timers.probe = if ctx.delivers { Time::NEVER } else { self.next_probe(now) };
        } else {
            self.timers.timeout = Time::NEVER;
            self.timers.probe = Time::NEVER;
        }
    }

    /// When to try next: at least a few times before the timeout.
    #[inline]
    fn next_probe(&self, now: Time) -> Time {
        let patience = self.recovery.patience_nanos(self.timers.timeout_nanos / 4);
        Time(now.0.saturating_add(patience))
    }

    fn presume_lost(&mut self, now: Time) {
        self.recovery.on_silence(now, self.unacked);
        self.congestion.on_timeout(self.sent);
        // Requests for answers cannot be taken back to where they were: they are made again.
        let was = self.presumed_lost.unwrap_or((self.queue.cursor, self.next));
        let may_return = self.answers_due.is_empty();
        self.go_back();
        self.unmeasurable = self.sent;
        self.presumed_lost = Some(if may_return { was } else { (self.queue.cursor, self.next) });
    }

    /// One retry less, for packets that were lost. False, and the work request fails, if there was none left.
    pub(super) fn spend_retry(&mut self) -> bool {
        let Some(left) = self.timers.retries_left.checked_sub(1) else {
            self.fail(WcStatus::RetryExcErr);
            return false;
        };
        self.timers.retries_left = left;
        true
    }
}
