//! Completions and events explain themselves.

use std::collections::HashSet;

use tbrdma_proto::{AsyncEventKind, Qpn, WcOpcode, WcStatus, WorkCompletion};

#[test]
fn a_success_is_the_completion_itself() {
    let completion = WorkCompletion { wr_id: 4, byte_len: 100, ..Default::default() };
    assert_eq!(completion.ok(), Ok(&completion));
}

#[test]
fn every_failure_names_request_queue_pair_and_cause() {
    for &status in &WcStatus::ALL[1..] {
        let completion = WorkCompletion {
            wr_id: 77,
            status,
            opcode: WcOpcode::RdmaRead,
            vendor_err: 0x1f,
            qp_num: Qpn::new(0x1234).unwrap(),
            ..Default::default()
        };
        let error = completion.ok().unwrap_err();
        assert_eq!((error.wr_id, error.status, error.qp_num), (77, status, completion.qp_num));
        let text = error.to_string();
        for part in ["77", "RdmaRead", "0x001234", "0x1f", &format!("{status:?}"), status.description()] {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }
}

#[test]
fn descriptions_are_single_sentences_and_all_different() {
    let statuses = WcStatus::ALL.iter().map(|status| status.description());
    let events = AsyncEventKind::ALL.iter().map(|event| event.description());
    let mut seen = HashSet::new();
    for text in statuses.chain(events) {
        assert!(text.len() > 20 && !text.ends_with('.') && !text.contains(['\n']), "{text:?}");
        assert!(!text.contains("  "), "a run of blanks in {text:?}");
        assert!(seen.insert(text), "twice: {text:?}");
    }
    assert_eq!(seen.len(), 24 + 20);
}

#[test]
fn statuses_and_events_print_their_description() {
    assert_eq!(WcStatus::RemAccessErr.to_string(), WcStatus::RemAccessErr.description());
    assert_eq!(AsyncEventKind::SqDrained.to_string(), AsyncEventKind::SqDrained.description());
}
