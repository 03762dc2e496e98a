//! A place of our own to run programs in: a network namespace with its own ports, loopback device and abstract sockets, and a `/tmp` and `/dev/shm`
//! that are empty. What is in them after a program was left by it, and nobody else on the machine is in the way.

use crate::cache::{self, Cache};
use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_child_subreaper;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tbrdma_kit::{Process, Skip, enter_network_namespace};

/// Folders that a program might leave something in.
pub(crate) const PRIVATE: [&str; 2] = ["/tmp", "/dev/shm"];

/// Where what the programs need stays visible, once `/tmp` is another: every system has this folder, and seldom something in it.
const BASE: &str = "/mnt";

const BUSYBOX: &str = "bin/busybox";

/// The place.
pub(crate) struct Stage {
    run: PathBuf,
    debian: PathBuf,
    libraries: OsString,
    /// Where we keep what programs say.
    pub(crate) scratch: PathBuf,
    pub(crate) verbose: bool,
    shared: Option<String>,
}

impl Stage {
    /// Goes there. Where the machine forbids that, the place is the machine.
    pub(crate) fn enter(cache: &Cache, run: &Path, verbose: bool) -> Result<Self> {
        let run = run.canonicalize().with_context(|| format!("no tbrdma-run at {}", run.display()))?;
        // Orphans come to us, so that we see them.
        set_child_subreaper(true)?;
        let debian = cache.debian();
        match enter_network_namespace(CloneFlags::CLONE_NEWNS) {
            Ok(()) => Self::private(&debian, &run, verbose),
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(reason) => Self::shared(&debian, run, verbose, reason.to_string()),
                None => Err(error),
            },
        }
    }

    fn private(debian: &Path, run: &Path, verbose: bool) -> Result<Self> {
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        mount(Some("tmpfs"), BASE, Some("tmpfs"), MsFlags::empty(), nothing)?;
        let base = Path::new(BASE);
        let bin = run.parent().context("tbrdma-run lies in no folder")?;
        for (from, to) in [(debian, base.join("debian")), (bin, base.join("bin"))] {
            fs::create_dir(&to)?;
            mount(Some(from), &to, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)?;
        }
        for folder in PRIVATE {
            if Path::new(folder).exists() {
                mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=1777"))?;
            }
        }
        let scratch = base.join("scratch");
        fs::create_dir(&scratch)?;
        std::env::set_current_dir(&scratch)?;
        let debian = base.join("debian");
        let run = base.join("bin").join(run.file_name().context("tbrdma-run has no name")?);
        let stage = Self::new(&debian, run, scratch, verbose, None)?;
        stage.set_loopback("up")?;
        Ok(stage)
    }

    fn shared(debian: &Path, run: PathBuf, verbose: bool, reason: String) -> Result<Self> {
        let scratch = debian.with_file_name(format!("run-{}-scratch", std::process::id()));
        fs::create_dir_all(&scratch)?;
        Self::new(debian, run, scratch, verbose, Some(reason))
    }

    fn new(
        debian: &Path,
        run: PathBuf,
        scratch: PathBuf,
        verbose: bool,
        shared: Option<String>,
    ) -> Result<Self> {
        let libraries = cache::libraries(debian)?;
        Ok(Self { run, debian: debian.to_owned(), libraries, scratch, verbose, shared })
    }

    /// Why others use this place too, if they do.
    pub(crate) fn is_shared(&self) -> Option<anyhow::Error> {
        self.shared.as_ref().map(|reason| Skip::new(reason.clone()).into())
    }

    /// Starts a program of Debian's under tbrdma-run with these options.
    pub(crate) fn start(&self, options: &[String], words: &[String]) -> Result<Process> {
        let mut command = Command::new(&self.run);
        command.args(options).arg("--");
        if let Some((program, arguments)) = words.split_first() {
            command.arg(self.file("usr/bin").join(program)).args(arguments);
        }
        command.env("LD_LIBRARY_PATH", &self.libraries).current_dir(&self.scratch);
        command
            .env("PYTHONPATH", self.file("usr/lib/python3/dist-packages"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let line = format!("tbrdma-run {} -- {}", options.join(" "), words.join(" "));
        self.started(command, line)
    }

    /// Starts a program of ours that lies beside tbrdma-run, on devices of its own.
    pub(crate) fn start_own(&self, program: &str, words: &[&str]) -> Result<Process> {
        let mut command = Command::new(self.run.with_file_name(program));
        command.args(words).current_dir(&self.scratch);
        self.started(command, format!("{program} {}", words.join(" ")))
    }

    fn started(&self, command: Command, line: String) -> Result<Process> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let output = self.scratch.join(format!("output-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        Process::start(command, line, output, self.verbose)
    }

    /// Takes the loopback interface `up` or `down`, if it is ours.
    pub(crate) fn set_loopback(&self, state: &str) -> Result<()> {
        if let Some(reason) = self.is_shared() {
            return Err(reason);
        }
        let done = Command::new(self.file(BUSYBOX)).args(["ip", "link", "set", "lo", state]).status()?;
        ensure!(done.success(), "lo does not go {state} in the namespace");
        Ok(())
    }

    /// A file of Debian's.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.debian.join(path)
    }

    /// What is in a file that was packed by gzip.
    pub(crate) fn unzip(&self, path: &Path) -> Result<Vec<u8>> {
        let output = Command::new(self.file(BUSYBOX)).args(["gunzip", "-c"]).arg(path).output()?;
        ensure!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    /// A TCP port that nobody listens on.
    pub(crate) fn port(&self) -> Result<u16> {
        Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port())
    }
}
