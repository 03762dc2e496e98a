//! What must hold for any bytes: one function a fuzz target, run by the fuzzer and, over the committed corpora, by
//! tests/fuzz_corpus.rs.

use super::case::Case;
use tbrdma::{
    Access, AddressVector, Mtu, PdHandle, Profile, QP_ADDRESS_BYTES, QpAddress, QpAttr, QpAttrMask, QpState,
    QpType, REMOTE_REGION_BYTES, Region, RegionError, RemoteRegion, check_address_vector, check_modify,
    check_values, limits, parse_devices, transition,
};

// The room is private to the library and needs nothing of it, so that it can be built here once more.
#[path = "../driver/shm/hello.rs"]
#[allow(dead_code, reason = "the rest of the library uses what is not used here")]
mod hello;

/// A message that is understood says the same when it is sent on; the same bytes cut short or run on are not understood.
pub(crate) fn hello_message(data: &[u8]) {
    let Ok(message) = hello::Message::decode(data) else { return };
    let sent = message.encode();
    assert_eq!(hello::Message::decode(&sent), Ok(message));
    assert_eq!(data.len(), sent.len());
    // All but the bytes that are zero today and may mean something tomorrow.
    assert_eq!((&data[..44], &data[48..56]), (&sent[..44], &sent[48..56]));
    assert!(hello::Message::decode(&data[..data.len() - 1]).is_err());
    assert!(hello::Message::decode(&[data, &[0]].concat()).is_err());
}

