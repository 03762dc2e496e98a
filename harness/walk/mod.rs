//! `tbrdma-bench walk`: a weighted random walk over verbs objects. After each step everything must be as a simple model says.
//!
//! It follows from its seed: a step that fails is told with the line that walks there again.

mod steps;
mod world;
mod wrong;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::{Deserialize, Serialize};
use tbrdma::{OpenOptions, QpType};

use crate::cli::seed_of_now;
use crate::error::{Context, Error, Result};
use crate::many::{OutputFlags, Outputs, interrupted, is_simulated};
use crate::progress::Progress;
use crate::signals;
use crate::soak::Resources;
use crate::words::fold;
use world::{Found, World};

/// Name and version of the contract of `--json`: `harness/schema/tbrdma-bench-walk-1.json`.
pub const SCHEMA: &str = "tbrdma-bench-walk/1";
/// Steps that are told when one fails.
const LAST: usize = 20;
/// Steps after which what the process holds is looked at, to be compared with the end. Of shorter walks it is not judged.
const SETTLED: u64 = 50;
/// What a device may make once, on first need, and keep. A leak of anything that steps make is more.
const KEPT: u64 = 2;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench walk                                     10000 steps over shm
  tbrdma-bench walk --device udp:lo --steps 100000 --seed 7
  tbrdma-bench walk --device mlx5_0 --json walk.json
  tbrdma-bench walk --device sim --fault loss=2% --weights mine.toml

A file of weights, in TOML: what is not named keeps its own, 0 leaves out:
  send = 50
  trespass = 0

Exit codes: 0 everything was as the model says; 1 something was not, with the
line that repeats it; 2 wrong flags; 130 interrupted.";

/// A step: its name, how often it is taken, and what it does.
type Step = (&'static str, u32, fn(&mut World) -> Found);

/// All steps there are.
const STEPS: [Step; 21] = [
    ("pd", 3, World::step_pd),
    ("cq", 3, World::step_cq),
    ("mr", 4, World::step_mr),
    ("mw", 2, World::step_mw),
    ("ah", 2, World::step_ah),
    ("qp", 4, World::step_qp),
    ("destroy", 2, World::step_destroy),
    ("receive", 10, World::step_receive),
    ("send", 20, World::step_send),
    ("write", 15, World::step_write),
    ("read", 10, World::step_read),
    ("atomic", 10, World::step_atomic),
    ("window", 2, World::step_window),
    ("flush", 3, World::step_flush),
    ("limits", 2, World::step_limits),
    ("state", 2, World::step_state),
    ("overflow", 1, World::step_overflow),
    ("entries", 2, World::step_entries),
    ("trespass", 3, World::step_trespass),
    ("domain", 2, World::step_domain),
    ("long", 2, World::step_long),
];

/// Flags of `walk`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// Device to walk on
    #[arg(long, value_name = "NAME", default_value = "shm")]
    pub device: String,
    /// What it pretends to be
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// What goes wrong with packets on the way; only reliable connections walk then
    #[arg(long, value_name = "PLAN")]
    pub fault: Option<String>,
    /// How many steps
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub steps: u64,
    /// Where the dice start [default: another one each time, and said]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How often which step is taken, in TOML
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Where results go besides the terminal.
    #[command(flatten)]
    pub outputs: OutputFlags,
}

/// What became of a walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// [`SCHEMA`].
    pub schema: String,
    /// The device and its profile.
    pub device: String,
    /// See `device`.
    pub profile: String,
    /// Where the dice started.
    pub seed: u64,
    /// Steps that were asked for.
    pub steps: u64,
    /// Steps that were taken, by name.
    pub taken: BTreeMap<String, u64>,
    /// Completions that came, each where it should.
    pub completions: u64,
    /// Calls that were refused, as they should be.
    pub refusals: u64,
    /// What the process held of the host after the first steps, and after everything was destroyed.
    pub held: Option<[Resources; 2]>,
    /// What was not as it should be.
    pub failure: Option<Failure>,
    /// Was it ended before its last step?
    pub interrupted: bool,
}

/// What was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In which step, counted from one; none after the last.
    pub step: Option<u64>,
    /// What it was.
    pub what: String,
    /// The command that walks there again.
    pub replay: String,
    /// The last steps, the failed one at the end.
    pub last: Vec<String>,
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// The device cannot be opened, a file cannot be read or written, or something was not as it should be.
pub fn run(flags: &Flags) -> Result<u8> {
    signals::install()?;
    let outputs = Outputs::prepare(&flags.outputs)?;
    let weights = weights(flags.weights.as_deref())?;
    let seed = flags.seed.unwrap_or_else(seed_of_now);
    let mut options = OpenOptions::new().seed(seed);
    if let Some(profile) = &flags.profile {
        options = options.profile(profile);
    }
    if let Some(fault) = &flags.fault {
        options = options.fault(fault);
    }
    let device = options.open(&flags.device).context(|| format!("open device {}", flags.device))?;
    let walk = walk(flags, device, seed, &weights);
    outputs.write(&walk, || walk.csv(), || walk.text())?;
    match &walk.failure {
        Some(failure) => {
            let at = failure
                .step
                .map_or_else(|| "after the last step".to_owned(), |step| format!("in step {step}"));
            Err(Error::Run(format!("{at}: {}; again by: {}", failure.what, failure.replay)))
        }
        None if walk.interrupted => Ok(interrupted(1)),
        None => Ok(0),
    }
}

