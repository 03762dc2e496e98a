//! What a device asks of a packet before the queue pair it names gets to see it, and the count of what it turned away.
//!
//! The order is that of Linux's rdma_rxe: destination address, shape, queue pair, its service and state, partition key, queue key,
//! addresses, and last the iCRC. [`admit`] judges what lies between the queue pair and the iCRC; the rest is the device's, which
//! counts it here as well. Whatever is turned away is dropped without an answer.

use core::fmt;

use crate::ident::Gid;
use crate::qp::{QpState, QpType};
use crate::wire::{Headers, Service};

/// A queue pair as admission sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QpView {
    /// Its transport service.
    pub qp_type: QpType,
    /// Its state.
    pub state: QpState,
    /// Its partition key.
    pub pkey: u16,
    /// Its queue key; only datagrams have one.
    pub qkey: u32,
    /// Its connected peer's address and its own; only of a connected one.
    pub path: Option<(Gid, Gid)>,
}

/// Defines the reasons with their names, once.
macro_rules! reasons {
    ($( $(#[$meta:meta])* $reason:ident, $name:literal; )+) => {
        /// Why a packet was dropped before a queue pair saw it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $( $(#[$meta])* $reason, )+
        }

        impl DropReason {
            /// All of them, in the order of the checks.
            pub const ALL: &'static [Self] = &[ $( Self::$reason, )+ ];

            /// Its name among the counters.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$reason => $name, )+ }
            }
        }
    };
}

reasons! {
    /// The packet's destination is none of the port's addresses.
    Destination, "dropped_bad_destination";
    /// Its bytes make no packet: too short, an unknown opcode or version, wrong padding.
    Malformed, "dropped_malformed";
    /// No queue pair has the number.
    UnknownQp, "dropped_unknown_qp";
    /// The queue pair is of another service.
    Service, "dropped_wrong_service";
    /// The queue pair is in a state that does not receive such packets.
    State, "dropped_wrong_state";
    /// The partition keys do not match.
    Pkey, "dropped_bad_pkey";
    /// The queue key is wrong.
    Qkey, "dropped_bad_qkey";
    /// The packet is not from the connected peer, or not to the address the queue pair uses.
    Address, "dropped_wrong_peer";
    /// The iCRC is wrong.
    Icrc, "dropped_bad_icrc";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether the queue pair it names gets to see a packet from `source` to `destination`.
///
/// # Errors
/// The first rule broken, in the order of [`DropReason`].
#[inline]
pub fn admit(headers: &Headers, source: &Gid, destination: &Gid, qp: &QpView) -> Result<(), DropReason> {
    let opcode = headers.bth.opcode;
    let service = opcode.service();
    let fits = match qp.qp_type {
        QpType::Rc => matches!(service, Service::Rc | Service::Cnp),
        QpType::Uc => matches!(service, Service::Uc | Service::Cnp),
        QpType::Ud => matches!(service, Service::Ud | Service::Cnp),
    };
    if !fits {
        return Err(DropReason::Service);
    }
    let sends = matches!(qp.state, QpState::Rts | QpState::Sqd | QpState::Sqe);
    let receives = sends || qp.state == QpState::Rtr;
    // An answer has a request before it.
    let is_answer = service == Service::Rc && !opcode.is_request();
    if !(if is_answer { sends } else { receives }) {
        return Err(DropReason::State);
    }
    if !pkeys_match(headers.bth.pkey, qp.pkey) {
        return Err(DropReason::Pkey);
    }
    if opcode.has_deth() && headers.deth.is_none_or(|deth| deth.qkey != qp.qkey) {
        return Err(DropReason::Qkey);
    }
    match qp.path {
        Some((peer, own)) if peer != *source || own != *destination => Err(DropReason::Address),
        _ => Ok(()),
    }
}

/// Whether two partition keys are of the same partition, at least one of them of a full member (IBTA volume 1, section 10.9.3).
#[inline]
pub const fn pkeys_match(one: u16, other: u16) -> bool {
    const FULL: u16 = 1 << 15;
    let partition = one & !FULL;
    partition != 0 && partition == other & !FULL && (one | other) & FULL != 0
}

/// How many packets were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    /// None so far.
    pub const fn new() -> Self {
        Self([0; DropReason::ALL.len()])
    }

    /// Counts one.
    #[inline]
    pub fn count(&mut self, reason: DropReason) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count = count.wrapping_add(1);
        }
    }

    /// How many there were for this reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or_default()
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Names and counts, in the order of the checks.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (reason.name(), self.get(*reason)))
    }
}
