//! A folder that is filled once, and kept between runs.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Files of ours that later runs find ready, and files of single runs.
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder, filled by `fill` if it was not, or was by another `layout`. What is half done when a run dies is done again: the mark
    /// that says "ready" comes last. Of two processes that find it empty, one fills it and the other waits.
    ///
    /// # Errors
    /// The folder cannot be made, or what `fill` says.
    pub fn open(root: PathBuf, layout: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| format!("cannot create the folder {}", root.display()))?;
        let folder = Self { root: root.canonicalize()? };
        let lock = File::create(folder.path("lock"))?;
        lock.lock()?;
        folder.remove_stale()?;
        let mark = folder.path("ready");
        if !fs::read_to_string(&mark).is_ok_and(|filled| filled == layout) {
            fill(&folder.root)?;
            fs::write(mark, layout)?;
        }
        Ok(folder)
    }

    /// A file or folder in it.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A file of this run.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.path(format!("run-{}-{name}", std::process::id()))
    }

    /// Removes what runs that were killed have left.
    fn remove_stale(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let process =
                name.strip_prefix("run-").and_then(|rest| rest.split_once('-')).map(|(process, _)| process);
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
