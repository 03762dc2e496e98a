//! The threads of this process, which there is no list of here: nothing is known of them.

/// Waits end when the system ends them: there is no wish for it here.
pub(crate) fn wake_sharply() {}

/// One of the library's own threads.
pub(crate) struct OwnThread;

impl OwnThread {
    /// A thread that is about to be started.
    pub(crate) fn announce() -> Self {
        Self
    }

    /// Says that it is the calling thread.
    pub(crate) fn begin(&self) {}
}

/// Is the calling thread the only one of this process, but for the library's own? That cannot be found out.
pub(crate) fn alone() -> bool {
    false
}
