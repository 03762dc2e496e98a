//! What the posting call refuses, and what is refused only by a completion.

use proptest::prelude::*;
use tbrdma_proto::{
    Habits, Mtu, Opcode, PostErrorKind, QpType, Qpn, RemoteAddr, SendFlags, SendRules, SendWr, Sge,
    UdDestination, WcStatus,
};

fn rules(qp_type: QpType) -> SendRules {
    SendRules {
        qp_type,
        max_send_sge: 3,
        max_inline_data: 64,
        max_msg_size: 1 << 31,
        path_mtu: Mtu::B1024,
        habits: Habits::default(),
    }
}

fn wr(opcode: Opcode) -> SendWr {
    SendWr {
        wr_id: 1,
        opcode,
        flags: SendFlags::SIGNALED,
        imm_data: 0,
        remote: RemoteAddr { addr: 0x1000, rkey: 5 },
        compare_add: 0,
        swap: 0,
        ud: Some(UdDestination { ah: 0, qpn: Qpn::default(), qkey: 0x1111 }),
        first_sge: 0,
        num_sge: 0,
    }
}

fn inline(opcode: Opcode) -> SendWr {
    SendWr { flags: SendFlags::INLINE, ..wr(opcode) }
}

fn sge(length: u32) -> Sge {
    Sge { addr: 0x2000, length, lkey: 9 }
}

#[test]
fn the_length_of_a_message_is_the_sum_of_its_entries() {
    let rules = rules(QpType::Rc);
    for opcode in [Opcode::Send, Opcode::RdmaWriteWithImm, Opcode::RdmaRead] {
        assert_eq!(rules.check(&wr(opcode), &[], 0), Ok(0));
        assert_eq!(rules.check(&wr(opcode), &[sge(1), sge(0), sge(4096)], 0), Ok(4097));
        assert_eq!(rules.check(&wr(opcode), &[sge(u32::MAX); 3], 0), Ok(3 * u64::from(u32::MAX)));
    }
    assert_eq!(rules.check(&wr(Opcode::LocalInv), &[sge(7)], 0), Ok(0));
}

#[test]
fn too_many_entries_are_refused_at_once() {
    let refused = rules(QpType::Uc).check(&wr(Opcode::Send), &[sge(1); 4], 0);
    assert_eq!(refused, Err(PostErrorKind::TooManySges { count: 4, max: 3 }));
}

#[test]
fn each_type_refuses_what_it_does_not_have() {
    for &qp_type in QpType::ALL {
        for &opcode in Opcode::ALL {
            let answer = rules(qp_type).check(&wr(opcode), &[sge(8)], 0);
            let expected = PostErrorKind::OpcodeNotSupported { opcode, qp_type };
            assert_eq!(answer == Err(expected), !qp_type.allows(opcode), "{qp_type} {opcode:?}");
        }
    }
}

#[test]
fn inline_bytes_are_counted_apart_from_entries() {
    let rules = rules(QpType::Rc);
    assert_eq!(rules.check(&inline(Opcode::Send), &[], 64), Ok(64));
    assert_eq!(rules.check(&inline(Opcode::RdmaWrite), &[], 0), Ok(0));
    let refused = rules.check(&inline(Opcode::Send), &[], 65);
    assert_eq!(refused, Err(PostErrorKind::InlineTooLong { length: 65, max: 64 }));
    assert!(rules.check(&inline(Opcode::Send), &[], usize::MAX).is_err());
    assert_eq!(rules.check(&wr(Opcode::Send), &[sge(9)], 1000), Ok(9), "only with the flag");
}

#[test]
fn only_operations_that_send_our_bytes_can_be_inline() {
    let rules = rules(QpType::Rc);
    for &opcode in Opcode::ALL {
        let refused = rules.check(&inline(opcode), &[], 8) == Err(PostErrorKind::InlineNotAllowed { opcode });
        assert_eq!(refused, !opcode.gathers(), "{opcode:?}");
    }
}

#[test]
fn datagrams_need_a_destination_and_connections_ignore_it() {
    let nowhere = SendWr { ud: None, ..wr(Opcode::Send) };
    assert_eq!(rules(QpType::Ud).check(&nowhere, &[sge(8)], 0), Err(PostErrorKind::MissingUdDestination));
    assert_eq!(rules(QpType::Ud).check(&wr(Opcode::Send), &[sge(8)], 0), Ok(8));
    assert_eq!(rules(QpType::Rc).check(&nowhere, &[sge(8)], 0), Ok(8));
}

