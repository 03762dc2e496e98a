//! Regions: memory of the library's own and of the program's, copied in and out, and given back.

use crate::case::cases;
use crate::common;
use crate::common::{Node, all_access, pair, pattern};
use tbrdma::{Access, Error, MemoryPath, QpType, WcStatus};

cases! {
    Memory by "ibv_reg_mr(3)" {
        allocated_memory_is_zeroed_page_aligned_and_its_own: "Regions do not overlap, whatever their lengths";
        freed_memory_comes_back_zeroed: "New memory shows nothing of what was there before";
        copies_stop_at_the_end_of_the_region: "A copy into or out of a region ends at its end";
        words_are_loaded_and_stored_where_they_are_aligned_and_inside: "Words are read and written where they are aligned and inside, and nowhere else";
        registered_bytes_come_back_as_the_same_allocation: "Registered memory stays where it is, and is the program's again afterwards", by "ibv_dereg_mr(3)";
        memory_of_the_library_is_not_given_away: "Memory that the library allocated is not the program's to take";
        registered_memory_takes_part_in_every_operation: "Memory that the program registered takes part in every operation", needs [Rc, Atomics];
        a_region_that_was_taken_back_is_out_of_reach: "Memory that was taken back is out of the peer's reach", by "ibv_dereg_mr(3)", needs [Rc];
        deregistering_while_a_peer_writes_stops_it: "Nothing is written into memory after its deregistration returned", by "ibv_dereg_mr(3)", needs [Rc];
        deregistering_behind_a_send_that_waited_stops_the_writes: "The same for WRITEs that waited behind a SEND", by "ibv_dereg_mr(3)", needs [Rc];
    }
    Objects by "ibv_dealloc_pd(3), ibv_dereg_mr(3)" {
        a_region_outlives_nothing_it_needs: "What a region needs lives as long as it", needs [Rc];
    }
}

fn allocated_memory_is_zeroed_page_aligned_and_its_own() {
    let node = Node::new(QpType::Rc);
    let regions: Vec<_> = [1, 63, 64, 4095, 4096, 4097, 1 << 20]
        .map(|len| node.pd.alloc(len, all_access()).unwrap())
        .into_iter()
        .collect();
    for (at, region) in regions.iter().enumerate() {
        let mut bytes = vec![1; region.len()];
        assert_eq!(region.read(0, &mut bytes), region.len());
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert_eq!(region.addr() % 4096, 0);
        assert_eq!(region.write(0, &vec![at as u8 + 1; region.len()]), region.len());
        assert!(!region.is_empty());
        assert_eq!(region.access(), all_access());
        if common::device() == "shm" {
            assert_eq!(region.path(), MemoryPath::Mapped);
        }
    }
    for (at, region) in regions.iter().enumerate() {
        let mut bytes = vec![0; region.len()];
        region.read(0, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == at as u8 + 1), "regions overlap");
    }
}

fn freed_memory_comes_back_zeroed() {
    let node = Node::new(QpType::Rc);
    for _ in 0..50 {
        let region = node.pd.alloc(64 << 10, all_access()).unwrap();
        let mut bytes = vec![1; region.len()];
        region.read(0, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0));
        region.write(0, &vec![0xff; 64 << 10]);
    }
}

fn copies_stop_at_the_end_of_the_region() {
    let node = Node::new(QpType::Rc);
    let region = node.pd.alloc(100, all_access()).unwrap();
    assert_eq!(region.write(90, &[7; 20]), 10);
    assert_eq!(region.write(100, &[7; 20]), 0);
    assert_eq!(region.write(usize::MAX, &[7; 20]), 0);
    let mut bytes = [9; 20];
    assert_eq!(region.read(95, &mut bytes), 5);
    assert_eq!(bytes[..6], [7, 7, 7, 7, 7, 9]);
    assert_eq!(region.read(1000, &mut bytes), 0);
    assert_eq!(region.read(0, &mut []), 0);
}

fn words_are_loaded_and_stored_where_they_are_aligned_and_inside() {
    let node = Node::new(QpType::Rc);
    let foreign = node.pd.register(vec![0; 64], all_access());
    for region in [node.pd.alloc(64, all_access()).unwrap(), foreign.unwrap()] {
        assert!(region.store_u64(56, 5));
        assert_eq!(region.load_u64(56), 5);
        for offset in [57, 60, 64, usize::MAX, usize::MAX - 7] {
            assert!(!region.store_u64(offset, 9));
            assert_eq!(region.load_u64(offset), 0);
        }
        assert_eq!(region.load_u64(56), 5);
    }
}

fn registered_bytes_come_back_as_the_same_allocation() {
    let node = Node::new(QpType::Rc);
    let bytes = pattern(1, 10_000).into_boxed_slice();
    let at = bytes.as_ptr();
    let region = node.pd.register(bytes, all_access()).unwrap();
    assert_eq!(region.addr(), at as u64);
    assert_eq!(region.len(), 10_000);
    assert_eq!(region.write(5, b"changed"), 7);
    let bytes = region.into_bytes().unwrap();
    assert_eq!(bytes.as_ptr(), at);
    assert_eq!(&bytes[5..12], b"changed");
    assert_eq!(bytes[12..], pattern(1, 10_000)[12..]);

    let vec = pattern(2, 777);
    let at = vec.as_ptr();
    let bytes = node.pd.register(vec, Access::REMOTE_READ).unwrap().into_bytes().unwrap();
    assert_eq!((bytes.as_ptr(), &bytes[..]), (at, &pattern(2, 777)[..]));
}

