//! Measurements with any number of processes, the ranks: `incast`, `mesh`, `allreduce`.
//!
//! - `plan`: what is measured; `flags`: how the user says it
//! - `start`: how the ranks come together
//! - `launcher`: which rank this process is, where something else has started it
//! - `group`: what they say to each other, by way of rank 0
//! - `node`: a rank's device and queue pairs
//! - `traffic`: messages between many ranks at once; `allreduce`: the sum of what all have
//! - `told`: what a rank tells of it; `outcome`: the report that rank 0 makes of all; `text`: what people read of it

pub mod allreduce;
pub mod flags;
pub mod group;
pub mod launcher;
pub mod node;
pub mod outcome;
pub mod plan;
pub mod start;
pub mod text;
pub mod told;
pub mod traffic;

pub use flags::{AllreduceFlags, Flags};

use std::time::Duration;

use crate::affinity;
use crate::clock::{self, Source};
use crate::environment::{BothSides, Environment, Host};
use crate::error::{Error, Result};
use crate::interference::{Reading, Tally};
use crate::outputs::Outputs;
use crate::plan::Benchmark;
use crate::progress::Progress;
use crate::report;
use crate::run::{BY_THE_HARNESS, IN_TURNS};
use crate::{say, session, signals};
use group::Group;
use node::Node;
use outcome::Whole;
use plan::{Algorithm, Plan};
use told::{Told, Who};

/// Messages of a run in virtual time, and before it.
const SIMULATED_MESSAGES: u64 = 1000;
const SIMULATED_WARMUP: u64 = 64;
/// The same of operations of all ranks, each of which is many messages.
const SIMULATED_OPERATIONS: u64 = 40;
const SIMULATED_LEAD: u64 = 4;

/// How long ranks that something else has started wait for each other at least: on many hosts they do not begin at once.
const TO_COME_TOGETHER: Duration = Duration::from_secs(60);

/// What a rank chooses for itself.
#[derive(Debug, Default)]
pub struct Own {
    /// Its device.
    pub device: Option<String>,
    /// Which clock measures.
    pub clock: Source,
    /// No progress bar.
    pub quiet: bool,
    /// Ranks keep to a core each where there are enough.
    pub pins: bool,
}

/// What only rank 0 has, from before.
pub struct Baton {
    plan: Plan,
    node: Node,
}

/// Where a rank is among those on its host.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Seat {
    /// How many there are.
    ranks_here: usize,
    /// Its place among them.
    place: usize,
    /// Whether it keeps to a core.
    pins: bool,
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// Whatever went wrong.
pub fn run(flags: &Flags, benchmark: Benchmark, algorithm: Option<Algorithm>) -> Result<u8> {
    signals::install()?;
    let place = flags.place()?;
    let timeout = flags.timeout();
    let clock = flags.clock.unwrap_or_default();
    let named = place.as_ref().and_then(|place| place.devices.first().cloned());
    let device = flags.device.clone().or(named);
    if let Some(place) = place.as_ref().filter(|place| place.rank > 0) {
        let coordinator = place.coordinator.as_deref().unwrap_or_default();
        let group = start::joined(place.rank, place.size, coordinator, timeout.max(TO_COME_TOGETHER))?;
        return start::member(group, &Own { device, clock, quiet: true, pins: false }).map(|()| 0);
    }
    let ranks = place.as_ref().map(|place| place.size).or(flags.ranks);
    let mut plan = Flags { ranks, ..flags.clone() }.plan(benchmark, algorithm)?;
    plan.device = device.unwrap_or(plan.device);
    if plan.ranks > 2 && session::leads_to_one_peer(&plan.device) {
        return Err(Error::Usage(format!(
            "--device {} leads to one peer, and {} ranks want a device that reaches all of them: --ranks 2, or shm, or udp:IFACE",
            plan.device, plan.ranks
        )));
    }
    let outputs = Outputs::prepare(&flags.outputs, benchmark)?;
    let own = Own { device: None, clock, quiet: flags.quiet, pins: place.is_none() };
    let node = Node::open(&plan.device, &plan, 0)?;
    if !node.device.has_virtual_time() {
        let (group, sides) = match &place {
            None => (start::processes(plan.ranks, timeout)?, BY_THE_HARNESS.to_owned()),
            Some(place) => {
                let coordinator = place.coordinator.as_deref().unwrap_or_default();
                (start::gathered(place.size, coordinator, timeout.max(TO_COME_TOGETHER))?, place.says())
            }
        };
        return conclude(flags, outputs, &measure(group, &own, Baton { plan, node })?, &sides);
    }
    if let Some(place) = place {
        return Err(Error::Usage(format!(
            "--device {} is inside one process, and {} has started several: use --no-launcher",
            node.name, place.by
        )));
    }
    let (messages, before) = match benchmark {
        Benchmark::Allreduce => (SIMULATED_OPERATIONS, SIMULATED_LEAD),
        _ => (SIMULATED_MESSAGES, SIMULATED_WARMUP),
    };
    if plan.iters.is_none() && flags.duration.is_none() {
        plan.iters = Some(messages);
    }
    plan.warmup = plan.warmup.or(Some(before));
    conclude(flags, outputs, &simulate(plan, node, &own)?, IN_TURNS)
}

/// Rank 0's whole run with a group that is there. The others leave when their channels close, and are waited for.
fn measure(mut group: Group, own: &Own, baton: Baton) -> Result<Whole> {
    match take_part(&mut group, own, Some(baton)) {
        Ok(Some(whole)) => Ok(whole),
        Ok(None) => Err(Error::Run("rank 0 has found nothing".into())),
        Err(error) => Err(group.give_up(error)),
    }
}

