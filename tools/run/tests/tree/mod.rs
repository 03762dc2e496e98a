//! Trees of files with a `tbrdma-run` in them, as a build makes one and as an installation does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What stands for the library: nobody loads it.
pub(crate) const LIBRARY: &str = "the library";

/// Removed when it is dropped.
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn built(name: &str) -> Self {
        let tree = Self::without_library(name);
        tree.write("bin/libibverbs.so");
        tree
    }

    pub(crate) fn installed(name: &str) -> Self {
        let tree = Self::without_library(name);
        tree.write("lib/tbrdma/libibverbs.so.1");
        tree.write("lib/tbrdma/librdma.dylib");
        tree
    }

    pub(crate) fn without_library(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(root.join("bin")).expect("a folder");
        let tree = Self(root.canonicalize().expect("it is there"));
        let program = Path::new(env!("CARGO_BIN_EXE_tbrdma-run"));
        // A symbolic link would lead the program to where it was built, and a file that was just written cannot always be started.
        std::fs::hard_link(program, tree.path("bin/tbrdma-run")).expect("a link");
        tree
    }

    fn write(&self, path: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        std::fs::write(path, LIBRARY).expect("a file");
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// tbrdma-run of this tree, in an environment without settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin/tbrdma-run"));
        command.args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TBRDMA_") {
                command.env_remove(name);
            }
        }
        command.env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it starts")
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
