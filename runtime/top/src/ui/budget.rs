//! Budget and actual time of every kind, one bar each on the same scale.

use brick_profiler::format::{clean, number};
use ratatui::text::{Line, Span};

use super::theme::{Theme, bar};
use super::{Body, UiState};
use crate::snapshot::Snapshot;

/// Columns of a row besides its bar.
const FIXED: usize = 42;

pub(super) fn view(s: &Snapshot, state: &UiState, theme: Theme, width: usize) -> Body {
    let budget_of = |i: usize| s.bricks[i].derived.budget.map(|b| b.us_per_token);
    let longest =
        (0..s.bricks.len()).map(|i| s.bricks[i].actual_us().max(budget_of(i).unwrap_or(0.0))).fold(0.0, f64::max);
    let room = width.saturating_sub(FIXED).clamp(4, 50);
    let of = |us: f64| bar(if longest > 0.0 { us / longest } else { 0.0 }, room);
    let source = s.budgets.as_deref().map_or_else(|| "no budgets".to_owned(), clean);
    let mut lines: Vec<Line<'static>> =
        super::theme::wrap(&source, width).into_iter().map(|l| Line::styled(l, Theme::dim())).collect();
    lines.push(Line::default());
    let mut selected = 0;
    for (i, row) in s.bricks.iter().enumerate() {
        let verdict = row.derived.verdict;
        let style = super::pipeline::verdict(verdict, theme);
        let here = i == state.brick;
        let name = format!("{} {:<10}", if here { "▸" } else { " " }, row.kind.name());
        let name_style = if here { Theme::selected() } else { ratatui::style::Style::new() };
        if here {
            selected = lines.len() + 1;
        }
        let actual = format!(" actual {:>9} µs  ", number(row.actual_us()));
        lines.push(Line::from(vec![
            Span::styled(name, name_style),
            actual.into(),
            Span::styled(of(row.actual_us()), style),
        ]));
        let budget = match row.derived.budget {
            Some(b) => vec![
                format!("{:13}budget {:>9} µs* ", "", number(b.us_per_token)).into(),
                Span::styled(of(b.us_per_token), Theme::dim()),
                Span::styled(format!(" {} {:.2}×*", super::pipeline::mark(verdict), b.gap_factor), style),
            ],
            None => vec![format!("{:13}budget         –", "").into()],
        };
        lines.push(Line::from(budget));
    }
    Body { title: "budget and actual time, µs per token".into(), lines, selected: Some(selected) }
}