#[test]
fn an_atomic_returns_to_one_entry_of_eight_bytes() {
    let rules = rules(QpType::Rc);
    for opcode in [Opcode::AtomicCmpAndSwp, Opcode::AtomicFetchAndAdd] {
        assert_eq!(rules.check(&wr(opcode), &[sge(8)], 0), Ok(8));
        for (sges, length) in [(&[][..], 0), (&[sge(4)], 4), (&[sge(16)], 16), (&[sge(8), sge(0)], 8)] {
            let count = sges.len() as u32;
            let refused = rules.check(&wr(opcode), sges, 0);
            assert_eq!(refused, Err(PostErrorKind::AtomicLength { count, length }));
        }
    }
}

#[test]
fn a_message_too_long_is_posted_and_then_completes_in_error() {
    let (rc, ud) = (rules(QpType::Rc), rules(QpType::Ud));
    assert_eq!(rc.check(&wr(Opcode::Send), &[sge(1 << 31), sge(1)], 0), Ok((1 << 31) + 1));
    assert_eq!(rc.completion_status_for_length((1 << 31) + 1), Some(WcStatus::LocLenErr));
    assert_eq!(rc.completion_status_for_length(1 << 31), None);
    assert_eq!(ud.check(&wr(Opcode::Send), &[sge(1025)], 0), Ok(1025));
    assert_eq!(ud.completion_status_for_length(1025), Some(WcStatus::LocLenErr));
    assert_eq!(ud.completion_status_for_length(1024), None);
    assert_eq!(rules(QpType::Uc).completion_status_for_length(1025), None);
}

#[test]
fn a_misaligned_atomic_is_posted_and_then_refused_by_the_peer() {
    let rules = rules(QpType::Rc);
    for addr in 0x1000..0x1010 {
        let remote = RemoteAddr { addr, rkey: 5 };
        let atomic = SendWr { remote, ..wr(Opcode::AtomicFetchAndAdd) };
        assert_eq!(rules.check(&atomic, &[sge(8)], 0), Ok(8));
        let status = (addr % 8 != 0).then_some(WcStatus::RemInvReqErr);
        assert_eq!(rules.completion_status_for_remote(&atomic), status);
        let write = SendWr { remote, ..wr(Opcode::RdmaWrite) };
        assert_eq!(rules.completion_status_for_remote(&write), None);
    }
}

#[test]
fn refusals_say_what_to_do() {
    let cases = [
        (PostErrorKind::TooManySges { count: 4, max: 3 }, "max_send_sge"),
        (PostErrorKind::InlineTooLong { length: 65, max: 64 }, "max_inline_data"),
        (PostErrorKind::InlineNotAllowed { opcode: Opcode::RdmaRead }, "drop the flag"),
        (PostErrorKind::MissingUdDestination, "address handle"),
        (PostErrorKind::AtomicLength { count: 2, length: 9 }, "one scatter/gather entry of 8 bytes"),
        (PostErrorKind::OpcodeNotSupported { opcode: Opcode::RdmaRead, qp_type: QpType::Uc }, "use RC"),
    ];
    for (error, word) in cases {
        assert!(error.to_string().contains(word), "{error}");
    }
}

proptest! {
    #[test]
    fn any_request_is_judged(
        t in 0usize..3, op in 0usize..10, flags: u32, lengths in prop::collection::vec(any::<u32>(), 0..40),
        inline_len: usize, max_send_sge: u32, max_inline_data: u32, addr: u64, to: bool,
    ) {
        let qp_type = QpType::ALL[t];
        let rules = SendRules { max_send_sge, max_inline_data, ..rules(qp_type) };
        let mut wr = wr(Opcode::ALL[op]);
        wr.flags = SendFlags::from_bits_retain(flags);
        wr.remote.addr = addr;
        wr.ud = wr.ud.filter(|_| to);
        let sges: Vec<Sge> = lengths.iter().map(|&length| sge(length)).collect();
        if let Ok(length) = rules.check(&wr, &sges, inline_len) {
            let sum: u128 = lengths.iter().map(|&length| u128::from(length)).sum();
            let inline = wr.flags.contains(SendFlags::INLINE).then_some(inline_len as u128);
            prop_assert!(u128::from(length) == inline.unwrap_or(sum) || !wr.opcode.gathers());
            prop_assert!(qp_type.allows(wr.opcode));
            let _ = rules.completion_status_for_length(length);
            let _ = rules.completion_status_for_remote(&wr);
        }
    }
}
