//! Device files that are not there, as a program sees them with the preload and without.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, lstat, stat};
use nix::unistd::{AccessFlags, access};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in the process that is started with the preload: the paths to look at.
const LOOK_AT: &str = "TBRDMA_TEST_LOOK_AT";

/// Cargo puts it beside the test.
fn library() -> PathBuf {
    let folder = std::env::current_exe().expect("a path").parent().expect("a folder").to_owned();
    folder.join("libtbrdma_paths.so")
}

/// What a program sees of a path that may not be there.
fn look(path: &Path) -> String {
    let is_device = |mode: u32| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    let kind = |device| if device { "device" } else { "other" };
    [
        stat(path).map(|seen| kind(is_device(seen.st_mode)).to_owned()),
        lstat(path).map(|seen| kind(is_device(seen.st_mode)).to_owned()),
        access(path, AccessFlags::R_OK | AccessFlags::W_OK).map(|()| "may".to_owned()),
        open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map(|_| "opened".to_owned()),
    ]
    .map(|seen| seen.unwrap_or_else(|error| error.to_string()))
    .join(" ")
}

/// What another process sees of paths.
fn look_from_elsewhere(paths: &[&str], preload: bool) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", "the_other_process", "--nocapture", "--test-threads=1"]);
    command.env(LOOK_AT, paths.join("\n")).env("TBRDMA_DEVICES", "mlx5_0=udp:lo,shm=shm,rdma_en2");
    if preload {
        command.env("LD_PRELOAD", library());
    }
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().filter_map(|line| Some(line.strip_prefix("seen: ")?.to_owned())).collect()
}

#[test]
fn the_other_process() {
    for path in std::env::var(LOOK_AT).unwrap_or_default().lines() {
        println!("\nseen: {}", look(Path::new(path)));
    }
}

#[test]
fn the_files_of_our_devices_are_pretended_and_no_others() {
    let ours = [
        "/dev/infiniband/uverbs0",
        "/dev/infiniband/mlx5_0",
        "/dev/infiniband/shm",
        "/dev/infiniband/rdma_en2",
    ];
    for seen in look_from_elsewhere(&ours, true) {
        assert_eq!(seen, "device device may opened");
    }
    let others = [
        "/dev/infiniband/rdma_cm",
        "/dev/infiniband/uverbs",
        "/dev/infiniband/uverbs0x",
        "/dev/infiniband/udp:lo",
        "/dev/infiniband/mlx5_0/x",
        "/nowhere/infiniband/uverbs0",
        "/dev/zero",
        env!("CARGO_MANIFEST_DIR"),
    ];
    let (with, without) = (look_from_elsewhere(&others, true), look_from_elsewhere(&others, false));
    assert_eq!((with.len(), &with), (others.len(), &without));
    assert_eq!(with[6], "device device may opened");
}

#[test]
fn files_are_made_with_the_mode_that_was_asked_for() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("made-{}", std::process::id()));
    let script = format!("umask 027; : > '{}'; test -c /dev/infiniband/uverbs7", file.display());
    let status = Command::new("sh").args(["-c", &script]).env("LD_PRELOAD", library()).status().expect("sh");
    let made = stat(&file).expect("it is made").st_mode & 0o777;
    std::fs::remove_file(&file).expect("it is there");
    assert_eq!((status.success(), made), (true, 0o640));
}
