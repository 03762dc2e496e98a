//! Which access rights a memory region may be registered with.

use proptest::prelude::*;
use tbrdma_proto::{Access, AccessFlagsError};

#[test]
fn remote_writing_needs_local_writing() {
    for remote in [Access::REMOTE_WRITE, Access::REMOTE_ATOMIC, Access::REMOTE_WRITE | Access::REMOTE_READ] {
        assert_eq!(remote.validate(), Err(AccessFlagsError::NeedsLocalWrite { access: remote }));
        assert_eq!((remote | Access::LOCAL_WRITE).validate(), Ok(()));
    }
    for fine in [Access::empty(), Access::REMOTE_READ, Access::MW_BIND, Access::LOCAL_WRITE] {
        assert_eq!(fine.validate(), Ok(()));
    }
}

#[test]
fn optional_bits_are_ignored_and_other_unknown_bits_are_not() {
    for bit in 0..32 {
        let access = Access::LOCAL_WRITE | Access::from_bits_retain(1 << bit);
        let refused = (8..20).contains(&bit) || bit >= 30;
        assert_eq!(access.validate().is_err(), refused, "bit {bit}");
    }
}

#[test]
fn refusals_name_the_bits_and_the_cure() {
    let error = Access::REMOTE_ATOMIC.validate().unwrap_err().to_string();
    assert!(error.contains("REMOTE_ATOMIC") && error.contains("add LOCAL_WRITE"), "{error}");
    let error = Access::from_bits_retain(1 | 1 << 9).validate().unwrap_err().to_string();
    assert!(error.contains("0x200") && error.contains("LOCAL_WRITE"), "{error}");
}

#[test]
fn no_rights_print_as_zero() {
    assert_eq!(Access::empty().to_string(), "0");
    assert_eq!((Access::LOCAL_WRITE | Access::REMOTE_READ).to_string(), "LOCAL_WRITE | REMOTE_READ");
}

proptest! {
    #[test]
    fn any_bits_are_judged_and_printed(bits: u32) {
        let access = Access::from_bits_retain(bits);
        prop_assert_eq!(access.unknown_bits() & (0xff | Access::OPTIONAL_RANGE), 0);
        if let Err(error) = access.validate() {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
