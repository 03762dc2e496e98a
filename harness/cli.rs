//! The flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::clock::Source;
use crate::error::{Error, Result, one_line};
use crate::open_loop::{Pace, PaceFlags};
use crate::outputs::OutputFlags;
use crate::page;
use crate::plan::{Benchmark, Memory, Op, Plan, Transport, Wait};
use crate::{compare, doctor, gate};

/// The address of `--server` without a value, and the port of an address without one.
pub const DEFAULT_HOST: &str = "127.0.0.1";
/// See [`DEFAULT_HOST`].
pub const DEFAULT_PORT: u16 = 18_515;
/// How long a run measures when neither `--iters` nor `--duration` says so.
const DEFAULT_DURATION: Duration = Duration::from_secs(2);
/// How long a side waits for the other when `--timeout` does not say so.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  tbrdma-bench pingpong                                 both sides on this machine, 64 B SEND over RC
  tbrdma-bench pingpong --rate 20k                      open loop: due by the clock, waits counted
  tbrdma-bench pingpong --op write --size 64            the target polls its own memory
  tbrdma-bench pingpong --wait event --duration 5s      sleep on the completion channel
  tbrdma-bench bw --op write --size 1M                  bandwidth, beside the machine's memcpy
  tbrdma-bench rate --size 8 --post-list 32 --signal-every 64
  tbrdma-bench pingpong --json result.json --quiet      for scripts
  tbrdma-bench pingpong --csv all.csv --hgrm this.hgrm  a row of a table, percentiles to plot
  tbrdma-bench pingpong --server                        in one shell, and in another:
  tbrdma-bench pingpong --connect 127.0.0.1 --op read
  tbrdma-bench pingpong --device udp:lo                 RoCEv2 over UDP sockets, beside plain sockets
  tbrdma-bench bw --device udp:lo --fault loss=1% --seed 7 --capture run.pcapng
  tbrdma-bench pingpong --link 64Gbps,5us --capture run.pcapng
  tbrdma-bench pingpong --profile apple-tb5 --transport uc
  tbrdma-bench devices
  tbrdma-bench doctor                                   what RDMA this host has, and why not more

Exit codes: 0 measured and every byte was right; 1 something failed; 2 wrong flags; 130 interrupted.";

const REPORT_EXAMPLES: &str = "\
Examples:
  tbrdma-bench pingpong --json shm.json && tbrdma-bench pingpong --device udp:lo --json udp.json
  tbrdma-bench report shm.json udp.json -o page.html
  tbrdma-bench report run-*.json -o page.html --title 'Before and after'";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  tbrdma-bench doctor
  tbrdma-bench doctor --json | jq '.findings[] | select(.severity == \"problem\")'
  tbrdma-bench doctor --record /tmp/this-host       for others to examine with --root

Exit codes: 0 nothing that is there is hindered; 1 something is (a PROBLEM); 2 wrong flags.";

const COMPARE_EXAMPLES: &str = "\
Examples:
  tbrdma-bench compare before.json after.json
  for i in 1 2 3 4 5; do                        in turns, so that what moves the machine moves both
    old/tbrdma-bench pingpong --quiet --json base/$i.json
    new/tbrdma-bench pingpong --quiet --json new/$i.json
  done
  tbrdma-bench compare base new

Exit codes: 0 improvement, or noise; 1 regression; 2 the results cannot be compared.";

const GATE_EXAMPLES: &str = "\
Examples:
  tbrdma-bench gate limits.toml result.json
  tbrdma-bench gate limits.toml results/ --baseline main/ --junit gate.xml

