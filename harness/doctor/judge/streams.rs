//! Raw streams over a cable (`/dev/tbstreamX`, Linux 7.2): how far their set-up has come, and what [`crate::doctor::setup`] would do.

use crate::doctor::facts::Facts;
use crate::doctor::facts::thunderbolt::Stream;
use crate::doctor::finding::Finding;
use crate::doctor::setup::plan::{Action, Plan, Wish};

const ID: &str = "thunderbolt.stream";

/// What is to be said of streams, on a host with a controller.
pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let (peers, streams) = (&facts.thunderbolt.peers, &facts.thunderbolt.streams);
    findings.extend(streams.iter().filter_map(|stream| existing(facts, stream)));
    let without = peers.iter().filter(|peer| !streams.iter().any(|stream| stream.host() == peer.name));
    let mut wished: Vec<Option<String>> = without.map(|peer| Some(peer.name.clone())).collect();
    if peers.is_empty() && streams.is_empty() {
        wished.push(None);
    }
    for peer in wished {
        let flag = peer.as_ref().filter(|_| peers.len() > 1).map(|peer| format!(" --peer {peer}"));
        let finding = missing(&Plan::of(facts, &Wish { peer, ..Wish::default() }), &flag.unwrap_or_default());
        // What is missing for all of them is said once.
        findings.extend(finding.filter(|finding| !findings.contains(finding)));
    }
}

/// A stream that has a folder.
fn existing(facts: &Facts, stream: &Stream) -> Option<Finding> {
    let plan = Plan::of_stream(facts, stream);
    let Some(device) = &plan.device else {
        let flags = format!(" --peer {} --stream {}", stream.host(), stream.label());
        return missing(&plan, &flags).map(|finding| finding.about(&stream.name));
    };
    let to = plan.peer.as_deref().unwrap_or("the other host");
    let [inwards, outwards] = stream.hops.each_ref().map(|hop| hop.as_deref().unwrap_or("unknown"));
    let tuned: String = stream.tuned.iter().map(|(name, value)| format!(", {name} {value}")).collect();
    let finding =
        Finding::ok(ID, format!("a raw stream to {to}: --device stream:{device}")).about(&stream.name);
    Some(finding.seen(stream.folder(), format!("{device}, in HopID {inwards}, out HopID {outwards}{tuned}")))
}

/// The first thing that is missing, and all that is to be done about it; `None` if nothing is.
fn missing(plan: &Plan, flags: &str) -> Option<Finding> {
    const WHY: &str = "a stream carries bytes to the other host without the network stack, for --device stream:/dev/tbstream0";
    let title = |missing: &str| format!("no raw stream over the cable: {missing}");
    if let Some(step) = plan.steps.first() {
        let commands: Vec<String> = plan.steps.iter().flat_map(|step| by_hand(&step.action)).collect();
        let remedy = format!("sudo tbrdma-bench doctor --setup{flags}; or for root: {}", commands.join("; "));
        let finding = Finding::note(ID, title(&step.missing)).seen(&step.source, &step.said);
        return Some(finding.why(WHY).remedy(remedy));
    }
    let it = plan.obstacle.as_ref()?;
    let title = title(&it.missing);
    let finding = if it.ill { Finding::problem(ID, title) } else { Finding::note(ID, title).why(WHY) };
    Some(finding.seen(&it.source, &it.said).remedy(&it.remedy))
}

/// Of what is only done where it is needed, what a hand does.
fn by_hand(action: &Action) -> Vec<String> {
    match action {
        Action::Hops(folder) => vec![format!("where they are 0, echo -1 to {folder}/in_hopid and out_hopid")],
        other => other.commands(),
    }
}
