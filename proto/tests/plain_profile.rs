//! The plain profile is the limits, no more and no less.

use tbrdma_proto::{FlowMode, LinkLayer, Mtu, PortState, Profile, RegionTable, limits};

#[test]
fn plain_narrows_nothing() {
    let Profile { name, device, port, switches } = Profile::plain();
    assert_eq!((name, switches.flow), ("plain", FlowMode::Nic));
    assert!(switches.habits().is_empty());
    assert_eq!(device.max_sge, limits::MAX_SGE);
    assert_eq!(device.max_inline_data, limits::MAX_INLINE_DATA);
    assert_eq!(device.max_qp_wr, limits::MAX_QP_WR);
    assert_eq!(device.max_qp, limits::MAX_QP);
    assert_eq!(device.max_cqe, limits::MAX_CQE);
    assert_eq!(device.max_cq, limits::MAX_CQ);
    assert_eq!(device.max_mr, limits::MAX_MR);
    assert_eq!(device.max_pd, limits::MAX_PD);
    assert_eq!(device.max_ah, limits::MAX_AH);
    assert_eq!(device.max_srq, limits::MAX_SRQ);
    assert_eq!(device.max_srq_wr, limits::MAX_SRQ_WR);
    assert_eq!(device.max_qp_rd_atom, limits::MAX_QP_RD_ATOM);
    assert_eq!(u64::from(port.max_msg_sz), limits::MAX_MSG_SIZE);
    assert_eq!((port.state, port.active_mtu, port.max_mtu), (PortState::Active, Mtu::B4096, Mtu::B4096));
    assert_eq!(port.link_layer, LinkLayer::Ethernet);
    assert_eq!(Profile::default(), Profile::plain());
}

#[test]
fn a_table_of_that_many_regions_can_be_made() {
    let table = RegionTable::<()>::new(limits::MAX_MR as usize);
    assert_eq!(table.capacity(), limits::MAX_MR as usize);
}
