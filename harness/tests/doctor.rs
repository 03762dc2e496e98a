//! `tbrdma-bench doctor` on recorded hosts, each in a file of `tests/doctor`: what it says of a situation, and what it tells users to do.
//!
//! A recorded host is a text: after `--- PATH` the file's content, `include` takes over another host, `--- remove PATH` takes away of it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;
#[path = "doctor/streams.rs"]
mod streams;

use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{failure, program, run, scratch, stderr, stdout};
use serde_json::Value;

/// A recorded host as a folder, which goes away with it.
struct Tree(PathBuf);

impl Tree {
    fn of(situation: &str) -> Self {
        let tree = Self(scratch(situation));
        std::fs::create_dir(&tree.0).unwrap();
        tree.unfold(situation);
        tree
    }

    fn unfold(&self, situation: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/doctor/{situation}.txt"));
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut parts = text.split("\n--- ");
        for line in parts.next().unwrap().lines() {
            if let Some(other) = line.strip_prefix("include ") {
                self.unfold(other.strip_suffix(".txt").unwrap());
            }
        }
        for part in parts {
            let (head, content) = part.split_once('\n').unwrap_or((part, ""));
            let head = head.trim_end();
            if let Some(path) = head.strip_prefix("remove ") {
                let path = self.0.join(path.trim_start_matches('/'));
                let removed =
                    if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                removed.unwrap_or_else(|error| panic!("{situation} removes {}: {error}", path.display()));
                continue;
            }
            let path = self.0.join(head.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content.to_owned() + "\n").unwrap();
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// What the doctor says, and its exit code.
struct Said {
    all: Value,
    code: i32,
}

impl Said {
    fn of(arguments: &[&str]) -> Self {
        let output = run(&[&["doctor", "--json"], arguments].concat());
        assert_eq!(stderr(&output), "");
        let text = stdout(&output);
        let all: Value = serde_json::from_str(&text).expect("the findings are JSON");
        let schema: Value = serde_json::from_str(include_str!("../schema/tbrdma-doctor-1.json")).unwrap();
        let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
        let errors: Vec<String> =
            validator.iter_errors(&all).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?} in {text}");
        let said = Self { all, code: output.status.code().unwrap() };
        let problems = said.with_severity("problem").len();
        assert_eq!(said.all["problems"], problems);
        assert_eq!(said.all["notes"], said.with_severity("note").len());
        assert_eq!(said.code, i32::from(problems > 0), "the exit code says whether something hinders");
        said
    }

    fn findings(&self) -> &[Value] {
        self.all["findings"].as_array().unwrap()
    }

    fn with_severity(&self, severity: &str) -> Vec<&Value> {
        self.findings().iter().filter(|finding| finding["severity"] == severity).collect()
    }

    fn problems(&self) -> Vec<&str> {
        self.with_severity("problem").iter().map(|finding| finding["id"].as_str().unwrap()).collect()
    }

    /// The one finding of a kind; with a severity, title, evidence and remedy that hold these words.
    #[track_caller]
    fn finds(&self, id: &str, severity: &str, title: &str, evidence: &str, remedy: &str) {
        let found: Vec<&Value> = self
            .findings()
            .iter()
            .filter(|finding| finding["id"] == id && finding["severity"] == severity)
            .collect();
        let [finding] = found.as_slice() else {
            panic!("{} {severity} of {id} in {:#}", found.len(), self.all)
        };
        assert!(finding["title"].as_str().unwrap().contains(title), "{title} in {finding:#}");
        let seen: Vec<String> = finding["evidence"]
            .as_array()
            .unwrap()
            .iter()
            .map(|seen| format!("{}: {}", seen["source"].as_str().unwrap(), seen["said"].as_str().unwrap()))
            .collect();
        assert!(seen.join("\n").contains(evidence), "{evidence} in {seen:#?}");
        if !remedy.is_empty() {
            assert!(
                finding["remedy"].as_str().unwrap_or_default().contains(remedy),
                "{remedy} in {finding:#}"
            );
        }
    }
}

fn diagnosed(situation: &str) -> Said {
    let tree = Tree::of(situation);
    Said::of(&["--root", tree.0.to_str().unwrap()])
}

#[test]
fn a_host_with_a_working_adapter_has_no_problem() {
    let said = diagnosed("connectx");
    assert_eq!(said.problems(), [""; 0]);
    assert_eq!(said.all["usable"], serde_json::json!(["shm", "udp:lo", "udp:eth0"]));
    said.finds(
        "rdma.device",
        "ok",
        "mlx5_0: CA, driver mlx5_core, firmware 16.35.4030, 1 port",
        "mlx5_0",
        "",
    );
    said.finds("rdma.port", "ok", "active: Ethernet on enp1s0np0, 100 Gb/sec (4X EDR)", "4: ACTIVE", "");
    said.finds("rdma.gid", "ok", "use GID index 3 (192.168.7.20), RoCE v2", "2: 0000:", "");
    said.finds("limits.memlock", "ok", "not limited", "unlimited soft", "");
}

#[test]
fn no_library() {
    let said = diagnosed("no-library");
    assert_eq!(said.problems(), ["rdma.library"]);
    said.finds(
        "rdma.library",
        "problem",
        "libibverbs.so.1 is not installed",
        "/usr/lib64",
        "apt install libibverbs1",
    );
}

#[test]
fn a_library_that_the_environment_names_and_nobody_finds() {
    let said = diagnosed("library-elsewhere");
    assert_eq!(said.problems(), ["rdma.library"]);
    let evidence = "TBRDMA_VERBS_LIBRARY=/opt/rdma/lib/libibverbs.so.1: no such file";
    said.finds("rdma.library", "problem", "TBRDMA_VERBS_LIBRARY", evidence, "unset");
}

#[test]
fn a_library_without_a_provider() {
    let said = diagnosed("no-provider");
    assert_eq!(said.problems(), ["rdma.provider"]);
    said.finds(
        "rdma.provider",
        "problem",
        "no provider for mlx5_0",
        "libmlx5-rdmav*.so",
        "ibverbs-providers",
    );
}

#[test]
fn a_library_without_a_device() {
    let said = diagnosed("linux");
    assert_eq!(said.problems(), [""; 0], "a host without an adapter is not ill");
    let remedy = "sudo modprobe rdma_rxe && sudo rdma link add rxe0 type rxe netdev eth0";
    said.finds(
        "rdma.devices",
        "note",
        "library is installed, but this host has no RDMA",
        "is not there",
        remedy,
    );
}

#[test]
fn a_port_that_is_down() {
    let said = diagnosed("port-down");
    assert_eq!(said.problems(), ["rdma.port"]);
    let remedy = "sudo ip link set dev enp1s0np0 up";
    said.finds("rdma.port", "problem", "mlx5_0 port 1 is DOWN", "ports/1/phys_state: 3: Disabled", remedy);
}

#[test]
fn an_infiniband_port_without_a_subnet_manager() {
    let said = diagnosed("no-subnet-manager");
    assert_eq!(said.problems(), ["rdma.port"]);
    said.finds("rdma.port", "problem", "is INIT: InfiniBand", "2: INIT", "opensm");
}

#[test]
fn no_gid_1() {
    let said = diagnosed("no-gid-1");
    assert_eq!(said.problems(), ["rdma.gid"]);
    let remedy = "sudo ip address add 192.168.7.1/24 dev eth0";
    said.finds("rdma.gid", "problem", "rxe0 port 1 has no GID 1", "0: fe80:", remedy);
    said.finds("rdma.device", "ok", "driver rdma_rxe", "rxe0", "");
}

#[test]
fn locked_memory_is_too_little() {
    let said = diagnosed("memlock");
    assert_eq!(said.problems(), ["limits.memlock"]);
    let evidence = "Max locked memory: 8 MiB soft, 8 MiB hard";
    said.finds("limits.memlock", "problem", "only 8 MiB", evidence, "/etc/security/limits.d");
    let finding = said.with_severity("problem")[0];
    assert!(finding["why"].as_str().unwrap().contains("ibv_reg_mr"), "{finding:#}");
}

#[test]
fn a_driver_that_is_missing_or_not_loaded() {
    let said = diagnosed("module-missing");
    assert_eq!(said.problems(), ["rdma.adapter"]);
    let evidence = "/lib/modules/6.8.0-45-generic/modules.dep: does not list mlx5_ib";
    said.finds("rdma.adapter", "problem", "0000:01:00.0", evidence, "linux-modules-extra-6.8.0-45-generic");
    said.finds("rdma.devices", "note", "no RDMA adapter", "does not list rdma_rxe", "udp:eth0");
    let said = diagnosed("module-not-loaded");
    assert_eq!(said.problems(), ["rdma.adapter"]);
    said.finds(
        "rdma.adapter",
        "problem",
        "mlx5_ib is not loaded",
        "is a 0x15b3:0x101e",
        "sudo modprobe mlx5_ib",
    );
}

#[test]
fn device_files_that_may_not_be_opened() {
    let said = diagnosed("device-files-closed");
    assert_eq!(said.problems(), ["rdma.uverbs"]);
    said.finds(
        "rdma.uverbs",
        "problem",
        "may not be opened",
        "/dev/infiniband/uverbs0: crw-------, owner 0",
        "chmod 666",
    );
}

#[test]
fn a_device_that_never_opens() {
    let said = diagnosed("device-stuck");
    assert_eq!(said.problems(), ["device.other"]);
    said.finds(
        "device.other",
        "problem",
        "opening mlx5_0 does not end",
        "open mlx5_0: no answer",
        "booting again",
    );
    assert_eq!(said.all["usable"], serde_json::json!(["shm"]));
}

#[test]
fn a_container_without_ptrace() {
    let said = diagnosed("container");
    assert_eq!(said.problems(), ["rdma.uverbs", "limits.memlock"]);
    let remedy =
        "--cap-add SYS_PTRACE (Kubernetes: capabilities.add), and sudo sysctl kernel.yama.ptrace_scope=0";
    said.finds(
        "device.shm-memory",
        "note",
        "service thread",
        "process_vm_readv of another process: EPERM",
        remedy,
    );
    said.finds(
        "device.io_uring",
        "note",
        "calls are filtered",
        "Operation not permitted",
        "--security-opt seccomp=",
    );
    said.finds("rdma.uverbs", "problem", "no device files", "not there", "--device /dev/infiniband");
    said.finds("limits.memlock", "problem", "only 64 KiB", "soft", "--ulimit memlock=-1");
    said.finds("limits.container", "note", "a container", "not the host's pid:[4026531836]", "");
    said.finds("limits.memory", "note", "128 MiB", "/sys/fs/cgroup/memory.max: 134217728", "--memory");
    said.finds("limits.pids", "note", "32 processes", "pids.max", "--pids-limit");
}

#[test]
fn processes_that_may_not_trace_each_other() {
    let said = diagnosed("yama");
    assert_eq!(said.problems(), [""; 0]);
    let remedy = "sudo sysctl kernel.yama.ptrace_scope=0";
    said.finds(
        "device.shm-memory",
        "note",
        "service thread",
        "/proc/sys/kernel/yama/ptrace_scope: 1",
        remedy,
    );
}

#[test]
fn io_uring_is_forbidden() {
    let said = diagnosed("io-uring-forbidden");
    assert_eq!(said.problems(), [""; 0], "udp works without it");
    let remedy = "sudo sysctl kernel.io_uring_disabled=0";
    said.finds(
        "device.io_uring",
        "note",
        "forbidden to everybody",
        "/proc/sys/kernel/io_uring_disabled: 2",
        remedy,
    );
}

#[test]
fn a_thunderbolt_cable_that_works() {
    let said = diagnosed("thunderbolt");
    assert_eq!(said.problems(), [""; 0]);
    said.finds("thunderbolt.peer", "ok", "0-1: strix-2 (Linux), 20.0 Gb/s x 2", "device_name: strix-2", "");
    said.finds("thunderbolt.domain", "ok", "security level user", "iommu_dma_protection: 1", "");
    said.finds("thunderbolt.network", "ok", "--device udp:thunderbolt0", "169.254.10.1", "");
    said.finds("thunderbolt.stream", "note", "older than 7.2", "osrelease: 6.8.0-45-generic", "7.2");
}

#[test]
fn a_thunderbolt_peer_without_an_ip_address() {
    let said = diagnosed("thunderbolt-no-ip");
    assert_eq!(said.problems(), ["thunderbolt.network"]);
    let remedy = "sudo ip address add 10.7.7.1/30 dev thunderbolt0";
    said.finds(
        "thunderbolt.network",
        "problem",
        "thunderbolt0",
        "addresses of thunderbolt0: no address",
        remedy,
    );
}

#[test]
fn a_thunderbolt_peer_whose_network_nobody_takes() {
    let said = diagnosed("thunderbolt-no-driver");
    assert_eq!(said.problems(), ["thunderbolt.service"]);
    let evidence = "modules.dep: lists thunderbolt_net";
    said.finds(
        "thunderbolt.service",
        "problem",
        "strix-2 (Linux)",
        evidence,
        "sudo modprobe thunderbolt-net",
    );
}

#[test]
fn a_mac_that_works() {
    let said = diagnosed("mac");
    assert_eq!(said.problems(), [""; 0]);
    said.finds("macos.rdma_ctl", "ok", "enabled", "rdma_ctl status: enabled", "");
    said.finds("macos.port", "ok", "rdma_en2 is active", "PORT_ACTIVE (4)", "");
    said.finds("macos.port", "note", "rdma_en3 is down: nothing is plugged in", "PORT_DOWN", "");
    said.finds("macos.gid", "ok", "rdma_en2 has GID 1: 169.254.10.1", "GID[1] ::ffff:169.254.10.1", "");
    said.finds("macos.neighbour", "ok", "en2", "169.254.10.2, fe80::346a:fff:fef5:b080", "");
    said.finds("macos.bridge", "ok", "no Thunderbolt Bridge", "no bridge0", "");
    said.finds("macos.limits", "ok", "few of everything", "max_qp 11, max_mr 100", "");
}

#[test]
fn a_mac_whose_bridge_is_up() {
    let said = diagnosed("mac-bridge");
    assert_eq!(said.problems(), ["macos.bridge"]);
    let remedy = "sudo ifconfig bridge0 deletem en2 deletem en3 down";
    said.finds("macos.bridge", "problem", "holds en2, en3", "bridge0: UP, members en2, en3", remedy);
}

#[test]
fn a_mac_without_gid_1() {
    let said = diagnosed("mac-no-gid-1");
    assert_eq!(said.problems(), ["macos.gid"]);
    said.finds(
        "macos.gid",
        "problem",
        "rdma_en2 has no GID 1",
        "GID[0] fe80::",
        "sudo ifconfig en2 inet 10.7.7.1/30",
    );
    said.finds("macos.neighbour", "note", "no neighbour is known on en2", "nobody on en2", "ping");
    let said = diagnosed("mac-gid-2");
    assert_eq!(said.problems(), [""; 0]);
    said.finds("macos.gid", "note", "at GID 2, not 1", "GID[2] ::ffff:169.254.10.1", "index 1");
}

#[test]
fn a_mac_that_nobody_prepared() {
    let said = diagnosed("mac-disabled");
    assert_eq!(said.problems(), ["macos.rdma_ctl", "macos.devices"]);
    said.finds("macos.rdma_ctl", "problem", "not enabled", "rdma_ctl status: disabled", "Recovery");
    let said = diagnosed("mac-too-old");
    assert_eq!(said.problems(), ["macos.version", "macos.rdma_ctl", "macos.devices"]);
    said.finds("macos.version", "problem", "macOS 15.6.1 has no RDMA", "15.6.1", "26.2");
}

#[test]
fn a_mac_with_thunderbolt_4_is_not_sent_to_recovery() {
    let said = diagnosed("mac-thunderbolt-4");
    assert_eq!(said.problems(), [""; 0]);
    said.finds("macos.devices", "note", "no Thunderbolt 5", "Up to 40 Gb/s", "nothing helps on this Mac");
}

#[test]
fn a_mac_whose_tools_do_not_end() {
    let said = diagnosed("mac-stuck");
    assert!(said.problems().contains(&"macos.stuck"));
    said.finds("macos.stuck", "problem", "ibv_devinfo -v does not end", "no answer", "boot this Mac again");
}

#[test]
fn a_mac_whose_peer_is_not_prepared() {
    let said = diagnosed("mac-peer-disabled");
    assert_eq!(said.problems(), ["macos.port"]);
    said.finds(
        "macos.port",
        "problem",
        "although something is plugged in",
        "en2: status active",
        "on the other Mac",
    );
}

#[test]
fn this_host_is_examined_quickly_and_its_recording_gives_the_same_findings() {
    let start = Instant::now();
    let live = Said::of(&[]);
    let took = start.elapsed();
    // It takes a hundredth of a second, where nobody else wants the cores.
    assert!(took.as_secs() < 20, "{took:?}");
    let usable = live.all["usable"].as_array().unwrap();
    assert!(usable.contains(&Value::from("shm")), "{:#}", live.all);

    let folder = scratch("this-host");
    let path = folder.to_str().unwrap();
    let recorded = Said::of(&["--record", path]);
    let read = Said::of(&["--root", path]);
    assert_eq!(recorded.findings(), read.findings());
    assert_eq!(read.all["root"], path);
    let (code, line) = failure(&["doctor", "--record", path]);
    assert_eq!(code, Some(1));
    assert!(line.contains(path) && line.contains("exists"), "{line}");
    std::fs::remove_dir_all(&folder).unwrap();
    let (code, line) = failure(&["doctor", "--root", path]);
    assert_eq!(code, Some(2));
    assert!(line.contains(path), "{line}");
}

#[test]
fn the_text_fits_a_terminal_and_names_remedies() {
    let tree = Tree::of("container");
    let output = program().args(["doctor", "--root"]).arg(&tree.0).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!text.contains('\x1b'), "no colour where nobody looks");
    for part in ["RDMA adapters", "  PROBLEM ", "[rdma.uverbs]", "do: start the container", "2 problems"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
