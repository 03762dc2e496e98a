//! The flags of measurements with ranks.

use std::time::Duration;

use clap::Args;

use super::launcher::{self, Place};
use super::plan::{Algorithm, MOST_RANKS, Plan};
use crate::cli::{parse_duration, parse_size, seed_of_now, with_port};
use crate::clock::Source;
use crate::error::{Error, Result};
use crate::outputs::OutputFlags;
use crate::plan::{Benchmark, Transport};

/// How many ranks there are without a wish.
const DEFAULT_RANKS: usize = 4;
const DEFAULT_DEPTH: u32 = 16;
const DEFAULT_DURATION: Duration = Duration::from_secs(2);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What `incast --help` says at its end.
pub const INCAST_EXAMPLES: &str = "\
Examples:
  tbrdma-bench incast                      three senders to one receiver
  tbrdma-bench incast --ranks 9 --depth 4  eight senders, 4 messages of each
  tbrdma-bench incast --receives 2         few receives: RNR, and who suffers
  tbrdma-bench incast --device udp:lo --json incast.json
  tbrdma-bench incast --device sim --link 10Gbps,5us --fault loss=1% --seed 7

Rank 0 receives. Jain's index is (sum of rates)^2 / (senders * sum of rates^2):
1 if all get the same, 1/senders if one gets everything. On sim each sender has
a link of its own, and nothing is narrower before the receiver.

Exit codes: 0 measured and every byte was right; 1 something failed;
2 wrong flags; 130 interrupted.";

/// What `mesh --help` says at its end.
pub const MESH_EXAMPLES: &str = "\
Examples:
  tbrdma-bench mesh                        four ranks, each sends to each other
  tbrdma-bench mesh --size 4k,64k,1M       several sizes, one after the other
  tbrdma-bench mesh --device udp:lo --csv mesh.csv
  tbrdma-bench mesh --device sim --ranks 8 --link 40Gbps,2us

Exit codes: 0 measured and every byte was right; 1 something failed;
2 wrong flags; 130 interrupted.";

/// What `allreduce --help` says at its end.
pub const ALLREDUCE_EXAMPLES: &str = "\
Examples:
  tbrdma-bench allreduce                   four ranks; 4 KiB, 64 KiB and 1 MiB
  tbrdma-bench allreduce --ranks 2 --size 16k
  tbrdma-bench allreduce --algorithm ring --size 1M,16M --json ring.json
  tbrdma-bench allreduce --device sim --link 40Gbps,2us
  tbrdma-bench allreduce --transport uc --profile apple-tb5
  mpirun -n 4 tbrdma-bench allreduce       also torchrun, srun, mlx.launch
  tbrdma-bench allreduce --rank 1 --ranks 2 --coordinator 10.0.0.1   and rank 0

Elements are f32, and whole numbers, so that every sum is exact and is checked.
Algorithm bandwidth is the bytes of a vector by the mean time of an operation.
Bus bandwidth is that times 2(N-1)/N for N ranks: what each must at least send,
whatever the algorithm, so it can be put beside the speed of a link. Both are as
NCCL's tests define them.

Exit codes: 0 measured and every sum was right; 1 something failed;
2 wrong flags; 130 interrupted.";

