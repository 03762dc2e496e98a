//! What is checked of a PCI memory window.

mod guests;
mod link;
mod machine;
mod removal;

use crate::pci::Bench;
use tbrdma_kit::Report;

/// All of it. No process here is a peer of the windows before the last of the guests' own checks: see [`take_away`](crate::pci::Station::take_away).
pub(crate) fn run(bench: &mut Bench, report: &mut Report) {
    machine::run(bench, report);
    guests::run(bench, report);
    removal::run_between(bench, report);
    report.always("the second guest's end", || bench.second.guest.finish());
    link::run(bench, report);
    removal::run(bench, report);
    report.always("the first guest's end", || bench.first.guest.finish());
}
