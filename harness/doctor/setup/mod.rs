//! `doctor --setup`: does what is missing until there is a raw stream over a cable, after it has shown what it will write.
//!
//! [`plan`] says what that is, by the same facts as the findings; [`mod@perform`] does it. Who repeats it changes nothing.

pub mod perform;
pub mod plan;

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};

use super::facts::{self, Facts};
use super::host::{Host, Live};
use super::recorded::Recorded;
use super::{Flags, platform_name};
use crate::error::{Context, Error, Result};
use crate::signals;
use crate::words::fold;
use perform::{Hands, perform};
use plan::{MOST_LETTERS, Plan, Wish};

/// The command: shows the plan, and does it if it may.
///
/// # Errors
/// Flags make no sense, something stands in the way, this is not root, the user says no, or a step fails: then it is undone.
pub fn run(flags: &Flags) -> Result<u8> {
    signals::install()?;
    if let Some(root) = &flags.root {
        if !flags.dry_run {
            return Err(Error::Usage(
                "--setup does nothing to a recorded tree: --dry-run shows what it would do".into(),
            ));
        }
        let recorded = Recorded::new(root);
        return show(&recorded, &wish(flags, &recorded)?);
    }
    let wish = wish(flags, &Live)?;
    if flags.dry_run {
        return show(&Live, &wish);
    }
    let consent = || if flags.yes { Ok(true) } else { ask() };
    set_up(&Live, &Live, &wish, consent, &mut |line| drop(crate::say(&format!("{line}\n"))))
}

/// Shows what is to be done, does it if `consent` says so, and looks whether it helped.
///
/// # Errors
/// As [`run`].
pub fn set_up(
    host: &dyn Host,
    hands: &dyn Hands,
    wish: &Wish,
    consent: impl FnOnce() -> Result<bool>,
    tell: &mut dyn FnMut(&str),
) -> Result<u8> {
    let facts = facts::gather(host);
    let plan = plan_of(&facts, wish)?;
    if plan.steps.is_empty() {
        tell(&conclusion(&plan));
        return done_or_blocked(&plan);
    }
    tell(script(&plan).trim_end());
    if !hands.is_root() {
        return Err(Error::Run(
            "only root may do this: sudo tbrdma-bench doctor --setup, or the commands above".into(),
        ));
    }
    if !consent()? {
        return Err(Error::Run("nothing was changed".into()));
    }
    perform(host, hands, &plan.steps, tell)?;
    let after = plan_of(&facts::gather(host), wish)?;
    if let Some(step) = after.steps.first() {
        return Err(Error::Run(format!(
            "all of it was done, and yet: {}; {}: {}",
            step.missing, step.source, step.said
        )));
    }
    tell(&conclusion(&after));
    done_or_blocked(&after)
}

fn plan_of(facts: &Facts, wish: &Wish) -> Result<Plan> {
    if facts.platform != "linux" {
        let platform = platform_name(&facts.platform);
        return Err(Error::Run(format!(
            "raw streams over cables are Linux's: {platform} has none to set up"
        )));
    }
    Ok(Plan::of(facts, wish))
}

/// `--dry-run`.
fn show(host: &dyn Host, wish: &Wish) -> Result<u8> {
    let plan = plan_of(&facts::gather(host), wish)?;
    let text = if plan.steps.is_empty() { conclusion(&plan) + "\n" } else { script(&plan) };
    crate::say(&text)?;
    done_or_blocked(&plan)
}

fn done_or_blocked(plan: &Plan) -> Result<u8> {
    match &plan.obstacle {
        None => Ok(0),
        Some(it) => Err(Error::Run(format!("{} ({}: {}): {}", it.missing, it.source, it.said, it.remedy))),
    }
}

/// The steps as what a shell of root takes.
fn script(plan: &Plan) -> String {
    let mut text = String::new();
    let remark = |text: &mut String, words: &str| {
        let mut folded = String::new();
        fold(&mut folded, 2, words);
        for line in folded.lines() {
            let _ = writeln!(text, "# {}", line.trim());
        }
    };
    let to = plan.peer.as_deref().map(|peer| format!(" to {peer}")).unwrap_or_default();
    remark(&mut text, &format!("a raw stream{to}; as root:"));
    for step in &plan.steps {
        remark(&mut text, &format!("{} ({}: {})", step.missing, step.source, step.said));
        for command in step.action.commands() {
            let _ = writeln!(text, "{command}");
        }
    }
    text
}

/// What is to be said when nothing is left to be done here.
fn conclusion(plan: &Plan) -> String {
    let mut text = String::new();
    if let Some(stream) = &plan.ready {
        let to = plan.peer.as_deref().unwrap_or("the other host");
        let words = format!(
            "{stream} is set up to {to}: nothing is left to be done here. The other host needs the same name: tbrdma-bench doctor --setup there. \
             Then, on both, --device stream:{}",
            plan.device.as_deref().unwrap_or_default()
        );
        fold(&mut text, 0, &words);
    }
    text.trim_end().to_owned()
}

/// The wish behind the flags. Under sudo the device file is to belong to who said it.
fn wish(flags: &Flags, host: &dyn Host) -> Result<Wish> {
    if let Some(name) = &flags.stream {
        let good = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        if name.is_empty() || name.len() > MOST_LETTERS || !name.chars().all(good) {
            return Err(Error::Usage(format!(
                "--stream {name}: the kernel announces names of 1 to {MOST_LETTERS} letters, digits, - and _"
            )));
        }
    }
    let owner = host.variable("SUDO_UID").and_then(|user| user.parse().ok()).filter(|user| *user != 0);
    Ok(Wish { peer: flags.peer.clone(), stream: flags.stream.clone(), owner })
}

fn ask() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(
            "--setup asks before it changes anything, and nobody is there to answer: --yes".into(),
        ));
    }
    crate::say("Do this? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context(|| "read the answer".into())?;
    signals::check()?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
