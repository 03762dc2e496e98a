//! Programs that are killed: whenever that happens, the next run must go as if nothing had been.

use crate::cases::{self, Device, perftest};
use crate::census::Census;
use crate::pair;
use crate::stage::Stage;
use anyhow::{Context, Result};
use std::thread::sleep;
use std::time::Duration;
use tbrdma_kit::Report;

/// A program is in its main loop well before this.
const LATEST: Duration = Duration::from_millis(400);

pub(crate) fn run(report: &mut Report, stage: &Stage, times: u32, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    for time in 0..times {
        for device in cases::DEVICES {
            let victim = VICTIMS[random.usize(..VICTIMS.len())];
            let after = Duration::from_micros(random.u64(..LATEST.as_micros() as u64));
            let whom = random.u8(..3);
            let who = ["the server", "the client", "both"][usize::from(whom)];
            let name = format!("{} {time}: {who} of {victim} after {} ms", device.name, after.as_millis());
            report.check(&name, || {
                let before = Census::take(stage)?;
                let options = device.options(None);
                // So many that they do not come to their end by themselves.
                let words = |port, host: Option<&str>| {
                    perftest::command(victim, &["-n", "100000000"], device, port, host)
                };
                let pair = pair::start(stage, &options, words)?;
                sleep(after);
                match whom {
                    0 => pair.server.kill().and_then(|()| pair.client.end_or_kill(LEFT))?,
                    1 => pair.client.kill().and_then(|()| pair.server.end_or_kill(LEFT))?,
                    _ => pair.server.kill().and_then(|()| pair.client.kill())?,
                }
                before.check_again(stage)?;
                run_one(stage, device).context("the run after it")?;
                before.check_again(stage)?;
                Ok("and the run after it was well".to_owned())
            });
        }
    }
    Ok(())
}

/// How long the other side may go on: who only receives is told by nobody that there will be nothing more.
const LEFT: Duration = Duration::from_secs(1);

/// Programs that do something all the time, one for each way to move bytes.
const VICTIMS: [&str; 4] = ["ib_send_bw", "ib_write_bw", "ib_read_bw", "ib_send_lat"];

fn run_one(stage: &Stage, device: Device) -> Result<()> {
    let words =
        |port, host: Option<&str>| perftest::command("ib_send_lat", &["-n", "20"], device, port, host);
    pair::start(stage, &device.options(None), words)?.succeed()?;
    Ok(())
}
