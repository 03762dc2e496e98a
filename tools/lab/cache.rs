//! What the lab is made of: Debian packages, unpacked into a folder of ours. Nothing is installed.
//!
//! The first run downloads about 100 MB with `apt-get download`, as any user may, and unpacks it with `dpkg-deb -x`. Later runs
//! find the folder ready and ask the network nothing. What is half done when a run dies is done again: the mark that says "ready" comes last.

use crate::kernel;
use crate::report::Skip;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Changes when what is unpacked, or how, changes.
const LAYOUT: &str = "3";

/// What runs in the guest, apart from the kernel.
const GUEST_PACKAGES: [&str; 7] = [
    "busybox-static",
    "ibverbs-utils",
    "ibverbs-providers",
    "libibverbs1",
    "libnl-3-200",
    "libnl-route-3-200",
    "libc6",
];

/// What the guest's verbs program is compiled against.
const BUILD_PACKAGES: [&str; 3] = ["libc6-dev", "linux-libc-dev", "libibverbs-dev"];

/// The emulator. The libraries it needs are asked of apt.
const EMULATOR: &str = "qemu-system-x86";

/// The folder of unpacked packages.
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The folder, filled if it was not. `TBRDMA_LAB_DIR` names it; without, it is `target/lab` of this repository.
    ///
    /// # Errors
    /// [`Skip`] if this machine cannot get the packages; anything else is a fault of the lab.
    pub(crate) fn open() -> Result<Self> {
        let root = std::env::var_os("TBRDMA_LAB_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab"), PathBuf::from);
        fs::create_dir_all(&root)
            .with_context(|| format!("cannot create the lab's folder {}", root.display()))?;
        let cache = Self { root: root.canonicalize()? };
        // Of two that find it empty, one fills it and the other waits.
        let lock = File::create(cache.root.join("lock"))?;
        lock.lock()?;
        cache.remove_stale()?;
        if fs::read_to_string(cache.mark()).is_ok_and(|layout| layout == LAYOUT) {
            return Ok(cache);
        }
        println!("lab: unpacking Debian's kernel, qemu and rdma-core into {}, once", cache.root.display());
        cache.fill()?;
        fs::write(cache.mark(), LAYOUT)?;
        Ok(cache)
    }

    fn mark(&self) -> PathBuf {
        self.root.join("ready")
    }

    /// A file or folder of the guest's system.
    pub(crate) fn guest(&self, path: &str) -> PathBuf {
        self.root.join("guest").join(path)
    }

    /// A file or folder of the emulator's system.
    pub(crate) fn emulator(&self, path: &str) -> PathBuf {
        self.root.join("emulator").join(path)
    }

    /// The kernel as an ELF file, which qemu starts without a boot loader.
    pub(crate) fn vmlinux(&self) -> PathBuf {
        self.root.join("vmlinux")
    }

    /// The folder of the kernel's modules that the guest loads, and of the file `order`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("modules")
    }

    /// A file of this run.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.root.join(format!("run-{}-{name}", std::process::id()))
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

    fn fill(&self) -> Result<()> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb", "dpkg-query"] {
            if Command::new(tool).arg("--version").output().is_err() {
                return Err(
                    Skip::new(format!("this machine has no {tool} to get Debian's packages with")).into()
                );
            }
        }
        let apt = Apt::new(&self.root)?;
        let mut guest = vec![apt.kernel_package()?];
        guest.extend(GUEST_PACKAGES.iter().chain(&BUILD_PACKAGES).map(ToString::to_string));
        let emulator = apt.emulator_packages()?;
        let debs = self.root.join("debs");
        apt.download(&debs, guest.iter().chain(&emulator))?;
        for (packages, to) in [(&guest, self.guest("")), (&emulator, self.emulator(""))] {
            for package in packages {
                unpack(&find_deb(&debs, package)?, &to)?;
            }
        }
        kernel::extract(&self.guest("boot"), &self.vmlinux())?;
        kernel::select_modules(&self.guest("lib/modules"), &self.modules())?;
        // What is left of a kernel package is 400 MB that nobody needs.
        for done in [debs, self.guest("boot"), self.guest("lib/modules")] {
            fs::remove_dir_all(done)?;
        }
        Ok(())
    }
}

/// The package manager, asked and never told to install.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// apt with the machine's own package lists, or with lists of ours where it has none.
    fn new(root: &Path) -> Result<Self> {
        let mut apt = Self { options: vec!["APT::Sandbox::User=".into()] };
        if apt.run("apt-cache", &["show", EMULATOR]).is_ok() {
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

    fn run(&self, tool: &str, arguments: &[&str]) -> Result<String> {
        self.run_in(Path::new("."), tool, arguments)
    }

    /// What the tool said. That it failed is a reason to skip: no network, no such package, not Debian.
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

    /// The package of the newest kernel.
    fn kernel_package(&self) -> Result<String> {
        let said = self.run("apt-cache", &["depends", "linux-image-amd64"])?;
        said.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with("linux-image-"))
            .map(ToOwned::to_owned)
            .ok_or_else(|| Skip::new("apt knows no kernel behind linux-image-amd64".into()).into())
    }

    /// The emulator, and those libraries it needs that this machine does not have.
    fn emulator_packages(&self) -> Result<Vec<String>> {
        let no = [
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
        ];
        let mut arguments = vec!["depends", "--recurse"];
        arguments.extend(no);
        arguments.push(EMULATOR);
        let needed = self.run("apt-cache", &arguments)?;
        let here =
            Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}${Package}\n"]).output()?;
        let here = String::from_utf8_lossy(&here.stdout);
        let here: Vec<_> = here.lines().filter_map(|line| line.strip_prefix("ii ")).collect();
        let mut packages: Vec<_> = needed
            .lines()
            .filter(|name| ["lib", "qemu-system", "seabios"].iter().any(|start| name.starts_with(start)))
            .filter(|name| name.starts_with("qemu-system") || !here.contains(name))
            .map(ToOwned::to_owned)
            .collect();
        packages.sort();
        packages.dedup();
        Ok(packages)
    }

    fn download<'a>(&self, to: &Path, packages: impl Iterator<Item = &'a String>) -> Result<()> {
        fs::create_dir_all(to)?;
        let mut arguments = vec!["download", "-q"];
        arguments.extend(packages.filter(|package| find_deb(to, package).is_err()).map(String::as_str));
        if arguments.len() > 2 {
            self.run_in(to, "apt-get", &arguments)?;
        }
        Ok(())
    }
}

fn find_deb(folder: &Path, package: &str) -> Result<PathBuf> {
    let start = format!("{package}_");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&start) {
            return Ok(entry.path());
        }
    }
    bail!("apt-get downloaded no {package} into {}", folder.display())
}

fn unpack(deb: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let output = Command::new("dpkg-deb").arg("-x").args([deb, to]).output()?;
    ensure!(
        output.status.success(),
        "dpkg-deb cannot unpack {}: {}",
        deb.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
