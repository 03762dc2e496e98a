//! Sending, receiving, acknowledging and completing allocate nothing once everything has been used before; not with
//! losses either.

mod counting;
mod requester_common;

use counting::calls;
use requester_common::duplex::Duplex;
use tbrdma_proto::Opcode;

#[test]
fn no_packet_allocates() {
    for loss in [0, 50] {
        for opcode in [
            Opcode::Send,
            Opcode::SendWithImm,
            Opcode::RdmaWrite,
            Opcode::RdmaWriteWithImm,
            Opcode::RdmaRead,
            Opcode::AtomicFetchAndAdd,
        ] {
            for length in [8, 100_000] {
                let length = if opcode.is_atomic() { 8 } else { length };
                let mut duplex = Duplex::new(loss);
                // Twice what is measured: rare paths, and the deepest queues, have been seen then.
                duplex.run(opcode, length, 2000);
                let before = calls();
                duplex.run(opcode, length, 1000);
                assert_eq!(calls() - before, 0, "{opcode:?} of {length} bytes, one packet of {loss} lost");
            }
        }
    }
}
