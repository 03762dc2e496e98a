//! What each operation is, which rights it needs, and which transport has it.

use tbrdma_proto::{Access, Opcode, QpType, WcOpcode};

#[test]
fn each_transport_has_its_operations() {
    use Opcode::{
        AtomicCmpAndSwp, AtomicFetchAndAdd, BindMw, LocalInv, RdmaRead, RdmaWrite, RdmaWriteWithImm, Send,
        SendWithImm, SendWithInv,
    };
    let rows = [
        (Send, "RC UC UD"),
        (SendWithImm, "RC UC UD"),
        (SendWithInv, "RC"),
        (RdmaWrite, "RC UC"),
        (RdmaWriteWithImm, "RC UC"),
        (RdmaRead, "RC"),
        (AtomicCmpAndSwp, "RC"),
        (AtomicFetchAndAdd, "RC"),
        (LocalInv, "RC UC"),
        (BindMw, "RC UC"),
    ];
    assert_eq!(rows.len(), Opcode::ALL.len());
    for (opcode, transports) in rows {
        for qp_type in QpType::ALL {
            assert_eq!(qp_type.allows(opcode), transports.contains(qp_type.name()), "{opcode:?} {qp_type}");
        }
    }
    assert_eq!(QpType::ALL.iter().map(|t| t.is_connected()).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn completions_name_the_operation() {
    let expected = [
        WcOpcode::RdmaWrite,
        WcOpcode::RdmaWrite,
        WcOpcode::Send,
        WcOpcode::Send,
        WcOpcode::RdmaRead,
        WcOpcode::CompSwap,
        WcOpcode::FetchAdd,
        WcOpcode::LocalInv,
        WcOpcode::BindMw,
        WcOpcode::Send,
    ];
    for (opcode, wc) in Opcode::ALL.iter().zip(expected) {
        assert_eq!(opcode.wc_opcode(), wc);
        assert!(!wc.is_recv());
    }
    assert!(WcOpcode::Recv.is_recv() && WcOpcode::RecvRdmaWithImm.is_recv());
}

#[test]
fn properties_of_operations() {
    // Operation, takes a receive, atomic, immediate, rdma, sends our bytes.
    let rows = [
        (Opcode::RdmaWrite, "rdma gathers"),
        (Opcode::RdmaWriteWithImm, "receive imm rdma gathers"),
        (Opcode::Send, "receive gathers"),
        (Opcode::SendWithImm, "receive imm gathers"),
        (Opcode::RdmaRead, "rdma"),
        (Opcode::AtomicCmpAndSwp, "atomic"),
        (Opcode::AtomicFetchAndAdd, "atomic"),
        (Opcode::LocalInv, ""),
        (Opcode::BindMw, ""),
        (Opcode::SendWithInv, "receive gathers"),
    ];
    for (opcode, words) in rows {
        assert_eq!(opcode.consumes_receive(), words.contains("receive"), "{opcode:?}");
        assert_eq!(opcode.is_atomic(), words.contains("atomic"), "{opcode:?}");
        assert_eq!(opcode.has_imm(), words.contains("imm"), "{opcode:?}");
        assert_eq!(opcode.is_rdma(), words.contains("rdma"), "{opcode:?}");
        assert_eq!(opcode.gathers(), words.contains("gathers"), "{opcode:?}");
    }
}

#[test]
fn rights_follow_where_bytes_go() {
    for opcode in Opcode::ALL {
        let comes_back = opcode.is_atomic() || *opcode == Opcode::RdmaRead;
        let local = if comes_back { Access::LOCAL_WRITE } else { Access::empty() };
        assert_eq!(opcode.local_access_needed(), local, "{opcode:?}");
        let one_sided = opcode.is_atomic() || opcode.is_rdma();
        assert_eq!(!opcode.remote_access_needed().is_empty(), one_sided, "{opcode:?}");
    }
    assert_eq!(Opcode::RdmaWriteWithImm.remote_access_needed(), Access::REMOTE_WRITE);
    assert_eq!(Opcode::RdmaRead.remote_access_needed(), Access::REMOTE_READ);
    assert_eq!(Opcode::AtomicCmpAndSwp.remote_access_needed(), Access::REMOTE_ATOMIC);
}
