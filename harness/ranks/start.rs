//! How the ranks of a run come together: processes that rank 0 starts itself or that a launcher has started, or threads in a simulated network.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::group::Group;
use super::plan::MOST_RANKS;
use super::{Own, take_part};
use crate::control::{Channel, Message, RanksPart};
use crate::error::{Context, Error, Result};
use crate::peer::{self, Listener, Responder};
use crate::signals;

/// How long a rank waits for the plan; from then on it waits as the plan says.
const FOR_THE_PLAN: Duration = Duration::from_secs(60);

/// How long one that has come may take to say who it is.
const FOR_A_GREETING: Duration = Duration::from_secs(5);

/// Starts ranks 1 and up as processes on this host.
///
/// # Errors
/// One cannot be started, or does not greet.
pub fn processes(ranks: usize, timeout: Duration) -> Result<Group> {
    let mut links = Vec::new();
    let mut children = Vec::new();
    for rank in 1..ranks {
        let arguments = ["rank".to_owned(), rank.to_string(), ranks.to_string()];
        let (child, channel) = Responder::start_as(&arguments, &format!("rank {rank}"))?;
        links.push(channel);
        children.push(child);
    }
    let mut group = Group::root(links, children, timeout);
    match group.greet() {
        Ok(()) => Ok(group),
        Err(error) => Err(group.give_up(error)),
    }
}

/// A process that rank 0 has started.
///
/// # Errors
/// Only before it can tell rank 0.
pub fn process(rank: usize, ranks: usize) -> Result<u8> {
    if rank == 0 || rank >= ranks || ranks > MOST_RANKS {
        return Err(Error::Usage(format!("there is no rank {rank} to start of {ranks}")));
    }
    signals::install_in_child()?;
    let mut channel = peer::of_parent()?;
    // Rank 0 tells the user what went wrong; this process has nobody else to tell.
    let Ok(hello) = channel.greet(FOR_THE_PLAN) else { return Ok(1) };
    channel.set_peer(format!("rank 0 (process {})", hello.pid));
    Ok(u8::from(member(Group::member(rank, ranks, channel, FOR_THE_PLAN), &Own::default()).is_err()))
}

/// All that a rank does which is not rank 0.
///
/// # Errors
/// Why it gave up, or had to.
pub fn member(mut group: Group, own: &Own) -> Result<()> {
    match take_part(&mut group, own, None) {
        Ok(_) => Ok(()),
        Err(error) => Err(group.give_up(error)),
    }
}

/// Rank 0's end and the other ranks' ends of channels inside this process.
#[must_use]
pub fn inside(ranks: usize, timeout: Duration) -> (Group, Vec<Group>) {
    let (mut links, mut members) = (Vec::new(), Vec::new());
    for rank in 1..ranks {
        let [ours, theirs] = Channel::pair([format!("rank {rank}"), "rank 0".into()]);
        links.push(ours);
        members.push(Group::member(rank, ranks, theirs, timeout));
    }
    (Group::root(links, Vec::new(), timeout), members)
}

/// What a rank says of itself to rank 0.
type Join = (usize, usize);

const JOIN: &str = "join";

/// Rank 0's end of the group that something else has started: waits until all have come.
///
/// # Errors
/// The address is none of this host's, or a rank did not come, came twice, or counts the ranks otherwise.
pub fn gathered(size: usize, coordinator: &str, timeout: Duration) -> Result<Group> {
    let listener = Listener::bind(&own_address(coordinator)?)?;
    let begun = Instant::now();
    let mut links: Vec<Option<Channel>> = (1..size).map(|_| None).collect();
    let mut stranger = String::new();
    while links.iter().any(Option::is_none) {
        let left = timeout.saturating_sub(begun.elapsed());
        let missing = || {
            let missing = (1..).zip(&links).filter(|(_, link)| link.is_none());
            let missing: Vec<_> = missing.map(|(rank, _): (usize, _)| rank.to_string()).collect();
            format!(
                "of {size} ranks these did not come to {} within {} s: {}{stranger}; --coordinator says where, --timeout for how \
                 long",
                listener.address(),
                timeout.as_secs_f64(),
                missing.join(", ")
            )
        };
        let mut channel = match listener.accept(Some(left)) {
            Ok(channel) => channel,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(_) => return Err(Error::Run(missing())),
        };
        let joined = channel.greet(left.min(FOR_A_GREETING)).and_then(|hello| {
            let said = channel.receive(left.min(FOR_A_GREETING))?;
            let Message::Ranks(RanksPart { word, text, .. }) = &said else {
                return Err(channel.unexpected(&said, "`join`"));
            };
            let join: Option<Join> = serde_json::from_str(text).ok().filter(|_| word == JOIN);
            let join = join.ok_or_else(|| channel.unexpected(&said, "`join`"))?;
            Ok((join, hello.pid))
        });
        let ((rank, of), pid) = match joined {
            Ok(joined) => joined,
            // Somebody else may have found the port.
            Err(error) => {
                stranger = format!(" (somebody else came: {error})");
                continue;
            }
        };
        let name = format!("rank {rank} (process {pid}), {}", channel.peer());
        channel.set_peer(name.clone());
        let place = links.get_mut(rank.wrapping_sub(1)).filter(|place| of == size && place.is_none());
        let Some(place) = place else {
            let reason = format!("{name} says that it is rank {rank} of {of}: there are {size}, each once");
            let _ = channel.send(&Message::Fail { reason: reason.clone() });
            return Err(Error::Run(reason));
        };
        *place = Some(channel);
    }
    Ok(Group::root(links.into_iter().flatten().collect(), Vec::new(), timeout))
}

/// Another rank's end of such a group.
///
/// # Errors
/// Rank 0 is not there, or is no `tbrdma-bench`.
pub fn joined(rank: usize, size: usize, coordinator: &str, timeout: Duration) -> Result<Group> {
    let begun = Instant::now();
    let mut channel = loop {
        signals::check()?;
        // Rank 0 may begin later than this one.
        match peer::connect_once(coordinator, FOR_A_GREETING) {
            Ok(stream) => break peer::over_tcp(stream, format!("rank 0 at {coordinator}"))?,
            Err(error) if begun.elapsed() >= timeout => {
                return Err(Error::Run(format!(
                    "rank {rank} of {size}: connect to rank 0 at {coordinator}: {error}, for {} s; --coordinator says where it is",
                    timeout.as_secs_f64()
                )));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    channel.greet(timeout)?;
    let text = serde_json::to_string::<Join>(&(rank, size)).unwrap_or_default();
    channel.send(&Message::Ranks(RanksPart { word: JOIN.into(), text, more: false }))?;
    Ok(Group::member(rank, size, channel, timeout.max(FOR_THE_PLAN)))
}

/// Where rank 0 listens: at the address itself, or where that is a name at all addresses of its kind, because hosts have names of their own for others.
fn own_address(coordinator: &str) -> Result<String> {
    if coordinator.parse::<SocketAddr>().is_ok() {
        return Ok(coordinator.to_owned());
    }
    let found = coordinator.to_socket_addrs().context(|| format!("find {coordinator}"))?.next();
    Ok(match found {
        Some(SocketAddr::V6(address)) => format!("[::]:{}", address.port()),
        Some(SocketAddr::V4(address)) => format!("0.0.0.0:{}", address.port()),
        None => return Err(Error::Usage(format!("--coordinator {coordinator}: the name has no address"))),
    })
}
