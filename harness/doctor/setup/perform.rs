//! Doing the steps of a plan, each of which is undone if a later one fails.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use super::plan::{Action, CONFIGFS, MODULE, Step};
use crate::doctor::facts::thunderbolt::STREAMS;
use crate::doctor::host::{Host, Live};
use crate::error::{Context, Error, Result};
use crate::signals;

/// How long one wait for udev lasts, and how many there are.
const NAP: Duration = Duration::from_millis(50);
const MOST_NAPS: u32 = 60;

/// What set-up may do to a host.
pub trait Hands {
    /// May this process do it?
    fn is_root(&self) -> bool;
    /// Runs a command to its end.
    ///
    /// # Errors
    /// There is no such command, or it says that it failed.
    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<()>;
    /// Makes a folder; of those that are there already the error says so.
    ///
    /// # Errors
    /// The system refuses.
    fn make_folder(&self, path: &str) -> io::Result<()>;
    /// Takes a folder away.
    ///
    /// # Errors
    /// The system refuses.
    fn remove_folder(&self, path: &str) -> io::Result<()>;
    /// Writes to a file that is there, in one call.
    ///
    /// # Errors
    /// The system refuses.
    fn write(&self, path: &str, text: &str) -> io::Result<()>;
    /// Gives a file to a user.
    ///
    /// # Errors
    /// The system refuses.
    fn give(&self, path: &str, user: u32) -> io::Result<()>;
    /// Lets others (udev) work for a while.
    fn wait(&self, time: Duration);
}

impl Hands for Live {
    fn is_root(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<()> {
        match Host::run(self, program, arguments, &[]) {
            None => Err(io::Error::other("there is no such command")),
            Some(ran) if ran.code == Some(0) => Ok(()),
            Some(ran) if ran.code.is_none() => Err(io::Error::other("it does not end")),
            Some(ran) => Err(io::Error::other(crate::error::one_line(&ran.text))),
        }
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove_folder(&self, path: &str) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn write(&self, path: &str, text: &str) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
    }

    fn give(&self, path: &str, user: u32) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(user), None)
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Something that was done, and how to undo it.
enum Done {
    Loaded,
    Mounted,
    Made(String),
    Removed(String),
    Wrote(String),
    Gave(String, u32),
}

impl Done {
    fn undo(&self, hands: &dyn Hands) -> Result<()> {
        match self {
            Self::Loaded => {
                hands.run("modprobe", &["-r", MODULE]).context(|| format!("modprobe -r {MODULE}"))
            }
            Self::Mounted => hands.run("umount", &[CONFIGFS]).context(|| format!("umount {CONFIGFS}")),
            Self::Made(path) => hands.remove_folder(path).context(|| format!("rmdir {path}")),
            Self::Removed(path) => hands.make_folder(path).context(|| format!("mkdir {path}")),
            Self::Wrote(path) => hands.write(path, "0").context(|| format!("echo 0 > {path}")),
            Self::Gave(path, user) => hands.give(path, *user).context(|| format!("chown {user} {path}")),
        }
    }
}

/// Does the steps, and tells of each thing that was done. If one fails, or the user interrupts, what was done before is undone.
///
/// # Errors
/// What failed, with why, what to do about it, and what of the rest could not be undone.
pub fn perform(host: &dyn Host, hands: &dyn Hands, steps: &[Step], tell: &mut dyn FnMut(&str)) -> Result<()> {
    let mut deed = Deed { host, hands, tell, done: Vec::new() };
    let failed = steps.iter().try_for_each(|step| signals::check().and_then(|()| deed.act(&step.action)));
    let Err(failed) = failed else { return Ok(()) };
    let left: Vec<String> = deed
        .done
        .iter()
        .rev()
        .filter_map(|done| done.undo(hands).err())
        .map(|error| error.to_string())
        .collect();
    let undone = match (deed.done.len(), left.as_slice()) {
        (0, _) => "nothing was changed".to_owned(),
        (_, []) => "what was done before is undone".to_owned(),
        _ => format!("and this could not be undone: {}", left.join("; ")),
    };
    match failed {
        Error::Interrupted if left.is_empty() => Err(Error::Interrupted),
        failed => Err(Error::Run(format!("{failed}; {undone}"))),
    }
}

/// Steps under way.
struct Deed<'a> {
    host: &'a dyn Host,
    hands: &'a dyn Hands,
    tell: &'a mut dyn FnMut(&str),
    done: Vec<Done>,
}

