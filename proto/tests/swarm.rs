//! A fixed set of seeds of the simulation; `cargo xtask swarm` runs as many as one likes.

use std::thread;

use tbrdma_proto::WcStatus;
use tbrdma_proto::testing::swarm::{Options, Outcome, run};

/// Seeds that this test runs, on two threads.
const SEEDS: u64 = 100;

/// Runs seeds, and shows the first failure.
fn runs(seeds: impl Iterator<Item = u64>) -> Vec<Outcome> {
    seeds
        .map(|seed| {
            let outcome = run(seed, Options::default());
            if let Some(failure) = &outcome.failure {
                panic!("{failure}\nreplay: cargo xtask swarm --from {seed} --seeds 1 --trace");
            }
            outcome
        })
        .collect()
}

#[test]
fn no_seed_breaks_a_promise_and_together_they_meet_every_ending() {
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let odd = scope.spawn(|| runs((1..=SEEDS).step_by(2)));
        let even = runs((2..=SEEDS).step_by(2));
        even.into_iter().chain(odd.join().unwrap()).collect()
    });
    // A swarm that never gets into trouble would prove nothing.
    let count = |half: usize, status: WcStatus| -> u64 {
        outcomes.iter().map(|outcome| outcome.statuses[half][status.raw() as usize]).sum()
    };
    for (half, status) in [
        (0, WcStatus::Success),
        (0, WcStatus::WrFlushErr),
        (0, WcStatus::LocProtErr),
        (0, WcStatus::RemAccessErr),
        (0, WcStatus::RemInvReqErr),
        (0, WcStatus::RemOpErr),
        (0, WcStatus::RetryExcErr),
        (0, WcStatus::RnrRetryExcErr),
        (1, WcStatus::Success),
        (1, WcStatus::WrFlushErr),
        (1, WcStatus::LocLenErr),
        (1, WcStatus::LocProtErr),
    ] {
        assert!(count(half, status) > 0, "no {} ended with {status:?}", ["send", "receive"][half]);
    }
    assert!(outcomes.iter().map(|outcome| outcome.totals.lost).sum::<u64>() > 1000);
}

#[test]
fn a_seed_does_the_same_twice() {
    let once = runs(1..=10);
    let twice = runs(1..=10);
    for (one, other) in once.iter().zip(&twice) {
        assert_eq!(
            (one.hash, one.totals, one.time),
            (other.hash, other.totals, other.time),
            "seed {}",
            one.seed
        );
    }
    assert!(once.windows(2).all(|pair| pair[0].hash != pair[1].hash), "and different ones do not");
}
