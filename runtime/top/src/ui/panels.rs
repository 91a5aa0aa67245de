//! Assertions, the GPU, and panels over or under a view.

use brick_profiler::format::{duration, number, percent};
use ratatui::text::{Line, Span};

use super::theme::{Theme, fit};
use super::{Body, Timing, UiState};
use crate::advice::advice;
use crate::checks::{Status, checks};
use crate::snapshot::Snapshot;

pub(super) fn assertions(s: &Snapshot, state: &UiState, theme: Theme) -> Body {
    let all = checks(s);
    let failed = all.iter().filter(|c| c.status == Status::Fails).count();
    let mut lines = vec![
        Line::from(format!(
            "{} of {} hold, {failed} fail",
            all.iter().filter(|c| c.status == Status::Holds).count(),
            all.len()
        )),
        Line::styled(
            "Values of activations are checked by `brick check` and `brick trace`, not while a model runs.",
            Theme::dim(),
        ),
        Line::default(),
    ];
    let first = lines.len();
    lines.extend(all.into_iter().enumerate().map(|(i, c)| {
        let style = match c.status {
            Status::Holds => theme.good(),
            Status::Fails => theme.bad(),
            Status::NotEvaluated => Theme::dim(),
        };
        let name = if i == state.row { Theme::selected() } else { ratatui::style::Style::new() };
        Line::from(vec![
            Span::styled(format!(" {} ", c.status.mark()), style),
            Span::styled(fit(&c.name, 46), name),
            format!("  {}", c.found).into(),
        ])
    }));
    Body { title: "assertions".into(), lines, selected: Some(first + state.row) }
}

pub(super) fn gpu(s: &Snapshot) -> Body {
    let backend = brick_profiler::format::clean(&s.run.backend);
    Body::new(
        "GPU",
        vec![
            Line::from(format!("not available: this run uses the CPU backend ({backend})")),
            Line::default(),
            Line::from("w shows what its threads do, m what its memory does"),
        ],
    )
}

pub(super) fn tuner(s: &Snapshot, width: usize) -> Body {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for a in advice(s) {
        let seen = format!("• {}", a.seen);
        if seen.chars().count() + a.then.chars().count() + 3 <= width {
            lines.push(Line::from(format!("{seen} → {}", a.then)));
        } else {
            lines.push(Line::from(seen));
            lines.push(Line::from(format!("  → {}", a.then)));
        }
    }
    if lines.is_empty() {
        lines.push(Line::from("nothing stands out"));
    }
    Body::new("tuner: derived from the figures above", lines)
}

pub(super) fn debug(s: &Snapshot, t: Timing) -> Body {
    let m = &s.measured;
    let ms = |d: std::time::Duration| format!("{:.2} ms", d.as_secs_f64() * 1e3);
    let made = m.frame_us.map_or_else(|| "–".to_owned(), duration);
    Body::new(
        "debug",
        vec![
            Line::from(format!(
                "frame time {} (drawing) · data {} ms old · {} snapshots came",
                ms(t.frame),
                t.age.as_millis(),
                t.snapshots
            )),
            Line::from(format!(
                "a snapshot costs the run {made}, at most 1 % of its time · {} dropped, since nobody took them",
                m.frames_dropped
            )),
            Line::from(format!(
                "reading the clock took {}* of the run · {} forward calls of {}, {} tokens, {}",
                s.derived.clock_overhead.map_or_else(|| "–".into(), percent),
                m.forwards,
                s.phase,
                m.tokens,
                duration(m.wall_us)
            )),
            Line::from(format!(
                "process {} · brick {} · coverage {}*",
                s.pid,
                brick_profiler::format::clean(&s.build.version),
                s.derived.coverage.map_or_else(|| "–".into(), |c| number(c * 100.0) + "%")
            )),
        ],
    )
}

pub(super) fn help() -> Body {
    const KEYS: [(&str, &str); 15] = [
        ("↑ ↓  j k", "select (PgUp, PgDn, Home, End as well)"),
        ("Enter", "the single bricks of the selected kind, with their histogram"),
        ("b", "budget and actual time side by side"),
        ("h", "histogram of the selected kind: p50, p99, p99.9"),
        ("m", "memory bandwidth of every kind"),
        ("w", "threads: busy and waiting (a GPU's warps)"),
        ("a", "assertions"),
        ("l", "layers × kinds as a heat map"),
        ("g", "GPU"),
        ("t", "tuner: what to look at next"),
        ("d", "debug: frame time, cost of looking"),
        ("p  Space", "pause, and go on"),
        ("?", "this help"),
        ("Esc", "back; quit from the pipeline"),
        ("q  Ctrl-C", "quit"),
    ];
    let mut lines: Vec<Line<'static>> =
        KEYS.iter().map(|(key, what)| Line::from(format!(" {key:<10} {what} "))).collect();
    lines.push(Line::default());
    lines.push(Line::from(" ✓ within budget, ✗ over it, – no budget; * derived, ! cannot be true "));
    Body::new("keys", lines)
}
