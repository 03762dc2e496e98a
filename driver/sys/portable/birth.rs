//! Whether a process is there. When it began is not told, so a later one with its number is taken for it.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Zero for a process that there is; none if there is no such process.
pub(crate) fn birth_of(pid: u32) -> Option<u64> {
    // Zero and below would mean groups of processes.
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    match kill(Pid::from_raw(pid), None) {
        Ok(()) | Err(Errno::EPERM) => Some(0),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lives_is_there_and_who_has_ended_is_not() {
        assert_eq!(birth_of(std::process::id()), Some(0));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(birth_of(child.id()), Some(0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(birth_of(child.id()), None);
        assert_eq!(birth_of(0), None);
        assert_eq!(birth_of(u32::MAX), None);
    }
}
