//! Enums and flags have libibverbs' numbers, and numbers without a meaning are refused.

use tbrdma_proto::{
    Access, AsyncEventKind, AtomicCap, LinkLayer, Mtu, Opcode, PortState, QpAttrMask, QpState, QpType,
    SendFlags, WcFlags, WcOpcode, WcStatus,
};

/// Checks that exactly `values` convert from raw among the first thousand numbers, each to itself and back.
macro_rules! has_exactly {
    ($type:ty, $values:expr) => {
        let values: Vec<u32> = $values.into_iter().collect();
        assert_eq!(<$type>::ALL.iter().map(|v| v.raw()).collect::<Vec<_>>(), values);
        for raw in (0..1000).chain([u32::MAX, 1 << 31, 256 + values[0]]) {
            assert_eq!(<$type>::from_raw(raw).map(<$type>::raw), values.contains(&raw).then_some(raw));
        }
    };
}

#[test]
fn enums_have_the_values_of_verbs_h() {
    has_exactly!(Opcode, 0..10);
    has_exactly!(WcOpcode, [0, 1, 2, 3, 4, 5, 6, 128, 129]);
    has_exactly!(WcStatus, 0..24);
    has_exactly!(QpType, [2, 3, 4]);
    has_exactly!(QpState, 0..7);
    has_exactly!(Mtu, 1..6);
    has_exactly!(AsyncEventKind, 0..20);
    has_exactly!(AtomicCap, 0..3);
    has_exactly!(PortState, 0..6);
    has_exactly!(LinkLayer, [0, 1, 2, 100]);
}

#[test]
fn names_and_values_that_programs_rely_on() {
    assert_eq!(Opcode::SendWithInv.raw(), 9);
    assert_eq!(Opcode::RdmaRead.raw(), 4);
    assert_eq!(WcStatus::WrFlushErr.raw(), 5);
    assert_eq!(WcStatus::RemAccessErr.raw(), 10);
    assert_eq!(WcStatus::RetryExcErr.raw(), 12);
    assert_eq!(WcStatus::RnrRetryExcErr.raw(), 13);
    assert_eq!(WcStatus::GeneralErr.raw(), 21);
    assert_eq!(WcOpcode::RecvRdmaWithImm.raw(), 129);
    assert_eq!(AsyncEventKind::QpLastWqeReached.raw(), 16);
    assert_eq!(AsyncEventKind::GidChange.raw(), 18);
    assert_eq!(PortState::Active.raw(), 4);
    assert_eq!([QpState::Reset, QpState::Rts, QpState::Err].map(QpState::raw), [0, 3, 6]);
    assert_eq!(QpType::Uc.raw(), 3);
}

#[test]
fn flags_have_the_values_of_verbs_h() {
    assert_eq!(Access::all().bits(), 0xff | 1 << 20);
    assert_eq!(Access::REMOTE_ATOMIC.bits(), 8);
    assert_eq!(SendFlags::all().bits(), 31);
    assert_eq!((SendFlags::SIGNALED | SendFlags::INLINE).bits(), 2 | 8);
    assert_eq!(WcFlags::all().bits(), 15);
    assert_eq!(QpAttrMask::all().bits(), 0x1f_ffff | 1 << 25);
    assert_eq!(QpAttrMask::DEST_QPN.bits(), 1 << 20);
    assert_eq!(QpAttrMask::MIN_RNR_TIMER.bits(), 1 << 15);
}

#[test]
fn an_mtu_is_its_bytes() {
    for (mtu, bytes) in Mtu::ALL.iter().zip([256, 512, 1024, 2048, 4096]) {
        assert_eq!(mtu.bytes(), bytes);
        assert_eq!(Mtu::from_bytes(bytes), Some(*mtu));
        assert_eq!(mtu.to_string(), bytes.to_string());
    }
    for wrong in [0, 1, 128, 255, 1500, 8192, u32::MAX] {
        assert_eq!(Mtu::from_bytes(wrong), None);
    }
    assert_eq!(Mtu::default(), Mtu::B1024);
}
