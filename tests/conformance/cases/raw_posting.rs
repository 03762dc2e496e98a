//! Work requests written by hand: what is posted is what the methods with names would have posted, and a list can be made in steps.

use crate::case::cases;
use crate::common;
use tbrdma::{Access, Opcode, QpAttr, QpAttrMask, QpInit, QpState, RawSge, SendFlags, SendWr, Sge, WcStatus};

cases! {
    Shapes by "ibv_post_send(3), ibv_wr_post(3)" {
        a_list_in_steps_is_posted_once: "A list made in steps is posted once, with one doorbell", needs [Rc];
    }
    States by "ibv_modify_qp(3)" {
        state_changes_through_the_control_only_with_its_own_halves: "A queue pair's state is changed by who holds it, and nobody else", needs [Rc];
    }
}

/// A SEND without flags.
fn send(wr_id: u64, flags: SendFlags) -> SendWr {
    SendWr {
        wr_id,
        opcode: Opcode::Send,
        flags,
        imm_data: 0,
        remote: tbrdma::RemoteAddr::default(),
        compare_add: 0,
        swap: 0,
        ud: None,
        first_sge: 0,
        num_sge: 0,
    }
}

/// An entry that names a part of a region.
fn entries(slices: &[tbrdma::MrSlice]) -> Vec<Sge> {
    slices.iter().map(tbrdma::MrSlice::sge).collect()
}

fn a_list_in_steps_is_posted_once() {
    let ctx = common::open().unwrap();
    let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(16).unwrap());
    let mr = pd.alloc(4096, Access::LOCAL_WRITE).unwrap();
    let mut qp = pd.create_qp(QpInit::rc(&cq)).unwrap();
    qp.connect_with(&qp.address(), &common::patient()).unwrap();
    let (mut sends, mut receives, control) = qp.into_parts();
    mr.write(0, b"from a list in steps");
    let into = entries(&[mr.slice(1024..1028), mr.slice(2048..2100)]);
    // SAFETY: the region is no buffer.
    let into = unsafe { RawSge::list(&into) };
    receives
        .post_recv(|rq| {
            rq.raw(7, into);
            rq.raw(8, into);
        })
        .unwrap();
    let from = entries(&[mr.slice(0..5), mr.slice(5..20)]);
    // SAFETY: as above.
    let from = unsafe { RawSge::list(&from) };
    let _ = sends.start();
    sends.list().raw(send(1, SendFlags::SIGNALED), from);
    sends.list().raw_inline(send(2, SendFlags::empty()), [&b"in"[..], &b"line"[..]]);
    sends.complete().unwrap();
    sends.complete().unwrap(); // nothing is left on the list
    let mut seen = Vec::new();
    while seen.len() < 3 {
        for wc in cq.poll(&mut [tbrdma::WorkCompletion::default(); 4]) {
            assert_eq!(wc.status, WcStatus::Success);
            seen.push((wc.wr_id, wc.byte_len * u32::from(wc.opcode.is_recv())));
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, 0), (7, 20), (8, 6)]);
    let (mut first, mut second) = ([0; 4], [0; 2]);
    assert_eq!((mr.read(1024, &mut first), mr.read(2048, &mut second)), (4, 2));
    assert_eq!((&first, &second), (b"inli", b"ne"));
    assert_eq!(control.query().qp_state, QpState::Rts);
}

fn state_changes_through_the_control_only_with_its_own_halves() {
    let ctx = common::open().unwrap();
    let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(16).unwrap());
    let (a, b) = (pd.create_qp(QpInit::rc(&cq)).unwrap(), pd.create_qp(QpInit::rc(&cq)).unwrap());
    let (mut sends, mut receives, control) = a.into_parts();
    let (_, mut others, _) = b.into_parts();
    let error = QpAttr { qp_state: QpState::Err, ..QpAttr::default() };
    assert!(control.modify(&mut sends, &mut others, &error, QpAttrMask::STATE).is_err());
    assert_eq!(control.query().qp_state, QpState::Reset);
    control.modify(&mut sends, &mut receives, &error, QpAttrMask::STATE).unwrap();
    assert_eq!(control.query().qp_state, QpState::Err);
}
