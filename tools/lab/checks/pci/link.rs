//! Our programs with the window between them: one in a guest, which has it through vfio-pci, and one here, at the server of its memory. Each check starts
//! both anew, so each is also one of a peer that comes back.

use crate::bench::Control;
use crate::pci::{Bench, LIMIT, Station};
use anyhow::{Result, ensure};
use tbrdma_kit::Report;

/// Pingpong with every byte verified: the transport, the flags, bytes of a message, and how many messages.
const PINGPONGS: [(&str, &str, &str, u32); 22] = [
    ("rc", "--op send", "1", 20),
    ("rc", "--op send", "64", 20),
    ("rc", "--op send", "4096", 20),
    ("rc", "--op send", "64k", 10),
    ("rc", "--op send --inline", "16", 20),
    ("rc", "--op send --memory registered", "20000", 10),
    ("rc", "--op send --wait event", "64", 20),
    ("rc", "--op send --wait event", "64k", 10),
    ("rc", "--op send-imm", "64", 20),
    ("rc", "--op write", "8", 20),
    ("rc", "--op write", "64k", 10),
    ("rc", "--op write", "1M", 2),
    ("rc", "--op write-imm --wait event", "4096", 20),
    ("rc", "--op read", "64", 20),
    ("rc", "--op read", "1M", 2),
    ("rc", "--op cas", "8", 20),
    ("rc", "--op faa", "8", 20),
    ("rc", "--op send --qps 64", "64", 128),
    ("uc", "--op send", "4096", 10),
    ("uc", "--op write", "64k", 10),
    ("uc", "--op write-imm", "64", 20),
    ("ud", "--op send", "1000", 20),
];

/// Much at once: what is measured, its flags, and how many messages.
const STREAMS: [(&str, &str, u32); 4] = [
    ("bw", "--op write --size 64k --depth 8", 24),
    ("bw", "--op read --size 16k --depth 8", 24),
    ("rate", "--op send --size 64 --depth 64 --post-list 8", 128),
    ("rate", "--op write --size 8 --depth 64 --qps 8", 128),
];

/// The other way round.
const GUEST_SERVES: [(&str, u32); 3] = [
    ("pingpong --op send --size 64", 20),
    ("pingpong --op read --size 16k", 10),
    ("bw --op write --size 16k --depth 4", 16),
];

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    report.check("tbrdma-bench lists the window", || {
        bench.programs.path("tbrdma-bench")?;
        let said = bench.first.run("tbrdma-bench devices")?;
        let names: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("hca_id:")).collect();
        let device = Station::device();
        ensure!(names.iter().any(|name| name.contains(&device)), "{device} is not among {names:?}");
        Ok(device)
    });
    for (transport, flags, size, messages) in PINGPONGS {
        let what = format!("pingpong --transport {transport} {flags} --size {size}");
        report.check(&format!("{what}, guest is client"), || guest_is_client(bench, &what, messages));
    }
    for (mode, flags, messages) in STREAMS {
        let what = format!("{mode} {flags}");
        report.check(&format!("{what}, guest is client"), || guest_is_client(bench, &what, messages));
    }
    for (what, messages) in GUEST_SERVES {
        report.check(&format!("{what}, guest is server"), || guest_is_server(bench, what, messages));
    }
}

/// How a program of ours is told to measure so many messages.
fn flags(messages: u32) -> String {
    format!("--quiet --iters {messages} --warmup 2 --timeout 30s")
}

pub(crate) fn guest_is_client(bench: &Bench, what: &str, messages: u32) -> Result<String> {
    let mode = what.split(' ').next().unwrap_or_default();
    let ours = bench.serve(&format!("tbrdma-bench {mode}"), "--server")?;
    let command = format!(
        "tbrdma-bench {what} {} --device {} --connect {}",
        flags(messages),
        Station::device(),
        Bench::address()
    );
    let said = bench.first.run(&command)?;
    ours.succeed()?;
    Ok(said)
}

fn guest_is_server(bench: &Bench, what: &str, messages: u32) -> Result<String> {
    bench.programs.path("tbrdma-bench")?;
    let mode = what.split(' ').next().unwrap_or_default();
    let guests =
        format!("tbrdma-bench {mode} --device {} --server 0.0.0.0:{}", Station::device(), Control::PORT);
    let running = bench.first.guest.spawn(&guests, LIMIT)?;
    bench.first.until_listening()?;
    let ours = format!(
        "tbrdma-bench {what} {} --device {} --connect 127.0.0.1:{}",
        flags(messages),
        bench.ours(),
        bench.first.forwarded
    );
    let said = bench.programs.start(&bench.cache, &ours)?.succeed();
    if said.is_err() {
        // It would wait for us.
        bench.first.guest.run("killall tbrdma-bench", LIMIT)?;
    }
    let guests = bench.first.guest.wait(&running)?.ok();
    let said = said?;
    guests?;
    Ok(said.trim().to_owned())
}
