//! What is said of a host: one fact and its meaning each, with the file or command that says so and what to do about it.

use serde::Serialize;

/// How much a finding hinders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could, or is not there and need not be.
    Note,
    /// Something that is there does not work.
    Problem,
}

/// Where a finding comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The file or the command.
    pub source: String,
    /// What it said.
    pub said: String,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of finding it is; stays the same from release to release. The part before the dot is its [`AREAS`].
    pub id: &'static str,
    /// What it is about, where there are several of a kind: a device, an interface.
    pub subject: Option<String>,
    /// How much it hinders.
    pub severity: Severity,
    /// What is so, in a sentence.
    pub title: String,
    /// Who says so.
    pub evidence: Vec<Evidence>,
    /// Why it matters.
    pub why: Option<String>,
    /// What to do: a command or a sentence. Every problem has one.
    pub remedy: Option<String>,
}

/// The parts of an examination, in the order in which they are told: the first word of an identifier, and a heading.
pub const AREAS: [(&str, &str); 6] = [
    ("rdma", "RDMA adapters"),
    ("macos", "RDMA over Thunderbolt"),
    ("thunderbolt", "Thunderbolt and USB4"),
    ("device", "Devices of tbrdma"),
    ("limits", "Limits of this process"),
    ("measuring", "For measurements"),
];

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn ok(id: &'static str, title: impl Into<String>) -> Self {
        Self::new(id, Severity::Ok, title.into())
    }

    /// Not as well as it could be.
    #[must_use]
    pub fn note(id: &'static str, title: impl Into<String>) -> Self {
        Self::new(id, Severity::Note, title.into())
    }

    /// Does not work.
    #[must_use]
    pub fn problem(id: &'static str, title: impl Into<String>) -> Self {
        Self::new(id, Severity::Problem, title.into())
    }

    fn new(id: &'static str, severity: Severity, title: String) -> Self {
        Self { id, subject: None, severity, title, evidence: Vec::new(), why: None, remedy: None }
    }

    /// What it is about.
    #[must_use]
    pub fn about(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// Adds who says so, and what.
    #[must_use]
    pub fn seen(mut self, source: impl Into<String>, said: impl Into<String>) -> Self {
        self.evidence.push(Evidence { source: source.into(), said: crate::error::one_line(&said.into()) });
        self
    }

    /// Why it matters.
    #[must_use]
    pub fn why(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    /// What to do.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}
