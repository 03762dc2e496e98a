//! What `tbrdma-run` adds to a program: a trace, a report at the end, faults in verbs.

use super::{Case, Device, words};
use crate::pair;
use crate::stage::Stage;
use anyhow::{Context, Result, ensure};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("--trace", |stage, device| {
            let file = stage.scratch.join("trace-%p");
            let (client, _) =
                pingpong(stage, device, &["--trace", &file.display().to_string()])?.succeed()?;
            ensure!(client.contains("10 iters"), "the program did not do its work: {client:?}");
            let mut lines = 0;
            for entry in std::fs::read_dir(&stage.scratch)? {
                let path = entry?.path();
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("trace-")) {
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
            }
            Ok(format!("{lines} lines of two processes"))
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
