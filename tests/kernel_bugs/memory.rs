//! Which bytes a key reaches.

use crate::common::{Node, all_access, pattern};
use crate::hand::{self, Hand};
use crate::{DEVICES, pair};
use tbrdma::{
    AsyncEventKind, ForeignMemory, MemoryRegion, Opcode, ProtectionDomain, QpState, QpType, RawSge,
    RemoteAddr, SendFlags, SendWr, Sge, WcStatus,
};
use tbrdma_proto::wire::NakCode;
use tbrdma_proto::wire::PacketOpcode as P;

/// Bytes of the regions at the edges of the address space.
const LEN: usize = 4096;

/// Memory of the test's own, registered at an address that no memory has.
fn registered(pd: &ProtectionDomain, iova: u64) -> MemoryRegion {
    let bytes = vec![0x66; LEN].leak();
    // SAFETY: they are never freed, and nobody else knows of them.
    let memory = unsafe { ForeignMemory::from_raw(bytes.as_mut_ptr(), LEN) };
    pd.register_foreign_at(memory, all_access(), iova).unwrap()
}

/// A region that ends where addresses end, and one that begins where they begin again.
fn edges(node: &Node) -> [MemoryRegion; 2] {
    [u64::MAX - LEN as u64, 0].map(|iova| registered(&node.pd, iova))
}

fn unchanged(regions: &[MemoryRegion]) -> bool {
    regions.iter().all(|region| {
        let mut bytes = [0; LEN];
        region.read(0, &mut bytes) == LEN && bytes == [0x66; LEN]
    })
}

/// An entry that names whatever it names.
fn entry(addr: u64, length: u32, lkey: u32) -> RawSge {
    // SAFETY: the key is not that of a buffer.
    unsafe { RawSge::new(Sge { addr, length, lkey }) }
}

/// How far before the end of all addresses, and how long from there: each goes beyond it, and is one packet.
const WRAPPING: [(u64, u32); 4] = [(0, 2), (7, 16), (100, 200), (900, 1800)];

#[test]
fn a_wrapping_range_of_the_peers_memory() {
    for device in DEVICES {
        for (back, len) in WRAPPING {
            let (mut a, b) = pair(device);
            let theirs = edges(&b);
            let remote = RemoteAddr { addr: u64::MAX - back, rkey: theirs[0].rkey() };
            let from = a.mr.slice(..len as usize);
            a.qp.post(|list| _ = list.write(from, remote).id(1)).unwrap();
            a.expect(1, WcStatus::RemAccessErr);
            b.expect_event(AsyncEventKind::QpAccessErr);
            assert!(unchanged(&theirs), "{device}");
        }
    }
}

#[test]
fn a_wrapping_range_of_ones_own_memory() {
    let refused = [WcStatus::LocProtErr, WcStatus::LocLenErr];
    for device in DEVICES {
        for (back, len) in WRAPPING {
            let (mut a, mut b) = pair(device);
            let (ours, theirs) = (edges(&a), edges(&b));
            // To be sent from, and to be received into.
            let wrong = |regions: &[MemoryRegion; 2]| [entry(u64::MAX - back, len, regions[0].lkey())];
            b.qp.post_recv(|list| list.raw(2, &wrong(&theirs))).unwrap();
            let from = a.mr.slice(..back as usize + 2);
            a.qp.post(|list| _ = list.send(from).id(1)).unwrap();
            assert!(refused.contains(&b.one().status), "{device}");
            assert_ne!(a.one().status, WcStatus::Success);
            let (mut a, b) = pair(device);
            let ours_too = edges(&a);
            let wr = SendWr { remote: b.mr.remote().at(0), ..write(1) };
            a.qp.post(|list| list.raw(wr, &wrong(&ours_too))).unwrap();
            assert!(refused.contains(&a.one().status), "{device}");
            assert!([ours, theirs, ours_too].iter().all(|regions| unchanged(regions)), "{device}");
        }
    }
}

