//! perftest: ib_{send,write,read,atomic}_{lat,bw}, by the old interface for posting and by the new one.

use super::{Case, Device, words};
use crate::pair;
use anyhow::{Context, Result};

/// The profile whose vendor makes perftest post through `ibv_wr_*`.
const NEW_INTERFACE: &str = "connectx";

/// Bytes of a message in floods that nobody acknowledges: all of them fit a socket's buffer. perftest waits for ever for one that is lost.
const SHORT: &str = "2048";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for profile in [None, Some(NEW_INTERFACE)] {
        for (operation, transports) in OPERATIONS {
            for measure in ["lat", "bw"] {
                for transport in transports {
                    let flags: &[_] = if (operation, measure, *transport) == ("send", "bw", "UC") {
                        &["-c", "UC", "-s", SHORT, "-n", "200"]
                    } else {
                        &["-c", transport, "-n", "200"]
                    };
                    cases.push(case(operation, measure, flags, profile));
                }
            }
        }
    }
    for (operation, _) in OPERATIONS {
        // It refuses -e for WRITE by itself, and sizes for atomics.
        for measure in ["lat", "bw"] {
            if operation != "atomic" {
                // -C: otherwise it would find out the machine's clock after each size, which takes long.
                let flags: &[_] =
                    if measure == "lat" { &["-a", "-C", "-n", "20"] } else { &["-a", "-n", "20"] };
                cases.push(case(operation, measure, flags, None));
            }
            if operation != "write" {
                cases.push(case(operation, measure, &["-e", "-n", "200"], None));
            }
        }
        cases.push(case(operation, "bw", &["-q", "4", "-n", "200"], None));
        cases.push(case(operation, "bw", &["-b", "-n", "200"], None));
        cases.push(case(operation, "bw", &["-D", "2", "-f", "0"], None));
    }
    for transport in ["UC", "UD"] {
        cases.push(case("send", "bw", &["-c", transport, "-a", "-n", "20"], None));
        cases.push(case("send", "bw", &["-c", transport, "-s", SHORT, "-b", "-q", "2", "-n", "200"], None));
    }
    cases.push(case("write", "bw", &["-c", "UC", "-a", "-n", "20"], None));
    cases.push(case("send", "lat", &["-D", "2", "-f", "0"], None));
    cases.push(case("send", "bw", &["--use-srq", "-q", "2", "-n", "200"], None));
    cases.push(case("send", "lat", &["-I", "0", "-s", "64", "-n", "200"], None));
    cases.push(case("send", "lat", &["-I", "64", "-s", "64", "-n", "200"], None));
    cases.push(case("write", "bw", &["-l", "16", "-q", "2", "-n", "320"], None));
    cases.push(case("write", "bw", &["-Q", "8", "-n", "320"], Some(NEW_INTERFACE)));
    cases
}

const OPERATIONS: [(&str, &[&str]); 4] =
    [("send", &["RC", "UC", "UD"]), ("write", &["RC", "UC"]), ("read", &["RC"]), ("atomic", &["RC"])];

fn case(operation: &str, measure: &str, flags: &[&'static str], profile: Option<&'static str>) -> Case {
    let program = format!("ib_{operation}_{measure}");
    // All sizes take long, and so do seconds; the rest of what is left out is much like what is in.
    let is_long = flags.contains(&"-a") || flags.contains(&"-D");
    let is_alike = profile.is_some() && operation != "write" || operation == "atomic" && flags.len() > 4;
    let is_thorough = is_long || is_alike;
    let flags = flags.to_vec();
    let mut name = format!("{program} {}", flags.join(" "));
    if let Some(profile) = profile {
        name = format!("{name}, {profile}");
    }
    Case::new(name, move |stage, device| {
        let pair = pair::start(stage, &device.options(profile), |port, host| {
            command(&program, &flags, device, port, host)
        })?;
        let (client, _) = pair.succeed()?;
        judge(&client)
    })
    .thorough(is_thorough)
}

/// The command of one side.
pub(crate) fn command(
    program: &str,
    flags: &[&str],
    device: Device,
    port: u16,
    host: Option<&str>,
) -> Vec<String> {
    // -F: it would complain of the machine's clock.
    let mut command = words([program, "-F", "-d", device.name, "-p", &port.to_string()]);
    command.extend(words(flags.iter().copied()));
    command.extend(host.map(ToOwned::to_owned));
    command
}

/// There must be a line of figures. They are not judged: under load it prints `inf` for what it could not tell, and ends well.
fn judge(client: &str) -> Result<String> {
    let is_figures = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let figures = client.lines().skip_while(|line| !line.contains("#bytes")).filter(is_figures);
    let last = figures.last().context("it printed no figures")?;
    Ok(last.split_whitespace().collect::<Vec<_>>().join(" "))
}
