//! PSNs count on a circle of 2^24.

use proptest::prelude::*;
use tbrdma_proto::Psn;

const CIRCLE: i64 = 1 << 24;

fn psn() -> impl Strategy<Value = Psn> {
    // Half of the cases lie near the places where things go wrong.
    let edges = prop_oneof![0u32..4, 0x7f_fffcu32..0x80_0004, 0xff_fffcu32..0x100_0000];
    prop_oneof![edges, 0u32..1 << 24].prop_map(Psn::masked)
}

/// The oracle: the representative of `a - b` in `-2^23 .. 2^23`, by plain integer arithmetic.
fn naive_distance(a: Psn, b: Psn) -> i64 {
    let difference = i64::from(a.get()) - i64::from(b.get());
    (difference + CIRCLE / 2).rem_euclid(CIRCLE) - CIRCLE / 2
}

#[test]
fn only_24_bits_make_a_psn() {
    assert_eq!(Psn::new(0xff_ffff).map(Psn::get), Some(0xff_ffff));
    assert_eq!(Psn::new(0x100_0000), None);
    assert_eq!(Psn::new(u32::MAX), None);
    assert_eq!(Psn::masked(0xab12_3456).get(), 0x12_3456);
    assert_eq!(Psn::default().get(), 0);
}

#[test]
fn the_last_psn_is_followed_by_zero() {
    let last = Psn::masked(0xff_ffff);
    assert_eq!(last.next(), Psn::default());
    assert!(last.precedes(Psn::default()));
    assert!(!Psn::default().precedes(last));
    assert_eq!(last.distance_from(Psn::default()), -1);
}

#[test]
fn the_opposite_point_counts_as_before() {
    let (here, opposite) = (Psn::masked(5), Psn::masked(5 + (1 << 23)));
    assert_eq!(opposite.distance_from(here), -(1 << 23));
    assert!(opposite.precedes(here) && here.precedes(opposite));
    assert_eq!(Psn::masked(4 + (1 << 23)).distance_from(here), (1 << 23) - 1);
}

#[test]
fn it_prints_six_hex_digits() {
    assert_eq!(Psn::masked(0x1a).to_string(), "0x00001a");
}

proptest! {
    #[test]
    fn distance_agrees_with_plain_integers(a in psn(), b in psn()) {
        prop_assert_eq!(i64::from(a.distance_from(b)), naive_distance(a, b));
        prop_assert_eq!(a.precedes(b), naive_distance(a, b) < 0);
    }

    #[test]
    fn adding_a_distance_gets_there(a in psn(), b in psn()) {
        prop_assert_eq!(b.add(a.distance_from(b).cast_unsigned()), a);
    }

    #[test]
    fn adding_any_count_stays_on_the_circle(a in psn(), n: u32) {
        let expected = (i64::from(a.get()) + i64::from(n)).rem_euclid(CIRCLE);
        prop_assert_eq!(i64::from(a.add(n).get()), expected);
    }

    #[test]
    fn distances_are_opposite_except_across_the_cut(a in psn(), b in psn()) {
        let (there, back) = (a.distance_from(b), b.distance_from(a));
        prop_assert!(there == -back || (there == back && there == -(1 << 23)));
    }
}
