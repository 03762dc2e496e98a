//! Registered again: other rights, another protection domain, other memory in place of what was registered.

use crate::case::cases;
use crate::common::{Node, all_access, pair, pairs};
use nix::libc;
use tbrdma::{Access, ForeignMemory, MemoryRegion, MwType, ProtectionDomain, QpState, WcStatus};

cases! {
    Memory by "ibv_rereg_mr(3)" {
        rights_change_under_the_same_key: "A region's rights may be changed", needs [Rc, Rereg];
        the_domain_changes_and_changes_back: "A region may move to another protection domain", needs [Rc, Rereg];
        other_memory_takes_the_regions_place_under_another_key: "Other memory may take a region's place", needs [Rc, Rereg];
        a_receive_posted_for_the_old_memory_fails: "Work posted for the old memory does not reach the new", needs [Rc, Rereg];
        what_cannot_be_changed_stays_as_it_was: "A change that is refused leaves the region as it was", needs [Rc, Rereg];
        memory_that_is_read_only_does_not_become_writable: "Memory that cannot be written gets no right to be", needs [Rc, Rereg];
    }
}

const LEN: usize = 4096;

/// A node's memory: of the library's, or of the program's own.
fn regions(pd: &ProtectionDomain, access: Access) -> [MemoryRegion; 2] {
    [pd.alloc(LEN, access).unwrap(), pd.register(vec![0; LEN], access).unwrap()]
}

/// How eight bytes written there end.
fn write(node: &mut Node, remote: tbrdma::RemoteAddr) -> WcStatus {
    node.qp.post(|wr| _ = wr.write_inline(&[7; 8], remote)).unwrap();
    node.one().status
}

fn rights_change_under_the_same_key() {
    for which in 0..2 {
        for (mut a, b) in pairs("rc", |init| init) {
            let [one, two] = regions(&b.pd, Access::LOCAL_WRITE);
            let mut region = if which == 0 { one } else { two };
            let remote = region.remote();
            region.change(None, Some(Access::LOCAL_WRITE | Access::REMOTE_WRITE)).unwrap();
            assert_eq!(region.access(), Access::LOCAL_WRITE | Access::REMOTE_WRITE);
            assert_eq!(region.remote(), remote);
            assert_eq!(write(&mut a, remote.at(8)), WcStatus::Success);
            assert_eq!(region.load_u64(8), u64::from_ne_bytes([7; 8]));
            // A sender that has used the region a moment ago learns of it.
            region.change(None, Some(Access::LOCAL_WRITE)).unwrap();
            assert_eq!(write(&mut a, remote.at(16)), WcStatus::RemAccessErr);
            assert_eq!(region.load_u64(16), 0);
        }
    }
}

fn the_domain_changes_and_changes_back() {
    let (mut a, mut b) = pair("rc");
    let other = b.ctx.alloc_pd().unwrap();
    let [_, mut region] = regions(&b.pd, all_access());
    region.change(Some(&other), None).unwrap();
    assert_eq!(format!("{:?}", region.pd()), format!("{other:?}"));
    let into = region.slice(..);
    b.qp.post_recv(|rq| _ = rq.recv(into).id(1)).unwrap();
    a.qp.post(|wr| _ = wr.send_inline(b"x").id(2)).unwrap();
    a.expect(2, WcStatus::RemOpErr);
    b.expect(1, WcStatus::LocProtErr);

    let (mut a, mut b) = pair("rc");
    let other = b.ctx.alloc_pd().unwrap();
    let [_, mut region] = regions(&b.pd, all_access());
    region.change(Some(&other), None).unwrap();
    region.change(Some(&b.pd), Some(Access::LOCAL_WRITE)).unwrap();
    let into = region.slice(..);
    b.qp.post_recv(|rq| _ = rq.recv(into).id(1)).unwrap();
    a.qp.post(|wr| _ = wr.send_inline(b"x").id(2)).unwrap();
    a.expect(2, WcStatus::Success);
    b.expect(1, WcStatus::Success);
    // A domain with a region that was given to it ends after the region, whatever is dropped first.
    region.change(Some(&other), None).unwrap();
    drop(other);
    drop(region);
}

