//! Raw streams over Thunderbolt and USB4 cables: what the doctor says of each state of their set-up, and what `--setup` does about it. The
//! kernel's side is a stand-in over a recorded tree, which does what Linux's documentation of
//! `/sys/kernel/config/thunderbolt/stream` says: a folder made is a stream with its files, -1 is a HopID of the kernel's choice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tbrdma_bench::doctor::host::Host as _;
use tbrdma_bench::doctor::recorded::Recorded;
use tbrdma_bench::doctor::setup::perform::Hands;
use tbrdma_bench::doctor::setup::plan::Wish;
use tbrdma_bench::doctor::setup::set_up;
use tbrdma_bench::error::{Error, Result};

use super::{Tree, diagnosed};
use crate::common::{run, stderr, stdout};

const ID: &str = "thunderbolt.stream";
const STREAMS: &str = "/sys/kernel/config/thunderbolt/stream";

#[test]
fn each_state_of_a_raw_stream_is_explained_with_its_remedy() {
    let states = [
        ("thunderbolt", "note", "older than 7.2", "osrelease: 6.8.0-45-generic", "--device udp:thunderbolt0"),
        (
            "stream-module-missing",
            "note",
            "no module for them",
            "does not list thunderbolt_stream",
            "CONFIG_USB4_STREAM",
        ),
        (
            "stream-module-not-loaded",
            "note",
            "the module is not loaded",
            "lists thunderbolt_stream",
            "modprobe thunderbolt_stream; mount -t configfs none /sys/kernel/config; mkdir -p \
             /sys/kernel/config/thunderbolt/stream/0-1.1/tbrdma",
        ),
        (
            "thunderbolt-no-peer",
            "note",
            "no other host",
            "no device of type thunderbolt_xdomain",
            "join two hosts",
        ),
        (
            "stream-not-offered",
            "note",
            "strix-2 (Linux) offers no streams",
            "0-1.*/key: none says stream",
            "modprobe thunderbolt_stream",
        ),
        (
            "stream-not-set-up",
            "note",
            "none is set up",
            "is not there",
            "sudo tbrdma-bench doctor --setup; or for root: mkdir -p",
        ),
        (
            "stream-half",
            "note",
            "0-1.1/data has no HopIDs",
            "in_hopid: 0",
            "--setup --peer 0-1 --stream data; or for root: rmdir",
        ),
        (
            "stream",
            "ok",
            "--device stream:/dev/tbstream0",
            "in HopID 9, out HopID 8, ring_size 256, throttling 8192",
            "",
        ),
    ];
    for (state, severity, title, evidence, remedy) in states {
        let said = diagnosed(state);
        assert_eq!(said.problems(), [""; 0], "{state}");
        said.finds(ID, severity, title, evidence, remedy);
    }
    let said = diagnosed("stream-closed");
    assert_eq!(said.problems(), [ID]);
    let evidence = "/dev/tbstream0: crw-------, owner 0, group 0";
    said.finds(ID, "problem", "may not be opened by this user", evidence, "sudo chown $USER /dev/tbstream0");
    // Both have it, and each says so.
    let said = diagnosed("stream-conflict");
    assert_eq!(said.problems(), [ID, ID]);
    for (finding, other) in said.with_severity("problem").into_iter().zip(["more", "data"]) {
        let evidence = format!("{STREAMS}/0-1.1/{other}/in_hopid");
        assert_eq!(finding["evidence"][0]["source"], evidence);
        assert!(finding["title"].as_str().unwrap().contains("in HopID 9"), "{finding:#}");
        assert!(finding["remedy"].as_str().unwrap().contains("rmdir"), "{finding:#}");
    }
    let said = diagnosed("stream-unplugged");
    assert_eq!(said.problems(), [ID]);
    said.finds(
        ID,
        "problem",
        "0-1.0/data is of a service that is no stream",
        "0-1.0/key: network",
        "(it is 0-1.1)",
    );
    let titles: Vec<&str> = said
        .with_severity("note")
        .iter()
        .filter(|finding| finding["id"] == ID)
        .map(|finding| finding["title"].as_str().unwrap())
        .collect();
    assert!(titles.iter().any(|title| title.contains("0-1.1/more waits for its HopIDs")), "{titles:?}");
    assert!(titles.iter().any(|title| title.contains("no host 1-3")), "{titles:?}");
}

