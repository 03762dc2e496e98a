//! Faults of a device, as a program meets them in verbs: a plan, and the plan in action.
//!
//! What goes wrong on a link, a transport may hide; these it cannot. The plan is a value with a text form; [`VerbsFaults`] is asked at each call, each
//! work request and each completion, and what it answers follows from plan, seed and the order of the questions.

mod action;
mod text;

pub use action::VerbsFaults;

use super::Chance;
use crate::work::WcStatus;

/// Which of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The Nth, counted from 1.
    Nth(u64),
    /// Each with this chance.
    Each(Chance),
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
/// | `qp_err=1000` | when the 1000th send request is posted, its queue pair goes to ERR |
/// | `refuse=create_qp:3:ENOMEM+reg_mr:1%:EAGAIN` | the 3rd call of this kind fails with this errno |
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
    /// Send requests that break their queue pair.
    pub breaks: Vec<Which>,
    /// Calls that fail, with an errno of Linux.
    pub refusals: Vec<(VerbsCall, Which, u32)>,
}

impl VerbsPlan {
    /// Whether nothing goes wrong.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