/// A profile, and a list of devices, as text: what reads is written as itself and widens nothing.
pub(crate) fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Profile>() {
        Ok(profile) => {
            assert_eq!(profile.to_string().parse(), Ok(profile.clone()));
            let switches = profile.switches;
            assert!(
                (1..=limits::MAX_QP).contains(&switches.qps) && (1..=limits::MAX_MR).contains(&switches.mrs)
            );
            assert!(
                (1..=limits::MAX_PD).contains(&switches.pds) && (1..=limits::MAX_CQ).contains(&switches.cqs)
            );
            for asked in [0, 1, 64, 1023, 4095, limits::MAX_QP_WR, u32::MAX] {
                let granted = profile.granted_depth(asked);
                assert!(granted.is_none_or(|granted| granted <= limits::MAX_QP_WR), "{asked}: {granted:?}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match parse_devices(text, "apple-tb5") {
        Ok(devices) => {
            let written = devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(parse_devices(&written, "plain"), Ok(devices));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// An address survives bytes and text; numbers of more than 24 bits are refused.
pub(crate) fn qp_address(data: &[u8]) {
    if let Some(bytes) = data.first_chunk::<QP_ADDRESS_BYTES>() {
        let address = QpAddress::from_bytes(bytes);
        // The upper bytes of QPN and PSN.
        assert_eq!(address.is_some(), bytes[18] == 0 && bytes[22] == 0);
        if let Some(address) = address {
            assert_eq!(address.to_bytes(), *bytes);
            assert_eq!(address.to_string().parse(), Ok(address));
            assert_eq!(address.address_vector().dgid, address.gid);
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        match text.parse::<QpAddress>() {
            Ok(address) => assert_eq!(address.to_string().parse(), Ok(address)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A description survives bytes, and addresses within it are its own.
pub(crate) fn remote_region(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<REMOTE_REGION_BYTES>() else { return };
    let region = RemoteRegion::from_bytes(bytes);
    assert_eq!(region.to_bytes(), *bytes);
    let offset = Case(&data[REMOTE_REGION_BYTES..]).long();
    let at = region.at(offset);
    assert_eq!(at.rkey, region.rkey);
    assert_eq!(at.addr.wrapping_sub(region.addr), offset);
}

/// The check of an access agrees with the same question in 128 bits, where nothing wraps.
pub(crate) fn region_check(data: &[u8]) {
    let mut case = Case(data);
    let region = Region {
        key: case.word(),
        pd: PdHandle(case.byte().into()),
        access: Access::from_bits_retain(case.word()),
        iova: case.long(),
        length: case.long(),
    };
    while !case.is_empty() {
        let pd = PdHandle(case.byte().into());
        let needed = Access::from_bits_retain(case.word());
        // Near an edge of the region, or anywhere.
        let how = case.byte();
        let (mut addr, mut len) = (case.long(), case.long());
        if how & 1 != 0 {
            addr = region.iova.wrapping_add(addr as u8 as i8 as i64 as u64);
        }
        if how & 2 != 0 {
            addr = region.iova.wrapping_add(region.length).wrapping_sub(addr & 0xff);
        }
        if how & 4 != 0 {
            len &= 0xff;
        }
        let begin = u128::from(region.iova);
        let end = begin + u128::from(region.length);
        let (first, last) = (u128::from(addr), u128::from(addr) + u128::from(len));
        let inside = begin <= first && last <= end && last < 1 << 64;
        let granted = needed.bits() & !region.access.bits() == 0;
        match region.check(pd, needed, addr, len) {
            Ok(offset) => {
                assert!(region.pd == pd && granted && inside);
                assert_eq!(u128::from(offset), first - begin);
            }
            Err(RegionError::WrongPd { .. }) => assert!(region.pd != pd),
            Err(RegionError::AccessDenied { .. }) => assert!(region.pd == pd && !granted),
            Err(RegionError::OutOfBounds { .. }) => assert!(region.pd == pd && granted && !inside),
            Err(other) => panic!("{other}"),
        }
    }
}

/// A queue pair taken through any calls is always in a state that the specification lets it reach, and a refusal has its reason.
pub(crate) fn qp_modify(data: &[u8]) {
    let mut case = Case(data);
    let qp_type = [QpType::Rc, QpType::Uc, QpType::Ud][usize::from(case.byte() % 3)];
    let profile = Profile::plain();
    let mut state = QpState::Reset;
    while !case.is_empty() {
        let step = case.byte();
        let next = QpState::ALL[usize::from(step & 0xf) % QpState::ALL.len()];
        let mut mask = QpAttrMask::from_bits_retain(case.word());
        let table = transition(qp_type, state, next);
        assert_eq!(table.is_some(), is_legal(qp_type, state, next), "{qp_type} {state} {next}");
        if step & 0x10 != 0 {
            // The shortest way through: exactly what is needed.
            mask = QpAttrMask::STATE | table.map_or(QpAttrMask::empty(), |attrs| attrs.required);
        }
        if step & 0x20 != 0 {
            mask |= table.map_or(QpAttrMask::empty(), |attrs| attrs.optional);
        }
        let fits = table.is_some_and(|attrs| {
            assert!((attrs.required & attrs.optional).is_empty());
            let known = attrs.required | attrs.optional | QpAttrMask::STATE;
            let has_state = state == next || mask.contains(QpAttrMask::STATE);
            mask.contains(attrs.required) && mask.bits() & !known.bits() == 0 && has_state
        });
        let outcome = check_modify(qp_type, state, next, mask);
        assert_eq!(outcome.is_ok(), fits, "{qp_type} {state} {next} {mask}: {outcome:?}");
        if let Err(error) = outcome {
            assert!(!error.to_string().is_empty());
        }
        let attr = any_attr(&mut case);
        let values = check_values(&attr, mask, &profile.device, &profile.port);
        if mask.contains(QpAttrMask::AV)
            && check_address_vector(&attr.ah_attr, &profile.device, &profile.port).is_err()
        {
            assert!(values.is_err());
        }
        if outcome.is_ok() && values.is_ok() {
            // What went through can be relied on by whoever stores it.
            assert!(!mask.contains(QpAttrMask::RNR_RETRY) || attr.rnr_retry <= 7);
            assert!(!mask.contains(QpAttrMask::RETRY_CNT) || attr.retry_cnt <= 7);
            assert!(!mask.contains(QpAttrMask::TIMEOUT) || attr.timeout <= 31);
            assert!(!mask.contains(QpAttrMask::MIN_RNR_TIMER) || attr.min_rnr_timer <= 31);
            assert!(!mask.contains(QpAttrMask::PORT) || attr.port_num == 1);
            state = next;
        }
    }
}

/// The state table once more, as the specification draws it (IBTA volume 1, figure 124).
fn is_legal(qp_type: QpType, from: QpState, to: QpState) -> bool {
    use QpState::{Err, Init, Reset, Rtr, Rts, Sqd, Sqe};
    match from {
        _ if matches!(to, Reset | Err) => true,
        Reset => to == Init,
        Init => matches!(to, Init | Rtr),
        Rtr => to == Rts,
        Rts => matches!(to, Rts | Sqd),
        Sqd => matches!(to, Sqd | Rts),
        Sqe => to == Rts && qp_type != QpType::Rc,
        Err => false,
    }
}

fn any_attr(case: &mut Case<'_>) -> QpAttr {
    QpAttr {
        pkey_index: case.byte().into(),
        port_num: case.byte(),
        qp_access_flags: Access::from_bits_retain(case.word()),
        path_mtu: Mtu::from_raw(u32::from(case.byte() % 6)).unwrap_or_default(),
        timeout: case.byte(),
        retry_cnt: case.byte(),
        rnr_retry: case.byte(),
        min_rnr_timer: case.byte(),
        max_rd_atomic: case.byte(),
        max_dest_rd_atomic: case.byte(),
        ah_attr: AddressVector {
            sl: case.byte(),
            port_num: case.byte(),
            sgid_index: case.byte(),
            flow_label: case.word(),
            is_global: case.byte() & 1 != 0,
            ..AddressVector::default()
        },
        ..QpAttr::default()
    }
}
