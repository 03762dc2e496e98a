//! Two network namespaces with a cable between them, as two hosts: GIDs, MTUs, and both families over a real interface.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "common/patient.rs"]
mod patient;
#[path = "common/process.rs"]
mod process;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, gettid};
use patient::patient;
use process::{Child, hear, say, skip};
use std::process::Command;
use std::time::{Duration, Instant};
use tbrdma::{Access, Mtu, QpAddress, QpInit, WcOpcode, WcStatus, WorkCompletion, limits};

const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGE: usize = 100_000;

#[test]
fn child() {
    if process::role().is_some() {
        host();
    }
}

/// A host of its own: does what it is told, line by line.
fn host() {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return say(format!("no namespace: {error}"));
    }
    // It is this thread's namespace, and that of what it starts.
    say(format!("ready {}", gettid()));
    loop {
        let line = hear();
        let words: Vec<_> = line.split_whitespace().collect();
        match &words[..] {
            ["run", program, rest @ ..] => {
                let output = Command::new(program).args(rest).output();
                say(match output {
                    Ok(output) if output.status.success() => "done".to_owned(),
                    Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
                    Err(error) => error.to_string(),
                });
            }
            ["await", "link"] => say(await_link()),
            ["describe", device] => {
                let ctx = tbrdma::open(device).unwrap();
                let gids = (0..3).map(|index| ctx.query_gid(1, index).unwrap().to_string());
                say(format!(
                    "{} {}",
                    ctx.query_port(1).unwrap().active_mtu,
                    gids.collect::<Vec<_>>().join(" ")
                ));
            }
            ["devices"] => {
                let names: Vec<_> = tbrdma::devices().into_iter().map(|device| device.name).collect();
                say(names.join(" "));
            }
            ["talk", device, index, role] => talk(device, index.parse().unwrap(), *role == "first"),
            _ => panic!("{line}"),
        }
    }
}

/// Waits until the kernel has noticed that both ends of the cable are up.
fn await_link() -> &'static str {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let output =
            Command::new("ip").args(["-6", "route", "show", "table", "local", "dev", "tb0"]).output();
        let routes = output
            .map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
        // Neighbours are asked for by multicast.
        if routes.contains("fe80::") && routes.contains("ff00::/8") && !routes.contains("linkdown") {
            return "up";
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    "the link does not come up"
}

/// Exchanges messages with the other host from the GID with that index, and WRITEs one.
fn talk(device: &str, index: u8, first: bool) {
    let ctx = tbrdma::open(device).unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(64).unwrap();
    let mr = pd.alloc(1 << 18, Access::LOCAL_WRITE | Access::REMOTE_WRITE).unwrap();
    let mut qp = pd.create_qp(QpInit::rc(&cq)).unwrap();
    let gid = ctx.query_gid(limits::PORT, index.into()).unwrap();
    say(QpAddress { gid, ..qp.address() });
    let peer: QpAddress = hear().parse().unwrap();
    let mut with = patient();
    with.path_mtu = ctx.query_port(1).unwrap().active_mtu;
    with.sgid_index = Some(index);
    qp.connect_with(&peer, &with).unwrap();
    let pattern: Vec<u8> = (0..MESSAGE).map(|at| (at * 7 + at / 251) as u8).collect();
    mr.write(0, &pattern);
    let landing = mr.slice(1 << 17..(1 << 17) + MESSAGE);
    qp.post_recv(|rq| drop(rq.recv(landing))).unwrap();
    say("connected");
    assert_eq!(hear(), "go");
    let (mut sent, mut received) = (0, 0);
    // A message may arrive before its answer has been acknowledged.
    let mut wait = |sends: usize, receives: usize| {
        let begun = Instant::now();
        let mut wcs = [WorkCompletion::default(); 4];
        while sent < sends || received < receives {
            assert!(begun.elapsed() < PATIENCE, "no completion within {PATIENCE:?}");
            for wc in cq.poll(&mut wcs) {
                assert_eq!(wc.status, WcStatus::Success, "{wc:?}");
                match wc.opcode {
                    WcOpcode::Recv => received += 1,
                    _ => sent += 1,
                }
            }
        }
    };
    for turn in 0..20 {
        if first == (turn % 2 == 0) {
            let message = mr.slice(0..MESSAGE);
            qp.post(|wr| drop(wr.send(message))).unwrap();
        } else {
            wait(0, turn / 2 + 1);
            let mut got = vec![0; MESSAGE];
            mr.read(1 << 17, &mut got);
            assert!(got == pattern, "message {turn} is damaged");
            mr.write(1 << 17, &vec![0; MESSAGE]);
            qp.post_recv(|rq| drop(rq.recv(landing))).unwrap();
        }
    }
    wait(10, 10);
    // The last word of this side must not be lost on a peer that has gone: it stays until it is told to end.
    let counters = ctx.counters();
    let count = |name| counters.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count);
    say(format!("talked, {} sent again", count("retransmitted_pkts")));
    assert_eq!(hear(), "end");
    say("ended");
}

