//! Attribute values are held against the device and its port, and only where the mask names them.

use proptest::prelude::*;
use tbrdma_proto::{
    Access, AddressVector, DEVICE_AUTO_PATH_MIG, DeviceAttr, Gid, ModifyError, Mtu, PortAttr, Profile, Psn,
    QpAttr, QpAttrMask, QpCap, QpState, Qpn, check_address_vector, check_cap, check_values,
};

fn refused(attr: &QpAttr, mask: QpAttrMask) -> Option<&'static str> {
    let Profile { device, port, .. } = Profile::plain();
    match check_values(attr, mask, &device, &port) {
        Ok(()) => None,
        Err(ModifyError::OutOfRange { attribute, value, min, max }) => {
            assert!(value < min || value > max);
            Some(attribute)
        }
        Err(_) => Some("refused for another reason than a value"),
    }
}

fn good() -> QpAttr {
    QpAttr {
        port_num: 1,
        timeout: 31,
        retry_cnt: 7,
        rnr_retry: 7,
        min_rnr_timer: 31,
        max_rd_atomic: 128,
        max_dest_rd_atomic: 128,
        path_mtu: Mtu::B4096,
        ah_attr: AddressVector { is_global: true, sgid_index: 15, port_num: 1, ..Default::default() },
        ..Default::default()
    }
}

const SETTABLE: QpAttrMask = QpAttrMask::all()
    .difference(QpAttrMask::ALT_PATH)
    .difference(QpAttrMask::PATH_MIG_STATE)
    .difference(QpAttrMask::CAP)
    .difference(QpAttrMask::RATE_LIMIT);

#[test]
fn the_largest_values_are_taken_and_the_next_are_not() {
    assert_eq!(refused(&good(), SETTABLE), None);
    type Break = fn(&mut QpAttr);
    let cases: [(&str, QpAttrMask, Break); 13] = [
        ("pkey_index", QpAttrMask::PKEY_INDEX, |a| a.pkey_index = 1),
        ("port_num", QpAttrMask::PORT, |a| a.port_num = 2),
        ("port_num", QpAttrMask::PORT, |a| a.port_num = 0),
        ("ah_attr.port_num", QpAttrMask::AV, |a| a.ah_attr.port_num = 0),
        ("ah_attr.sl", QpAttrMask::AV, |a| a.ah_attr.sl = 16),
        ("ah_attr.sgid_index", QpAttrMask::AV, |a| a.ah_attr.sgid_index = 16),
        ("ah_attr.flow_label", QpAttrMask::AV, |a| a.ah_attr.flow_label = 1 << 20),
        ("timeout", QpAttrMask::TIMEOUT, |a| a.timeout = 32),
        ("retry_cnt", QpAttrMask::RETRY_CNT, |a| a.retry_cnt = 8),
        ("rnr_retry", QpAttrMask::RNR_RETRY, |a| a.rnr_retry = 8),
        ("min_rnr_timer", QpAttrMask::MIN_RNR_TIMER, |a| a.min_rnr_timer = 32),
        ("max_rd_atomic", QpAttrMask::MAX_QP_RD_ATOMIC, |a| a.max_rd_atomic = 129),
        ("max_dest_rd_atomic", QpAttrMask::MAX_DEST_RD_ATOMIC, |a| a.max_dest_rd_atomic = 129),
    ];
    for (attribute, bit, break_it) in cases {
        let mut attr = good();
        break_it(&mut attr);
        assert_eq!(refused(&attr, SETTABLE), Some(attribute));
        assert_eq!(refused(&attr, SETTABLE - bit), None, "{attribute} does not count without its bit");
    }
}

#[test]
fn a_narrow_device_takes_less() {
    let attr = good();
    let device = DeviceAttr { max_qp_rd_atom: 16, max_qp_init_rd_atom: 4, ..Default::default() };
    let port = PortAttr { active_mtu: Mtu::B1024, gid_tbl_len: 0, pkey_tbl_len: 0, ..Default::default() };
    let check = |mask| check_values(&attr, mask, &device, &port).unwrap_err().to_string();
    assert!(check(QpAttrMask::PATH_MTU).contains("path_mtu is 4096, but this device takes 256 to 1024"));
    assert!(check(QpAttrMask::MAX_QP_RD_ATOMIC).contains("0 to 4"));
    assert!(check(QpAttrMask::MAX_DEST_RD_ATOMIC).contains("0 to 16"));
    assert!(check(QpAttrMask::AV).contains("sgid_index is 15"));
    assert_eq!(check_values(&attr, QpAttrMask::PKEY_INDEX, &device, &port), Ok(()));
}

