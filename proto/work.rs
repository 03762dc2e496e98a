//! Work: what an application posts, and what it is told when it is done.

use core::fmt;
use core::ops::Range;

use crate::flags::{Access, SendFlags, WcFlags};
use crate::ident::Qpn;
use crate::raw::raw_enum;

raw_enum! {
    /// The operation of a send work request (`enum ibv_wr_opcode`).
    u32 pub enum Opcode {
        /// Write to the peer's memory; the peer is not told.
        RdmaWrite = 0,
        /// Write to the peer's memory, then complete one of its receives with 32 bits of immediate data.
        RdmaWriteWithImm = 1,
        /// Put a message in the peer's next receive.
        Send = 2,
        /// `Send` with 32 bits of immediate data.
        SendWithImm = 3,
        /// Read the peer's memory into ours.
        RdmaRead = 4,
        /// Compare 8 bytes of the peer's memory, and swap them if equal; the old value comes back.
        AtomicCmpAndSwp = 5,
        /// Add to 8 bytes of the peer's memory; the old value comes back.
        AtomicFetchAndAdd = 6,
        /// Invalidate a local key.
        LocalInv = 7,
        /// Bind a memory window.
        BindMw = 8,
        /// `Send`, invalidating one of the peer's keys before its receive completes.
        SendWithInv = 9,
    }
}

impl Opcode {
    /// What a completion of this operation reports as its opcode.
    #[inline]
    pub const fn wc_opcode(self) -> WcOpcode {
        match self {
            Self::Send | Self::SendWithImm | Self::SendWithInv => WcOpcode::Send,
            Self::RdmaWrite | Self::RdmaWriteWithImm => WcOpcode::RdmaWrite,
            Self::RdmaRead => WcOpcode::RdmaRead,
            Self::AtomicCmpAndSwp => WcOpcode::CompSwap,
            Self::AtomicFetchAndAdd => WcOpcode::FetchAdd,
            Self::LocalInv => WcOpcode::LocalInv,
            Self::BindMw => WcOpcode::BindMw,
        }
    }

    /// Whether the peer needs a posted receive.
    #[inline]
    pub const fn consumes_receive(self) -> bool {
        matches!(self, Self::Send | Self::SendWithImm | Self::SendWithInv | Self::RdmaWriteWithImm)
    }

    /// Whether this is one of the two 8-byte atomics.
    #[inline]
    pub const fn is_atomic(self) -> bool {
        matches!(self, Self::AtomicCmpAndSwp | Self::AtomicFetchAndAdd)
    }

    /// Whether immediate data travels with the message.
    #[inline]
    pub const fn has_imm(self) -> bool {
        matches!(self, Self::SendWithImm | Self::RdmaWriteWithImm)
    }

    /// Whether this is an RDMA WRITE (with or without immediate) or RDMA READ.
    #[inline]
    pub const fn is_rdma(self) -> bool {
        matches!(self, Self::RdmaWrite | Self::RdmaWriteWithImm | Self::RdmaRead)
    }

    /// Whether the scatter/gather list is read and sent, so that the payload could also be inline.
    #[inline]
    pub const fn gathers(self) -> bool {
        matches!(
            self,
            Self::Send | Self::SendWithImm | Self::SendWithInv | Self::RdmaWrite | Self::RdmaWriteWithImm
        )
    }

    /// The right our own regions must grant: `LOCAL_WRITE` where data comes back (reads and atomics).
    #[inline]
    pub const fn local_access_needed(self) -> Access {
        match self {
            Self::RdmaRead | Self::AtomicCmpAndSwp | Self::AtomicFetchAndAdd => Access::LOCAL_WRITE,
            _ => Access::empty(),
        }
    }

    /// The right the peer's region and the peer's queue pair must grant; empty if no remote key is used.
    #[inline]
    pub const fn remote_access_needed(self) -> Access {
        match self {
            Self::RdmaWrite | Self::RdmaWriteWithImm => Access::REMOTE_WRITE,
            Self::RdmaRead => Access::REMOTE_READ,
            Self::AtomicCmpAndSwp | Self::AtomicFetchAndAdd => Access::REMOTE_ATOMIC,
            _ => Access::empty(),
        }
    }
}

