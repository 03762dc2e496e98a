//! End-to-end credits: how many messages the peer says it has receives for (IBTA volume 1, section 9.7.7.2).

use crate::ident::Psn;
use crate::wire::credit_count;

/// What the peer granted last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credits {
    /// SSN of the last request that may need a receive; `None` if there is no limit, as long as the peer has not said
    /// otherwise.
    limit: Option<Psn>,
}

impl Credits {
    /// An acknowledgement granted `code` beyond the `msn` requests done. Acknowledgements are told in order.
    #[inline]
    pub(super) fn grant(&mut self, msn: u32, code: u8) {
        // MSNs count modulo 2^24, as PSNs do.
        self.limit = credit_count(code).map(|credits| Psn::masked(msn).add(credits));
    }

    /// Whether the request with this SSN, which needs a receive, may be sent.
    #[inline]
    pub(super) const fn allow(&self, ssn: u32) -> bool {
        match self.limit {
            None => true,
            Some(limit) => !limit.precedes(Psn::masked(ssn)),
        }
    }
}