/// A kernel with this tree.
struct Kernel {
    root: PathBuf,
    /// What the other host announces for a stream, as this side's HopIDs.
    announced: Option<[u32; 2]>,
    /// Which call fails, and how.
    fails: Option<(usize, i32)>,
    is_root: bool,
    calls: RefCell<Vec<String>>,
}

impl Kernel {
    fn of(tree: &Tree) -> Self {
        Self { root: tree.0.clone(), announced: None, fails: None, is_root: true, calls: RefCell::default() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn call(&self, what: String) -> io::Result<()> {
        let mut calls = self.calls.borrow_mut();
        calls.push(what);
        match self.fails {
            Some((number, errno)) if number == calls.len() => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    /// HopIDs that streams have, of one way.
    fn taken(&self, way: &str) -> Vec<u32> {
        let tree = Recorded::new(&self.root);
        let groups = tree.list(STREAMS, "");
        let of = |group: &String| {
            let streams = tree.list(&format!("{STREAMS}/{group}"), "");
            streams
                .iter()
                .filter_map(|name| tree.line(&format!("{STREAMS}/{group}/{name}/{way}")))
                .collect::<Vec<_>>()
        };
        groups.iter().flat_map(of).filter_map(|hop| hop.parse().ok()).collect()
    }

    fn nodes(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let path = self.root.join("doctor/nodes");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut nodes: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(path, rest)| (path.to_owned(), rest.to_owned()))
            .collect();
        change(&mut nodes);
        let text: String = nodes.iter().map(|(path, rest)| format!("{path} {rest}\n")).collect();
        if text.is_empty() {
            let _ = fs::remove_file(path);
        } else {
            fs::write(path, text).unwrap();
        }
    }
}

impl Hands for Kernel {
    fn is_root(&self) -> bool {
        self.is_root
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<()> {
        self.call(format!("{program} {}", arguments.join(" ")))?;
        let (module, streams) = (self.at("/sys/module/thunderbolt_stream"), self.at(STREAMS));
        match (program, arguments) {
            ("modprobe", ["thunderbolt_stream"]) => {
                fs::create_dir_all(module)?;
                fs::create_dir_all(streams)
            }
            ("modprobe", ["-r", "thunderbolt_stream"]) => {
                fs::remove_dir(module)?;
                fs::remove_dir_all(self.at("/sys/kernel"))
            }
            ("mount", ["-t", "configfs", ..]) => {
                fs::write(self.at("/proc/mounts"), "none /sys/kernel/config configfs rw 0 0\n")
            }
            ("umount", _) => fs::write(self.at("/proc/mounts"), "\n"),
            _ => panic!("{program} {arguments:?}"),
        }
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        self.call(format!("mkdir {path}"))?;
        let folder = self.at(path);
        fs::create_dir(&folder)?;
        if path.matches('/').count() == STREAMS.matches('/').count() + 1 {
            return Ok(());
        }
        let index = self.taken("index").into_iter().max().map_or(0, |most| most + 1);
        let [inwards, outwards] = self.announced.unwrap_or_default();
        let files = [
            ("index", index),
            ("in_hopid", inwards),
            ("out_hopid", outwards),
            ("ring_size", 256),
            ("throttling", 8192),
        ];
        for (name, value) in files {
            fs::write(folder.join(name), format!("{value}\n"))?;
        }
        self.nodes(|nodes| {
            drop(nodes.insert(format!("/dev/tbstream{index}"), "crw------- 0 0 usable".into()))
        });
        Ok(())
    }

    fn remove_folder(&self, path: &str) -> io::Result<()> {
        self.call(format!("rmdir {path}"))?;
        let folder = self.at(path);
        if let Ok(index) = fs::read_to_string(folder.join("index")) {
            self.nodes(|nodes| drop(nodes.remove(&format!("/dev/tbstream{}", index.trim()))));
            return fs::remove_dir_all(folder);
        }
        fs::remove_dir(folder)
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        self.call(format!("echo {text} > {path}"))?;
        let way = path.rsplit('/').next().unwrap();
        let free = || (8..).find(|hop| !self.taken(way).contains(hop)).unwrap().to_string();
        let value = if text == "-1" { free() } else { text.to_owned() };
        fs::write(self.at(path), value + "\n")
    }

    fn give(&self, path: &str, user: u32) -> io::Result<()> {
        self.call(format!("chown {user} {path}"))?;
        self.nodes(|nodes| drop(nodes.insert(path.into(), format!("crw------- {user} 0 usable"))));
        Ok(())
    }

    fn wait(&self, _: Duration) {}
}

/// All of a tree: each path with what is in it.
fn everything(root: &Path) -> BTreeMap<PathBuf, Option<String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
                found.insert(path, None);
            } else {
                let text = fs::read_to_string(&path).unwrap().trim_end().to_owned();
                found.insert(path, Some(text));
            }
        }
    }
    found
}

