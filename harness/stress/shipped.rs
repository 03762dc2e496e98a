//! The plans that come with the program. They are files of `harness/plans`, and part of the program.

use crate::words::fold;

/// Names, and the plans in TOML.
pub const PLANS: [(&str, &str); 10] = [
    ("cable-pull", include_str!("../plans/cable-pull.toml")),
    ("flaky-cable", include_str!("../plans/flaky-cable.toml")),
    ("congested-fabric", include_str!("../plans/congested-fabric.toml")),
    ("receiver-pause", include_str!("../plans/receiver-pause.toml")),
    ("incast", include_str!("../plans/incast.toml")),
    ("jittery-wifi", include_str!("../plans/jittery-wifi.toml")),
    ("lossy-wan", include_str!("../plans/lossy-wan.toml")),
    ("idle-power-state", include_str!("../plans/idle-power-state.toml")),
    ("one-way-loss", include_str!("../plans/one-way-loss.toml")),
    ("corruption", include_str!("../plans/corruption.toml")),
];

/// The plan of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static str> {
    PLANS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What to say of a name that is none.
#[must_use]
pub fn unknown(name: &str) -> String {
    let known = PLANS.map(|(name, _)| name).join(", ");
    format!("{name} is no plan: name a TOML file, or one of {known}")
}

/// All of them, with what they are about.
#[must_use]
pub fn list() -> String {
    const INDENT: usize = 20;
    let mut text = String::new();
    for (name, plan) in PLANS {
        text.push_str(&format!("{name:INDENT$}"));
        let about = super::parse(plan).map_or_else(|reason| reason, |plan| plan.about);
        fold(&mut text, INDENT, &about);
    }
    text
}
