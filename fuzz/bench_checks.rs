//! What must hold of whatever tbrdma-bench reads from a peer, a file or another program: the bodies of its fuzz targets, which harness/tests/fuzz_corpus.rs
//! runs over their corpora.

use tbrdma_bench::compare::Metric;
use tbrdma_bench::control::{Message, decode};
use tbrdma_bench::counts::Counts;
use tbrdma_bench::replay::trace::Trace;
use tbrdma_bench::replay::workload::{Limits, Outline, Workload, is_of};
use tbrdma_bench::{container, csv, gate, mixed, page, report, stress};

/// A line of the control connection: a message says the same when it is sent on, and what it holds is judged without a fall.
pub(crate) fn control_message(data: &[u8]) {
    let message = match decode(data) {
        Ok(message) => message,
        Err(reason) => {
            assert!(!reason.contains('\n'), "an error is a line: {reason:?}");
            return;
        }
    };
    let line = serde_json::to_string(&message).expect("what was read can be written");
    assert_eq!(decode(line.as_bytes()).as_ref(), Ok(&message));
    match &message {
        Message::Hello(hello) => drop(hello.check()),
        Message::Plan(plan) => drop(plan.validate()),
        // Nothing lies beyond what is allocated.
        Message::Replay(outline) if outline.validate().is_ok() => {
            for lane in &outline.lanes {
                let last = lane.word_at() + 8;
                assert!(last <= lane.responder_bytes() && lane.read_at(1) + lane.stride <= lane.word_at());
            }
        }
        _ => {}
    }
    assert!(!message.name().is_empty());
}

/// A plan of `gate`: limits have names, and are told of any result.
pub(crate) fn gate_plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(plan) = gate::plan::Plan::parse(text) else { return };
    assert!(!plan.limits.is_empty());
    for limit in &plan.limits {
        assert!(limit.at_most.is_some() || limit.at_least.is_some());
        let _ = limit.name();
    }
    let mut judgements = gate::judge(&plan, &[], &[]);
    judgements.extend(gate::judge_counts(&plan, &[], &[]));
    assert_eq!(judgements.len(), plan.limits.len());
    assert_eq!(gate::exit_code(&judgements), 2, "nothing was measured");
}

/// A plan of `stress`, or of `mixed`.
pub(crate) fn stress_plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for reason in [stress::parse(text).err(), mixed::parse(text).err()].into_iter().flatten() {
        assert!(!reason.to_string().is_empty());
    }
}

/// A file of results: each is told on the terminal, in a table and on a page, whatever its figures are.
pub(crate) fn result(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Counts::parse(text);
    let Ok(contents) = container::parse(text, "fuzzed") else { return };
    for (_, result) in &contents.results {
        let shown = report::full(result, "");
        assert!(shown.ends_with('\n') && report::line(result).ends_with('\n'));
        let _ = csv::row(result);
        for metric in Metric::of(result.benchmark) {
            let _ = metric.value(result);
        }
        let again = result.to_json().expect("what was read can be written");
        assert!(container::parse(&again, "again").is_ok(), "{again}");
    }
    let page = page::page("fuzzed", &contents.results, &contents.tables, &contents.stress).expect("a page");
    assert!(!page.contains("<script"), "text stays text");
}

/// A trace: what is read can be made to fit a device, and its requests lie where there is memory.
pub(crate) fn trace(data: &[u8]) {
    let Ok(trace) = Trace::read(data) else { return };
    assert!(trace.posts.is_sorted_by_key(|post| post.at_ns));
    assert!(trace.posts.iter().all(|post| post.queue_pair < trace.queue_pairs.len()));
    let limits = Limits { max_msg_sz: 1 << 20, mtu: 4096, max_inline_data: 64, max_qp_wr: 128 };
    let Ok(work) = Workload::new(&trace, &limits) else { return };
    assert_eq!(work.items.len() as u64 + work.passed_over.values().sum::<u64>(), requests_of(&trace));
    for item in &work.items {
        assert!(is_of(&work.lanes, &item.known), "{item:?} in {:?}", work.lanes);
    }
    let mut silent = vec![0; work.lanes.len()];
    for item in &work.items {
        let lane = usize::from(item.known.0);
        silent[lane] = if item.signaled { 0 } else { silent[lane] + 1 };
        assert!(silent[lane] < work.lanes[lane].depth, "a queue that nothing frees");
    }
    assert!(silent.iter().all(|silent| *silent == 0), "an end that nobody hears of");
    assert!(work.posts.is_sorted_by_key(|post| post.due_ns));
    let covered: usize = work.posts.iter().map(|post| post.items.len()).sum();
    assert_eq!(covered, work.items.len());
    let plan = serde_json::from_str(PLAN).expect("a plan");
    let outline = Outline { plan, lanes: work.lanes.clone(), requests: work.items.len() as u64 };
    assert!(outline.validate().is_ok(), "{:?}", outline.validate());
}

fn requests_of(trace: &Trace) -> u64 {
    trace.requests() as u64 + trace.passed_over.values().sum::<u64>()
}

/// What a replay has in common with other runs.
const PLAN: &str = r#"{"benchmark":"replay","op":"send","transport":"rc","size":8,"wait":"poll","inline":false,"depth":2,"post_list":1,
    "signal_every":1,"device":"shm","pin_responder":null,"timeout_ms":1000}"#;
