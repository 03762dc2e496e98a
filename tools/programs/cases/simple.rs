//! Programs that only look: ibv_devices, ibv_devinfo, ibv_asyncwatch.

use super::{Case, Device, words};
use crate::stage::Stage;
use anyhow::{Result, ensure};

pub(crate) fn cases(device: Device) -> Vec<Case> {
    let mut cases = vec![
        Case::new("ibv_devices", |stage, device| {
            let said = stage.start(&device.options(None), &words(["ibv_devices"]))?.succeed()?;
            let line = said.lines().find(|line| line.split_whitespace().next() == Some(device.name));
            ensure!(line.is_some(), "no device {} in {said:?}", device.name);
            Ok(line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "))
        }),
        Case::new("ibv_devinfo", |stage, device| {
            let said = stage.start(&device.options(None), &words(["ibv_devinfo"]))?.succeed()?;
            see(&said, &[&format!("hca_id:\t{}", device.name), "PORT_ACTIVE"])
        }),
        Case::new("ibv_devinfo -v", |stage, device| {
            let said = stage.start(&device.options(None), &words(["ibv_devinfo", "-v"]))?.succeed()?;
            see(&said, &["PORT_ACTIVE", "max_qp_wr:", "device_cap_flags:", "GID[  0]:"])
        }),
        Case::new("ibv_devinfo -l", |stage, device| {
            let said = stage.start(&device.options(None), &words(["ibv_devinfo", "-l"]))?.succeed()?;
            see(&said, &["1 HCA found", device.name])
        }),
        Case::new("ibv_asyncwatch", |stage, device| {
            // It waits for events, for ever.
            let command = words(["ibv_asyncwatch", "-d", device.name]);
            let mut process = stage.start(&device.options(None), &command)?;
            process
                .until("it watched", |process| Ok(process.output().contains("async event").then_some(())))?;
            process.kill()?;
            Ok("it watches".to_owned())
        }),
    ];
    // Shared memory has no interface.
    if device.has_gids_only {
        cases.push(Case::new("ibv_asyncwatch of a port that goes down and up", watch_port));
    }
    cases
}

fn watch_port(stage: &Stage, device: Device) -> Result<String> {
    let command = words(["ibv_asyncwatch", "-d", device.name]);
    let mut process = stage.start(&device.options(None), &command)?;
    let mut says =
        |what: &str| process.until(what, |process| Ok(process.output().contains(what).then_some(())));
    says("async event")?;
    stage.set_loopback("down")?;
    let heard = says("PORT_ERR");
    stage.set_loopback("up")?;
    heard?;
    says("PORT_ACTIVE")?;
    process.kill()?;
    Ok("it was told".to_owned())
}

fn see(said: &str, wanted: &[&str]) -> Result<String> {
    for wanted in wanted {
        ensure!(said.contains(wanted), "no {wanted:?} in {said:?}");
    }
    Ok(format!("{} lines", said.lines().count()))
}
