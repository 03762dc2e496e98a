//! The suite on the software NIC through memory windows in files, by turns one that both sides share and a pair: what is about connections and fits a few
//! seconds. The whole suite on either kind is `cargo xtask conformance`'s.

use std::process::ExitCode;

/// Files of cases that are about messages of connected queue pairs.
const FILES: [&str; 8] =
    ["atomics", "ordering", "raw_posting", "rc_send_recv", "rdma_read", "rdma_write", "uc", "write_lists"];
/// Cases of these that take longest: they wait for acknowledgements of a side that does not poll.
const LONG: [&str; 4] = ["thousands", "queue_pairs_do_not_wait", "is_there_when", "additions_of_several"];

fn main() -> ExitCode {
    tbrdma_conformance::runner::test_some("bar:either:*", |name| {
        FILES.iter().any(|file| name.split("::").next() == Some(file))
            && !LONG.iter().any(|long| name.contains(long))
    })
}
