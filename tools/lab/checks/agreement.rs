//! Two rulers at rxe: perftest and `tbrdma-bench` between two processes of the guest, in turns.

use super::perftest::until_listening;
use crate::bench::{Bench, Control};
use crate::party::{Family, PATIENCE};
use anyhow::{Result, ensure};
use tbrdma_kit::{Measured, Medians, Report};

const OPERATIONS: [&str; 2] = ["send", "write"];
const SIZES: [&str; 3] = ["8", "64", "4096"];
/// Of each, so many messages.
const MESSAGES: &str = "2000";
/// And so often: an odd number, because the middle one counts.
const TURNS: usize = 3;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    for operation in OPERATIONS {
        for size in SIZES {
            report.check(&format!("ib_{operation}_lat and pingpong on rxe, {size} B"), || {
                let measured: Result<Vec<_>> = (0..TURNS).map(|_| measure(bench, operation, size)).collect();
                Medians::of(&measured?)?.verdict()
            });
        }
    }
}

fn measure(bench: &Bench, operation: &str, size: &str) -> Result<Measured> {
    let guest = &bench.guest;
    let measure = |like: &str| {
        let ours = format!(
            "tbrdma-bench pingpong --device native:rxe0 --op {operation} --size {size} --iters {MESSAGES} --quiet --json - {like}"
        );
        guest.run(&ours, PATIENCE)?.ok()
    };
    let gid = bench.verbs.gid_index(Family::V4)?;
    let perftest =
        format!("ib_{operation}_lat -F -d rxe0 -x {gid} -s {size} -n {MESSAGES} -p {}", Control::PORT);
    let server = guest.spawn(&perftest, PATIENCE)?;
    until_listening(bench)?;
    let client = guest.run(&format!("{perftest} 127.0.0.1"), PATIENCE)?;
    let server = guest.wait(&server)?;
    ensure!(server.status == 0, "perftest's server ended with {}: {}", server.status, server.output);
    Ok(Measured { perftest: client.ok()?, like_it: measure("--like perftest")?, ours: measure("")? })
}
