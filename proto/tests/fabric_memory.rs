//! The simulated memory does not trust anybody: every access that must not be is a violation, whoever allowed it.

use tbrdma_proto::testing::ToyMemory;
use tbrdma_proto::transport::AtomicOp;
use tbrdma_proto::{Access, PdHandle};

const PD: PdHandle = PdHandle(1);

fn memory() -> (ToyMemory, u32, u64) {
    let mut memory = ToyMemory::new(7);
    let access = Access::LOCAL_WRITE | Access::REMOTE_ATOMIC;
    let (key, base) = memory.register(PD, access, 64).unwrap();
    (memory, key, base)
}

#[test]
fn what_is_allowed_is_done() {
    let (mut memory, key, base) = memory();
    memory.place(PD, key, base + 60, b"tail").unwrap();
    assert_eq!(memory.bytes(key, base + 56, 8).unwrap(), b"\0\0\0\0tail");
    let mut gathered = Vec::new();
    assert_eq!(memory.gather(PD, key, base + 60, 4, &mut gathered), Ok(true));
    assert_eq!(gathered, b"tail");
    assert_eq!(memory.atomic(PD, key, base + 8, AtomicOp::FetchAdd { add: 5 }), Ok(0));
    let swap = |compare| AtomicOp::CompareSwap { compare, swap: 9 };
    assert_eq!(memory.atomic(PD, key, base + 8, swap(4)), Ok(5));
    assert_eq!(memory.atomic(PD, key, base + 8, swap(5)), Ok(5));
    assert_eq!(memory.atomic(PD, key, base + 8, swap(0)), Ok(9));
    memory.check_guards().unwrap();
}

#[test]
fn what_is_not_allowed_is_a_violation_and_changes_nothing() {
    let (mut memory, key, base) = memory();
    let (read_only, there) = memory.register(PD, Access::REMOTE_READ, 64).unwrap();
    for (pd, key, addr, what) in [
        (PD, key, base + 61, "one byte beyond the end"),
        (PD, key, base - 1, "one byte before the start"),
        (PD, key, u64::MAX - 1, "the end of all addresses"),
        (PD, key ^ 1, base, "another key"),
        (PdHandle(2), key, base, "another domain"),
        (PD, read_only, there, "no right to write"),
    ] {
        assert!(memory.place(pd, key, addr, b"evil").is_err(), "{what}");
    }
    assert!(memory.atomic(PD, key, base + 4, AtomicOp::FetchAdd { add: 1 }).is_err(), "not a multiple of 8");
    assert!(memory.atomic(PD, read_only, there, AtomicOp::FetchAdd { add: 1 }).is_err());
    assert!(memory.bytes(key, base, 64).unwrap().iter().all(|&byte| byte == 0));
    memory.check_guards().unwrap();
}

#[test]
fn a_withdrawn_region_is_gone_for_readers_and_writers() {
    let (mut memory, key, base) = memory();
    memory.invalidate(PdHandle(2), key).unwrap_err();
    assert!(memory.has(key));
    memory.invalidate(PD, key).unwrap();
    assert!(!memory.has(key));
    assert!(memory.place(PD, key, base, b"late").is_err());
    assert_eq!(memory.gather(PD, key, base, 4, &mut Vec::new()), Ok(false), "as if the packet were lost");
}

#[test]
fn bytes_are_used_again_but_keys_and_addresses_are_not() {
    let mut memory = ToyMemory::new(1);
    let (first, at) = memory.register(PD, Access::LOCAL_WRITE, 100).unwrap();
    memory.place(PD, first, at, &[7; 100]).unwrap();
    memory.deregister(first).unwrap();
    let (second, there) = memory.register(PD, Access::LOCAL_WRITE, 50).unwrap();
    assert!(second != first && there != at);
    assert_eq!(memory.bytes(second, there, 50).unwrap(), [0; 50]);
}
