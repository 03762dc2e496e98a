//! Raw streams over a cable (`/dev/tbstreamX`, Linux 7.2): how far their set-up has come.
//!
//! The way there is a list of steps, in order: [`next_step`] finds the first that is not done. Who wants to do them has the command in it.

use crate::doctor::facts::Facts;
use crate::doctor::facts::modules::State;
use crate::doctor::facts::thunderbolt::STREAMS;
use crate::doctor::finding::Finding;

const ID: &str = "thunderbolt.stream";
const MODULE: &str = "thunderbolt_stream";

/// What is to be said of streams, on a host with a controller.
pub(super) fn judge(facts: &Facts) -> Finding {
    let thunderbolt = &facts.thunderbolt;
    if let Some(closed) = thunderbolt.nodes.iter().find(|node| !node.usable) {
        return Finding::problem(ID, format!("{} may not be opened by this user", closed.path))
            .about(&closed.path)
            .seen(&closed.path, format!("{}, owner {}, group {}", closed.mode, closed.owner, closed.group))
            .remedy(format!("sudo chown $USER {}", closed.path));
    }
    if let Some(step) = next_step(facts) {
        return Finding::note(ID, format!("no raw stream over the cable: {}", step.missing))
            .seen(step.file, step.said)
            .why("a stream carries bytes to the other host without the network stack; no device of tbrdma uses one yet")
            .remedy(step.remedy);
    }
    let streams = thunderbolt.streams.iter();
    let title = format!("raw streams over the cable: {}", thunderbolt.nodes.len());
    streams.fold(Finding::ok(ID, title), |finding, stream| {
        let [inwards, outwards] = stream.hops.each_ref().map(|hop| hop.as_deref().unwrap_or("unknown"));
        let index = stream.index.as_deref().unwrap_or("?");
        finding.seen(
            format!("{STREAMS}/{}", stream.name),
            format!("/dev/tbstream{index}, in HopID {inwards}, out HopID {outwards}"),
        )
    })
}

/// A step that is not done.
struct Step {
    missing: String,
    file: String,
    said: String,
    remedy: String,
}

fn next_step(facts: &Facts) -> Option<Step> {
    let thunderbolt = &facts.thunderbolt;
    let (file, said) = facts.modules.evidence(MODULE);
    let step = |missing: &str, file: String, said: String, remedy: String| {
        Some(Step { missing: missing.to_owned(), file, said, remedy })
    };
    match facts.modules.state(MODULE) {
        _ if thunderbolt.stream_folder => {}
        State::Present | State::BuiltIn if !thunderbolt.configfs => {
            let remedy = "sudo mount -t configfs none /sys/kernel/config".to_owned();
            return step("configfs is not mounted", "/proc/mounts".into(), "no configfs".into(), remedy);
        }
        State::Present | State::BuiltIn => {
            let remedy = "the kernel needs CONFIG_USB4_CONFIGFS".to_owned();
            return step("it has no place in configfs", STREAMS.into(), "is not there".into(), remedy);
        }
        State::Available => {
            return step("the module is not loaded", file, said, format!("sudo modprobe {MODULE}"));
        }
        State::Missing if before_7_2(&facts.release) => {
            let (file, said) = ("/proc/sys/kernel/osrelease".to_owned(), facts.release.clone());
            return step("this kernel is older than 7.2", file, said, "a kernel from 7.2 on has them".into());
        }
        State::Missing | State::Unknown => {
            let remedy = "a kernel with CONFIG_USB4_STREAM, and its modules installed".to_owned();
            return step("this kernel has no module for them", file, said, remedy);
        }
    }
    let service =
        thunderbolt.peers.first().map_or_else(|| "0-1.0".to_owned(), |peer| format!("{}.0", peer.name));
    if thunderbolt.streams.is_empty() {
        let folder = format!("{STREAMS}/{service}/data");
        let remedy = format!(
            "sudo mkdir -p {folder}; echo -1 | sudo tee {folder}/in_hopid {folder}/out_hopid; and the same mkdir on the other host"
        );
        return step("none is set up", STREAMS.into(), "is empty".into(), remedy);
    }
    let idle = |stream: &&crate::doctor::facts::thunderbolt::Stream| {
        stream.hops.iter().any(|hop| hop.as_deref() == Some("0"))
    };
    if let Some(stream) = thunderbolt.streams.iter().find(idle) {
        let folder = format!("{STREAMS}/{}", stream.name);
        let remedy = format!("echo -1 | sudo tee {folder}/in_hopid {folder}/out_hopid");
        return step("one has no HopIDs", format!("{folder}/in_hopid"), "0".into(), remedy);
    }
    if thunderbolt.nodes.is_empty() {
        let remedy = "look whether the other host is plugged in and has a stream of the same name".to_owned();
        return step(
            "it is set up, and no device file is there",
            "/dev/tbstream*".into(),
            "not there".into(),
            remedy,
        );
    }
    None
}

/// Releases begin with two numbers.
fn before_7_2(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (7, 2),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::before_7_2;

    #[test]
    fn releases_are_compared_by_number() {
        assert!(before_7_2("6.18.44-generic") && before_7_2("7.1.0") && before_7_2("6.1-rc3"));
        assert!(!before_7_2("7.2.0-rc1") && !before_7_2("7.10.0") && !before_7_2("10.0") && !before_7_2(""));
    }
}
