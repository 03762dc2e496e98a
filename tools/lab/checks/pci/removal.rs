//! What becomes of programs when the other end of the window, or the window itself, goes away while they use it: an error that says so and a status,
//! within a bound, and never a dead process or one that hangs. Each time the next programs go on as if nothing had been.

use super::{guests, link};
use crate::guest::Running;
use crate::pci::{Bench, LIMIT, Station, WINDOW};
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use tbrdma_kit::{Process, Report};

/// What shows that programs go on.
const AGAIN: &str = "pingpong --op write-imm --size 4096 --wait event";

/// A program without an end of its own, on either side.
pub(crate) const LOAD: &str =
    "bw --op write --size 16k --depth 8 --duration 300s --warmup 4 --quiet --timeout 10s";

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    report.check("a program here is killed under load", || {
        let (ours, guests) = load(bench)?;
        ours.kill()?;
        fails_by_itself(&bench.first, &guests)
    });
    report.check("and the next goes on", || link::guest_is_client(bench, AGAIN, 8));
    report.check("a program in the guest is killed under load", || {
        let (ours, guests) = load(bench)?;
        bench.first.run("killall -9 tbrdma-bench")?;
        let outcome = bench.first.guest.wait(&guests)?;
        ensure!(outcome.status == 137, "it ended with status {}", outcome.status);
        ours_fails(ours)
    });
    report.check("and the next goes on in the guest", || link::guest_is_client(bench, AGAIN, 8));
    forgotten(bench, report);
}

/// The guest's kernel forgets the device, as when an administrator does so before it is pulled, and finds it again.
fn forgotten(bench: &Bench, report: &mut Report) {
    let mut ours = None;
    report.check("the guest's kernel forgets the window under load, and the guest's program says so", || {
        let (program, guests) = load(bench)?;
        ours = Some(program);
        let forgetting = bench.first.forget(WINDOW)?;
        let said = fails_by_itself(&bench.first, &guests)?;
        bench.first.guest.wait(&forgetting)?.ok()?;
        ensure!(!bench.first.has(WINDOW)?, "{WINDOW} is still there");
        Ok(said)
    });
    if let Some(ours) = ours {
        report.check("and the program here ends too", || ours_fails(ours));
    }
    report.check("without its device a program is refused", || {
        bench.programs.path("tbrdma-bench")?;
        let command = format!("tbrdma-bench pingpong --quiet --device {}", Station::device());
        let outcome = bench.first.guest.run(&command, LIMIT)?;
        ensure!(outcome.status == 1 && outcome.output.contains(WINDOW), "{outcome:?}");
        said(&outcome.output, Instant::now())
    });
    report.always("the window is found again", || {
        bench.first.find_again()?;
        Ok("vfio-pci has it".into())
    });
    report.check("and the next goes on over it", || link::guest_is_client(bench, AGAIN, 8));
}

/// qemu takes a guest's window away, under load between the guests: for good.
pub(crate) fn run_between(bench: &Bench, report: &mut Report) {
    let mut others = None;
    report.check("a guest's window is pulled under load, and its program says so", || {
        let (serving, running) = guests::load(bench)?;
        others = Some(running);
        let monitor = bench.second.take_away()?;
        let said = fails_by_itself(&bench.second, &serving)?;
        bench.second.until_away(monitor)?;
        Ok(said)
    });
    if let Some(others) = others {
        report
            .check("and the program in the other guest ends too", || fails_by_itself(&bench.first, &others));
    }
}

/// A program here and one in the guest that write through the window, until something stops them.
fn load(bench: &Bench) -> Result<(Process, Running)> {
    let ours = bench.serve("tbrdma-bench bw --timeout 10s", "--server")?;
    let command =
        format!("tbrdma-bench {LOAD} --device {} --connect {}", Station::device(), Bench::address());
    let guests = bench.first.guest.spawn(&command, 2 * LIMIT)?;
    bench.until_busy()?;
    Ok((ours, guests))
}

/// The guest's program ends with an error of its own making.
fn fails_by_itself(station: &Station, guests: &Running) -> Result<String> {
    let begun = Instant::now();
    let outcome = station.guest.wait(guests)?;
    // 128 and more are signals, of which one is that its time was over.
    ensure!(outcome.status == 1, "it ended with status {}: {}", outcome.status, outcome.output.trim());
    said(&outcome.output, begun)
}

fn ours_fails(mut ours: Process) -> Result<String> {
    let begun = Instant::now();
    let status = ours.wait()?;
    ensure!(status.code() == Some(1), "it ended with {status}: {}", ours.output().trim());
    said(&ours.output(), begun)
}

/// The reason that a program gave, and how long it took to.
fn said(output: &str, begun: Instant) -> Result<String> {
    let reason = output.lines().rfind(|line| !line.trim().is_empty()).context("it gave no reason")?;
    Ok(format!("{} ({:.1} s)", reason.trim(), begun.elapsed().as_secs_f64()))
}

impl Bench {
    /// Waits until messages go through the window: until much of it has changed at each of several looks. Its ends change a word now and then by themselves.
    pub(crate) fn until_busy(&self) -> Result<()> {
        const PAGE: usize = 4096;
        const MANY: usize = 8;
        let until = Instant::now() + LIMIT;
        let mut bytes = vec![0; crate::pci::BYTES as usize];
        let mut last = bytes.clone();
        let mut looks = 0;
        while looks < 4 {
            ensure!(Instant::now() < until, "nothing goes through the window");
            std::thread::sleep(Duration::from_millis(50));
            self.server.memory().read_exact_at(&mut bytes, 0)?;
            let pages = bytes.chunks(PAGE).zip(last.chunks(PAGE));
            looks = if pages.filter(|(now, then)| now != then).count() < MANY { 0 } else { looks + 1 };
            last.copy_from_slice(&bytes);
        }
        Ok(())
    }
}
