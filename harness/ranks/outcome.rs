//! What all ranks have found, put together as reports: one for each size.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::allreduce::{CHECKED, ELEMENT};
use super::plan::{Algorithm, Plan};
use super::told::{Told, Who};
use super::traffic::checked_singly;
use crate::control::Account;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::histogram::{Latencies, Measures, Summary};
use crate::plan::Benchmark;
use crate::result::{Bandwidth, Report, Spread};

/// The part of a report that is about ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// How many there were.
    pub ranks: usize,
    /// Cores which rank 0 may use.
    pub cores: usize,
    /// Whether more ranks were on a host than cores: then they took turns on these, and waited by giving them away.
    pub crowded: bool,
    /// How evenly the senders (or the pairs) got their share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness: Option<Fairness>,
    /// What went from whom to whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<Pair>,
    /// Each of them.
    pub members: Vec<Member>,
    /// Only of an allreduce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allreduce: Option<AllreduceReport>,
}

/// How evenly a throughput is shared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fairness {
    /// Jain's index: 1 if all get the same, one by their number if one gets everything.
    pub jain: f64,
    /// Bytes per second of who got least.
    pub min_bytes_per_s: f64,
    /// And most.
    pub max_bytes_per_s: f64,
}

/// What went from one rank to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Who sent.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// How many messages came in the measured time.
    pub messages: u64,
    /// Payload bytes per second, as the receiver measured them.
    pub bytes_per_s: f64,
    /// From posting a message to its completion, at the sender, in nanoseconds.
    pub latency_ns: Option<Summary>,
}

/// One rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Which.
    pub rank: usize,
    /// Its process.
    pub pid: u32,
    /// Whether it was on the host of rank 0.
    pub with_rank_0: bool,
    /// Its device.
    pub device: String,
    /// The core it was pinned to.
    pub core: Option<usize>,
    /// How often the scheduler took its core away.
    pub involuntary_switches: u64,
    /// How long an operation took there, in nanoseconds; only of an allreduce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<Summary>,
    /// What its device counted, where it counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
}

/// What an allreduce was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllreduceReport {
    /// How it went about it.
    pub algorithm: Algorithm,
    /// The type of an element.
    pub element: Cow<'static, str>,
    /// How many a vector has.
    pub elements: u64,
    /// Bytes of the vector by the mean time of an operation.
    pub algorithm_bytes_per_s: f64,
    /// That times 2(N-1)/N: what each rank must at least send and receive, so it can be put beside the speed of a link.
    pub bus_bytes_per_s: f64,
}

/// A run of all ranks.
pub struct Whole {
    /// What was measured.
    pub plan: Plan,
    /// Who took part.
    pub everybody: Vec<Who>,
    /// What each has told, of each size.
    pub found: Vec<Vec<Told>>,
    /// Where it took place.
    pub environment: Environment,
    /// Cores which rank 0 may use.
    pub cores: usize,
    /// Whether there were more ranks than cores.
    pub crowded: bool,
}

impl Whole {
    /// A report of each size, with all its latencies.
    ///
    /// # Errors
    /// A rank has told of ranks that are not there.
    pub fn reports(&self, sides: &str) -> Result<Vec<(Report, Latencies)>> {
        self.plan.sizes.iter().zip(&self.found).map(|(size, told)| self.report(*size, told, sides)).collect()
    }

    fn report(&self, size: u64, told: &[Told], sides: &str) -> Result<(Report, Latencies)> {
        match self.plan.benchmark {
            Benchmark::Allreduce => self.of_operations(size, told, sides),
            _ => self.of_messages(size, told, sides),
        }
    }

