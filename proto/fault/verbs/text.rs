//! The text form of a plan of verbs faults.

use super::{VerbsCall, VerbsPlan, When, Which};
use crate::event::AsyncEventKind;
use crate::fault::text::{FaultPlanError, Form, chance, duration, read, show_chance, show_duration};
use crate::work::WcStatus;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

const FORMS: [Form; 8] = [
    Form {
        name: "wc",
        expected: "a number or a percentage, a colon, and a status of IBV_WC_",
        example: "wc=5:RETRY_EXC_ERR+1%:REM_OP_ERR",
    },
    Form {
        name: "wc_delay",
        expected: "a number or a percentage, a colon, and a time (ns, us, ms, s)",
        example: "wc_delay=5:1ms+1%:50us",
    },
    Form { name: "qp_err", expected: "a number of a send request, or a percentage", example: "qp_err=1000" },
    Form { name: "drop", expected: "a number of a message, or a percentage", example: "drop=7+1%" },
    Form {
        name: "rnr",
        expected: "a number of a receive or a percentage, a colon, and a time (ns, us, ms, s)",
        example: "rnr=100:50ms",
    },
    Form {
        name: "refuse",
        expected: "a call (open_device, alloc_pd, reg_mr, create_comp_channel, create_cq, create_srq, create_qp, create_ah, alloc_mw, modify_qp), a number or a percentage, and an errno, colons between them",
        example: "refuse=create_qp:3:ENOMEM+reg_mr:1%:EAGAIN",
    },
    Form {
        name: "event",
        expected: "an event of IBV_EVENT_, a colon, and a number of a call or a time",
        example: "event=PORT_ERR:100+PORT_ACTIVE:2s",
    },
    Form { name: "remove", expected: "a number of a call, or a time", example: "remove=1000" },
];

const UNKNOWN: Form = Form {
    name: "",
    expected: "wc, wc_delay, qp_err, drop, rnr, refuse, event or remove, = and a value, each at most once",
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
            "wc_delay" => self.delays = parts.map(lasting).collect::<Option<_>>()?,
            "qp_err" => self.breaks = parts.map(which).collect::<Option<_>>()?,
            "drop" => self.losses = parts.map(which).collect::<Option<_>>()?,
            "rnr" => self.absences = parts.map(lasting).collect::<Option<_>>()?,
            "refuse" => self.refusals = parts.map(refusal).collect::<Option<_>>()?,
            "event" => self.events = parts.map(event).collect::<Option<_>>()?,
            "remove" => self.removal = Some(when(value)?),
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

fn when(text: &str) -> Option<When> {
    match text.parse() {
        Ok(0) => None,
        Ok(nth) => Some(When::Call(nth)),
        Err(_) => duration(text).map(When::After),
    }
}

/// Which, and for how long.
fn lasting(text: &str) -> Option<(Which, Duration)> {
    let (number, time) = text.split_once(':')?;
    Some((which(number)?, duration(time).filter(|time| !time.is_zero())?))
}

fn event(text: &str) -> Option<(AsyncEventKind, When)> {
    let (kind, at) = text.split_once(':')?;
    let kind = AsyncEventKind::ALL.iter().find(|known| upper(known) == kind)?;
    // Nothing here has work queues of their own.
    (*kind != AsyncEventKind::WqFatal).then_some((*kind, when(at)?))
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

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(nth) => nth.fmt(f),
            Self::After(time) => show_duration(*time).fmt(f),
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
        let numbers = |list: &[Which]| joined(list.iter().map(Which::to_string).collect());
        let lasting = |list: &[(Which, Duration)]| {
            joined(list.iter().map(|(which, time)| format!("{which}:{}", show_duration(*time))).collect())
        };
        let events = self.events.iter().map(|(kind, when)| format!("{}:{when}", upper(kind)));
        let values = [
            joined(completions.collect()),
            lasting(&self.delays),
            numbers(&self.breaks),
            numbers(&self.losses),
            lasting(&self.absences),
            joined(refusals.collect()),
            joined(events.collect()),
            self.removal.as_ref().map(When::to_string).unwrap_or_default(),
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
