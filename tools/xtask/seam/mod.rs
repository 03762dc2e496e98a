//! `cargo xtask seam`: what is Linux's and what is not. The list of every place that tells systems apart (docs/platforms.md), the build of what
//! other systems get, and that build for a Mac as far as it can be made here.

mod list;
mod names;

use crate::cargo::root;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The crates that are for every system; the others say themselves that they are for Linux.
const CRATES: [&str; 6] =
    ["tbrdma-proto", "tbrdma-abi", "tbrdma", "tbrdma-bench", "tbrdma-settings", "xtask"];
/// A Mac with Thunderbolt 5.
const MAC: &str = "aarch64-apple-darwin";
/// Where the list is.
const LIST: &str = "docs/platforms.md";

/// Shows that the part for all systems is built without Linux, and for a Mac; and that docs/platforms.md lists all that differs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write docs/platforms.md anew, and nothing else.
    #[arg(long)]
    write: bool,
    /// Run the tests of the part for all systems as well: proto's, the library's own and those of the device sim. It takes a few minutes.
    #[arg(long)]
    test: bool,
}

pub(crate) fn main(args: &Args) -> ExitCode {
    let root = root();
    let done = if args.write {
        list::write(&root)
    } else {
        list::check(&root).and_then(|()| portable(&root, args.test)).and_then(|()| mac(&root))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask seam: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Where what is built for this is kept, apart from the rest: other flags would have everything built anew.
fn built(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("seam")
}

fn cargo(root: &Path, words: &[&str], crates: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(words).arg("--locked").env("CARGO_TARGET_DIR", built(root));
    for name in crates {
        cargo.args(["--package", name]);
    }
    cargo
}

fn run(mut command: Command, what: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("{what} fails: see above")),
        Err(error) => Err(format!("cannot start {}: {error}", command.get_program().display())),
    }
}

/// What other systems get, built here.
fn portable(root: &Path, test: bool) -> Result<(), String> {
    let flags = "--cfg tbrdma_portable -D warnings";
    let mut check = cargo(root, &["check", "--quiet"], &CRATES);
    check.env("RUSTFLAGS", flags);
    run(check, "the build without what only Linux has")?;
    println!("built without what only Linux has: {}", CRATES.join(", "));
    if test {
        for (name, part) in [("tbrdma-proto", &[][..]), ("tbrdma", &["--lib", "--test", "sim_*"][..])] {
            let mut tests = cargo(root, &["test", "--quiet"], &[name]);
            tests.args(part).env("RUSTFLAGS", flags);
            run(tests, &format!("the tests of {name} without what only Linux has"))?;
        }
    }
    Ok(())
}

/// The same for a Mac, type-checked against Apple's libc; linking and running need a Mac.
fn mac(root: &Path) -> Result<(), String> {
    if !has_std(MAC) {
        names::check(root, &built(root))?;
        println!("skipped: the build for a Mac; `rustup target add {MAC}` brings what it needs");
        return Ok(());
    }
    let mut check = cargo(root, &["check", "--quiet", "--target", MAC], &CRATES);
    check.env("RUSTFLAGS", "-D warnings");
    run(check, "the build for a Mac")?;
    println!("checked for {MAC}: {}", CRATES.join(", "));
    Ok(())
}

/// Is the standard library there for this target?
fn has_std(target: &str) -> bool {
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let folder = asked.ok().and_then(|answer| String::from_utf8(answer.stdout).ok()).unwrap_or_default();
    Path::new(folder.trim()).is_dir()
}
