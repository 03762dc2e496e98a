//! The command line: subcommands, and what is said when it makes no sense.

mod examples;
mod flags;
mod units;

use clap::{Parser, Subcommand};

use crate::error::{Result, one_line};
use crate::{
    compare, doctor, gate, idle, manual, mixed, page, peers, ranks, record, replay, soak, stress, sweep, walk,
};
use examples::*;
pub use flags::{Extent, Flags, LaneFlags, PingpongFlags, StreamFlags, seed_of_now};
pub use units::{DEFAULT_HOST, DEFAULT_PORT, Pins, parse_duration, parse_pins, parse_size, with_port};

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
    #[command(after_help = PINGPONG_EXAMPLES)]
    Pingpong(PingpongFlags),
    /// Bandwidth in one direction, many messages under way
    #[command(after_help = BW_EXAMPLES)]
    Bw(StreamFlags),
    /// Message rate in one direction, many messages under way
    #[command(after_help = RATE_EXAMPLES)]
    Rate(StreamFlags),
    /// Many senders, one receiver: throughput, and who gets how much of it
    #[command(after_help = ranks::flags::INCAST_EXAMPLES)]
    Incast(ranks::Flags),
    /// Each of many ranks sends to each other
    #[command(after_help = ranks::flags::MESH_EXAMPLES)]
    Mesh(ranks::Flags),
    /// Each of many ranks gets the sum of what all have, as in tensor parallelism
    #[command(after_help = ranks::flags::ALLREDUCE_EXAMPLES)]
    Allreduce(ranks::AllreduceFlags),
    /// Latency of a message after a silence, of each of a list
    #[command(after_help = idle::EXAMPLES)]
    Idle(idle::IdleFlags),
    /// Operations and sizes by weight, and the latency of each kind among the others
    #[command(after_help = mixed::EXAMPLES)]
    Mixed(mixed::MixedFlags),
    /// List devices, ports and limits, as ibv_devinfo -v does
    #[command(after_help = DEVICES_EXAMPLES)]
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
    /// A measurement with every combination of sizes, depths or anything, as one table
    #[command(after_help = sweep::EXAMPLES)]
    Sweep(sweep::Flags),
    /// A weighted random walk over verbs objects, each step checked by a model
    #[command(after_help = walk::EXAMPLES)]
    Walk(walk::Flags),
    /// The same sizes over TCP, UDP, a Unix socket and each device: what RDMA buys here
    #[command(after_help = peers::EXAMPLES)]
    Peers(peers::Flags),
    /// One connection under load for long: rolling percentiles, and what keeps growing
    #[command(after_help = soak::EXAMPLES)]
    Soak(soak::Flags),
    /// Whether results keep the limits of a plan
    #[command(after_help = GATE_EXAMPLES)]
    Gate(gate::Flags),
    /// Whether a connection bears what a plan does to it: phases of loss, outages, pauses and more
    #[command(after_help = stress::EXAMPLES)]
    Stress(stress::Flags),
    /// Start a program on an emulated device and write a trace of its verbs, to be replayed
    #[command(after_help = record::EXAMPLES)]
    Record(record::Flags),
    /// Post the requests of a trace again, with their timing or as fast as possible
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Flags),
    /// Completions of the command line, for a shell
    #[command(after_help = manual::COMPLETIONS_EXAMPLES)]
    Completions(manual::CompletionsFlags),
    /// Manual pages
    #[command(after_help = manual::EXAMPLES)]
    Man(manual::Flags),
    /// What programs hold of devices with the profile switch ledger=on, also such as were killed
    #[command(after_help = LEDGER_EXAMPLES)]
    Ledger {
        /// Give back what is left of programs that are dead
        #[arg(long)]
        clear: bool,
    },
    /// The second process of a run: speaks the control protocol on its standard streams
    #[command(hide = true)]
    Responder,
    /// The second process of peers, over plain sockets
    #[command(hide = true)]
    PlainResponder(peers::PlainFlags),
    /// A process of a run with many: speaks the control protocol on its standard streams
    #[command(hide = true)]
    Rank {
        /// Which one it is
        rank: usize,
        /// Of how many
        ranks: usize,
    },
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

#[cfg(test)]
mod tests {
    use super::{Cli, Command, parse};
    use clap::CommandFactory;

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
}
