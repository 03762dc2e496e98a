//! A measurement as a process of its own, for modes that make one after the other: nothing of one, neither its cores nor its memory nor its
//! clock, is left for the next, and one that fails takes nothing with it.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result, one_line};
use crate::result::Report;
use crate::signals;

/// How often the end of a child is looked for: seldom, for it measures on the same cores.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What came of it: a result, or why there is none; both where bytes were wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The result.
    pub report: Option<Box<Report>>,
    /// Why there is none, or none that is to be trusted.
    pub reason: Option<String>,
}

impl Measured {
    /// Was it measured, and was every byte right?
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.reason.is_none() && self.report.as_ref().is_some_and(|report| report.verified)
    }
}

/// Ends the child when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs this program with these arguments, which are a mode and its flags, for at most so long.
///
/// # Errors
/// The program cannot be started, or the user interrupted.
pub fn measure(arguments: &[String], most: Duration) -> Result<Measured> {
    let program = std::env::current_exe().context(|| "find this program to start a measurement".into())?;
    let started = Command::new(&program)
        .args(arguments)
        .args(["--json", "-", "--quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| format!("start a measurement with {}", program.display()))?;
    let mut running = Running(started);
    let (out, err) = (gather(running.0.stdout.take()), gather(running.0.stderr.take()));
    let deadline = Instant::now() + most;
    let status = loop {
        signals::check()?;
        match running.0.try_wait().context(|| "wait for a measurement".into())? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let reason = format!("did not end within {} s", most.as_secs());
                return Ok(Measured { report: None, reason: Some(reason) });
            }
            None => std::thread::sleep(BETWEEN_LOOKS),
        }
    };
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if status.code() == Some(i32::from(Error::Interrupted.exit_code())) {
        return Err(Error::Interrupted);
    }
    let report = serde_json::from_slice(&out).ok().map(Box::new);
    let said = one_line(&String::from_utf8_lossy(&err));
    let reason = match (status.success(), said.strip_prefix("tbrdma-bench: ").unwrap_or(&said)) {
        (true, _) if report.is_some() => None,
        (true, _) => Some("it gave no result".to_owned()),
        (false, "") => Some(format!("it ended with {status}")),
        (false, said) => Some(said.to_owned()),
    };
    Ok(Measured { report, reason })
}

/// Reads a stream to its end, beside what else is done.
fn gather(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before a failure is told.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}
