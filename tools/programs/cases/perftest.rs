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
                    for way in WAYS {
                        if let Some(case) = combined(operation, measure, transport, way, profile) {
                            cases.push(case);
                        }
                    }
                }
            }
        }
    }
    let more: [(_, _, &[_], _); 7] = [
        ("send", "bw", &["-c", "UC", "-s", SHORT, "-b", "-q", "2", "-n", "200"], None),
        ("send", "bw", &["-c", "UD", "-s", SHORT, "-b", "-q", "2", "-n", "200"], None),
        ("send", "bw", &["--use-srq", "-q", "2", "-n", "200"], None),
        ("send", "lat", &["-I", "0", "-s", "64", "-n", "200"], None),
        ("send", "lat", &["-I", "64", "-s", "64", "-n", "200"], None),
        ("write", "bw", &["-l", "16", "-q", "2", "-n", "320"], None),
        ("write", "bw", &["-Q", "8", "-n", "320"], Some(NEW_INTERFACE)),
    ];
    let more = { more }
        .map(|(operation, measure, flags, profile)| case(operation, measure, flags.to_vec(), profile));
    cases.extend(more);
    cases
}

const OPERATIONS: [(&str, &[&str]); 4] =
    [("send", &["RC", "UC", "UD"]), ("write", &["RC", "UC"]), ("read", &["RC"]), ("atomic", &["RC"])];

/// What each operation is tried with: nothing more, all sizes, events, several queue pairs, both ways, for some time.
const WAYS: [&str; 6] = ["", "-a", "-e", "-q", "-b", "-D"];

/// A case of one way; `None` where perftest itself has it not: sizes for atomics, events for WRITE, several queue pairs and both ways for
/// latencies.
fn combined(
    operation: &'static str,
    measure: &'static str,
    transport: &'static str,
    way: &str,
    profile: Option<&'static str>,
) -> Option<Case> {
    let is_lat = measure == "lat";
    let has_not = match way {
        "-a" => operation == "atomic",
        "-e" => operation == "write",
        "-q" | "-b" => is_lat,
        _ => false,
    };
    if has_not {
        return None;
    }
    let mut flags = vec!["-c", transport];
    flags.extend::<&[_]>(match way {
        // -C: otherwise it would find out the machine's clock after each size, which takes long.
        "-a" if is_lat => &["-a", "-C", "-n", "20"],
        "-a" => &["-a", "-n", "20"],
        "-e" => &["-e", "-n", "200"],
        "-q" => &["-q", "4", "-n", "200"],
        "-b" => &["-b", "-n", "200"],
        "-D" => &["-D", "2", "-f", "0"],
        _ => &["-n", "200"],
    });
    if operation == "send" && transport == "UC" && !is_lat && way != "-a" {
        flags.extend(["-s", SHORT]);
    }
    // All sizes take long, and so do seconds; the rest of what is left out is much like what is in.
    let is_quick = match way {
        "" => profile.is_none() || operation == "write",
        "-a" | "-D" => false,
        _ => profile.is_none() && transport == "RC" && operation != "atomic",
    };
    Some(case(operation, measure, flags, profile).thorough(!is_quick))
}

fn case(operation: &str, measure: &str, flags: Vec<&'static str>, profile: Option<&'static str>) -> Case {
    let program = format!("ib_{operation}_{measure}");
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
