//! The roofline in characters, for terminals of 60 to 120 columns.

use std::fmt::Write;

use super::Plot;
use crate::profile::Profile;
use crate::report::number;
use crate::step::Phase;

/// Columns of the numbers beside the vertical axis.
const GUTTER: usize = 8;

/// Characters in rows; the first row is the top.
struct Canvas {
    width: usize,
    rows: Vec<Vec<char>>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, rows: vec![vec![' '; width]; height] }
    }

    /// Column and row of a place (0 to 1 on both axes), if it is on the canvas.
    fn cell(&self, x: f64, y: f64) -> Option<(usize, usize)> {
        let place = |v: f64, n: usize| (0.0..=1.0).contains(&v).then(|| (v * (n - 1) as f64).round() as usize);
        let row = place(y, self.rows.len())?;
        Some((place(x, self.width)?, self.rows.len() - 1 - row))
    }

    fn put(&mut self, (column, row): (usize, usize), c: char) {
        self.rows[row][column] = c;
    }

    /// Writes text where nothing but lines is.
    fn text(&mut self, column: usize, row: usize, text: &str) {
        let taken = |c: &char| c.is_alphanumeric();
        let end = column + text.chars().count();
        if end > self.width || self.rows[row][column..end].iter().any(taken) {
            return;
        }
        for (i, c) in text.chars().enumerate() {
            self.rows[row][column + i] = c;
        }
    }
}

impl Profile {
    /// The roofline of a phase in ASCII: kinds as letters, what their bounds allow as small letters, the limits of the
    /// machine as lines, and a legend. `width` is that of the terminal; at least 60 and at most 120 columns are used.
    /// `None` if no forward of the phase was recorded or kinds were not timed.
    pub fn to_roofline_ascii(&self, phase: Phase, width: usize) -> Option<String> {
        let plot = Plot::new(self, self.phase(phase)?)?;
        let width = width.clamp(60, 120);
        let mut out = format!("roofline of {phase}: 10^9 op/s* over operations/byte*\n");
        if plot.points.is_empty() {
            out.push_str("no kind has bytes, operations and time\n");
            return Some(out);
        }
        draw(&plot, width, &mut out);
        legend(&plot, &mut out);
        Some(out)
    }
}

fn draw(plot: &Plot, width: usize, out: &mut String) {
    let mut canvas = Canvas::new(width - GUTTER - 1, (width / 4).clamp(18, 26));
    ceilings(plot, &mut canvas);
    // Small letters first: a measured point hides a bound, never the other way round.
    let letters = || ('A'..='Z').zip(&plot.points);
    for (letter, p) in letters() {
        if let Some(at) = p.bound.as_ref().and_then(|b| canvas.cell(plot.at_x(p.intensity), plot.at_y(b.rate))) {
            canvas.put(at, letter.to_ascii_lowercase());
        }
    }
    for (letter, p) in letters().collect::<Vec<_>>().into_iter().rev() {
        if let Some(at) = canvas.cell(plot.at_x(p.intensity), plot.at_y(p.rate)) {
            canvas.put(at, letter);
        }
    }
    let tick_rows: Vec<(usize, i32)> =
        (plot.y.0..=plot.y.1).filter_map(|d| Some((canvas.cell(0.0, plot.at_y(10f64.powi(d)))?.1, d))).collect();
    for (i, row) in canvas.rows.iter().enumerate() {
        let tick = tick_rows.iter().find(|(at, _)| *at == i);
        let label = tick.map_or_else(String::new, |(_, d)| power(*d));
        let line: String = row.iter().collect();
        let axis = if tick.is_some() { '+' } else { '|' };
        let _ = writeln!(out, "{}", format!("{label:>GUTTER$}{axis}{line}").trim_end());
    }
    // The horizontal axis, with its numbers below.
    let (mut axis, mut labels) = (vec!['-'; canvas.width], vec![' '; canvas.width + GUTTER + 1]);
    for d in plot.x.0..=plot.x.1 {
        let Some((column, _)) = canvas.cell(plot.at_x(10f64.powi(d)), 0.0) else { continue };
        axis[column] = '+';
        let text = power(d);
        let start = (column + GUTTER + 1).saturating_sub(text.len() / 2).min(labels.len() - text.len());
        if labels[start..start + text.len()].iter().all(|c| *c == ' ') {
            for (i, c) in text.chars().enumerate() {
                labels[start + i] = c;
            }
        }
    }
    let _ = writeln!(out, "{:GUTTER$}+{}", "", axis.into_iter().collect::<String>());
    let _ = writeln!(out, "{}", labels.into_iter().collect::<String>().trim_end());
}