#[test]
fn a_wrapping_range_in_a_packet() {
    type Ask = fn(&Hand, RemoteAddr, u32) -> hand::Made;
    let asks: [Ask; 4] = [
        |hand, at, len| hand.packet(P::RcWriteOnly, 0).reth(at, len).payload(&vec![1; len as usize]),
        |hand, at, len| hand.packet(P::RcWriteFirst, 0).reth(at, len + 256).payload(&[1; 256]),
        |hand, at, len| hand.packet(P::RcReadRequest, 0).reth(at, len),
        |hand, at, _| hand.packet(P::RcFetchAdd, 0).atomic(RemoteAddr { addr: u64::MAX - 7, ..at }, 1, 0),
    ];
    for ask in asks {
        let mut node = hand::node(QpType::Rc);
        let hand = Hand::of(&mut node);
        let regions = edges(&node);
        let at = RemoteAddr { addr: u64::MAX - 8, rkey: regions[0].rkey() };
        let heard = hand.ask(&[ask(&hand, at, 16).asking()]);
        assert_eq!(heard.nak(), Some(NakCode::RemoteAccessError));
        node.expect_event(AsyncEventKind::QpAccessErr);
        assert!(unchanged(&regions));
    }
}

/// A WRITE, so far from and to nowhere.
fn write(wr_id: u64) -> SendWr {
    SendWr {
        wr_id,
        opcode: Opcode::RdmaWrite,
        flags: SendFlags::SIGNALED,
        imm_data: 0,
        remote: RemoteAddr::default(),
        compare_add: 0,
        swap: 0,
        ud: None,
        first_sge: 0,
        num_sge: 0,
    }
}

#[test]
fn a_list_whose_lengths_wrap_around_32_bits() {
    const HALF: u32 = 1 << 31;
    for device in DEVICES {
        for lengths in [vec![HALF, HALF], vec![u32::MAX, 9], vec![u32::MAX, u32::MAX, 2]] {
            let (mut a, b) = pair(device);
            a.fill(0..64, 0x12);
            let list: Vec<_> =
                lengths.iter().map(|length| entry(a.mr.addr(), *length, a.mr.lkey())).collect();
            let wr = SendWr { remote: b.mr.remote().at(0), ..write(1) };
            a.qp.post(|wrs| wrs.raw(wr, &list)).unwrap();
            let status = a.one().status;
            assert!(
                [WcStatus::LocLenErr, WcStatus::LocProtErr].contains(&status),
                "{device} {lengths:?}: {status}"
            );
            assert_eq!((a.qp.state(), b.qp.state()), (QpState::Err, QpState::Rts));
            assert_eq!(b.bytes(0..64), [0; 64]);
        }
    }
}

#[test]
fn a_region_that_begins_and_ends_within_pages() {
    const PAGE: usize = 4096;
    const BEGIN: usize = 13;
    const SIZE: usize = 4 * PAGE + 777;
    for device in DEVICES {
        let (mut a, b) = pair(device);
        let layout = std::alloc::Layout::from_size_align(8 * PAGE, PAGE).unwrap();
        // SAFETY: the size is not zero.
        let begin = unsafe { std::alloc::alloc_zeroed(layout) };
        // SAFETY: within the allocation.
        let within = unsafe { begin.add(BEGIN) };
        // SAFETY: the bytes are never freed, and looked at only when nobody is at them.
        let memory = unsafe { ForeignMemory::from_raw(within, SIZE) };
        let region = b.pd.register_foreign(memory, all_access()).unwrap();
        let mut expected = vec![0; SIZE];
        let mut id = 0;
        for border in (0..=4).map(|page| page * PAGE) {
            for (before, len) in [(1, 2), (0, 1), (BEGIN, 2 * BEGIN), (300, 5000), (7, 8)] {
                let at = (border.saturating_sub(before + BEGIN)).min(SIZE - 1);
                let len = len.min(SIZE - at);
                id += 1;
                let bytes = pattern(id, len);
                a.mr.write(0, &bytes);
                expected[at..at + len].copy_from_slice(&bytes);
                let (from, to) = (a.mr.slice(..len), region.remote().at(at as u64));
                let back = a.mr.slice(65536..65536 + len);
                a.qp.post(|wr| {
                    wr.write(from, to).id(id);
                    wr.read(back, to).id(1000 + id);
                })
                .unwrap();
                a.expect(id, WcStatus::Success);
                a.expect(1000 + id, WcStatus::Success);
                assert_eq!(a.bytes(65536..65536 + len), bytes);
            }
        }
        drop(region);
        // SAFETY: nobody writes there any more.
        let whole = unsafe { std::slice::from_raw_parts(begin, 8 * PAGE) };
        assert!(whole[..BEGIN].iter().chain(&whole[BEGIN + SIZE..]).all(|byte| *byte == 0), "{device}");
        assert!(whole[BEGIN..BEGIN + SIZE] == expected, "{device}");
    }
}
