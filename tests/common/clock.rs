//! The time that the device under test goes by, and how long tests wait in it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment of the device's time.
#[derive(Clone, Copy)]
pub(crate) struct Moment(Instant);

impl Moment {
    /// This one.
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago it was.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// By how much all waits are longer on a machine that is that much slower (`TBRDMA_TEST_PATIENCE`).
fn factor() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        std::env::var("TBRDMA_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
    })
}

/// How long anything may take on a loaded machine.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(20) * factor()
}

/// How long is watched for something that must not happen. Too short a watch never fails a right program.
pub(crate) fn quiet() -> Duration {
    Duration::from_millis(20) * factor()
}

/// After so long a datagram counts as lost, over a network at whose address other tests open and close devices.
pub(crate) fn lost() -> Duration {
    Duration::from_secs(3) * factor()
}