raw_enum! {
    /// Which operation completed (`enum ibv_wc_opcode`). Bit 7 is set for receives.
    #[derive(Default)]
    u32 pub enum WcOpcode {
        /// A SEND of any kind.
        #[default]
        Send = 0,
        /// An RDMA WRITE, with or without immediate data.
        RdmaWrite = 1,
        /// An RDMA READ.
        RdmaRead = 2,
        /// A compare-and-swap.
        CompSwap = 3,
        /// A fetch-and-add.
        FetchAdd = 4,
        /// The binding of a memory window.
        BindMw = 5,
        /// A local invalidation.
        LocalInv = 6,
        /// A receive that took a SEND.
        Recv = 128,
        /// A receive that was consumed by an RDMA WRITE with immediate data.
        RecvRdmaWithImm = 129,
    }
}

impl WcOpcode {
    /// Whether the completion is of a receive.
    #[inline]
    pub const fn is_recv(self) -> bool {
        self.raw() & 128 != 0
    }
}

raw_enum! {
    /// How a work request ended (`enum ibv_wc_status`; IBTA volume 1, section 11.6.2).
    ///
    /// [`description`](Self::description) says in one sentence what happened and what usually cures it.
    #[derive(Default)]
    u32 pub enum WcStatus {
        /// It did what was asked.
        #[default]
        Success = 0,
        /// Local length error.
        LocLenErr = 1,
        /// Local queue pair operation error.
        LocQpOpErr = 2,
        /// Local end-to-end context operation error (reliable datagrams only).
        LocEecOpErr = 3,
        /// Local protection error.
        LocProtErr = 4,
        /// Flushed without being carried out.
        WrFlushErr = 5,
        /// Memory window binding error.
        MwBindErr = 6,
        /// The peer's answer made no sense.
        BadRespErr = 7,
        /// Local access error.
        LocAccessErr = 8,
        /// The peer found the request invalid.
        RemInvReqErr = 9,
        /// The peer refused access to its memory.
        RemAccessErr = 10,
        /// The peer could not carry out the request.
        RemOpErr = 11,
        /// The transport retry counter ran out.
        RetryExcErr = 12,
        /// The receiver-not-ready retry counter ran out.
        RnrRetryExcErr = 13,
        /// Local reliable-datagram domain violation.
        LocRddViolErr = 14,
        /// Invalid reliable-datagram request at the peer.
        RemInvRdReqErr = 15,
        /// The peer aborted the operation.
        RemAbortErr = 16,
        /// Invalid end-to-end context number.
        InvEecnErr = 17,
        /// Invalid end-to-end context state.
        InvEecStateErr = 18,
        /// The device failed.
        FatalErr = 19,
        /// The peer did not answer in time.
        RespTimeoutErr = 20,
        /// An error without a better name.
        GeneralErr = 21,
        /// Tag matching error.
        TmErr = 22,
        /// Tag matching: the rendezvous has to be finished by software.
        TmRndvIncomplete = 23,
    }
}

