//! The threads of this process. Only adoption of memory asks for them, and there is none here: nothing is kept.

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
