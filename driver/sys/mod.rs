//! What the kernel offers, as small safe functions: one file a facility, nothing here knows about verbs.

/// Local datagrams between names.
pub(crate) mod datagram_socket;
/// Event counters which one process rings and another waits for.
pub(crate) mod eventfd;
/// What is mapped where.
pub(crate) mod mapping;
/// Sealed anonymous files: the memory two processes share.
pub(crate) mod memfd;
/// Changes of network interfaces.
pub(crate) mod netlink;
/// Who we are, who the peer is, and where a thread runs.
pub(crate) mod process;
/// Bytes nobody can guess: keys, tokens, first packet numbers.
pub(crate) mod random;
/// Reads and writes of another process's memory, through the kernel.
pub(crate) mod remote_memory;
/// Local datagrams in order, which carry file descriptors.
pub(crate) mod socket;
/// Which threads there are.
pub(crate) mod threads;
/// Datagram sockets that carry RoCEv2.
pub(crate) mod udp;
/// Receiving through io_uring.
pub(crate) mod uring;
/// Sleeping until a descriptor has something to say.
pub(crate) mod wait;