/// Two hosts with a cable between them, and a MTU.
struct Hosts([Child; 2]);

impl Hosts {
    fn new(mtu: u32) -> Option<Self> {
        if !Uid::effective().is_root() {
            skip("only root can make network namespaces");
            return None;
        }
        let mut hosts = Self(["near", "far"].map(Child::start));
        let mut far = String::new();
        for host in &hosts.0 {
            let answer = host.hear();
            let Some(thread) = answer.strip_prefix("ready ") else {
                skip(answer);
                return None;
            };
            thread.clone_into(&mut far);
        }
        let cable = format!("run ip link add tb0 mtu {mtu} type veth peer name tb0 mtu {mtu} netns {far}");
        let answer = hosts.0[0].ask(cable);
        if answer != "done" {
            skip(format!("no virtual cable: {answer}"));
            return None;
        }
        for (index, host) in hosts.0.iter_mut().enumerate() {
            let number = index + 1;
            for command in [
                "ip link set lo up".to_owned(),
                format!("ip addr add 192.0.2.{number}/24 dev tb0"),
                format!("ip addr add 2001:db8::{number}/64 dev tb0 nodad"),
                "ip link set tb0 addrgenmode none".to_owned(),
                format!("ip addr add fe80::{number}/64 dev tb0 nodad"),
                "ip link set tb0 up".to_owned(),
            ] {
                let answer = host.ask(format!("run {command}"));
                assert_eq!(answer, "done", "{command}");
            }
        }
        for host in &mut hosts.0 {
            assert_eq!(host.ask("await link"), "up");
        }
        Some(hosts)
    }

    /// Both talk to each other from the GID with this index.
    fn talk(&mut self, index: u8) {
        let [near, far] = &mut self.0;
        near.say(format!("talk udp:tb0 {index} first"));
        far.say(format!("talk udp:tb0 {index} second"));
        let (to_near, to_far) = (near.hear(), far.hear());
        assert_eq!(near.ask(to_far), "connected");
        assert_eq!(far.ask(to_near), "connected");
        far.say("go");
        near.say("go");
        for host in [&*near, &*far] {
            let answer = host.hear();
            assert!(answer.starts_with("talked"), "{answer}");
            println!("index {index}: {answer}");
        }
        for host in [near, far] {
            assert_eq!(host.ask("end"), "ended");
        }
    }
}

#[test]
fn two_hosts_talk_over_every_gid() {
    for (mtu, active) in [(1500, Mtu::B1024), (9000, Mtu::B4096)] {
        let Some(mut hosts) = Hosts::new(mtu) else { return };
        for (index, host) in hosts.0.iter_mut().enumerate() {
            let number = index + 1;
            assert_eq!(host.ask("devices"), "shm udp:lo udp:tb0 sim");
            let expected = format!("{active} fe80::{number} ::ffff:192.0.2.{number} 2001:db8::{number}");
            assert_eq!(host.ask("describe udp:tb0"), expected);
        }
        for index in 0..3 {
            hosts.talk(index);
        }
    }
}

#[test]
fn packets_that_the_network_has_taken_apart_are_understood() {
    let Some(mut hosts) = Hosts::new(9000) else { return };
    // Trains are split before the cable, so that packets come singly and without their place in the train.
    for host in &mut hosts.0 {
        let answer = host.ask("run ethtool -K tb0 tx-udp-segmentation off gso off gro off");
        if answer != "done" {
            return skip(format!("ethtool: {answer}"));
        }
    }
    hosts.talk(1);
    hosts.talk(0);
}
