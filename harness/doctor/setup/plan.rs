//! What is still to be done until there is a raw stream over a cable (`/dev/tbstreamX`, Linux 7.2), and what only others can do.
//!
//! The kernel's side of it: the module takes the other host's service `stream`; a folder in configfs, of which the name is the same on
//! both hosts, makes the device file; HopIDs, one for each way, join the two. Where the other host has its folder already, a new one here
//! begins with the HopIDs that it announces; where it has not, -1 takes free ones, and these are announced to it.

use crate::doctor::facts::Facts;
use crate::doctor::facts::modules::State;
use crate::doctor::facts::thunderbolt::{Peer, STREAMS, Stream};

/// The module.
pub const MODULE: &str = "thunderbolt_stream";
/// How a stream is called, if nobody says otherwise.
pub const NAME: &str = "tbrdma";
/// Most letters of its name: it is announced as a key of XDomain properties.
pub const MOST_LETTERS: usize = 8;
/// Where configfs belongs.
pub const CONFIGFS: &str = "/sys/kernel/config";
/// The first HopID that streams may have.
const FIRST_HOP: i32 = 8;
/// Stands for a HopID that the kernel chooses.
const ANY_HOP: i32 = -1;
/// The other host's service.
const STREAM_SERVICE: &str = "stream";
const BUS: &str = "/sys/bus/thunderbolt/devices";

/// What somebody wants.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The host at the other end, as `0-1`; `None` if there is only one.
    pub peer: Option<String>,
    /// The name of the stream; `None`: any that is there, or a new one called [`NAME`].
    pub stream: Option<String>,
    /// The user who is to own the device file; `None` leaves it as it is.
    pub owner: Option<u32>,
}

/// Something to be done on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Load [`MODULE`].
    Load,
    /// Mount configfs at [`CONFIGFS`].
    Mount,
    /// Take away the folder of a stream without HopIDs, so that a new one takes those which the other host announces.
    Remove(String),
    /// Make the folder of a stream, and that of its service.
    Make(String),
    /// Have the kernel choose HopIDs for the ways of the stream in this folder that have none.
    Hops(String),
    /// Give the device file of the stream in this folder to a user.
    Own(String, u32),
}

impl Action {
    /// The commands for a shell of root.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        match self {
            Self::Load => vec![format!("modprobe {MODULE}")],
            Self::Mount => vec![format!("mount -t configfs none {CONFIGFS}")],
            Self::Remove(folder) => vec![format!("rmdir {folder}")],
            Self::Make(folder) => vec![format!("mkdir -p {folder}")],
            Self::Hops(folder) => {
                let take = |way: &str| format!("grep -qx 0 {way}_hopid && echo -1 > {way}_hopid");
                vec![format!("cd {folder}"), take("in"), take("out")]
            }
            Self::Own(folder, user) => vec![format!("chown {user} /dev/tbstream$(cat {folder}/index)")],
        }
    }
}

/// A step that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is missing, in words.
    pub missing: String,
    /// The file that says so.
    pub source: String,
    /// What it says.
    pub said: String,
    /// What does it.
    pub action: Action,
}

/// What this host alone cannot get over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What is wrong or missing, in words.
    pub missing: String,
    /// The file that says so.
    pub source: String,
    /// What it says.
    pub said: String,
    /// What to do.
    pub remedy: String,
    /// Is there something that does not work? Otherwise something is not there, and need not be.
    pub ill: bool,
}

impl Obstacle {
    fn absent(missing: &str, source: &str, said: &str, remedy: impl Into<String>) -> Self {
        let (missing, source, said) = (missing.into(), source.into(), said.into());
        Self { missing, source, said, remedy: remedy.into(), ill: false }
    }

    fn ill(missing: &str, source: &str, said: &str, remedy: impl Into<String>) -> Self {
        Self { ill: true, ..Self::absent(missing, source, said, remedy) }
    }
}

