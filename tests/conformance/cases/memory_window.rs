//! Memory windows: what they open to peers and for how long, who may bind them to what, and what becomes of them.

use crate::case::cases;
use crate::common;
use crate::common::{Node, all_access, connection, join, pair, pairs};
use tbrdma::{
    Access, AsyncEventKind, ForeignMemory, MemoryRegion, MemoryWindow, MwBind, MwType, QpState, QpType,
    RawSge, RemoteAddr, Sge, WcFlags, WcOpcode, WcStatus,
};

cases! {
    Windows by "InfiniBand vol. 1, 10.6.7; ibv_alloc_mw(3), ibv_bind_mw(3)" {
        a_window_opens_its_part_and_nothing_else: "A bound window opens its bytes to peers, and no others", needs [Rc, Windows];
        a_window_grants_its_own_rights: "A window has rights of its own", needs [Rc, Windows, Atomics];
        a_window_of_type_1_is_bound_again_and_again_and_at_last_to_nothing:
            "A type 1 window is bound anew whatever it was bound to, and by no bytes to nothing", by "InfiniBand vol. 1, 10.6.7, C10-72 to C10-75", needs [Rc, Windows];
        a_window_of_type_1_is_its_domains_and_one_of_type_2_its_queue_pairs:
            "A type 1 window is for its domain's queue pairs, one of type 2B for that which bound it", needs [Rc, Windows];
        an_invalidated_window_opens_nothing_until_it_is_bound_again: "A window that is invalidated opens nothing until bound again", needs [Rc, Windows, Invalidate];
        a_peer_gives_a_window_back_with_its_send: "SEND with invalidate takes the window out of use before it completes", by "InfiniBand vol. 1, 9.4.1.1", needs [Rc, Windows, Invalidate];
        a_send_gives_nothing_back_that_is_not_its_to_give: "SEND with invalidate reaches only windows of the receiving queue pair", by "InfiniBand vol. 1, 9.4.1.1", needs [Rc, Windows, Invalidate];
        a_region_with_remote_rights_is_invalidated_like_a_window: "A region with remote rights may be invalidated as a window may", needs [Rc, Invalidate];
        invalidating_what_cannot_be_is_an_error_of_the_queue_pairs: "LOCAL_INV of a key that cannot be invalidated is an error of the queue pair", needs [Rc, Invalidate];
        a_zero_based_window_is_named_by_offsets: "A zero-based window is named by offsets", needs [Rc, Windows];
        what_may_not_be_bound_fails_and_changes_nothing: "A bind outside the region, or beyond its rights, fails and leaves the window as it was", needs [Rc, Windows];
        no_lkey_is_that_of_a_window: "A window has no L_Key", needs [Rc, Windows];
        a_region_stays_while_windows_are_bound_to_it: "A region with windows bound to it is not deregistered", by "InfiniBand vol. 1, 10.6.7.2.6; ibv_dereg_mr(3)", needs [Rc, Windows];
        a_queue_pair_that_ends_lets_go_of_its_windows: "The end of a queue pair unbinds its type 2 windows", needs [Rc, Windows];
        windows_are_bound_to_memory_of_the_programs_own: "Windows bind to memory that the program registered in place", needs [Rc, Windows];
        unreliable_connections_have_windows_and_datagrams_do_not: "Windows are bound through connected queue pairs only", needs [Rc, Uc, Ud, Windows];
    }
}

const LEN: usize = 8192;
const REMOTE: Access = Access::REMOTE_WRITE.union(Access::REMOTE_READ).union(Access::REMOTE_ATOMIC);
const TYPES: [MwType; 2] = [MwType::Type1, MwType::Type2];

/// Memory of a node's that windows can be bound to.
fn bindable(node: &Node) -> MemoryRegion {
    node.pd.alloc(LEN, Access::LOCAL_WRITE | Access::MW_BIND).unwrap()
}

/// Has the node bind, and waits for the end of that.
#[track_caller]
fn bind(node: &mut Node, bind: &MwBind, status: WcStatus) {
    node.qp.post(|wr| _ = wr.bind_mw(bind).id(900)).unwrap();
    let wc = node.expect(900, status);
    if status == WcStatus::Success {
        assert_eq!(wc.opcode, WcOpcode::BindMw);
    } else {
        node.await_state(QpState::Err);
    }
}