    /// Of an allreduce.
    fn of_operations(&self, size: u64, told: &[Told], sides: &str) -> Result<(Report, Latencies)> {
        let plan = &self.plan;
        let mut report = self.blank(size, told, sides);
        let mut latencies = Latencies::new(Measures::Collective)?;
        let mut account = Account::default();
        let mut summaries = Vec::new();
        for told in told {
            let mut of_rank = Latencies::new(Measures::Collective)?;
            of_rank.record_all(&told.operations);
            latencies.add(&of_rank);
            summaries.push(of_rank.summary());
            account.add(&told.account);
        }
        let to_check = CHECKED * plan.ranks as u64;
        let operations = latencies.count() / plan.ranks as u64;
        report.samples = latencies.count();
        report.errors = account.errors;
        report.first_error = account.first_error;
        report.messages_checked = account.checked;
        report.verified = report.errors == 0 && account.checked == to_check;
        report.verification = format!(
            "the first and last element of each rank's part in all {operations} operations, at every rank; every element of \
             {CHECKED} more, in which all are others"
        );
        report.measures = Some(latencies.measures().name().into());
        report.one_way_ns = latencies.summary();
        report.distribution = latencies.distribution();
        report.lead_in = 0;
        if let Some(summary) = report.one_way_ns {
            let per_s = 1e9 / summary.mean;
            let algorithm_bytes_per_s = size as f64 * per_s;
            let ranks = plan.ranks as f64;
            report.bandwidth = Some(Bandwidth {
                bytes_per_s: algorithm_bytes_per_s,
                messages_per_s: per_s,
                elapsed_s: operations as f64 / per_s,
                sections: 1,
                section_bytes_per_s: even(algorithm_bytes_per_s),
            });
            if let Some(group) = &mut report.group {
                for (member, summary) in group.members.iter_mut().zip(summaries) {
                    member.latency_ns = summary;
                }
                group.allreduce = Some(AllreduceReport {
                    algorithm: plan.algorithm.unwrap_or(Algorithm::Mesh),
                    element: "f32".into(),
                    elements: size / ELEMENT as u64,
                    algorithm_bytes_per_s,
                    bus_bytes_per_s: algorithm_bytes_per_s * 2.0 * (ranks - 1.0) / ranks,
                });
            }
        }
        Ok((report, latencies))
    }

    /// Of messages from ranks to others.
    fn of_messages(&self, size: u64, told: &[Told], sides: &str) -> Result<(Report, Latencies)> {
        let plan = &self.plan;
        let mut account = Account::default();
        let mut latencies = Latencies::new(Measures::WholeOperation)?;
        let (mut pairs, mut streamed, mut to_check) = (Vec::new(), 0, 0);
        for (to, receiver) in told.iter().enumerate() {
            account.add(&receiver.account);
            for received in &receiver.received {
                let sent =
                    told.get(received.from).and_then(|told| told.sent.iter().find(|sent| sent.to == to));
                let Some(sent) = sent else {
                    let from = received.from;
                    return Err(Error::Run(format!(
                        "rank {to} has messages of rank {from}, which sent none there"
                    )));
                };
                let mut of_pair = Latencies::new(Measures::WholeOperation)?;
                of_pair.record_all(&sent.distribution);
                latencies.add(&of_pair);
                account.add(&received.account);
                let singly = checked_singly(size);
                streamed += received.taken - singly.min(received.taken);
                to_check += singly + (received.taken - singly.min(received.taken)).min(plan.receives.into());
                let seconds = receiver.nanoseconds.max(1) as f64 / 1e9;
                pairs.push(Pair {
                    from: received.from,
                    to,
                    messages: received.messages,
                    bytes_per_s: received.messages as f64 * size as f64 / seconds,
                    latency_ns: of_pair.summary(),
                });
            }
        }
        let rates: Vec<f64> = pairs.iter().map(|pair| pair.bytes_per_s).collect();
        let total: f64 = rates.iter().sum();
        let elapsed_s = told.first().map_or(0, |told| told.nanoseconds).max(1) as f64 / 1e9;
        let mut report = self.blank(size, told, sides);
        report.samples = pairs.iter().map(|pair| pair.messages).sum();
        report.errors = account.errors;
        report.first_error = account.first_error;
        report.messages_checked = account.checked;
        report.verified = report.errors == 0 && account.checked == to_check;
        report.verification = format!(
            "length and order of all {streamed} streamed messages; every byte of the last ones, one for each buffer, and \
             of {} more from each sender to each receiver, each with bytes of its own: {to_check} in all",
            checked_singly(size)
        );
        report.measures = Some(latencies.measures().name().into());
        report.one_way_ns = latencies.summary();
        report.distribution = latencies.distribution();
        report.bandwidth = Some(Bandwidth {
            bytes_per_s: total,
            messages_per_s: total / size as f64,
            elapsed_s,
            sections: 1,
            section_bytes_per_s: even(total),
        });
        if let Some(group) = &mut report.group {
            group.fairness = fairness(&rates);
            group.pairs = pairs;
        }
        Ok((report, latencies))
    }

