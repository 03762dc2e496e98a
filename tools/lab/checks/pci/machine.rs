//! What the machine gives a program of the guest, before a line of ours takes it: a window that others share, interrupts as events, and an IOMMU
//! that keeps a device from what it was not given. What fails here fails our programs too, and for no fault of theirs.

use crate::guest::Running;
use crate::pci::{BYTES, Bench, EDU, LIMIT, Station, VECTORS, WINDOW};
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::FileExt;
use std::time::Instant;
use tbrdma_kit::Report;

/// How many times a device rings itself: on each vector some times.
const RINGS: u32 = 100;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let Bench { first, second, .. } = bench;
    for (name, station) in [("first", first), ("second", second)] {
        report.check(&format!("the {name} guest has a window behind an IOMMU"), || groups(station));
    }
    report.check("sysfs gives the window's memory to a program", || {
        // What has no driver has not been switched on.
        first.run(&format!("sh -c 'echo 1 >/sys/bus/pci/devices/{WINDOW}/enable'"))?;
        let seen = share(bench, first, "resource", 0x1122_3344_5566_7788)?;
        first.run(&format!("sh -c 'echo 0 >/sys/bus/pci/devices/{WINDOW}/enable'"))?;
        Ok(seen)
    });
    for bdf in [WINDOW, EDU] {
        report.always(&format!("vfio-pci takes {bdf}"), || {
            first.bind(bdf, "vfio-pci")?;
            Ok("its driver now".into())
        });
    }
    report.check("vfio-pci has the window's memory, interrupts and word of removal", || probe(first));
    report.check("vfio-pci gives the window's memory to a program", || {
        share(bench, first, "window", 0x8877_6655_4433_2211)
    });
    report.check("doorbells come as events, on each vector", || {
        first.run(&format!("vfio bell {WINDOW} {RINGS}"))
    });
    confined(first, report);
    report.check("the kernel asks for a window back that it is to forget", || {
        let holding = hold(first)?;
        let forgetting = first.forget(WINDOW)?;
        let said = let_go(first, &holding)?;
        first.guest.wait(&forgetting)?.ok()?;
        ensure!(!first.has(WINDOW)?, "{WINDOW} is still there");
        Ok(said)
    });
    report.always("the window is found again", || {
        first.find_again()?;
        Ok("vfio-pci has it".into())
    });
}

/// Has a program hold the window until it is asked for it.
fn hold(station: &Station) -> Result<Running> {
    let holding = station.guest.spawn(&format!("sh -c 'vfio hold {WINDOW} >/tmp/hold'"), LIMIT)?;
    let until = Instant::now() + LIMIT;
    while station.guest.run("grep -q held /tmp/hold", LIMIT)?.status != 0 {
        ensure!(Instant::now() < until, "the program does not get the device");
    }
    Ok(holding)
}

/// Waits until it has let go.
fn let_go(station: &Station, holding: &Running) -> Result<String> {
    let outcome = station.guest.wait(holding)?;
    let said = station.run("cat /tmp/hold")?.replace('\n', ", ");
    ensure!(outcome.status == 0, "{said}");
    Ok(said)
}

/// An IOMMU is on, and nothing that could reach into the window's transfers shares its group.
fn groups(station: &Station) -> Result<String> {
    let group = |bdf| station.run(&format!("ls /sys/bus/pci/devices/{bdf}/iommu_group/devices"));
    let (window, edu) = (group(WINDOW)?, group(EDU)?);
    ensure!(window == WINDOW && edu == EDU, "the groups are {window:?} and {edu:?}");
    station.run("grep -o DMAR-IR.* /proc/interrupts").or_else(|_| Ok("a group each".into()))
}

/// What vfio-pci says of the window.
fn probe(station: &Station) -> Result<String> {
    let said = station.run(&format!("vfio probe {WINDOW}"))?;
    for line in [
        "region 0 256 bytes mapped".to_owned(),
        format!("region 2 {BYTES} bytes mapped"),
        format!("MSI-X {VECTORS} eventfd"),
        "REQ 1 eventfd".to_owned(),
    ] {
        ensure!(said.lines().any(|there| there == line), "no {line:?} in {said:?}");
    }
    Ok(said.lines().collect::<Vec<_>>().join(", "))
}

/// A word of ours is read by the guest, which writes its complement beside it.
fn share(bench: &Bench, station: &Station, how: &str, word: u64) -> Result<String> {
    let memory = bench.server.memory();
    memory.write_all_at(&word.to_le_bytes(), 0)?;
    let said = station.run(&format!("vfio {how} {WINDOW}"))?;
    ensure!(said == format!("read {word:016x}"), "{said:?}, and it is {word:016x}");
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, 8)?;
    let answer = u64::from_le_bytes(bytes);
    ensure!(answer == !word, "the guest's word arrives as {answer:016x}");
    memory.write_all_at(&[0; 16], 0)?;
    Ok(format!("{word:016x} there, {answer:016x} here"))
}

/// qemu's edu device copies into memory that it was given, that was taken from it, and that it was given again.
fn confined(station: &Station, report: &mut Report) {
    let mut said = String::new();
    report.check("a device reaches memory that it was given", || {
        said = station.run(&format!("vfio edu {EDU}"))?;
        copied(&said, "mapped")
    });
    report.check("a device does not reach memory that was taken from it", || {
        let (copied, untouched, of) = counts(&said, "unmapped")?;
        ensure!(copied == 0 && untouched == of, "{said:?}");
        // The kernel says what the IOMMU has stopped, and in the log so that nobody need guess.
        let fault = station.run("sh -c 'dmesg | grep \"DMAR.*fault addr 0x200000\" | tail -n 1'")?;
        ensure!(fault.contains("DMA Write"), "the kernel's log has no fault: {fault:?}");
        Ok(format!("{untouched} of {of} bytes as they were; {fault}"))
    });
    report.check("a device reaches memory that it was given again", || copied(&said, "mapped again"));
}

fn copied(said: &str, when: &str) -> Result<String> {
    let (copied, _, of) = counts(said, when)?;
    ensure!(copied == of, "{copied} of {of} bytes were copied");
    Ok(format!("{copied} bytes"))
}

/// How many bytes were copied, how many are as they were, and of how many.
fn counts(said: &str, when: &str) -> Result<(u32, u32, u32)> {
    let line = said.lines().find_map(|line| line.strip_prefix(when)?.strip_prefix(": "));
    let line = line.with_context(|| format!("nothing is said of {when:?}: {said:?}"))?;
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    let mut next = || numbers.next().with_context(|| format!("{line:?} lacks a number"));
    Ok((next()?, next()?, next()?))
}