#[track_caller]
fn invalidate(node: &mut Node, rkey: u32, status: WcStatus) {
    node.qp.post(|wr| _ = wr.local_inv(rkey).id(901)).unwrap();
    let wc = node.expect(901, status);
    assert!(status != WcStatus::Success || wc.opcode == WcOpcode::LocalInv);
}

/// How a write of eight bytes there ends.
fn write(node: &mut Node, addr: u64, rkey: u32) -> WcStatus {
    node.qp.post(|wr| _ = wr.write_inline(&[7; 8], RemoteAddr { addr, rkey }).id(902)).unwrap();
    node.one().status
}

/// A window of `b` that is bound to the second quarter of a region, with every right.
fn bound(b: &mut Node, mw_type: MwType) -> (MemoryRegion, MemoryWindow, MwBind) {
    let (mr, mw) = (bindable(b), b.pd.alloc_mw(mw_type).unwrap());
    let part = mw.bind_to(&mr, LEN / 4..LEN / 2, REMOTE);
    bind(b, &part, WcStatus::Success);
    (mr, mw, part)
}

fn a_window_opens_its_part_and_nothing_else() {
    for mw_type in TYPES {
        for (mut a, mut b) in pairs("rc", |init| init) {
            let (mr, mw, part) = bound(&mut b, mw_type);
            assert_eq!((mw.rkey(), mw.mw_type()), (part.rkey, mw_type));
            let at = |offset| RemoteAddr { addr: part.addr + offset, rkey: part.rkey };
            a.fill(0..64, 9);
            let (from, to) = (a.mr.slice(0..64), a.mr.slice(64..128));
            a.qp.post(|wr| {
                wr.write(from, at(0)).unsignaled();
                wr.read(to, at(0)).unsignaled();
                wr.fetch_and_add(a.mr.slice(128..136), at(LEN as u64 / 4 - 8), 3).id(1);
            })
            .unwrap();
            a.expect(1, WcStatus::Success);
            assert_eq!(a.bytes(64..128), [9; 64]);
            assert_eq!(mr.load_u64(LEN / 2 - 8), 3);
            assert_eq!(mr.load_u64(LEN / 4), u64::from_ne_bytes([9; 8]));
            assert_eq!(mr.load_u64(LEN / 4 - 8), 0);
        }
        for outside in [LEN / 4 - 8, LEN / 2 - 7, LEN / 2] {
            let (mut a, mut b) = pair("rc");
            let (mr, _mw, part) = bound(&mut b, mw_type);
            assert_eq!(write(&mut a, mr.addr() + outside as u64, part.rkey), WcStatus::RemAccessErr);
            b.expect_event(AsyncEventKind::QpAccessErr);
        }
    }
}

fn a_window_grants_its_own_rights() {
    for mw_type in TYPES {
        for granted in [Access::REMOTE_WRITE, Access::REMOTE_READ, Access::REMOTE_ATOMIC] {
            for needed in [Access::REMOTE_WRITE, Access::REMOTE_READ, Access::REMOTE_ATOMIC] {
                let (mut a, mut b) = pair("rc");
                let (mr, mw) = (bindable(&b), b.pd.alloc_mw(mw_type).unwrap());
                // The local right is the region's business, and means nothing here.
                let part = mw.bind_to(&mr, 0..LEN, granted | Access::LOCAL_WRITE);
                bind(&mut b, &part, WcStatus::Success);
                let (slice, remote) = (a.mr.slice(0..8), RemoteAddr { addr: part.addr, rkey: part.rkey });
                a.qp.post(|wr| match needed {
                    Access::REMOTE_WRITE => _ = wr.write(slice, remote).id(1),
                    Access::REMOTE_READ => _ = wr.read(slice, remote).id(1),
                    _ => _ = wr.fetch_and_add(slice, remote, 1).id(1),
                })
                .unwrap();
                let status = if granted == needed { WcStatus::Success } else { WcStatus::RemAccessErr };
                a.expect(1, status);
            }
        }
    }
}