    /// What does not depend on the kind of measurement.
    fn blank(&self, size: u64, told: &[Told], sides: &str) -> Report {
        let plan = &self.plan;
        let members = self.everybody.iter().zip(told).enumerate().map(|(rank, (who, told))| Member {
            rank,
            pid: who.pid,
            with_rank_0: self.everybody.first().is_some_and(|first| first.host == who.host),
            device: who.device.clone(),
            core: told.core,
            involuntary_switches: told.switches.involuntary,
            latency_ns: None,
            counters: told.counters.iter().cloned().collect(),
        });
        let mut counters: BTreeMap<Cow<'static, str>, u64> = BTreeMap::new();
        for (name, count) in told.iter().flat_map(|told| &told.counters) {
            *counters.entry(name.clone().into()).or_default() += count;
        }
        let first = self.everybody.first();
        Report {
            device: first.map(|who| who.device.clone()).unwrap_or_default(),
            profile: first.map(|who| who.profile.clone()).unwrap_or_default(),
            size_bytes: size,
            kind_of_loop: Some("closed".into()),
            transport: plan.transport,
            floor_missing: Some("what many ranks do to each other has none".into()),
            warmup: told.iter().map(|told| told.warmup).sum(),
            depth: plan.depth,
            memory: "allocated by the library".into(),
            sides: sides.to_owned().into(),
            link: plan.link.clone(),
            fault: plan.fault.clone(),
            seed: plan.seed,
            counters,
            group: Some(GroupReport {
                ranks: plan.ranks,
                cores: self.cores,
                crowded: self.crowded,
                fairness: None,
                pairs: Vec::new(),
                members: members.collect(),
                allreduce: None,
            }),
            ..Report::empty(plan.benchmark, self.environment.clone())
        }
    }
}

/// A rate that was measured in one section.
fn even(rate: f64) -> Spread {
    Spread { min: rate, median: rate, max: rate }
}

/// How evenly these rates are shared.
fn fairness(rates: &[f64]) -> Option<Fairness> {
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    let total: f64 = rates.iter().sum();
    (squares > 0.0).then(|| Fairness {
        jain: total * total / (rates.len() as f64 * squares),
        min_bytes_per_s: rates.iter().copied().fold(f64::INFINITY, f64::min),
        max_bytes_per_s: rates.iter().copied().fold(0.0, f64::max),
    })
}

#[cfg(test)]
mod tests {
    use super::fairness;

    #[test]
    fn jains_index_is_one_for_equals_and_least_for_one_that_has_all() {
        let jain = |rates: &[f64]| fairness(rates).map(|fairness| fairness.jain);
        assert_eq!(jain(&[2.0, 2.0, 2.0, 2.0]), Some(1.0));
        assert_eq!(jain(&[8.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[3.0, 1.0]), Some(0.8));
        assert_eq!(jain(&[0.0, 0.0]), None);
        let both = fairness(&[3.0, 1.0]).unwrap();
        assert_eq!((both.min_bytes_per_s, both.max_bytes_per_s), (1.0, 3.0));
    }
}
