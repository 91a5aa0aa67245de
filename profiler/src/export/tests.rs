//! Exports without a browser: formats, sums, hostile names.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bricks::{BrickKind, Extent};
use serde_json::{Value, json};

use super::ExportError;
use crate::budget::{BudgetTable, Roofline};
use crate::clock::ManualClock;
use crate::machine::tests::machine;
use crate::profile::Profile;
use crate::record::{BrickProfiler, Recorder, SyncMode};
use crate::step::Phase;
use crate::testing::{plan, profile, profile_against, profile_in};

/// What somebody could call a model.
pub(super) const HOSTILE: &str = "</script><script>document.documentElement.dataset.owned=1</script><img src=x \
    onerror=\"document.documentElement.dataset.owned=2\"><!-- \u{2028}\u{2029}\u{202e}\u{1b}[2J\n; 1 ]]> {{data}} '\"` & %";

const TRACE_SCHEMA: &str = include_str!("../../../docs/schema/trace-event.schema.json");

fn changed(profile: &Profile, change: impl FnOnce(&mut Value)) -> Profile {
    let mut value = serde_json::to_value(profile).unwrap();
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

/// A profile of `layers` layers: a prompt of 16 tokens and `calls` decoded ones, all of them kept.
fn recorded(layers: u32, calls: u64) -> Profile {
    let steps = plan(layers);
    let mut recording = BrickProfiler::with_clock(&steps, 64, SyncMode::Immediate, ManualClock::new());
    let mut forward = |tokens: u64, context, phase, scale: u64| {
        recording.begin_forward(&Extent::one_sequence(tokens, context, 1), phase);
        for (i, step) in steps.iter().enumerate() {
            let ns = match step.kind {
                BrickKind::LmHead => 9_000,
                BrickKind::RmsNorm | BrickKind::FinalNorm => 151,
                BrickKind::Activation => 43,
                _ => 2_000 + 37 * (i as u64 % 11),
            };
            recording.clock().advance(ns * scale);
            recording.step_done(i);
        }
        recording.clock().advance(301);
        recording.end_forward();
        recording.record_external(BrickKind::Sample, 701);
        recording.clock().advance(1_003);
    };
    forward(16, 16, Phase::Prefill, 5);
    for i in 0..calls {
        forward(1, 17 + i, Phase::Decode, 10 + i % 3);
    }
    let machine = machine();
    let budgets = BudgetTable::from(Roofline::new(&machine, recording.steps(), 2));
    profile_against(&mut recording, Some(&budgets), Some(&machine))
}

pub(super) fn many_layers(layers: u32) -> Profile {
    recorded(layers, 12)
}

/// A profile in which no optional part is absent.
pub(super) fn everything() -> Profile {
    changed(&recorded(6, 3), |v| {
        for phase in v["phases"].as_array_mut().unwrap() {
            phase["threads"] = json!([
                {"thread": 0, "busy_us": 900.5, "wait_us": 40.25}, {"thread": 1, "busy_us": 700.0, "wait_us": 240.75},
            ]);
            phase["batches"] = json!([
                {"tokens": 1, "forwards": 3, "us_per_token": phase["measured"]["us_per_token"]},
                {"tokens": 16, "forwards": 2, "us_per_token": phase["measured"]["us_per_token"]},
            ]);
            for list in ["kinds", "steps"] {
                for row in phase[list].as_array_mut().unwrap() {
                    let us = row["measured"]["total_us"].as_f64().unwrap();
                    row["measured"]["threads"] =
                        json!({"busy_us": [us * 0.95, us * 0.75], "wait_us": [us * 0.05, us * 0.25]});
                    if list == "kinds" {
                        row["measured"]["histogram"] =
                            json!([[1024, 0], [1280, 4], [1536, 1], [1792, 0], [2048, 2], [4096, 0]]);
                    }
                }
            }
        }
    })
}

/// A profile whose every name was chosen to do harm.
pub(super) fn hostile() -> Profile {
    changed(&everything(), |v| {
        v["model"]["name"] = json!(HOSTILE);
        v["model"]["architecture"] = json!(HOSTILE);
        v["run"]["backend"] = json!(HOSTILE);
        v["machine"]["fingerprint"]["cpu_model"] = json!(HOSTILE);
        v["budget"]["source"] = json!(HOSTILE);
        for phase in v["phases"].as_array_mut().unwrap() {
            for step in phase["steps"].as_array_mut().unwrap().iter_mut().step_by(3) {
                step["name"] = json!(format!("{HOSTILE}{}", step["name"]));
                step["kernel"] = json!(HOSTILE);
            }
        }
    })
}

// ---- HTML ------------------------------------------------------------------------------------------------------------

/// The data of a page, as its own parser finds it: up to the first `</script`.
fn data(page: &str) -> &str {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    rest.split_once("</script").unwrap().0
}

#[test]
fn a_page_needs_nothing_but_itself() {
    let page = profile().to_html();
    for reference in ["http://", "https://", " src=", "@import", "url(", "fetch(", "XMLHttpRequest", "import("] {
        let found = page.match_indices(reference).map(|(i, _)| &page[i..(i + 60).min(page.len())]);
        // The name space of SVG is a name, and a clip path is in the page itself.
        let outside: Vec<&str> =
            found.filter(|s| !s.starts_with("http://www.w3.org/") && !s.starts_with("url(#")).collect();
        assert!(outside.is_empty(), "{outside:?}");
    }
    assert!(page.contains("default-src 'none'"), "and its policy says so");
    let size = page.len() - data(&page).len();
    assert!(size < 150_000, "{size} bytes without the data");
    assert_eq!(page.matches("{{").count(), 0, "every placeholder is filled");
    assert!(!page.contains("innerHTML") && !page.contains("document.write") && !page.contains("eval("));
    assert_eq!(page.to_lowercase().matches("</script").count(), 2, "no script ends another");
}

#[test]
fn the_data_of_a_page_is_the_profile() {
    for p in [profile(), everything(), hostile(), profile_in(SyncMode::PerLayer), profile_in(SyncMode::None)] {
        let page = p.to_html();
        let value: Value = serde_json::from_str(data(&page)).unwrap();
        assert_eq!(serde_json::from_value::<Profile>(value["profile"].clone()).unwrap(), p);
        assert_eq!(value["names"]["qkv"]["name"], "QKV");
        assert_eq!(value["names"].as_object().unwrap().len(), BrickKind::COUNT);
    }
}

#[test]
fn no_name_becomes_markup() {
    let (tame, wild) = (everything().to_html(), hostile().to_html());
    let json = data(&wild);
    assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "nothing in the data can end it");
    assert_eq!(wild.replacen(json, "", 1), tame.replacen(data(&tame), "", 1), "outside of the data pages are equal");
}

