//! SEND on reliable connections within one process: data, order, completions.

use tbrdma::{WcOpcode, WcStatus};

mod common;
use common::pair;

#[test]
fn a_send_fills_the_oldest_receive_and_completes_on_both_sides() {
    let (mut a, mut b) = pair("rc");
    b.mr.write(0, &[0; 64]);
    b.post_recv(7, 0..64);
    a.mr.write(0, b"twelve bytes");
    a.qp.post(|wr| {
        wr.send(a.mr.slice(0..12)).id(3);
    })
    .unwrap();
    let sent = a.one();
    assert_eq!((sent.wr_id, sent.status, sent.opcode), (3, WcStatus::Success, WcOpcode::Send));
    let received = b.one();
    assert_eq!((received.wr_id, received.status, received.byte_len), (7, WcStatus::Success, 12));
    assert_eq!(received.qp_num, b.qp.qp_num());
    assert_eq!(received.src_qp, a.qp.qp_num());
    let mut bytes = [0; 12];
    b.mr.read(0, &mut bytes);
    assert_eq!(&bytes, b"twelve bytes");
}
