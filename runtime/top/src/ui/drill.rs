//! The selected kind: its single bricks, and how its times are spread.

use brick_profiler::format::{clean, duration, number, percent};
use brick_profiler::profile::{Histogram, Verdict};
use ratatui::text::{Line, Span};

use super::theme::{Theme, bar, fit};
use super::{Body, UiState};
use crate::snapshot::{BrickRow, Snapshot, StepCell};

/// Bars of a histogram.
const BINS: usize = 12;
/// Bars of the histogram above the single bricks.
const FEW_BINS: usize = 6;

pub(super) fn view(s: &Snapshot, state: &UiState, theme: Theme, width: usize) -> Body {
    let Some(row) = state.selected(s) else { return Body::new("bricks", vec![Line::from("no bricks")]) };
    let mut lines = summary(row);
    lines.extend(bars(row.measured.histogram.as_ref(), FEW_BINS, theme, width));
    lines.push(Line::default());
    let steps: Vec<&StepCell> = s.steps_of(row.kind).collect();
    let slowest = steps.iter().map(|c| c.mean_us_per_token).fold(0.0, f64::max);
    let name = steps.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).clamp(8, 28);
    let room = width.saturating_sub(name + 50).clamp(4, 24);
    let header = format!(
        "  {} {:>9} {:>9} {:>9}   {} {:>9}  kernel",
        fit("brick", name),
        "p50 µs",
        "mean µs",
        "budget*",
        fit("time", room),
        "of limit*"
    );
    lines.push(Line::styled(header, Theme::dim()));
    let first = lines.len();
    lines.extend(steps.iter().enumerate().map(|(i, c)| step(c, i == state.row, slowest, (name, room), theme)));
    if steps.is_empty() {
        lines.push(Line::from("  host work between forward calls: no bricks of the graph"));
    }
    Body {
        title: format!("{} · {} bricks", row.kind, steps.len()),
        lines,
        selected: Some(first + state.row.min(steps.len().saturating_sub(1))),
    }
}

fn step(c: &StepCell, selected: bool, slowest: f64, (name, room): (usize, usize), theme: Theme) -> Line<'static> {
    let some = |x: Option<f64>| x.map_or_else(|| "–".to_owned(), number);
    let verdict = match (c.p50_us_per_token, c.budget_us_per_token) {
        (Some(us), Some(budget)) if us <= budget => Verdict::Within,
        (Some(_), Some(_)) => Verdict::Over,
        _ => Verdict::NoBudget,
    };
    let text = format!("{} {}", if selected { "▸" } else { " " }, fit(&clean(&c.name), name));
    let relative = if slowest > 0.0 { c.mean_us_per_token / slowest } else { 0.0 };
    Line::from(vec![
        Span::styled(text, if selected { Theme::selected() } else { ratatui::style::Style::new() }),
        format!(
            " {:>9} {:>9} {:>9} ",
            some(c.p50_us_per_token),
            number(c.mean_us_per_token),
            some(c.budget_us_per_token)
        )
        .into(),
        Span::styled(super::pipeline::mark(verdict), super::pipeline::verdict(verdict, theme)),
        format!(
            " {} {:>9}  ",
            bar(relative, room),
            c.of_limit.map_or_else(|| "–".into(), |x| format!("{:.0}%", x * 100.0))
        )
        .into(),
        Span::styled(clean(&c.kernel), Theme::dim()),
    ])
}

/// The histogram alone, in more bars.
pub(super) fn histogram(s: &Snapshot, state: &UiState, theme: Theme, width: usize) -> Body {
    let Some(row) = state.selected(s) else { return Body::new("latency", vec![Line::from("no bricks")]) };
    let mut lines = summary(row);
    lines.push(Line::default());
    lines.extend(bars(row.measured.histogram.as_ref(), BINS, theme, width));
    lines.push(Line::default());
    lines.push(Line::styled("all recorded forward calls; percentiles to within 1 %, nearest rank", Theme::dim()));
    Body::new(format!("latency of {} per forward call", row.kind), lines)
}

