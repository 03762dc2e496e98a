//! `tbrdma-bench peers`: the same sizes over TCP, UDP, a Unix socket and each device, as one table: what RDMA buys here.
//!
//! Plain sockets do what the verbs' pingpong and bw do, on the same cores, with the same clock and the same bytes. Devices are measured by these
//! modes themselves.

mod outputs;
mod plain;

use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::child;
use crate::cli::{parse_duration, parse_size};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::histogram::Summary;
use crate::many::{Outputs, is_simulated};
use crate::plain_sockets::Carrier;
use crate::plan::{Benchmark, Op, Wait};
use crate::progress::Progress;
use crate::result::Report;
use crate::{affinity, clock, signals};
pub use plain::{Flags as PlainFlags, respond};

/// Name and version of the contract of `--json`: `harness/schema/tbrdma-bench-peers-1.json`.
pub const SCHEMA: &str = "tbrdma-bench-peers/1";
/// What a row may take besides its messages.
const BESIDES: Duration = Duration::from_secs(120);

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench peers                      sockets, shm, udp:lo, each adapter
  tbrdma-bench peers --sizes 8,4k --wait poll             only spinning
  tbrdma-bench peers --device shm --device mlx5_0 --ops send,write
  tbrdma-bench peers --json peers.json    for report peers.json -o page.html

All on this host: two processes on the same two cores. Sockets are non-blocking
and spun on with --wait poll, blocking with --wait event. vs tcp is how many
times less latency, or more bytes a second, than TCP of that size and wait.
Closed loop: one message at a time.

Exit codes: 0 measured, and every byte was right; 1 some were wrong, or nothing
could be measured; 2 wrong flags; 130 interrupted, with what was measured.";

/// Flags of `peers`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// Bytes in a message whose latency is measured
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_size, default_value = "8,64,4k,64k")]
    pub sizes: Vec<u64>,
    /// Bytes in a message of the streams; 0 for none
    #[arg(long, value_name = "BYTES", value_parser = parse_size, default_value = "1M")]
    pub bw_size: u64,
    /// How to wait, for messages and for completions
    #[arg(long, value_enum, value_delimiter = ',', default_value = "poll,event")]
    pub wait: Vec<Wait>,
    /// A device; several times for several [default: shm, udp:lo, and each adapter that is there]
    #[arg(long, value_name = "NAME")]
    pub device: Vec<String>,
    /// Verbs of devices, between commas [default: send, and write for streams]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub ops: Vec<Op>,
    /// How long each row measures
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "300ms")]
    pub each: Duration,
    /// How long to wait for the other side before giving up
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub timeout: Duration,
    /// Where results go besides the terminal.
    #[command(flatten)]
    pub outputs: crate::many::OutputFlags,
}

/// All rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where plain sockets were measured; each result says where it was.
    pub environment: Environment,
    /// The rows, by wait and by size.
    pub rows: Vec<Row>,
    /// Was it ended before the last row?
    pub interrupted: bool,
    /// The same for people.
    #[serde(default)]
    pub tables: Vec<Grid>,
}

/// What one of them did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The peer, the size and the wait.
    pub name: String,
    /// A plain socket, or a device with its verb.
    pub peer: String,
    /// `pingpong` or `bw`.
    pub benchmark: Benchmark,
    /// Bytes in a message.
    pub size_bytes: u64,
    /// Spinning or asleep.
    pub wait: Wait,
    /// The latencies, of a pingpong.
    pub one_way_ns: Option<Summary>,
    /// Payload bytes per second, of a stream.
    pub bytes_per_s: Option<f64>,
    /// The share of datagrams that did not arrive.
    pub lost: Option<f64>,
    /// How many times less latency, or more bytes, than TCP.
    pub vs_tcp: Option<f64>,
    /// Recorded messages.
    pub samples: u64,
    /// Was everything checked, and nothing wrong?
    pub verified: bool,
    /// Why there is no figure, or none that is to be trusted.
    pub reason: Option<String>,
    /// Of a device, the whole result.
    pub report: Option<Box<Report>>,
}

/// A row that is to be measured.
struct Planned {
    row: Row,
    what: What,
}

enum What {
    Plain(Carrier),
    Device(String, Op),
}

/// Does what the flags ask; the exit code.
///
/// # Errors
/// The flags make no sense, a file cannot be written, or bytes were wrong.
pub fn run(flags: &Flags) -> Result<u8> {
    signals::install()?;
    let outputs = Outputs::prepare(&flags.outputs)?;
    let allowed = affinity::allowed()?;
    let cores = affinity::pair(&allowed);
    clock::choose(clock::Source::default());
    let mut peers = Peers {
        schema: SCHEMA.into(),
        environment: Environment::survey(cores.map(|(own, _)| own), &allowed),
        rows: Vec::new(),
        interrupted: false,
        tables: Vec::new(),
    };
    peers.environment.pinned.responder = cores.map(|(_, other)| other);
    let planned = planned(flags);
    let (begun, total) = (Instant::now(), planned.len());
    let progress = Progress::called("peers", flags.outputs.quiet);
    for (done, Planned { mut row, what }) in planned.into_iter().enumerate() {
        progress.step(done, total, begun, &row.name);
        let measured = match what {
            What::Plain(carrier) => row.over_sockets(flags, carrier, cores),
            What::Device(device, op) => row.over_device(flags, &device, op),
        };
        match measured {
            Ok(()) => peers.rows.push(row),
            Err(Error::Interrupted) => {
                peers.interrupted = true;
                break;
            }
            Err(error) => {
                row.reason = Some(error.to_string());
                peers.rows.push(row);
            }
        }
    }
    drop(progress);
    peers.beside_tcp();
    peers.tables = peers.grids();
    outputs.write(&peers, || peers.csv(), || peers.text())?;
    peers.conclude()
}