/// The flags of `allreduce`.
#[derive(Debug, Clone, Default, Args)]
pub struct AllreduceFlags {
    /// Those of every measurement with ranks.
    #[command(flatten)]
    pub flags: Flags,
    /// Who sends what to whom [default: mesh]
    #[arg(long, value_enum)]
    pub algorithm: Option<Algorithm>,
}

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// How many processes there are, this one among them [default: 4]
    #[arg(long, value_name = "N")]
    pub ranks: Option<usize>,
    /// Which rank this process is, where no launcher says so; with --ranks and --coordinator
    #[arg(long, value_name = "R", requires_all = ["ranks", "coordinator"])]
    pub rank: Option<usize>,
    /// Where rank 0 waits for the others, as HOST or HOST:PORT [default: what the launcher says]
    #[arg(long, value_name = "ADDR")]
    pub coordinator: Option<String>,
    /// Start the ranks here, whatever a launcher says in the environment
    #[arg(long, conflicts_with_all = ["rank", "coordinator"])]
    pub no_launcher: bool,
    /// Device to open [default: shm]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Transport service: rc, or of allreduce uc, as on Thunderbolt Macs [default: rc]
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,
    /// Bytes in a message or vector, as 64, 4k or 1M; several behind commas are measured one after the other [default: 64k; 4k,64k,1M for allreduce]
    #[arg(long, value_name = "BYTES", value_parser = parse_size, value_delimiter = ',')]
    pub size: Vec<u64>,
    /// Messages under way from a rank to another [default: 16]
    #[arg(long, value_name = "N")]
    pub depth: Option<u32>,
    /// Receives that wait at a rank for each that sends to it [default: twice the depth]
    #[arg(long, value_name = "N")]
    pub receives: Option<u32>,
    /// Measure until rank 0 has received this many messages, or a few more; of allreduce exactly this many operations
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "duration")]
    pub iters: Option<u64>,
    /// Measure for this long, as 2s or 500ms [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Messages that rank 0 receives, or operations, before the first measured one [default: as many as 0.1 s holds]
    #[arg(long, value_name = "N")]
    pub warmup: Option<u64>,
    /// Which clock measures [default: auto]
    #[arg(long, value_enum)]
    pub clock: Option<Source>,
    /// No progress bar, and one line instead of the report
    #[arg(long)]
    pub quiet: bool,
    /// Where results go besides the terminal.
    #[command(flatten)]
    pub outputs: OutputFlags,
    /// How fast the link is, for what each rank sends: a rate, a latency one way, or both, as 64Gbps,5us
    #[arg(long, value_name = "RATE,LATENCY")]
    pub link: Option<String>,
    /// What goes wrong with packets on the way: loss=1%,delay=50us~20us (not on shm)
    #[arg(long, value_name = "PLAN")]
    pub fault: Option<String>,
    /// What the devices of all ranks pretend to be: plain, rxe, connectx, perhaps with switches behind commas
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Where the dice of --fault start [default: another one each run, and said]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long a rank waits for others before it gives up, as 10s [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

impl Flags {
    /// How long a rank waits for others.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }

    /// This process' place among ranks that something else has started; `None` if it is to start them.
    ///
    /// # Errors
    /// A launcher says what makes no sense, or something else than the flags.
    pub fn place(&self) -> Result<Option<Place>> {
        if self.no_launcher {
            return Ok(None);
        }
        let found = match (self.rank, self.ranks) {
            (Some(rank), Some(size)) => Some(Place {
                rank,
                size,
                coordinator: None,
                devices: Vec::new(),
                by: "the user",
                variable: "--rank",
                passed_over: Vec::new(),
            }),
            _ => {
                let read = |path: &str| std::fs::read_to_string(path).map_err(|error| error.to_string());
                launcher::place(|name| std::env::var(name).ok(), read).map_err(Error::Usage)?
            }
        };
        let Some(mut place) = found else { return Ok(None) };
        if let Some(ranks) = self.ranks.filter(|ranks| *ranks != place.size) {
            return Err(Error::Usage(format!(
                "--ranks {ranks}, and {} has started {} by {}: say the same, or --no-launcher",
                place.by, place.size, place.variable
            )));
        }
        if place.rank >= place.size || place.size > MOST_RANKS {
            return Err(Error::Usage(format!("there is no rank {} of {}", place.rank, place.size)));
        }
        if let Some(coordinator) = &self.coordinator {
            place.coordinator = Some(coordinator.clone());
        }
        let Some(coordinator) = &place.coordinator else {
            return Err(Error::Usage(format!(
                "{} does not say where rank 0 of {} is: say it with --coordinator HOST:PORT",
                place.by, place.size
            )));
        };
        place.coordinator = Some(with_port(coordinator)?);
        if self.device.is_none() && place.devices.len() > 1 {
            return Err(Error::Usage(format!(
                "{} names several devices for rank {}, and a rank uses one here: choose of {} with --device",
                place.by,
                place.rank,
                place.devices.join(", ")
            )));
        }
        Ok(Some(place))
    }

    /// What is to be measured.
    ///
    /// # Errors
    /// The flags ask for what is not possible.
    pub fn plan(&self, benchmark: Benchmark, algorithm: Option<Algorithm>) -> Result<Plan> {
        let whole = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let depth = self.depth.unwrap_or(DEFAULT_DEPTH);
        let plan = Plan {
            benchmark,
            ranks: self.ranks.unwrap_or(DEFAULT_RANKS),
            sizes: match (self.size.is_empty(), benchmark) {
                (true, Benchmark::Allreduce) => vec![4 << 10, 64 << 10, 1 << 20],
                (true, _) => vec![64 << 10],
                (false, _) => self.size.clone(),
            },
            depth,
            receives: self.receives.unwrap_or_else(|| depth.saturating_mul(2)),
            iters: self.iters,
            duration_ns: whole(self.duration.unwrap_or(DEFAULT_DURATION)),
            warmup: self.warmup,
            device: self.device.clone().unwrap_or_else(|| "shm".into()),
            profile: self.profile.clone(),
            link: self.link.clone(),
            fault: self.fault.clone(),
            seed: self.fault.as_ref().map(|_| self.seed.unwrap_or_else(seed_of_now)),
            timeout_ms: whole(self.timeout()) / 1_000_000,
            algorithm,
            transport: self.transport.unwrap_or(Transport::Rc),
        };
        plan.validate().map(|()| plan)
    }
}
