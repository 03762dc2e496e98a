//! The side that answers: of a child, of a server, or of a thread in a simulated network.

use std::path::PathBuf;
use std::time::Duration;

use super::BETWEEN_BATCHES;
use super::initiate::{give_up, way};
use crate::cli::Flags;
use crate::control::{Account, Channel, Endpoint, Message};
use crate::error::Result;
use crate::interference::Tally;
use crate::peer::{self, Listener};
use crate::pingpong::Pingpong;
use crate::plan::{Benchmark, Plan};
use crate::session::{self, Role, Session};
use crate::stream::Stream;
use crate::{affinity, complain, floor, say, signals};

/// `--server`: one run for one client.
pub(super) fn serve(flags: &Flags, also_ignored: Option<&'static str>) -> Result<u8> {
    signals::install()?;
    let mut ignored = flags.only_for_clients();
    ignored.extend(also_ignored);
    if !ignored.is_empty() {
        complain(&format!(
            "tbrdma-bench: note: {} is the client's choice and ignored here\n",
            ignored.join(", ")
        ));
    }
    let listener = Listener::bind(flags.server.as_deref().unwrap_or_default())?;
    if !flags.quiet {
        complain(&format!("tbrdma-bench: waiting for a client on {} (Ctrl-C ends)\n", listener.address()));
    }
    let mut channel = listener.accept(flags.timeout)?;
    let own = Choices {
        device: flags.device.clone(),
        core: flags.pin.map(|pins| pins.second.unwrap_or(pins.first)),
        capture: flags.capture.clone(),
    };
    let served =
        respond(&mut channel, &own, flags.timeout()).map_err(|error| give_up(&mut channel, error))?;
    if !flags.quiet {
        say(&format!(
            "served {} of {} x {} bytes for {}: {} messages checked, {} errors\n",
            served.plan.benchmark,
            served.plan.op,
            served.plan.size,
            channel.peer(),
            served.account.checked,
            served.account.errors
        ))?;
    }
    Ok(u8::from(served.account.errors > 0))
}

/// The hidden second process.
pub(super) fn responder_process() -> Result<u8> {
    signals::install_in_child()?;
    let mut channel = peer::of_parent()?;
    match respond(&mut channel, &Choices::default(), BETWEEN_BATCHES) {
        Ok(_) => Ok(0),
        Err(error) => {
            // The parent tells the user; this process has nobody else to tell.
            give_up(&mut channel, error);
            Ok(1)
        }
    }
}

/// What a responder chooses for itself.
#[derive(Debug, Default)]
pub(super) struct Choices {
    device: Option<String>,
    core: Option<usize>,
    capture: Option<PathBuf>,
}

/// What a responder did.
pub(super) struct Served {
    plan: Plan,
    account: Account,
}

enum Part {
    Pingpong(Pingpong),
    Stream(Stream),
}

pub(super) fn respond(channel: &mut Channel, own: &Choices, timeout: Duration) -> Result<Served> {
    let hello = channel.greet(timeout)?;
    channel.set_peer(format!("{} (process {})", channel.peer(), hello.pid));
    let plan = match channel.receive(timeout)? {
        Message::Plan(plan) => plan,
        other => return Err(channel.unexpected(&other, "`plan`")),
    };
    plan.validate()?;
    let device = own.device.as_deref().unwrap_or(&plan.device);
    let open = session::open(device, &plan, Role::Responder, own.capture.as_deref())?;
    let core = own.core.or(plan.pin_responder);
    if let Some(core) = core {
        affinity::pin(core)?;
    }
    let (session, _): (Session, Endpoint) = Session::establish(&open, &plan, Role::Responder, channel)?;
    let watch = session.watch.clone();
    let way = way(&open, &session);
    let mut part = match plan.benchmark {
        Benchmark::Pingpong => Part::Pingpong(Pingpong::new(session)?),
        // Others are no plan of two sides: it was validated.
        _ => Part::Stream(Stream::new(session)?),
    };
    match &part {
        Part::Pingpong(pingpong) => pingpong.session().meet(channel)?,
        Part::Stream(stream) => stream.session().meet(channel)?,
    }
    let tally = Tally::now();
    let mut total = Account::default();
    loop {
        match channel.receive(BETWEEN_BATCHES.max(timeout))? {
            Message::Go(go) => {
                let account = match &mut part {
                    Part::Pingpong(pingpong) => pingpong.respond(go)?,
                    Part::Stream(stream) => stream.respond(go, channel)?,
                };
                total.add(&account);
                channel.send(&Message::Done(account))?;
            }
            Message::Floor(offer) => floor::memory::respond(offer, channel, &watch)?,
            Message::SocketFloor(offer) => floor::sockets::respond(offer, way.as_ref(), channel, &watch)?,
            Message::Finish => {
                channel.send(&Message::Bye { pinned: core, switches: Tally::now().since(tally) })?;
                return Ok(Served { plan, account: total });
            }
            other => return Err(channel.unexpected(&other, "`go`, `floor` or `finish`")),
        }
    }
}
