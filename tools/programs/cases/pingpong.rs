//! ibv_*_pingpong of ibverbs-utils. With `-c` they check every byte.

use super::{Case, Device, words};
use crate::pair;
use anyhow::{Context, Result, ensure};

/// Round trips: enough to go round every queue.
const ITERATIONS: &str = "1000";

pub(crate) fn cases() -> Vec<Case> {
    let flags = |program, flags: &[&'static [&'static str]]| -> Vec<_> {
        flags.iter().map(|&flags| (program, flags)).collect::<Vec<_>>()
    };
    let all = [
        flags(
            "ibv_rc_pingpong",
            &[&[], &["-e"], &["-c"], &["-e", "-c"], &["-N", "-c"], &["-s", "262144", "-c"]],
        ),
        flags("ibv_uc_pingpong", &[&[], &["-e"], &["-c"], &["-e", "-c"]]),
        flags("ibv_ud_pingpong", &[&[], &["-e"], &["-c"], &["-e", "-c"]]),
        flags("ibv_srq_pingpong", &[&[], &["-e"], &["-c"], &["-e", "-c"], &["-q", "4", "-c"]]),
    ];
    let mut cases: Vec<_> =
        all.into_iter().flatten().map(|(program, flags)| case(program, flags, None)).collect();
    // Apple's system has this one.
    cases.extend([&[][..], &["-e", "-c"]].map(|flags| case("ibv_uc_pingpong", flags, Some(MAC))));
    cases
}

/// The profile of Macs' ports.
const MAC: &str = "apple-tb5";

fn case(program: &'static str, flags: &'static [&'static str], profile: Option<&'static str>) -> Case {
    let mut name = [&[program], flags].concat().join(" ");
    if let Some(profile) = profile {
        name = format!("{name}, {profile}");
    }
    let by_gid = profile == Some(MAC);
    Case::new(name, move |stage, device| {
        let device = Device { has_gids_only: by_gid || device.has_gids_only, ..device };
        let pair = pair::start(stage, &device.options(profile), |port, host| {
            command(program, flags, device, port, host)
        })?;
        let (client, server) = pair.succeed()?;
        judge(&client, &server)
    })
}

fn command(program: &str, flags: &[&str], device: Device, port: u16, host: Option<&str>) -> Vec<String> {
    let mut command = words([program, "-d", device.name, "-n", ITERATIONS, "-p", &port.to_string()]);
    if device.has_gids_only {
        command.extend(words(["-g", "1"]));
    }
    command.extend(words(flags.iter().copied()));
    command.extend(host.map(ToOwned::to_owned));
    command
}

/// They say `1000 iters in 0.02 seconds = 15.61 usec/iter`.
fn judge(client: &str, server: &str) -> Result<String> {
    for said in [client, server] {
        ensure!(!said.contains("invalid data"), "bytes were not what was sent: {said:?}");
    }
    let line =
        client.lines().find(|line| line.contains(" iters in ")).context("no iterations were counted")?;
    ensure!(line.starts_with(ITERATIONS), "{ITERATIONS} were asked for: {line}");
    Ok(line.rsplit(" = ").next().unwrap_or(line).to_owned())
}