impl Deed<'_> {
    fn did(&mut self, done: Done, command: &str) {
        self.done.push(done);
        (self.tell)(command);
    }

    fn act(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Load => {
                let command = format!("modprobe {MODULE}");
                self.hands.run("modprobe", &[MODULE]).context(|| command.clone())?;
                self.did(Done::Loaded, &command);
            }
            Action::Mount => {
                let command = format!("mount -t configfs none {CONFIGFS}");
                self.hands.run("mount", &["-t", "configfs", "none", CONFIGFS]).context(|| command.clone())?;
                self.did(Done::Mounted, &command);
            }
            Action::Remove(folder) => {
                let command = format!("rmdir {folder}");
                self.hands.remove_folder(folder).context(|| command.clone())?;
                self.did(Done::Removed(folder.clone()), &command);
            }
            Action::Make(folder) => self.make(folder)?,
            Action::Hops(folder) => {
                for way in ["in_hopid", "out_hopid"] {
                    self.hop(&format!("{folder}/{way}"))?;
                }
            }
            Action::Own(folder, user) => self.own(folder, *user)?,
        }
        Ok(())
    }

    /// The folder of a stream, and that of its service above it.
    fn make(&mut self, folder: &str) -> Result<()> {
        let group = folder.rsplit_once('/').map_or(STREAMS, |(group, _)| group);
        for path in [group, folder] {
            if self.host.exists(path) {
                continue;
            }
            let command = format!("mkdir {path}");
            self.hands.make_folder(path).context(|| command.clone())?;
            self.did(Done::Made(path.to_owned()), &command);
        }
        Ok(())
    }

    /// Has the kernel choose a HopID where there is none.
    fn hop(&mut self, path: &str) -> Result<()> {
        let read = |host: &dyn Host| host.line(path).unwrap_or_default();
        let before = read(self.host);
        if before != "0" {
            (self.tell)(&format!("# {path} is {before}: the other host has announced it"));
            return Ok(());
        }
        let command = format!("echo -1 > {path}");
        self.hands.write(path, "-1").map_err(|error| hop_refused(path, &error))?;
        self.did(Done::Wrote(path.to_owned()), &command);
        match read(self.host).as_str() {
            "0" | "" => Err(Error::Run(format!("{command}: and there is no HopID all the same"))),
            now => {
                (self.tell)(&format!("# it is {now}"));
                Ok(())
            }
        }
    }

    /// Gives the device file away, once udev has made it.
    fn own(&mut self, folder: &str, user: u32) -> Result<()> {
        let index = self.host.line(&format!("{folder}/index")).unwrap_or_default();
        let path = format!("/dev/tbstream{index}");
        for _ in 0..MOST_NAPS {
            if let Some(node) = self.host.node(&path) {
                let command = format!("chown {user} {path}");
                self.hands.give(&path, user).context(|| command.clone())?;
                self.did(Done::Gave(path, node.owner), &command);
                return Ok(());
            }
            signals::check()?;
            self.hands.wait(NAP);
        }
        let within = (NAP * MOST_NAPS).as_secs();
        Err(Error::Run(format!(
            "chown {user} {path}: it is not there after {within} s; udev makes it, and a container must be started with --device"
        )))
    }
}

/// Why the kernel does not give a HopID, as far as it says.
fn hop_refused(path: &str, error: &io::Error) -> Error {
    let why = match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EBUSY) => {
            "it is taken, or a program has the stream open: end that, or remove the other stream"
        }
        Some(nix::errno::Errno::ENOSPC) => {
            "all HopIDs of this cable are taken: remove another stream, or unload thunderbolt_net"
        }
        _ => "dmesg may say more",
    };
    Error::Run(format!("echo -1 > {path}: {error}: {why}"))
}
