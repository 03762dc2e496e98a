//! Faults that a program meets in verbs: their text form, and what a plan decides.

use std::time::Duration;
use tbrdma_proto::fault::{Chance, Happening, VerbsCall, VerbsFaults, VerbsPlan, When, Which};
use tbrdma_proto::{AsyncEventKind, WcStatus};

const EVERYTHING: &str = "wc=5:RETRY_EXC_ERR+1.5%:REM_OP_ERR,wc_delay=5:1ms+1%:50us,qp_err=1000,drop=7+1%,rnr=100:50ms,\
    refuse=create_qp:3:ENOMEM+reg_mr:1%:EAGAIN,event=PORT_ERR:100+SRQ_LIMIT_REACHED:20ms,remove=1.5s";

fn plan(text: &str) -> VerbsPlan {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_kind_is_understood_and_printed_as_it_was_written() {
    let read = plan(EVERYTHING);
    let chance = Chance::from_parts(15_000_000).unwrap();
    let expected = VerbsPlan {
        completions: vec![(Which::Nth(5), WcStatus::RetryExcErr), (Which::Each(chance), WcStatus::RemOpErr)],
        delays: vec![
            (Which::Nth(5), Duration::from_millis(1)),
            (Which::Each(Chance::percent(1)), Duration::from_micros(50)),
        ],
        breaks: vec![Which::Nth(1000)],
        losses: vec![Which::Nth(7), Which::Each(Chance::percent(1))],
        absences: vec![(Which::Nth(100), Duration::from_millis(50))],
        refusals: vec![
            (VerbsCall::CreateQp, Which::Nth(3), 12),
            (VerbsCall::RegMr, Which::Each(Chance::percent(1)), 11),
        ],
        events: vec![
            (AsyncEventKind::PortErr, When::Call(100)),
            (AsyncEventKind::SrqLimitReached, When::After(Duration::from_millis(20))),
        ],
        removal: Some(When::After(Duration::from_millis(1500))),
    };
    assert_eq!(read, expected);
    assert_eq!(read.to_string(), EVERYTHING);
    for text in ["", "none", " "] {
        assert!(plan(text).is_none());
    }
    assert_eq!(VerbsPlan::default().to_string(), "none");
}

#[test]
fn parts_of_a_links_plan_are_told_apart() {
    for part in EVERYTHING.split(',') {
        assert!(VerbsPlan::is_meant_by(part), "{part}");
    }
    for part in ["loss=1%", "delay=5us", "none", "wc", ""] {
        assert!(!VerbsPlan::is_meant_by(part), "{part}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_an_example() {
    for (text, said) in [
        ("wc=5", "wc=5:RETRY_EXC_ERR"),
        ("wc=0:RETRY_EXC_ERR", "wc=5:RETRY_EXC_ERR"),
        ("wc=1:SUCCESS", "wc=5:RETRY_EXC_ERR"),
        ("wc=1:retry", "wc=5:RETRY_EXC_ERR"),
        ("wc=101%:REM_OP_ERR", "wc=5:RETRY_EXC_ERR"),
        ("qp_err=x", "qp_err=1000"),
        ("refuse=poll_cq:1:EIO", "refuse=create_qp:3:ENOMEM"),
        ("refuse=create_qp:1:EWHAT", "refuse=create_qp:3:ENOMEM"),
        ("refuse=create_qp", "refuse=create_qp:3:ENOMEM"),
        ("wc_delay=50us", "wc_delay=5:1ms"),
        ("wc_delay=5:0s", "wc_delay=5:1ms"),
        ("drop=0", "drop=7+1%"),
        ("rnr=1%", "rnr=100:50ms"),
        ("event=PORT_ERR", "event=PORT_ERR:100"),
        ("event=PORT_ERR:0", "event=PORT_ERR:100"),
        ("event=WQ_FATAL:1", "event=PORT_ERR:100"),
        ("remove=1%", "remove=1000"),
        ("loss=1%", "an unknown fault"),
        ("qp_err=1,qp_err=2", "given twice"),
    ] {
        let refusal = text.parse::<VerbsPlan>().unwrap_err().to_string();
        assert!(refusal.contains(said), "{text}: {refusal}");
    }
}

#[test]
fn the_nth_is_the_nth_and_no_other() {
    let mut faults = VerbsFaults::new(&plan("wc=3:GENERAL_ERR+3:FATAL_ERR+4:REM_OP_ERR,qp_err=2"), 0);
    let failed: Vec<_> = (0..6).map(|_| faults.fail()).collect();
    assert_eq!(failed, [None, None, Some(WcStatus::FatalErr), Some(WcStatus::RemOpErr), None, None]);
    let broken: Vec<_> = (0..4).map(|_| faults.breaks()).collect();
    assert_eq!(broken, [false, true, false, false]);
}

#[test]
fn calls_are_counted_by_kind() {
    let mut faults = VerbsFaults::new(&plan("refuse=create_qp:2:ENOMEM+reg_mr:1:EAGAIN"), 0);
    let calls =
        [VerbsCall::CreateQp, VerbsCall::RegMr, VerbsCall::CreateCq, VerbsCall::CreateQp, VerbsCall::RegMr];
    assert_eq!(calls.map(|call| faults.refuse(call)), [None, Some(11), None, Some(12), None]);
}

#[test]
fn chance_follows_the_seed() {
    let draw = |seed| -> Vec<bool> {
        let mut faults = VerbsFaults::new(&plan("wc=25%:GENERAL_ERR,qp_err=50%"), seed);
        (0..1000).map(|_| faults.fail().is_some()).collect()
    };
    let all = |seed| -> Vec<_> {
        let mut faults = VerbsFaults::new(&plan("drop=25%,rnr=25%:1ms,wc_delay=25%:2ms"), seed);
        (0..1000).map(|_| (faults.loses(), faults.hides(), faults.delays())).collect()
    };
    assert_eq!(all(7), all(7));
    assert_ne!(all(7), all(8));
    let hits = draw(7).into_iter().filter(|hit| *hit).count();
    assert!((150..350).contains(&hits), "{hits} of 1000 at 25 %");
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn what_happens_once_happens_at_its_call_or_after_its_time() {
    let plan = plan("event=PORT_ERR:2+PORT_ACTIVE:20ms+CQ_ERR:3,remove=3");
    let mut faults = VerbsFaults::new(&plan, 0);
    let happened: Vec<Vec<_>> = (0..4).map(|_| faults.called().collect()).collect();
    assert_eq!(
        happened,
        [
            vec![],
            vec![Happening::Event(AsyncEventKind::PortErr)],
            vec![Happening::Event(AsyncEventKind::CqErr), Happening::Removal],
            vec![]
        ]
    );
    let timed: Vec<_> = faults.timed().collect();
    assert_eq!(timed, [(Duration::from_millis(20), Happening::Event(AsyncEventKind::PortActive))]);
}

#[test]
fn messages_receives_and_completions_are_counted_apart() {
    let mut faults = VerbsFaults::new(&plan("drop=2,rnr=1:5ms,wc_delay=3:1us"), 0);
    assert_eq!([faults.loses(), faults.loses(), faults.loses()], [false, true, false]);
    assert_eq!([faults.hides(), faults.hides()], [Some(Duration::from_millis(5)), None]);
    let late: Vec<_> = (0..4).map(|_| faults.delays()).collect();
    assert_eq!(late, [None, None, Some(Duration::from_micros(1)), None]);
}