fn a_window_of_type_1_is_bound_again_and_again_and_at_last_to_nothing() {
    let (mut a, mut b) = pair("rc");
    let (mr, mw, first) = bound(&mut b, MwType::Type1);
    let second = mw.bind_to(&mr, 0..LEN / 4, REMOTE);
    assert_ne!(first.rkey, second.rkey);
    bind(&mut b, &second, WcStatus::Success);
    assert_eq!(write(&mut a, mr.addr(), second.rkey), WcStatus::Success);
    // Bound twice in one list: the window is known by any key it had.
    let (third, mut fourth) = (mw.bind_to(&mr, 0..8, REMOTE), mw.bind_to(&mr, 8..16, REMOTE));
    fourth.rkey = tbrdma::inc_rkey(third.rkey);
    b.qp.post(|wr| {
        wr.bind_mw(&third).unsignaled();
        wr.bind_mw(&fourth).id(5);
    })
    .unwrap();
    b.expect(5, WcStatus::Success);
    assert_eq!(mw.rkey(), fourth.rkey);
    assert_eq!(write(&mut a, mr.addr() + 8, fourth.rkey), WcStatus::Success);
    let nothing = mw.bind_to(&mr, 0..0, Access::empty());
    bind(&mut b, &nothing, WcStatus::Success);
    assert_eq!(write(&mut a, mr.addr() + 8, mw.rkey()), WcStatus::RemAccessErr);
    mr.deregister().unwrap();

    let (mut a, mut b) = pair("rc");
    let (mr, mw, first) = bound(&mut b, MwType::Type1);
    let next = mw.bind_to(&mr, LEN / 4..LEN / 2, REMOTE);
    bind(&mut b, &next, WcStatus::Success);
    assert_eq!(write(&mut a, first.addr, first.rkey), WcStatus::RemAccessErr, "the old key is dead");
}

fn a_window_of_type_1_is_its_domains_and_one_of_type_2_its_queue_pairs() {
    for (mw_type, status) in [(MwType::Type1, WcStatus::Success), (MwType::Type2, WcStatus::RemAccessErr)] {
        let (mut a, mut b) = pair("rc");
        let (_mr, _mw, part) = bound(&mut b, mw_type);
        let mut other = Node::new(QpType::Rc);
        let init = tbrdma::QpInit::rc(&b.cq);
        let mut second = b.pd.create_qp(init).unwrap();
        other.qp.connect_with(&second.address(), &common::patient()).unwrap();
        second.connect_with(&other.qp.address(), &common::patient()).unwrap();
        assert_eq!(write(&mut other, part.addr, part.rkey), status);
        assert_eq!(write(&mut a, part.addr, part.rkey), WcStatus::Success);
    }
    // Nobody of another domain.
    for mw_type in TYPES {
        let (a, mut b) = pair("rc");
        let (_mr, _mw, part) = bound(&mut b, mw_type);
        let (mut c, mut d) =
            (Node::of(&a.ctx, QpType::Rc, |init| init), Node::of(&b.ctx, QpType::Rc, |init| init));
        join(&mut c, &mut d, &connection(|_| ()));
        assert_eq!(write(&mut c, part.addr, part.rkey), WcStatus::RemAccessErr);
    }
}

fn an_invalidated_window_opens_nothing_until_it_is_bound_again() {
    for (mut a, mut b) in pairs("rc", |init| init) {
        let (mr, mw, part) = bound(&mut b, MwType::Type2);
        invalidate(&mut b, part.rkey, WcStatus::Success);
        let again = mw.bind_to(&mr, 0..64, REMOTE);
        bind(&mut b, &again, WcStatus::Success);
        assert_eq!(write(&mut a, again.addr, again.rkey), WcStatus::Success);
        invalidate(&mut b, again.rkey, WcStatus::Success);
        assert_eq!(write(&mut a, again.addr, again.rkey), WcStatus::RemAccessErr);
    }
}