/// Sets up, and what was told.
fn setting_up(kernel: &Kernel, wish: &Wish) -> (Result<u8>, String) {
    let mut told = String::new();
    let outcome = set_up(&Recorded::new(&kernel.root), kernel, wish, || Ok(true), &mut |line| {
        told.push_str(line);
        told.push('\n');
    });
    (outcome, told)
}

#[test]
fn a_stream_is_set_up_from_nothing_once_and_under_the_name_of_who_asked() {
    let tree = Tree::of("stream-module-not-loaded");
    let kernel = Kernel::of(&tree);
    let wish = Wish { owner: Some(1000), ..Wish::default() };
    let (outcome, told) = setting_up(&kernel, &wish);
    assert_eq!(outcome, Ok(0), "{told}");
    let folder = format!("{STREAMS}/0-1.1/tbrdma");
    let expected = [
        "modprobe thunderbolt_stream".to_owned(),
        "mount -t configfs none /sys/kernel/config".into(),
        format!("mkdir {STREAMS}/0-1.1"),
        format!("mkdir {folder}"),
        format!("echo -1 > {folder}/in_hopid"),
        format!("echo -1 > {folder}/out_hopid"),
        "chown 1000 /dev/tbstream0".into(),
    ];
    assert_eq!(*kernel.calls.borrow(), expected);
    // All that is done was shown before, and what there is now is told.
    let shown = told.find("mkdir -p").unwrap();
    assert!(shown < told.find(&format!("mkdir {folder}")).unwrap(), "{told}");
    assert!(
        told.contains("0-1.1/tbrdma is set up to strix-2 (Linux)") && told.contains("stream:/dev/tbstream0"),
        "{told}"
    );
    let (again, told) = setting_up(&kernel, &wish);
    assert_eq!((again, kernel.calls.borrow().len()), (Ok(0), expected.len()), "{told}");
    assert!(told.contains("nothing is left"), "{told}");
}

#[test]
fn what_the_other_host_announces_is_taken_over() {
    for (state, removed) in [("stream-not-set-up", None), ("stream-half", Some("rmdir"))] {
        let tree = Tree::of(state);
        let kernel = Kernel { announced: Some([11, 12]), ..Kernel::of(&tree) };
        let (outcome, told) = setting_up(&kernel, &Wish::default());
        assert_eq!(outcome, Ok(0), "{told}");
        let calls = kernel.calls.borrow();
        assert!(calls.iter().all(|call| !call.starts_with("echo")), "{calls:?}");
        assert!(removed.is_none_or(|removed| calls[0].starts_with(removed)), "{calls:?}");
        assert!(told.contains("in_hopid is 11: the other host has announced it"), "{told}");
    }
}

