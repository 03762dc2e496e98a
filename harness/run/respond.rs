//! The side that answers: of a child, of a server, or of a thread in a simulated network.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::BETWEEN_BATCHES;
use super::initiate::give_up;
use crate::cli::Flags;
use crate::control::{Account, Channel, Go, Message};
use crate::error::{Error, Result};
use crate::floor::Carrier;
use crate::interference::Tally;
use crate::lanes::{self, Part as _, carrier};
use crate::mixed::Mixed;
use crate::peer::{self, Listener};
use crate::pingpong::Pingpong;
use crate::plan::{Benchmark, Plan};
use crate::session::{self, OpenDevice, Role, Session};
use crate::stream::Stream;
use crate::watch::Watch;
use crate::{affinity, complain, floor, replay, say, signals};

/// `--server`: one run for one client.
///
/// # Errors
/// Nobody came, or the run failed.
pub fn serve(flags: &Flags, also_ignored: impl IntoIterator<Item = &'static str>) -> Result<u8> {
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

/// A thread of the responder.
enum Part {
    Pingpong(Box<Pingpong>),
    Stream(Stream),
    Mixed(Box<Mixed>),
}

impl Part {
    /// Connected to the thread at the other end of `channel`, and ready.
    fn new(open: &OpenDevice, plan: &Plan, channel: &mut Channel, thread: u32) -> Result<Self> {
        let sessions = Session::establish_thread(open, plan, Role::Responder, channel, thread)?;
        let part = match plan.benchmark {
            Benchmark::Mixed => Self::Mixed(Box::new(Mixed::new(sessions)?)),
            Benchmark::Pingpong | Benchmark::Idle => Self::Pingpong(Box::new(Pingpong::new(sessions)?)),
            // Others are no plan of two sides: it was validated.
            _ => Self::Stream(Stream::new(sessions)?),
        };
        part.session().meet(channel)?;
        Ok(part)
    }

    fn session(&self) -> &Session {
        match self {
            Self::Pingpong(pingpong) => pingpong.session(),
            Self::Stream(stream) => stream.session(),
            Self::Mixed(mixed) => mixed.session(),
        }
    }

    fn respond(&mut self, go: Go, channel: &mut Channel) -> Result<Account> {
        match self {
            Self::Pingpong(pingpong) => pingpong.respond(go),
            Self::Stream(stream) => stream.respond(go, channel),
            Self::Mixed(mixed) => mixed.respond(go, channel),
        }
    }
}

pub(super) fn respond(channel: &mut Channel, own: &Choices, timeout: Duration) -> Result<Served> {
    let hello = channel.greet(timeout)?;
    channel.set_peer(format!("{} (process {})", channel.peer(), hello.pid));
    let plan = match channel.receive(timeout)? {
        Message::Plan(plan) => plan,
        Message::Replay(outline) => {
            let choices = (own.device.as_deref(), own.core, own.capture.as_deref());
            let account = replay::answer(channel, &outline, choices, timeout)?;
            return Ok(Served { plan: outline.plan, account });
        }
        other => return Err(channel.unexpected(&other, "`plan`")),
    };
    plan.validate()?;
    let device = own.device.clone().unwrap_or_else(|| session::other_end(&plan.device));
    let open = session::open(&device, &plan, Role::Responder, own.capture.as_deref())?;
    let patience = BETWEEN_BATCHES.max(timeout);
    if plan.threads > 1 {
        let account = respond_in_threads(&open, &plan, channel, patience)?;
        return Ok(Served { plan, account });
    }
    let core = own.core.or(plan.pin_responder);
    if let Some(core) = core {
        affinity::pin(core)?;
    }
    let part = Part::new(&open, &plan, channel, 0)?;
    let floor = Grounds { carrier: carrier(&open, part.session()), watch: part.session().watch.clone() };
    let account = answer(channel, Some(part), Some(&floor), core, patience)?;
    Ok(Served { plan, account })
}

/// What a floor needs at this side.
struct Grounds {
    carrier: Carrier,
    watch: Watch,
}

/// Does what the initiator says until that is through.
fn answer(
    channel: &mut Channel,
    mut part: Option<Part>,
    floor: Option<&Grounds>,
    core: Option<usize>,
    patience: Duration,
) -> Result<Account> {
    let tally = Tally::now();
    let mut total = Account::default();
    loop {
        match (channel.receive(patience)?, &mut part, floor) {
            (Message::Go(go), Some(part), _) => {
                let account = part.respond(go, channel)?;
                total.add(&account);
                channel.send(&Message::Done(account))?;
            }
            (Message::Floor(offer), _, Some(floor)) => floor::memory::respond(offer, channel, &floor.watch)?,
            (Message::SocketFloor(offer), _, Some(Grounds { carrier, watch })) => {
                let way = if let Carrier::Sockets(way) = carrier { Some(way) } else { None };
                floor::sockets::respond(offer, way, channel, watch)?;
            }
            (Message::StreamFloor(offer), _, Some(Grounds { carrier, watch })) => {
                let way = if let Carrier::Stream(way) = carrier { Some(way) } else { None };
                floor::streams::respond(offer, way, channel, watch)?;
            }
            (Message::Finish, ..) => {
                channel.send(&Message::Bye { pinned: core, switches: Tally::now().since(tally) })?;
                return Ok(total);
            }
            (other, ..) => return Err(channel.unexpected(&other, "`go`, `floor` or `finish`")),
        }
    }
}

/// The same with a thread for each of the initiator's, on a lane of its own; this one does the floor's part.
fn respond_in_threads(
    open: &OpenDevice,
    plan: &Plan,
    channel: &mut Channel,
    patience: Duration,
) -> Result<Account> {
    let lanes = (1..=plan.threads).map(|number| channel.lane(number)).collect::<Result<Vec<_>>>()?;
    let cores = lanes::cores(plan, Role::Responder, &affinity::allowed()?);
    // All places are taken before any thread begins.
    let turns: Vec<_> = lanes.iter().map(|_| open.device.take_turns()).collect();
    std::thread::scope(|scope| {
        let mut ready = Vec::new();
        let mut ended = Vec::new();
        for ((thread, mut lane), turn) in (0..).zip(lanes).zip(turns) {
            let core = cores.get(thread as usize).copied();
            let (tell, told) = std::sync::mpsc::channel();
            let (last, end) = std::sync::mpsc::channel();
            ready.push(told);
            ended.push(end);
            scope.spawn(move || {
                let _turn = turn.begin();
                let served = (|| {
                    core.map_or(Ok(()), affinity::pin)?;
                    let part = Part::new(open, plan, &mut lane, thread)?;
                    let grounds = Grounds {
                        carrier: carrier(open, part.session()),
                        watch: part.session().watch.clone(),
                    };
                    // The main thread may have gone.
                    let _ = tell.send(grounds);
                    answer(&mut lane, Some(part), None, core, patience)
                })();
                let _ = last.send(served.map_err(|error| give_up(&mut lane, error)));
            });
        }
        let grounds: Vec<Grounds> = ready.iter().filter_map(lanes::take).collect();
        let served = match grounds.first() {
            Some(floor) if grounds.len() == ready.len() => answer(channel, None, Some(floor), None, patience),
            // One of them could not begin, and has said so.
            _ => Err(Error::Alarm),
        };
        let served = served.map_err(|error| {
            channel.alarm().store(true, Ordering::Release);
            give_up(channel, error)
        });
        let gone = || Err(Error::Run("a thread of this side is gone".into()));
        let threads = ended.iter().map(|end| lanes::take(end).unwrap_or_else(gone));
        let all = lanes::all_or_cause(threads.chain([served]).collect())?;
        let mut total = Account::default();
        all.iter().for_each(|account| total.add(account));
        Ok(total)
    })
}