A plan:
  [[limit]]
  metric = \"p50\"              # p50, p99 or bytes_per_s
  at_most = 1.5               # or at_least
  of = \"floor\"               # or \"baseline\"
  where = { op = \"send\", size = 64 }

Exit codes: 0 all limits are kept; 1 one is not; 2 one cannot be measured.";

/// Latency distributions and throughput of RDMA verbs, beside the machine's physical floor.
#[derive(Debug, Parser)]
#[command(name = "tbrdma-bench", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Latency: one message at a time, there and back
    #[command(after_help = EXAMPLES)]
    Pingpong(PingpongFlags),
    /// Bandwidth in one direction, many messages under way
    #[command(after_help = EXAMPLES)]
    Bw(StreamFlags),
    /// Message rate in one direction, many messages under way
    #[command(after_help = EXAMPLES)]
    Rate(StreamFlags),
    /// List devices, ports and limits, as ibv_devinfo -v does
    Devices {
        /// Only this device
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// What they pretend to be
        #[arg(long, value_name = "PROFILE")]
        profile: Option<String>,
    },
    /// What RDMA this host has, and why not more
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(doctor::Flags),
    /// Results as one page for a browser, whole in its file
    #[command(after_help = REPORT_EXAMPLES)]
    Report(page::Flags),
    /// Whether one result is better than another, worse, or the same but for noise
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(compare::Flags),
    /// Whether results keep the limits of a plan
    #[command(after_help = GATE_EXAMPLES)]
    Gate(gate::Flags),
    /// What programs hold of devices with the profile switch ledger=on, also such as were killed
    Ledger {
        /// Give back what is left of programs that are dead
        #[arg(long)]
        clear: bool,
    },
    /// The second process of a run: speaks the control protocol on its standard streams
    #[command(hide = true)]
    Responder,
    /// A part of doctor: reads a word of another process, and says what came of it
    #[command(hide = true)]
    ReadProcess {
        /// Its number
        pid: i32,
        /// Where the word is
        address: usize,
    },
    /// A part of doctor: opens each device, and says what came of it
    #[command(hide = true)]
    TryDevices,
}

/// Flags of every measurement.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Wait for another tbrdma-bench and serve one run; what is measured is the other's choice [default: 127.0.0.1:18515]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = DEFAULT_HOST, conflicts_with = "connect")]
    pub server: Option<String>,
    /// Measure against a tbrdma-bench that was started with --server, there
    #[arg(long, value_name = "ADDR")]
    pub connect: Option<String>,
    /// Device to open [default: shm]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Verb to measure [default: send for pingpong, write for bw and rate]
    #[arg(long, value_enum)]
    pub op: Option<Op>,
    /// Transport service [default: rc]
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,
    /// Bytes in a message, as 64, 4k or 1M [default: 64 for pingpong, 64k for bw, 8 for rate and atomics]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub size: Option<u64>,
    /// Measure exactly this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "duration")]
    pub iters: Option<u64>,
    /// Measure for this long, as 2s or 500ms [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Messages before the first measured one [default: as many as 0.1 s holds]
    #[arg(long, value_name = "N")]
    pub warmup: Option<u64>,
    /// How to wait for completions [default: poll]
    #[arg(long, value_enum)]
    pub wait: Option<Wait>,
    /// Which clock measures latencies [default: auto]
    #[arg(long, value_enum)]
    pub clock: Option<Source>,
    /// Whose memory messages leave from and arrive in [default: library]
    #[arg(long, value_enum)]
    pub memory: Option<Memory>,
    /// Hand the message over inside the work request
    #[arg(long)]
    pub inline: bool,
    /// Cores of initiator and responder; one number is the core of this side [default: two of those allowed]
    #[arg(long, value_name = "A,B", value_parser = parse_pins)]
    pub pin: Option<Pins>,
    /// No progress bar, and one line instead of the report
    #[arg(long)]
    pub quiet: bool,
    /// Where results go besides the terminal.
    #[command(flatten)]
    pub outputs: OutputFlags,
    /// How fast the link is, for what each side sends: a rate, a latency one way, or both, as 64Gbps,5us
    #[arg(long, value_name = "RATE,LATENCY")]
    pub link: Option<String>,
    /// What goes wrong with packets on the way, both ways: loss=1%,delay=50us~20us,reorder=1%:100us (not on shm)
    #[arg(long, value_name = "PLAN")]
    pub fault: Option<String>,
    /// What the devices of both sides pretend to be: plain, rxe, connectx, apple-tb5, perhaps with switches behind commas
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Where the dice of --fault and --arrivals start [default: another one each run, and said]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Write the packets of this side to this file, as pcapng; on shm those that an adapter would have sent
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// How long to wait for the other side before giving up, as 10s [default: 10s; --server waits for a client without end]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// Flags of `pingpong`.
#[derive(Debug, Clone, Default, Args)]
pub struct PingpongFlags {
    /// Those of every measurement.
    #[command(flatten)]
    pub flags: Flags,
    /// When messages are due.
    #[command(flatten)]
    pub pace: PaceFlags,
}

/// Flags of `bw` and `rate`.
#[derive(Debug, Clone, Default, Args)]
pub struct StreamFlags {
    /// Those of every measurement.
    #[command(flatten)]
    pub flags: Flags,
    /// Most work requests outstanding, each with a buffer of its own [default: up to 128, fewer for large messages]
    #[arg(long, value_name = "N")]
    pub depth: Option<u32>,
    /// Work requests per post, which rings one doorbell [default: 1]
    #[arg(long, value_name = "N")]
    pub post_list: Option<u32>,
    /// One work request in so many asks for a completion [default: 1]
    #[arg(long, value_name = "N")]
    pub signal_every: Option<u32>,
}

