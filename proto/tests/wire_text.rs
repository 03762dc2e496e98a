//! Packets as one line of text each: what a capture, a failed test and a trace say.

mod wire_common;

use tbrdma_proto::wire::icrc::Flow;
use tbrdma_proto::wire::ip::{Datagram, IpHeader};
use tbrdma_proto::wire::{
    Aeth, AtomicEth, Deth, Headers, NakCode, Packet, PacketOpcode, Reth, Syndrome, WireError,
};
use tbrdma_proto::{Psn, Qpn};
use wire_common::plain;

fn text(headers: Headers, payload: usize) -> String {
    Packet { headers, payload: &vec![0; payload] }.to_string()
}

#[test]
fn of_sends() {
    let mut headers = plain(PacketOpcode::RcSendOnly);
    assert_eq!(text(headers, 0), "RC SEND_ONLY qp 0x000011 psn 0x00abcd");
    headers.bth.ack_req = true;
    assert_eq!(text(headers, 64), "RC SEND_ONLY qp 0x000011 psn 0x00abcd ackreq len 64");
    headers.bth.solicited = true;
    headers.bth.pad = 1;
    assert_eq!(text(headers, 63), "RC SEND_ONLY qp 0x000011 psn 0x00abcd ackreq solicited pad 1 len 63");
    let with_imm = Headers { imm: Some(0xbeef), ..plain(PacketOpcode::UcSendLastWithImm) };
    assert_eq!(
        text(with_imm, 4),
        "UC SEND_LAST_WITH_IMMEDIATE qp 0x000011 psn 0x00abcd imm 0x0000beef len 4"
    );
    let with_inv = Headers { ieth: Some(0xbeef), ..plain(PacketOpcode::RcSendOnlyWithInv) };
    assert_eq!(
        text(with_inv, 4),
        "RC SEND_ONLY_WITH_INVALIDATE qp 0x000011 psn 0x00abcd inv rkey 0x0000beef len 4"
    );
    let deth = Some(Deth { qkey: 0x1111_1111, src_qpn: Qpn::masked(0x22) });
    assert_eq!(
        text(Headers { deth, ..plain(PacketOpcode::UdSendOnly) }, 8),
        "UD SEND_ONLY qp 0x000011 psn 0x00abcd qkey 0x11111111 srcqp 0x000022 len 8"
    );
}

#[test]
fn of_remote_memory() {
    let reth = Some(Reth { addr: 0x7000_0000_1000, rkey: 0xc0ffee, length: 8192 });
    assert_eq!(
        text(Headers { reth, imm: Some(1), ..plain(PacketOpcode::RcWriteOnlyWithImm) }, 4096),
        "RC RDMA_WRITE_ONLY_WITH_IMMEDIATE qp 0x000011 psn 0x00abcd va 0x700000001000 rkey 0x00c0ffee dmalen 8192 \
         imm 0x00000001 len 4096"
    );
    let atomic_eth = Some(AtomicEth { addr: 0x1000, rkey: 0xc0ffee, swap_add: 5, compare: 6 });
    assert_eq!(
        text(Headers { atomic_eth, ..plain(PacketOpcode::RcCompareSwap) }, 0),
        "RC COMPARE_SWAP qp 0x000011 psn 0x00abcd va 0x1000 rkey 0x00c0ffee swapadd 5 compare 6"
    );
}

#[test]
fn of_answers() {
    let answer = |syndrome| {
        let aeth = Some(Aeth { syndrome, msn: 9 });
        let all = text(Headers { aeth, ..plain(PacketOpcode::RcAcknowledge) }, 0);
        all.strip_prefix("RC ACKNOWLEDGE qp 0x000011 psn 0x00abcd ").unwrap().to_owned()
    };
    assert_eq!(answer(Syndrome::ACK), "ack msn 9");
    assert_eq!(answer(Syndrome::Ack { credits: 8 }), "ack msn 9 credits 16");
    assert_eq!(answer(Syndrome::RnrNak { timer: 12 }), "rnr-nak msn 9 timer 12");
    assert_eq!(answer(Syndrome::Nak(NakCode::PsnSequenceError)), "nak psn-sequence msn 9");
    assert_eq!(answer(Syndrome::Nak(NakCode::InvalidRequest)), "nak invalid-request msn 9");
    assert_eq!(answer(Syndrome::Nak(NakCode::RemoteAccessError)), "nak remote-access msn 9");
    assert_eq!(answer(Syndrome::Nak(NakCode::RemoteOperationalError)), "nak remote-operational msn 9");
    assert_eq!(answer(Syndrome::Nak(NakCode::InvalidRdRequest)), "nak invalid-rd-request msn 9");
    let aeth = Some(Aeth { syndrome: Syndrome::ACK, msn: 9 });
    assert_eq!(
        text(Headers { aeth, atomic_ack_eth: Some(41), ..plain(PacketOpcode::RcAtomicAcknowledge) }, 0),
        "RC ATOMIC_ACKNOWLEDGE qp 0x000011 psn 0x00abcd ack msn 9 old 41"
    );
}

#[test]
fn of_marks_and_partitions() {
    let mut headers = Headers::cnp(Qpn::masked(0x11));
    assert_eq!(text(headers, 0), "CNP qp 0x000011 psn 0x000000 migrated becn");
    headers.bth.fecn = true;
    headers.bth.pkey = 0x8001;
    headers.bth.psn = Psn::masked(0xff_ffff);
    assert_eq!(text(headers, 0), "CNP qp 0x000011 psn 0xffffff migrated fecn becn pkey 0x8001");
}

#[test]
fn of_what_is_around_them() {
    let flow = Flow::new("10.0.0.1:49152".parse().unwrap(), "10.0.0.2:4791".parse().unwrap()).unwrap();
    let mut datagram = Datagram::of_flow(&flow, 7, &[0; 16]);
    assert_eq!(datagram.to_string(), "10.0.0.1.49152 > 10.0.0.2.4791 ident 0x0007 df");
    if let IpHeader::V4(header) = &mut datagram.ip {
        header.tos = 3;
        header.dont_fragment = false;
    }
    assert_eq!(datagram.to_string(), "10.0.0.1.49152 > 10.0.0.2.4791 ident 0x0007 ce");
    let flow = Flow::new("[fe80::1]:49152".parse().unwrap(), "[fe80::2]:4791".parse().unwrap()).unwrap();
    assert_eq!(Datagram::of_flow(&flow, 7, &[0; 16]).to_string(), "fe80::1.49152 > fe80::2.4791");
}

#[test]
fn of_what_is_wrong_with_them() {
    let says = |error: WireError, words: &[&str]| {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    says(WireError::Unaligned { len: 17 }, &["17 bytes", "multiple of 4"]);
    says(WireError::Opcode { opcode: 0xa5 }, &["0xa5"]);
    says(WireError::TransportVersion { version: 3 }, &["version 3"]);
    says(WireError::Pad { pad: 3, room: 0 }, &["3 bytes of padding", "0 bytes"]);
    says(WireError::Syndrome { syndrome: 0x7f }, &["0x7f", "reserved"]);
}