/// How far it is to a stream to one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The other host, in words.
    pub peer: Option<String>,
    /// What is to be done here, in order.
    pub steps: Vec<Step>,
    /// What stands in the way after these steps.
    pub obstacle: Option<Obstacle>,
    /// The stream, as `0-1.1/tbrdma`, once it is there and nothing is to be done.
    pub ready: Option<String>,
    /// Its device file.
    pub device: Option<String>,
}

impl Plan {
    /// What is to be done on a host to get what somebody wants.
    #[must_use]
    pub fn of(facts: &Facts, wish: &Wish) -> Self {
        let mut plan = Self::default();
        if let Err(obstacle) = plan.find(facts, wish) {
            plan.obstacle = Some(obstacle);
        }
        plan
    }

    /// What is to be done about a stream that has a folder, and nothing about others.
    #[must_use]
    pub fn of_stream(facts: &Facts, stream: &Stream) -> Self {
        let mut plan = Self::default();
        if let Err(obstacle) = plan.look_at(facts, stream) {
            plan.obstacle = Some(obstacle);
        }
        plan
    }

    fn look_at(&mut self, facts: &Facts, stream: &Stream) -> Result<(), Obstacle> {
        self.module(facts)?;
        let wish = Wish { peer: Some(stream.host().to_owned()), ..Wish::default() };
        let peer = choose(&facts.thunderbolt.peers, &wish)?;
        self.peer = Some(format!("{} at {}", peer.says(), peer.name));
        let key = format!("{BUS}/{}/key", stream.service());
        match peer.services.iter().find(|service| service.name == stream.service()) {
            Some(service) if service.key == STREAM_SERVICE => self.existing(facts, stream, &Wish::default()),
            Some(service) => {
                let right = peer
                    .service(STREAM_SERVICE)
                    .map(|right| format!(" (it is {})", right.name))
                    .unwrap_or_default();
                Err(Obstacle::ill(
                    &format!("{} is of a service that is no stream", stream.name),
                    &key,
                    &service.key,
                    format!(
                        "for root: rmdir {}; the folder's name must be that of the service stream{right}",
                        stream.folder()
                    ),
                ))
            }
            None => Err(no_service(peer)),
        }
    }

    fn find(&mut self, facts: &Facts, wish: &Wish) -> Result<(), Obstacle> {
        self.module(facts)?;
        let peer = choose(&facts.thunderbolt.peers, wish)?;
        self.peer = Some(format!("{} at {}", peer.says(), peer.name));
        let service = peer.service(STREAM_SERVICE).ok_or_else(|| no_service(peer))?;
        let streams = &facts.thunderbolt.streams;
        let of_service = |stream: &&Stream| stream.service() == service.name;
        let found = match &wish.stream {
            Some(name) => streams.iter().filter(of_service).find(|stream| stream.label() == name),
            None => streams.iter().find(of_service),
        };
        match found {
            Some(stream) => self.existing(facts, stream, wish),
            None => {
                let name = wish.stream.as_deref().unwrap_or(NAME);
                let folder = format!("{STREAMS}/{}/{name}", service.name);
                self.step("none is set up", &folder, "is not there", Action::Make(folder.clone()));
                self.hops(&folder);
                self.own(&folder, wish);
                Ok(())
            }
        }
    }

