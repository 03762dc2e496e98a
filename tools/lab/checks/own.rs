//! Our own programs inside the guest, the very files that run here: on the devices that need nothing, and on rxe through `native`.

use crate::bench::Bench;
use crate::modes::TAP;
use crate::wire::frame::OUR_V4;
use anyhow::{Result, ensure};
use std::time::Duration;
use tbrdma_kit::Report;

/// Where our side listens.
const PORT: u16 = 18_517;

/// How long a program may take in a slow guest.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    report.check("tbrdma-bench lists the guest's devices", || devices(bench));
    report.check("tbrdma-bench pingpong on shm in the guest", || measure(bench, "", "pingpong --device shm"));
    // rxe has the RoCE port of the guest's network: another network then.
    report.check("tbrdma-bench pingpong on udp in the guest", || {
        measure(bench, "unshare -n sh -c 'ip link set lo up; exec \"$@\"' - ", "pingpong --device udp:lo")
    });
}

/// Pingpong of two processes of the guest on rxe: the transport, the flags, and bytes, which are verified.
const ON_RXE: [(&str, &str, u32); 14] = [
    ("rc", "--op send", 64),
    ("rc", "--op send", 20_000),
    ("rc", "--op send --inline", 16),
    ("rc", "--op send --wait event", 64),
    ("rc", "--op send --memory registered", 4096),
    ("rc", "--op send-imm", 64),
    ("rc", "--op write", 4096),
    ("rc", "--op write-imm", 64),
    ("rc", "--op read", 20_000),
    ("rc", "--op cas", 8),
    ("rc", "--op faa", 8),
    ("uc", "--op send", 4096),
    ("uc", "--op write", 64),
    ("ud", "--op send", 1000),
];

/// `tbrdma-bench` between two processes of the guest, on rxe.
pub(crate) fn run_native(bench: &Bench, report: &mut Report) {
    for (transport, flags, size) in ON_RXE {
        let flags = format!("--transport {transport} {flags} --size {size}");
        report.check(&format!("tbrdma-bench pingpong on rxe, {flags}"), || {
            measure(bench, "", &format!("pingpong --device native:rxe0 {flags}"))
        });
    }
    for (what, flags) in [("bw", "--op write --size 64k"), ("rate", "--op send --size 64 --post-list 8")] {
        report.check(&format!("tbrdma-bench {what} on rxe, {flags}"), || {
            measure(bench, "", &format!("{what} --device native:rxe0 --depth 16 {flags}"))
        });
    }
}

/// `tbrdma-bench` with one side in the guest on rxe and the other here on the library's `udp` device.
pub(crate) fn run_between(bench: &Bench, report: &mut Report) {
    for flags in ["--op send --size 64", "--op write-imm --size 4096", "--op read --size 20000", "--op faa"] {
        report.check(&format!("tbrdma-bench pingpong between us and rxe, {flags}, guest is client"), || {
            guest_is_client(bench, flags)
        });
    }
}

fn guest_is_client(bench: &Bench, flags: &str) -> Result<String> {
    let address = format!("{OUR_V4}:{PORT}");
    let ours = format!("tbrdma-bench pingpong --server {address} --device udp:{TAP}");
    let mut ours = bench.programs.start(&bench.cache, &ours)?;
    ours.until_listening(PORT)?;
    let said = measure(bench, "", &format!("pingpong --connect {address} --device native:rxe0 {flags}"))?;
    ours.succeed()?;
    Ok(said)
}

fn devices(bench: &Bench) -> Result<String> {
    bench.programs.path("tbrdma-bench")?;
    let said = bench.guest.run("tbrdma-bench devices", LIMIT)?.ok()?;
    let names: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("hca_id:")).map(str::trim).collect();
    for name in ["shm", "udp:eth0", "native:rxe0"] {
        ensure!(names.contains(&name), "{name} is not among {names:?}");
    }
    Ok(names.join(", "))
}

/// Measures in the guest, where `before` starts the program.
fn measure(bench: &Bench, before: &str, what: &str) -> Result<String> {
    bench.programs.path("tbrdma-bench")?;
    let command = format!("{before}tbrdma-bench {what} --quiet --iters 50 --warmup 5");
    let said = bench.guest.run(&command, LIMIT)?.ok()?;
    Ok(said.trim().to_owned())
}
