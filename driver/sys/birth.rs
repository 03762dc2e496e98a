//! When a process began: what tells it from a later one that has its number.

/// When a process began, in ticks since the system did; none if there is no such process.
pub(crate) fn birth_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22, counted behind the name, which may hold anything but ends with the last parenthesis. A zombie holds nothing.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let is_over = matches!(fields.next()?, "Z" | "X");
    let birth = fields.nth(18)?.parse().ok()?;
    (!is_over).then_some(birth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lives_has_a_birth_and_who_has_ended_has_none() {
        let own = birth_of(std::process::id()).unwrap();
        assert_eq!(birth_of(std::process::id()), Some(own));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(birth_of(child.id()).unwrap() >= own);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(birth_of(child.id()), None);
    }
}
