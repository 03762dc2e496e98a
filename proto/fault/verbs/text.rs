//! The text form of a plan of verbs faults.

use super::{VerbsCall, VerbsPlan, Which};
use crate::fault::text::{FaultPlanError, Form, chance, read, show_chance};
use crate::work::WcStatus;
use core::fmt;
use core::str::FromStr;

const FORMS: [Form; 3] = [
    Form {
        name: "wc",
        expected: "a number or a percentage, a colon, and a status of IBV_WC_",
        example: "wc=5:RETRY_EXC_ERR+1%:REM_OP_ERR",
    },
    Form { name: "qp_err", expected: "a number of a send request, or a percentage", example: "qp_err=1000" },
    Form {
        name: "refuse",
        expected: "a call (open_device, alloc_pd, reg_mr, create_comp_channel, create_cq, create_srq, create_qp, create_ah, alloc_mw, modify_qp), a number or a percentage, and an errno, colons between them",
        example: "refuse=create_qp:3:ENOMEM+reg_mr:1%:EAGAIN",
    },
];

const UNKNOWN: Form = Form {
    name: "",
    expected: "wc, qp_err or refuse, = and a value, each at most once",
    example: "wc=5:RETRY_EXC_ERR",
};

/// Errors that devices give, with Linux's numbers.
const ERRNOS: [(&str, u32); 15] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EIO", 5),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EFAULT", 14),
    ("EBUSY", 16),
    ("ENODEV", 19),
    ("EINVAL", 22),
    ("ENFILE", 23),
    ("EMFILE", 24),
    ("ENOSPC", 28),
    ("EOPNOTSUPP", 95),
    ("ETIMEDOUT", 110),
];

impl VerbsPlan {
    /// Whether a part of a text, `NAME=VALUE`, is one of a plan like this, right or wrong, and not one of a link's.
    pub fn is_meant_by(part: &str) -> bool {
        part.split_once('=').is_some_and(|(name, _)| FORMS.iter().any(|form| form.name == name.trim()))
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let parts = value.split('+');
        match name {
            "wc" => self.completions = parts.map(completion).collect::<Option<_>>()?,
            "qp_err" => self.breaks = parts.map(which).collect::<Option<_>>()?,
            "refuse" => self.refusals = parts.map(refusal).collect::<Option<_>>()?,
            _ => return None,
        }
        Some(())
    }
}

impl FromStr for VerbsPlan {
    type Err = FaultPlanError;

    fn from_str(text: &str) -> Result<Self, FaultPlanError> {
        let mut plan = Self::default();
        read(text, &FORMS, &UNKNOWN, |name, value| plan.set(name, value))?;
        Ok(plan)
    }
}

fn which(text: &str) -> Option<Which> {
    if text.ends_with('%') {
        return chance(text).map(Which::Each);
    }
    text.parse().ok().filter(|&nth| nth > 0).map(Which::Nth)
}

fn completion(text: &str) -> Option<(Which, WcStatus)> {
    let (number, status) = text.split_once(':')?;
    let status = WcStatus::ALL.iter().find(|known| upper(known) == status)?;
    (*status != WcStatus::Success).then_some((which(number)?, *status))
}

fn refusal(text: &str) -> Option<(VerbsCall, Which, u32)> {
    let mut parts = text.splitn(3, ':');
    let (call, number, errno) = (parts.next()?, parts.next()?, parts.next()?);
    let call = VerbsCall::ALL.into_iter().find(|known| known.name() == call)?;
    let (_, errno) = ERRNOS.iter().find(|(name, _)| *name == errno)?;
    Some((call, which(number)?, *errno))
}

/// A variant's name as C writes it.
fn upper(variant: &impl fmt::Debug) -> String {
    let mut upper = String::new();
    for c in format!("{variant:?}").chars() {
        if c.is_ascii_uppercase() && !upper.is_empty() {
            upper.push('_');
        }
        upper.push(c.to_ascii_uppercase());
    }
    upper
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nth(nth) => nth.fmt(f),
            Self::Each(chance) => show_chance(*chance).fmt(f),
        }
    }
}

impl fmt::Display for VerbsPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |parts: Vec<String>| parts.join("+");
        let errno =
            |number: u32| ERRNOS.iter().find(|(_, known)| *known == number).map_or("EIO", |(name, _)| name);
        let completions = self.completions.iter().map(|(which, status)| format!("{which}:{}", upper(status)));
        let refusals = self
            .refusals
            .iter()
            .map(|(call, which, number)| format!("{}:{which}:{}", call.name(), errno(*number)));
        let values = [
            joined(completions.collect()),
            joined(self.breaks.iter().map(Which::to_string).collect()),
            joined(refusals.collect()),
        ];
        let mut separator = "";
        for (form, value) in FORMS.iter().zip(values) {
            if !value.is_empty() {
                write!(f, "{separator}{}={value}", form.name)?;
                separator = ",";
            }
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}
