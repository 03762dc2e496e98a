//! A program in a process of its own, whose words on stderr are heard as well: the test binary itself, started again in a role.
#![allow(dead_code, reason = "each test file uses its own part")]

use crate::common::process::PATIENCE;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// In the child: signals do what they do to a program that was started in a terminal. Who runs the tests in the background may have some ignored, and what
/// is ignored is left alone.
pub(crate) fn signals_are_as_usual() {
    for each in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP] {
        // SAFETY: no handler.
        unsafe { signal(each, SigHandler::SigDfl) }.expect("a signal");
    }
}

/// A program of this file in a process of its own, and what it says on stderr.
pub(crate) struct Program {
    process: Child,
    told: Receiver<String>,
}

impl Program {
    pub(crate) fn start(role: &str, env: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("a path"))
            .args(["child", "--exact", "--nocapture", "--test-threads=1", "--quiet"])
            .env("TBRDMA_TEST_ROLE", role)
            .env("TBRDMA_DEVICES", "mlx5_0=shm")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stderr = process.stderr.take().expect("a pipe");
        let (sender, told) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, told }
    }

    /// What it said, once it has said this on stdout.
    pub(crate) fn until_said(&mut self, what: &str) {
        let mut said = BufReader::new(self.process.stdout.as_mut().expect("a pipe"));
        let mut line = String::new();
        while line.trim() != format!("@{what}") {
            line.clear();
            assert_ne!(said.read_line(&mut line).expect("text"), 0, "it ends and does not say {what:?}");
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).expect("it is there");
    }

    /// The lines of a whole trace, told at a signal.
    pub(crate) fn trace(&self) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains("end of trace of process")) {
            lines.push(self.told.recv_timeout(PATIENCE).expect("a whole trace"));
        }
        lines
    }

    /// The rest of stdout and of stderr, and how it ended.
    pub(crate) fn end(mut self) -> (String, String, ExitStatus) {
        let mut said = String::new();
        self.process.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        let told = self.told.iter().collect::<Vec<_>>().join("\n");
        (said, told, self.process.wait().expect("it ends"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
