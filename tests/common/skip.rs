//! What a machine lacks.

use std::fmt::Display;

/// Reports that the machine lacks what a test needs; a failure where everything is required (`TBRDMA_REQUIRE=1`).
pub(crate) fn skip(reason: impl Display) {
    assert!(std::env::var_os("TBRDMA_REQUIRE").is_none_or(|wish| wish != "1"), "required, but: {reason}");
    println!("skipped: {reason}");
}
