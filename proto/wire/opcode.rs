//! The opcode of a base transport header: which service, which operation, which part of a message, which headers follow.

use core::fmt;

use crate::qp::QpType;
use crate::work::Opcode;

/// The transport service a packet belongs to: the upper three bits of its opcode (IBTA volume 1, section 9.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Reliable connection.
    Rc,
    /// Unreliable connection.
    Uc,
    /// Unreliable datagram.
    Ud,
    /// A congestion notification (RoCEv2 annex A17.9.3), which belongs to no service.
    Cnp,
}

/// What a packet is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A SEND, also with immediate data or an invalidation.
    Send,
    /// An RDMA WRITE, also with immediate data.
    Write,
    /// A request to read.
    ReadRequest,
    /// The bytes read.
    ReadResponse,
    /// A positive or negative acknowledgement.
    Acknowledge,
    /// An atomic's old value.
    AtomicAcknowledge,
    /// Compare and swap.
    CompareSwap,
    /// Fetch and add.
    FetchAdd,
    /// A congestion notification.
    Congestion,
    /// A question for receives: of tbrdma's own, see `transport/responder/grants.rs`.
    CreditRequest,
    /// Its answer.
    Credit,
}

/// Defines the opcodes with what each means, once.
macro_rules! opcodes {
    ($( $(#[$meta:meta])* $name:ident = $value:literal, $text:literal, $service:ident, $operation:ident, [$($flag:ident)*]; )+) => {
        /// The opcode of a packet (IBTA volume 1, table 38), of those services and operations that tbrdma speaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum PacketOpcode {
            $( $(#[$meta])* $name = $value, )+
        }

        impl PacketOpcode {
            /// Every opcode, in ascending numeric order.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// The opcode with this number on the wire, or `None` if tbrdma speaks none such.
            #[inline]
            pub const fn from_raw(raw: u8) -> Option<Self> {
                match raw { $( $value => Some(Self::$name), )+ _ => None }
            }

            /// The service.
            #[inline]
            pub const fn service(self) -> Service {
                match self { $( Self::$name => Service::$service, )+ }
            }

            /// The operation.
            #[inline]
            pub const fn operation(self) -> Operation {
                match self { $( Self::$name => Operation::$operation, )+ }
            }

            #[inline]
            pub(super) const fn flags(self) -> u16 {
                match self { $( Self::$name => 0 $( | $flag )*, )+ }
            }

            /// The name, as rdma-core has it: `"RC SEND_ONLY_WITH_IMMEDIATE"`.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }
        }
    };
}

const FIRST: u16 = 1;
const LAST: u16 = 1 << 1;
const IMM: u16 = 1 << 2;
const INV: u16 = 1 << 3;
const RETH: u16 = 1 << 4;
pub(super) const AETH: u16 = 1 << 5;
const ATOMIC: u16 = 1 << 6;
const ATOMIC_ACK: u16 = 1 << 7;
const DETH: u16 = 1 << 8;
/// Bytes that say nothing follow.
const RESERVED: u16 = 1 << 9;
/// Those that say that a header follows the base header.
pub(super) const EXTENDED: u16 = IMM | INV | RETH | AETH | ATOMIC | ATOMIC_ACK | DETH | RESERVED;

opcodes! {
    /// RC SEND First.
    RcSendFirst = 0x00, "RC SEND_FIRST", Rc, Send, [FIRST];
    /// RC SEND Middle.
    RcSendMiddle = 0x01, "RC SEND_MIDDLE", Rc, Send, [];
    /// RC SEND Last.
    RcSendLast = 0x02, "RC SEND_LAST", Rc, Send, [LAST];
    /// RC SEND Last with Immediate.
    RcSendLastWithImm = 0x03, "RC SEND_LAST_WITH_IMMEDIATE", Rc, Send, [LAST IMM];
    /// RC SEND Only.
    RcSendOnly = 0x04, "RC SEND_ONLY", Rc, Send, [FIRST LAST];
    /// RC SEND Only with Immediate.
    RcSendOnlyWithImm = 0x05, "RC SEND_ONLY_WITH_IMMEDIATE", Rc, Send, [FIRST LAST IMM];
    /// RC RDMA WRITE First.
    RcWriteFirst = 0x06, "RC RDMA_WRITE_FIRST", Rc, Write, [FIRST RETH];
    /// RC RDMA WRITE Middle.
    RcWriteMiddle = 0x07, "RC RDMA_WRITE_MIDDLE", Rc, Write, [];
    /// RC RDMA WRITE Last.
    RcWriteLast = 0x08, "RC RDMA_WRITE_LAST", Rc, Write, [LAST];
    /// RC RDMA WRITE Last with Immediate.
    RcWriteLastWithImm = 0x09, "RC RDMA_WRITE_LAST_WITH_IMMEDIATE", Rc, Write, [LAST IMM];
    /// RC RDMA WRITE Only.
    RcWriteOnly = 0x0a, "RC RDMA_WRITE_ONLY", Rc, Write, [FIRST LAST RETH];
    /// RC RDMA WRITE Only with Immediate.
    RcWriteOnlyWithImm = 0x0b, "RC RDMA_WRITE_ONLY_WITH_IMMEDIATE", Rc, Write, [FIRST LAST RETH IMM];
    /// RC RDMA READ Request.
    RcReadRequest = 0x0c, "RC RDMA_READ_REQUEST", Rc, ReadRequest, [FIRST LAST RETH];
    /// RC RDMA READ Response First.
    RcReadResponseFirst = 0x0d, "RC RDMA_READ_RESPONSE_FIRST", Rc, ReadResponse, [FIRST AETH];
    /// RC RDMA READ Response Middle.
    RcReadResponseMiddle = 0x0e, "RC RDMA_READ_RESPONSE_MIDDLE", Rc, ReadResponse, [];
    /// RC RDMA READ Response Last.
    RcReadResponseLast = 0x0f, "RC RDMA_READ_RESPONSE_LAST", Rc, ReadResponse, [LAST AETH];
    /// RC RDMA READ Response Only.
    RcReadResponseOnly = 0x10, "RC RDMA_READ_RESPONSE_ONLY", Rc, ReadResponse, [FIRST LAST AETH];
    /// RC Acknowledge.
    RcAcknowledge = 0x11, "RC ACKNOWLEDGE", Rc, Acknowledge, [FIRST LAST AETH];
    /// RC ATOMIC Acknowledge.
    RcAtomicAcknowledge = 0x12, "RC ATOMIC_ACKNOWLEDGE", Rc, AtomicAcknowledge, [FIRST LAST AETH ATOMIC_ACK];
    /// RC CmpSwap.
    RcCompareSwap = 0x13, "RC COMPARE_SWAP", Rc, CompareSwap, [FIRST LAST ATOMIC];
    /// RC FetchAdd.
    RcFetchAdd = 0x14, "RC FETCH_ADD", Rc, FetchAdd, [FIRST LAST ATOMIC];
    /// RC SEND Last with Invalidate.
    RcSendLastWithInv = 0x16, "RC SEND_LAST_WITH_INVALIDATE", Rc, Send, [LAST INV];
    /// RC SEND Only with Invalidate.
    RcSendOnlyWithInv = 0x17, "RC SEND_ONLY_WITH_INVALIDATE", Rc, Send, [FIRST LAST INV];
    /// UC SEND First.
    UcSendFirst = 0x20, "UC SEND_FIRST", Uc, Send, [FIRST];
    /// UC SEND Middle.
    UcSendMiddle = 0x21, "UC SEND_MIDDLE", Uc, Send, [];
    /// UC SEND Last.
    UcSendLast = 0x22, "UC SEND_LAST", Uc, Send, [LAST];
    /// UC SEND Last with Immediate.
    UcSendLastWithImm = 0x23, "UC SEND_LAST_WITH_IMMEDIATE", Uc, Send, [LAST IMM];
    /// UC SEND Only.
    UcSendOnly = 0x24, "UC SEND_ONLY", Uc, Send, [FIRST LAST];
    /// UC SEND Only with Immediate.
    UcSendOnlyWithImm = 0x25, "UC SEND_ONLY_WITH_IMMEDIATE", Uc, Send, [FIRST LAST IMM];
    /// UC RDMA WRITE First.
    UcWriteFirst = 0x26, "UC RDMA_WRITE_FIRST", Uc, Write, [FIRST RETH];
    /// UC RDMA WRITE Middle.
    UcWriteMiddle = 0x27, "UC RDMA_WRITE_MIDDLE", Uc, Write, [];
    /// UC RDMA WRITE Last.
    UcWriteLast = 0x28, "UC RDMA_WRITE_LAST", Uc, Write, [LAST];
    /// UC RDMA WRITE Last with Immediate.
    UcWriteLastWithImm = 0x29, "UC RDMA_WRITE_LAST_WITH_IMMEDIATE", Uc, Write, [LAST IMM];
    /// UC RDMA WRITE Only.
    UcWriteOnly = 0x2a, "UC RDMA_WRITE_ONLY", Uc, Write, [FIRST LAST RETH];
    /// UC RDMA WRITE Only with Immediate.
    UcWriteOnlyWithImm = 0x2b, "UC RDMA_WRITE_ONLY_WITH_IMMEDIATE", Uc, Write, [FIRST LAST RETH IMM];
    /// UD SEND Only.
    UdSendOnly = 0x64, "UD SEND_ONLY", Ud, Send, [FIRST LAST DETH];
    /// UD SEND Only with Immediate.
    UdSendOnlyWithImm = 0x65, "UD SEND_ONLY_WITH_IMMEDIATE", Ud, Send, [FIRST LAST DETH IMM];
    /// Congestion notification packet.
    Cnp = 0x81, "CNP", Cnp, Congestion, [RESERVED];
    /// "How many messages may I send you?", and how many were sent so far as immediate data. In the range that table 38 leaves to manufacturers.
    UcCreditRequest = 0xc0, "UC CREDIT_REQUEST", Uc, CreditRequest, [FIRST LAST IMM];
    /// "So many since we were connected."
    UcCredit = 0xc1, "UC CREDIT", Uc, Credit, [FIRST LAST IMM];
}

impl PacketOpcode {
    /// The opcode of a part of a SEND or WRITE.
    #[inline]
    pub const fn of_message(qp_type: QpType, opcode: Opcode, first: bool, last: bool) -> Self {
        match (qp_type, opcode, first, last) {
            (QpType::Ud, Opcode::SendWithImm, ..) => Self::UdSendOnlyWithImm,
            (QpType::Ud, ..) => Self::UdSendOnly,
            (QpType::Rc, Opcode::RdmaWrite | Opcode::RdmaWriteWithImm, true, false) => Self::RcWriteFirst,
            (QpType::Rc, Opcode::RdmaWrite | Opcode::RdmaWriteWithImm, false, false) => Self::RcWriteMiddle,
            (QpType::Rc, Opcode::RdmaWrite, false, true) => Self::RcWriteLast,
            (QpType::Rc, Opcode::RdmaWrite, true, true) => Self::RcWriteOnly,
            (QpType::Rc, Opcode::RdmaWriteWithImm, false, true) => Self::RcWriteLastWithImm,
            (QpType::Rc, Opcode::RdmaWriteWithImm, true, true) => Self::RcWriteOnlyWithImm,
            (QpType::Rc, Opcode::SendWithImm, false, true) => Self::RcSendLastWithImm,
            (QpType::Rc, Opcode::SendWithImm, true, true) => Self::RcSendOnlyWithImm,
            (QpType::Rc, Opcode::SendWithInv, false, true) => Self::RcSendLastWithInv,
            (QpType::Rc, Opcode::SendWithInv, true, true) => Self::RcSendOnlyWithInv,
            (QpType::Rc, _, true, false) => Self::RcSendFirst,
            (QpType::Rc, _, false, false) => Self::RcSendMiddle,
            (QpType::Rc, _, false, true) => Self::RcSendLast,
            (QpType::Rc, _, true, true) => Self::RcSendOnly,
            (QpType::Uc, Opcode::RdmaWrite | Opcode::RdmaWriteWithImm, true, false) => Self::UcWriteFirst,
            (QpType::Uc, Opcode::RdmaWrite | Opcode::RdmaWriteWithImm, false, false) => Self::UcWriteMiddle,
            (QpType::Uc, Opcode::RdmaWrite, false, true) => Self::UcWriteLast,
            (QpType::Uc, Opcode::RdmaWrite, true, true) => Self::UcWriteOnly,
            (QpType::Uc, Opcode::RdmaWriteWithImm, false, true) => Self::UcWriteLastWithImm,
            (QpType::Uc, Opcode::RdmaWriteWithImm, true, true) => Self::UcWriteOnlyWithImm,
            (QpType::Uc, Opcode::SendWithImm, false, true) => Self::UcSendLastWithImm,
            (QpType::Uc, Opcode::SendWithImm, true, true) => Self::UcSendOnlyWithImm,
            (QpType::Uc, _, true, false) => Self::UcSendFirst,
            (QpType::Uc, _, false, false) => Self::UcSendMiddle,
            (QpType::Uc, _, false, true) => Self::UcSendLast,
            (QpType::Uc, _, true, true) => Self::UcSendOnly,
        }
    }

    /// The opcode of a part of the answer to a READ.
    #[inline]
    pub const fn of_read_response(first: bool, last: bool) -> Self {
        match (first, last) {
            (true, true) => Self::RcReadResponseOnly,
            (true, false) => Self::RcReadResponseFirst,
            (false, true) => Self::RcReadResponseLast,
            (false, false) => Self::RcReadResponseMiddle,
        }
    }

    /// The number on the wire.
    #[inline]
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// Whether it begins a message, or is all of one.
    #[inline]
    pub const fn is_first(self) -> bool {
        self.flags() & FIRST != 0
    }

    /// Whether it ends a message, or is all of one.
    #[inline]
    pub const fn is_last(self) -> bool {
        self.flags() & LAST != 0
    }

    /// Whether immediate data follows.
    #[inline]
    pub const fn has_imm(self) -> bool {
        self.flags() & IMM != 0
    }

    /// Whether a key to invalidate (IETH) follows.
    #[inline]
    pub const fn has_ieth(self) -> bool {
        self.flags() & INV != 0
    }

    /// Whether an RDMA header (RETH) follows.
    #[inline]
    pub const fn has_reth(self) -> bool {
        self.flags() & RETH != 0
    }

    /// Whether an acknowledgement header (AETH) follows.
    #[inline]
    pub const fn has_aeth(self) -> bool {
        self.flags() & AETH != 0
    }

    /// Whether an atomic header (AtomicETH) follows.
    #[inline]
    pub const fn has_atomic_eth(self) -> bool {
        self.flags() & ATOMIC != 0
    }

    /// Whether an atomic's answer (AtomicAckETH) follows.
    #[inline]
    pub const fn has_atomic_ack_eth(self) -> bool {
        self.flags() & ATOMIC_ACK != 0
    }

    /// Whether a datagram header (DETH) follows.
    #[inline]
    pub const fn has_deth(self) -> bool {
        self.flags() & DETH != 0
    }

    /// Whether a responder gets it: it asks for something. What is not a request goes to the requester; a CNP to neither.
    #[inline]
    pub const fn is_request(self) -> bool {
        !matches!(
            self.operation(),
            Operation::ReadResponse
                | Operation::Acknowledge
                | Operation::AtomicAcknowledge
                | Operation::Congestion
                | Operation::Credit
        )
    }
}

impl fmt::Display for PacketOpcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
