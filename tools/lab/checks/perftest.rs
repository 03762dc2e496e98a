//! Debian's own perftest, unmodified, at both ends: in the guest on rxe, and here under `tbrdma-run` on the library's device. Each way round.

use crate::bench::{Bench, Control};
use crate::modes::TAP;
use crate::party::{Family, PATIENCE};
use crate::wire::frame::OUR_V4;
use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::{Duration, Instant};
use tbrdma_kit::{Process, Report};

/// The port of the programs here; the guest's is that of all its programs.
const PORT: u16 = 18_516;

const PROGRAMS: [(&str, &str); 15] = [
    ("ib_send_lat", "RC"),
    ("ib_send_lat", "UC"),
    ("ib_send_lat", "UD"),
    ("ib_send_bw", "RC"),
    ("ib_send_bw", "UC"),
    ("ib_send_bw", "UD"),
    ("ib_write_lat", "RC"),
    ("ib_write_lat", "UC"),
    ("ib_write_bw", "RC"),
    ("ib_write_bw", "UC"),
    ("ib_read_lat", "RC"),
    ("ib_read_bw", "RC"),
    ("ib_atomic_lat", "RC"),
    ("ib_atomic_bw", "RC"),
    ("ib_send_bw -q 4", "RC"),
];

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    for (program, transport) in PROGRAMS {
        // A slow guest loses what comes faster than it takes it, and without retransmission that is lost: few messages then, and small.
        let size = if program.starts_with("ib_atomic") {
            ""
        } else if transport == "RC" {
            "-s 8192"
        } else {
            "-s 1024"
        };
        let command = format!("{program} -F -c {transport} -n 20 {size}");
        let name = format!("{program} {transport} under tbrdma-run");
        report.check(&format!("{name}, guest is client"), || guest_is_client(bench, &command));
        report.check(&format!("{name}, guest is server"), || guest_is_server(bench, &command));
    }
}

fn guest_is_client(bench: &Bench, command: &str) -> Result<String> {
    let mut ours = start(bench, &format!("{command} -p {PORT}"))?;
    ours.until_listening(PORT)?;
    let guests = guests(bench, &format!("{command} -p {PORT}"))?;
    let outcome = bench.guest.run(&format!("{guests} {OUR_V4}"), PATIENCE)?;
    let said = outcome.ok()?;
    // A server may have nothing to tell.
    ours.succeed()?;
    figures(&said)
}

fn guest_is_server(bench: &Bench, command: &str) -> Result<String> {
    let command = format!("{command} -p {}", Control::PORT);
    let running = bench.guest.spawn(&guests(bench, &command)?, PATIENCE)?;
    until_listening(bench)?;
    let said = start(bench, &format!("{command} {}", bench.control.guest.ip()))?.succeed();
    if said.is_err() {
        // It would wait for us.
        let program = command.split(' ').next().unwrap_or_default();
        bench.guest.run(&format!("killall {program}"), Duration::from_secs(10))?;
    }
    let guests = bench.guest.wait(&running)?.ok();
    let said = said?;
    guests?;
    figures(&said)
}

/// Waits until a program of the guest listens at [`Control::PORT`].
pub(super) fn until_listening(bench: &Bench) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let is_up = format!("grep -q ':{:04X} .* 0A' /proc/net/tcp /proc/net/tcp6", Control::PORT);
    while bench.guest.run(&is_up, Duration::from_secs(10))?.status != 0 {
        ensure!(Instant::now() < until, "the guest's program does not listen");
    }
    Ok(())
}

/// The command of the guest's side.
fn guests(bench: &Bench, command: &str) -> Result<String> {
    Ok(format!("{command} -d rxe0 -x {}", bench.verbs.gid_index(Family::V4)?))
}

/// Starts our side.
fn start(bench: &Bench, command: &str) -> Result<Process> {
    let mut words = command.split(' ').filter(|word| !word.is_empty());
    let program = bench.cache.guest("usr/bin").join(words.next().unwrap_or_default());
    let mut child = Command::new(bench.programs.path("tbrdma-run")?);
    // GID 1 is the IPv4 address.
    child
        .arg("--device")
        .arg(format!("tap=udp:{TAP}"))
        .arg("--")
        .arg(program)
        .args(words)
        .args(["-d", "tap", "-x", "1"]);
    child.env("LD_LIBRARY_PATH", bench.cache.host_libraries());
    let line = format!("tbrdma-run --device tap=udp:{TAP} -- {command}");
    Process::start(child, line, bench.cache.scratch("perftest"), false)
}

/// The line of figures below its heading. They are not judged.
fn figures(said: &str) -> Result<String> {
    let is_figures = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let figures = said.lines().skip_while(|line| !line.contains("#bytes")).find(is_figures);
    let figures = figures.with_context(|| format!("it printed no figures:\n{said}"))?;
    Ok(figures.split_whitespace().collect::<Vec<_>>().join(" "))
}
