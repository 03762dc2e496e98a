//! The command line.

use clap::Parser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tbrdma_settings::{CONFIG_FLAG, Key, Layer, Settings, SettingsError};

/// Starts an unmodified RDMA program on an emulated device.
///
/// Every option can also be given by a variable or in a TOML file; a flag is stronger than a variable, a variable stronger than the file.
#[derive(Parser)]
#[command(name = "tbrdma-run", version, after_help = AFTER)]
pub(crate) struct Options {
    /// A device, in the order in which the program shall see them: [NAME=]shm or [NAME=]udp:IFACE, as in mlx5_0=udp:lo. The two ends of a cable
    /// are shm@CABLE:0 and shm@CABLE:1; mesh:RANK/SIZE=shm and ring:RANK/SIZE=shm give a rank its devices, one for each cable. Without any,
    /// one device shm [TBRDMA_DEVICES, commas between them].
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// What the devices pretend to be: plain, rxe, connectx or apple-tb5, and perhaps switches, as in apple-tb5,qps=3 (TBRDMA_PROFILE).
    #[arg(long, value_name = "NAME")]
    profile: Option<OsString>,
    /// What goes wrong, with packets (loss, burst, delay, reorder, dup, corrupt, rate, queue, sleep, partition), as in loss=1%,delay=50us~20us, perhaps
    /// changing in the course of time, as in 'none; 2s: loss=100%; 3s: none', and in verbs (wc, wc_delay, qp_err, drop, rnr, refuse, event, remove: see below), as in wc=5:RETRY_EXC_ERR,refuse=create_qp:3:ENOMEM (TBRDMA_FAULT).
    #[arg(long, value_name = "PLAN")]
    fault: Option<OsString>,
    /// The seed of the faults; without one it is drawn, and told (TBRDMA_SEED).
    #[arg(long)]
    seed: Option<OsString>,
    /// The rate and the latency of the links, as in 64Gbps,5us: what a device sends shares the rate, and neither side sees anything before the
    /// latency has passed, one way (TBRDMA_LINK).
    #[arg(long, value_name = "RATE,LATENCY")]
    link: Option<OsString>,
    /// A file for every packet, as pcapng; %p becomes the process's number. On shm it has the packets that an adapter would have sent, of what this
    /// process asks of others (TBRDMA_CAPTURE).
    #[arg(long, value_name = "FILE")]
    capture: Option<OsString>,
    /// A file for every call and completion; %p becomes the process's number (TBRDMA_TRACE).
    #[arg(long, value_name = "FILE")]
    trace: Option<OsString>,
    /// Lines of the trace that are kept in memory, with or without a file, and told on stderr at a signal, with the calls that have not returned. 256
    /// with --trace, else 0 (TBRDMA_TRACE_LAST).
    #[arg(long, value_name = "LINES")]
    trace_last: Option<OsString>,
    /// That signal, or none. It then does what it would have done; where the program handles it, it is the program's alone. By default QUIT: ^\ in a
    /// terminal, or timeout --signal=QUIT (TBRDMA_TRACE_SIGNAL).
    #[arg(long, value_name = "NAME")]
    trace_signal: Option<OsString>,
    /// When the program ends, tell what it asked for, what failed and why, the most it used of each limit, and what it did not give back
    /// [TBRDMA_EXPLAIN=1].
    #[arg(long)]
    explain: bool,
    /// Pretend the files /dev/infiniband/NAME, for programs that look for them, as UCX does [TBRDMA_DEVICE_FILES=1].
    #[arg(long)]
    device_files: bool,
    /// A TOML file of settings: devices (a list), profile, fault, seed, link, capture, trace, trace_last, trace_signal, explain, device_files (TBRDMA_CONFIG).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the variables for a shell, instead of starting a program: eval "$(tbrdma-run --print-env)".
    #[arg(long, conflicts_with = "program")]
    print_env: bool,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "print_env")]
    pub(crate) program: Vec<OsString>,
}

const AFTER: &str = "Faults in verbs, on every device (the Nth counts from 1 in this process; 1% in its place is a chance for each; + between several):
  wc=5:RETRY_EXC_ERR            the 5th successful completion fails with this status, and its queue pair goes to ERR
  wc_delay=5:1ms                the 5th completion comes so much later, and those of its queue pair behind it
  qp_err=1000                   when the 1000th send request is posted, its queue pair goes to ERR
  drop=7                        the 7th request to a peer is lost: RETRY_EXC_ERR of a reliable queue pair, at once; success of another
  rnr=100:50ms                  from the 100th receive posted on, and so long, that queue's receives are not there for peers: RNR
  refuse=create_qp:3:ENOMEM     the 3rd call of this kind fails with this errno
  event=PORT_ERR:100            at the 100th call that is no poll, or after a time (PORT_ACTIVE:2s), this asynchronous event
  remove=1000, remove=2s        likewise, the devices are gone: DEVICE_FATAL, queue pairs flush, EIO; giving back succeeds

Examples:
  tbrdma-run -- ibv_devinfo -v
  tbrdma-run --device mlx5_0=udp:lo --fault loss=1% --seed 7 -- ib_send_lat
  tbrdma-run --link 64Gbps,5us --capture run-%p.pcapng -- ib_send_lat 127.0.0.1
  tbrdma-run --profile connectx -- ib_write_bw 127.0.0.1";

impl Options {
    /// What holds, of flags, variables and the file.
    pub(crate) fn settings(&self) -> Result<Settings, SettingsError> {
        let below = match &self.config {
            None => Layer::from_environment()?,
            Some(path) => Layer::from_variables(|name| std::env::var_os(name))
                .over(Layer::from_file(Path::new(path), CONFIG_FLAG)?),
        };
        self.flags().over(below).parse()
    }

    fn flags(&self) -> Layer {
        let mut layer = Layer::default();
        if !self.device.is_empty() {
            layer.set(Key::Devices, self.device.join(","), Key::Devices.flag());
        }
        let values = [
            (Key::Profile, &self.profile),
            (Key::Fault, &self.fault),
            (Key::Seed, &self.seed),
            (Key::Link, &self.link),
            (Key::Capture, &self.capture),
            (Key::Trace, &self.trace),
            (Key::TraceLast, &self.trace_last),
            (Key::TraceSignal, &self.trace_signal),
        ];
        for (key, value) in values {
            if let Some(value) = value {
                layer.set(key, value, key.flag());
            }
        }
        for (key, on) in [(Key::Explain, self.explain), (Key::DeviceFiles, self.device_files)] {
            if on {
                layer.set(key, "1", key.flag());
            }
        }
        layer
    }
}
