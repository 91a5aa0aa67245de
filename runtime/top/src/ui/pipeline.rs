//! Kinds of bricks against their budgets, the bottleneck, totals.

use std::fmt::Write;

use brick_profiler::format::{clean, number, percent};
use brick_profiler::profile::{Flag, Verdict};
use ratatui::text::{Line, Span};

use super::theme::{Theme, bar_with_mark, fit, sparkline};
use super::{Body, UiState};
use crate::checks::Status;
use crate::snapshot::{BrickRow, Snapshot};

/// Where a bar has its budget: what is beyond is over it.
pub(super) const BUDGET_AT: f64 = 0.6;
/// Columns of a row besides its bar.
const FIXED: usize = 54;

pub(super) fn view(s: &Snapshot, state: &UiState, theme: Theme, width: usize) -> Body {
    let mut lines = vec![throughput(s, theme), progress(s, width), Line::default()];
    let bar = width.saturating_sub(FIXED).clamp(4, 40);
    lines.push(Line::styled(
        format!(
            "  {:<10} {:>9}   {} {:>7} {:>7} {:>12}",
            "brick",
            "µs/tok",
            fit("of budget*", bar),
            "",
            "share*",
            "of limit*"
        ),
        Theme::dim(),
    ));
    let first = lines.len();
    lines.extend(s.bricks.iter().enumerate().map(|(i, row)| brick(row, i == state.brick, theme, bar)));
    lines.push(Line::default());
    lines.extend(pointer(s));
    lines.extend(layers(s, theme));
    Body { title: "pipeline".into(), lines, selected: Some(first + state.brick.min(s.bricks.len())) }
}

fn throughput(s: &Snapshot, theme: Theme) -> Line<'static> {
    let (d, m) = (&s.derived, &s.measured);
    let rate = |x: Option<f64>| x.map_or_else(|| "–".to_owned(), number);
    let mut spans = vec![
        Span::styled(format!("{} tok/s* now", rate(d.tokens_per_s)), Theme::bold()),
        format!(", {}* overall", rate(d.tokens_per_s_overall)).into(),
    ];
    if let Some(b) = d.budget {
        spans.push(format!(" · budget {} tok/s*, ", number(1e6 / b.us_per_token)).into());
        spans.push(Span::styled(format!("gap {:.2}×* {}", b.gap_factor, d.verdict.name()), verdict(d.verdict, theme)));
    }
    if let Some(ms) = m.ttft_ms {
        spans.push(format!(" · first token {} ms", number(ms)).into());
    }
    Line::from(spans)
}

/// How full the context is, and how long the last calls took.
fn progress(s: &Snapshot, width: usize) -> Line<'static> {
    let (at, of) = (s.measured.context, s.run.context);
    let filled = if of > 0 { at as f64 / of as f64 } else { 0.0 };
    let recent = sparkline(&s.measured.recent_us_per_token, width.saturating_sub(58).min(64));
    Line::from(vec![
        format!("context ▕{}▏ {at} of {of}", super::theme::bar(filled.min(1.0), 12)).into(),
        "   last calls ".into(),
        Span::styled(recent, Theme::dim()),
    ])
}

fn brick(row: &BrickRow, selected: bool, theme: Theme, width: usize) -> Line<'static> {
    let doubt = if row.derived.flags.iter().any(|f| *f != Flag::NearClockResolution) { "!" } else { " " };
    let name =
        format!("{} {:<10} {:>9}{doubt}", if selected { "▸" } else { " " }, row.kind.name(), number(row.actual_us()));
    let (mark, filled, of_budget) = match row.derived.budget {
        Some(b) => (mark(row.derived.verdict), b.gap_factor, percent_of(b.gap_factor)),
        None => (Status::NotEvaluated.mark(), 0.0, "–".to_owned()),
    };
    let bound = row
        .derived
        .bound
        .map_or_else(|| "–".to_owned(), |b| format!("{:.0}% {}", b.fraction * 100.0, b.resource.name()));
    let style = if selected { Theme::selected() } else { ratatui::style::Style::new() };
    Line::from(vec![
        Span::styled(name, style),
        " ".into(),
        Span::styled(mark, verdict(row.derived.verdict, theme)),
        " ".into(),
        Span::styled(bar_with_mark(filled * BUDGET_AT, BUDGET_AT, width), verdict(row.derived.verdict, theme)),
        format!(" {of_budget:>6} {:>7} {bound:>12}", percent(row.derived.share)).into(),
    ])
}

/// `92%`, and no figure of seven digits for a brick far over its budget.
fn percent_of(gap: f64) -> String {
    let percent = gap * 100.0;
    if percent < 99_999.0 { format!("{percent:.0}%") } else { ">99999%".into() }
}

pub(super) fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Within => Status::Holds.mark(),
        Verdict::Over => Status::Fails.mark(),
        Verdict::NoBudget | Verdict::NotMeasured => Status::NotEvaluated.mark(),
    }
}

pub(super) fn verdict(verdict: Verdict, theme: Theme) -> ratatui::style::Style {
    match verdict {
        Verdict::Within => theme.good(),
        Verdict::Over => theme.bad(),
        Verdict::NoBudget | Verdict::NotMeasured => Theme::dim(),
    }
}

fn pointer(s: &Snapshot) -> Option<Line<'static>> {
    let b = s.bottleneck.as_ref()?;
    let mut text = format!(
        "└─▶ bottleneck: {} {} µs, {}* of the time",
        clean(&b.brick_name),
        number(b.actual_us),
        percent(b.share)
    );
    if let (Some(budget), Some(gap)) = (b.budget_us, b.gap_factor) {
        // Writing to a string does not fail.
        let _ = write!(text, ", {gap:.2}×* its budget of {} µs*", number(budget));
    }
    Some(Line::styled(text, Theme::bold()))
}

fn layers(s: &Snapshot, theme: Theme) -> Option<Line<'static>> {
    let (us, n) = s.layer_us()?;
    let mut spans = vec![format!("layer {} µs (mean of {n})", number(us)).into()];
    if let Some(budget) = s.layer_budget_us() {
        let verdict_of = if us <= budget { Verdict::Within } else { Verdict::Over };
        spans.push(format!(", target {} µs* ", number(budget)).into());
        spans.push(Span::styled(format!("{} {}", mark(verdict_of), verdict_of.name()), verdict(verdict_of, theme)));
    }
    if let (Some(score), Some(row)) = (s.derived.score, s.measured.us_per_token) {
        spans.push(format!(" · score {score}* · CV {}", percent(row.cv)).into());
    }
    Some(Line::from(spans))
}
