//! The cases, one file a behaviour.

use crate::case::Case;

mod access_flags;
mod async_events;
mod atomics;
mod channel;
mod cq;
mod flush;
mod halves;
mod iova;
mod limits;
mod loan;
mod loopback;
mod memory_protection;
mod memory_window;
mod not_ready;
mod ordering;
mod other_way;
mod raw_posting;
mod rc_send_recv;
mod rdma_read;
mod rdma_write;
mod receive_errors;
mod refusals;
mod registered_memory;
mod rereg;
mod resize_cq;
mod rnr;
mod srq;
mod states;
mod uc;
mod ud;
mod write_lists;

/// Every case of the suite.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let files: &[&[Case]] = &[
        access_flags::CASES,
        async_events::CASES,
        atomics::CASES,
        channel::CASES,
        cq::CASES,
        flush::CASES,
        halves::CASES,
        iova::CASES,
        limits::CASES,
        loan::CASES,
        loopback::CASES,
        memory_protection::CASES,
        memory_window::CASES,
        not_ready::CASES,
        ordering::CASES,
        other_way::CASES,
        raw_posting::CASES,
        rc_send_recv::CASES,
        rdma_read::CASES,
        rdma_write::CASES,
        receive_errors::CASES,
        refusals::CASES,
        registered_memory::CASES,
        rereg::CASES,
        resize_cq::CASES,
        rnr::CASES,
        srq::CASES,
        states::CASES,
        uc::CASES,
        ud::CASES,
        write_lists::CASES,
    ];
    files.iter().copied().flatten()
}
