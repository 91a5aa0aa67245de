//! The page in a real browser. Skipped, and it says so, where there is none: `$BRICK_CHROMIUM`, `chromium`,
//! `chromium-browser` or `google-chrome` on `PATH`.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::tests::{HOSTILE, everything, hostile, many_layers};
use crate::profile::{Profile, RowDerived, RowMeasured};
use crate::record::SyncMode;
use crate::testing::{profile, profile_in};

const EXERCISE: &str = include_str!("html/exercise.js");
const SECTIONS: [&str; 10] =
    ["overview", "table", "graph", "flame", "icicle", "roofline", "heatmap", "threads", "histogram", "batches"];

fn browser() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BRICK_CHROMIUM") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    std::env::split_paths(&path).flat_map(|dir| names.map(|n| dir.join(n))).find(|p| p.is_file())
}

/// The document after its scripts ran. Anything on the console is an error.
fn dom(browser: &Path, page: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("page.html"), page).unwrap();
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=20000", "--window-size=1280,900", "--dump-dom"])
        .arg(format!("--user-data-dir={}", at("profile").display()))
        .arg(format!("file://{}", at("page.html").display()))
        .stdin(Stdio::null())
        .stdout(File::create(at("dom")).unwrap())
        .stderr(File::create(at("log")).unwrap())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > Duration::from_secs(600) {
            child.kill().unwrap();
            panic!("expected {} to end within 600 s: {}", browser.display(), log(&at("log")));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let log = log(&at("log"));
    assert!(status.success(), "{status}: {log}");
    let console: Vec<&str> = log.lines().filter(|l| l.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:#?}");
    String::from_utf8(std::fs::read(at("dom")).unwrap()).unwrap()
}

fn log(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Runs a test with a browser, or says that it did not. One at a time: a browser has threads enough for a small machine.
fn with_browser(test: impl Fn(&dyn Fn(&str) -> String)) {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match browser() {
        Some(path) => test(&|page| dom(&path, page)),
        None => eprintln!("SKIPPED: no chromium, chromium-browser or google-chrome on PATH, and no BRICK_CHROMIUM"),
    }
}

/// Attributes of the root element.
fn root(dom: &str) -> &str {
    let from = dom.find("<html").unwrap();
    &dom[from..from + dom[from..].find('>').unwrap()]
}

fn assert_ready(dom: &str) {
    let root = root(dom);
    assert!(root.contains("data-ready=\"true\"") && root.contains("data-errors=\"0\""), "{root}");
    assert!(!dom.contains("class=\"empty failed\""), "a figure could not be drawn");
}

/// Cells of a row of the budget table of a phase: column, exact value, text.
fn cells<'a>(dom: &'a str, phase: &str, row: &str) -> Vec<(&'a str, Option<&'a str>, &'a str)> {
    let phase = &dom[dom.find(&format!("id=\"{phase}-table\"")).unwrap()..];
    let row = &phase[phase.find(&format!("<tr data-name=\"{row}\"")).unwrap()..];
    let row = &row[..row.find("</tr>").unwrap()];
    let attribute = |tag: &'a str, name: &str| {
        let (_, rest) = tag.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"').unwrap().0)
    };
    let cell = |cell: &'a str| {
        let (tag, rest) = cell.split_once('>')?;
        Some((attribute(tag, "data-col")?, attribute(tag, "data-v"), rest.split_once("</td>")?.0))
    };
    row.split("<td").skip(1).filter_map(cell).collect()
}

/// Every figure the table shows of a row is that of the profile: exactly in the attribute, rounded in the text.
fn assert_row(dom: &str, phase: &str, name: &str, m: Option<&RowMeasured>, d: &RowDerived) {
    let shown = cells(dom, phase, name);
    let summary = m.and_then(|m| m.us_per_token);
    let w = &d.work;
    let positive = |x: f64| (x > 0.0).then_some(x);
    let rate = match (w.int_gop_per_s, w.gflop_per_s) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
    };
    let expected = [
        ("calls", m.map(|m| m.calls as f64), 0),
        ("p50", summary.map(|s| s.p50), 9),
        ("p99", summary.map(|s| s.p99), 9),
        ("share", Some(d.share), 1),
        ("mb", positive(w.bytes_per_token / 1e6), 9),
        ("gbs", w.gb_per_s, 9),
        ("mop", positive((w.int_ops_per_token + w.flops_per_token) / 1e6), 9),
        ("gops", rate, 9),
        ("bound", d.bound.as_ref().map(|b| b.us_per_token), 9),
        ("budget", d.budget.as_ref().map(|b| b.us_per_token), 9),
        ("gap", d.budget.as_ref().map(|b| b.gap_factor), 2),
    ];
    let mut checked = 0;
    for (column, value, digits) in expected {
        let Some(&(_, exact, text)) = shown.iter().find(|c| c.0 == column) else {
            assert_eq!(value, None, "{phase} {name}: no column {column}");
            continue;
        };
        assert_eq!(exact.map(|v| v.parse::<f64>().unwrap()), value, "{phase} {name} {column}");
        checked += 1;
        let Some(value) = value else {
            assert_eq!(text, "–", "{phase} {name} {column}");
            continue;
        };
        // The rules of the text report, whose rounding may differ at exact halves.
        let value = if column == "share" { value * 100.0 } else { value };
        let rounded = if digits == 9 { crate::report::number(value) } else { format!("{value:.digits$}") };
        let text = text.trim_end_matches(['!', '%', '×']);
        let decimals = |t: &str| t.split_once('.').map_or(0, |(_, d)| d.len());
        assert_eq!(decimals(text), decimals(&rounded), "{phase} {name} {column}: {text}, expected {rounded}");
        let half = 0.5 * 10f64.powi(-(decimals(text) as i32)) * (1.0 + 1e-6);
        assert!((text.parse::<f64>().unwrap() - value).abs() <= half, "{phase} {name} {column}: {text}, not {value}");
    }
    assert!(checked >= 8, "{phase} {name}: only {checked} columns");
    let verdict = shown.iter().find(|c| c.0 == "verdict").unwrap();
    assert_eq!(verdict.2, d.verdict.name(), "{phase} {name}");
}

