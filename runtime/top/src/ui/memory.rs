//! Bytes per second of every kind, against what this machine was measured to read.

use brick_profiler::format::{clean, number};
use brick_profiler::profile::Flag;
use ratatui::text::{Line, Span};

use super::theme::{Theme, bar, fit};
use super::{Body, UiState};
use crate::snapshot::{BrickRow, Snapshot};

/// Columns of a row besides its bar.
const FIXED: usize = 50;

pub(super) fn view(s: &Snapshot, state: &UiState, theme: Theme, width: usize) -> Body {
    let h = &s.hardware;
    let levels: Vec<String> =
        h.bandwidth.iter().map(|l| format!("{} {} GB/s", clean(&l.level), number(l.gb_s))).collect();
    let mut lines = vec![if levels.is_empty() {
        Line::from("this machine has not been measured: `brick machine` does")
    } else {
        Line::from(format!("measured: {}", levels.join(", ")))
    }];
    let reference = h.weights_from.as_ref().and_then(|from| h.bandwidth.iter().find(|l| l.level == *from));
    if let Some(r) = reference {
        lines.push(Line::from(format!(
            "weights come from {}: the end of the bars is its {} GB/s",
            clean(&r.level),
            number(r.gb_s)
        )));
    }
    lines.push(Line::default());
    let room = width.saturating_sub(FIXED).clamp(4, 40);
    lines.push(Line::styled(
        format!("  {:<10} {:>9} {:>9}  {} {:>8}  limited by*", "brick", "MB/tok*", "GB/s*", fit("", room), "of it*"),
        Theme::dim(),
    ));
    let first = lines.len();
    // Without a measured limit, bars compare the kinds with each other.
    let fastest = s.bricks.iter().filter_map(|r| r.derived.work.gb_per_s).fold(0.0, f64::max);
    let full = reference.map_or(fastest, |r| r.gb_s);
    lines.extend(
        s.bricks
            .iter()
            .enumerate()
            .map(|(i, row)| brick(row, i == state.brick, full, reference.is_some(), room, theme)),
    );
    Body { title: "memory bandwidth".into(), lines, selected: Some(first + state.brick.min(s.bricks.len())) }
}

fn brick(row: &BrickRow, selected: bool, full: f64, limit: bool, room: usize, theme: Theme) -> Line<'static> {
    let work = &row.derived.work;
    let rate = work.gb_per_s;
    let fraction = rate.map(|x| if full > 0.0 { x / full } else { 0.0 });
    let impossible = row.derived.flags.contains(&Flag::AboveMeasuredBandwidth);
    let bytes = if work.bytes_per_token > 0.0 { number(work.bytes_per_token / 1e6) } else { "–".into() };
    let gb_s = rate.map_or_else(|| "–".to_owned(), |x| format!("{}{}", number(x), if impossible { "!" } else { "" }));
    let of = fraction.filter(|_| limit).map_or_else(|| "–".to_owned(), |f| format!("{:.0}%", f * 100.0));
    let name = format!("{} {:<10}", if selected { "▸" } else { " " }, row.kind.name());
    let style = if impossible { theme.bad() } else { theme.good() };
    Line::from(vec![
        Span::styled(name, if selected { Theme::selected() } else { ratatui::style::Style::new() }),
        format!(" {bytes:>9} {gb_s:>9}  ").into(),
        Span::styled(bar(fraction.unwrap_or(0.0), room), style),
        format!(" {of:>8}  {}", row.derived.bound.map_or("–", |b| b.resource.name())).into(),
    ])
}