impl WcStatus {
    /// One sentence: what happened, and its usual cause or remedy.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Success => "the operation completed as asked",
            Self::LocLenErr => {
                "the message does not fit: a receive was shorter than the message that came, or a send \
                 exceeds the largest message or, on UD, the path MTU"
            }
            Self::LocQpOpErr => {
                "the local queue pair could not carry the request out: check that opcode, queue pair type \
                 and address handle belong together"
            }
            Self::LocEecOpErr => {
                "the local end-to-end context could not carry the request out (reliable datagrams only)"
            }
            Self::LocProtErr => {
                "a local scatter/gather entry is not covered by its lkey: check the key, the bounds, the \
                 protection domain and, where data comes in, LOCAL_WRITE"
            }
            Self::WrFlushErr => {
                "the request was discarded because the queue pair is in an error state: look for the first \
                 failed completion or event, then reset the queue pair"
            }
            Self::MwBindErr => {
                "the memory window could not be bound: check the region's MW_BIND right, its bounds and \
                 protection domain"
            }
            Self::BadRespErr => "the peer answered with a packet that does not fit the request",
            Self::LocAccessErr => {
                "a local buffer failed its check while an RDMA WRITE with immediate was being received"
            }
            Self::RemInvReqErr => {
                "the peer found the request invalid: the message is longer than its receive, the atomic is \
                 not 8-byte aligned, or the operation is not enabled there"
            }
            Self::RemAccessErr => {
                "the peer refused access to its memory: check the rkey, the bounds, the region's and the \
                 queue pair's remote rights, and that the region is still registered"
            }
            Self::RemOpErr => {
                "the peer could not finish the operation: a receive posted there names memory it may not \
                 use, or its device failed"
            }
            Self::RetryExcErr => {
                "the peer did not acknowledge after all retries: it is gone, its queue pair is not ready to \
                 receive, or the addressing or path is wrong"
            }
            Self::RnrRetryExcErr => {
                "the peer had no receive posted after all retries: post receives earlier, or raise rnr_retry \
                 (7 means for ever)"
            }
            Self::LocRddViolErr => "queue pair and context belong to different reliable-datagram domains",
            Self::RemInvRdReqErr => "the peer found a reliable-datagram request invalid",
            Self::RemAbortErr => "the peer aborted the operation",
            Self::InvEecnErr => "the end-to-end context number is not valid",
            Self::InvEecStateErr => "the end-to-end context is not in a state that allows the request",
            Self::FatalErr => "the device failed: close it and everything made from it, then open it again",
            Self::RespTimeoutErr => "the peer did not answer within the time allowed",
            Self::GeneralErr => "the transport reported an error that no other status describes",
            Self::TmErr => "a tag matching operation failed",
            Self::TmRndvIncomplete => "the rendezvous data has to be fetched by software",
        }
    }
}

impl fmt::Display for WcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())
    }
}

/// One entry of a scatter/gather list (`struct ibv_sge`): `length` bytes at `addr` under `lkey`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sge {
    /// First byte, as an address in the region's own address space (its iova).
    pub addr: u64,
    /// Length in bytes. 0 is no bytes; it never stands for 2^31 as it does in some hardware formats.
    pub length: u32,
    /// The local key of the region.
    pub lkey: u32,
}

/// Where in the peer's memory an operation takes place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RemoteAddr {
    /// First byte, in the address space of the peer's region.
    pub addr: u64,
    /// The remote key of the peer's region.
    pub rkey: u32,
}

/// To whom a UD message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdDestination {
    /// The number this device gave to the address handle.
    pub ah: u32,
    /// The peer's queue pair.
    pub qpn: Qpn,
    /// The queue key the peer expects; with its top bit set, the sender's own key is used instead.
    pub qkey: u32,
}

/// A send work request (`struct ibv_send_wr`), as one entry of a posted batch.
///
/// Its fields lie where those of `struct ibv_send_wr` do, and it has as many bytes. Where C links its lists there are fields that plain work does not need once
/// it is posted. So a list of such work becomes one of C's where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct SendWr {
    /// The application's own number, given back in the completion.
    pub wr_id: u64,
    /// The first of its scatter/gather entries in those of the batch, or with `INLINE` of its bytes in the batch's inline buffer.
    pub first_sge: u32,
    /// The value to compare with, or to add; only for atomics.
    pub compare_add: u64,
    /// How many scatter/gather entries it has, or with `INLINE` how many bytes.
    pub num_sge: u32,
    /// What to do.
    pub opcode: Opcode,
    /// How to do it.
    pub flags: SendFlags,
    /// Immediate data in host order, or the key to invalidate; meaningless for other opcodes.
    pub imm_data: u32,
    /// Where in the peer's memory; meaningless for SEND.
    pub remote: RemoteAddr,
    /// The value to put there if the comparison holds; only for compare-and-swap.
    pub swap: u64,
    /// The destination; needed on UD, ignored elsewhere.
    pub ud: Option<UdDestination>,
}

/// What a BIND_MW asks for (`struct ibv_mw_bind_info`, and `bind_mw` of `struct ibv_send_wr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MwBind {
    /// Key of the window, now or at any time before.
    pub window: u32,
    /// The key that it shall have; only its lowest byte counts, the others are the window's for ever.
    pub rkey: u32,
    /// Key of the region.
    pub lkey: u32,
    /// First byte that the window opens, in the address space of the region.
    pub addr: u64,
    /// How many bytes it opens.
    pub length: u64,
    /// What peers may do; only remote rights and `ZERO_BASED` count.
    pub access: Access,
}

