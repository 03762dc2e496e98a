//! The switches: one for each habit by which devices differ. The defaults are those of network cards.

use bitflags::bitflags;

use crate::limits;
use crate::qp::QpType;
use crate::work::Opcode;

/// Defines a choice among named values, with their text.
macro_rules! choices {
    ($(
        $(#[$meta:meta])* $name:ident { $( $(#[$vmeta:meta])* $value:ident = $text:literal ),+ $(,)? }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$vmeta])* $value, )+ }

        impl Value for $name {
            const EXPECTED: &'static str = concat!("one of:" $(, " ", $text)+);

            fn read(text: &str) -> Option<Self> {
                match text { $( $text => Some(Self::$value), )+ _ => None }
            }

            fn write(self) -> String {
                match self { $( Self::$value => $text, )+ }.to_owned()
            }
        }
    )+};
}

/// The value of a switch as text.
pub(super) trait Value: Copy + PartialEq {
    /// What may be written, for those who wrote something else.
    const EXPECTED: &'static str;
    /// Reads it; `None` if it is none.
    fn read(text: &str) -> Option<Self>;
    /// Its text, which reads as itself.
    fn write(self) -> String;
}

choices! {
    /// What becomes of a message on an unreliable connection for which no receive is posted.
    FlowMode {
        /// As network cards do: it is dropped, and the sender's completion is a success all the same. (RC retries after a
        /// receiver-not-ready NAK, whatever this says.)
        #[default]
        Nic = "drop",
        /// It waits at the sender until there is one.
        HoldUc = "hold",
    }

    /// What the depth of a queue counts.
    DepthUnit {
        /// Work requests.
        #[default]
        Requests = "requests",
        /// Frames of [`FRAME_BYTES`](super::FRAME_BYTES): a work request takes as many as its bytes fill, and at least one.
        Frames = "frames",
    }

    /// How a depth in frames is granted.
    DepthRounding {
        /// Up to one less than whole thousands of 1024: ask for 256 and get 1023.
        #[default]
        Up = "up",
        /// One less than asked for: ask for 64 and get 63.
        Off = "off",
        /// As a real device does, which says itself what it has granted.
        Device = "device",
    }

    /// Which receives fit a message.
    Match {
        /// Those that are at least as long.
        #[default]
        Length = "length",
        /// Those that take as many frames as the message and are at least as long; any other completes with a local length error, and
        /// the sender does not learn it.
        Frames = "frames",
    }

    /// What an RDMA WRITE does.
    WriteMode {
        /// It writes.
        #[default]
        Done = "done",
        /// It completes with success, and nothing is written.
        Lost = "lost",
        /// Posting it is refused.
        Refused = "refused",
    }

    /// What becomes of a SEND without bytes.
    EmptySend {
        /// It completes a receive, as any other.
        #[default]
        Delivered = "delivered",
        /// It completes at the sender, and no receiver ever sees it.
        Lost = "lost",
    }

    /// What happens to a work request for which the queue has no room.
    Overrun {
        /// Posting it is refused, with `ENOMEM`.
        #[default]
        Loud = "loud",
        /// Posting it succeeds, and it is lost: it never completes.
        Silent = "silent",
    }

    /// Whether receives may be posted before the queue pair is ready to send.
    EarlyReceive {
        /// From INIT on.
        #[default]
        Allowed = "allowed",
        /// Not before RTS: `EFAULT`.
        Refused = "refused",
    }

    /// Whether memory may be registered with LOCAL_WRITE and no other right.
    LocalOnly {
        /// It may.
        #[default]
        Allowed = "allowed",
        /// It may not: `EINVAL`.
        Refused = "refused",
    }

    /// Whether `max_mr_size` holds.
    MrSize {
        /// A larger region is refused, with `EINVAL`.
        #[default]
        Enforced = "enforced",
        /// It is said, and not enforced.
        Reported = "reported",
    }

    /// Which remote key a region has.
    Rkey {
        /// One by which peers may use it.
        #[default]
        Real = "real",
        /// Zero.
        Zero = "zero",
    }

    /// What happens to a scatter/gather entry that reaches past a multiple of 4 GiB within its region.
    Alias {
        /// Nothing out of the ordinary.
        #[default]
        Off = "off",
        /// Only the low 32 bits of an address reach the device: what lies past the boundary is received elsewhere, and sent from elsewhere.
        /// Elsewhere is a place of the device's own: the emulator damages no memory but what was given to it for this.
        On = "on",
        /// Posting it is refused, with `EINVAL`: for those who want to find such entries.
        Refused = "refused",
    }

    /// Whether the port has an IPv4 address, and so an IPv4-mapped GID at index 1.
    Presence {
        /// As the device has it: a network interface's address; none with shared memory.
        #[default]
        Natural = "natural",
        /// It has one: with shared memory, one of 169.254.0.0/16.
        On = "on",
        /// It has none.
        Off = "off",
    }

    /// Which LID a port has that reaches its peers over IP. With one, an Ethernet port says that it is InfiniBand's, so that programs use it.
    Lids {
        /// None: peers are named by GID. (Shared memory has LIDs of its own, whatever this says.)
        #[default]
        None = "none",
        /// The last two bytes of its IPv4 address; a peer's LID and the first two bytes of ours are the peer's address.
        Ipv4 = "ipv4",
    }

    /// Whether resources of a program that was killed stay taken.
    LedgerMode {
        /// They come back, as they do on Linux.
        #[default]
        Off = "off",
        /// They stay taken, for all programs of this user, until the ledger is cleared.
        On = "on",
    }

    /// How one queue pair too many is refused.
    QpCapError {
        /// `ENOMEM`.
        #[default]
        NoMemory = "enomem",
        /// `EBUSY`.
        Busy = "ebusy",
    }
}

/// Which transport services there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transports {
    /// Reliable connections.
    pub rc: bool,
    /// Unreliable connections.
    pub uc: bool,
    /// Datagrams.
    pub ud: bool,
}

