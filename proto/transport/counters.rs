//! Counters of a queue pair, in the names of rdma_rxe's `hw_counters` where it has them.

/// Defines the counters with their names and their sum, once.
macro_rules! counters {
    ($( $(#[$meta:meta])* $name:ident, )+) => {
        /// What a queue pair has counted since it was made. They wrap at 2^64 and survive a reset.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $( $(#[$meta])* pub $name: u64, )+
        }

        impl Counters {
            /// Names and values, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [ $( (stringify!($name), self.$name), )+ ].into_iter()
            }

            /// Adds those of `other`: of another half, or another queue pair.
            pub const fn merge(&mut self, other: &Self) {
                $( self.$name = self.$name.wrapping_add(other.$name); )+
            }
        }
    };
}

counters! {
    /// Packets sent.
    sent_pkts,
    /// Packets that came and were for this queue pair's service.
    rcvd_pkts,
    /// Requests that had been carried out already.
    duplicate_request,
    /// Requests with a PSN beyond the one expected.
    out_of_seq_request,
    /// Receiver-not-ready NAKs that came.
    rcvd_rnr_err,
    /// Receiver-not-ready NAKs sent.
    send_rnr_err,
    /// PSN sequence error NAKs that came.
    rcvd_seq_err,
    /// PSN sequence error NAKs sent.
    send_seq_err,
    /// Acknowledgements that a later one, or the end of a batch, made unnecessary.
    ack_deferred,
    /// Work requests that failed because `retry_cnt` ran out.
    retry_exceeded_err,
    /// Work requests that failed because `rnr_retry` ran out.
    retry_rnr_exceeded_err,
    /// Times that sending went back to a packet sent before.
    completer_retry_err,
    /// Times the acknowledgement timer ran out.
    ack_timeout_err,
    /// Packets sent again.
    retransmitted_pkts,
    /// Work requests that failed for a local reason before or while they were sent.
    send_err,
    /// NAKs other than for sequence and receiver not ready that came.
    rcvd_nak_err,
    /// NAKs other than for sequence and receiver not ready that were sent.
    send_nak_err,
    /// Packets that came with the network's mark of congestion.
    rcvd_ecn_marked,
    /// Congestion notifications that came.
    rcvd_cnp,
    /// Congestion notifications sent.
    sent_cnp,
    /// Packets dropped because they do not fit the queue pair's state, service, partition or queue key.
    dropped_pkts,
}
