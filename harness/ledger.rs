//! What programs hold of devices that keep a ledger, and giving back what the dead left.

use std::fmt::Write as _;

use crate::error::{Context, Result};

/// Lists what is held; first gives back what is left of the dead, if asked to.
///
/// # Errors
/// The ledger cannot be read or written.
pub fn show(clear: bool) -> Result<String> {
    let mut text = String::new();
    if clear {
        let gone = tbrdma::ledger::clear().context(|| "clear the ledger".to_owned())?;
        let _ = writeln!(text, "gave back what {gone} dead programs held");
    }
    let held = tbrdma::ledger::held().context(|| "read the ledger".to_owned())?;
    if held.is_empty() {
        text.push_str("nothing is held\n");
    }
    for holding in held {
        let _ = writeln!(text, "{holding}");
    }
    Ok(text)
}
