//! Asynchronous events: what a device reports that belongs to no single work request.

use core::fmt;

use crate::raw::raw_enum;

raw_enum! {
    /// The kind of an asynchronous event (`enum ibv_event_type`; IBTA volume 1, section 11.6.3).
    u32 pub enum AsyncEventKind {
        /// A completion queue overflowed or failed.
        CqErr = 0,
        /// A queue pair failed, and could not report it in a completion.
        QpFatal = 1,
        /// A responder got a request it cannot accept.
        QpReqErr = 2,
        /// A responder got a request that violates memory protection.
        QpAccessErr = 3,
        /// A packet came to a queue pair that is ready to receive but not yet to send.
        CommEst = 4,
        /// The send queue is drained.
        SqDrained = 5,
        /// The connection moved to its alternate path.
        PathMig = 6,
        /// The connection could not move to its alternate path.
        PathMigErr = 7,
        /// The device failed.
        DeviceFatal = 8,
        /// The port came up.
        PortActive = 9,
        /// The port went down.
        PortErr = 10,
        /// The port's LID changed.
        LidChange = 11,
        /// The port's partition key table changed.
        PkeyChange = 12,
        /// The subnet manager changed.
        SmChange = 13,
        /// A shared receive queue failed.
        SrqErr = 14,
        /// A shared receive queue fell below its limit.
        SrqLimitReached = 15,
        /// A queue pair in error took its last entry from a shared receive queue.
        QpLastWqeReached = 16,
        /// The subnet manager asks for registrations to be made again.
        ClientReregister = 17,
        /// The port's GID table changed.
        GidChange = 18,
        /// A work queue failed.
        WqFatal = 19,
    }
}

impl AsyncEventKind {
    /// One sentence: what happened, and what to do.
    pub const fn description(self) -> &'static str {
        match self {
            Self::CqErr => {
                "the completion queue overflowed or failed: completions are lost, so destroy its queue pairs \
                 and create a larger queue"
            }
            Self::QpFatal => "the queue pair failed and went to the error state: reset or destroy it",
            Self::QpReqErr => {
                "a request came that the queue pair cannot accept; it went to the error state: check that \
                 the peer's operations, lengths and read depth agree with this side's"
            }
            Self::QpAccessErr => {
                "a request violated memory protection; the queue pair went to the error state: check the \
                 keys, bounds and rights the peer was given"
            }
            Self::CommEst => "the peer is already sending: the queue pair may go from RTR to RTS",
            Self::SqDrained => "the send queue is drained: attributes may be changed, then go back to RTS",
            Self::PathMig => "the connection moved to its alternate path: load a new alternate path",
            Self::PathMigErr => "the connection could not move to its alternate path: check that path",
            Self::DeviceFatal => {
                "the device failed and all its queue pairs with it: close everything made \
                 from it, then open it again"
            }
            Self::PortActive => "the port came up: work can flow",
            Self::PortErr => "the port went down: work fails or waits until it comes up again",
            Self::LidChange => "the port's LID changed: exchange addresses again",
            Self::PkeyChange => "the port's partition keys changed: check pkey_index of queue pairs",
            Self::SmChange => "the subnet manager changed: subscribe to its services again",
            Self::SrqErr => "the shared receive queue failed: destroy its queue pairs, then the queue",
            Self::SrqLimitReached => {
                "the shared receive queue fell below its limit: post receives and arm the limit again"
            }
            Self::QpLastWqeReached => {
                "the queue pair in error will take no more from its shared receive queue: it may be destroyed"
            }
            Self::ClientReregister => "the subnet manager asks to make all registrations again",
            Self::GidChange => "the port's GIDs changed: look up sgid_index again and exchange addresses",
            Self::WqFatal => "the work queue failed: reset or destroy it",
        }
    }
}

impl fmt::Display for AsyncEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}