/// All ranks in a simulated network: threads of this process that take turns, so that what is found follows from the seed.
fn simulate(plan: Plan, node: Node, own: &Own) -> Result<Whole> {
    clock::follow(&node.device)?;
    let device = node.device.clone();
    let (group, members) = start::inside(plan.ranks, plan.timeout());
    let our_turn = device.take_turns();
    let turns: Vec<_> = members.iter().map(|_| device.take_turns()).collect();
    std::thread::scope(|scope| {
        for (member, turn) in members.into_iter().zip(turns) {
            scope.spawn(move || {
                let _turn = turn.begin();
                // Rank 0 has been told.
                let _ = start::member(member, &Own { quiet: true, ..Own::default() });
            });
        }
        let _turn = our_turn.begin();
        measure(group, own, Baton { plan, node })
    })
}

/// A rank's whole run; what all have found, at rank 0, which has the baton.
///
/// # Errors
/// Something failed here, or another rank went away or gave up.
pub fn take_part(group: &mut Group, own: &Own, baton: Option<Baton>) -> Result<Option<Whole>> {
    let rank = group.rank();
    let (plan, node) = match baton {
        Some(Baton { plan, node }) => (group.broadcast("plan", Some(plan))?, node),
        None => {
            let plan: Plan = group.broadcast("plan", None)?;
            plan.validate()?;
            let name = own.device.clone().unwrap_or_else(|| session::other_end(&plan.device));
            (plan.clone(), Node::open(&name, &plan, rank)?)
        }
    };
    group.set_timeout(plan.timeout());
    let who = Who {
        pid: std::process::id(),
        host: Host::ours(),
        device: node.name.clone(),
        profile: node.profile.clone(),
    };
    let everybody = group.gather("who", who)?;
    let seats = (rank == 0).then(|| seats(&everybody, own.pins));
    let seats: Vec<Seat> = group.broadcast("seats", seats)?;
    let Some(seat) = seats.get(rank) else {
        return Err(Error::Run(format!("rank 0 knows of {} ranks, and this is rank {rank}", seats.len())));
    };
    let (allowed, crowded) = node::cores(seat.ranks_here)?;
    let crowded = crowded && !clock::is_simulated();
    // The device's own threads exist by now, and stay where they are.
    let core = match allowed.get(seat.place) {
        Some(core) if seat.pins && !crowded && !clock::is_simulated() => {
            affinity::pin(*core)?;
            Some(*core)
        }
        _ => None,
    };
    clock::choose(own.clock);
    let environment = (rank == 0).then(|| Environment::survey(core, &allowed));
    let reading = Reading::now(core);
    let progress = Progress::new(plan.benchmark, own.quiet || rank > 0);
    let mut found = Vec::new();
    for &size in &plan.sizes {
        let tally = Tally::now();
        let measure =
            if plan.benchmark == Benchmark::Allreduce { allreduce::take_part } else { traffic::take_part };
        let mut told = measure(group, &node, &plan, size, crowded, &progress)?;
        told.core = core;
        told.switches = Tally::now().since(tally);
        told.counters = node.counters();
        found.push(group.gather("found", told)?);
    }
    group.broadcast("the end", (rank == 0).then_some(()))?;
    let Some(mut environment) = environment else { return Ok(None) };
    let others = |of: fn(&Tally) -> u64| {
        found.iter().flatten().map(|told: &Told| of(&told.switches)).sum::<u64>()
            - found.iter().filter_map(|told| told.first()).map(|told| of(&told.switches)).sum::<u64>()
    };
    let switches = Tally {
        voluntary: others(|tally| tally.voluntary),
        involuntary: others(|tally| tally.involuntary),
        minor_faults: others(|tally| tally.minor_faults),
        major_faults: others(|tally| tally.major_faults),
    };
    let (interference, steal_ms) = reading.until_now(switches);
    environment.steal_ms = steal_ms;
    environment.clock.drift_ppm = clock::chosen().drift_ppm();
    environment.involuntary_context_switches =
        BothSides { initiator: interference.initiator.involuntary, responder: switches.involuntary };
    environment.interference = Some(interference);
    Ok(Some(Whole { plan, everybody, found, environment, cores: allowed.len(), crowded }))
}

/// Who sits where: ranks of one host beside each other.
fn seats(everybody: &[Who], pins: bool) -> Vec<Seat> {
    let is_here = |one: &Who, other: &Who| one.host == other.host;
    let seat = |(rank, who): (usize, &Who)| Seat {
        ranks_here: everybody.iter().filter(|other| is_here(who, other)).count(),
        place: everybody.iter().take(rank).filter(|other| is_here(who, other)).count(),
        pins,
    };
    everybody.iter().enumerate().map(seat).collect()
}

/// Tells of a run; the exit code.
fn conclude(flags: &Flags, outputs: Outputs, whole: &Whole, sides: &str) -> Result<u8> {
    let mut wrong = None;
    let measured = whole.reports(sides)?;
    let mut texts = Vec::new();
    for (report, latencies) in &measured {
        texts.push(if flags.quiet {
            report::line(report)
        } else {
            report::full(report, &latencies.draw(crate::words::WIDTH))
        });
        if !report.verified {
            let first = report.first_error.as_deref().unwrap_or("not all messages were checked");
            wrong.get_or_insert_with(|| {
                let (errors, checked) = (report.errors, report.messages_checked);
                Error::Run(format!("{errors} of {checked} checked messages were wrong: {first}"))
            });
        }
    }
    match outputs.write_several(&measured)? {
        Some(asked_for) => say(&asked_for)?,
        None => say(&texts.join("\n"))?,
    }
    wrong.map_or(Ok(0), Err)
}
