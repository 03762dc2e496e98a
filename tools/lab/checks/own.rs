//! Our own programs inside the guest, the very files that run here: on the devices that need nothing, and on rxe through `native`.

use crate::bench::Bench;
use anyhow::{Result, ensure};
use std::time::Duration;
use tbrdma_kit::Report;

/// How long a program may take in a slow guest.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    report.check("tbrdma-bench lists the guest's devices", || devices(bench));
    report.check("tbrdma-bench pingpong on shm in the guest", || pingpong(bench, "", "--device shm"));
    // rxe has the RoCE port of the guest's network: another network then.
    report.check("tbrdma-bench pingpong on udp in the guest", || {
        pingpong(bench, "unshare -n sh -c 'ip link set lo up; exec ", "--device udp:lo'")
    });
}

fn devices(bench: &Bench) -> Result<String> {
    bench.programs.path("tbrdma-bench")?;
    let said = bench.guest.run("tbrdma-bench devices", LIMIT)?.ok()?;
    let names: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("hca_id:")).map(str::trim).collect();
    for name in ["shm", "udp:eth0"] {
        ensure!(names.contains(&name), "{name} is not among {names:?}");
    }
    Ok(names.join(", "))
}

fn pingpong(bench: &Bench, before: &str, flags: &str) -> Result<String> {
    bench.programs.path("tbrdma-bench")?;
    let command = format!("{before}tbrdma-bench pingpong --quiet --iters 50 --warmup 5 {flags}");
    let said = bench.guest.run(&command, LIMIT)?.ok()?;
    Ok(said.trim().to_owned())
}