impl Transports {
    /// All of them.
    pub const ALL: Self = Self { rc: true, uc: true, ud: true };

    /// Whether this is one of them.
    pub const fn has(self, qp_type: QpType) -> bool {
        match qp_type {
            QpType::Rc => self.rc,
            QpType::Uc => self.uc,
            QpType::Ud => self.ud,
        }
    }
}

impl Value for Transports {
    const EXPECTED: &'static str = "rc, uc and ud, one or more, joined by +";

    fn read(text: &str) -> Option<Self> {
        let mut read = Self { rc: false, uc: false, ud: false };
        for name in text.split('+') {
            let seen = match name {
                "rc" => &mut read.rc,
                "uc" => &mut read.uc,
                "ud" => &mut read.ud,
                _ => return None,
            };
            if core::mem::replace(seen, true) {
                return None;
            }
        }
        Some(read)
    }

    fn write(self) -> String {
        let names = [(self.rc, "rc"), (self.uc, "uc"), (self.ud, "ud")];
        names.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect::<Vec<_>>().join("+")
    }
}

impl Value for u32 {
    const EXPECTED: &'static str = "a number up to what the device has";

    fn read(text: &str) -> Option<Self> {
        // No sign, no spare zero: a number has one text.
        let digits =
            text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        if digits { text.parse().ok() } else { None }
    }

    fn write(self) -> String {
        self.to_string()
    }
}

/// Defines the switches: the struct, and the table that the text form goes by.
macro_rules! switches {
    ($( $(#[$meta:meta])* $text:literal $field:ident: $kind:ty = $default:expr, at most $most:expr; )+) => {
        /// A device's habits. Each is a switch of the text form, by the name said first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Switches {
            $( #[doc = concat!("`", $text, "`: ")] $(#[$meta])* pub $field: $kind, )+
        }

        impl Default for Switches {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl Switches {
            /// Their names, in the order of the text form.
            pub const NAMES: &'static [&'static str] = &[ $( $text, )+ ];

            /// Sets the switch of this name.
            ///
            /// # Errors
            /// `Err(None)`: there is no such switch. Else what its value may be.
            pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), Option<&'static str>> {
                match name {
                    $( $text => {
                        let read = <$kind>::read(value).filter(|read| within(*read, $most));
                        self.$field = read.ok_or(Some(<$kind>::EXPECTED))?;
                    } )+
                    _ => return Err(None),
                }
                Ok(())
            }

            /// Names and values of those that differ from `base`, in order.
            pub(super) fn differing(&self, base: &Self) -> Vec<(&'static str, String)> {
                let mut differing = Vec::new();
                $( if self.$field != base.$field {
                    differing.push(($text, self.$field.write()));
                } )+
                differing
            }
        }
    };
}

/// Whether a value is within the bound of its switch; only numbers have one.
fn within<T: Value>(value: T, most: Option<u32>) -> bool {
    most.is_none_or(|most| value.write().parse().is_ok_and(|number: u32| (1..=most).contains(&number)))
}

