//! What the environment says of devices: a list in place of the host's, and what they pretend to be.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "common/process.rs"]
mod process;
use process::{Child, hear, role, say};

/// A program that lists the devices, and opens those it is told to.
#[test]
fn child() {
    if role().is_none() {
        return;
    }
    let names: Vec<_> = tbrdma::devices().into_iter().map(|device| device.name).collect();
    say(names.join(" "));
    loop {
        match tbrdma::open(&hear()) {
            Ok(ctx) => say(format!("{} {}", ctx.name(), ctx.profile())),
            Err(error) => say(format!("errno {}: {error}", error.errno())),
        }
    }
}

fn program(devices: &str, profile: &str) -> (Child, String) {
    let child = Child::start_with("program", &[("TBRDMA_DEVICES", devices), ("TBRDMA_PROFILE", profile)]);
    let listed = child.hear();
    (child, listed)
}

#[test]
fn a_list_stands_for_the_devices_of_the_host() {
    let (mut child, listed) = program("mesh:1/3:environment=shm,udp:lo", "apple-tb5,qps=3");
    assert_eq!(listed, "rdma_en2 rdma_en3 rdma_en4");
    assert_eq!(child.ask("rdma_en3"), "rdma_en3 apple-tb5,qps=3");
    assert_eq!(child.ask("rdma_en4"), "rdma_en4 apple-tb5,qps=3");
    assert!(child.ask("rdma_en5").contains("rdma_en2, rdma_en3, rdma_en4"));
}

#[test]
fn without_one_there_are_those_of_the_host() {
    let (mut child, listed) = program("", "");
    assert!(listed.split(' ').any(|name| name == "shm"), "{listed}");
    assert_eq!(child.ask("shm"), "shm plain");
}

#[test]
fn what_makes_no_sense_is_said_when_a_device_is_opened() {
    let (mut child, listed) = program("shm,shm", "");
    assert_eq!(listed, "");
    let error = child.ask("shm");
    assert!(error.contains("taken") && error.contains(&format!("errno {}", nix::libc::EINVAL)), "{error}");
    let (mut child, _) = program("shm", "mlx5");
    assert!(child.ask("shm").contains("connectx"));
}