fn a_peer_gives_a_window_back_with_its_send() {
    for (mut a, mut b) in pairs("rc", |init| init) {
        let (mr, mw, part) = bound(&mut b, MwType::Type2);
        let from = a.mr.slice(0..8);
        let done = RemoteAddr { addr: part.addr, rkey: part.rkey };
        b.post_recv(1, 0..64);
        a.fill(0..8, 5);
        a.qp.post(|wr| {
            wr.write(from, done).unsignaled();
            wr.send_with_inv(from, part.rkey).id(2);
        })
        .unwrap();
        a.expect(2, WcStatus::Success);
        let wc = b.expect(1, WcStatus::Success);
        assert_eq!((wc.wc_flags, wc.imm_data, wc.byte_len), (WcFlags::WITH_INV, part.rkey, 8));
        assert_eq!(b.bytes(0..8), [5; 8]);
        // Free: it can be bound, and the region be deregistered.
        let again = mw.bind_to(&mr, 0..64, REMOTE);
        bind(&mut b, &again, WcStatus::Success);
        b.post_recv(3, 0..64);
        a.qp.post(|wr| _ = wr.send_inline_with_inv(b"", again.rkey).id(4)).unwrap();
        assert_eq!(b.expect(3, WcStatus::Success).imm_data, again.rkey);
        a.expect(4, WcStatus::Success);
        mr.deregister().unwrap();
        assert_eq!(write(&mut a, part.addr, again.rkey), WcStatus::RemAccessErr);
    }
}

fn a_send_gives_nothing_back_that_is_not_its_to_give() {
    let refused = |a: &mut Node, b: &mut Node, key: u32| {
        b.post_recv(1, 0..64);
        a.qp.post(|wr| _ = wr.send_inline_with_inv(b"x", key).id(2)).unwrap();
        a.expect(2, WcStatus::RemAccessErr);
        b.expect_event(AsyncEventKind::QpAccessErr);
        b.expect(1, WcStatus::WrFlushErr);
    };
    let (mut a, mut b) = pair("rc");
    let (_mr, mw, part) = bound(&mut b, MwType::Type1);
    refused(&mut a, &mut b, part.rkey);
    assert_eq!(mw.rkey(), part.rkey);

    let (mut a, mut b) = pair("rc");
    let (_mr, _mw, part) = bound(&mut b, MwType::Type2);
    refused(&mut a, &mut b, part.rkey ^ 1);

    // Bound to another queue pair of the same domain.
    let (mut a, mut b) = pair("rc");
    let (_mr, _mw, part) = bound(&mut b, MwType::Type2);
    let mut other = Node::new(QpType::Rc);
    let mut second = b.pd.create_qp(tbrdma::QpInit::rc(&b.cq)).unwrap();
    other.qp.connect_with(&second.address(), &common::patient()).unwrap();
    second.connect_with(&other.qp.address(), &common::patient()).unwrap();
    second.post_recv(|rq| _ = rq.recv_nothing().id(7)).unwrap();
    other.qp.post(|wr| _ = wr.send_inline_with_inv(b"", part.rkey).id(8)).unwrap();
    other.expect(8, WcStatus::RemAccessErr);
    assert_eq!(write(&mut a, part.addr, part.rkey), WcStatus::Success);

    // By a message that is refused for its length.
    let (mut a, mut b) = pair("rc");
    let (_mr, mw, part) = bound(&mut b, MwType::Type2);
    b.post_recv(1, 0..4);
    a.qp.post(|wr| _ = wr.send_inline_with_inv(&[0; 5], part.rkey).id(2)).unwrap();
    a.expect(2, WcStatus::RemInvReqErr);
    let mr = bindable(&b);
    let mut own = b.pd.create_qp(tbrdma::QpInit::rc(&b.cq)).unwrap();
    b.expect(1, WcStatus::LocLenErr);
    own.connect_with(&own.address(), &common::patient()).unwrap();
    own.post(|wr| _ = wr.bind_mw(&mw.bind_to(&mr, 0..8, REMOTE)).id(3)).unwrap();
    assert_eq!(b.one().status, WcStatus::MwBindErr, "the window is still bound");

    // Memory that only its owner may use.
    let (mut a, mut b) = pair("rc");
    let own = b.pd.alloc(64, Access::LOCAL_WRITE).unwrap();
    refused(&mut a, &mut b, own.rkey());

    // A region that windows are bound to.
    let (mut a, mut b) = pair("rc");
    let mr = b.pd.alloc(LEN, all_access() | Access::MW_BIND).unwrap();
    let mw = b.pd.alloc_mw(MwType::Type2).unwrap();
    bind(&mut b, &mw.bind_to(&mr, 0..8, REMOTE), WcStatus::Success);
    refused(&mut a, &mut b, mr.rkey());
}