    /// The module, and configfs below it.
    fn module(&mut self, facts: &Facts) -> Result<(), Obstacle> {
        let thunderbolt = &facts.thunderbolt;
        if thunderbolt.domains.is_empty() {
            let said = if thunderbolt.bus { "is empty" } else { "is not there" };
            let remedy = "tbrdma-bench doctor says more";
            return Err(Obstacle::absent(
                "this host has no Thunderbolt or USB4 controller",
                BUS,
                said,
                remedy,
            ));
        }
        if thunderbolt.stream_folder {
            return Ok(());
        }
        let (source, said) = facts.modules.evidence(MODULE);
        let mount = |plan: &mut Self| {
            if !thunderbolt.configfs {
                plan.step("configfs is not mounted", "/proc/mounts", "no configfs", Action::Mount);
            }
        };
        match facts.modules.state(MODULE) {
            State::Present | State::BuiltIn if !thunderbolt.configfs => mount(self),
            State::Present | State::BuiltIn => {
                let remedy =
                    "the kernel needs CONFIG_CONFIGFS_FS, and CONFIG_USB4_CONFIGFS beside CONFIG_USB4_STREAM";
                return Err(Obstacle::absent("it has no place in configfs", STREAMS, "is not there", remedy));
            }
            State::Available => {
                self.step("the module is not loaded", &source, &said, Action::Load);
                mount(self);
            }
            State::Missing | State::Unknown if before_7_2(&facts.release) => {
                return Err(Obstacle::absent(
                    "this kernel is older than 7.2",
                    "/proc/sys/kernel/osrelease",
                    &facts.release,
                    "a kernel from 7.2 on has them; until then the network over the cable does: modprobe thunderbolt-net, and --device \
                     udp:thunderbolt0",
                ));
            }
            State::Missing | State::Unknown => {
                let remedy = "a kernel with CONFIG_USB4_STREAM, and its modules installed";
                return Err(Obstacle::absent("this kernel has no module for them", &source, &said, remedy));
            }
        }
        Ok(())
    }

    /// A stream that has a folder.
    fn existing(&mut self, facts: &Facts, stream: &Stream, wish: &Wish) -> Result<(), Obstacle> {
        let folder = stream.folder();
        let said = |way: usize| stream.hops.get(way).cloned().flatten().unwrap_or_else(|| "nothing".into());
        let [inwards, outwards] = stream.hop_ids();
        match (inwards, outwards) {
            (Some(0), Some(0)) => {
                let source = format!("{folder}/in_hopid");
                self.step(
                    &format!("{} has no HopIDs", stream.name),
                    &source,
                    "0",
                    Action::Remove(folder.clone()),
                );
                self.step(
                    "none is set up",
                    &folder,
                    "begins with what the other host announces",
                    Action::Make(folder.clone()),
                );
                self.hops(&folder);
            }
            (Some(0), _) | (_, Some(0)) => {
                let source = format!("{folder}/{}_hopid", if inwards == Some(0) { "in" } else { "out" });
                self.step(
                    &format!("{} has no HopID for one way", stream.name),
                    &source,
                    "0",
                    Action::Hops(folder.clone()),
                );
            }
            (Some(ANY_HOP), _) | (_, Some(ANY_HOP)) => {
                return Err(Obstacle::absent(
                    &format!("{} waits for its HopIDs", stream.name),
                    &format!("{folder}/in_hopid, out_hopid"),
                    &format!("{}, {}", said(0), said(1)),
                    format!(
                        "they are taken when the other host's service {} comes: plug the cable in, and load {MODULE} there",
                        stream.service()
                    ),
                ));
            }
            (Some(inwards), Some(outwards)) if inwards >= FIRST_HOP && outwards >= FIRST_HOP => {}
            _ => {
                return Err(Obstacle::ill(
                    &format!("{} has HopIDs that are none", stream.name),
                    &format!("{folder}/in_hopid, out_hopid"),
                    &format!("{}, {}", said(0), said(1)),
                    format!(
                        "for root: cd {folder}; echo 0 > in_hopid; echo 0 > out_hopid; and once more tbrdma-bench doctor --setup"
                    ),
                ));
            }
        }
        if !self.steps.is_empty() {
            self.own(&folder, wish);
            return Ok(());
        }
        if let Some(conflict) = conflict(facts, stream) {
            return Err(conflict);
        }
        let device = stream.device();
        let Some(node) = facts.thunderbolt.nodes.iter().find(|node| node.path == device) else {
            return Err(Obstacle::ill(
                &format!("{device} is not there"),
                &format!("{folder}/index"),
                stream.index.as_deref().unwrap_or("nothing"),
                "udev makes it; a container must be started with --device and its name",
            ));
        };
        match wish.owner {
            Some(owner) if owner != node.owner => self.own(&folder, wish),
            None if !node.usable => {
                return Err(Obstacle::ill(
                    &format!("{device} may not be opened by this user"),
                    &device,
                    &format!("{}, owner {}, group {}", node.mode, node.owner, node.group),
                    format!(
                        "sudo chown $USER {device}; for all time: echo 'KERNEL==\"tbstream*\", TAG+=\"uaccess\"' | sudo tee \
                         /etc/udev/rules.d/70-tbstream.rules"
                    ),
                ));
            }
            _ => (self.ready, self.device) = (Some(stream.name.clone()), Some(device)),
        }
        Ok(())
    }

