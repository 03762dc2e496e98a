//! Memory of shared memory's own: as much as the segment has address space.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use tbrdma::Error;

mod common;
use common::all_access;

#[test]
fn more_memory_than_the_segment_has_is_refused_and_nothing_is_lost() {
    let ctx = tbrdma::open("shm").unwrap();
    let pd = ctx.alloc_pd().unwrap();
    let error = pd.alloc(1 << 40, all_access()).unwrap_err();
    assert!(matches!(error, Error::LimitReached { .. }), "{error}");
    // Large regions cost no memory until they are touched.
    let mut regions = Vec::new();
    let error = loop {
        assert!(regions.len() < 64, "more than the segment can hold");
        match pd.alloc(1 << 33, all_access()) {
            Ok(region) => regions.push(region),
            Err(error) => break error,
        }
    };
    assert!(regions.len() >= 4, "{error}");
    drop(regions);
    let region = pd.alloc(1 << 34, all_access()).unwrap();
    assert!(region.store_u64((1 << 34) - 8, 1));
}
