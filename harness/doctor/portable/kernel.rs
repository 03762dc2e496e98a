//! In place of what only Linux is asked: other systems have no io_uring, and no process that reaches into another.

/// There is none.
pub(super) fn io_uring() -> Option<String> {
    None
}

/// Nobody may.
pub(super) fn process_vm() -> Option<String> {
    None
}

/// There is no such call here.
#[must_use]
pub fn read_process(_pid: i32, _address: usize) -> String {
    "ENOSYS: this system has no process_vm_readv".into()
}
