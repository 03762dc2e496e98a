//! qemu's monitor, in its protocol QMP: a line of JSON each way. Devices come and go by it while the guest runs.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long qemu may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often we look whether time is over.
const STEP: Duration = Duration::from_millis(100);

/// A line to a qemu.
pub(crate) struct Monitor {
    stream: BufReader<UnixStream>,
    /// The line that is coming in.
    line: Vec<u8>,
    /// Events that came while something else was waited for.
    events: Vec<Value>,
}

impl Monitor {
    /// Connects to the socket that qemu has made.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("qemu's monitor does not listen")?;
        stream.set_read_timeout(Some(STEP))?;
        let mut monitor = Self { stream: BufReader::new(stream), line: Vec::new(), events: Vec::new() };
        let greeting = monitor.next(Instant::now() + PATIENCE)?;
        if greeting.is_none_or(|greeting| greeting.get("QMP").is_none()) {
            bail!("qemu's monitor does not speak QMP");
        }
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Has qemu do something, and says what it answers.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let order = json!({ "execute": command, "arguments": arguments });
        self.stream.get_mut().write_all(format!("{order}\n").as_bytes())?;
        let until = Instant::now() + PATIENCE;
        while let Some(mut answer) = self.next(until)? {
            if let Some(error) = answer.get("error") {
                bail!("qemu refuses `{order}`: {}", error.get("desc").and_then(Value::as_str).unwrap_or("?"));
            }
            match answer.get_mut("return") {
                Some(value) => return Ok(value.take()),
                None => self.events.push(answer),
            }
        }
        bail!("qemu does not answer `{order}`")
    }

    /// Waits for an event about a device, by the device's id.
    pub(crate) fn until_event(&mut self, event: &str, device: &str, limit: Duration) -> Result<()> {
        let is_it = |value: &Value| {
            value.get("event").and_then(Value::as_str) == Some(event)
                && value.pointer("/data/device").and_then(Value::as_str) == Some(device)
        };
        let until = Instant::now() + limit;
        if let Some(at) = self.events.iter().position(is_it) {
            self.events.remove(at);
            return Ok(());
        }
        while let Some(value) = self.next(until)? {
            if is_it(&value) {
                return Ok(());
            }
            self.events.push(value);
        }
        bail!("no {event} of {device} within {} s; there were {:?}", limit.as_secs(), self.events)
    }

    /// The next thing that qemu says; `None` if it says nothing in time.
    fn next(&mut self, until: Instant) -> Result<Option<Value>> {
        loop {
            match self.stream.read_until(b'\n', &mut self.line) {
                Ok(0) => bail!("qemu has closed its monitor"),
                Ok(_) if self.line.ends_with(b"\n") => {
                    let value = serde_json::from_slice(&self.line);
                    self.line.clear();
                    return Ok(Some(value.context("qemu's monitor says what is not JSON")?));
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if Instant::now() > until {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error).context("qemu's monitor"),
            }
        }
    }
}