#[test]
fn whichever_step_fails_nothing_is_left_of_those_before_it() {
    for (state, steps) in [("stream-module-not-loaded", 7), ("stream-not-set-up", 5), ("stream-half", 5)] {
        for number in 1..=steps {
            let tree = Tree::of(state);
            let before = everything(&tree.0);
            // EBUSY, which a HopID that is taken has.
            let kernel = Kernel { fails: Some((number, 16)), ..Kernel::of(&tree) };
            let (outcome, told) = setting_up(&kernel, &Wish { owner: Some(1000), ..Wish::default() });
            let Err(Error::Run(line)) = outcome else { panic!("{state}, call {number}: {outcome:?} {told}") };
            let failed = kernel.calls.borrow()[number - 1].clone();
            assert!(line.starts_with(&failed) && line.contains("busy"), "{line} after {failed}");
            assert!(line.contains(if number == 1 { "nothing was changed" } else { "is undone" }), "{line}");
            if failed.contains("hopid") {
                assert!(line.contains("it is taken, or a program has the stream open"), "{line}");
            }
            let after = everything(&tree.0);
            // Only who owned the device file of a folder that was removed is not known any more.
            let known = |path: &Path| state != "stream-half" || !path.ends_with("doctor/nodes");
            let differs: Vec<_> =
                before.iter().filter(|(path, text)| known(path) && after.get(*path) != Some(text)).collect();
            assert!(differs.is_empty() && before.len() == after.len(), "{state}, call {number}: {differs:?}");
        }
    }
}

#[test]
fn who_may_not_or_does_not_want_to_changes_nothing() {
    let tree = Tree::of("stream-not-set-up");
    let kernel = Kernel { is_root: false, ..Kernel::of(&tree) };
    let (outcome, told) = setting_up(&kernel, &Wish::default());
    assert!(outcome.unwrap_err().to_string().contains("sudo tbrdma-bench doctor --setup"));
    for line in
        [format!("mkdir -p {STREAMS}/0-1.1/tbrdma"), "grep -qx 0 in_hopid && echo -1 > in_hopid".into()]
    {
        assert!(told.lines().any(|told| told == line), "{line} in {told}");
    }
    let refusing =
        set_up(&Recorded::new(&tree.0), &Kernel::of(&tree), &Wish::default(), || Ok(false), &mut |_| {});
    assert_eq!(refusing, Err(Error::Run("nothing was changed".into())));
    assert!(kernel.calls.borrow().is_empty());
    for (state, reason) in [
        ("linux", "no Thunderbolt or USB4 controller"),
        ("mac", "raw streams over cables are Linux's"),
        ("thunderbolt", "older than 7.2"),
        ("stream-not-offered", "offers no streams"),
        ("stream-conflict", "both have in HopID 9"),
    ] {
        let tree = Tree::of(state);
        let (outcome, told) = setting_up(&Kernel::of(&tree), &Wish::default());
        assert!(outcome.unwrap_err().to_string().contains(reason), "{reason}");
        assert!(!told.contains("mkdir"), "{told}");
    }
}

#[test]
fn the_command_shows_what_it_would_do_to_a_recorded_host_and_does_not_do_it() {
    let tree = Tree::of("stream-module-not-loaded");
    let before = everything(&tree.0);
    let root = tree.0.to_str().unwrap();
    let output = run(&["doctor", "--root", root, "--setup", "--dry-run", "--stream", "cable"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let text = stdout(&output);
    let commands: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let folder = format!("{STREAMS}/0-1.1/cable");
    let expected = [
        "modprobe thunderbolt_stream".to_owned(),
        "mount -t configfs none /sys/kernel/config".into(),
        format!("mkdir -p {folder}"),
        format!("cd {folder}"),
        "grep -qx 0 in_hopid && echo -1 > in_hopid".into(),
        "grep -qx 0 out_hopid && echo -1 > out_hopid".into(),
    ];
    assert_eq!(commands, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for (arguments, line) in [
        (vec!["--setup"], "--dry-run shows"),
        (vec!["--setup", "--dry-run", "--stream", "too-long-a-name"], "1 to 8 letters"),
        (vec!["--dry-run"], "--setup"),
    ] {
        let output = run(&[vec!["doctor", "--root", root], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(line), "{line} in {}", stderr(&output));
    }
    assert_eq!(everything(&tree.0), before);
}