fn assert_page(dom: &str, profile: &Profile) {
    assert_ready(dom);
    for phase in &profile.phases {
        for section in SECTIONS {
            let id = format!("id=\"{}-{section}\"", phase.phase);
            assert_eq!(dom.matches(&id).count(), 1, "{id}");
        }
        for row in &phase.kinds {
            let name = serde_json::to_value(row.kind).unwrap();
            assert_row(dom, phase.phase.name(), name.as_str().unwrap(), Some(&row.measured), &row.derived);
        }
    }
}

#[test]
fn the_page_shows_every_section_and_the_numbers_of_the_profile() {
    with_browser(|dom| {
        let profile = everything();
        let page = dom(&profile.to_html());
        assert_page(&page, &profile);
        for absent in ["were not recorded", "not timed", "not part of this profile"] {
            let main = &page[page.find("<main").unwrap()..page.find("</main>").unwrap()];
            assert!(!main.contains(absent), "nothing is absent from this profile, and yet: {absent}");
        }
    });
}

#[test]
fn absent_parts_are_told_and_nothing_fails() {
    with_browser(|dom| {
        let mut bare = profile();
        (bare.machine, bare.budget) = (None, None);
        bare.phases.truncate(1);
        for phase in &mut bare.phases {
            phase.timeline.clear();
            phase.threads.clear();
            phase.batches.clear();
            for m in
                phase.kinds.iter_mut().map(|k| &mut k.measured).chain(phase.steps.iter_mut().map(|s| &mut s.measured))
            {
                (m.us_per_token, m.threads) = (None, None);
            }
            for d in
                phase.kinds.iter_mut().map(|k| &mut k.derived).chain(phase.steps.iter_mut().map(|s| &mut s.derived))
            {
                (d.bound, d.budget) = (None, None);
            }
        }
        let page = dom(&bare.to_html());
        assert_ready(&page);
        assert!(page.contains("Times of single threads were not recorded."), "absent parts are told");
        for mode in [SyncMode::PerLayer, SyncMode::Deferred, SyncMode::None] {
            let page = dom(&profile_in(mode).to_html());
            assert_ready(&page);
        }
        assert!(dom(&profile_in(SyncMode::None).to_html()).contains("Nothing was recorded"));
    });
}

#[test]
fn a_large_model_has_a_page_too() {
    with_browser(|dom| {
        let profile = many_layers(128);
        assert_page(&dom(&profile.to_html()), &profile);
    });
}

#[test]
fn a_hostile_profile_runs_nothing() {
    with_browser(|dom| {
        let profile = hostile();
        let count = "<script>document.documentElement.dataset.made = `${document.images.length} images, \
                     ${document.scripts.length} scripts`;</script></body>";
        let page = dom(&profile.to_html().replace("</body>", count));
        assert_page(&page, &profile);
        assert!(!root(&page).contains("owned") && root(&page).contains("0 images, 3 scripts"), "{}", root(&page));
        // The name is there, as text.
        let shown = HOSTILE.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert!(page.contains(&format!("<h1 id=\"model\">{}", &shown[..20])), "the name is shown");
    });
}

#[test]
fn every_control_works() {
    with_browser(|dom| {
        for profile in [everything(), many_layers(1), profile_in(SyncMode::PerLayer), hostile()] {
            let page = profile.to_html().replace("</body>", &format!("<script>{EXERCISE}</script></body>"));
            let page = dom(&page);
            assert_ready(&page);
            assert!(!root(&page).contains("owned"));
            let used = root(&page).split_once("data-exercised=\"").expect("the exercise ended").1;
            let used: usize = used.split_once('"').unwrap().0.parse().unwrap();
            assert!(used >= 15, "only {used} controls were found");
        }
    });
}

#[test]
fn pictures_open_in_a_browser() {
    with_browser(|dom| {
        let profile = hostile();
        let svg = profile.to_roofline_svg(crate::Phase::Decode).unwrap();
        let flame = profile.to_flamegraph_svg().unwrap();
        for svg in [svg, flame] {
            // Parsed as XML, as a browser does with a file of its own: one mistake and there is no picture.
            let text = svg.replace('&', "&amp;").replace('<', "&lt;");
            let page = format!(
                "<!doctype html><html><textarea id=\"t\">{text}</textarea><script>const d = new \
                 DOMParser().parseFromString(document.getElementById('t').value, 'image/svg+xml'); \
                 document.documentElement.dataset.parsed = d.querySelector('parsererror') ? 'no' : \
                 d.documentElement.nodeName + d.querySelectorAll('text').length;</script></html>"
            );
            let root = root(&dom(&page)).to_owned();
            assert!(root.contains("data-parsed=\"svg"), "{root}");
        }
    });
}