switches! {
    /// the transport services that queue pairs may have; others are refused with `EOPNOTSUPP`.
    "transports" transports: Transports = Transports::ALL, at most None;
    /// what becomes of a UC message for which nothing was posted.
    "flow" flow: FlowMode = FlowMode::Nic, at most None;
    /// what the depth of a queue counts.
    "depth" depth: DepthUnit = DepthUnit::Requests, at most None;
    /// how a depth in frames is granted.
    "rounding" rounding: DepthRounding = DepthRounding::Up, at most None;
    /// what happens beyond that depth.
    "overrun" overrun: Overrun = Overrun::Loud, at most None;
    /// which receives fit a message.
    "match" matching: Match = Match::Length, at most None;
    /// what an RDMA WRITE does.
    "write" write: WriteMode = WriteMode::Done, at most None;
    /// what becomes of a SEND without bytes.
    "empty-send" empty_send: EmptySend = EmptySend::Delivered, at most None;
    /// whether receives may be posted before RTS.
    "early-recv" early_receive: EarlyReceive = EarlyReceive::Allowed, at most None;
    /// whether memory may be registered for local writing alone.
    "local-only-mr" local_only: LocalOnly = LocalOnly::Allowed, at most None;
    /// whether `max_mr_size` holds.
    "mr-size" mr_size: MrSize = MrSize::Enforced, at most None;
    /// which remote key a region has.
    "rkey" rkey: Rkey = Rkey::Real, at most None;
    /// what happens at multiples of 4 GiB.
    "alias-4gib" alias: Alias = Alias::Off, at most None;
    /// whether the port has an IPv4 address.
    "ipv4" ipv4: Presence = Presence::Natural, at most None;
    /// which LID the port has, for programs that name their peers by nothing else.
    "lids" lids: Lids = Lids::None, at most None;
    /// whether resources of the killed stay taken.
    "ledger" ledger: LedgerMode = LedgerMode::Off, at most None;
    /// queue pairs that can really be had, of this device, by all of this process.
    "qps" qps: u32 = limits::MAX_QP, at most Some(limits::MAX_QP);
    /// how one queue pair too many is refused.
    "qp-error" qp_error: QpCapError = QpCapError::NoMemory, at most None;
    /// memory regions, likewise.
    "mrs" mrs: u32 = limits::MAX_MR, at most Some(limits::MAX_MR);
    /// protection domains, likewise.
    "pds" pds: u32 = limits::MAX_PD, at most Some(limits::MAX_PD);
    /// completion queues, likewise.
    "cqs" cqs: u32 = limits::MAX_CQ, at most Some(limits::MAX_CQ);
}

impl Switches {
    /// Those that the transport goes by.
    pub fn habits(&self) -> Habits {
        let mut habits = Habits::empty();
        habits.set(Habits::HOLDS_UC, self.flow == FlowMode::HoldUc);
        habits.set(Habits::MATCHES_FRAMES, self.matching == Match::Frames);
        habits.set(Habits::LOSES_WRITES, self.write == WriteMode::Lost);
        habits.set(Habits::LOSES_EMPTY_SENDS, self.empty_send == EmptySend::Lost);
        habits
    }
}

bitflags! {
    /// The habits that decide what becomes of a message. The default has none.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Habits: u8 {
        /// A UC message waits for its receive: [`FlowMode::HoldUc`].
        const HOLDS_UC = 1;
        /// A message and its receive must take equally many frames: [`Match::Frames`].
        const MATCHES_FRAMES = 1 << 1;
        /// [`WriteMode::Lost`].
        const LOSES_WRITES = 1 << 2;
        /// [`EmptySend::Lost`].
        const LOSES_EMPTY_SENDS = 1 << 3;
    }
}

impl Habits {
    /// Whether a message of `length` bytes fits a receive with room for `room`.
    #[inline]
    pub const fn fits(self, length: u64, room: u64) -> bool {
        length <= room
            && (!self.contains(Self::MATCHES_FRAMES)
                || super::apple::frames(length) == super::apple::frames(room))
    }

    /// Whether the device takes a posted request of `length` bytes, completes it with success, and does nothing.
    #[inline]
    pub const fn loses(self, opcode: Opcode, length: u64) -> bool {
        match opcode {
            Opcode::RdmaWrite | Opcode::RdmaWriteWithImm => self.contains(Self::LOSES_WRITES),
            Opcode::Send | Opcode::SendWithImm => self.contains(Self::LOSES_EMPTY_SENDS) && length == 0,
            _ => false,
        }
    }
}