fn other_memory_takes_the_regions_place_under_another_key() {
    for (mut a, b) in pairs("rc", |init| init) {
        let [_, mut region] = regions(&b.pd, all_access());
        let before = region.remote();
        let mut bytes = vec![0_u8; LEN];
        // SAFETY: the vector outlives the region, and is looked at afterwards only.
        let memory = unsafe { ForeignMemory::from_raw(bytes.as_mut_ptr(), 100) };
        region.replace(memory, 0x5000, None, None).unwrap();
        assert_eq!((region.addr(), region.len(), region.access()), (0x5000, 100, all_access()));
        assert_ne!(region.rkey(), before.rkey);
        assert_eq!(write(&mut a, region.remote().at(92)), WcStatus::Success);
        assert_eq!(write(&mut a, before.at(0)), WcStatus::RemAccessErr);
        drop(region);
        assert_eq!(bytes[91..101], [0, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
    }
}

fn a_receive_posted_for_the_old_memory_fails() {
    let (mut a, mut b) = pair("rc");
    let [_, mut region] = regions(&b.pd, all_access());
    let into = region.slice(..);
    b.qp.post_recv(|rq| _ = rq.recv(into).id(1)).unwrap();
    let bytes: &mut [u8] = Box::leak(vec![0; LEN].into_boxed_slice());
    // SAFETY: the bytes live for ever, and nobody looks at them.
    let memory = unsafe { ForeignMemory::from_raw(bytes.as_mut_ptr(), LEN) };
    region.replace(memory, bytes.as_ptr() as u64, None, Some(Access::LOCAL_WRITE)).unwrap();
    a.qp.post(|wr| _ = wr.send_inline(b"x").id(2)).unwrap();
    a.expect(2, WcStatus::RemOpErr);
    b.expect(1, WcStatus::LocProtErr);
    b.await_state(QpState::Err);
}

fn what_cannot_be_changed_stays_as_it_was() {
    let (mut a, mut b) = pair("rc");
    let mut region = b.pd.alloc(LEN, all_access() | Access::MW_BIND).unwrap();
    let einval = |error: tbrdma::Error| assert_eq!(error.errno(), libc::EINVAL, "{error}");
    einval(region.change(None, Some(Access::REMOTE_WRITE)).unwrap_err());
    einval(region.change(Some(&a.pd), None).unwrap_err());
    let mw = b.pd.alloc_mw(MwType::Type1).unwrap();
    let bind = mw.bind_to(&region, 0..8, Access::REMOTE_READ);
    b.qp.post(|wr| _ = wr.bind_mw(&bind).id(1)).unwrap();
    b.expect(1, WcStatus::Success);
    einval(region.change(None, Some(Access::LOCAL_WRITE)).unwrap_err());
    assert_eq!(region.access(), all_access() | Access::MW_BIND);
    assert_eq!(write(&mut a, region.remote().at(0)), WcStatus::Success);
    // Other memory is not taken either, while windows are bound.
    let bytes: &mut [u8] = Box::leak(vec![0; 8].into_boxed_slice());
    // SAFETY: the bytes live for ever, and nobody looks at them.
    let memory = unsafe { ForeignMemory::from_raw(bytes.as_mut_ptr(), 8) };
    assert_eq!(region.replace(memory, 0, None, None).unwrap_err().errno(), libc::EBUSY);
    assert_eq!(write(&mut a, region.remote().at(0)), WcStatus::Success);
    drop(mw);
    region.change(None, Some(Access::LOCAL_WRITE)).unwrap();
    region.deregister().unwrap();
    einval(region.change(None, Some(all_access())).unwrap_err());
}

fn memory_that_is_read_only_does_not_become_writable() {
    let node = Node::new(tbrdma::QpType::Rc);
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let at = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), LEN, libc::PROT_READ, flags, -1, 0)
    };
    assert_ne!(at, libc::MAP_FAILED);
    // SAFETY: the mapping stays.
    let memory = unsafe { ForeignMemory::from_raw(at.cast(), LEN) };
    let mut region = node.pd.register_foreign(memory, Access::REMOTE_READ).unwrap();
    region.change(None, Some(Access::LOCAL_WRITE)).unwrap_err();
    assert_eq!(region.access(), Access::REMOTE_READ);
}
