//! rdma-core's own tests, which Debian ships with its Python binding: whatever they ask of a device is asked of ours. They run one at a time, each in a
//! process of its own, so that one that hangs or crashes is one test.
//!
//! Those of what we do not offer are in `pyverbs_skips.txt`, each with its reason. A test that skips itself and is not in the list counts as failed: the
//! list says all.

use crate::cases::{DEVICES, Device};
use crate::census::Census;
use crate::stage::Stage;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tbrdma_kit::{Report, Skip};

/// `TEST REASON` a line; `[DEVICE]` begins what is for this device only.
const SKIPS: &str = include_str!("pyverbs_skips.txt");

/// Files of tests for other vendors' extensions.
const OTHERS: [&str; 3] = ["test_mlx5", "test_efa", "test_cuda"];

pub(crate) fn run(report: &mut Report, stage: &Stage) -> Result<()> {
    let tests = unpack(stage)?;
    for device in DEVICES {
        report.set_prefix(&format!("{}: ", device.name));
        let all = list(stage, device, &tests)?;
        let skips = skips(device)?;
        for test in skips.keys().filter(|test| !all.iter().any(|name| name == *test)) {
            report.always(test, || bail!("it is in the list of skips, and there is no such test"));
        }
        for test in &all {
            report.check(test, || match skips.get(test.as_str()) {
                Some(reason) => Err(Skip::new((*reason).to_owned()).into()),
                None => one(stage, device, &tests, test),
            });
        }
    }
    Ok(())
}

/// The generic tests, where Python finds them.
fn unpack(stage: &Stage) -> Result<PathBuf> {
    let folder = stage.scratch.join("tests");
    fs::create_dir_all(&folder)?;
    let packed = stage.file("usr/share/doc/rdma-core/tests");
    for entry in fs::read_dir(&packed).with_context(|| format!("no tests in {}", packed.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if OTHERS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let text = if name.ends_with(".gz") { stage.unzip(&path)? } else { fs::read(&path)? };
        fs::write(folder.join(name.trim_end_matches(".gz")), text)?;
    }
    Ok(folder)
}

fn words(tests: &Path, more: &[&str]) -> Vec<String> {
    let script = tests.join("run_tests.py").display().to_string();
    ["python3.11", script.as_str()].iter().chain(more).map(ToString::to_string).collect()
}

fn list(stage: &Stage, device: Device, tests: &Path) -> Result<Vec<String>> {
    let said = stage.start(&device.options(None), &words(tests, &["--list-tests"]))?.succeed()?;
    let mut all: Vec<_> =
        said.lines().filter(|line| line.starts_with("tests.")).map(ToOwned::to_owned).collect();
    all.sort();
    all.dedup();
    ensure!(!all.is_empty(), "there are no tests: {said:?}");
    Ok(all)
}

fn skips(device: Device) -> Result<BTreeMap<&'static str, &'static str>> {
    let mut skips = BTreeMap::new();
    let mut section = None;
    for line in SKIPS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = Some(name);
            continue;
        }
        let (test, reason) =
            line.split_once(' ').with_context(|| format!("no reason in the list of skips: {line}"))?;
        if section.is_none_or(|section| section == device.name) {
            ensure!(skips.insert(test, reason.trim()).is_none(), "{test} is in the list of skips twice");
        }
    }
    Ok(skips)
}

fn one(stage: &Stage, device: Device, tests: &Path, test: &str) -> Result<String> {
    let before = Census::take(stage)?;
    let arguments = ["--dev", device.name, "-v", test];
    let said = stage.start(&device.options(None), &words(tests, &arguments))?.succeed()?;
    before.check_again(stage)?;
    // The last line is `OK`, or `OK (skipped=1)`; the reason stands further up.
    match said.lines().rev().find(|line| !line.trim().is_empty()) {
        Some("OK") => Ok("ok".to_owned()),
        Some(line) if line.starts_with("OK (skipped") => {
            let reason =
                said.split("skipped ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default();
            bail!("it skips itself and is not in the list of skips: {reason}")
        }
        _ => bail!("it said no verdict: {said:?}"),
    }
}
