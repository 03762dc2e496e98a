//! The codes of the RNR timer and of the acknowledgement timeout.

use std::time::Duration;

use tbrdma_proto::{ack_timeout, rnr_timer};

#[test]
fn rnr_codes_are_the_specification_s() {
    // Milliseconds, as the specification prints them.
    let milliseconds = [
        655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92,
        2.56, 3.84, 5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76,
        327.68, 491.52,
    ];
    for (code, ms) in (0..).zip(milliseconds) {
        assert_eq!(rnr_timer(code).as_micros(), (ms * 1000.0_f64).round() as u128, "code {code}");
    }
}

#[test]
fn from_code_1_on_rnr_delays_grow_and_0_is_the_longest() {
    assert!((1..31).all(|code| rnr_timer(code) < rnr_timer(code + 1)));
    assert!(rnr_timer(0) > rnr_timer(31));
}

#[test]
fn ack_timeouts_double() {
    assert_eq!(ack_timeout(0), None);
    assert_eq!(ack_timeout(1), Some(Duration::from_nanos(8_192)));
    assert_eq!(ack_timeout(14), Some(Duration::from_nanos(67_108_864)));
    assert_eq!(ack_timeout(31), Some(Duration::from_nanos(4_096 << 31)));
}

#[test]
fn only_five_bits_count() {
    for code in 0..=u8::MAX {
        assert_eq!(rnr_timer(code), rnr_timer(code & 31));
        assert_eq!(ack_timeout(code), ack_timeout(code & 31));
    }
}