fn a_region_with_remote_rights_is_invalidated_like_a_window() {
    for (mut a, mut b) in pairs("rc", |init| init) {
        let (one, two) = (b.pd.alloc(64, all_access()).unwrap(), b.pd.alloc(64, all_access()).unwrap());
        b.post_recv(1, 0..64);
        a.qp.post(|wr| _ = wr.send_inline_with_inv(b"x", one.rkey()).id(2)).unwrap();
        a.expect(2, WcStatus::Success);
        assert_eq!(b.expect(1, WcStatus::Success).imm_data, one.rkey());
        invalidate(&mut b, two.rkey(), WcStatus::Success);
        // Neither key is any good now, at home or from afar, and both regions are given back as ever.
        let from = two.slice(..);
        assert_eq!(write(&mut a, one.addr(), one.rkey()), WcStatus::RemAccessErr);
        b.await_state(QpState::Err);
        let mut own = b.pd.create_qp(tbrdma::QpInit::rc(&b.cq)).unwrap();
        own.connect_with(&own.address(), &common::patient()).unwrap();
        own.post(|wr| _ = wr.send(from).id(3)).unwrap();
        assert_eq!(b.one().status, WcStatus::LocProtErr);
        one.deregister().unwrap();
        two.deregister().unwrap();
    }
}

fn invalidating_what_cannot_be_is_an_error_of_the_queue_pairs() {
    for make in [
        |b: &mut Node| bound(b, MwType::Type1).2.rkey,
        |_: &mut Node| 0,
        |b: &mut Node| b.pd.alloc_mw(MwType::Type2).unwrap().rkey(),
    ] {
        let (_a, mut b) = pair("rc");
        let key = make(&mut b);
        invalidate(&mut b, key, WcStatus::LocQpOpErr);
        b.await_state(QpState::Err);
    }
}

fn a_zero_based_window_is_named_by_offsets() {
    let (mut a, mut b) = pair("rc");
    let (mr, mw) = (bindable(&b), b.pd.alloc_mw(MwType::Type2).unwrap());
    let part = mw.bind_to(&mr, 4096..4160, REMOTE | Access::ZERO_BASED);
    bind(&mut b, &part, WcStatus::Success);
    assert_eq!(write(&mut a, 8, part.rkey), WcStatus::Success);
    assert_eq!(mr.load_u64(4104), u64::from_ne_bytes([7; 8]));
    assert_eq!(write(&mut a, 57, part.rkey), WcStatus::RemAccessErr);
    let (mut a, mut b) = pair("rc");
    let (mr, mw) = (bindable(&b), b.pd.alloc_mw(MwType::Type2).unwrap());
    let part = mw.bind_to(&mr, 4096..4160, REMOTE | Access::ZERO_BASED);
    bind(&mut b, &part, WcStatus::Success);
    assert_eq!(write(&mut a, part.addr, part.rkey), WcStatus::RemAccessErr);
}

