//! qperf's tests of verbs. Its server serves many clients, and goes when it is told to. It names its peers by LIDs alone, which Ethernet has not, so
//! that it fails on RoCE adapters; a switch of the profile gives our ports LIDs over IP.

use super::{Case, Device, words};
use crate::pair::{self, HOST};
use anyhow::{Result, ensure};

/// The profile of devices whose peers would be named by GIDs.
const WITH_LIDS: &str = "plain,lids=ipv4";

const TESTS: [&str; 21] = [
    "rc_lat",
    "rc_bw",
    "rc_bi_bw",
    "uc_lat",
    "uc_bw",
    "uc_bi_bw",
    "ud_lat",
    "ud_bw",
    "ud_bi_bw",
    "rc_rdma_write_lat",
    "rc_rdma_write_poll_lat",
    "rc_rdma_write_bw",
    "rc_rdma_read_lat",
    "rc_rdma_read_bw",
    "uc_rdma_write_lat",
    "uc_rdma_write_poll_lat",
    "uc_rdma_write_bw",
    "rc_compare_swap_mr",
    "rc_fetch_add_mr",
    "ver_rc_compare_swap",
    "ver_rc_fetch_add",
];

pub(crate) fn cases() -> Vec<Case> {
    let case = |test: &'static str| {
        Case::new(format!("qperf {test}"), move |stage, device| {
            let options = device.options(device.has_gids_only.then_some(WITH_LIDS));
            let pair = pair::start(stage, &options, |port, host| command(device, port, host, test))?;
            let port = pair.port;
            let said = pair.client.succeed()?;
            stage.start(&options, &command(device, port, Some(HOST), "quit"))?.succeed()?;
            // It ends with a status of its own when it is told to quit.
            pair.server.end()?;
            judge(&said, test)
        })
        .thorough(!test.starts_with("ver_"))
    };
    TESTS.into_iter().map(case).collect()
}

fn command(device: Device, port: u16, host: Option<&str>, test: &str) -> Vec<String> {
    let port = port.to_string();
    let mut command = words(["qperf", "-lp", &port]);
    if let Some(host) = host {
        command.extend(words([host, "-i", &format!("{}:1", device.name), "-t", "1", test]));
    }
    command
}

/// It says `rc_lat:` and figures below; or what is wrong, and ends with 0 all the same.
fn judge(said: &str, test: &str) -> Result<String> {
    let mut lines = said.lines().skip_while(|line| line.trim_end() != format!("{test}:"));
    ensure!(lines.next().is_some(), "no result of {test}: {said:?}");
    let figures: Vec<_> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    ensure!(!figures.is_empty(), "no figures of {test}: {said:?}");
    Ok(figures.join(", "))
}
