//! `report`: a page that is whole in its file, says what the results say, and can be read without seeing its charts.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{run, scratch, stderr, stdout};
use std::path::{Path, PathBuf};
use tbrdma_bench::page::page;
use tbrdma_bench::result::Report;

fn measured(name: &str, arguments: &[&str]) -> PathBuf {
    let path = scratch(&format!("{name}.json"));
    let often = ["--iters", "2000", "--warmup", "100", "--quiet", "--timeout", "60s", "--json"];
    let all = [arguments, &often, &[path.to_str().unwrap()]].concat();
    let output = run(&all);
    assert_eq!(output.status.code(), Some(0), "{all:?}: {}", stderr(&output));
    path
}

/// Results of each kind: latencies of a closed and of an open loop, and throughput.
fn results() -> Vec<PathBuf> {
    vec![
        measured("closed", &["pingpong"]),
        measured("open", &["pingpong", "--rate", "20k"]),
        measured("stream", &["bw", "--size", "4k"]),
    ]
}

fn report(files: &[PathBuf], more: &[&str]) -> std::process::Output {
    let files: Vec<_> = files.iter().map(|path| path.to_str().unwrap()).collect();
    run(&[&["report"], &files[..], more].concat())
}

fn remove(files: &[PathBuf]) {
    files.iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

#[test]
fn a_page_is_whole_and_says_what_the_results_say() {
    let files = results();
    let output = report(&files, &["-o", "-", "--title", "Before & <after>"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let page = stdout(&output);
    // Nothing is fetched and nothing runs.
    for foreign in ["<script", "src=", "@import", "url(", "javascript:", "<link rel=\"stylesheet\""] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let addresses = page.matches("http").count();
    assert_eq!(
        addresses,
        page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count(),
        "only the name of SVG"
    );
    assert!(page.contains("<h1>Before &#38; &#60;after&#62;</h1>"), "what users say is escaped");
    for path in &files {
        let report = Report::read(path).unwrap();
        if let Some(ns) = report.one_way_ns {
            for figure in [ns.min, ns.p50, ns.p99, ns.max] {
                let figure = tbrdma_bench::histogram::nanoseconds(figure);
                assert!(page.contains(&format!("<td>{figure}</td>")), "{figure}");
            }
        }
        if let Some(bandwidth) = report.bandwidth {
            let figure = tbrdma_bench::report::bytes(bandwidth.bytes_per_s);
            assert!(page.contains(&format!("<td>{figure}</td>")), "{figure}");
        }
        assert!(page.contains(&report.environment.kernel));
    }
    assert!(page.contains("open: 20000 messages/s asked for"));
    // The same files, the same page.
    assert_eq!(stdout(&report_of_same(&files)), page);
    remove(&files);
}

fn report_of_same(files: &[PathBuf]) -> std::process::Output {
    report(files, &["-o", "-", "--title", "Before & <after>"])
}

#[test]
fn who_does_not_see_the_charts_gets_their_figures() {
    let files = results();
    let page = stdout(&report(&files, &["-o", "-"]));
    remove(&files);
    assert!(page.starts_with("<!doctype html>") && page.contains("<html lang=\"en\">"));
    let (charts, named) =
        (page.matches("<svg viewBox=\"0 0 720 330\"").count(), page.matches("<desc id=").count());
    assert_eq!(charts, named, "each chart is described");
    assert!(charts >= 3, "{charts}");
    let ids: Vec<_> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let unique: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    for reference in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ids.contains(&reference), "{reference} leads nowhere");
    }
    let tables = page.matches("<table>").count();
    assert_eq!(tables, page.matches("<caption>").count(), "each table says what it is");
    assert_eq!(page.matches("<details>").count() + 2, tables, "each chart of a run has a table behind it");
    // What scrolls can be reached by keyboard, and is named.
    assert_eq!(page.matches("class=\"scroll\"").count(), page.matches("tabindex=\"0\" aria-label=").count());
}

#[test]
fn twenty_long_results_stay_under_a_mebibyte() {
    let path = measured("long", &["pingpong"]);
    let mut report = Report::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // As many values and stretches as a run of hours has.
    report.distribution = (0..6000).map(|n| (50.0 * 1.002_f64.powi(n), 7)).collect();
    let stretch = report.timeline[0];
    report.timeline = (0..129)
        .map(|n| tbrdma_bench::timeline::Stretch {
            at_s: f64::from(n) * 40.0,
            p50: Some(70.0 + f64::from(n % 7)),
            p99: Some(300.0 * f64::from(n % 5 + 1)),
            max: Some(f64::from(n + 1) * 1e4),
            ..stretch
        })
        .collect();
    let reports: Vec<_> = (0..20).map(|n| (format!("run {n}"), report.clone())).collect();
    let page = page("Twenty", &reports, &[], &[]).unwrap();
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
}

#[test]
fn a_result_with_wrong_bytes_is_marked() {
    let path = measured("wrong", &["pingpong"]);
    let mut report = Report::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    (report.verified, report.errors, report.first_error) = (false, 3, Some("message 7: byte 2".to_owned()));
    let page = page("Wrong", &[("wrong".to_owned(), report)], &[], &[]).unwrap();
    assert!(page.contains("1 of them is not verified") && page.contains("Not verified: 3 of"));
    assert!(page.contains("the first: message 7: byte 2"));
}

#[test]
fn what_is_no_result_is_told_and_no_page_is_left() {
    let (path, out) = (scratch("strange.json"), scratch("page.html"));
    std::fs::write(&path, "{}").unwrap();
    let output = report(std::slice::from_ref(&path), &["-o", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("strange.json is no result of tbrdma-bench"), "{}", stderr(&output));
    assert!(!Path::new(&out).exists());
    std::fs::remove_file(&path).unwrap();
}