fn what_may_not_be_bound_fails_and_changes_nothing() {
    type Make = fn(&mut Node, &MemoryRegion, &MemoryWindow) -> MwBind;
    let cases: [(&str, MwType, Make); 12] = [
        ("no MW_BIND", MwType::Type2, |b, _, mw| {
            let mr = Box::leak(Box::new(b.pd.alloc(LEN, all_access()).unwrap()));
            mw.bind_to(mr, 0..8, REMOTE)
        }),
        ("no LOCAL_WRITE", MwType::Type2, |b, _, mw| {
            let mr = Box::leak(Box::new(b.pd.alloc(LEN, Access::MW_BIND).unwrap()));
            mw.bind_to(mr, 0..8, Access::REMOTE_WRITE)
        }),
        ("another domain's region", MwType::Type1, |b, _, mw| {
            let pd = b.ctx.alloc_pd().unwrap();
            let mr = pd.alloc(LEN, Access::LOCAL_WRITE | Access::MW_BIND).unwrap();
            mw.bind_to(Box::leak(Box::new(mr)), 0..8, REMOTE)
        }),
        ("another domain's window", MwType::Type1, |b, mr, _| {
            let pd = b.ctx.alloc_pd().unwrap();
            Box::leak(Box::new(pd.alloc_mw(MwType::Type1).unwrap())).bind_to(mr, 0..8, REMOTE)
        }),
        ("before the region", MwType::Type1, |_, mr, mw| {
            let bind = mw.bind_to(mr, 0..8, REMOTE);
            MwBind { addr: bind.addr - 1, ..bind }
        }),
        ("beyond the region", MwType::Type2, |_, mr, mw| mw.bind_to(mr, 8..LEN + 1, REMOTE)),
        ("around the address space", MwType::Type2, |_, mr, mw| MwBind {
            addr: u64::MAX - 3,
            ..mw.bind_to(mr, 0..8, REMOTE)
        }),
        ("no such region", MwType::Type2, |_, mr, mw| {
            let bind = mw.bind_to(mr, 0..8, REMOTE);
            MwBind { lkey: bind.lkey ^ 1, ..bind }
        }),
        ("no such window", MwType::Type2, |b, mr, _| {
            b.pd.alloc_mw(MwType::Type2).unwrap().bind_to(mr, 0..8, REMOTE)
        }),
        ("type 2 to nothing", MwType::Type2, |_, mr, mw| mw.bind_to(mr, 0..0, REMOTE)),
        ("type 1 zero based", MwType::Type1, |_, mr, mw| mw.bind_to(mr, 0..8, REMOTE | Access::ZERO_BASED)),
        ("a zero-based region", MwType::Type2, |b, _, mw| {
            let access = Access::LOCAL_WRITE | Access::MW_BIND | Access::ZERO_BASED;
            mw.bind_to(Box::leak(Box::new(b.pd.alloc(LEN, access).unwrap())), 0..8, REMOTE)
        }),
    ];
    for (what, mw_type, make) in cases {
        let (_a, mut b) = pair("rc");
        let (mr, mw) = (bindable(&b), b.pd.alloc_mw(mw_type).unwrap());
        let (key, wrong) = (mw.rkey(), make(&mut b, &mr, &mw));
        if common::on_native() && what == "a zero-based region" {
            // To an adapter it is one whose addresses begin at 0.
            continue;
        }
        if common::on_native() && what.starts_with("no such") {
            b.qp.post(|wr| _ = wr.bind_mw(&wrong).id(900)).unwrap_err();
            continue;
        }
        bind(&mut b, &wrong, WcStatus::MwBindErr);
        assert_eq!(mw.rkey(), key, "{what}");
        mr.deregister().unwrap();
    }
    // A window of type 2 that is bound already.
    let (mut a, mut b) = pair("rc");
    let (mr, mw, part) = bound(&mut b, MwType::Type2);
    let again = mw.bind_to(&mr, 0..8, REMOTE);
    b.qp.post(|wr| _ = wr.bind_mw(&again).id(1)).unwrap();
    b.expect(1, WcStatus::MwBindErr);
    assert_eq!(mw.rkey(), part.rkey);
    assert_ne!(write(&mut a, again.addr, again.rkey), WcStatus::Success);
}

fn no_lkey_is_that_of_a_window() {
    let raw = |part: &MwBind| {
        let sge = Sge { addr: part.addr, length: 8, lkey: part.rkey };
        // SAFETY: the key is not that of a buffer.
        tbrdma::MrSlice::from(unsafe { RawSge::new(sge) })
    };
    for mw_type in TYPES {
        let (_a, mut b) = pair("rc");
        let (_mr, _mw, part) = bound(&mut b, mw_type);
        b.qp.post(|wr| _ = wr.send(raw(&part)).id(1)).unwrap();
        b.expect(1, WcStatus::LocProtErr);
        let (mut a, mut b) = pair("rc");
        let (_mr, _mw, part) = bound(&mut b, mw_type);
        b.qp.post_recv(|rq| _ = rq.recv(raw(&part)).id(2)).unwrap();
        a.qp.post(|wr| _ = wr.send_inline(b"12345678").id(3)).unwrap();
        a.expect(3, WcStatus::RemOpErr);
        b.expect(2, WcStatus::LocProtErr);
    }
}

