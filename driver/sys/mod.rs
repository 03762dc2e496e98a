//! What the kernel offers, as small safe functions: one file a facility, nothing here knows about verbs.

/// When a process began, which tells it from a later one of its number.
#[cfg_attr(not(tbrdma_linux), path = "portable/birth.rs")]
pub(crate) mod birth;
/// The monotonic clock.
pub(crate) mod clock;
/// The processor's counter of time.
pub(crate) mod counter;
/// Local datagrams between names.
#[cfg(tbrdma_linux)]
pub(crate) mod datagram_socket;
/// Standing interest in descriptors.
#[cfg(tbrdma_linux)]
pub(crate) mod epoll;
/// Event counters which one process rings and another waits for.
#[cfg_attr(not(tbrdma_linux), path = "portable/eventfd.rs")]
pub(crate) mod eventfd;
/// Locks on bytes of a file.
#[cfg(tbrdma_linux)]
pub(crate) mod lock_file;
/// What is mapped where.
#[cfg_attr(not(tbrdma_linux), path = "portable/mapping.rs")]
pub(crate) mod mapping;
/// Sealed anonymous files: the memory two processes share.
#[cfg(tbrdma_linux)]
pub(crate) mod memfd;
/// Changes of network interfaces.
#[cfg(tbrdma_linux)]
pub(crate) mod netlink;
/// Descriptors that stand for processes.
#[cfg(tbrdma_linux)]
pub(crate) mod pidfd;
/// The call that waits for descriptors.
#[cfg_attr(not(tbrdma_linux), path = "portable/poll.rs")]
pub(crate) mod poll;
/// Who we are, who the peer is, and where a thread runs.
pub(crate) mod process;
/// Bytes nobody can guess: keys, tokens, first packet numbers.
pub(crate) mod random;
/// Reads and writes of another process's memory, through the kernel.
#[cfg(tbrdma_linux)]
pub(crate) mod remote_memory;
/// Local datagrams in order, which carry file descriptors.
#[cfg(tbrdma_linux)]
pub(crate) mod socket;
/// Streams of bytes.
pub(crate) mod stream;
#[cfg_attr(not(tbrdma_linux), path = "portable/stream_calls.rs")]
mod stream_calls;
/// The ends of a process that run no destructors.
pub(crate) mod termination;
/// Which threads there are.
#[cfg_attr(not(tbrdma_linux), path = "portable/threads.rs")]
pub(crate) mod threads;
/// Datagram sockets that carry RoCEv2.
#[cfg_attr(not(tbrdma_linux), path = "portable/udp.rs")]
pub(crate) mod udp;
/// Receiving through io_uring.
#[cfg(tbrdma_linux)]
pub(crate) mod uring;
/// Sleeping until a descriptor has something to say.
pub(crate) mod wait;
