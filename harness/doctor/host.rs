//! What gathering may do to a host: read files, list folders, run commands that only look, and ask the system a few questions.
//!
//! Everything the doctor knows comes through [`Host`], so that a recorded tree ([`super::recorded`]) can stand for a host.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::probes::{self, Probe};

/// How long a command may take. Tools of a stuck device never end.
const PATIENCE: Duration = Duration::from_secs(5);
/// More of a file is not read.
const MOST_BYTES: u64 = 4 << 20;

/// A host to look at.
pub trait Host {
    /// The text of a file; `None` if it is not there or not readable.
    fn read(&self, path: &str) -> Option<String>;
    /// The lines of a file that hold one of the words, each once.
    fn lines_with(&self, path: &str, words: &[&str]) -> Vec<String>;
    /// The names in a folder that begin with `prefix`, in order.
    fn list(&self, path: &str, prefix: &str) -> Vec<String>;
    /// Is there a file or a folder?
    fn exists(&self, path: &str) -> bool;
    /// The last part of what a symbolic link points at.
    fn link(&self, path: &str) -> Option<String>;
    /// A device file, and what this process may do with it.
    fn node(&self, path: &str) -> Option<Node>;
    /// What a command says, of which only lines with one of the words are kept where words are given; `None` if there is no such command.
    fn run(&self, program: &str, arguments: &[&str], words: &[&str]) -> Option<Ran>;
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// What only a process on the host can find out; `None` if nobody did.
    fn ask(&self, probe: Probe) -> Option<String>;

    /// The first line of a file, without blanks around it; `None` if that is empty.
    fn line(&self, path: &str) -> Option<String> {
        let text = self.read(path)?;
        text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
    }
}

/// A device file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it is.
    pub path: String,
    /// Kind and permissions, as `ls -l` shows them.
    pub mode: String,
    /// Number of its owner.
    pub owner: u32,
    /// Number of its group.
    pub group: u32,
    /// May this process read and write it?
    pub usable: bool,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; `None` if it was ended because it did not end.
    pub code: Option<i32>,
    /// Standard output, then standard error.
    pub text: String,
}

/// The host this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Live;

impl Host for Live {
    fn read(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        fs::File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn lines_with(&self, path: &str, words: &[&str]) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for line in self.read(path).unwrap_or_default().lines() {
            if words.iter().any(|word| line.contains(word)) && !lines.iter().any(|known| known == line) {
                lines.push(line.to_owned());
            }
        }
        lines
    }

    fn list(&self, path: &str, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        names
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn link(&self, path: &str) -> Option<String> {
        last_part(&fs::read_link(path).ok()?)
    }

    fn node(&self, path: &str) -> Option<Node> {
        use nix::unistd::{AccessFlags, access};
        let metadata = fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_char_device())?;
        Some(Node {
            path: path.to_owned(),
            mode: mode(metadata.mode()),
            owner: metadata.uid(),
            group: metadata.gid(),
            usable: access(path, AccessFlags::R_OK | AccessFlags::W_OK).is_ok(),
        })
    }

    fn run(&self, program: &str, arguments: &[&str], words: &[&str]) -> Option<Ran> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let streams = [drained(child.stdout.take()), drained(child.stderr.take())];
        let deadline = Instant::now() + PATIENCE;
        let code = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status.code().unwrap_or(-1)),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                // A process stuck in the kernel does not die of this: neither it nor the rest of its output is waited for.
                _ => {
                    let _ = child.kill();
                    break None;
                }
            }
        };
        let text = streams.map(|(text, drain)| {
            if code.is_some() {
                let _ = drain.join();
            }
            let bytes = text.lock().map(|mut bytes| std::mem::take(&mut *bytes)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let mut text = text.concat();
        if !words.is_empty() {
            let kept = text.lines().filter(|line| words.iter().any(|word| line.contains(word)));
            text = kept.flat_map(|line| [line, "\n"]).collect();
        }
        Some(Ran { code, text })
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn ask(&self, probe: Probe) -> Option<String> {
        probes::ask(probe)
    }
}

/// A thread that reads a stream, and what it has read so far.
fn drained(stream: Option<impl Read + Send + 'static>) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&text);
    let drain = std::thread::spawn(move || {
        let Some(mut stream) = stream.map(|stream| stream.take(MOST_BYTES)) else { return };
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            if let (Ok(mut text), Some(new)) = (into.lock(), chunk.get(..count)) {
                text.extend_from_slice(new);
            }
        }
    });
    (text, drain)
}

/// The last part of a path.
pub(super) fn last_part(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

/// Permissions as `ls -l` shows those of a character device.
fn mode(bits: u32) -> String {
    let letters = "rwxrwxrwx".chars().enumerate();
    let shown = letters.map(|(at, letter)| if bits & (0o400 >> at) == 0 { '-' } else { letter });
    std::iter::once('c').chain(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::{Host, Live, Ran, mode};

    #[test]
    fn commands_are_heard_and_missing_ones_are_none() {
        let script = "echo out; echo err >&2; exit 3";
        let ran = |text: &str| Some(Ran { code: Some(3), text: text.into() });
        assert_eq!(Live.run("sh", &["-c", script], &[]), ran("out\nerr\n"));
        assert_eq!(Live.run("sh", &["-c", script], &["rr"]), ran("err\n"));
        assert_eq!(Live.run("no-such-command-anywhere", &[], &[]), None);
    }

    #[test]
    fn permissions_read_as_ls_shows_them() {
        assert_eq!(mode(0o20660), "crw-rw----");
        assert_eq!(mode(0o20666), "crw-rw-rw-");
    }
}
