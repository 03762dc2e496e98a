//! Memory registered under addresses of the caller's choice: work requests name it by these, and by nothing else.

use crate::case::cases;
use crate::common;
use crate::common::{Node, all_access, pair, pairs};
use tbrdma::{Access, AsyncEventKind, ForeignMemory, MemoryRegion, ProtectionDomain, QpState, WcStatus};

cases! {
    Memory by "ibv_reg_mr_iova(3); InfiniBand vol. 1, 10.6.3" {
        every_operation_names_the_bytes_by_the_chosen_address:
            "Work requests name a region's bytes by the address chosen at registration, up to the end of the address space", needs [Rc, Iova];
        atomics_are_aligned_by_the_chosen_address: "Alignment of atomics is that of the chosen address", needs [Rc, Atomics, Iova];
        a_zero_based_region_begins_at_zero_whatever_is_said: "A zero-based region is named by offsets", needs [Rc, Iova];
        no_other_address_reaches_the_memory: "No other address reaches the region, its own in the process included", needs [Rc, Iova];
        addresses_beyond_the_end_are_refused: "A region that would go beyond the 64-bit address space is refused", needs [Rc, Iova];
    }
}

const LEN: usize = 10_000;

/// Zeroed memory, aligned to a page, registered at `iova`; and its own address.
fn register(pd: &ProtectionDomain, access: Access, iova: u64) -> (tbrdma::Result<MemoryRegion>, u64) {
    let layout = std::alloc::Layout::from_size_align(LEN, 4096).unwrap();
    // SAFETY: the size is not zero.
    let ptr = unsafe { std::alloc::alloc_zeroed(layout) };
    assert!(!ptr.is_null());
    // SAFETY: the bytes are never freed, and nobody else knows of them.
    let memory = unsafe { ForeignMemory::from_raw(ptr, LEN) };
    (pd.register_foreign_at(memory, access, iova), ptr as u64)
}

fn registered(node: &Node, iova: u64) -> MemoryRegion {
    let region = register(&node.pd, all_access(), iova).0.unwrap();
    assert_eq!((region.addr(), region.len()), (iova, LEN));
    assert_eq!(region.remote().addr, iova);
    region
}

/// Addresses that no memory has, the lowest and nearly the highest among them.
const IOVAS: [u64; 4] = [0, 0x1000, 0x7fff_0000_0000_0000, u64::MAX - LEN as u64];

fn every_operation_names_the_bytes_by_the_chosen_address() {
    for iova in IOVAS {
        for (mut a, mut b) in pairs("rc", |init| init) {
            let (ours, theirs) = (registered(&a, iova), registered(&b, iova.wrapping_add(64).min(IOVAS[3])));
            ours.write(0, b"written to the far side");
            let remote = theirs.remote();
            a.qp.post(|wr| _ = wr.write(ours.slice(0..23), remote.at(100)).id(1)).unwrap();
            a.expect(1, WcStatus::Success);
            a.qp.post(|wr| _ = wr.read(ours.slice(1000..1023), remote.at(100)).id(2)).unwrap();
            a.expect(2, WcStatus::Success);
            let mut bytes = [0; 23];
            ours.read(1000, &mut bytes);
            assert_eq!(&bytes, b"written to the far side");

            b.qp.post_recv(|rq| _ = rq.recv(theirs.slice(LEN - 23..)).id(3)).unwrap();
            a.qp.post(|wr| _ = wr.send(ours.slice(1000..1023)).id(4)).unwrap();
            a.expect(4, WcStatus::Success);
            assert_eq!(b.expect(3, WcStatus::Success).byte_len, 23);
            theirs.read(LEN - 23, &mut bytes);
            assert_eq!(&bytes, b"written to the far side");
        }
    }
}

fn atomics_are_aligned_by_the_chosen_address() {
    let (mut a, b) = pair("rc");
    let theirs = registered(&b, 0x5000);
    let (result, remote) = (a.mr.slice(0..8), theirs.remote());
    a.qp.post(|wr| _ = wr.fetch_and_add(result, remote.at(16), 5).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    assert_eq!(theirs.load_u64(16), 5);
    a.qp.post(|wr| _ = wr.fetch_and_add(result, remote.at(20), 5).id(2)).unwrap();
    a.expect(2, WcStatus::RemInvReqErr);
}

fn a_zero_based_region_begins_at_zero_whatever_is_said() {
    let (mut a, b) = pair("rc");
    let region = register(&b.pd, all_access() | Access::ZERO_BASED, 0x1234_5000).0.unwrap();
    assert_eq!(region.addr(), 0);
    let mut remote = region.remote().at(8);
    assert_eq!(remote.addr, 8);
    a.qp.post(|wr| _ = wr.write_inline(&7_u64.to_ne_bytes(), remote).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    assert_eq!(region.load_u64(8), 7);
    remote.addr = LEN as u64 - 7;
    a.qp.post(|wr| _ = wr.write_inline(&7_u64.to_ne_bytes(), remote).id(2)).unwrap();
    a.expect(2, WcStatus::RemAccessErr);
}

fn no_other_address_reaches_the_memory() {
    const IOVA: u64 = 0x10_0000;
    for outside in [IOVA - 1, IOVA + LEN as u64 - 7, IOVA + LEN as u64, 0, u64::MAX - 7] {
        let (mut a, b) = pair("rc");
        let mut remote = registered(&b, IOVA).remote().at(0);
        remote.addr = outside;
        a.qp.post(|wr| _ = wr.write_inline(&[1; 8], remote).id(1)).unwrap();
        a.expect(1, WcStatus::RemAccessErr);
        b.expect_event(AsyncEventKind::QpAccessErr);
        b.await_state(QpState::Err);
    }
    // Nor the memory's own.
    let (mut a, b) = pair("rc");
    let (region, address) = register(&b.pd, all_access(), IOVA);
    let region = region.unwrap();
    let mut remote = region.remote().at(0);
    remote.addr = address;
    a.qp.post(|wr| _ = wr.write_inline(&[1; 8], remote).id(1)).unwrap();
    a.expect(1, WcStatus::RemAccessErr);
    assert_eq!(region.load_u64(0), 0);
}

fn addresses_beyond_the_end_are_refused() {
    let node = Node::new(tbrdma::QpType::Rc);
    for iova in [u64::MAX, u64::MAX - LEN as u64 + 1] {
        let error = register(&node.pd, all_access(), iova).0.unwrap_err();
        assert_eq!(error.errno(), nix::libc::EINVAL, "{error}");
        assert!(
            common::on_native() || error.to_string().contains("end of the 64-bit address space"),
            "{error}"
        );
    }
}
