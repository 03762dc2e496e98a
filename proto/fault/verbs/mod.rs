//! Faults of a device, as a program meets them in verbs: a plan, and the plan in action.
//!
//! What goes wrong on a link, a transport may hide; these it cannot. The plan is a value with a text form; [`VerbsFaults`] is asked at each call, each
//! work request and each completion, and what it answers follows from plan, seed and the order of the questions.

mod action;
mod text;

pub use action::VerbsFaults;

use super::Chance;
use crate::event::AsyncEventKind;
use crate::work::WcStatus;
use core::time::Duration;

/// Which of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The Nth, counted from 1.
    Nth(u64),
    /// Each with this chance.
    Each(Chance),
}

/// When something happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// When the Nth call is made, counted from 1: see [`VerbsFaults::called`].
    Call(u64),
    /// So long after the program has opened its first device.
    After(Duration),
}

/// What happens of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// An asynchronous event.
    Event(AsyncEventKind),
    /// The devices are taken away.
    Removal,
}

/// A call that makes something, and that a device may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerbsCall {
    /// `ibv_open_device`.
    OpenDevice,
    /// `ibv_alloc_pd`.
    AllocPd,
    /// `ibv_reg_mr` and its kin.
    RegMr,
    /// `ibv_create_comp_channel`.
    CreateCompChannel,
    /// `ibv_create_cq`, `ibv_create_cq_ex`.
    CreateCq,
    /// `ibv_create_srq`, `ibv_create_srq_ex`.
    CreateSrq,
    /// `ibv_create_qp`, `ibv_create_qp_ex`.
    CreateQp,
    /// `ibv_create_ah`.
    CreateAh,
    /// `ibv_alloc_mw`.
    AllocMw,
    /// `ibv_modify_qp`.
    ModifyQp,
}

impl VerbsCall {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::OpenDevice,
        Self::AllocPd,
        Self::RegMr,
        Self::CreateCompChannel,
        Self::CreateCq,
        Self::CreateSrq,
        Self::CreateQp,
        Self::CreateAh,
        Self::AllocMw,
        Self::ModifyQp,
    ];

    /// Its name in a plan: the function's, without `ibv_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenDevice => "open_device",
            Self::AllocPd => "alloc_pd",
            Self::RegMr => "reg_mr",
            Self::CreateCompChannel => "create_comp_channel",
            Self::CreateCq => "create_cq",
            Self::CreateSrq => "create_srq",
            Self::CreateQp => "create_qp",
            Self::CreateAh => "create_ah",
            Self::AllocMw => "alloc_mw",
            Self::ModifyQp => "modify_qp",
        }
    }
}

/// What a device does wrong. The default is nothing at all.
///
/// Its text form lists what is not so, separated by commas, in any order; what has several parts has a + between them; `none` is the default.
/// Numbers count from 1, over the whole process; instead of one, a percentage says how likely each is.
///
/// | text | meaning |
/// |---|---|
/// | `wc=5:RETRY_EXC_ERR`, `wc=1%:REM_OP_ERR` | the 5th completion that would be a success fails with this status, and its queue pair goes to ERR |
/// | `wc_delay=5:1ms+1%:50us` | the 5th completion that the device has is seen so much later, and with it those of its queue pair that follow |
/// | `qp_err=1000` | when the 1000th send request is posted, its queue pair goes to ERR |
/// | `drop=7+1%` | the 7th message that is sent is lost. Of a reliable queue pair all retries are: RETRY_EXC_ERR, at once |
/// | `rnr=100:50ms` | when the 100th receive is posted, and for so long, this receive and those posted after it are not there yet for peers |
/// | `refuse=create_qp:3:ENOMEM+reg_mr:1%:EAGAIN` | the 3rd call of this kind fails with this errno |
/// | `event=PORT_ERR:100+PORT_ACTIVE:2s` | at the 100th call, or after a time, this `IBV_EVENT_` |
/// | `remove=1000`, `remove=2s` | at the 1000th call, or after a time, the devices are gone: DEVICE_FATAL, and what makes or asks fails with EIO |
///
/// ```
/// use tbrdma_proto::fault::VerbsPlan;
/// let plan: VerbsPlan = "wc=5:RETRY_EXC_ERR,refuse=create_qp:3:ENOMEM".parse()?;
/// assert_eq!(plan.to_string(), "wc=5:RETRY_EXC_ERR,refuse=create_qp:3:ENOMEM");
/// # Ok::<(), tbrdma_proto::fault::FaultPlanError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerbsPlan {
    /// Completions that fail.
    pub completions: Vec<(Which, WcStatus)>,
    /// Completions that are late.
    pub delays: Vec<(Which, Duration)>,
    /// Send requests that break their queue pair.
    pub breaks: Vec<Which>,
    /// Messages that are lost.
    pub losses: Vec<Which>,
    /// Receives that begin a time in which receives are not there.
    pub absences: Vec<(Which, Duration)>,
    /// Calls that fail, with an errno of Linux.
    pub refusals: Vec<(VerbsCall, Which, u32)>,
    /// Asynchronous events.
    pub events: Vec<(AsyncEventKind, When)>,
    /// The removal of the devices.
    pub removal: Option<When>,
}

impl VerbsPlan {
    /// Whether nothing goes wrong.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
