//! The flag sets of verbs: access rights, send flags and completion flags, with libibverbs' values.

use core::fmt;

use bitflags::bitflags;

bitflags! {
    /// What may be done to a memory region, or through a queue pair (`enum ibv_access_flags`).
    ///
    /// Local reading is always allowed and has no flag.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Access: u32 {
        /// The device may write: receive into it, read into it, put an atomic's old value there.
        const LOCAL_WRITE = 1;
        /// A peer may write with RDMA WRITE.
        const REMOTE_WRITE = 1 << 1;
        /// A peer may read with RDMA READ.
        const REMOTE_READ = 1 << 2;
        /// A peer may run compare-and-swap and fetch-and-add.
        const REMOTE_ATOMIC = 1 << 3;
        /// A memory window may be bound to it.
        const MW_BIND = 1 << 4;
        /// Addresses in work requests are offsets from the start of the region.
        const ZERO_BASED = 1 << 5;
        /// Pages are faulted in when used instead of being pinned at registration.
        const ON_DEMAND = 1 << 6;
        /// The memory is backed by huge pages.
        const HUGETLB = 1 << 7;
        /// The device may reorder its accesses; optional, so a device may ignore it.
        const RELAXED_ORDERING = 1 << 20;
    }
}

impl Access {
    /// The bits a device may ignore if it does not know them (`IBV_ACCESS_OPTIONAL_RANGE`): 20 to 29.
    pub const OPTIONAL_RANGE: u32 = 0x3ff0_0000;

    /// The bits that no known flag has and that may not be ignored.
    pub const fn unknown_bits(self) -> u32 {
        self.bits() & !(Self::all().bits() | Self::OPTIONAL_RANGE)
    }

    /// Whether a memory region may be registered with these rights (`ibv_reg_mr(3)`; IBTA volume 1,
    /// section 10.6.3).
    ///
    /// # Errors
    ///
    /// A remote write or atomic right without local write, or a bit that has no meaning here.
    pub const fn validate(self) -> Result<(), AccessFlagsError> {
        let unknown = self.unknown_bits();
        if unknown != 0 {
            return Err(AccessFlagsError::Unknown { access: self, unknown });
        }
        let writes = Self::REMOTE_WRITE.union(Self::REMOTE_ATOMIC);
        if self.intersects(writes) && !self.contains(Self::LOCAL_WRITE) {
            return Err(AccessFlagsError::NeedsLocalWrite { access: self });
        }
        Ok(())
    }
}

/// Access rights that no memory region can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessFlagsError {
    /// A remote party may write, but the owner's own device may not.
    #[error(
        "access rights {access} let a peer write memory that may not be written locally: \
         add LOCAL_WRITE, or drop REMOTE_WRITE and REMOTE_ATOMIC"
    )]
    NeedsLocalWrite {
        /// The rights asked for.
        access: Access,
    },
    /// Bits without a meaning, outside the range that may be ignored.
    #[error(
        "access rights {access} contain unknown bits {unknown:#x}: clear them \
         (only bits 20 to 29 may be set without being understood)"
    )]
    Unknown {
        /// The rights asked for.
        access: Access,
        /// Only the bits that are not understood.
        unknown: u32,
    },
}

bitflags! {
    /// Modifiers of one send work request (`enum ibv_send_flags`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct SendFlags: u32 {
        /// Start only after all earlier RDMA READs and atomics of this queue pair have finished.
        const FENCE = 1;
        /// Produce a completion on success; failures always produce one.
        const SIGNALED = 1 << 1;
        /// Make the peer's completion a solicited one, which wakes a waiter for solicited events.
        const SOLICITED = 1 << 2;
        /// The payload was copied when posting: the caller's buffer is free at once, no key is looked up.
        const INLINE = 1 << 3;
        /// Compute IP and TCP/UDP checksums (raw packets; ignored elsewhere).
        const IP_CSUM = 1 << 4;
    }
}

bitflags! {
    /// Which optional parts of a completion mean something (`enum ibv_wc_flags`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct WcFlags: u32 {
        /// The first 40 bytes of a UD receive hold a global routing header.
        const GRH = 1;
        /// `imm_data` is valid.
        const WITH_IMM = 1 << 1;
        /// The checksums of a raw packet were verified.
        const IP_CSUM_OK = 1 << 2;
        /// `imm_data` holds the key that the peer invalidated.
        const WITH_INV = 1 << 3;
    }
}

/// Prints flags as `NAME | NAME | 0x<unknown bits>`, and `0` for the empty set.
macro_rules! display_flags {
    ($($name:ty),+) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.is_empty() { f.write_str("0") } else { bitflags::parser::to_writer(self, f) }
            }
        }
    )+ };
}

pub(crate) use display_flags;

display_flags!(Access, SendFlags, WcFlags);
