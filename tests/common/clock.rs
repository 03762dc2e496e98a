//! The time that the device under test goes by, and how long tests wait in it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tbrdma::Context;

/// A context in the simulated network under test, for its clock, which is that of all contexts there; none if the device is a real one.
fn simulated() -> Option<&'static Context> {
    static CONTEXT: OnceLock<Option<Context>> = OnceLock::new();
    let context = CONTEXT.get_or_init(|| {
        let device = super::device();
        device.starts_with("sim").then(|| tbrdma::open(device).unwrap())
    });
    context.as_ref()
}

/// A moment of the device's time.
#[derive(Clone, Copy)]
pub(crate) enum Moment {
    Real(Instant),
    Simulated(Duration),
}

impl Moment {
    /// This one.
    pub(crate) fn now() -> Self {
        simulated().map_or_else(|| Self::Real(Instant::now()), |context| Self::Simulated(context.raw_clock()))
    }

    /// How long ago it was.
    pub(crate) fn elapsed(self) -> Duration {
        match (self, simulated()) {
            (Self::Real(instant), _) => instant.elapsed(),
            (Self::Simulated(then), now) => now.map_or(then, Context::raw_clock).saturating_sub(then),
        }
    }
}

/// Lets others run, and a little time pass, between two looks at something that no call of ours waits for.
pub(crate) fn pass_time() {
    match simulated() {
        Some(context) => context.sleep(Duration::from_micros(1)),
        None => std::thread::yield_now(),
    }
}

/// By how much all waits are longer on a machine that is that much slower (`TBRDMA_TEST_PATIENCE`).
fn factor() -> f64 {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        std::env::var("TBRDMA_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0)
    })
}

/// Whether what is waited for is not expected to come.
static DOUBT: AtomicBool = AtomicBool::new(false);

/// Has the tests of this process wait for little from now on, or not any more: for what a device is declared not to do.
pub(crate) fn doubt(doubt: bool) {
    DOUBT.store(doubt, Ordering::Relaxed);
}

/// How long anything may take on a loaded machine.
pub(crate) fn patience() -> Duration {
    if DOUBT.load(Ordering::Relaxed) {
        Duration::from_millis(300)
    } else {
        Duration::from_secs(20).mul_f64(factor())
    }
}

/// How long is watched for something that must not happen. Too short a watch never fails a right program.
pub(crate) fn quiet() -> Duration {
    Duration::from_millis(20).mul_f64(factor())
}

/// After so long a datagram counts as lost, over a network at whose address other tests open and close devices.
pub(crate) fn lost() -> Duration {
    Duration::from_secs(3).mul_f64(factor())
}
