//! Debian's packages: downloaded with `apt-get download`, as any user may, and unpacked with `dpkg-deb -x` into a folder of ours. Nothing is
//! installed.

use crate::Skip;
use anyhow::{Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package manager, asked and never told to install.
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// apt with the machine's own package lists, or with lists of ours, in `root`, where it has none: where it does not know the package `known`.
    ///
    /// # Errors
    /// [`Skip`] if this machine has no apt, or no network.
    pub fn new(root: &Path, known: &str) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb", "dpkg-query"] {
            if Command::new(tool).arg("--version").output().is_err() {
                return Err(
                    Skip::new(format!("this machine has no {tool} to get Debian's packages with")).into()
                );
            }
        }
        let mut apt = Self { options: vec!["APT::Sandbox::User=".into()] };
        if apt.run("apt-cache", &["show", known]).is_ok() {
            return Ok(apt);
        }
        let lists = root.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        apt.options.push(format!("Dir::State::lists={}", lists.display()));
        apt.options.push(format!("Dir::Cache={}", root.join("apt").display()));
        fs::create_dir_all(root.join("apt/archives/partial"))?;
        apt.run("apt-get", &["update"])?;
        Ok(apt)
    }

    /// What the tool said.
    ///
    /// # Errors
    /// [`Skip`]: that it failed is a reason to skip, for there is no network, no such package, or it is not Debian.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> Result<String> {
        self.run_in(Path::new("."), tool, arguments)
    }

    fn run_in(&self, folder: &Path, tool: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tool);
        for option in &self.options {
            command.args(["-o", option]);
        }
        let output = command.args(arguments).current_dir(folder).env("LC_ALL", "C").output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
            return Err(Skip::new(format!("`{tool} {}` failed: {last}", arguments.join(" "))).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Downloads packages into a folder, those that are not there yet.
    ///
    /// # Errors
    /// [`Skip`] if they cannot be had.
    pub fn download<'a>(&self, to: &Path, packages: impl Iterator<Item = &'a str>) -> Result<()> {
        fs::create_dir_all(to)?;
        let mut arguments = vec!["download", "-q"];
        arguments.extend(packages.filter(|package| find(to, package).is_err()));
        if arguments.len() > 2 {
            self.run_in(to, "apt-get", &arguments)?;
        }
        Ok(())
    }
}

/// Unpacks a package that was downloaded into `from`.
///
/// # Errors
/// It was not, or is damaged.
pub fn unpack(from: &Path, package: &str, to: &Path) -> Result<()> {
    let deb = find(from, package)?;
    fs::create_dir_all(to)?;
    let output = Command::new("dpkg-deb").arg("-x").args([&deb, to]).output()?;
    ensure!(
        output.status.success(),
        "dpkg-deb cannot unpack {}: {}",
        deb.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn find(folder: &Path, package: &str) -> Result<PathBuf> {
    let start = format!("{package}_");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&start) {
            return Ok(entry.path());
        }
    }
    bail!("apt-get downloaded no {package} into {}", folder.display())
}