fn summary(row: &BrickRow) -> Vec<Line<'static>> {
    let m = &row.measured;
    let mut lines = Vec::new();
    match m.histogram.as_ref().filter(|h| !h.is_empty()) {
        Some(h) => {
            let at = |p: f64| percentile(h, p).map_or_else(|| "–".to_owned(), |ns| duration(ns as f64 / 1e3));
            lines.push(Line::from(format!("p50 {}   p99 {}   p99.9 {}", at(0.50), at(0.99), at(0.999))));
        }
        None => lines.push(Line::from("p50 –   p99 –   p99.9 –   (no histogram was recorded)")),
    }
    if let Some(u) = &m.us_per_token {
        lines.push(Line::from(format!(
            "last {} calls: mean {} µs/token, CV {}, {} to {}",
            u.samples,
            number(u.mean),
            percent(u.cv),
            number(u.min),
            number(u.max)
        )));
    }
    lines
}

/// Nearest-rank percentile of a histogram in ns: the upper end of the bucket that reaches it.
fn percentile(h: &Histogram, p: f64) -> Option<u64> {
    let calls = h.iter().fold(0u64, |sum, (_, n)| sum.saturating_add(*n));
    let rank = ((p * calls as f64).ceil() as u64).max(1);
    let mut seen = 0u64;
    h.iter().find_map(|(ns, n)| {
        seen = seen.saturating_add(*n);
        (seen >= rank).then_some(*ns)
    })
}

/// A bar per bin; bins are equally wide on a logarithmic scale.
fn bars(h: Option<&Histogram>, bins: usize, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let Some(h) = h.filter(|h| !h.is_empty()) else { return vec![] };
    let log = |ns: u64| (ns.max(1) as f64).ln();
    let (low, high) = h.iter().fold((f64::INFINITY, 0.0f64), |(l, u), (ns, _)| (l.min(log(*ns)), u.max(log(*ns))));
    // One bin at least is 1 % wide, as the buckets are.
    let step = ((high - low) / bins as f64).max(0.01);
    let mut counts = vec![0u64; bins];
    for (ns, n) in h {
        let bin = (((log(*ns) - low) / step) as usize).min(bins - 1);
        counts[bin] = counts[bin].saturating_add(*n);
    }
    let used = counts.iter().rposition(|n| *n > 0).map_or(0, |i| i + 1);
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let room = width.saturating_sub(36).clamp(4, 60);
    let line = |(i, n): (usize, &u64)| {
        let up_to = (low + step * (i + 1) as f64).exp() / 1e3;
        Line::from(vec![
            format!("≤ {:>10} ", duration(up_to)).into(),
            Span::styled(bar(*n as f64 / most, room), theme.good()),
            format!(" {n}").into(),
        ])
    };
    counts[..used].iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_histogram_are_ends_of_its_buckets() {
        let h = vec![(10, 98), (20, 1), (5000, 1)];
        assert_eq!([0.0, 0.5, 0.98, 0.99, 0.999].map(|p| percentile(&h, p)), [10, 10, 10, 20, 5000].map(Some));
        assert_eq!(percentile(&vec![], 0.5), None);
        assert_eq!(percentile(&vec![(7, u64::MAX), (9, u64::MAX)], 0.5), Some(7));
    }

    #[test]
    fn every_call_is_in_a_bar() {
        let theme = Theme { color: false };
        let total = |h: Histogram| -> u64 {
            let lines = bars(Some(&h), BINS, theme, 80);
            let count = |l: &Line<'_>| l.to_string().rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
            lines.iter().filter_map(count).sum()
        };
        assert_eq!(total(vec![(1000, 5)]), 5);
        assert_eq!(total(vec![(1, 1), (1_000, 2), (60_000_000_000, 4)]), 7);
        assert_eq!(total((1..200).map(|i| (i * 997, i)).collect()), 199 * 200 / 2);
    }
}
