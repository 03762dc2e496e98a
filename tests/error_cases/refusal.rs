//! Refusals that end a connection: what they are called, here and on the wire (IBTA volume 1, tables 57, 61 and 63).

use crate::common::{Node, all_access};
use crate::hand::{Hand, Made, PSN, counter};
use crate::met;
use tbrdma::{Access, AsyncEventKind, QpState, RawSge, RemoteAddr, Sge, WcStatus};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::wire::PacketOpcode as P;

const REMOTE: RemoteAddr = RemoteAddr { addr: 0x1000, rkey: 0x77 };

#[test]
fn as_requester_each_refusal_has_its_status_and_ends_the_connection() {
    let refusals = [
        (NakCode::InvalidRequest, WcStatus::RemInvReqErr),
        (NakCode::RemoteAccessError, WcStatus::RemAccessErr),
        (NakCode::RemoteOperationalError, WcStatus::RemOpErr),
        (NakCode::InvalidRdRequest, WcStatus::RemInvRdReqErr),
    ];
    for (code, status) in refusals {
        let (mut node, hand) = met();
        let slice = node.mr.slice(0..8);
        node.qp
            .post(|wr| {
                wr.send(slice).id(1);
                wr.write(slice, REMOTE).id(2);
                wr.read(slice, REMOTE).id(3);
            })
            .unwrap();
        // The refusal of the second says that the first was carried out.
        let wc = hand.serve(
            &node,
            |hand, heard| {
                if hand.at(heard.psn()) == 1 { vec![hand.nak(1, code)] } else { vec![] }
            },
        );
        assert_eq!((wc.wr_id, wc.status), (1, WcStatus::Success), "{code:?}");
        node.expect(2, status);
        node.expect(3, WcStatus::WrFlushErr);
        assert_eq!((counter(&node.ctx, "rcvd_nak_err"), node.qp.state()), (1, QpState::Err), "{code:?}");
        // It is this side's completion that tells, and no event.
        node.expect_no_event();
    }
}

/// Asserts that this request is refused so, and leaves everything as it was but the state and the receive.
#[track_caller]
fn refused(node: &Node, hand: &Hand, request: Made, code: NakCode, event: Option<AsyncEventKind>) {
    node.fill(0..4096, 0x55);
    let heard = hand.ask(&[request.asking()]);
    assert_eq!((heard.nak(), heard.psn().get()), (Some(code), PSN));
    assert_eq!((counter(&node.ctx, "send_nak_err"), node.qp.state()), (1, QpState::Err));
    match event {
        Some(kind) => node.expect_event(kind),
        None => node.expect_no_event(),
    }
    assert_eq!(node.bytes(0..4096), [0x55; 4096]);
}

#[test]
fn as_responder_a_violation_of_an_r_key_is_refused_and_raises_an_event() {
    type Make = fn(&Node, &Hand) -> Made;
    let requests: [(&str, Make); 7] = [
        ("no such key", |node, hand| {
            let remote = node.mr.remote().at(0);
            hand.packet(P::RcWriteOnly, 0)
                .reth(RemoteAddr { rkey: remote.rkey ^ 1, ..remote }, 4)
                .payload(b"none")
        }),
        ("beyond the end", |node, hand| {
            let remote = node.mr.remote().at(crate::common::MEMORY as u64 - 3);
            hand.packet(P::RcWriteOnly, 0).reth(remote, 4).payload(b"none")
        }),
        ("a length that goes beyond, though its first packet does not", |node, hand| {
            hand.packet(P::RcWriteFirst, 0).reth(node.mr.remote().at(0), 1 << 30).payload(&[1; 256])
        }),
        ("before the beginning", |node, hand| {
            let remote = node.mr.remote().at(0);
            hand.packet(P::RcReadRequest, 0).reth(RemoteAddr { addr: remote.addr - 1, ..remote }, 4)
        }),
        ("another domain's", |node, hand| {
            let other = node.ctx.alloc_pd().unwrap().alloc(4096, all_access()).unwrap();
            hand.packet(P::RcFetchAdd, 0).atomic(Box::leak(Box::new(other)).remote().at(0), 1, 0)
        }),
        ("without the right", |node, hand| {
            let readable = node.pd.alloc(4096, Access::REMOTE_READ).unwrap();
            hand.packet(P::RcWriteOnly, 0)
                .reth(Box::leak(Box::new(readable)).remote().at(0), 4)
                .payload(b"none")
        }),
        ("deregistered", |node, hand| {
            let gone = node.pd.alloc(4096, all_access()).unwrap();
            let remote = gone.remote().at(0);
            gone.deregister().unwrap();
            hand.packet(P::RcReadRequest, 0).reth(remote, 4)
        }),
    ];
    for (what, make) in requests {
        println!("{what}");
        let (mut node, hand) = met();
        node.post_recv(1, 0..64);
        let request = make(&node, &hand);
        refused(&node, &hand, request, NakCode::RemoteAccessError, Some(AsyncEventKind::QpAccessErr));
        node.expect(1, WcStatus::WrFlushErr);
    }
}

#[test]
fn as_responder_a_receive_that_cannot_be_written_is_a_remote_operational_error() {
    for (lkey_wrong, write) in [(true, true), (false, false)] {
        let (mut node, hand) = met();
        let unwritable = node.pd.alloc(4096, Access::empty()).unwrap();
        let region = if write { &node.mr } else { &unwritable };
        let lkey = region.lkey() ^ u32::from(lkey_wrong);
        // SAFETY is not at stake: the key is that of no buffer.
        let sge = Sge { addr: region.addr(), length: 64, lkey };
        post_raw(&mut node, 1, sge);
        let request = hand.packet(P::RcSendOnly, 0).payload(b"nowhere to go");
        refused(&node, &hand, request, NakCode::RemoteOperationalError, None);
        node.expect(1, WcStatus::LocProtErr);
        let mut bytes = [1; 64];
        unwritable.read(0, &mut bytes);
        assert_eq!(bytes, [0; 64]);
    }
}

/// Posts a receive whose one entry may be wrong.
fn post_raw(node: &mut Node, id: u64, sge: Sge) {
    // SAFETY: it names no buffer.
    let entry = unsafe { RawSge::new(sge) };
    node.qp.post_recv(|rq| rq.raw(id, &[entry])).unwrap();
}

#[test]
fn as_responder_a_message_that_does_not_fit_its_receive_is_an_invalid_request() {
    let (mut node, hand) = met();
    node.post_recv(1, 0..12);
    let request = hand.packet(P::RcSendOnly, 0).payload(b"too long by far");
    refused(&node, &hand, request, NakCode::InvalidRequest, Some(AsyncEventKind::QpReqErr));
    node.expect(1, WcStatus::LocLenErr);
}
