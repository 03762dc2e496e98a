//! System calls taken away from a process for good, as containers do. Only for children.
#![allow(dead_code, reason = "each test file uses its own part")]

use nix::libc::{self, c_long};

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn step(code: u16, operand: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k: operand }
}

/// A program that gives one answer to the calls listed and another to all others.
fn program(calls: &[c_long], listed: u32, others: u32) -> Vec<libc::sock_filter> {
    // The call's number is the first word of what the filter looks at.
    let mut steps = vec![step(LOAD_WORD, 0)];
    for &call in calls {
        steps.push(libc::sock_filter { jf: 1, ..step(JUMP_IF_EQUAL, call as u32) });
        steps.push(step(RETURN, listed));
    }
    steps.push(step(RETURN, others));
    steps
}

/// Puts a filter on the calling thread and the threads it starts.
fn install(mut steps: Vec<libc::sock_filter>) -> std::io::Result<()> {
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let (on, off): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the call takes plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, off, off, off) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: `program` and its steps live through the call, and the kernel copies them.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Makes these calls fail with EPERM.
pub(crate) fn deny(calls: &[c_long]) -> std::io::Result<()> {
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    install(program(calls, refuse, libc::SECCOMP_RET_ALLOW))
}

/// Ends the process at any call but these.
pub(crate) fn allow_only(calls: &[c_long]) -> std::io::Result<()> {
    install(program(calls, libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS))
}

/// Takes away every way into another process' memory.
pub(crate) fn forbid_foreign_memory() -> std::io::Result<()> {
    deny(&[libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_ptrace])
}