impl MwBind {
    /// What a work request says, whose other fields have other meanings for a BIND_MW.
    pub(crate) const fn of(remote: &RemoteAddr, window: u32, compare_add: u64, swap: u64) -> Self {
        Self {
            window,
            rkey: remote.rkey,
            lkey: swap as u32,
            addr: remote.addr,
            length: compare_add,
            access: Access::from_bits_retain((swap >> 32) as u32),
        }
    }
}

impl SendWr {
    /// Which scatter/gather entries of the batch, or with `INLINE` which bytes of its inline buffer.
    #[inline(always)]
    pub const fn operands(&self) -> Range<usize> {
        let first = self.first_sge as usize;
        first..first.wrapping_add(self.num_sge as usize)
    }

    /// What a [`BindMw`](Opcode::BindMw) asks for.
    pub const fn bind(&self) -> MwBind {
        MwBind::of(&self.remote, self.imm_data, self.compare_add, self.swap)
    }

    /// Makes it a [`BindMw`](Opcode::BindMw) that asks for this. It is kept in the fields that other operations use otherwise.
    pub const fn set_bind(&mut self, bind: &MwBind) {
        self.opcode = Opcode::BindMw;
        self.remote = RemoteAddr { addr: bind.addr, rkey: bind.rkey };
        self.imm_data = bind.window;
        self.compare_add = bind.length;
        self.swap = bind.lkey as u64 | (bind.access.bits() as u64) << 32;
    }
}

/// A completion (`struct ibv_wc`).
///
/// If `status` is not [`WcStatus::Success`], only `wr_id`, `status`, `qp_num` and `vendor_err` mean something
/// (`ibv_poll_cq(3)`); `wq_index` always does.
///
/// Its fields lie as those of `struct ibv_wc` do, so that what an adapter's library gives is copied in a few moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WorkCompletion {
    /// The number the application gave to the work request.
    pub wr_id: u64,
    /// How it ended.
    pub status: WcStatus,
    /// What it was.
    pub opcode: WcOpcode,
    /// A device's own error code; 0 if it has none.
    pub vendor_err: u32,
    /// Bytes received, read, or returned by an atomic. Includes the 40-byte GRH area of a UD receive.
    pub byte_len: u32,
    /// Immediate data in host order, or the key that was invalidated; see `wc_flags`.
    pub imm_data: u32,
    /// The local queue pair.
    pub qp_num: Qpn,
    /// The peer's queue pair; only for UD receives.
    pub src_qp: Qpn,
    /// Which optional fields mean something.
    pub wc_flags: WcFlags,
    /// Index of the partition key; only for management queue pairs.
    pub pkey_index: u16,
    /// The sender's LID; only for UD receives.
    pub slid: u16,
    /// The service level; only for UD receives.
    pub sl: u8,
    /// Path bits of the destination LID; only for UD receives.
    pub dlid_path_bits: u8,
    /// The running number of the work request in its work queue, wrapping at 2^32. With it the API hands
    /// back the buffers lent to that request and to the unsignaled ones before it. An adapter numbers nothing: there only
    /// work to which buffers were lent has a number, and other work has 0.
    pub wq_index: u32,
}

impl WorkCompletion {
    /// The completion itself if it succeeded.
    ///
    /// # Errors
    ///
    /// The failure as a value that prints which request of which queue pair failed, how, and the usual cure.
    #[inline]
    pub fn ok(&self) -> Result<&Self, CompletionError> {
        if self.status == WcStatus::Success {
            return Ok(self);
        }
        Err(CompletionError {
            wr_id: self.wr_id,
            qp_num: self.qp_num,
            opcode: self.opcode,
            status: self.status,
            vendor_err: self.vendor_err,
        })
    }
}

/// A work request that failed, or was flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "work request {wr_id} ({opcode:?}) on queue pair {qp_num} failed with {status:?} \
     (status {}, vendor error {vendor_err:#x}): {status}", .status.raw()
)]
pub struct CompletionError {
    /// The number the application gave to the work request.
    pub wr_id: u64,
    /// The local queue pair.
    pub qp_num: Qpn,
    /// What it was. Devices may not fill this in for failures; then it is the default.
    pub opcode: WcOpcode,
    /// How it ended.
    pub status: WcStatus,
    /// A device's own error code; 0 if it has none.
    pub vendor_err: u32,
}
