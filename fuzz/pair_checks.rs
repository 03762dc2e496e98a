//! What must hold for whole connections, whatever their applications do: one function a fuzz target, as in checks.rs.

use tbrdma_proto::testing::swarm::{Options, run_script};

/// The simulation's oracle has nothing to say about a run whose operations are the input's.
pub(crate) fn pair(data: &[u8]) {
    if let Some(failure) = run_script(data, Options::default()).failure {
        panic!("{failure}");
    }
}
