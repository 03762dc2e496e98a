//! A host as a tree of files: read in its place, or written while looking at one.
//!
//! The tree has the files that were read at their own paths (`sys/...`, `proc/...`), and in the folder `doctor` what is no file:
//!
//! | in `doctor/` | holds |
//! |---|---|
//! | `probes/NAME` | the answer to a [`Probe`] |
//! | `commands/NAME` | a command's exit code in the first line, and what it said |
//! | `environment` | variables, `NAME=value` |
//! | `nodes` | device files: path, mode, owner, group, `usable` or `closed` |
//! | `links` | symbolic links: path, and the last part of what each points at |
//!
//! Only what the doctor asks for is written: no serial numbers, keys, host names or command lines of programs. Addresses of network
//! interfaces and GIDs are among it.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::host::{Host, Live, Node, Ran};
use super::probes::Probe;

const OWN: &str = "doctor";

/// A recorded tree.
#[derive(Debug, Clone)]
pub struct Recorded {
    root: PathBuf,
}

impl Recorded {
    /// The tree in a folder.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn own(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.join(OWN).join(name)).ok()
    }

    fn nodes(&self) -> Vec<Node> {
        let text = self.own("nodes").unwrap_or_default();
        text.lines().filter_map(parse_node).collect()
    }
}

impl Host for Recorded {
    fn read(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.at(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn lines_with(&self, path: &str, words: &[&str]) -> Vec<String> {
        Live.lines_with(&self.at(path).to_string_lossy(), words)
    }

    fn list(&self, path: &str, prefix: &str) -> Vec<String> {
        let mut names = Live.list(&self.at(path).to_string_lossy(), prefix);
        let nodes = self.nodes();
        names.extend(nodes.iter().filter_map(|node| {
            let name = node.path.strip_prefix(path)?.strip_prefix('/')?;
            (name.starts_with(prefix) && !name.contains('/')).then(|| name.to_owned())
        }));
        names.sort();
        names.dedup();
        names
    }

    fn exists(&self, path: &str) -> bool {
        self.at(path).exists() || self.nodes().iter().any(|node| node.path == path)
    }

    fn link(&self, path: &str) -> Option<String> {
        let links = self.own("links")?;
        links.lines().find_map(|line| line.strip_prefix(path)?.strip_prefix(' ').map(str::to_owned))
    }

    fn node(&self, path: &str) -> Option<Node> {
        self.nodes().into_iter().find(|node| node.path == path)
    }

    fn run(&self, program: &str, arguments: &[&str], _words: &[&str]) -> Option<Ran> {
        let text = self.own(&format!("commands/{}", command_name(program, arguments)))?;
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        Some(Ran { code: first.strip_prefix("exit ")?.parse().ok(), text: rest.to_owned() })
    }

    fn variable(&self, name: &str) -> Option<String> {
        let text = self.own("environment")?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    }

    fn ask(&self, probe: Probe) -> Option<String> {
        self.own(&format!("probes/{}", probe.name())).map(|answer| answer.trim_end().to_owned())
    }
}

fn parse_node(line: &str) -> Option<Node> {
    let mut words = line.split_whitespace();
    let mut next = || words.next();
    Some(Node {
        path: next()?.to_owned(),
        mode: next()?.to_owned(),
        owner: next()?.parse().ok()?,
        group: next()?.parse().ok()?,
        usable: next()? == "usable",
    })
}

/// A command as a file name.
fn command_name(program: &str, arguments: &[&str]) -> String {
    std::iter::once(&program).chain(arguments).copied().collect::<Vec<_>>().join("_").replace('/', "_")
}

/// This host, with everything that is asked of it written to a folder.
#[derive(Debug)]
pub struct Recorder {
    root: PathBuf,
    /// The first thing that could not be written.
    failure: RefCell<Option<io::Error>>,
}

impl Recorder {
    /// Writes to a new folder.
    ///
    /// # Errors
    /// It is there already, or cannot be made.
    pub fn create(root: &Path) -> io::Result<Self> {
        fs::create_dir(root)?;
        Ok(Self { root: root.into(), failure: RefCell::new(None) })
    }

    /// Was everything written?
    ///
    /// # Errors
    /// The first thing that could not be.
    pub fn finish(self) -> io::Result<()> {
        self.failure.into_inner().map_or(Ok(()), Err)
    }

    fn keep(&self, attempt: impl FnOnce(&Path) -> io::Result<()>) {
        if let Err(error) = attempt(&self.root) {
            self.failure.borrow_mut().get_or_insert(error);
        }
    }

    fn write(&self, path: &str, text: &str) {
        self.keep(|root| {
            let file = root.join(path.trim_start_matches('/'));
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(file, text)
        });
    }

    /// Adds a line to a file of the tree, once.
    fn add(&self, path: &str, line: &str) {
        let mut text = fs::read_to_string(self.root.join(path)).unwrap_or_default();
        if !text.lines().any(|known| known == line) {
            text.push_str(line);
            text.push('\n');
            self.write(path, &text);
        }
    }

    /// Notes that something is there, without what is in it.
    fn mark(&self, path: &str) {
        let Ok(metadata) = fs::metadata(path) else { return };
        let target = self.root.join(path.trim_start_matches('/'));
        if metadata.is_dir() {
            self.keep(|_| fs::create_dir_all(target));
        } else if metadata.is_file() && !target.exists() {
            self.write(path, "");
        }
    }
}

impl Host for Recorder {
    fn read(&self, path: &str) -> Option<String> {
        let text = Live.read(path)?;
        self.write(path, &text);
        Some(text)
    }

    fn lines_with(&self, path: &str, words: &[&str]) -> Vec<String> {
        let lines = Live.lines_with(path, words);
        lines.iter().for_each(|line| self.add(path.trim_start_matches('/'), line));
        lines
    }

    fn list(&self, path: &str, prefix: &str) -> Vec<String> {
        let names = Live.list(path, prefix);
        self.mark(path);
        names.iter().for_each(|name| self.mark(&format!("{path}/{name}")));
        names
    }

    fn exists(&self, path: &str) -> bool {
        self.mark(path);
        Live.exists(path)
    }

    fn link(&self, path: &str) -> Option<String> {
        let target = Live.link(path)?;
        self.add(&format!("{OWN}/links"), &format!("{path} {target}"));
        Some(target)
    }

    fn node(&self, path: &str) -> Option<Node> {
        let node = Live.node(path)?;
        let Node { mode, owner, group, usable, .. } = &node;
        let usable = if *usable { "usable" } else { "closed" };
        self.add(&format!("{OWN}/nodes"), &format!("{path} {mode} {owner} {group} {usable}"));
        Some(node)
    }

    fn run(&self, program: &str, arguments: &[&str], words: &[&str]) -> Option<Ran> {
        let ran = Live.run(program, arguments, words)?;
        let code = ran.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        let path = format!("{OWN}/commands/{}", command_name(program, arguments));
        self.write(&path, &format!("exit {code}\n{}", ran.text));
        Some(ran)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let value = Live.variable(name)?;
        self.add(&format!("{OWN}/environment"), &format!("{name}={value}"));
        Some(value)
    }

    fn ask(&self, probe: Probe) -> Option<String> {
        let answer = Live.ask(probe)?;
        self.write(&format!("{OWN}/probes/{}", probe.name()), &format!("{}\n", answer.trim_end()));
        Some(answer)
    }
}
