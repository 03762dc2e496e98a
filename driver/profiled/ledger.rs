//! The ledger: what programs of this user hold of devices with `ledger=on`, in a file that survives them. A program that ends in order takes its
//! line away. One that is killed leaves it, and what it held stays taken, as on a Mac until it is booted: until [`clear`] here.
//!
//! The file is `ledger` in `$XDG_RUNTIME_DIR/tbrdma`, which lasts as long as the user's sessions do, or without that variable in a folder of the
//! user's among temporary files; `TBRDMA_LEDGER` names another. A line is `PROCESS BIRTH QPS MRS PDS CQS DEVICE`.

use crate::error::{Error, Result};
use crate::sys::birth::birth_of;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// The most of the file that is read: more than any number of live programs writes.
const MOST_BYTES: u64 = 1 << 20;

/// Queue pairs, memory regions, protection domains, completion queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) [u32; 4]);

/// What one program holds, or held when it was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holding {
    /// The device's name.
    pub device: String,
    /// The process.
    pub pid: u32,
    /// Whether it lives.
    pub alive: bool,
    /// Queue pairs.
    pub qps: u32,
    /// Memory regions.
    pub mrs: u32,
    /// Protection domains.
    pub pds: u32,
    /// Completion queues.
    pub cqs: u32,
    /// When it began, in the system's ticks: tells it from a later process of the same number.
    birth: u64,
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, pid, alive, qps, mrs, pds, cqs, .. } = self;
        let life = if *alive { "alive" } else { "dead" };
        write!(f, "{device}: process {pid} ({life}): {qps} QPs, {mrs} MRs, {pds} PDs, {cqs} CQs")
    }
}

impl Holding {
    fn line(&self) -> String {
        let Self { device, pid, birth, qps, mrs, pds, cqs, .. } = self;
        format!("{pid} {birth} {qps} {mrs} {pds} {cqs} {device}\n")
    }

    /// Reads a line; none if it is not one.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(7, ' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (pid, birth) = (u32::try_from(number()?).ok()?, number()?);
        let mut count = || number().map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let (qps, mrs, pds, cqs) = (count()?, count()?, count()?, count()?);
        let device = words.next()?.to_owned();
        Some(Self { device, pid, alive: birth_of(pid) == Some(birth), qps, mrs, pds, cqs, birth })
    }

    const fn counts(&self) -> Counts {
        Counts([self.qps, self.mrs, self.pds, self.cqs])
    }
}

/// What is written down now, also of the dead.
///
/// # Errors
/// The file cannot be read.
pub fn held() -> Result<Vec<Holding>> {
    Book::open()?.read()
}

/// Gives back what is left of programs that are dead: how many they were. What the living hold stays.
///
/// # Errors
/// The file cannot be written.
pub fn clear() -> Result<usize> {
    let mut book = Book::open()?;
    let mut all = book.read()?;
    let before = all.len();
    all.retain(|holding| holding.alive);
    book.write(&all)?;
    Ok(before - all.len())
}

/// The line of this process about one device.
pub(super) struct Entry {
    device: String,
    pid: u32,
    birth: u64,
}

impl Entry {
    pub(super) fn open(device: &str) -> Result<Self> {
        let pid = std::process::id();
        Book::open()?;
        Ok(Self { device: device.to_owned(), pid, birth: birth_of(pid).unwrap_or_default() })
    }

    /// Opens the book, for this process alone until the page is dropped.
    pub(super) fn turn_to(&self) -> Result<Page<'_>> {
        let mut book = Book::open()?;
        let mut others = book.read()?;
        others.retain(|holding| {
            holding.pid != self.pid || holding.birth != self.birth || holding.device != self.device
        });
        Ok(Page { entry: self, book, others })
    }
}

/// The open book, as one of its entries sees it.
pub(super) struct Page<'a> {
    entry: &'a Entry,
    book: Book,
    others: Vec<Holding>,
}

impl Page<'_> {
    /// What all others hold of this device.
    pub(super) fn elsewhere(&self) -> Counts {
        let mut sum = Counts::default();
        for holding in self.others.iter().filter(|holding| holding.device == self.entry.device) {
            for (sum, count) in sum.0.iter_mut().zip(holding.counts().0) {
                *sum = sum.saturating_add(count);
            }
        }
        sum
    }

    /// Writes down what this process holds now.
    pub(super) fn record(&mut self, counts: &Counts) -> Result<()> {
        let mut all = self.others.clone();
        let [qps, mrs, pds, cqs] = counts.0;
        if *counts != Counts::default() {
            let Entry { device, pid, birth } = self.entry;
            let device = device.clone();
            all.push(Holding { device, pid: *pid, alive: true, qps, mrs, pds, cqs, birth: *birth });
        }
        self.book.write(&all)
    }
}

/// The file, locked while it is open.
struct Book(File);

impl Book {
    fn open() -> Result<Self> {
        let os = |source| Error::Os {
            call: "ledger",
            what: "the file of resources held, see TBRDMA_LEDGER",
            source,
        };
        let path = path();
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(os)?;
            // Among temporary files anybody may have made a folder of that name.
            if folder.symlink_metadata().map_err(os)?.uid() != crate::sys::process::effective_user_id() {
                let reason = format!(
                    "{} belongs to another user: set XDG_RUNTIME_DIR or TBRDMA_LEDGER",
                    folder.display()
                );
                return Err(Error::InvalidArgument { call: "ledger", reason });
            }
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(os)?;
        // Held for moments; the kernel lets go of a dead process' lock.
        file.lock().map_err(os)?;
        Ok(Self(file))
    }

    /// All lines that make sense.
    fn read(&mut self) -> Result<Vec<Holding>> {
        let mut text = Vec::new();
        let mut from = || {
            self.0.rewind()?;
            (&self.0).take(MOST_BYTES).read_to_end(&mut text)
        };
        from().map_err(Error::os("ledger", "read the file of resources held"))?;
        Ok(String::from_utf8_lossy(&text).lines().filter_map(Holding::parse).collect())
    }

    fn write(&mut self, all: &[Holding]) -> Result<()> {
        let text: String = all.iter().map(Holding::line).collect();
        let mut to = || {
            self.0.rewind()?;
            self.0.set_len(0)?;
            self.0.write_all(text.as_bytes())
        };
        to().map_err(Error::os("ledger", "write the file of resources held"))
    }
}

fn path() -> PathBuf {
    let named = |variable| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = named("TBRDMA_LEDGER") {
        return path;
    }
    let folder = match named("XDG_RUNTIME_DIR") {
        Some(folder) => folder.join("tbrdma"),
        None => std::env::temp_dir().join(format!("tbrdma-{}", crate::sys::process::effective_user_id())),
    };
    folder.join("ledger")
}
