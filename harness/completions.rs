//! Waiting for completions, by polling or asleep.

use std::cell::Cell;
use std::time::Duration;

use tbrdma::{CompletionChannel, CompletionQueue, Context as Device, WcStatus, WorkCompletion};

use crate::error::{Context, Error, Result};
use crate::plan::Wait;
use crate::watch::{Spins, Watch};

/// How long one sleep on the channel lasts before the flags are looked at.
const NAP: Duration = Duration::from_millis(100);

/// Bits of a work request's number that count the messages of its queue pair; those above say which queue pair of the thread it is.
const SEQUENCE_BITS: u32 = 48;

/// The queue pair and the number of the message in a `wr_id`.
#[inline]
#[must_use]
pub fn told_apart(wr_id: u64) -> (usize, u64) {
    ((wr_id >> SEQUENCE_BITS) as usize, wr_id & ((1 << SEQUENCE_BITS) - 1))
}

/// What all numbers of work requests on queue pair `flow` of a thread have in common.
#[must_use]
pub fn tag(flow: u32) -> u64 {
    u64::from(flow) << SEQUENCE_BITS
}

/// A completion queue of a thread, with its channel when the run waits for events, and how far the thread's queue pairs have come.
pub struct Completions {
    queue: CompletionQueue,
    channel: Option<CompletionChannel>,
    /// Of each queue pair: messages with smaller numbers have completed.
    done: Box<[Cell<u64>]>,
}

impl Completions {
    /// A queue of at least `entries` entries for so many queue pairs.
    ///
    /// # Errors
    /// The device refuses.
    pub fn new(device: &Device, entries: u32, wait: Wait, flows: u32) -> Result<Self> {
        let done = (0..flows).map(|_| Cell::new(0)).collect();
        match wait {
            Wait::Poll => {
                let queue =
                    device.create_cq(entries).context(|| format!("create a CQ of {entries} entries"))?;
                Ok(Self { queue, channel: None, done })
            }
            Wait::Event => {
                let channel =
                    device.create_comp_channel().context(|| "create a completion channel".into())?;
                let queue = device
                    .create_cq_on(entries, &channel)
                    .context(|| format!("create a CQ of {entries} entries on a completion channel"))?;
                Ok(Self { queue, channel: Some(channel), done })
            }
        }
    }

    /// Messages of queue pair `flow` with smaller numbers have completed.
    #[inline]
    #[must_use]
    pub fn done(&self, flow: usize) -> u64 {
        self.done.get(flow).map_or(0, Cell::get)
    }

    /// Notes that a send has completed, whosever it was.
    #[inline]
    pub fn note(&self, wc: &WorkCompletion) {
        let (flow, sequence) = told_apart(wc.wr_id);
        if let Some(done) = self.done.get(flow) {
            done.set(sequence + 1);
        }
    }

    /// The queue itself, to attach queue pairs.
    #[must_use]
    pub fn queue(&self) -> &CompletionQueue {
        &self.queue
    }

    /// Takes what is there.
    #[inline]
    pub fn poll(&self, into: &mut [WorkCompletion]) -> usize {
        self.queue.poll(into).len()
    }

    /// Takes what is there as soon as there is something; at least one.
    ///
    /// # Errors
    /// Nothing came in time, the peer went away, or the user interrupted.
    #[inline]
    pub fn wait(
        &self,
        into: &mut [WorkCompletion],
        watch: &Watch,
        waiting_for: &'static str,
    ) -> Result<usize> {
        let mut spins = Spins::default();
        loop {
            let taken = self.poll(into);
            if taken > 0 {
                return Ok(taken);
            }
            match &self.channel {
                None => {
                    watch.turn(&mut spins, waiting_for)?;
                }
                Some(channel) => {
                    // A completion that came before the arming raises no event: look once more.
                    self.queue.req_notify(false).context(|| "arm the CQ".into())?;
                    let taken = self.poll(into);
                    if taken > 0 {
                        return Ok(taken);
                    }
                    let event =
                        channel.wait(Some(NAP)).context(|| "wait on the completion channel".into())?;
                    if event.is_none() {
                        watch.look(&mut spins, waiting_for)?;
                    }
                }
            }
        }
    }
}

/// A completion that failed, in words; the cause on the send side counts for more than the flushes that follow from it.
#[cold]
#[must_use]
pub fn failure(failed: &WorkCompletion, sends: &Completions) -> Error {
    let mut cause = *failed;
    let mut taken = [WorkCompletion::default(); 16];
    if cause.status == WcStatus::WrFlushErr {
        let count = sends.poll(&mut taken);
        let other = taken.iter().take(count);
        if let Some(other) =
            other.into_iter().find(|wc| !matches!(wc.status, WcStatus::Success | WcStatus::WrFlushErr))
        {
            cause = *other;
        }
    }
    match cause.ok() {
        Ok(_) => Error::Run("a completion failed and then did not".into()),
        Err(error) => Error::Run(crate::error::one_line(&error.to_string())),
    }
}