fn a_region_stays_while_windows_are_bound_to_it() {
    for mw_type in TYPES {
        let (mut a, mut b) = pair("rc");
        let (mr, mw, part) = bound(&mut b, mw_type);
        let error = mr.deregister().unwrap_err();
        assert_eq!(error.errno(), nix::libc::EBUSY);
        let says =
            if common::on_native() { "a memory window may be bound" } else { "1 memory windows are bound" };
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(write(&mut a, part.addr, part.rkey), WcStatus::Success, "nothing has changed");
        // A window may go while it is bound, and takes its key with it.
        drop(mw);
        mr.deregister().unwrap();
        assert_eq!(write(&mut a, part.addr, part.rkey), WcStatus::RemAccessErr);

        // Dropped, a region takes the windows with it.
        let (mut a, mut b) = pair("rc");
        let (mr, mw, part) = bound(&mut b, mw_type);
        drop(mr);
        assert_eq!(write(&mut a, part.addr, part.rkey), WcStatus::RemAccessErr);
        drop(mw);
    }
}

fn a_queue_pair_that_ends_lets_go_of_its_windows() {
    let (_a, mut b) = pair("rc");
    let (two, one) = (bound(&mut b, MwType::Type2), bound(&mut b, MwType::Type1));
    let spare = b.pd.create_qp(tbrdma::QpInit::rc(&b.cq)).unwrap();
    drop(std::mem::replace(&mut b.qp, spare));
    two.0.deregister().unwrap();
    assert_eq!(one.0.deregister().unwrap_err().errno(), nix::libc::EBUSY, "it is not the queue pair's");
}

fn windows_are_bound_to_memory_of_the_programs_own() {
    for (mut a, mut b) in pairs("rc", |init| init) {
        let mut bytes = vec![0_u8; 4096];
        // SAFETY: the vector outlives the region, which is deregistered below, and is looked at after that only.
        let memory = unsafe { ForeignMemory::from_raw(bytes.as_mut_ptr(), bytes.len()) };
        let access = Access::LOCAL_WRITE | Access::MW_BIND;
        let mr = b.pd.register_foreign_at(memory, access, 0x7000_0000).unwrap();
        let mw = b.pd.alloc_mw(MwType::Type2).unwrap();
        let part = mw.bind_to(&mr, 100..200, REMOTE);
        assert_eq!(part.addr, 0x7000_0000 + 100);
        bind(&mut b, &part, WcStatus::Success);
        assert_eq!(write(&mut a, part.addr + 4, part.rkey), WcStatus::Success);
        assert_eq!(write(&mut a, part.addr + 93, part.rkey), WcStatus::RemAccessErr);
        drop(mw);
        mr.deregister().unwrap();
        assert_eq!(bytes[103..113], [0, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
        assert!(bytes[113..].iter().all(|byte| *byte == 0));
    }
}

fn unreliable_connections_have_windows_and_datagrams_do_not() {
    let (_a, mut b) = pair("uc");
    let (mr, mw, part) = bound(&mut b, MwType::Type2);
    invalidate(&mut b, part.rkey, WcStatus::Success);
    drop(mw);
    mr.deregister().unwrap();
    let mut ud = Node::new(QpType::Ud);
    ud.qp.activate_ud(1).unwrap();
    let (mr, mw) = (bindable(&ud), ud.pd.alloc_mw(MwType::Type1).unwrap());
    assert_eq!(
        ud.qp.post(|wr| _ = wr.bind_mw(&mw.bind_to(&mr, 0..8, REMOTE))).unwrap_err().errno(),
        nix::libc::EINVAL
    );
}
