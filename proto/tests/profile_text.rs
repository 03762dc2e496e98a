//! Profiles as text: what is written reads as itself, what makes no sense is refused with what would.

use tbrdma_proto::{
    Alias, DeviceAttr, FlowMode, MAX_FRAMES, Overrun, PortAttr, Profile, Switches, Transports, limits,
};

#[test]
fn every_name_reads_as_its_profile_and_is_written_so() {
    for name in Profile::NAMES {
        let profile: Profile = name.parse().unwrap();
        assert_eq!((profile.name, profile.to_string().as_str()), (name, name));
        assert_eq!(profile, Profile::named(name).unwrap());
    }
    assert!(Profile::named("mlx5").is_none());
}

#[test]
fn switches_change_what_they_name_and_nothing_else() {
    let apple = Profile::apple_tb5();
    let profile: Profile = "apple-tb5, alias-4gib=on,overrun=silent,qps=3".parse().unwrap();
    let switches = Switches { alias: Alias::On, overrun: Overrun::Silent, qps: 3, ..apple.switches };
    assert_eq!(profile, Profile { switches, ..apple });
    let plain: Profile = "plain,flow=hold,transports=rc+uc".parse().unwrap();
    assert_eq!(plain.switches.flow, FlowMode::HoldUc);
    assert_eq!(plain.switches.transports, Transports { rc: true, uc: true, ud: false });
}

#[test]
fn what_is_written_reads_as_itself() {
    let apple = "apple-tb5,overrun=silent,empty-send=lost,early-recv=refused,local-only-mr=refused,mr-size=reported,\
                 alias-4gib=refused,ipv4=off,ledger=on,qps=3";
    for text in
        [apple, "apple-tb5,write=refused,rkey=real", "connectx,mrs=7,pds=1,cqs=1", "rxe,qp-error=ebusy"]
    {
        let profile: Profile = text.parse().unwrap();
        assert_eq!(profile.to_string().parse::<Profile>().as_ref(), Ok(&profile));
        assert_eq!(profile.to_string().len(), text.len(), "{profile}");
    }
    // What the name stands for anyway is not written.
    assert_eq!("apple-tb5,write=lost,qps=10".parse::<Profile>().unwrap().to_string(), "apple-tb5");
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    for (text, part, hint) in [
        ("", "", "apple-tb5"),
        ("mlx5", "mlx5", "connectx"),
        ("plain,", "", "SWITCH=VALUE"),
        ("plain,flow", "flow", "SWITCH=VALUE"),
        ("plain,flows=hold", "flows=hold", "alias-4gib"),
        ("plain,flow=held", "flow=held", "drop hold"),
        ("plain,flow=hold,flow=hold", "flow=hold", "at most once"),
        ("plain,transports=rc+xrc", "transports=rc+xrc", "joined by +"),
        ("plain,transports=", "transports=", "one or more"),
        ("plain,transports=rc+rc", "transports=rc+rc", "one or more"),
        ("apple-tb5,qps=0", "qps=0", "a number"),
        ("apple-tb5,qps=16001", "qps=16001", "up to what the device has"),
        ("apple-tb5,qps=+3", "qps=+3", "a number"),
        ("apple-tb5,qps=03", "qps=03", "a number"),
        ("apple-tb5,qps=99999999999", "qps=99999999999", "a number"),
    ] {
        let error = text.parse::<Profile>().unwrap_err();
        assert_eq!(error.part, part, "{text}");
        assert!(error.to_string().contains(hint), "{text}: {error}");
    }
}

#[test]
fn no_profile_widens_the_limits() {
    let most = DeviceAttr::default();
    for name in Profile::NAMES {
        let Profile { device, port, switches, .. } = Profile::named(name).unwrap();
        let pairs = [
            (device.max_qp, most.max_qp),
            (device.max_qp_wr, most.max_qp_wr),
            (device.max_sge, most.max_sge),
            (device.max_sge_rd, most.max_sge_rd),
            (device.max_cq, most.max_cq),
            (device.max_cqe, most.max_cqe),
            (device.max_mr, most.max_mr),
            (device.max_mw, most.max_mw),
            (device.max_pd, most.max_pd),
            (device.max_qp_rd_atom, most.max_qp_rd_atom),
            (device.max_qp_init_rd_atom, most.max_qp_init_rd_atom),
            (device.max_ah, most.max_ah),
            (device.max_srq, most.max_srq),
            (device.max_srq_wr, most.max_srq_wr),
            (device.max_srq_sge, most.max_srq_sge),
            (device.max_inline_data, most.max_inline_data),
            (u32::from(device.max_pkeys), u32::from(most.max_pkeys)),
            (port.max_msg_sz, PortAttr::default().max_msg_sz),
            (port.gid_tbl_len, limits::GID_TABLE_LEN),
            (switches.qps, device.max_qp),
            (switches.mrs, device.max_mr),
            (switches.pds, device.max_pd),
            (switches.cqs, device.max_cq),
        ];
        for (position, (has, may)) in pairs.into_iter().enumerate() {
            assert!(has <= may, "{name}: pair {position}: {has} > {may}");
        }
        assert!(device.max_mr_size <= most.max_mr_size && device.atomic_cap <= most.atomic_cap);
    }
}

#[test]
fn depths_in_frames_are_granted_as_reported() {
    let apple = Profile::apple_tb5();
    for (asked, granted) in [
        (0, Some(1023)),
        (32, Some(1023)),
        (256, Some(1023)),
        (1023, Some(1023)),
        (1024, Some(2047)),
        (4095, Some(4095)),
        (4096, None),
        (u32::MAX, None),
    ] {
        assert_eq!(apple.granted_depth(asked), granted, "{asked}");
    }
    let other: Profile = "apple-tb5,rounding=off".parse().unwrap();
    assert_eq!([1, 2, 64, 4095].map(|asked| other.granted_depth(asked)), [1, 1, 63, 4094].map(Some));
    assert_eq!(Profile::plain().granted_depth(100), Some(100));
}

#[test]
fn the_values_that_users_of_the_apple_device_know() {
    let Profile { device, port, .. } = Profile::apple_tb5();
    assert_eq!(u64::from(port.max_msg_sz), 16_773_120);
    assert_eq!((device.max_qp, device.max_cq, device.max_pd, device.max_mr), (11, 11, 11, 100));
    assert_eq!((device.max_mr_size, device.max_qp_wr), (16_384_000, MAX_FRAMES));
    assert_eq!((device.max_sge, device.max_inline_data, device.max_srq, device.vendor_id), (1, 0, 0, 0));
    assert_eq!((port.link_layer.raw(), port.active_mtu.bytes()), (100, 4096));
}
