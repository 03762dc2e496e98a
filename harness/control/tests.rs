//! Tests of the control channel over in-memory and socket streams.

use super::{Channel, Go, Hello, Message, Phase, VERSION};
use crate::error::Error;
use std::io::{Cursor, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(200);

fn hearing(text: &str) -> Channel {
    Channel::new(Cursor::new(text.to_owned().into_bytes()), std::io::sink(), "the peer".into(), || {})
        .unwrap()
}

fn pair() -> (Channel, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let channel = Channel::new(ours.try_clone().unwrap(), ours, "the peer".into(), || {}).unwrap();
    (channel, theirs)
}

#[test]
fn messages_arrive_in_order_and_then_the_end() {
    let go = Message::Go(Go { phase: Phase::Run, first: 3, count: 9, flow: 0 });
    let text = format!("{}\n{}\n", serde_json::to_string(&go).unwrap(), r#"{"type":"ready"}"#);
    let mut channel = hearing(&text);
    assert_eq!(channel.receive(SOON), Ok(go));
    assert_eq!(channel.receive(SOON), Ok(Message::Ready));
    assert!(matches!(channel.receive(SOON), Err(Error::PeerGone { .. })));
    assert!(matches!(channel.receive(SOON), Err(Error::PeerGone { .. })), "and again");
}

#[test]
fn garbage_is_quoted_and_never_ends_in_a_panic() {
    for garbage in ["HTTP/1.1 400\r\n", "{}\n", "{\"type\":\"go\"}\n", "\u{0}\u{1b}[2J\n", "[1,2", "null\n"] {
        let error = hearing(garbage).receive(SOON).unwrap_err().to_string();
        assert!(error.contains("does not speak the control protocol"), "{error}");
        assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error:?}");
    }
    let error = hearing(&"x".repeat(1 << 17)).receive(SOON).unwrap_err().to_string();
    assert!(error.contains("a line longer than"), "{error}");
}

#[test]
fn silence_ends_after_the_timeout() {
    let (mut channel, _peer) = pair();
    let error = channel.receive(Duration::from_millis(30)).unwrap_err().to_string();
    assert!(error.starts_with("no control message from the peer within 0.03 s"), "{error}");
}

#[test]
fn another_version_is_refused_in_one_line() {
    let (mut channel, mut peer) = pair();
    let hello = Hello { version: 99, release: "9.9".into(), ..Hello::ours() };
    writeln!(peer, "{}", serde_json::to_string(&Message::Hello(hello)).unwrap()).unwrap();
    let error = channel.greet(SOON).unwrap_err().to_string();
    assert!(error.contains("version 99") && error.contains(&format!("version {VERSION}")), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn another_protocol_and_lacking_features_are_refused() {
    assert!(Hello { protocol: "smtp".into(), ..Hello::ours() }.check().is_err());
    assert!(
        Hello { features: vec!["floor".into()], ..Hello::ours() }.check().unwrap_err().contains("credits")
    );
    assert_eq!(Hello::ours().check(), Ok(()));
}

#[test]
fn the_peers_last_words_explain_what_this_side_saw() {
    let (mut channel, mut peer) = pair();
    let alarm = channel.alarm();
    writeln!(peer, r#"{{"type":"fail","reason":"no\nmemory"}}"#).unwrap();
    while !alarm.load(std::sync::atomic::Ordering::Acquire) {
        std::thread::yield_now();
    }
    let error = channel.explain(Error::Alarm);
    assert_eq!(error.to_string(), "the peer gave up: no memory");
}

#[test]
fn a_peer_that_went_away_is_named_with_what_was_first_seen() {
    let (mut channel, peer) = pair();
    drop(peer);
    let error = channel.explain(Error::Run("completion 7: flushed".into()));
    assert_eq!(
        error.to_string(),
        "the peer ended before the run was over (first seen as: completion 7: flushed)"
    );
}

#[test]
fn an_error_of_ones_own_stays_when_the_peer_is_well() {
    let (mut channel, _peer) = pair();
    let error = Error::Run("completion 7: local protection error".into());
    assert_eq!(channel.explain(error.clone()), error);
}

#[test]
fn lanes_go_beside_each_other_over_one_connection() {
    let [mut ours, mut theirs] = Channel::pair(["them", "us"].map(str::to_owned));
    let go = |first| Message::Go(Go { phase: Phase::Run, first, count: 1, flow: 0 });
    let mut lanes: Vec<Channel> = (1..=3).map(|number| ours.lane(number).unwrap()).collect();
    assert!(ours.lane(2).is_err(), "each is there once");
    assert!(ours.lane(0).is_err() && ours.lane(1 << 20).is_err());
    for (lane, number) in lanes.iter_mut().zip(1..) {
        lane.send(&go(number)).unwrap();
    }
    ours.send(&Message::Finish).unwrap();
    // What was sent before anybody took the lane up is there, in whatever order they are looked at.
    for number in (1..=3).rev() {
        let mut lane = theirs.lane(number).unwrap();
        assert_eq!(lane.receive(SOON), Ok(go(number.into())));
        lane.send(&Message::Ready).unwrap();
    }
    assert_eq!(theirs.receive(SOON), Ok(Message::Finish));
    assert!(lanes.iter_mut().all(|lane| lane.receive(SOON) == Ok(Message::Ready)));
    // The failure of one is known to all.
    theirs.lane(4).unwrap().send(&Message::Fail { reason: "enough".into() }).unwrap();
    assert!(ours.alarm().load(std::sync::atomic::Ordering::Acquire));
    assert!(matches!(lanes[0].receive(SOON), Err(Error::PeerGone { .. })));
    assert!(matches!(ours.lane(4).unwrap().receive(SOON), Err(Error::PeerFailed { .. })));
}

#[test]
fn lanes_are_marked_on_a_stream_too() {
    let (mut channel, mut peer) = pair();
    writeln!(peer, r#"{{"type":"ready","lane":2}}"#).unwrap();
    writeln!(peer, r#"{{"type":"finish"}}"#).unwrap();
    assert_eq!(channel.receive(SOON), Ok(Message::Finish));
    assert_eq!(channel.lane(2).unwrap().receive(SOON), Ok(Message::Ready));
}
