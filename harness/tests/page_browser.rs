//! The page of results in a browser: drawn, readable on a phone, in light and dark, on paper; with no complaint of the browser's.
//!
//! A copy of the page gets a script that measures what the browser made of it, and puts what it found into the document. The page itself has none.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use common::{finish, run, scratch, stderr, stdout};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What browsers of this kind are called.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

const MEASURES: &str = r#"<script>
const box = e => e.getBoundingClientRect();
const all = (what, from = document) => [...from.querySelectorAll(what)];
const charts = all('.chart .scroll > svg');
const found = {
  charts: charts.length,
  // Lines and bars are where they can be seen, and no smaller than a hair.
  drawn: charts.every(svg => all('polyline, rect', svg).length > 0 && all('polyline, rect', svg).every(mark => {
    const [inner, outer] = [box(mark), box(svg)];
    return inner.width + inner.height > 0 && inner.left >= outer.left && inner.right <= outer.right + 1
      && inner.top >= outer.top && inner.bottom <= outer.bottom;
  })),
  // No label of an axis lies over the next one.
  apart: charts.every(svg => ['.x', '.y'].every(axis => {
    const labels = all(axis + ' text:not(.name)', svg).map(box);
    return labels.every((a, i) => labels.every((b, j) => i >= j
      || a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 4 || b.bottom <= a.top + 4));
  })),
  // What is too wide scrolls by itself.
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  smallest: Math.min(...all('p, td, dd, li').map(e => parseFloat(getComputedStyle(e).fontSize))),
  back: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.body).color,
  focusable: all('a[href], summary, [tabindex="0"]').length,
  images: performance.getEntriesByType('resource').length,
};
const pre = document.createElement('pre');
pre.id = 'found';
pre.textContent = JSON.stringify(found);
document.body.append(pre);
</script>"#;

fn browser() -> Option<&'static str> {
    BROWSERS.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok())
}

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Shows a page, and gives what the browser says of it and complains of.
fn show(browser: &str, folder: &Path, page: &Path, more: &[&str]) -> (String, String) {
    let own = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
    ];
    let mut command = Command::new(browser);
    command.args(own).arg(format!("--user-data-dir={}", folder.join("profile").display())).args(more);
    command.arg(format!("file://{}", page.display()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = finish(child, more);
    assert_eq!(output.status.code(), Some(0), "{more:?}: {}", stderr(&output));
    let complaints = stderr(&output);
    let complaints: Vec<_> = complaints.lines().filter(|line| line.contains("CONSOLE")).collect();
    (stdout(&output), complaints.join("\n"))
}

/// What the script found.
fn found(dom: &str) -> Value {
    let text = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    serde_json::from_str(text.unwrap_or_else(|| panic!("the script did not end: {dom}"))).unwrap()
}

#[test]
fn a_browser_shows_the_page_as_it_is_meant() {
    let Some(browser) = browser() else {
        return skip::skip(format!("no browser: none of {} can be started", BROWSERS.join(", ")));
    };
    let folder = Folder(scratch("browser"));
    std::fs::create_dir(&folder.0).unwrap();
    let mut files = Vec::new();
    for (name, arguments) in [
        ("closed", &["pingpong", "--duration", "500ms"][..]),
        ("open", &["pingpong", "--rate", "20k", "--duration", "300ms"]),
        ("stream", &["bw", "--size", "4k", "--duration", "500ms"]),
    ] {
        let path = folder.0.join(format!("{name}.json"));
        let output =
            run(&[arguments, &["--quiet", "--timeout", "60s", "--json", path.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        files.push(path);
    }
    // And a run with phases that are shaded.
    let path = folder.0.join("stress.json");
    let output = run(&["stress", "flaky-cable", "--quiet", "--json", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    files.push(path);
    let page = folder.0.join("page.html");
    let files: Vec<_> = files.iter().map(|path| path.to_str().unwrap()).collect();
    let output = run(&[&["report", "-o", page.to_str().unwrap()], &files[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let copy = folder.0.join("copy.html");
    let text = std::fs::read_to_string(&page).unwrap().replace("</body>", &format!("{MEASURES}</body>"));
    std::fs::write(&copy, text).unwrap();

    let look = |width: u32, more: &[&str]| {
        let size = format!("--window-size={width},900");
        let (dom, complaints) = show(browser, &folder.0, &copy, &[&["--dump-dom", &size], more].concat());
        assert_eq!(complaints, "", "at {width}");
        found(&dom)
    };
    let (desk, phone) = (look(1200, &[]), look(500, &[]));
    for (what, found) in [("desk", &desk), ("phone", &phone)] {
        // The curves of both latencies; each has a distribution.
        assert!(found["charts"].as_u64().unwrap() >= 3, "{what}: {found}");
        assert_eq!(
            (&found["drawn"], &found["apart"]),
            (&Value::from(true), &Value::from(true)),
            "{what}: {found}"
        );
        assert_eq!(found["overflow"], 0, "{what}: {found}");
        assert!(found["smallest"].as_f64().unwrap() >= 14.0, "{what}: {found}");
        assert!(found["focusable"].as_u64().unwrap() >= 10, "{what}: {found}");
        assert_eq!(found["images"], 0, "{what}: {found}");
    }
    let dark = look(1200, &["--blink-settings=preferredColorScheme=0"]);
    assert_ne!((&dark["back"], &dark["ink"]), (&desk["back"], &desk["ink"]), "the same in the dark");

    // On paper, and with no complaint about the page itself.
    let paper = folder.0.join("page.pdf");
    let print = format!("--print-to-pdf={}", paper.display());
    let (_, complaints) = show(browser, &folder.0, &page, &[&print]);
    assert_eq!(complaints, "");
    assert!(std::fs::read(&paper).unwrap().starts_with(b"%PDF"));
}
