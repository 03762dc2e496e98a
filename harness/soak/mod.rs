//! `tbrdma-bench soak`: one connection under load for long, told interval by interval, while what both processes hold of the host is watched.

mod load;
mod outputs;
mod resources;

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cli::{self, PingpongFlags, Pins, StreamFlags};
use crate::control::Channel;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::histogram::Summary;
use crate::many::{OutputFlags, Outputs, is_simulated};
use crate::open_loop::{Pace, PaceFlags};
use crate::plan::{Benchmark, Memory, Op, Plan, Transport, Wait};
use crate::run::{choose_cores, in_turns, with_peer};
use crate::session::{self, Role};
use crate::{affinity, signals};
pub use resources::{Resources, Verdict, judge};

/// Name and version of the contract of `--json`: `harness/schema/tbrdma-bench-soak-1.json`.
pub const SCHEMA: &str = "tbrdma-bench-soak/1";
/// Messages a second of virtual time, where nobody says how many: an hour is then seconds of real time.
const VIRTUAL_RATE: f64 = 20.0;

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench soak --duration 1h         pingpong over shm, a line a minute
  tbrdma-bench soak bw --device udp:lo --duration 8h --interval 5min
  tbrdma-bench soak --rate 1k --fault loss=1% --device udp:lo
  tbrdma-bench soak --device sim --duration 2h --fault loss=1% --seed 7
  tbrdma-bench pingpong --server          on one host, and on another:
  tbrdma-bench soak --connect host --device udp:eth0

Ctrl-C gives the report so far. What both processes hold of the host (memory,
open files, threads) is judged after the first fifth of the run: what keeps
growing is a leak. An hour of virtual time, on sim, takes seconds.

Exit codes: 0 every byte was right and nothing kept growing; 1 otherwise;
2 wrong flags; 130 interrupted, with the report.";

/// The load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum What {
    /// One message at a time, there and back
    #[default]
    Pingpong,
    /// Many messages in one direction
    Bw,
}

/// Flags of `soak`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// The load
    #[arg(value_enum, default_value_t)]
    pub what: What,
    /// How long, as 1h or 30min
    #[arg(long, value_name = "TIME", value_parser = cli::parse_duration, default_value = "1min")]
    pub duration: Duration,
    /// A line is told so often [default: a sixtieth of the duration, from 1 s to 1 min]
    #[arg(long, value_name = "TIME", value_parser = cli::parse_duration)]
    pub interval: Option<Duration>,
    /// Device to open [default: shm]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Verb [default: send for pingpong, write for bw]
    #[arg(long, value_enum)]
    pub op: Option<Op>,
    /// Transport service [default: rc]
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,
    /// Bytes in a message [default: 64 for pingpong, 64k for bw]
    #[arg(long, value_name = "BYTES", value_parser = cli::parse_size)]
    pub size: Option<u64>,
    /// How to wait for completions [default: poll; event in virtual time, where polling takes long]
    #[arg(long, value_enum)]
    pub wait: Option<Wait>,
    /// Whose memory messages leave from and arrive in [default: library]
    #[arg(long, value_enum)]
    pub memory: Option<Memory>,
    /// When messages are due.
    #[command(flatten)]
    pub pace: PaceFlags,
    /// Measure against a tbrdma-bench that was started with pingpong --server, there
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<String>,
    /// Cores of initiator and responder
    #[arg(long, value_name = "A,B", value_parser = cli::parse_pins)]
    pub pin: Option<Pins>,
    /// How fast the link is, for what each side sends
    #[arg(long, value_name = "RATE,LATENCY")]
    pub link: Option<String>,
    /// What goes wrong with packets on the way, both ways
    #[arg(long, value_name = "PLAN")]
    pub fault: Option<String>,
    /// What the devices of both sides pretend to be
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Where the dice of --fault and --arrivals start [default: another one each run, and said]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long to wait for the other side before giving up [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = cli::parse_duration)]
    pub timeout: Option<Duration>,
    /// Where results go besides the terminal.
    #[command(flatten)]
    pub outputs: OutputFlags,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Soak {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was run: the same value that both sides had.
    pub plan: Plan,
    /// The initiator's device and its profile.
    pub device: String,
    /// The profile of that device.
    pub profile: String,
    /// Messages a second that were due, in an open loop.
    pub rate_per_s: Option<f64>,
    /// What the latencies are.
    pub measures: Option<String>,
    /// All latencies: of an open loop, from due to answered.
    pub one_way_ns: Option<Summary>,
    /// All of them: values in nanoseconds, each with how many had it; none of a bw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<(f64, u64)>,
    /// Recorded messages.
    pub samples: u64,
    /// Messages that were not what they should be.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
    /// Messages of which every byte was checked.
    pub messages_checked: u64,
    /// Was everything checked, and nothing wrong?
    pub verified: bool,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
    /// Was it ended before its time?
    pub interrupted: bool,
    /// The intervals, in order.
    pub intervals: Vec<Interval>,
    /// What keeps growing, in words.
    pub growing: Vec<String>,
    /// Of which processes that was judged, or why of none.
    pub watched: String,
    /// Where it took place.
    pub environment: Environment,
    /// The same for people.
    #[serde(default)]
    pub tables: Vec<Grid>,
}

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it ended, in seconds since the run began.
    pub at_s: f64,
    /// Recorded messages.
    pub samples: u64,
    /// Latencies, of a pingpong.
    pub one_way_ns: Option<Summary>,
    /// Payload bytes per second, of a bw.
    pub bytes_per_s: Option<f64>,
    /// What this process held at its end.
    pub initiator: Option<Resources>,
    /// What the other process held, where it is another one of this host.
    pub responder: Option<Resources>,
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// The flags make no sense, the other side fails, bytes were wrong, or something keeps growing.
pub fn run(flags: &Flags) -> Result<u8> {
    signals::install()?;
    let outputs = Outputs::prepare(&flags.outputs)?;
    let (run_flags, mut plan, pace) = flags.understood()?;
    let allowed = affinity::allowed()?;
    let own_core = choose_cores(&run_flags, &mut plan, &allowed)?;
    let open = session::open(&plan.device, &plan, Role::Initiator, None)?;
    let virtual_time = open.device.has_virtual_time();
    if virtual_time {
        // Virtual time does not care where threads run.
        plan.pin_responder = None;
    }
    let soaking = |channel: &mut Channel| {
        let own_core = own_core.filter(|_| !virtual_time);
        load::soak(flags, &plan, pace, &open, own_core, &allowed, channel)
    };
    let mut found =
        if virtual_time { in_turns(&run_flags, &open, soaking)? } else { with_peer(&run_flags, soaking)? };
    found.judge();
    found.tables = vec![found.grid()];
    outputs.write(&found, || found.csv(), || found.summary())?;
    found.conclude()
}