/// The cores of `--pin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// The initiator's, or this side's.
    pub first: usize,
    /// The responder's.
    pub second: Option<usize>,
}

/// How long the initiator measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So many messages.
    Messages(u64),
    /// So long.
    Time(Duration),
}

impl Flags {
    /// How long to wait for the other side.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    /// How long to measure.
    #[must_use]
    pub fn extent(&self) -> Extent {
        match self.iters {
            Some(messages) => Extent::Messages(messages),
            None => Extent::Time(self.duration.unwrap_or(DEFAULT_DURATION)),
        }
    }

    /// Flags which a server leaves to its client, as far as they were given.
    #[must_use]
    pub fn only_for_clients(&self) -> Vec<&'static str> {
        let given = [
            ("--op", self.op.is_some()),
            ("--transport", self.transport.is_some()),
            ("--size", self.size.is_some()),
            ("--iters", self.iters.is_some()),
            ("--duration", self.duration.is_some()),
            ("--warmup", self.warmup.is_some()),
            ("--wait", self.wait.is_some()),
            ("--memory", self.memory.is_some()),
            ("--clock", self.clock.is_some()),
            ("--inline", self.inline),
            ("--json", self.outputs.json.is_some()),
            ("--csv", self.outputs.csv.is_some()),
            ("--hgrm", self.outputs.hgrm.is_some()),
            ("--profile", self.profile.is_some()),
            ("--link", self.link.is_some()),
            ("--fault", self.fault.is_some()),
            ("--seed", self.seed.is_some()),
        ];
        given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
    }

    fn plan(&self, benchmark: Benchmark, default_op: Op) -> Result<Plan> {
        let op = self.op.unwrap_or(default_op);
        let transport = self.transport.unwrap_or(Transport::Rc);
        let milliseconds = u64::try_from(self.timeout().as_millis()).unwrap_or(u64::MAX);
        Ok(Plan {
            benchmark,
            op,
            transport,
            size: self.size.unwrap_or_else(|| op.default_size(benchmark, transport)),
            wait: self.wait.unwrap_or(Wait::Poll),
            inline: self.inline,
            depth: 2,
            post_list: 1,
            signal_every: 1,
            device: self.device.clone().unwrap_or_else(|| "shm".into()),
            pin_responder: self.pin.and_then(|pins| pins.second),
            timeout_ms: milliseconds,
            profile: self.profile.clone(),
            link: self.link.clone(),
            fault: self.fault.clone(),
            seed: self.fault.as_ref().map(|_| self.seed.unwrap_or_else(seed_of_now)),
            memory: self.memory.unwrap_or_default(),
        })
    }
}

impl PingpongFlags {
    /// The plan of a pingpong.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn plan(&self) -> Result<Plan> {
        let mut plan = self.flags.plan(Benchmark::Pingpong, Op::Send)?;
        plan.depth = Plan::pingpong_depth(plan.size);
        plan.signal_every = plan.depth / 2;
        plan.validate().map(|()| plan)
    }

    /// When messages are due; `None` in a closed loop.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn pace(&self) -> Result<Option<Pace>> {
        self.pace.pace(self.flags.timeout(), self.flags.seed.unwrap_or_else(seed_of_now))
    }
}

impl StreamFlags {
    /// The plan of a `bw` or `rate`.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub fn plan(&self, benchmark: Benchmark) -> Result<Plan> {
        let mut plan = self.flags.plan(benchmark, Op::Write)?;
        let least = self.post_list.unwrap_or(1).max(self.signal_every.unwrap_or(1));
        plan.depth = self.depth.unwrap_or_else(|| Plan::stream_depth(plan.size).max(least));
        plan.post_list = self.post_list.unwrap_or(1);
        plan.signal_every = self.signal_every.unwrap_or(1);
        plan.validate().map(|()| plan)
    }
}

