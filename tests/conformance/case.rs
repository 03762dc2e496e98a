//! What a case is: a statement of the specification, where it stands, what it needs of a device, and the function that checks it.

use std::fmt;

/// What the suite is divided into: the rows of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Objects, what holds what, and what becomes of them.
    Objects,
    /// The states of a queue pair and the ways between them.
    States,
    /// Messages on reliable connections.
    Rc,
    /// Messages on unreliable connections.
    Uc,
    /// Datagrams.
    Ud,
    /// Shared receive queues.
    Srq,
    /// The 8-byte atomics.
    Atomics,
    /// Completion queues, channels and asynchronous events.
    Completions,
    /// Regions: bounds, rights, domains, addresses.
    Memory,
    /// Errors, retries and flushing.
    Errors,
    /// How much there is of everything.
    Limits,
    /// Inline bytes and lists of every shape.
    Shapes,
    /// Order of work requests, and the fence.
    Ordering,
    /// Memory windows, and keys that are taken back.
    Windows,
}

impl Area {
    /// All areas, in the order of the table.
    pub const ALL: [Self; 14] = [
        Self::Objects,
        Self::States,
        Self::Rc,
        Self::Uc,
        Self::Ud,
        Self::Srq,
        Self::Atomics,
        Self::Completions,
        Self::Memory,
        Self::Errors,
        Self::Limits,
        Self::Shapes,
        Self::Ordering,
        Self::Windows,
    ];
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Objects => "objects and their lifetimes",
            Self::States => "queue pair states",
            Self::Rc => "RC",
            Self::Uc => "UC",
            Self::Ud => "UD",
            Self::Srq => "SRQ",
            Self::Atomics => "atomics",
            Self::Completions => "CQ and events",
            Self::Memory => "memory",
            Self::Errors => "errors and flushing",
            Self::Limits => "limits",
            Self::Shapes => "inline and SGE shapes",
            Self::Ordering => "ordering and fence",
            Self::Windows => "memory windows",
        })
    }
}

/// Something that not every device has. What a device lacks, it says: in its attributes, or in `declared.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Reliable connections.
    Rc,
    /// Unreliable connections.
    Uc,
    /// Datagrams.
    Ud,
    /// Shared receive queues.
    Srq,
    /// Atomics on reliable connections.
    Atomics,
    /// Memory windows of both types.
    Windows,
    /// SEND with invalidate and LOCAL_INV.
    Invalidate,
    /// Completion queues whose size can be changed.
    ResizeCq,
    /// Regions that can be registered again under other rights, another domain or with other memory.
    Rereg,
    /// Regions under addresses of the caller's choice.
    Iova,
    /// Paging on demand.
    OnDemandPaging,
    /// A port with a LID.
    Lid,
    /// A completion queue as deep as was asked for: one completion more is an overrun.
    CqOverrun,
    /// Limits that a process can reach in a second or two.
    ReachableLimits,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rc => "reliable connections",
            Self::Uc => "unreliable connections",
            Self::Ud => "datagrams",
            Self::Srq => "shared receive queues",
            Self::Atomics => "atomics",
            Self::Windows => "memory windows",
            Self::Invalidate => "keys taken back by work requests",
            Self::ResizeCq => "completion queues that can be resized",
            Self::Rereg => "regions that can be registered again",
            Self::Iova => "addresses of the caller's choice",
            Self::OnDemandPaging => "paging on demand",
            Self::Lid => "LIDs",
            Self::CqOverrun => "completion queues that can overrun",
            Self::ReachableLimits => "limits that a process can reach",
        })
    }
}

/// A case of the suite.
#[derive(Debug)]
pub struct Case {
    /// What it belongs to.
    pub area: Area,
    /// The file it is in, as a path of modules.
    pub module: &'static str,
    /// The function's name.
    pub function: &'static str,
    /// What must be so.
    pub statement: &'static str,
    /// Where that is said: the InfiniBand specification, volume 1, by section, or a man page of rdma-core.
    pub source: &'static str,
    /// What it needs of the device.
    pub needs: &'static [Need],
    /// Whether the two parties may be in different processes.
    pub two_party: bool,
    /// Whether it sends what nobody sends again: it runs when no others open and close devices.
    pub unacknowledged: bool,
    /// Checks it: panics where it is not so.
    pub run: fn(),
}

impl Case {
    /// `module::function`.
    pub fn name(&self) -> String {
        let module = self.module.rsplit("::").next().unwrap_or_default();
        format!("{module}::{}", self.function)
    }
}

/// The cases of a file: groups of an area, with the source that a group's cases have unless they name their own. What a case needs stands behind its statement; `as` marks one that
/// is for two parties, or sends what nobody sends again.
macro_rules! cases {
    ($($area:ident by $group:literal {
        $($function:ident: $statement:literal
            $(, by $own:literal)? $(, needs [$($need:ident),+])? $(as $flag:ident)*;)+
    })+) => {
        /// The cases of this file.
        pub(crate) const CASES: &[crate::case::Case] = &[$($(crate::case::Case {
            area: crate::case::Area::$area,
            module: module_path!(),
            function: stringify!($function),
            statement: $statement,
            source: cases!(@source $group $($own)?),
            needs: &[$($(crate::case::Need::$need),+)?],
            two_party: cases!(@has two_party $($flag)*),
            unacknowledged: cases!(@has unacknowledged $($flag)*),
            run: $function,
        }),+),+];
    };
    (@source $group:literal) => { $group };
    (@source $group:literal $own:literal) => { $own };
    (@has two_party two_party $($rest:ident)*) => { true };
    (@has unacknowledged unacknowledged $($rest:ident)*) => { true };
    (@has $wanted:ident $other:ident $($rest:ident)*) => { cases!(@has $wanted $($rest)*) };
    (@has $wanted:ident) => { false };
}

pub(crate) use cases;
