//! A datagram raises one completion event, whoever finds out first: the receiver, or the service thread that the sender asks to wake it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;
use tbrdma::{QpInit, QpType, WcStatus};

mod common;
use common::{Node, eventually};

const QKEY: u32 = 0x1111_2222;
const ROUNDS: u64 = 100;
/// Long enough for the service thread to have its turn, on most machines and most of the times.
const ASIDE: Duration = Duration::from_millis(2);

#[test]
fn who_looks_before_the_service_thread_does_finds_one_event_and_no_second() {
    let mut a = Node::new(QpType::Ud);
    a.qp.activate_ud(QKEY).unwrap();
    let mut b = Node::new(QpType::Ud);
    let channel = b.ctx.create_comp_channel().unwrap();
    b.cq = b.ctx.create_cq_on(64, &channel).unwrap();
    b.qp = b.pd.create_qp(QpInit::new(QpType::Ud, &b.cq)).unwrap();
    b.qp.activate_ud(QKEY).unwrap();
    let ah = a.pd.create_ah_to(&b.qp.address()).unwrap();
    let qpn = b.qp.qp_num();
    b.cq.req_notify(false).unwrap();
    for round in 0..ROUNDS {
        b.post_recv(round, 0..64);
        let slice = a.mr.slice(0..8);
        a.qp.post(|wr| _ = wr.send(slice).to(&ah, qpn, QKEY).id(round)).unwrap();
        a.expect(round, WcStatus::Success);
        // Not asleep: it sees that the event was raised, with no need to be woken.
        eventually("an event", || channel.try_next().is_some());
        b.cq.req_notify(false).unwrap();
        b.expect(round, WcStatus::Success);
        let again = channel.wait(Some(ASIDE)).unwrap();
        assert_eq!(again, None, "round {round}: a second event for the same datagram");
    }
}
