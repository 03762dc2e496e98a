//! The text form of a fault plan: what it means, that it survives a round trip, and what wrong texts are told.

use std::time::Duration;

use proptest::prelude::*;
use tbrdma_proto::fault::{Burst, Chance, Duplicate, FaultPlan, Reorder, Sleep, Spread, Stage};

fn plan(text: &str) -> FaultPlan {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_kind_is_understood() {
    let read = plan(
        "loss=1%,burst=0.1%:8,delay=50us~20us:pareto,reorder=2%:100us,dup=0.5%:1ms,corrupt=0.1%,\
         rate=10Gbps,queue=256,sleep=1ms:40us,partition=1s..1.5s+3s..; 2s: loss=1%; 2.5s: none",
    );
    let micros = Duration::from_micros;
    let parts = |parts| Chance::from_parts(parts).unwrap();
    let expected = FaultPlan {
        loss: Chance::percent(1),
        burst: Some(Burst { chance: parts(1_000_000), mean_packets: 8 }),
        delay: micros(50),
        jitter: micros(20),
        spread: Spread::Pareto,
        reorder: Some(Reorder { chance: Chance::percent(2), by: micros(100) }),
        duplicate: Some(Duplicate { chance: parts(5_000_000), by: micros(1000) }),
        corrupt: parts(1_000_000),
        rate: Some(10_000_000_000),
        queue: Some(256),
        sleep: Some(Sleep { after: micros(1000), wake: micros(40) }),
        partitions: vec![
            Duration::from_secs(1)..Duration::from_millis(1500),
            Duration::from_secs(3)..Duration::MAX,
        ],
        stages: vec![
            Stage { from: micros(2_000_000), plan: plan("loss=1%") },
            Stage { from: micros(2_500_000), plan: plan("none") },
        ],
    };
    assert_eq!(read, expected);
}

#[test]
fn nothing_is_nothing() {
    for text in ["", "none", "  "] {
        assert_eq!(plan(text), FaultPlan::default());
    }
    assert_eq!(FaultPlan::default().to_string(), "none");
}

#[test]
fn text_is_printed_as_it_is_usually_written() {
    for text in [
        "loss=1%",
        "loss=0.0000001%",
        "burst=0.1%:8",
        "delay=50us~20us",
        "delay=1.5ms",
        "dup=100%",
        "rate=9.6kbps,queue=1",
        "rate=1bps",
        "partition=0s..1ns+1s..",
        "delay=5us~2us:normal",
        "sleep=10us:1us",
        "none; 1s: loss=5%; 1.5s: none",
    ] {
        assert_eq!(plan(text).to_string(), text);
    }
}

#[test]
fn wrong_text_is_refused_with_the_part_and_a_cure() {
    for (text, part, hint) in [
        ("loss", "loss", "no value"),
        ("lost=1%", "lost=1%", "unknown"),
        ("delay=5us,loss=1", "loss=1", "percentage"),
        ("loss=101%", "loss=101%", "percentage"),
        ("loss=-1%", "loss=-1%", "percentage"),
        ("loss=1.%", "loss=1.%", "percentage"),
        ("loss=.5%", "loss=.5%", "percentage"),
        ("loss=0.00000001%", "loss=0.00000001%", "percentage"),
        ("loss=99999999999999999999%", "loss=99999999999999999999%", "percentage"),
        ("loss=1%,loss=2%", "loss=2%", "twice"),
        ("burst=1%", "burst=1%", "mean length"),
        ("burst=1%:0", "burst=1%:0", "mean length"),
        ("delay=50", "delay=50", "ns, us, ms, s"),
        ("delay=0.5ns", "delay=0.5ns", "ns, us, ms, s"),
        ("delay=1us~", "delay=1us~", "ns, us, ms, s"),
        ("reorder=1%", "reorder=1%", "time"),
        ("rate=0bps", "rate=0bps", "at least 1 bps"),
        ("rate=1gbit", "rate=1gbit", "Gbps"),
        ("queue=8", "queue=8", "without a rate"),
        ("rate=1Gbps,queue=0", "queue=0", "from 1"),
        ("partition=2s..1s", "partition=2s..1s", "FROM..TO"),
        ("partition=1s", "partition=1s", "FROM..TO"),
        ("loss=1%,", "", "no value"),
        ("delay=1us~1us:gauss", "delay=1us~1us:gauss", ":normal or :pareto"),
        ("sleep=1us", "sleep=1us", "wake"),
        ("none;", "", "no time"),
        ("none; soon: loss=1%", "soon: loss=1%", "a time"),
        ("none; 0s: loss=1%", "0s: loss=1%", "later"),
        ("none; 2s: loss=1%; 2s: none", "2s: none", "later"),
        ("none; 2s: lost=1%", "lost=1%", "unknown"),
    ] {
        let error = text.parse::<FaultPlan>().expect_err(text);
        assert_eq!(error.part, part, "{text}");
        let said = error.to_string();
        assert!(said.contains(hint), "{text}: {said}");
        // The example given is itself right.
        plan(error.example);
    }
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![0..2000_u64, 0..3_000_000_000_u64, any::<u64>()].prop_map(Duration::from_nanos)
}

fn chance() -> impl Strategy<Value = Chance> {
    (0..=Chance::WHOLE).prop_map(|parts| Chance::from_parts(parts).unwrap())
}

prop_compose! {
    fn any_plan()(
        loss in chance(),
        burst in proptest::option::of((chance(), 1..u32::MAX)),
        delay in duration(),
        jitter in duration(),
        reorder in proptest::option::of((chance(), duration())),
        duplicate in proptest::option::of((chance(), duration())),
        corrupt in chance(),
        rate in proptest::option::of((1..u64::MAX, proptest::option::of(1..=FaultPlan::MAX_QUEUE))),
        partitions in proptest::collection::vec((duration(), proptest::option::of(duration())), 0..3),
        spread in prop_oneof![Just(Spread::Uniform), Just(Spread::Normal), Just(Spread::Pareto)],
        sleep in proptest::option::of((duration(), duration())),
    ) -> FaultPlan {
        let partitions = partitions.into_iter().filter_map(|(one, other)| {
            let end = other.unwrap_or(Duration::MAX);
            (one != end).then(|| one.min(end)..one.max(end))
        });
        FaultPlan {
            loss,
            burst: burst.map(|(chance, mean_packets)| Burst { chance, mean_packets }),
            delay,
            jitter,
            spread,
            reorder: reorder.map(|(chance, by)| Reorder { chance, by }),
            duplicate: duplicate.map(|(chance, by)| Duplicate { chance, by }),
            corrupt,
            rate: rate.map(|(rate, _)| rate),
            queue: rate.and_then(|(_, queue)| queue),
            sleep: sleep.map(|(after, wake)| Sleep { after, wake }),
            partitions: partitions.collect(),
            stages: Vec::new(),
        }
    }
}

prop_compose! {
    fn any_plans()(
        first in any_plan(),
        later in proptest::collection::btree_map(duration(), any_plan(), 0..3),
    ) -> FaultPlan {
        let later = later.into_iter().filter(|(from, _)| !from.is_zero());
        FaultPlan { stages: later.map(|(from, plan)| Stage { from, plan }).collect(), ..first }
    }
}

proptest! {
    #[test]
    fn printing_and_reading_gives_the_same_plan(made in any_plans()) {
        prop_assert_eq!(plan(&made.to_string()), made);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z=%:;.,~+0-9]{0,40}") {
        let _ = text.parse::<FaultPlan>();
    }
}