/// How often each step is taken.
fn weights(file: Option<&Path>) -> Result<Vec<u32>> {
    let named: BTreeMap<String, u32> = match file {
        None => BTreeMap::new(),
        Some(path) => {
            let shown = path.display();
            let text = std::fs::read_to_string(path).context(|| format!("read the weights {shown}"))?;
            toml::from_str(&text).map_err(|error| {
                Error::Usage(format!(
                    "{shown} is no table of weights: {}",
                    crate::error::one_line(&error.to_string())
                ))
            })?
        }
    };
    if let Some(name) = named.keys().find(|name| STEPS.iter().all(|(step, ..)| step != name)) {
        let known: Vec<&str> = STEPS.iter().map(|(name, ..)| *name).collect();
        return Err(Error::Usage(format!("there is no step {name:?}: there are {}", known.join(", "))));
    }
    let weights: Vec<u32> =
        STEPS.iter().map(|(name, weight, _)| named.get(*name).copied().unwrap_or(*weight)).collect();
    match weights.iter().map(|weight| u64::from(*weight)).sum::<u64>() {
        0 => Err(Error::Usage("all weights are 0: there is no step to take".into())),
        _ => Ok(weights),
    }
}

/// The walk itself.
fn walk(flags: &Flags, device: tbrdma::Context, seed: u64, weights: &[u32]) -> Walk {
    let mut walk = Walk {
        schema: SCHEMA.into(),
        device: device.name().to_owned(),
        profile: device.profile().to_string(),
        seed,
        steps: flags.steps,
        taken: BTreeMap::new(),
        completions: 0,
        refusals: 0,
        held: None,
        failure: None,
        interrupted: false,
    };
    let mut world = World::new(device, seed);
    if flags.fault.is_some() {
        world.lossy = true;
        world.kinds.retain(|kind| *kind == QpType::Rc);
    }
    let progress = Progress::called("walk", flags.outputs.quiet);
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let (begun, mut last, mut settled) = (Instant::now(), Vec::new(), None);
    for number in 1..=flags.steps {
        if signals::interrupted() {
            walk.interrupted = true;
            break;
        }
        let mut left = world.rng.u64(0..total);
        let taken = STEPS.iter().zip(weights).find(|(_, weight)| {
            let here = left < u64::from(**weight);
            left = left.saturating_sub(u64::from(**weight));
            here
        });
        let Some(((name, _, step), _)) = taken else { continue };
        *walk.taken.entry((*name).to_owned()).or_default() += 1;
        last.push((*name).to_owned());
        if last.len() > LAST {
            last.remove(0);
        }
        if let Err(what) = step(&mut world).and_then(|()| world.check()) {
            walk.failure = Some(Failure {
                step: Some(number),
                what,
                replay: flags.again(seed, number),
                last: last.clone(),
            });
            break;
        }
        if number == SETTLED {
            settled = held(&mut world);
        }
        if number.is_multiple_of(256) {
            let (done, all) = (usize::try_from(number), usize::try_from(flags.steps));
            progress.step(done.unwrap_or_default(), all.unwrap_or_default(), begun, name);
        }
    }
    (walk.completions, walk.refusals) = (world.completions, world.refusals);
    let ended = held(&mut world);
    walk.held = settled.zip(ended).map(|(settled, ended)| [settled, ended]);
    if let (None, Some([settled, ended])) = (&walk.failure, walk.held)
        && (ended.fds > settled.fds + KEPT || ended.threads > settled.threads + KEPT)
    {
        let what = format!(
            "all objects are destroyed, and {} files and {} threads are left where there were {} and {}",
            ended.fds, ended.threads, settled.fds, settled.threads
        );
        walk.failure = Some(Failure { step: None, what, replay: flags.again(seed, flags.steps), last });
    }
    walk
}

/// What this process holds of the host when all objects are destroyed, which they are.
fn held(world: &mut World) -> Option<Resources> {
    world.pairs.clear();
    world.windows.clear();
    world.handles.clear();
    world.regions.clear();
    world.queues.clear();
    world.domains.clear();
    Resources::of(std::process::id())
}

impl Flags {
    /// The command that walks there again.
    fn again(&self, seed: u64, steps: u64) -> String {
        let mut line = format!("tbrdma-bench walk --device {} --steps {steps} --seed {seed}", self.device);
        for (flag, value) in [
            ("--profile", self.profile.clone()),
            ("--fault", self.fault.clone()),
            ("--weights", self.weights.as_ref().map(|path| path.display().to_string())),
        ] {
            if let Some(value) = value {
                let _ = write!(line, " {flag} {value}");
            }
        }
        line
    }
}

impl Walk {
    fn text(&self) -> String {
        let mut text = String::new();
        let time = if is_simulated(&self.device) { ", in virtual time" } else { "" };
        let head = format!("walk on {}, profile {}, seed {}{time}", self.device, self.profile, self.seed);
        fold(&mut text, 0, &head);
        let done: u64 = self.taken.values().sum();
        let taken: Vec<String> = self.taken.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let mut entry = |name: &str, value: &str| {
            let _ = write!(text, "{name:<12}");
            fold(&mut text, 12, value);
        };
        entry("steps", &format!("{done} of {}: {}", self.steps, taken.join(", ")));
        entry("completions", &format!("{}, each once and as it should be", self.completions));
        entry("refusals", &format!("{}, each with the right error", self.refusals));
        if let Some([settled, ended]) = self.held {
            let held = format!(
                "{} files and {} threads early on, {} and {} at the end, when all objects are destroyed",
                settled.fds, settled.threads, ended.fds, ended.threads
            );
            entry("held", &held);
        }
        if let Some(failure) = &self.failure {
            entry("last steps", &failure.last.join(", "));
        }
        text
    }

    fn csv(&self) -> String {
        let rows = self.taken.iter().map(|(name, count)| format!("{name},{count}\n"));
        std::iter::once("step,taken\n".to_owned()).chain(rows).collect()
    }
}
