//! Layers × kinds: where a layer is slower than the others.

use brick_profiler::format::number;
use bricks::BrickKind;
use ratatui::text::{Line, Span};

use super::theme::{Theme, bar, fit};
use super::{Body, UiState};
use crate::snapshot::Snapshot;

/// Signs and the ratio to the fastest layer up to which they stand.
const SHADES: [(f64, char); 5] = [(1.05, '·'), (1.25, '░'), (1.5, '▒'), (2.0, '▓'), (f64::INFINITY, '█')];
/// Columns of a kind.
const CELL: usize = 6;

pub(super) fn view(s: &Snapshot, state: &UiState, theme: Theme, width: usize) -> Body {
    let title = "layers × kinds, against the fastest layer of each kind";
    let mut kinds: Vec<BrickKind> = s.steps.iter().filter(|c| c.layer.is_some()).map(|c| c.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let layers: Vec<(u32, f64)> =
        s.layers.iter().filter_map(|l| Some((l.layer?, l.measured.mean_us_per_token))).collect();
    if layers.is_empty() || kinds.is_empty() {
        return Body::new(title, vec![Line::from("no layers were recorded")]);
    }
    let time = |layer: u32, kind: BrickKind| -> Option<f64> {
        let cells = s.steps.iter().filter(|c| c.layer == Some(layer) && c.kind == kind);
        cells.map(|c| c.mean_us_per_token).reduce(|a, b| a + b)
    };
    let shown = (width.saturating_sub(24) / CELL).clamp(1, kinds.len());
    let columns: Vec<(BrickKind, Vec<Option<f64>>, f64)> = kinds[..shown]
        .iter()
        .map(|&kind| {
            let times: Vec<Option<f64>> = layers.iter().map(|(l, _)| time(*l, kind)).collect();
            let fastest = times.iter().flatten().copied().fold(f64::INFINITY, f64::min);
            (kind, times, fastest)
        })
        .collect();
    let slowest = layers.iter().map(|(_, us)| *us).fold(0.0, f64::max);
    let head: Vec<String> = columns.iter().map(|(k, ..)| fit(k.name(), CELL - 1)).collect();
    let mut lines = vec![
        Line::styled("· up to 1.05× the fastest, ░ 1.25×, ▒ 1.5×, ▓ 2×, █ more; mean times, measured", Theme::dim()),
        Line::styled(format!("  layer {}   µs/token", head.join(" ")), Theme::dim()),
    ];
    let first = lines.len();
    for (i, (layer, us)) in layers.iter().enumerate() {
        let here = i == state.row;
        let name = format!("{} {layer:>5}", if here { "▸" } else { " " });
        let mut spans = vec![Span::styled(name, if here { Theme::selected() } else { ratatui::style::Style::new() })];
        for (_, times, fastest) in &columns {
            spans.push(cell(times[i], *fastest, theme));
        }
        let relative = if slowest > 0.0 { us / slowest } else { 0.0 };
        spans.push(format!("  {:>9} ", number(*us)).into());
        spans.push(bar(relative, width.saturating_sub(24 + CELL * shown).min(12)).into());
        lines.push(Line::from(spans));
    }
    Body { title: title.into(), lines, selected: Some(first + state.row.min(layers.len() - 1)) }
}

fn cell(time: Option<f64>, fastest: f64, theme: Theme) -> Span<'static> {
    let Some(us) = time else { return " ".repeat(CELL).into() };
    let ratio = if fastest > 0.0 { us / fastest } else { 1.0 };
    let shade = SHADES.iter().find(|(up_to, _)| ratio <= *up_to).map_or('█', |(_, c)| *c);
    let text: String = std::iter::once(' ').chain(std::iter::repeat_n(shade, CELL - 1)).collect();
    Span::styled(text, theme.heat(ratio - 1.0))
}