/// Everything that is asked for, the sizes one after the other, so that what is compared is measured close together.
fn planned(flags: &Flags) -> Vec<Planned> {
    let devices = match flags.device.as_slice() {
        [] => {
            let found = tbrdma::devices().into_iter().map(|device| device.name);
            let emulated = ["shm", "udp:lo"].map(str::to_owned);
            let adapters = found.filter(|name| !name.contains(':') && name != "shm" && !is_simulated(name));
            emulated.into_iter().chain(adapters).collect()
        }
        devices => devices.to_vec(),
    };
    let mut planned = Vec::new();
    let pingpongs = flags.sizes.iter().map(|size| (Benchmark::Pingpong, *size));
    let streams = (flags.bw_size > 0).then_some((Benchmark::Bw, flags.bw_size));
    let measurements: Vec<(Benchmark, u64)> = pingpongs.chain(streams).collect();
    for (benchmark, size) in measurements {
        let default_op = if benchmark == Benchmark::Bw { Op::Write } else { Op::Send };
        let ops = if flags.ops.is_empty() { vec![default_op] } else { flags.ops.clone() };
        for wait in flags.wait.iter().copied() {
            let plain = [Carrier::Tcp, Carrier::Udp, Carrier::Unix].map(What::Plain);
            let of_device =
                |device: &String| ops.iter().map(|op| What::Device(device.clone(), *op)).collect::<Vec<_>>();
            for what in plain.into_iter().chain(devices.iter().flat_map(of_device)) {
                planned.push(Planned { row: Row::new(&what, benchmark, size, wait), what });
            }
        }
    }
    planned
}

impl Row {
    fn new(what: &What, benchmark: Benchmark, size: u64, wait: Wait) -> Self {
        let peer = match what {
            What::Plain(carrier) => carrier.name().to_owned(),
            What::Device(device, op) => format!("{device} {op}"),
        };
        Self {
            name: format!("{peer} {benchmark} {size} {wait}"),
            peer,
            benchmark,
            size_bytes: size,
            wait,
            one_way_ns: None,
            bytes_per_s: None,
            lost: None,
            vs_tcp: None,
            samples: 0,
            verified: false,
            reason: None,
            report: None,
        }
    }

    fn over_sockets(&mut self, flags: &Flags, carrier: Carrier, cores: Option<(usize, usize)>) -> Result<()> {
        let found = plain::measure_apart(&plain::Task {
            carrier,
            wait: self.wait,
            size: usize::try_from(self.size_bytes).unwrap_or(usize::MAX),
            time: flags.each,
            stream: self.benchmark == Benchmark::Bw,
            cores,
            timeout: flags.timeout,
        })?;
        self.one_way_ns = found.latencies.summary();
        (self.bytes_per_s, self.lost, self.samples) = (found.bytes_per_s, found.lost, found.messages);
        self.verified = found.account.errors == 0 && found.account.checked > 0;
        self.reason = found.account.first_error;
        Ok(())
    }

    fn over_device(&mut self, flags: &Flags, device: &str, op: Op) -> Result<()> {
        let mut arguments = vec![self.benchmark.to_string()];
        let given = [
            ("device", device.to_owned()),
            ("op", op.to_string()),
            ("size", self.size_bytes.to_string()),
            ("wait", self.wait.to_string()),
            ("timeout", format!("{}ms", flags.timeout.as_millis())),
        ];
        arguments.extend(given.map(|(flag, value)| format!("--{flag}={value}")));
        if !is_simulated(device) {
            arguments.push(format!("--duration={}us", flags.each.as_micros()));
        }
        let measured = child::measure(&arguments, flags.each * 4 + BESIDES)?;
        if let Some(report) = &measured.report {
            self.one_way_ns = report.one_way_ns;
            self.bytes_per_s = report.bandwidth.map(|bandwidth| bandwidth.bytes_per_s);
            self.samples = report.samples;
        }
        self.verified = measured.is_good();
        (self.report, self.reason) = (measured.report, measured.reason);
        Ok(())
    }

    /// What is compared: less is better of times, so their inverse.
    fn speed(&self) -> Option<f64> {
        let speed = match self.benchmark {
            Benchmark::Pingpong => 1.0 / self.one_way_ns?.p50,
            _ => self.bytes_per_s?,
        };
        (speed.is_finite() && speed > 0.0).then_some(speed)
    }
}

impl Peers {
    /// Every row beside that of TCP.
    fn beside_tcp(&mut self) {
        let tcp: Vec<Row> = self.rows.iter().filter(|row| row.peer == Carrier::Tcp.name()).cloned().collect();
        for row in &mut self.rows {
            let same = |base: &&Row| {
                (base.benchmark, base.size_bytes, base.wait) == (row.benchmark, row.size_bytes, row.wait)
            };
            let base = tcp.iter().find(same).and_then(Row::speed);
            row.vs_tcp = row.speed().zip(base).map(|(speed, base)| speed / base);
        }
    }

    fn conclude(&self) -> Result<u8> {
        if self.interrupted {
            return Ok(crate::many::interrupted(self.rows.len()));
        }
        let measured = |row: &&Row| row.speed().is_some();
        match self.rows.iter().filter(measured).find(|row| !row.verified) {
            Some(row) => {
                let why = row.reason.as_deref().unwrap_or("not all messages were checked");
                Err(Error::Run(format!("{}: {why}", row.name)))
            }
            None if self.rows.iter().any(|row| measured(&row)) => Ok(0),
            None => Err(Error::Run("nothing could be measured: the table says why".into())),
        }
    }
}