fn memory_of_the_library_is_not_given_away() {
    let node = Node::new(QpType::Rc);
    let region = node.pd.alloc(4096, all_access()).unwrap();
    let key = region.rkey();
    let (region, error) = region.into_bytes().unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { call: "into_bytes", .. }), "{error}");
    assert_eq!((region.rkey(), region.len()), (key, 4096));
}

fn registered_memory_takes_part_in_every_operation() {
    let (mut a, mut b) = pair("rc");
    let (from, to) = (pattern(3, 4001), vec![0_u8; 5003]);
    let from = a.pd.register(from, all_access()).unwrap();
    let to = b.pd.register(to, all_access()).unwrap();
    b.qp.post_recv(|rq| _ = rq.recv(to.slice(1..1002)).id(1)).unwrap();
    let remote = to.remote();
    a.qp.post(|wr| {
        wr.send(from.slice(7..1008)).id(2);
        wr.write(from.slice(3..1003), remote.at(2001)).id(3);
        wr.read(from.slice(3000..3500), remote.at(2001)).id(4);
    })
    .unwrap();
    for id in [2, 3, 4] {
        a.expect(id, WcStatus::Success);
    }
    b.expect(1, WcStatus::Success);
    // Atomics, at an aligned place of memory that may start anywhere.
    let aligned = 4000 + (8 - (to.addr() + 4000) % 8) % 8;
    a.qp.post(|wr| _ = wr.fetch_and_add(from.slice(3600..3608), remote.at(aligned), 77).id(5)).unwrap();
    a.expect(5, WcStatus::Success);
    let (from, to) = (from.into_bytes().unwrap(), to.into_bytes().unwrap());
    let sent = pattern(3, 4001);
    assert_eq!(to[1..1002], sent[7..1008]);
    assert_eq!(to[2001..3001], sent[3..1003]);
    assert_eq!(from[3000..3500], sent[3..503]);
    assert_eq!(from[3600..3608], [0; 8]);
    assert_eq!(to[aligned as usize..aligned as usize + 8], 77_u64.to_ne_bytes());
    assert_eq!((to[0], to[1002], to[2000], to[3001]), (0, 0, 0, 0));
}

fn a_region_that_was_taken_back_is_out_of_reach() {
    let (mut a, b) = pair("rc");
    let region = b.pd.register(vec![1_u8; 64], all_access()).unwrap();
    let remote = region.remote().at(0);
    let bytes = region.into_bytes().unwrap();
    let slice = a.mr.slice(0..8);
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::RemAccessErr);
    assert_eq!(bytes[..], [1; 64]);
}

fn a_region_outlives_nothing_it_needs() {
    // The order of drops is the program's to choose.
    let (mut a, b) = pair("rc");
    let Node { qp, mr, cq, pd, ctx } = b;
    let region = pd.alloc(4096, all_access()).unwrap();
    drop((pd, ctx, cq, mr));
    let (slice, remote) = (a.mr.slice(0..8), region.remote().at(0));
    a.mr.store_u64(0, 9);
    a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
    assert_eq!(region.load_u64(0), 9);
    drop(qp);
    assert_eq!(region.load_u64(0), 9);
}

fn deregistering_while_a_peer_writes_stops_it() {
    for round in 0..40 {
        let (mut a, b) = pair("rc");
        let region = b.pd.register(vec![0_u8; 256 << 10], all_access()).unwrap();
        let (slice, remote) = (a.mr.slice(0..256 << 10), region.remote().at(0));
        a.fill(0..256 << 10, 0xff);
        let writer = std::thread::spawn(move || {
            loop {
                a.qp.post(|wr| _ = wr.write(slice, remote).id(1)).unwrap();
                let wc = a.one();
                if wc.status != WcStatus::Success {
                    assert_eq!(wc.status, WcStatus::RemAccessErr);
                    return;
                }
            }
        });
        for _ in 0..round * 200 {
            std::hint::spin_loop();
        }
        let mut bytes = region.into_bytes().unwrap();
        // Ours alone from here on: what is written stays.
        bytes.fill(0x11);
        writer.join().unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0x11), "written after it had been given back");
    }
}

fn deregistering_behind_a_send_that_waited_stops_the_writes() {
    const LEN: usize = 2 << 20;
    let with = common::connection(|with| {
        with.rnr_retry = 7;
        with.min_rnr_timer = 12;
    });
    for round in 0..20 {
        let (mut a, mut b) = common::pair_with("rc", |init| init, &with);
        let source = a.pd.alloc(LEN, all_access()).unwrap();
        source.write(0, &vec![0xff; LEN]);
        let region = b.pd.register(vec![0_u8; LEN], all_access()).unwrap();
        let (slice, whole, remote) = (a.mr.slice(0..8), source.slice(..), region.remote().at(0));
        // The writes wait behind a send that finds no receive, so it is not this thread that carries them out.
        a.qp.post(|wr| {
            wr.send(slice).id(1);
            for _ in 0..8 {
                wr.write(whole, remote).id(2);
            }
        })
        .unwrap();
        b.post_recv(3, 0..8);
        // Its address may be one of an odd kind, so it is asked for bytes, not for words.
        common::eventually("the first bytes", || {
            let mut byte = [0];
            region.read(round * 1000, &mut byte);
            byte[0] == 0xff
        });
        // The poster comes to the door of its send queue while another thread is inside.
        let poster = std::thread::spawn(move || {
            a.qp.post(|_| {}).unwrap();
            a
        });
        let mut bytes = region.into_bytes().unwrap();
        bytes.fill(0x11);
        let a = poster.join().unwrap();
        // All nine, or as many as there were before the key stopped working.
        assert!((0..9).map(|_| a.one().status).all(|status| status != WcStatus::LocProtErr));
        assert!(
            bytes.iter().all(|byte| *byte == 0x11),
            "round {round}: written after it had been given back"
        );
    }
}
