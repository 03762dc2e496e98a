//! A started program.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a program may take: most need less than a second, on an idle machine.
const DEADLINE: Duration = Duration::from_secs(90);
/// How often we look.
const STEP: Duration = Duration::from_millis(5);

/// A program that runs; killed when it is dropped.
pub struct Process {
    child: Child,
    /// What was started, for people.
    line: String,
    output: PathBuf,
    begun: Instant,
    verbose: bool,
}

impl Process {
    /// Starts a command, whose output goes to a file; `line` is what is told to people. The file is removed at the end, and shown before if that is wanted.
    ///
    /// # Errors
    /// The program cannot be started, or the file cannot be made.
    pub fn start(mut command: Command, line: String, output: PathBuf, verbose: bool) -> Result<Self> {
        let file = File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self { child, line, output, begun: Instant::now(), verbose })
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Waits until `is_there` says something, while it runs.
    ///
    /// # Errors
    /// It ended before, or took too long.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut is_there: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            if let Some(found) = is_there(self)? {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("`{}` ended ({status}) before {what}{}", self.line, self.last_words());
            }
            if self.begun.elapsed() > DEADLINE {
                bail!("`{}`: {what}: not after {} s{}", self.line, DEADLINE.as_secs(), self.last_words());
            }
            sleep(STEP);
        }
    }

    /// Waits until it listens at a TCP port. Trying to connect would be taken for a client.
    ///
    /// # Errors
    /// It ended before, or took too long.
    pub fn until_listening(&mut self, port: u16) -> Result<()> {
        self.until(&format!("it listened at port {port}"), |_| Ok(is_listening(port)?.then_some(())))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It took too long.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if self.begun.elapsed() > DEADLINE {
                bail!("`{}` did not end within {} s{}", self.line, DEADLINE.as_secs(), self.last_words());
            }
            sleep(STEP);
        }
    }

    /// Waits for its end, which must be with 0, and returns what it said.
    ///
    /// # Errors
    /// It ended otherwise, or took too long.
    pub fn succeed(mut self) -> Result<String> {
        let status = self.wait()?;
        ensure!(status.success(), "`{}`: {status}{}", self.line, self.last_words());
        Ok(self.output())
    }

    /// Waits for its end, whatever comes of it.
    ///
    /// # Errors
    /// It took too long.
    pub fn end(mut self) -> Result<()> {
        self.wait().map(drop)
    }

    /// Gives it some time to end by itself, and ends it with SIGKILL then.
    ///
    /// # Errors
    /// The system refuses.
    pub fn end_or_kill(mut self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            sleep(STEP);
        }
        self.kill()
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<_> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(6)..];
        if last.is_empty() {
            "; it said nothing".to_owned()
        } else {
            format!("; it said: {}", last.join(" | "))
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.verbose {
            println!("$ {}\n{}", self.line, self.output());
        }
        let _ = fs::remove_file(&self.output);
    }
}

/// Whether somebody listens at a TCP port of our network.
fn is_listening(port: u16) -> Result<bool> {
    let wanted = format!(":{port:04X}");
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
        for line in text.lines() {
            let mut words = line.split_whitespace().skip(1);
            if words.next().is_some_and(|local| local.ends_with(&wanted)) && words.nth(1) == Some("0A") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
