//! No byte outside a region's bounds, rights and protection domain is ever reachable.
//!
//! The first cases are a class of bug found in kernel drivers in 2026: `iova + length` wrapping 64 bits.

use proptest::prelude::*;
use tbrdma_proto::{Access, PdHandle, Region, RegionError, WcStatus};

const PD: PdHandle = PdHandle(7);

fn region(iova: u64, length: u64) -> Region {
    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
    Region { key: 0x0001_abcd, pd: PD, access, iova, length }
}

/// The oracle: the same question in 128 bits, where nothing wraps.
fn naive(region: &Region, addr: u64, len: u64) -> Option<u64> {
    let [iova, length, addr, len] = [region.iova, region.length, addr, len].map(u128::from);
    let inside = iova <= addr && addr + len <= iova + length && addr + len < 1 << 64;
    if inside { u64::try_from(addr - iova).ok() } else { None }
}

#[test]
fn sums_that_wrap_are_refused() {
    let region = region(0x1000, 0x1000);
    for (addr, len) in [
        (u64::MAX, 2),
        (0x1000, u64::MAX),
        (0x1fff, u64::MAX - 0x1ffe),
        (u64::MAX - 0xfff, 0x2fff),
        (0x1001, u64::MAX - 0x1000),
    ] {
        let refusal = region.check(PD, Access::empty(), addr, len);
        assert!(matches!(refusal, Err(RegionError::OutOfBounds { .. })), "{addr:#x}+{len:#x}: {refusal:?}");
    }
}

#[test]
fn a_region_that_claims_to_wrap_gives_nothing_beyond_the_end() {
    let region = region(u64::MAX - 9, 100);
    assert_eq!(region.check(PD, Access::empty(), u64::MAX - 9, 9), Ok(0));
    assert!(region.check(PD, Access::empty(), u64::MAX - 9, 10).is_err());
    assert!(region.check(PD, Access::empty(), 0, 1).is_err());
    assert!(region.check(PD, Access::empty(), 5, 0).is_err());
}

#[test]
fn the_edges_of_a_region() {
    let region = region(0x1000, 0x1000);
    assert_eq!(region.check(PD, Access::LOCAL_WRITE, 0x1000, 0x1000), Ok(0));
    assert_eq!(region.check(PD, Access::LOCAL_WRITE, 0x1fff, 1), Ok(0xfff));
    assert!(region.check(PD, Access::LOCAL_WRITE, 0x0fff, 1).is_err());
    assert!(region.check(PD, Access::LOCAL_WRITE, 0x1fff, 2).is_err());
    assert!(region.check(PD, Access::LOCAL_WRITE, 0x2000, 1).is_err());
}

#[test]
fn no_bytes_still_need_domain_rights_and_a_place() {
    let region = region(0x1000, 0x1000);
    assert_eq!(region.check(PD, Access::empty(), 0x1000, 0), Ok(0));
    assert_eq!(region.check(PD, Access::empty(), 0x2000, 0), Ok(0x1000));
    assert!(matches!(region.check(PD, Access::empty(), 0x2001, 0), Err(RegionError::OutOfBounds { .. })));
    assert!(matches!(region.check(PD, Access::empty(), 0x0fff, 0), Err(RegionError::OutOfBounds { .. })));
    assert!(matches!(
        region.check(PdHandle(8), Access::empty(), 0x1000, 0),
        Err(RegionError::WrongPd { .. })
    ));
    let denied = region.check(PD, Access::REMOTE_READ, 0x1000, 0);
    assert!(matches!(denied, Err(RegionError::AccessDenied { .. })));
}

#[test]
fn the_first_rule_broken_is_reported() {
    let region = region(0x1000, 0x1000);
    let all_wrong = region.check(PdHandle(8), Access::REMOTE_READ, 0, 1);
    assert!(matches!(all_wrong, Err(RegionError::WrongPd { .. })));
    let two_wrong = region.check(PD, Access::REMOTE_READ, 0, 1);
    assert!(matches!(two_wrong, Err(RegionError::AccessDenied { .. })));
}

#[test]
fn every_needed_right_is_needed() {
    let region = region(0, 16);
    assert!(region.check(PD, Access::LOCAL_WRITE | Access::REMOTE_WRITE, 0, 16).is_ok());
    assert!(region.check(PD, Access::REMOTE_WRITE | Access::REMOTE_ATOMIC, 0, 16).is_err());
    assert!(region.check(PD, Access::from_bits_retain(1 << 30), 0, 16).is_err());
}

#[test]
fn refusals_say_what_where_and_how_to_fix_it() {
    let region = region(0x1000, 64);
    let text = region.check(PD, Access::empty(), 0x1030, 32).unwrap_err().to_string();
    for word in ["32 bytes", "0x1030", "0x0001abcd", "64 bytes", "0x1000", "not an offset"] {
        assert!(text.contains(word), "{text}");
    }
    let text = region.check(PdHandle(9), Access::empty(), 0x1000, 1).unwrap_err().to_string();
    assert!(text.contains("domain 7") && text.contains("to 9"), "{text}");
    let text = region.check(PD, Access::REMOTE_READ, 0x1000, 1).unwrap_err().to_string();
    assert!(text.contains("needs REMOTE_READ") && text.contains("LOCAL_WRITE | REMOTE_WRITE"), "{text}");
    let error = RegionError::KeyMismatch { key: 0xdead };
    assert!(error.to_string().contains("0x0000dead"));
    assert_eq!(error.local_status(), WcStatus::LocProtErr);
    assert_eq!(error.remote_status(), WcStatus::RemAccessErr);
}

/// Numbers near zero, near each other, and near the end of the address space.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..64,
        (0u64..64).prop_map(|n| u64::MAX - n),
        (0u64..64).prop_map(|n| (1 << 32) + n),
        any::<u64>()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn bounds_agree_with_128_bit_arithmetic(
        iova in number(), length in number(), addr in number(), len in number(),
    ) {
        let region = region(iova, length);
        prop_assert_eq!(region.check(PD, Access::empty(), addr, len).ok(), naive(&region, addr, len));
    }

    #[test]
    fn accesses_near_a_region_agree_too(
        iova in number(), length in 0u64..40, below in 0u64..20, len in 0u64..60,
    ) {
        let region = region(iova, length);
        for addr in [iova.wrapping_sub(below), iova.wrapping_add(below)] {
            prop_assert_eq!(region.check(PD, Access::empty(), addr, len).ok(), naive(&region, addr, len));
        }
    }

    #[test]
    fn what_is_allowed_lies_inside(iova in number(), length in number(), addr in number(), len in number()) {
        let region = region(iova, length);
        if let Ok(offset) = region.check(PD, Access::empty(), addr, len) {
            prop_assert!(offset.checked_add(len).is_some_and(|end| end <= length));
        }
    }
}