impl Flags {
    /// The same as flags of the measurement, its plan and its pace.
    fn understood(&self) -> Result<(cli::Flags, Plan, Option<Pace>)> {
        let virtual_time = self.device.as_deref().is_some_and(is_simulated);
        // Who polls lives through every moment of virtual time, who sleeps only through those in which something happens.
        let sleeps = virtual_time && self.what == What::Pingpong && self.op != Some(Op::Write);
        let flags = cli::Flags {
            connect: self.connect.clone(),
            device: self.device.clone(),
            op: self.op,
            transport: self.transport,
            size: self.size,
            duration: Some(self.duration),
            wait: self.wait.or_else(|| sleeps.then_some(Wait::Event)),
            memory: self.memory,
            pin: self.pin,
            quiet: true,
            link: self.link.clone(),
            fault: self.fault.clone(),
            profile: self.profile.clone(),
            seed: self.seed,
            timeout: self.timeout,
            ..cli::Flags::default()
        };
        if self.what == What::Bw {
            if self.pace.rate.is_some() {
                return Err(Error::Usage("--rate is of pingpong: bw sends as fast as it can".into()));
            }
            let stream = StreamFlags { flags, ..StreamFlags::default() };
            let plan = stream.plan(Benchmark::Bw)?;
            return Ok((stream.flags, plan, None));
        }
        let mut pace = self.pace.clone();
        if pace.rate.is_none() && virtual_time {
            pace.rate = Some(VIRTUAL_RATE);
        }
        let pingpong = PingpongFlags { flags, pace, ..PingpongFlags::default() };
        let (plan, pace) = (pingpong.plan()?, pingpong.pace()?);
        Ok((pingpong.flags, plan, pace))
    }

    fn interval(&self) -> Duration {
        let sixtieth = (self.duration / 60).clamp(Duration::from_secs(1), Duration::from_secs(60));
        self.interval.unwrap_or(sixtieth).min(self.duration)
    }
}

impl Soak {
    /// Whether what the two processes hold keeps growing.
    fn judge(&mut self) {
        let held =
            |of: fn(&Interval) -> Option<Resources>| self.intervals.iter().filter_map(of).collect::<Vec<_>>();
        let both = [
            ("the initiator", held(|interval| interval.initiator)),
            ("the responder", held(|interval| interval.responder)),
        ];
        let mut watched = Vec::new();
        for (whose, samples) in both {
            match judge(whose, &samples) {
                _ if samples.is_empty() => {}
                Verdict::TooShort => watched.push(format!("{whose} for too few intervals to judge")),
                Verdict::Steady => watched.push(whose.to_owned()),
                Verdict::Growing(mut what) => {
                    watched.push(whose.to_owned());
                    self.growing.append(&mut what);
                }
            }
        }
        self.watched = match watched.is_empty() {
            true => "nothing: the system does not show what processes hold".into(),
            false => watched.join(" and "),
        };
    }

    fn conclude(&self) -> Result<u8> {
        if self.errors > 0 || !self.verified {
            let first = self.first_error.as_deref().unwrap_or("not all messages were checked");
            return Err(Error::Run(format!(
                "{} of {} checked messages were wrong: {first}",
                self.errors, self.messages_checked
            )));
        }
        if !self.growing.is_empty() {
            return Err(Error::Run(self.growing.join("; ")));
        }
        Ok(if self.interrupted { Error::Interrupted.exit_code() } else { 0 })
    }
}
