//! Two rulers at one device: perftest under `tbrdma-run`, and `tbrdma-bench` on the library itself, in turns.

use crate::cases::{DEVICES, perftest};
use crate::pair;
use crate::stage::Stage;
use anyhow::Result;
use tbrdma_kit::{Measured, Medians, Report};

const OPERATIONS: [&str; 2] = ["send", "write"];
const SIZES: [&str; 3] = ["8", "64", "4096"];
/// Of each, so many messages.
const MESSAGES: &str = "100000";
/// And so often: an odd number, because the middle one counts.
const TURNS: usize = 5;

pub(crate) fn run(report: &mut Report, stage: &Stage) {
    for operation in OPERATIONS {
        for size in SIZES {
            report.check(&format!("ib_{operation}_lat and pingpong on shm, {size} B"), || {
                let measured: Result<Vec<_>> = (0..TURNS).map(|_| measure(stage, operation, size)).collect();
                Medians::of(&measured?)?.verdict()
            });
        }
    }
}

fn measure(stage: &Stage, operation: &str, size: &str) -> Result<Measured> {
    let [shm, _] = DEVICES;
    let program = format!("ib_{operation}_lat");
    let pair = pair::start(stage, &shm.options(None), |port, host| {
        perftest::command(&program, &["-s", size, "-n", MESSAGES], shm, port, host)
    })?;
    let (perftest, _) = pair.succeed()?;
    let measure = |like: &[&str]| {
        let ours =
            ["pingpong", "--op", operation, "--size", size, "--iters", MESSAGES, "--quiet", "--json", "-"];
        stage.start_own("tbrdma-bench", &[&ours, like].concat())?.succeed()
    };
    Ok(Measured { perftest, like_it: measure(&["--like", "perftest"])?, ours: measure(&[])? })
}
