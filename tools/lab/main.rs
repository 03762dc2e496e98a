//! The lab: virtual machines that need nothing installed. In one, tbrdma's RoCEv2 meets the Linux kernel's own, `rdma_rxe`; in two others our programs
//! take a PCI memory window, with each other and with a process here.
//!
//! | file | what |
//! |---|---|
//! | `cache` | Debian packages, unpacked into a folder |
//! | `kernel`, `initramfs` | what the guest starts from |
//! | `guest`, `guest/init` | the running virtual machine, and how it takes orders |
//! | `monitor` | its qemu, which adds and removes devices |
//! | `party` | one side of a connection, whichever it is |
//! | `verbs`, `guest/verbs.c` | the guest's rxe as a party |
//! | `wire` | our transport as a party, with the lab as the wire: no root |
//! | `device` | the library as a party, over a tap |
//! | `programs` | our own programs, for the guest and for here |
//! | `exchange` | how the programs of ibverbs-utils get to know each other |
//! | `pci`, `guest/vfio.c` | guests with a PCI memory window, and what is there before we take it |
//! | `checks` | what must hold |
//! | `modes` | how a guest and our side are connected |

#![forbid(unsafe_code)]

mod bench;
mod cache;
mod checks;
mod device;
mod exchange;
mod guest;
mod initramfs;
mod kernel;
mod modes;
mod monitor;
mod party;
mod pci;
mod programs;
mod verbs;
mod wire;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tbrdma_kit::Report;

/// Runs tbrdma in virtual machines: against the Linux kernel's rdma_rxe, and over a PCI memory window.
#[derive(Parser)]
#[command(name = "lab")]
struct Arguments {
    /// Only checks whose name contains this.
    filter: Option<String>,
    /// Only this way of connecting our side to the guest.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Instead of all others: perftest's medians on rxe beside those of `tbrdma-bench`.
    #[arg(long, conflicts_with_all = ["mode", "capture", "run"])]
    agree: bool,
    /// A file that gets every packet of the library at the tap, as pcapng.
    #[arg(long)]
    capture: Option<PathBuf>,
    /// A command for the guest instead of checks; its output is shown. May be said more than once.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["filter", "mode", "capture"])]
    run: Vec<String>,
    /// Shows what the guests' consoles say.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The transport alone, with the lab as the wire; needs no root.
    Wire,
    /// The library's `udp` device at a tap in a network namespace.
    Tap,
    /// A PCI memory window (ivshmem), which guests take through vfio-pci behind an IOMMU; needs no root.
    Pci,
}

fn main() -> ExitCode {
    let Arguments { filter, mode, agree, capture, run, verbose } = Arguments::parse();
    let begun = Instant::now();
    let mut report = Report::new(filter);
    if !run.is_empty() {
        return match modes::commands(&run, verbose) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("lab: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if agree {
        report.set_prefix("rxe: ");
        if let Err(error) = modes::agreement(&mut report, verbose) {
            report.always("all of it", || Err(error));
        }
        return report.finish();
    }
    if modes::is_tap_role() {
        report.set_prefix("tap: ");
        if let Err(error) = modes::in_namespace(&mut report, capture.as_deref(), verbose) {
            report.always("all of it", || Err(error));
        }
        return report.finish();
    }
    for (this, prefix) in [(Mode::Wire, "wire: "), (Mode::Tap, "tap: "), (Mode::Pci, "pci: ")] {
        if mode.is_some_and(|mode| mode != this) {
            continue;
        }
        report.set_prefix(prefix);
        let result = match this {
            Mode::Wire => modes::wire(&mut report, verbose),
            Mode::Tap => modes::tap(&mut report),
            Mode::Pci => modes::pci(&mut report, verbose),
        };
        if let Err(error) = result {
            report.always("all of it", || Err(error));
        }
    }
    println!("lab: {:.1} s", begun.elapsed().as_secs_f64());
    report.finish()
}
