//! Two guests with the window between them, and no process here that has a part in it: vfio-pci on both sides, or the window's file in sysfs on one.

use super::removal::LOAD;
use crate::bench::Control;
use crate::guest::Running;
use crate::pci::{Bench, LIMIT, Station, WINDOW};
use anyhow::Result;
use tbrdma_kit::Report;

const THROUGH_SYSFS: [&str; 2] = ["pingpong --op send --size 64", "pingpong --op write --size 4096"];

const THROUGH_VFIO: [&str; 6] = [
    "pingpong --op send --size 64",
    "pingpong --op send --size 4096 --wait event",
    "pingpong --op write-imm --size 16k --wait event",
    "pingpong --op read --size 64k",
    "pingpong --op faa",
    "bw --op write --size 16k --depth 4",
];

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    for what in THROUGH_SYSFS {
        report.check(&format!("{what} between guests, one through sysfs"), || between(bench, what));
    }
    report.always("vfio-pci takes the second guest's window", || {
        bench.second.bind(WINDOW, "vfio-pci")?;
        Ok("its driver now".into())
    });
    for what in THROUGH_VFIO {
        report.check(&format!("{what} between guests"), || between(bench, what));
    }
}

/// A program in each guest that write through the window, until something stops them: the second guest's and the first's.
pub(crate) fn load(bench: &Bench) -> Result<(Running, Running)> {
    let serving = serve(bench, LOAD)?;
    let running = bench.first.guest.spawn(&connect(bench, LOAD), 2 * LIMIT)?;
    bench.until_busy()?;
    Ok((serving, running))
}

fn between(bench: &Bench, what: &str) -> Result<String> {
    let serving = serve(bench, what)?;
    let flags = "--quiet --iters 8 --warmup 2 --timeout 30s";
    let said = bench.first.run(&connect(bench, &format!("{what} {flags}")));
    if said.is_err() {
        // It would wait for a client.
        bench.second.guest.run("killall tbrdma-bench", LIMIT)?;
    }
    let served = bench.second.guest.wait(&serving)?.ok();
    let said = said?;
    served?;
    Ok(said)
}

/// Starts a server in the second guest.
fn serve(bench: &Bench, what: &str) -> Result<Running> {
    bench.programs.path("tbrdma-bench")?;
    let mode = what.split(' ').next().unwrap_or_default();
    let command =
        format!("tbrdma-bench {mode} --device {} --server 0.0.0.0:{}", Station::device(), Control::PORT);
    let running = bench.second.guest.spawn(&command, LIMIT)?;
    bench.second.until_listening()?;
    Ok(running)
}

/// What the first guest's client is told.
fn connect(bench: &Bench, what: &str) -> String {
    format!(
        "tbrdma-bench {what} --device {} --connect 10.0.2.2:{}",
        Station::device(),
        bench.second.forwarded
    )
}
