//! Frames, drawn without a terminal.

use brick_top::Snapshot;
use brick_top::snapshot::Facts;
use brick_top::ui::{Link, Screen, Theme, Timing, UiState, View, to_text};

use crate::claim::{Outcome, Refusal, require, require_some};
use crate::context::Context;
use crate::runs;

/// A frame of a small model on this machine.
fn snapshot(context: &Context) -> Result<Snapshot, Refusal> {
    let machine = brick_profiler::Machine::load_or_measure()?;
    let profile = runs::profile(&context.synthetic("spm-tiny")?.model, &machine)?;
    Ok(Snapshot::of(&profile, &Facts::default())?)
}

fn drawn(snapshot: Option<&Snapshot>, state: &UiState, size: (u16, u16)) -> String {
    let timing = Timing::default();
    let screen = Screen { snapshot, link: &Link::Driving, timing, state, theme: Theme { color: true } };
    to_text(&screen, size.0, size.1)
}

pub(super) fn any_size(context: &Context) -> Outcome {
    let s = snapshot(context)?;
    let mut frames = 0;
    for width in [1, 2, 10, 20, 39, 40, 60, 80, 120, 300] {
        for height in [1, 2, 5, 9, 10, 24, 60] {
            for view in View::ALL {
                for (help, debug) in [(false, true), (true, false)] {
                    let state = UiState { view, help, debug, ..UiState::default() };
                    for snapshot in [Some(&s), None] {
                        let text = drawn(snapshot, &state, (width, height));
                        let rows = text.lines().count();
                        require(rows == usize::from(height), format!("{height} rows"), || rows.to_string())?;
                        frames += 1;
                    }
                }
            }
        }
    }
    Ok(format!("{frames} frames of 9 views, 1 × 1 to 300 × 60"))
}

pub(super) fn all_names(context: &Context) -> Outcome {
    let s = snapshot(context)?;
    let text = drawn(Some(&s), &UiState::default(), (120, 40));
    for row in &s.bricks {
        let name = row.kind.name();
        require(text.lines().any(|l| l.split_whitespace().any(|w| w == name)), name, || text.clone())?;
    }
    Ok(format!("{} kinds", s.bricks.len()))
}

pub(super) fn drill_down(context: &Context) -> Outcome {
    let s = snapshot(context)?;
    let row = require_some(s.bricks.iter().position(|b| b.in_graph), "a brick of the graph")?;
    for view in [View::Drill, View::Histogram] {
        let text = drawn(Some(&s), &UiState { view, brick: row, ..UiState::default() }, (120, 50));
        for label in ["p50 ", "p99 ", "p99.9 "] {
            require(text.contains(label), label, || text.clone())?;
        }
        let bars = text.lines().filter(|l| l.contains('≤'));
        let calls: u64 =
            bars.filter_map(|l| l.trim_end_matches(['│', ' ']).rsplit(' ').next()?.parse::<u64>().ok()).sum();
        require(calls == s.measured.forwards, format!("{} calls in the bars", s.measured.forwards), || {
            format!("{calls}\n{text}")
        })?;
    }
    Ok(format!("p50, p99, p99.9, and all {} calls in the bars", s.measured.forwards))
}

pub(super) fn debug_panel(context: &Context) -> Outcome {
    let s = snapshot(context)?;
    let timing = Timing { frame: std::time::Duration::from_micros(1230), ..Timing::default() };
    let state = UiState { debug: true, ..UiState::default() };
    let screen =
        Screen { snapshot: Some(&s), link: &Link::Driving, timing, state: &state, theme: Theme { color: false } };
    let with = to_text(&screen, 100, 30);
    require(with.contains("frame time 1.23 ms"), "the time of the frame before", || with.clone())?;
    let without = drawn(Some(&s), &UiState::default(), (100, 30));
    require(!without.contains("frame time"), "nothing while the panel is closed", || without.clone())?;
    Ok("frame time 1.23 ms".into())
}
