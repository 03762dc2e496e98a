//! The cases, one file a behaviour.

use crate::case::Case;

mod access_flags;
mod async_events;
mod atomics;
mod channel;
mod flush;
mod halves;
mod iova;
mod loan;
mod memory_protection;
mod memory_window;
mod other_way;
mod rc_send_recv;
mod rdma_read;
mod rdma_write;
mod receive_errors;
mod refusals;
mod rereg;
mod resize_cq;
mod rnr;
mod srq;
mod states;
mod ud;
mod write_lists;

/// Every case of the suite.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let files: &[&[Case]] = &[
        access_flags::CASES,
        async_events::CASES,
        atomics::CASES,
        channel::CASES,
        flush::CASES,
        halves::CASES,
        iova::CASES,
        loan::CASES,
        memory_protection::CASES,
        memory_window::CASES,
        other_way::CASES,
        rc_send_recv::CASES,
        rdma_read::CASES,
        rdma_write::CASES,
        receive_errors::CASES,
        refusals::CASES,
        rereg::CASES,
        resize_cq::CASES,
        rnr::CASES,
        srq::CASES,
        states::CASES,
        ud::CASES,
        write_lists::CASES,
    ];
    files.iter().copied().flatten()
}
