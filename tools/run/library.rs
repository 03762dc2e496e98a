//! Where the drop-in library is, and a folder in which a loader finds it by the names that programs ask for.
//!
//! Installed, both lie beside each other: `PREFIX/bin/tbrdma-run`, and `PREFIX/lib/tbrdma` with the library under all its names. In a build
//! tree there is only `libibverbs.so`, so a folder of links is made beside it, once; it is part of the tree, and goes with it.

use anyhow::{Context, Result, bail, ensure};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The library as Cargo names it.
const BUILT: &str = "libibverbs.so";
/// The names under which programs ask for it: those that were linked with rdma-core's, and those that were written for a Mac.
const NAMES: [&str; 2] = ["libibverbs.so.1", "librdma.dylib"];
/// The folder of links in a build tree.
const LINKS: &str = "tbrdma";
/// What pretends device files.
const PATHS: &str = "libtbrdma_paths.so";

/// The drop-in library.
pub(crate) struct Library {
    /// The folder for the loader to look in.
    pub(crate) folder: PathBuf,
    /// Where [`PATHS`] is, if it is anywhere.
    paths: PathBuf,
}

impl Library {
    /// The library that belongs to this program.
    pub(crate) fn find() -> Result<Self> {
        let program = std::env::current_exe().context("the system does not say where tbrdma-run lies")?;
        let bin = program.parent().context("tbrdma-run lies in no folder")?;
        let built = bin.join(BUILT);
        if built.exists() {
            let folder = bin.join(LINKS);
            make_links(&folder).with_context(|| {
                format!("cannot make links to {} in {}", built.display(), folder.display())
            })?;
            return Ok(Self { folder, paths: bin.join(PATHS) });
        }
        let installed = bin.parent().map(|prefix| prefix.join("lib/tbrdma")).unwrap_or_default();
        if installed.join(NAMES[0]).exists() {
            return Ok(Self { paths: installed.join(PATHS), folder: installed });
        }
        bail!(
            "there is no drop-in library: neither {} (build it: cargo build --release --package tbrdma-ibverbs) nor {}",
            built.display(),
            installed.join(NAMES[0]).display()
        )
    }

    /// What pretends device files.
    pub(crate) fn paths(&self) -> Result<&Path> {
        ensure!(
            self.paths.exists(),
            "--device-files needs {}; build it: cargo build --release --package tbrdma-preload",
            self.paths.display()
        );
        Ok(&self.paths)
    }
}

/// Several processes may do this at once, and any of them may be killed while it does.
fn make_links(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let target = Path::new("..").join(BUILT);
    for name in NAMES {
        match symlink(&target, folder.join(name)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    Ok(())
}