    fn step(&mut self, missing: &str, source: &str, said: &str, action: Action) {
        let (missing, source, said) = (missing.to_owned(), source.to_owned(), said.to_owned());
        self.steps.push(Step { missing, source, said, action });
    }

    fn hops(&mut self, folder: &str) {
        let source = format!("{folder}/in_hopid, out_hopid");
        let said = "0 where the other host has not announced which; -1 takes free ones";
        self.step("a new one may have no HopIDs", &source, said, Action::Hops(folder.to_owned()));
    }

    fn own(&mut self, folder: &str, wish: &Wish) {
        if let Some(owner) = wish.owner {
            let source = format!("{folder}/index");
            let (missing, said) = ("its device file belongs to root", "the number of the device file");
            self.step(missing, &source, said, Action::Own(folder.to_owned(), owner));
        }
    }
}

/// The one that is wanted, or the only one.
fn choose<'a>(peers: &'a [Peer], wish: &Wish) -> Result<&'a Peer, Obstacle> {
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    let there =
        if names.is_empty() { "no device of type thunderbolt_xdomain".to_owned() } else { names.join(", ") };
    if let Some(name) = &wish.peer {
        let found = peers.iter().find(|peer| peer.name == *name);
        let missing = format!("no host {name} is at the end of a cable");
        return found
            .ok_or_else(|| Obstacle::absent(&missing, BUS, &there, "--peer takes one of these names"));
    }
    let mut offering = peers.iter().filter(|peer| peer.service(STREAM_SERVICE).is_some());
    match (peers, offering.next(), offering.next()) {
        ([], ..) => {
            let remedy = "join two hosts by a Thunderbolt or USB4 cable";
            Err(Obstacle::absent("no other host is at the end of a cable", BUS, &there, remedy))
        }
        ([only], ..) => Ok(only),
        (_, Some(only), None) => Ok(only),
        _ => Err(Obstacle::absent(
            "several hosts are at the ends of cables",
            BUS,
            &there,
            "say which: --peer, one of these names",
        )),
    }
}

fn no_service(peer: &Peer) -> Obstacle {
    Obstacle::absent(
        &format!("{} offers no streams", peer.says()),
        &format!("{BUS}/{}.*/key", peer.name),
        "none says stream",
        format!(
            "there, with Linux from 7.2 on: sudo modprobe {MODULE}; Macs and older kernels have the network over the cable"
        ),
    )
}

/// Another stream to the same host with the same HopID: the kernel lets only one of them open.
fn conflict(facts: &Facts, stream: &Stream) -> Option<Obstacle> {
    let others = facts.thunderbolt.streams.iter();
    let others = others.filter(|other| other.name != stream.name && other.host() == stream.host());
    for other in others {
        for (way, (ours, theirs)) in
            ["in", "out"].iter().zip(stream.hop_ids().into_iter().zip(other.hop_ids()))
        {
            if let (Some(hop), true) = (ours, ours == theirs && ours.is_some_and(|hop| hop >= FIRST_HOP)) {
                let folder = stream.folder();
                return Some(Obstacle::ill(
                    &format!("{} and {} both have {way} HopID {hop}", stream.name, other.name),
                    &format!("{}/{way}_hopid", other.folder()),
                    &hop.to_string(),
                    format!(
                        "one of them must go: for root, on both hosts: rmdir {folder}; and once more, here and then there: tbrdma-bench doctor \
                         --setup --stream {}",
                        stream.label()
                    ),
                ));
            }
        }
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
