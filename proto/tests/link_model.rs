//! Links of some rate and latency: what their text means, and what faults become on them.

use std::time::Duration;
use tbrdma_proto::fault::{FaultPlan, LinkModel, LinkModelError};

fn link(text: &str) -> LinkModel {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn plan(text: &str) -> FaultPlan {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_rate_a_latency_or_both_in_any_order() {
    let (rate, latency) = (Some(64_000_000_000), Duration::from_micros(5));
    assert_eq!(link("64Gbps,5us"), LinkModel { rate, latency });
    assert_eq!(link("5us, 64Gbps"), LinkModel { rate, latency });
    assert_eq!(link("64Gbps"), LinkModel { rate, latency: Duration::ZERO });
    assert_eq!(link("5us"), LinkModel { rate: None, latency });
    for text in ["64Gbps,5us", "64Gbps", "5us"] {
        assert_eq!(link(text).to_string(), text);
    }
}

#[test]
fn anything_else_is_told_what_would_be_right() {
    for text in ["", "64", "0bps", "0us", "5us~1us", "5us,6us", "1Gbps,2Gbps", "loss=1%", "5us,loss=1%"] {
        assert_eq!(text.parse::<LinkModel>(), Err(LinkModelError::Text), "{text}");
    }
    assert!(LinkModelError::Text.to_string().contains("64Gbps,5us"));
}

#[test]
fn a_link_and_its_faults_are_one_plan_unless_both_say_it() {
    assert_eq!(link("1Gbps,5us").plan(), plan("rate=1Gbps,delay=5us"));
    assert_eq!(link("1Gbps").with_faults(plan("delay=5us~1us")), Ok(plan("rate=1Gbps,delay=5us~1us")));
    assert_eq!(link("5us").with_faults(plan("loss=1%,rate=1Gbps")), Ok(plan("loss=1%,delay=5us,rate=1Gbps")));
    for (one, two) in [("1Gbps", "rate=2Gbps"), ("1Gbps,5us", "delay=6us")] {
        assert_eq!(link(one).with_faults(plan(two)), Err(LinkModelError::Twice(two.to_owned())));
    }
}
