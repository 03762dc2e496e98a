//! Queue pair numbers, LIDs, GUIDs and GIDs print as operators expect, and GIDs parse.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use tbrdma_proto::{Gid, Guid, Lid, Qpn};

#[test]
fn numbers_print_in_fixed_width() {
    assert_eq!(Qpn::new(0x11).unwrap().to_string(), "0x000011");
    assert_eq!(Lid(0x2a).to_string(), "0x002a");
    assert_eq!(Guid(0x0002_c903_00ab_cdef).to_string(), "0002:c903:00ab:cdef");
}

#[test]
fn only_24_bits_make_a_queue_pair_number() {
    assert_eq!(Qpn::new(0xff_ffff).map(Qpn::get), Some(0xff_ffff));
    assert_eq!(Qpn::new(1 << 24), None);
}

#[test]
fn a_gid_is_prefix_and_interface_id() {
    let gid = Gid::from_prefix_and_interface_id(0xfe80_0000_0000_0000, 0x0202_c9ff_fe01_0203);
    assert_eq!(gid.to_string(), "fe80::202:c9ff:fe01:203");
    assert_eq!(gid.0[..2], [0xfe, 0x80]);
    assert_eq!(gid.subnet_prefix(), 0xfe80_0000_0000_0000);
    assert_eq!(gid.interface_id(), 0x0202_c9ff_fe01_0203);
    assert!(!gid.is_zero() && Gid::default().is_zero());
}

#[test]
fn an_ipv4_address_is_mapped() {
    let gid = Gid::from_ipv4_mapped(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(gid.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    assert_eq!(gid.to_string(), "::ffff:192.0.2.1");
}

#[test]
fn text_that_is_no_gid_is_refused_with_a_remedy() {
    for text in ["", "fe80::1%eth0", "192.0.2.1", "not a gid", "::1 ", "1:2:3"] {
        let error = text.parse::<Gid>().unwrap_err().to_string();
        assert!(error.contains(&format!("{text:?}")) && error.contains("::ffff:"), "{error}");
    }
}

proptest! {
    #[test]
    fn a_gid_survives_text(bytes: [u8; 16]) {
        let gid = Gid(bytes);
        prop_assert_eq!(gid.to_string().parse::<Gid>(), Ok(gid));
        prop_assert_eq!(Gid::from_prefix_and_interface_id(gid.subnet_prefix(), gid.interface_id()), gid);
    }

    #[test]
    fn parsing_never_panics(text: String) {
        let _ = text.parse::<Gid>();
    }
}
