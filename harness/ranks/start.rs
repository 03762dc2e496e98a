//! How the ranks of a run come together: processes that rank 0 starts itself, or threads in a simulated network.

use std::time::Duration;

use super::group::Group;
use super::plan::MOST_RANKS;
use super::{Own, take_part};
use crate::control::Channel;
use crate::error::{Error, Result};
use crate::peer::{self, Responder};
use crate::signals;

/// How long a rank waits for the plan; from then on it waits as the plan says.
const FOR_THE_PLAN: Duration = Duration::from_secs(60);

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
    let hello = channel.greet(FOR_THE_PLAN)?;
    channel.set_peer(format!("rank 0 (process {})", hello.pid));
    // Rank 0 tells the user; this process has nobody else to tell.
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
