//! What is checked of a PCI memory window.

mod machine;

use crate::pci::Bench;
use tbrdma_kit::Report;

/// All of it.
pub(crate) fn run(bench: Bench, report: &mut Report) {
    machine::run(&bench, report);
    machine::run_end(&bench, report);
    let Bench { first, second, .. } = bench;
    report.always("the first guest's end", || first.guest.finish());
    report.always("the second guest's end", || second.guest.finish());
}