/// Reads the command line; `Err` holds the text to print and the exit code.
///
/// # Errors
/// Wrong flags, as one line with exit code 2; or the help or version that was asked for, with exit code 0.
pub fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, (String, u8)> {
    use clap::error::ErrorKind;
    Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.render().to_string(), 0),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => (error.render().to_string(), 2),
        _ => {
            let text = error.render().to_string();
            let told =
                text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
            let told = told.collect::<Vec<_>>().join("\n");
            let line = one_line(told.strip_prefix("error: ").unwrap_or(&told));
            (format!("tbrdma-bench: {line} (see tbrdma-bench --help)\n"), 2)
        }
    })
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| "give a whole number of bytes, as 64, 4k or 1M".to_owned())?;
    let shift = match text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        unit => return Err(format!("{unit} is no unit of size: use k, M or G (powers of 1024)")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "is more bytes than 64 bits can count".to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "give a time, as 2s or 500ms".to_owned())?;
    let seconds = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => number,
        "ms" => number / 1e3,
        "us" => number / 1e6,
        "m" | "min" => number * 60.0,
        unit => return Err(format!("{unit} is no unit of time: use us, ms, s or min")),
    };
    if !(0.001..=3600.0).contains(&seconds) {
        return Err("is outside 1 ms to 1 hour".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn parse_pins(text: &str) -> Result<Pins, String> {
    let core =
        |text: &str| text.trim().parse::<usize>().map_err(|_| "give one core or two, as 2 or 2,3".to_owned());
    let (first, second) = match text.split_once(',') {
        Some((first, second)) => (core(first)?, Some(core(second)?)),
        None => (core(text)?, None),
    };
    if Some(first) == second {
        return Err("names one core twice: two sides on one core only take turns".to_owned());
    }
    Ok(Pins { first, second })
}

/// A seed for those who gave none: another one each time.
fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ u64::from(std::process::id()) << 32
}

/// An address with the default port added where there is none.
///
/// # Errors
/// The text is empty.
pub fn with_port(address: &str) -> Result<String> {
    let bare_v6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    match address {
        "" => Err(Error::Usage("an empty address: give HOST or HOST:PORT".into())),
        _ if bare_v6 => Ok(format!("[{address}]:{DEFAULT_PORT}")),
        _ if address.ends_with(']') || !address.contains(':') => Ok(format!("{address}:{DEFAULT_PORT}")),
        _ => Ok(address.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command, Pins, parse, parse_duration, parse_pins, parse_size, with_port};
    use clap::CommandFactory;
    use std::time::Duration;

    fn line(arguments: &[&str]) -> (String, u8) {
        let all = std::iter::once("tbrdma-bench").chain(arguments.iter().copied()).map(Into::into);
        parse(all).map(|_| ()).unwrap_err()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_flags_are_one_line() {
        let wrong: [&[&str]; 8] = [
            &["pingpong", "--op", "frobnicate"],
            &["pingpong", "--size", "many"],
            &["pingpong", "--iters", "0"],
            &["pingpong", "--iters", "5", "--duration", "2s"],
            &["pingpong", "--depth", "3"],
            &["pingpong", "--server", "--connect", "x"],
            &["pingpong", "--pin", "1,1"],
            &["nonsense"],
        ];
        for arguments in wrong {
            let (text, code) = line(arguments);
            assert_eq!((code, text.lines().count()), (2, 1), "{arguments:?}: {text}");
        }
        assert!(line(&["pingpong", "--op", "x"]).0.contains("write-imm"), "names what is possible");
        assert_eq!(line(&["--help"]).1, 0);
        assert_eq!(line(&["--version"]).1, 0);
    }

    #[test]
    fn a_server_needs_no_address() {
        let all = ["tbrdma-bench", "pingpong", "--server"].map(Into::into);
        let Command::Pingpong(flags) = parse(all).unwrap().command else { panic!("not a pingpong") };
        assert_eq!(flags.flags.server.as_deref(), Some("127.0.0.1"));
    }

    #[test]
    fn sizes_times_and_cores_have_units_and_bounds() {
        assert_eq!(parse_size("4k"), Ok(4096));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert!(parse_size("").is_err() && parse_size("-1").is_err() && parse_size("99999999999G").is_err());
        assert!(parse_size("1é").is_err());
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert!(["0s", "nan", "inf", "1e9", "-1s", "2h"].iter().all(|text| parse_duration(text).is_err()));
        assert_eq!(parse_pins("3"), Ok(Pins { first: 3, second: None }));
        assert_eq!(parse_pins("3, 1"), Ok(Pins { first: 3, second: Some(1) }));
        assert!(parse_pins("2,2").is_err() && parse_pins("a").is_err());
    }

    #[test]
    fn the_port_is_optional() {
        assert_eq!(with_port("host").unwrap(), "host:18515");
        assert_eq!(with_port("host:1").unwrap(), "host:1");
        assert_eq!(with_port("::1").unwrap(), "[::1]:18515");
        assert_eq!(with_port("[::1]:7").unwrap(), "[::1]:7");
        assert!(with_port("").is_err());
    }
}
