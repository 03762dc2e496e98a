//! A result as a row of CSV (RFC 4180): one column a figure, empty where there is none.

use crate::histogram::Summary;
use crate::result::{FloorReport, Ratio, Report};

/// The names of the columns, separated by commas.
#[must_use]
pub fn names() -> String {
    columns(None).iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

/// The result's values, separated by commas.
#[must_use]
pub fn row(report: &Report) -> String {
    columns(Some(report)).iter().map(|(_, value)| quoted(value)).collect::<Vec<_>>().join(",")
}

/// Quotes what would otherwise be several values.
#[must_use]
pub fn quoted(value: &str) -> String {
    match value.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.to_owned(),
    }
}

/// Names and values side by side, so that they cannot come apart.
fn columns(report: Option<&Report>) -> Vec<(&'static str, String)> {
    let of = |value: &dyn Fn(&Report) -> Option<String>| report.and_then(value).unwrap_or_default();
    let plain = |value: &dyn Fn(&Report) -> String| report.map(value).unwrap_or_default();
    let one_way =
        |value: &dyn Fn(&Summary) -> f64| of(&|report| Some(value(report.one_way_ns.as_ref()?).to_string()));
    let response = |value: &dyn Fn(&Summary) -> f64| {
        of(&|report| Some(value(&report.open_loop.as_ref()?.response_ns).to_string()))
    };
    let floor = |value: &dyn Fn(&FloorReport) -> Option<f64>| {
        of(&|report| Some(value(report.floor.as_ref()?)?.to_string()))
    };
    let ratio = |value: &dyn Fn(&Ratio) -> Option<f64>| {
        of(&|report| Some(value(report.ratio_to_floor.as_ref()?)?.to_string()))
    };
    vec![
        ("unix_time_s", plain(&|report| report.environment.unix_time_s.to_string())),
        ("release", plain(&|report| report.environment.release.clone())),
        ("benchmark", plain(&|report| report.benchmark.to_string())),
        ("op", plain(&|report| report.op.to_string())),
        ("transport", plain(&|report| report.transport.to_string())),
        ("device", plain(&|report| report.device.clone())),
        ("profile", plain(&|report| report.profile.clone())),
        ("memory", plain(&|report| report.memory.to_string())),
        ("size_bytes", plain(&|report| report.size_bytes.to_string())),
        ("wait", plain(&|report| report.wait.to_string())),
        ("inline", plain(&|report| report.inline.to_string())),
        ("depth", plain(&|report| report.depth.to_string())),
        ("post_list", plain(&|report| report.post_list.to_string())),
        ("signal_every", plain(&|report| report.signal_every.to_string())),
        ("threads", plain(&|report| report.threads.to_string())),
        ("qps", plain(&|report| report.qps.to_string())),
        ("link", of(&|report| report.link.clone())),
        ("fault", of(&|report| report.fault.clone())),
        ("seed", of(&|report| report.seed.map(|seed| seed.to_string()))),
        ("loop", of(&|report| report.kind_of_loop.as_deref().map(str::to_owned))),
        ("rate_per_s", of(&|report| Some(report.open_loop.as_ref()?.rate_per_s.to_string()))),
        ("achieved_per_s", of(&|report| Some(report.open_loop.as_ref()?.achieved_per_s.to_string()))),
        ("schedule_kept", of(&|report| Some(report.open_loop.as_ref()?.kept.to_string()))),
        ("samples", plain(&|report| report.samples.to_string())),
        ("errors", plain(&|report| report.errors.to_string())),
        ("verified", plain(&|report| report.verified.to_string())),
        ("measures", of(&|report| report.measures.as_deref().map(str::to_owned))),
        ("min_ns", one_way(&|ns| ns.min)),
        ("mean_ns", one_way(&|ns| ns.mean)),
        ("p50_ns", one_way(&|ns| ns.p50)),
        ("p90_ns", one_way(&|ns| ns.p90)),
        ("p99_ns", one_way(&|ns| ns.p99)),
        ("p99_9_ns", one_way(&|ns| ns.p99_9)),
        ("p99_99_ns", one_way(&|ns| ns.p99_99)),
        ("max_ns", one_way(&|ns| ns.max)),
        ("response_p50_ns", response(&|ns| ns.p50)),
        ("response_p99_ns", response(&|ns| ns.p99)),
        ("response_p99_9_ns", response(&|ns| ns.p99_9)),
        ("response_max_ns", response(&|ns| ns.max)),
        ("bytes_per_s", of(&|report| Some(report.bandwidth?.bytes_per_s.to_string()))),
        ("messages_per_s", of(&|report| Some(report.bandwidth?.messages_per_s.to_string()))),
        (
            "floor_p50_ns",
            floor(&|floor| match floor {
                FloorReport::Bounce { one_way_ns, .. } => Some(one_way_ns.p50),
                _ => None,
            }),
        ),
        (
            "floor_bytes_per_s",
            floor(&|floor| match floor {
                FloorReport::Sockets { sockets_bytes_per_s } => Some(*sockets_bytes_per_s),
                FloorReport::Carried { carried_bytes_per_s, .. } => Some(*carried_bytes_per_s),
                FloorReport::Memcpy { memcpy_bytes_per_s } => Some(*memcpy_bytes_per_s),
                FloorReport::Bounce { .. } => None,
            }),
        ),
        (
            "ratio_to_floor",
            ratio(&|ratio| match ratio {
                Ratio::Latency { p50, .. } => Some(*p50),
                Ratio::Bytes { bytes_per_s, .. } => Some(*bytes_per_s),
            }),
        ),
        (
            "involuntary_switches_initiator",
            plain(&|r| r.environment.involuntary_context_switches.initiator.to_string()),
        ),
        (
            "involuntary_switches_responder",
            plain(&|r| r.environment.involuntary_context_switches.responder.to_string()),
        ),
        ("steal_ms", plain(&|report| report.environment.steal_ms.to_string())),
        ("ranks", of(&|report| Some(report.group.as_ref()?.ranks.to_string()))),
        ("fairness", of(&|report| Some(report.group.as_ref()?.fairness?.jain.to_string()))),
        ("algorithm", of(&|report| Some(report.group.as_ref()?.allreduce.as_ref()?.algorithm.to_string()))),
        (
            "bus_bytes_per_s",
            of(&|report| Some(report.group.as_ref()?.allreduce.as_ref()?.bus_bytes_per_s.to_string())),
        ),
        ("cpu_model", plain(&|report| report.environment.cpu_model.clone())),
        ("kernel", plain(&|report| report.environment.kernel.clone())),
    ]
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_with_commas_and_quotes_stay_one_value() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("apple-tb5,overrun=silent"), "\"apple-tb5,overrun=silent\"");
        assert_eq!(quoted("say \"hi\""), "\"say \"\"hi\"\"\"");
    }
}
