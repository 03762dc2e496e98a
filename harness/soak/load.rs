//! The load: one connection, measured interval by interval.

use std::time::{Duration, Instant};

use super::{Flags, Interval, Resources, SCHEMA, Soak, outputs};
use crate::cli::Extent;
use crate::control::{Account, Channel, Hello, Message};
use crate::environment::{Environment, Host};
use crate::error::{Error, Result};
use crate::histogram::Latencies;
use crate::lanes::{Crew, Started, conduct};
use crate::open_loop::Pace;
use crate::pingpong::{self, Pingpong};
use crate::plan::{Benchmark, Plan};
use crate::progress::Progress;
use crate::session::OpenDevice;
use crate::stream::{self, Stream};
use crate::{affinity, clock, say};

/// Messages at the head of an interval that only say how long one takes.
const FEELERS: u64 = 8;

/// What an interval brought.
struct Brought {
    latencies: Option<Latencies>,
    samples: u64,
    /// How long messages were under way in it.
    busy: Duration,
    account: Account,
    /// Messages that should have been checked.
    to_check: u64,
}

/// The initiator's part, until the time is over or the user has enough.
pub(super) fn soak(
    flags: &Flags,
    plan: &Plan,
    pace: Option<Pace>,
    open: &OpenDevice,
    own_core: Option<usize>,
    allowed: &[usize],
    channel: &mut Channel,
) -> Result<Soak> {
    let timeout = Duration::from_millis(plan.timeout_ms);
    let hello = channel.greet(timeout)?;
    channel.send(&Message::Plan(plan.clone()))?;
    // The device's own threads exist by now, and stay where they are.
    if let Some(core) = own_core {
        affinity::pin(core)?;
    }
    clock::choose(clock::Source::default());
    let mut soak = Soak {
        schema: SCHEMA.into(),
        plan: plan.clone(),
        device: open.name.clone(),
        profile: open.profile.clone(),
        rate_per_s: pace.map(|pace| pace.rate),
        measures: None,
        one_way_ns: None,
        distribution: Vec::new(),
        samples: 0,
        errors: 0,
        first_error: None,
        messages_checked: 0,
        verified: true,
        elapsed_s: 0.0,
        interrupted: false,
        intervals: Vec::new(),
        growing: Vec::new(),
        watched: String::new(),
        environment: Environment::survey(own_core, allowed),
        tables: Vec::new(),
    };
    let cores: Vec<usize> = own_core.into_iter().collect();
    let progress = Progress::new(plan.benchmark, true);
    let responder = responder(&hello);
    match plan.benchmark {
        Benchmark::Pingpong => {
            let run = |crew: &mut Crew<Pingpong>, _: &[Started], channel: &mut Channel| {
                let (each, mut before) = (if plan.op.is_one_sided() { 1 } else { 2 }, 0);
                soak.fill(flags, responder, |time| {
                    let (extent, feelers) = (Extent::Time(time), Some(FEELERS));
                    let found =
                        pingpong::measure(crew, plan, channel, extent, feelers, pace, &progress, |_| {
                            Ok(None)
                        })?;
                    let to_check = (found.messages - before) * each;
                    before = found.messages;
                    let responses = found.open_loop.as_ref().map(|open| open.responses().clone());
                    Ok(Brought {
                        samples: found.latencies.count(),
                        latencies: Some(responses.unwrap_or(found.latencies)),
                        busy: Duration::ZERO,
                        account: found.account,
                        to_check,
                    })
                })
            };
            conduct(open, plan, &cores, channel, run)?.0
        }
        _ => {
            let run = |crew: &mut Crew<Stream>, _: &[Started], channel: &mut Channel| {
                soak.fill(flags, responder, |time| {
                    let (extent, feelers) = (Extent::Time(time), Some(FEELERS));
                    let found =
                        stream::measure(crew, plan, channel, extent, feelers, &progress, |_| Ok(None))?;
                    Ok(Brought {
                        latencies: None,
                        samples: found.messages,
                        busy: found.elapsed,
                        account: found.account,
                        to_check: found.to_check,
                    })
                })
            };
            conduct(open, plan, &cores, channel, run)?.0
        }
    }
    if !soak.interrupted {
        channel.send(&Message::Finish)?;
        let Message::Bye { pinned, .. } = channel.receive(timeout)? else {
            return Err(Error::Run(format!("{} did not say goodbye", channel.peer())));
        };
        soak.environment.pinned.responder = pinned;
    }
    Ok(soak)
}

/// The other process, where it is another one and this system shows it.
fn responder(hello: &Hello) -> Option<u32> {
    (hello.pid != std::process::id() && hello.host.is_same(&Host::ours())).then_some(hello.pid)
}

impl Soak {
    /// Has interval after interval measured, and tells of each.
    fn fill(
        &mut self,
        flags: &Flags,
        responder: Option<u32>,
        mut measure: impl FnMut(Duration) -> Result<Brought>,
    ) -> Result<()> {
        let told = flags.outputs.tells();
        if told {
            say(&self.head(flags.duration))?;
        }
        let mut all: Option<Latencies> = None;
        let begun = clock::now();
        while self.errors == 0 {
            let elapsed = clock::now().duration_since(begun);
            if elapsed >= flags.duration {
                break;
            }
            let brought = match measure(flags.interval().min(flags.duration - elapsed)) {
                Err(Error::Interrupted) => {
                    self.interrupted = true;
                    break;
                }
                brought => brought?,
            };
            self.take(&brought, begun, responder);
            if let Some(latencies) = brought.latencies {
                match &mut all {
                    Some(all) => all.add(&latencies),
                    none => *none = Some(latencies),
                }
            }
            if let (true, Some(interval)) = (told, self.intervals.last()) {
                say(&outputs::line(interval))?;
            }
        }
        self.elapsed_s = clock::now().duration_since(begun).as_secs_f64();
        self.environment.clock.drift_ppm = clock::chosen().drift_ppm();
        self.measures = all.as_ref().map(|all| all.measures().name().to_owned());
        self.one_way_ns = all.as_ref().and_then(Latencies::summary);
        self.distribution = all.as_ref().map(Latencies::distribution).unwrap_or_default();
        Ok(())
    }

    fn take(&mut self, brought: &Brought, begun: Instant, responder: Option<u32>) {
        let Brought { latencies, samples, busy, account, to_check } = brought;
        let streams = self.plan.benchmark != Benchmark::Pingpong;
        self.samples += samples;
        self.verified &= account.checked == *to_check && account.errors == 0;
        self.messages_checked += account.checked;
        self.errors += account.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&account.first_error);
        }
        let bytes = *samples as f64 * self.plan.size as f64;
        self.intervals.push(Interval {
            at_s: clock::now().duration_since(begun).as_secs_f64(),
            samples: *samples,
            one_way_ns: latencies.as_ref().and_then(Latencies::summary),
            bytes_per_s: streams.then(|| bytes / busy.as_secs_f64().max(1e-9)),
            initiator: Resources::of(std::process::id()),
            responder: responder.and_then(Resources::of),
        });
    }
}
