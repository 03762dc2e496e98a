//! Registering application memory in one process: what is refused, what comes back, and two contexts that share the process.

#[path = "common/foreign.rs"]
mod foreign;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/process.rs"]
mod process;
#[path = "common/puppet.rs"]
mod puppet;
#[path = "common/seccomp.rs"]
mod seccomp;

use foreign::{FOREIGN, Held, Kind};
use nix::libc;
use process::skip;
use puppet::{Obey, Puppet, all_access, meet};
use tbrdma::{Access, ForeignMemory, MemoryPath};

#[test]
fn read_only_memory_may_not_be_registered_for_writing() {
    let pd = tbrdma::open("shm").unwrap().alloc_pd().unwrap();
    let held = Held::new(Kind::ReadOnly).unwrap();
    for access in [Access::LOCAL_WRITE, all_access(), Access::LOCAL_WRITE | Access::REMOTE_READ] {
        let error = held.register_with(&pd, access).unwrap_err();
        assert_eq!(error.errno(), libc::EFAULT, "{error}");
        assert!(error.to_string().contains("writable"), "{error}");
    }
    held.register_with(&pd, Access::empty()).unwrap();
}

#[test]
fn memory_that_is_not_mapped_may_not_be_registered() {
    let pd = tbrdma::open("shm").unwrap().alloc_pd().unwrap();
    // What goes beyond all addresses is told from what is not there, as the kernel does.
    let beyond = libc::EINVAL;
    for (address, len, errno) in
        [(8_usize, 8_usize, libc::EFAULT), (usize::MAX - 7, 8, beyond), (usize::MAX - 7, 4096, beyond)]
    {
        // SAFETY: nothing is ever made of it: the registration is refused.
        let memory = unsafe { ForeignMemory::from_raw(std::ptr::with_exposed_provenance_mut(address), len) };
        let refused = pd.register_foreign(memory, Access::LOCAL_WRITE).unwrap_err();
        assert_eq!(refused.errno(), errno, "{address:#x} {len}: {refused}");
    }
    let mut held = Held::new(Kind::Anonymous).unwrap();
    held.unmap();
    assert_eq!(held.register(&pd).unwrap_err().errno(), libc::EFAULT);
}

#[test]
fn its_path_is_named_and_its_addresses_are_those_of_the_program() {
    let pd = tbrdma::open("shm").unwrap().alloc_pd().unwrap();
    let bytes = vec![7_u8; 5000].into_boxed_slice();
    let address = bytes.as_ptr().addr() as u64;
    let region = pd.register(bytes, all_access()).unwrap();
    assert_eq!((region.addr(), region.len(), region.path()), (address, 5000, MemoryPath::ProcessVm));
    assert_eq!(pd.alloc(5000, all_access()).unwrap().path(), MemoryPath::Mapped);
    let bytes = region.into_bytes().unwrap();
    assert_eq!((bytes.as_ptr().addr() as u64, bytes.len()), (address, 5000));
    assert!(bytes.iter().all(|byte| *byte == 7));
}

/// Two contexts of this process, each end's memory of a kind.
fn two_contexts(open: &str, kinds: [Kind; 2]) -> Option<[Puppet; 2]> {
    let mut ends = [Puppet::default(), Puppet::default()];
    let mut cards = Vec::new();
    for (end, kind) in ends.iter_mut().zip(kinds) {
        end.run(open);
        let card = end.run(&format!("memory {kind:?}"));
        if let Some(reason) = card.strip_prefix("skip ") {
            skip(format!("{kind:?}: {reason}"));
            return None;
        }
        cards.push(card);
    }
    ends[0].ok(&format!("connect {}", cards[1]));
    ends[1].ok(&format!("connect {}", cards[0]));
    Some(ends)
}

#[test]
fn two_contexts_of_one_process_reach_each_other_s_memory() {
    for kind in Kind::WRITABLE {
        let Some([mut a, mut b]) = two_contexts("open rc", [kind, Kind::Heap]) else { continue };
        for size in [1, 4097, 300_000] {
            let at = FOREIGN - size;
            a.ok(&format!("fill 1 {at} {size}"));
            a.ok(&format!("post write 1 {at} {size} {at}"));
            assert_eq!(a.run("wait"), format!("1 Success RdmaWrite {size} 0"));
            b.ok(&format!("check 1 {at} {size}"));
            b.ok(&format!("fill 2 {at} {size}"));
            b.ok(&format!("post write 2 {at} {size} {at}"));
            assert_eq!(b.run("wait"), format!("2 Success RdmaWrite {size} 0"));
            a.ok(&format!("check 2 {at} {size}"));
            b.ok(&format!("recv 3 0 {size}"));
            a.ok(&format!("post send 4 {at} {size}"));
            assert_eq!(a.run("wait"), format!("4 Success Send {size} 0"));
            assert_eq!(b.run("wait"), format!("3 Success Recv {size} 0"));
            b.ok(&format!("check 2 0 {size}"));
            a.ok(&format!("post read 5 0 {size} 0"));
            assert_eq!(a.run("wait"), format!("5 Success RdmaRead {size} 0"));
            a.ok(&format!("check 2 0 {size}"));
        }
        b.ok("store 64 1");
        a.ok("post faa 6 0 8 64 4");
        assert_eq!(a.run("wait"), "6 Success FetchAdd 8 0");
        assert_eq!((a.run("load 0"), b.run("load 64")), ("1".to_owned(), "5".to_owned()));
        a.ok("canaries");
        b.ok("canaries");
    }
}

#[test]
fn datagrams_of_two_contexts_arrive_in_registered_memory() {
    let Some([mut a, mut b]) = two_contexts("open ud", [Kind::Heap, Kind::Heap]) else { return };
    a.ok("fill 1 0 4096");
    b.ok("recv 1 0 4136");
    a.ok("post send 2 0 4096");
    assert_eq!(a.run("wait"), "2 Success Send 4096 0");
    assert_eq!(b.run("wait"), "1 Success Recv 4136 0");
    b.ok("check 1 40 4096");
}

#[test]
fn a_second_context_of_the_process_may_go_first() {
    for first in [0, 1] {
        let mut ends = [Puppet::default(), Puppet::default()];
        let [a, b] = &mut ends;
        meet(a, b, "open rc");
        ends[first].ok("close");
        let other = &mut ends[1 - first];
        other.ok("post send 1 0 64");
        assert_eq!(other.run("wait"), "1 RetryExcErr Send 0 0");
        // And a new one may come.
        let mut ends = [Puppet::default(), Puppet::default()];
        let [a, b] = &mut ends;
        meet(a, b, "open rc");
        b.ok("recv 1 0 64");
        a.ok("post send 1 0 64");
        assert_eq!(b.run("wait"), "1 Success Recv 64 0");
    }
}
