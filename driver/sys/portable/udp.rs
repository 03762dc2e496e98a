//! What of UDP is common to all links, where there are no such sockets.

/// What packets have if nobody asks for another.
pub(crate) const DEFAULT_HOP_LIMIT: u8 = 64;

/// Room for what is taken from the kernel in one call: nothing is.
#[derive(Default)]
pub(crate) struct ReceiveBatch;