/// Lines of the limits. Of the levels of memory, which lie close together, only the ends are drawn.
fn ceilings(plot: &Plot, canvas: &mut Canvas) {
    let ends = [plot.memory.first(), plot.memory.last().filter(|_| plot.memory.len() > 1)];
    for (&(name, gb_s), c) in ends.into_iter().flatten().zip(['.', '/']) {
        let (corner, _) = plot.roof(gb_s);
        let mut start = None;
        for column in 0..canvas.width {
            let at = column as f64 / (canvas.width - 1) as f64;
            let intensity = 10f64.powf(f64::from(plot.x.0) + at * f64::from(plot.x.1 - plot.x.0));
            if intensity > corner {
                break;
            }
            if let Some(cell) = canvas.cell(at, plot.at_y(intensity * gb_s)) {
                canvas.put(cell, c);
                start.get_or_insert(cell);
            }
        }
        if let Some((column, row)) = start {
            canvas.text((column + 2).min(canvas.width - 1), row, name);
        }
    }
    let fastest = plot.memory.iter().map(|m| m.1).fold(f64::NEG_INFINITY, f64::max);
    for &(name, gop_s) in &plot.compute {
        let from = if fastest > 0.0 { plot.at_x(gop_s / fastest).clamp(0.0, 1.0) } else { 0.0 };
        let (Some((from, row)), last) = (canvas.cell(from, plot.at_y(gop_s)), canvas.width) else { continue };
        for column in from..last {
            canvas.put((column, row), '-');
        }
        let label = format!(" {name} ");
        canvas.text(last.saturating_sub(label.len() + 1), row, &label);
    }
}

fn legend(plot: &Plot, out: &mut String) {
    let limits = |list: &[(&str, f64)], unit: &str| {
        list.iter().map(|(name, x)| format!("{name} {}", number(*x))).collect::<Vec<_>>().join(", ") + " " + unit
    };
    if !plot.memory.is_empty() {
        let _ = writeln!(out, "limits: {}", limits(&plot.memory, "GB/s"));
        let _ = writeln!(out, "        {}", limits(&plot.compute, "GOP/s"));
    }
    let _ = writeln!(out, "  kind            op/B*    GOP/s*    bound*   of it*  limit*");
    for (letter, p) in ('A'..='Z').zip(&plot.points) {
        let (rate, fraction, resource) = p.bound.as_ref().map_or_else(
            || ("-".into(), "-".into(), "-"),
            |b| (number(b.rate), format!("{:.1}%", b.fraction * 100.0), b.resource),
        );
        let (kind, x, y) = (p.kind.name(), number(p.intensity), number(p.rate));
        let _ = writeln!(out, "{letter} {kind:<11} {x:>9} {y:>9} {rate:>9} {fraction:>8}  {resource}");
    }
    if !plot.left_out.is_empty() {
        let names: Vec<&str> = plot.left_out.iter().map(|k| k.name()).collect();
        let _ = writeln!(out, "left out, without bytes or operations: {}", names.join(", "));
    }
    let _ = writeln!(out, "A measured, a allowed by its bound; * derived");
}

/// A power of ten, short.
fn power(d: i32) -> String {
    match d {
        -3..=5 => format!("{}", 10f64.powi(d)),
        d => format!("1e{d}"),
    }
}
