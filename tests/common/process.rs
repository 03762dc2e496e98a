//! A second process: the test binary itself, started again in a hidden role and spoken to in lines over its standard streams.
#![allow(dead_code, reason = "each test file uses its own part")]

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

#[path = "skip.rs"]
mod skip;
#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use skip::skip;

/// Which role a started child plays.
const ROLE: &str = "TBRDMA_TEST_ROLE";
/// How long anything may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What a line meant for the other process begins with: the test harness prints lines of its own.
const MARK: char = '@';

/// The device that the tests of this binary are about: the software NIC where the name begins so, else shared memory.
pub(crate) fn device() -> &'static str {
    let binary = std::env::current_exe().unwrap();
    let name = binary.file_name().unwrap().to_string_lossy().into_owned();
    if name.starts_with("soft_") { "udp:lo" } else { "shm" }
}

/// The role this process was started in, if it is a child. A child ends with the thread that started it.
pub(crate) fn role() -> Option<String> {
    let role = std::env::var(ROLE).ok()?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    Some(role)
}

/// Child: goes on in a process that has no other thread; the test harness has some. This one ends as that one does.
pub(crate) fn go_on_alone() {
    // SAFETY: the other threads of the harness wait meanwhile, and hold no lock that the child needs.
    let ForkResult::Parent { child } = unsafe { fork() }.unwrap() else {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
        return;
    };
    match waitpid(child, None).unwrap() {
        WaitStatus::Exited(_, status) => std::process::exit(status),
        WaitStatus::Signaled(_, signal, _) => nix::sys::signal::raise(signal).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Child: one line to the parent.
pub(crate) fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n{MARK}{line}\n").and_then(|()| out.flush()).unwrap();
}

/// Child: the parent's next line; the process ends when there are no more.
pub(crate) fn hear() -> String {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).unwrap_or(0) == 0 {
        std::process::exit(0);
    }
    line.trim_end().to_owned()
}

/// A started child, killed and reaped when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Child {
    pub(crate) fn start(role: &str) -> Self {
        Self::start_with(role, &[])
    }

    /// The test named `child` of this binary, with the role and `env` in its environment.
    pub(crate) fn start_with(role: &str, env: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1", "--quiet"])
            .env(ROLE, role)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Some(line) = line.strip_prefix(MARK) else { continue };
                if sender.send(line.to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { process, stdin, lines }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    pub(crate) fn say(&mut self, line: impl Display) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap();
    }

    pub(crate) fn hear(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("the child says nothing: {error}"))
    }

    /// The same, or nothing from one that has ended.
    pub(crate) fn try_hear(&self) -> Option<String> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// One line there, one line back.
    pub(crate) fn ask(&mut self, line: impl Display) -> String {
        self.say(line);
        self.hear()
    }

    /// Sends a signal; the child was started here and has not been reaped.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Stops it and waits until every thread of it has stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let begun = Instant::now();
        while self.state() != 'T' {
            assert!(begun.elapsed() < PATIENCE, "the child does not stop");
            std::thread::yield_now();
        }
    }

    /// Its state as `/proc` has it.
    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap()
    }

    /// Ends it at whatever it is doing. The kernel may take a moment to do so.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Waits for its end.
    pub(crate) fn reap(mut self) -> ExitStatus {
        drop(self.stdin.take());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the child does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it and waits for its end.
    pub(crate) fn bury(self) {
        self.kill();
        assert_eq!(self.reap().signal(), Some(Signal::SIGKILL as i32));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
