//! A port goes down and comes up with its network interface, and the application hears of both.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[path = "common/process.rs"]
mod process;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use process::{Child, PATIENCE, role, say, skip};
use std::process::Command;
use std::time::Instant;
use tbrdma::{AsyncEventKind, Context, EventSource, PortState, WorkCompletion};

/// Runs `ip`.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Two ends of a cable in a network namespace of this thread's.
fn cable() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no namespace: {error}"))?;
    ip("link add near0 type veth peer name far0")?;
    ip("addr add 192.0.2.1/24 dev near0")?;
    ip("link set far0 up")?;
    ip("link set near0 up")
}

/// The next event, which is about the port. `polls`: the application looks for completions all the while.
fn next_event(ctx: &Context, polls: bool) -> AsyncEventKind {
    let cq = ctx.create_cq(1).unwrap();
    let events = ctx.async_events();
    let begun = Instant::now();
    let event = loop {
        if let Some(event) = if polls { events.try_next() } else { events.next(Some(PATIENCE)).unwrap() } {
            break event;
        }
        assert!(begun.elapsed() < PATIENCE, "no event");
        assert!(cq.poll(&mut [WorkCompletion::default()]).is_empty());
    };
    assert_eq!(event.source, EventSource::Port(1));
    event.kind
}

/// A process with a network of its own.
#[test]
fn child() {
    if role().is_none() {
        return;
    }
    if let Err(reason) = cable() {
        return say(format!("no cable: {reason}"));
    }
    // The kernel may need a moment to see that both ends are up: then the device hears of it.
    let ctx = tbrdma::open("udp:near0").unwrap();
    let state = || ctx.query_port(1).unwrap().state;
    if state() == PortState::Down {
        assert_eq!(next_event(&ctx, false), AsyncEventKind::PortActive);
    }
    let (down, up) =
        ((AsyncEventKind::PortErr, PortState::Down), (AsyncEventKind::PortActive, PortState::Active));
    for polls in [false, true] {
        // The interface is taken down; the cable is pulled at the other end.
        for (command, expected) in [
            ("link set near0 down", down),
            ("link set near0 up", up),
            ("link set far0 down", down),
            ("link set far0 up", up),
        ] {
            ip(command).unwrap();
            assert_eq!((next_event(&ctx, polls), state()), expected, "{command}");
        }
    }
    let port = ctx.query_port(1).unwrap();
    assert_eq!(port.phys_state, 5);
    // Changes of others are none of ours.
    ip("link add other0 type veth peer name other1").unwrap();
    ip("link del near0").unwrap();
    assert_eq!((next_event(&ctx, false), state()), down);
    assert_eq!(ctx.query_port(1).unwrap().phys_state, 3);
    assert!(ctx.async_events().try_next().is_none());
    say("seen");
}

#[test]
fn interfaces_that_go_down_and_up_are_events_of_the_port() {
    if !Uid::effective().is_root() {
        return skip("only root can make network namespaces");
    }
    let program = Child::start("program");
    let said = program.hear();
    if said.starts_with("no cable") {
        return skip(said);
    }
    assert_eq!(said, "seen");
    assert!(program.reap().success());
}