// ---- trace -----------------------------------------------------------------------------------------------------------

fn events(trace: &str) -> Vec<Value> {
    let value: Value = serde_json::from_str(trace).unwrap();
    value["traceEvents"].as_array().unwrap().clone()
}

fn trace_schema() -> jsonschema::Validator {
    jsonschema::validator_for(&serde_json::from_str(TRACE_SCHEMA).unwrap()).unwrap()
}

#[test]
fn traces_keep_to_the_format() {
    let schema = trace_schema();
    let modes = [SyncMode::Immediate, SyncMode::PerLayer, SyncMode::Deferred, SyncMode::None].map(profile_in);
    for p in modes.into_iter().chain([everything(), hostile(), without_timeline()]) {
        let value: Value = serde_json::from_str(&p.to_chrome_trace()).unwrap();
        let errors: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

#[test]
fn the_schema_of_traces_refuses_what_is_none() {
    let schema = trace_schema();
    let event = |e: Value| json!({"traceEvents": [e]});
    let good = json!({"ph": "X", "pid": 1, "tid": 1, "ts": 0, "dur": 1.5, "name": "a", "cat": "x,y", "args": {}});
    assert!(schema.is_valid(&event(good.clone())));
    assert!(schema.is_valid(&event(json!({"ph": "i", "pid": 1, "tid": 1, "ts": 2, "name": "a", "s": "t"}))));
    assert!(schema.is_valid(&event(json!({"ph": "C", "pid": 1, "ts": 2, "name": "a", "args": {"bytes": 5}}))));
    for (key, value) in [
        ("ts", Value::Null),
        ("dur", Value::Null),
        ("tid", Value::Null),
        ("pid", Value::Null),
        ("name", Value::Null),
        ("ts", json!("0")),
        ("dur", json!(-1)),
        ("ph", json!("Q")),
        ("ph", json!("i")),
        ("cat", json!(["x"])),
        ("args", json!([])),
    ] {
        let mut bad = good.clone();
        match value {
            Value::Null => drop(bad.as_object_mut().unwrap().remove(key)),
            v => bad[key] = v,
        }
        assert!(!schema.is_valid(&event(bad.clone())), "{bad}");
    }
    for bad in [
        json!([]),
        json!({"traceEvents": {}}),
        json!({"traceEvents": [], "displayTimeUnit": "us"}),
        event(json!({"ph": "M", "pid": 1, "name": "process_name", "args": {}})),
        event(json!({"ph": "M", "pid": 1, "name": "thread_sort_index", "args": {"sort_index": "1"}})),
        event(json!({"ph": "C", "pid": 1, "ts": 2, "name": "a", "args": {"bytes": "many"}})),
        event(json!({"ph": "b", "pid": 1, "ts": 2, "name": "a"})),
    ] {
        assert!(!schema.is_valid(&bad), "{bad}");
    }
}

fn without_timeline() -> Profile {
    changed(&everything(), |v| {
        for phase in v["phases"].as_array_mut().unwrap() {
            phase["timeline"] = json!([]);
        }
    })
}

/// Whole nanoseconds of a µs figure.
fn ns(v: &Value) -> i64 {
    (v.as_f64().unwrap() * 1e3).round() as i64
}

/// Spans of a category, summed by brick.
fn sums(events: &[Value], category: &str) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for e in events.iter().filter(|e| e["cat"] == category) {
        *sums.entry(e["args"]["brick"].as_str().unwrap().to_owned()).or_default() += ns(&e["dur"]);
    }
    sums
}

#[test]
fn spans_of_bricks_add_up_to_the_table() {
    let p = everything();
    let events = events(&p.to_chrome_trace());
    for phase in &p.phases {
        assert_eq!(phase.timeline.len() as u64, phase.measured.forwards, "all calls were kept");
        let table: BTreeMap<String, i64> =
            phase.steps.iter().map(|s| (s.name.clone(), (s.measured.total_us * 1e3).round() as i64)).collect();
        assert_eq!(sums(&events, &format!("brick,{}", phase.phase)), table);
        // Each thread has the kernels once.
        let kernels = sums(&events, &format!("kernel,{}", phase.phase));
        assert!(table.iter().all(|(name, ns)| kernels[name] == 2 * ns));
        let forwards = events.iter().filter(|e| e["cat"] == format!("forward,{}", phase.phase));
        let wall: i64 = forwards.map(|e| ns(&e["dur"])).sum();
        assert_eq!(wall, (phase.measured.wall_us * 1e3).round() as i64);
    }
}

#[test]
fn spans_nest_and_come_in_order() {
    for p in [everything(), without_timeline(), many_layers(3)] {
        let events = events(&p.to_chrome_trace());
        let first = events.iter().position(|e| e["ph"] == "X").unwrap();
        assert!(events[first..].iter().all(|e| e["ph"] == "X"), "names come before spans");
        let mut last = 0;
        let mut open: BTreeMap<(i64, i64), Vec<i64>> = BTreeMap::new();
        for e in &events[first..] {
            let (begin, end) = (ns(&e["ts"]), ns(&e["ts"]) + ns(&e["dur"]));
            assert!(begin >= last, "in the order of time");
            last = begin;
            let stack = open.entry((e["pid"].as_i64().unwrap(), e["tid"].as_i64().unwrap())).or_default();
            while stack.last().is_some_and(|outer| *outer <= begin) {
                stack.pop();
            }
            assert!(stack.last().is_none_or(|outer| end <= *outer), "{e} ends after what it is in");
            stack.push(end);
        }
        let named = |pid, what: &str| events.iter().filter(|e| e["name"] == what && e["pid"] == pid).count();
        assert_eq!((named(1, "thread_name"), named(1, "process_name")), (2, 1), "a track per thread of the gang");
        assert_eq!(named(2, "thread_name"), p.phases[0].layers.iter().filter(|l| l.layer.is_some()).count() + 1);
    }
}

/// Readers add `ts` and `dur`, some after they moved a track to 0; a difference in the last bit is an error to speedscope.
#[test]
fn spans_nest_after_readers_moved_and_added_their_figures() {
    let trace = many_layers(4).to_chrome_trace();
    for moved in [false, true] {
        let mut tracks: BTreeMap<(&str, &str), (f64, Vec<f64>)> = BTreeMap::new();
        let mut spans = 0;
        for event in trace.split("{\"ph\":\"X\"").skip(1) {
            // Parsed from the text: serde_json may be off by a bit.
            let field = |name: &str| event.split_once(&format!("\"{name}\":")).unwrap().1.split(',').next().unwrap();
            let (ts, dur) = (field("ts").parse::<f64>().unwrap(), field("dur").parse::<f64>().unwrap());
            let (first, open) = tracks.entry((field("pid"), field("tid"))).or_insert((ts, vec![]));
            let ts = if moved { ts - *first } else { ts };
            while open.last().is_some_and(|outer| *outer <= ts) {
                open.pop();
            }
            assert!(open.last().is_none_or(|outer| ts + dur <= *outer), "moved: {moved}, {event}");
            open.push(ts + dur);
            spans += 1;
        }
        assert!(spans > 400, "{spans}");
    }
}

#[test]
fn a_trace_of_two_calls() {
    let p = recorded(1, 1);
    let lines = p.to_chrome_trace().replace("},{\"ph\"", "},\n{\"ph\"");
    insta::assert_snapshot!(lines);
}

#[test]
fn without_single_calls_there_is_a_mean_one() {
    let p = without_timeline();
    let events = events(&p.to_chrome_trace());
    let forwards: Vec<&Value> = events.iter().filter(|e| e["name"] == "mean forward*").collect();
    assert_eq!(forwards.len(), 2);
    assert_eq!(ns(&forwards[1]["ts"]), ns(&forwards[0]["ts"]) + ns(&forwards[0]["dur"]), "one after the other");
    assert_eq!(forwards[1]["args"]["derived"]["mean_of_forwards"], 3);
    let bare = self::events(&profile_in(SyncMode::PerLayer).to_chrome_trace());
    let spans: Vec<&Value> = bare.iter().filter(|e| e["ph"] == "X").collect();
    assert!(spans.iter().any(|e| e["name"] == "layer 1") && spans.iter().all(|e| e["args"]["brick"].is_null()));
}

#[test]
fn threads_show_how_busy_they_were() {
    let events = events(&everything().to_chrome_trace());
    let working: Vec<&Value> = events.iter().filter(|e| e["name"] == "working*").collect();
    let kernels = events.iter().filter(|e| e["cat"].as_str().is_some_and(|c| c.starts_with("kernel"))).count();
    assert_eq!(working.len(), kernels);
    for (thread, fraction) in [(1, 0.95), (2, 0.75)] {
        let sum = |start: &str| -> f64 {
            let of =
                events.iter().filter(|e| e["tid"] == thread && e["cat"].as_str().is_some_and(|c| c.starts_with(start)));
            of.map(|e| e["dur"].as_f64().unwrap()).sum()
        };
        let found = sum("derived") / sum("kernel");
        assert!((found - fraction).abs() < 1e-3, "thread {thread}: {found}");
    }
}

// ---- stacks ----------------------------------------------------------------------------------------------------------

#[test]
fn folded_stacks() {
    insta::assert_snapshot!(profile().to_folded());
}

#[test]
fn folded_stacks_of_layers() {
    insta::assert_snapshot!(profile_in(SyncMode::PerLayer).to_folded());
}

#[test]
fn stacks_add_up_to_wall_time_and_host_work() {
    for p in [profile(), everything(), hostile(), profile_in(SyncMode::PerLayer)] {
        let folded = p.to_folded();
        for phase in &p.phases {
            let of_phase = folded.lines().filter(|l| l.split(';').nth(1) == Some(phase.phase.name()));
            let ns: f64 = of_phase.map(|l| l.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum();
            let expected = (phase.measured.wall_us + phase.measured.external_us) * 1e3;
            assert!((ns - expected).abs() < 0.5 + phase.steps.len() as f64 * 1e-3, "{ns}, expected {expected}");
        }
    }
}

#[test]
fn a_hostile_name_stays_in_its_frame() {
    for line in hostile().to_folded().lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        assert!(count.parse::<u64>().is_ok(), "{line}");
        assert!(matches!(stack.split(';').count(), 3 | 5), "{line}");
    }
    let svg = hostile().to_flamegraph_svg().unwrap();
    assert!(!svg.contains("<img") && !svg.contains("</script><script>"), "escaped");
}

#[test]
fn a_flame_graph_shows_every_brick() {
    let p = profile();
    let svg = p.to_flamegraph_svg().unwrap();
    for phase in &p.phases {
        for step in &phase.steps {
            assert!(svg.contains(&format!("<title>{} (", step.name)), "{}", step.name);
        }
    }
    assert_eq!(svg, p.to_flamegraph_svg().unwrap(), "no colour by chance");
    let none = profile_in(SyncMode::None).to_flamegraph_svg();
    assert!(matches!(none, Err(ExportError::NothingRecorded)));
}

// ---- roofline --------------------------------------------------------------------------------------------------------

#[test]
fn roofline_in_ascii() {
    let p = profile();
    for width in [0, 60, 80, 120, 500] {
        let text = p.to_roofline_ascii(Phase::Prefill, width).unwrap();
        let longest = text.lines().map(str::len).max().unwrap();
        assert!(text.is_ascii() && longest <= width.clamp(60, 120), "{longest} at {width}");
    }
    insta::assert_snapshot!("roofline_ascii_100", p.to_roofline_ascii(Phase::Prefill, 100).unwrap());
    insta::assert_snapshot!("roofline_ascii_60", p.to_roofline_ascii(Phase::Decode, 60).unwrap());
}

#[test]
fn roofline_in_svg() {
    insta::assert_snapshot!(profile().to_roofline_svg(Phase::Prefill).unwrap());
}

#[test]
fn every_point_is_where_its_figures_are() {
    let p = profile();
    let text = p.to_roofline_ascii(Phase::Decode, 120).unwrap();
    let decode = p.phase(Phase::Decode).unwrap();
    let row = decode.kind(BrickKind::GateUp).unwrap();
    let w = &row.derived.work;
    let intensity = (w.int_ops_per_token + w.flops_per_token) / w.bytes_per_token;
    let line = text.lines().find(|l| l.contains(" GateUp ")).unwrap();
    assert!(line.contains(&crate::report::number(intensity)), "{line}");
    assert!(line.contains(&crate::report::number(w.int_gop_per_s.unwrap())), "{line}");
    let bound = row.derived.bound.as_ref().unwrap();
    assert!(line.contains(&format!("{:.1}%  {}", bound.fraction * 100.0, bound.resource.name())), "{line}");
    assert!(text.contains("without bytes or operations: Sample"), "{text}");
}

#[test]
fn a_roofline_without_a_machine_has_no_ceilings() {
    let bare = changed(&profile(), |v| {
        v["machine"] = Value::Null;
        for phase in v["phases"].as_array_mut().unwrap() {
            for row in phase["kinds"].as_array_mut().unwrap() {
                row["derived"]["bound"] = Value::Null;
            }
        }
    });
    let text = bare.to_roofline_ascii(Phase::Decode, 80).unwrap();
    assert!(!text.contains("limits:") && text.contains("A LmHead"), "{text}");
    let svg = bare.to_roofline_svg(Phase::Decode).unwrap();
    assert!(!svg.contains("class=\"memory\"") && svg.contains("not measured"));
    assert_eq!(profile().to_roofline_ascii(Phase::Mixed, 80), None);
    assert_eq!(profile_in(SyncMode::PerLayer).to_roofline_svg(Phase::Decode), None);
    let svg = hostile().to_roofline_svg(Phase::Decode).unwrap();
    assert!(!svg.contains("<script") && !svg.contains("<img"));
}

#[test]
fn absurd_figures_do_not_break_a_plot() {
    for absurd in [0.0, 1e-300, 1e300] {
        let p = changed(&profile(), |v| {
            for row in v["phases"][1]["kinds"].as_array_mut().unwrap() {
                row["derived"]["work"]["bytes_per_token"] = json!(absurd);
                if let Some(bound) = row["derived"]["bound"].as_object_mut() {
                    bound["us_per_token"] = json!(absurd);
                }
            }
            v["machine"]["measured"]["read"][0]["gb_s"]["all"] = json!(absurd);
        });
        assert!(p.to_roofline_ascii(Phase::Decode, 80).is_some() && p.to_roofline_svg(Phase::Decode).is_some());
    }
}
