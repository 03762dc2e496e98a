//! The rights a region may be registered with: what is understood is reported, what may be ignored is, and the rest is refused.

use crate::case::cases;
use crate::common;
use crate::common::{Node, all_access, pair};
use tbrdma::{Access, MemoryRegion, ODP_SUPPORT, ODP_SUPPORT_ATOMIC, QpType, WcStatus, limits};

cases! {
    Memory by "ibv_reg_mr(3)" {
        every_combination_that_makes_sense_is_registered_and_reported:
            "Rights combine freely, but for remote writing and atomics, which need the right to write locally";
        unknown_bits_are_ignored_where_they_are_optional_and_refused_elsewhere:
            "Rights of the optional range may be ignored; any other unknown right is refused";
        hints_about_memory_change_nothing_about_its_use:
            "On-demand paging, huge pages and relaxed ordering are hints: messages do what they do without", needs [Rc, Atomics, OnDemandPaging];
        the_device_says_that_it_pages_on_demand_and_has_windows:
            "The device's attributes name the operations that it pages on demand, and its windows",
            by "ibv_query_device_ex(3)", needs [OnDemandPaging, Windows];
        hints_are_no_hindrance_in_the_rights_of_a_queue_pair:
            "A queue pair may be given the hints of a region among its rights", by "ibv_modify_qp(3)", needs [Rc, OnDemandPaging];
    }
}

fn both(node: &Node, access: Access) -> [tbrdma::Result<MemoryRegion>; 2] {
    [node.pd.alloc(64, access), node.pd.register(vec![0; 64], access)]
}

fn every_combination_that_makes_sense_is_registered_and_reported() {
    let node = Node::new(QpType::Rc);
    for bits in 0..=0xff {
        for access in
            [Access::from_bits_retain(bits), Access::from_bits_retain(bits) | Access::RELAXED_ORDERING]
        {
            let writes = access.intersects(Access::REMOTE_WRITE | Access::REMOTE_ATOMIC);
            for region in both(&node, access) {
                if writes && !access.contains(Access::LOCAL_WRITE) {
                    assert_eq!(region.unwrap_err().errno(), nix::libc::EINVAL, "{access}");
                } else {
                    assert_eq!(region.unwrap().access(), access);
                }
            }
        }
    }
}

fn unknown_bits_are_ignored_where_they_are_optional_and_refused_elsewhere() {
    let node = Node::new(QpType::Rc);
    for bit in 8..32 {
        let flag = Access::from_bits_retain(1 << bit);
        for region in both(&node, Access::LOCAL_WRITE | flag) {
            match bit {
                20 => assert_eq!(region.unwrap().access(), Access::LOCAL_WRITE | Access::RELAXED_ORDERING),
                21..30 => assert_eq!(region.unwrap().access(), Access::LOCAL_WRITE),
                _ => assert_eq!(region.unwrap_err().errno(), nix::libc::EINVAL, "bit {bit}"),
            }
        }
    }
}

fn hints_about_memory_change_nothing_about_its_use() {
    let hints = Access::ON_DEMAND | Access::HUGETLB | Access::RELAXED_ORDERING;
    let (mut a, mut b) = pair("rc");
    let access = all_access() | hints;
    for (from, to) in both(&a, access).into_iter().zip(both(&b, access)) {
        let (from, to) = (from.unwrap(), to.unwrap());
        from.write(0, &[5; 64]);
        a.qp.post(|wr| _ = wr.write(from.slice(..), to.remote().at(0)).id(1)).unwrap();
        a.expect(1, WcStatus::Success);
        let mut bytes = [0; 64];
        to.read(0, &mut bytes);
        assert_eq!(bytes, [5; 64]);
        b.qp.post_recv(|rq| _ = rq.recv(to.slice(..)).id(2)).unwrap();
        a.qp.post(|wr| _ = wr.send(from.slice(..)).id(3)).unwrap();
        a.expect(3, WcStatus::Success);
        b.expect(2, WcStatus::Success);
        a.qp.post(|wr| _ = wr.fetch_and_add(from.slice(0..8), to.remote().at(0), 1).id(4)).unwrap();
        a.expect(4, WcStatus::Success);
    }
}

fn the_device_says_that_it_pages_on_demand_and_has_windows() {
    let attr = Node::new(QpType::Rc).ctx.query_device();
    assert_eq!(attr.odp_caps.general & ODP_SUPPORT, ODP_SUPPORT);
    assert_eq!(attr.odp_caps.rc & ODP_SUPPORT_ATOMIC, ODP_SUPPORT_ATOMIC);
    assert_eq!(attr.odp_caps.ud & ODP_SUPPORT_ATOMIC, 0);
    let windows = limits::DEVICE_MEM_WINDOW | limits::DEVICE_MEM_WINDOW_TYPE_2B;
    assert_eq!(attr.device_cap_flags & windows, windows);
    assert!(attr.max_mw > 0);
}

fn hints_are_no_hindrance_in_the_rights_of_a_queue_pair() {
    let (mut a, mut b) = (Node::new(QpType::Rc), Node::new(QpType::Rc));
    let with =
        common::connection(|with| with.access = all_access() | Access::ON_DEMAND | Access::RELAXED_ORDERING);
    common::join(&mut a, &mut b, &with);
    let to = b.mr.remote().at(0);
    a.qp.post(|wr| _ = wr.write_inline(b"x", to).id(1)).unwrap();
    a.expect(1, WcStatus::Success);
}