#[test]
fn a_local_path_needs_no_gid() {
    let Profile { device, port, .. } = Profile::plain();
    let av = AddressVector { sgid_index: 200, flow_label: u32::MAX, port_num: 1, ..Default::default() };
    assert_eq!(check_address_vector(&av, &device, &port), Ok(()));
    assert!(check_address_vector(&AddressVector { is_global: true, ..av }, &device, &port).is_err());
}

#[test]
fn features_the_device_lacks_are_named() {
    let (mut device, port) = (DeviceAttr::default(), PortAttr::default());
    let mask = QpAttrMask::ALT_PATH | QpAttrMask::CAP;
    assert_eq!(check_values(&good(), mask, &device, &port), Err(ModifyError::Unsupported(mask)));
    device.device_cap_flags |= DEVICE_AUTO_PATH_MIG;
    let refused = check_values(&good(), mask, &device, &port);
    assert_eq!(refused, Err(ModifyError::Unsupported(QpAttrMask::CAP)));
    assert!(refused.unwrap_err().to_string().contains("CAP"));
}

#[test]
fn queue_pair_rights_need_no_local_write_but_must_be_known() {
    let (device, port) = (DeviceAttr::default(), PortAttr::default());
    let check = |access| {
        let attr = QpAttr { qp_access_flags: access, ..good() };
        check_values(&attr, QpAttrMask::ACCESS_FLAGS, &device, &port)
    };
    assert_eq!(check(Access::REMOTE_WRITE), Ok(()));
    let unknown = Access::from_bits_retain(1 << 15 | 2);
    assert_eq!(check(unknown), Err(ModifyError::UnknownAccess { access: unknown, unknown: 1 << 15 }));
}

#[test]
fn queue_sizes_are_held_against_the_device() {
    let device = DeviceAttr::default();
    let largest = QpCap {
        max_send_wr: device.max_qp_wr,
        max_recv_wr: device.max_qp_wr,
        max_send_sge: device.max_sge,
        max_recv_sge: device.max_sge,
        max_inline_data: device.max_inline_data,
    };
    assert_eq!(check_cap(&largest, &device), Ok(()));
    assert_eq!(check_cap(&QpCap::default(), &device), Ok(()));
    for (name, cap) in [
        ("max_send_wr", QpCap { max_send_wr: 16_385, ..largest }),
        ("max_recv_wr", QpCap { max_recv_wr: u32::MAX, ..largest }),
        ("max_send_sge", QpCap { max_send_sge: 33, ..largest }),
        ("max_recv_sge", QpCap { max_recv_sge: 33, ..largest }),
        ("max_inline_data", QpCap { max_inline_data: 513, ..largest }),
    ] {
        assert!(check_cap(&cap, &device).unwrap_err().to_string().contains(name));
    }
}

prop_compose! {
    fn any_attr()(
        bytes: [u8; 12], words: [u32; 4], mtu in 0usize..5, state in 0usize..7, gid: [u8; 16], global: bool,
    ) -> QpAttr {
        QpAttr {
            qp_state: QpState::ALL[state],
            cur_qp_state: QpState::ALL[6 - state],
            path_mtu: Mtu::ALL[mtu],
            qkey: words[0],
            rq_psn: Psn::masked(words[1]),
            sq_psn: Psn::masked(words[2]),
            dest_qp_num: Qpn::new(words[3] >> 8).unwrap_or_default(),
            qp_access_flags: Access::from_bits_retain(words[1]),
            ah_attr: AddressVector {
                dgid: Gid(gid), is_global: global, sgid_index: bytes[0], sl: bytes[1], port_num: bytes[2],
                flow_label: words[2], ..Default::default()
            },
            pkey_index: u16::from(bytes[3]),
            max_rd_atomic: bytes[4],
            max_dest_rd_atomic: bytes[5],
            min_rnr_timer: bytes[6],
            port_num: bytes[7],
            timeout: bytes[8],
            retry_cnt: bytes[9],
            rnr_retry: bytes[10],
            ..Default::default()
        }
    }
}

proptest! {
    #[test]
    fn any_values_are_judged(attr in any_attr(), bits: u32) {
        let Profile { device, port, .. } = Profile::plain();
        if let Err(error) = check_values(&attr, QpAttrMask::from_bits_retain(bits), &device, &port) {
            prop_assert!(!error.to_string().is_empty());
        }
        prop_assert_eq!(check_values(&attr, QpAttrMask::empty(), &device, &port), Ok(()));
    }
}
