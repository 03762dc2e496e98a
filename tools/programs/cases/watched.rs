//! What `tbrdma-run` adds to a program: a trace, a report at the end, faults in verbs, a link of some speed, a capture.

use super::{Case, Device, words};
use crate::pair;
use crate::stage::Stage;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("--trace", |stage, device| {
            let file = stage.scratch.join("trace-%p");
            let (client, _) =
                pingpong(stage, device, &["--trace", &file.display().to_string()])?.succeed()?;
            ensure!(client.contains("10 iters"), "the program did not do its work: {client:?}");
            let mut lines = 0;
            for path in files(stage, "trace-")? {
                let text = std::fs::read_to_string(&path)?;
                for wanted in [
                    "ibv_open_device(",
                    "ibv_create_qp(",
                    "post_send(",
                    "completion on QP",
                    "ibv_close_device(",
                ] {
                    ensure!(text.contains(wanted), "no {wanted} in {text}");
                }
                lines += text.lines().count();
                std::fs::remove_file(path)?;
            }
            Ok(format!("{lines} lines of two processes"))
        }),
        Case::new("--link 1Gbps,2ms --capture", |stage, device| {
            let file = stage.scratch.join("packets-%p").display().to_string();
            let (client, _) =
                pingpong(stage, device, &["--link", "1Gbps,2ms", "--capture", &file])?.succeed()?;
            // As in "10 iters in 0.04 seconds = 4130.95 usec/iter": there and back.
            let line = client.lines().find(|line| line.contains("10 iters")).context("it did not end")?;
            let microseconds = line.rsplit_once("= ").and_then(|(_, figure)| figure.split(' ').next());
            let microseconds: f64 = microseconds.context("no figure")?.parse()?;
            ensure!(microseconds >= 4000.0, "faster than the link: {line}");
            let mut packets = Vec::new();
            for path in files(stage, "packets-")? {
                packets.push(count_packets(&std::fs::read(&path)?)?);
                std::fs::remove_file(path)?;
            }
            // A message and its acknowledgement; on a wire the other's are seen too.
            ensure!(packets.len() == 2 && packets.iter().all(|count| *count >= 20), "{packets:?}");
            Ok(format!("{packets:?} packets, {microseconds} us a round"))
        }),
        Case::new("--explain", |stage, device| {
            let (client, _) = pingpong(stage, device, &["--explain"])?.succeed()?;
            ensure!(
                client.contains("ibv_create_qp 1,") && client.contains("20 completions: Success"),
                "{client:?}"
            );
            ensure!(!client.contains("not given back"), "{client:?}");
            Ok("calls and completions were counted, and nothing was left".to_owned())
        }),
        Case::new("--fault refuse=create_qp:1:ENOMEM", |stage, device| {
            let mut options = device.options(None);
            options.extend(words(["--fault", "refuse=create_qp:1:ENOMEM", "--seed", "1", "--explain"]));
            let mut process =
                stage.start(&options, &words(["ibv_rc_pingpong", "-d", device.name, "-g", "0"]))?;
            let status = process.wait()?;
            let said = process.output();
            ensure!(!status.success() && said.contains("Couldn't create QP"), "{status}: {said:?}");
            ensure!(said.contains("ibv_create_qp failed 1 times: ENOMEM"), "{said:?}");
            Ok("it was refused, and told why".to_owned())
        }),
        Case::new("--fault wc=5:RETRY_EXC_ERR", |stage, device| {
            let mut pair = pingpong(stage, device, &["--fault", "wc=5:RETRY_EXC_ERR", "--seed", "1"])?;
            for side in [&mut pair.client, &mut pair.server] {
                side.wait()?;
            }
            let said = pair.client.output() + &pair.server.output();
            let line = said.lines().find(|line| line.starts_with("Failed status"));
            Ok(line.with_context(|| format!("no completion failed: {said:?}"))?.to_owned())
        }),
    ]
}

/// The files that processes have left in our own folder under a name that begins so.
fn files(stage: &Stage, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&stage.scratch)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// The packets in a pcapng file: blocks of type 6, each with its length in front and behind.
fn count_packets(file: &[u8]) -> Result<usize> {
    let (mut rest, mut count) = (file, 0);
    while let Some((kind, body)) = rest.split_first_chunk::<4>() {
        let len = body.first_chunk::<4>().context("a block without a length")?;
        count += usize::from(u32::from_le_bytes(*kind) == 6);
        rest = rest.get(u32::from_le_bytes(*len) as usize..).context("a block that is cut off")?;
    }
    Ok(count)
}

fn pingpong(stage: &Stage, device: Device, more: &[&str]) -> Result<pair::Pair> {
    let mut options = device.options(None);
    options.extend(words(more.iter().copied()));
    let gid = if device.has_gids_only { "1" } else { "0" };
    pair::start(stage, &options, |port, host| {
        let port = port.to_string();
        let all = ["ibv_rc_pingpong", "-d", device.name, "-g", gid, "-n", "10", "-p", &port];
        words(all.into_iter().chain(host))
    })
}
