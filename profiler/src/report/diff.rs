//! A comparison of profiles, and scores, as tables.

use std::fmt::Write;

use super::Style;
use super::format::{clean, number, percent};
use super::table::{Cell, Table, Tone, escape, paint};
use crate::diff::{DiffRow, PhaseDiff, ProfileDiff, Verdict};

const DIFF_LEGEND: &str = "Everything here is derived from the measured times of both profiles. ratio: second ÷ first within pairs of forward \
                           calls of the same size, median, with a 95 % interval for all rows of its table together. The recordings were \
                           made one after the other: `brick gate` measures in turn.";

impl ProfileDiff {
    /// The comparison as aligned text, with the `steps` bricks that contribute most.
    pub fn to_text(&self, style: &Style, steps: usize) -> String {
        let plain = |s: &str| style.plain(s);
        let mut out = String::new();
        for (key, value) in self.heading() {
            let _ = writeln!(out, "{} {}", paint(&format!("{key:<8}"), Tone::Bold, *style), plain(&value));
        }
        for phase in &self.phases {
            let (title, line) = title(phase);
            let _ = writeln!(out, "\n{}", paint(&plain(&title), Tone::Bold, *style));
            for t in tables(phase, steps) {
                out.push_str(&t.to_text(*style));
            }
            let _ = writeln!(out, "{}", paint(&plain(&line), tone(phase.total.verdict), *style));
        }
        let _ = writeln!(out, "\n{}", paint(&plain(DIFF_LEGEND), Tone::Dim, *style));
        out
    }

    /// The comparison in Markdown.
    pub fn to_markdown(&self, steps: usize) -> String {
        let mut out = String::new();
        for (key, value) in self.heading() {
            let _ = writeln!(out, "- **{key}** {}", escape(&value));
        }
        for phase in &self.phases {
            let (title, line) = title(phase);
            let _ = writeln!(out, "\n### {}\n", escape(&title));
            for t in tables(phase, steps) {
                out.push_str(&t.to_markdown());
                out.push('\n');
            }
            let _ = writeln!(out, "**{}**", escape(&line));
        }
        let _ = writeln!(out, "\n{}", escape(DIFF_LEGEND));
        out
    }

    fn heading(&self) -> Vec<(&'static str, String)> {
        let [a, b] = &self.models;
        let mut lines = vec![("first", clean(a)), ("second", clean(b))];
        let graph = match self.same_graph {
            Some(true) => "the same in both",
            Some(false) => "not the same",
            None => "unknown",
        };
        lines.push(("graph", graph.into()));
        lines.extend(self.notes.iter().map(|n| ("differs", clean(n))));
        lines
    }
}

fn title(p: &PhaseDiff) -> (String, String) {
    let title = format!("{} · {} pairs of forward calls", p.phase, p.pairs);
    let t = &p.total;
    let change = match (&t.ratio, t.a_us, t.b_us) {
        (Some(r), Some(a), Some(b)) => format!(
            "{}: {} → {} µs/token, ratio {:.3} [{:.3}, {:.3}]",
            t.verdict.name(),
            number(a),
            number(b),
            r.estimate,
            r.low,
            r.high
        ),
        _ => "not compared: no forward calls of the same size in both timelines".into(),
    };
    (title, change)
}

fn tone(v: Verdict) -> Tone {
    match v {
        Verdict::Faster => Tone::Good,
        Verdict::Slower => Tone::Bad,
        Verdict::NoEvidence | Verdict::NotCompared => Tone::Dim,
    }
}

fn tables(p: &PhaseDiff, steps: usize) -> Vec<Table> {
    let total = p.total.delta_us;
    let mut all = vec![table("brick", &p.kinds, &p.total, total)];
    if steps > 0 && !p.steps.is_empty() {
        all.push(table("step", &p.steps[..p.steps.len().min(steps)], &p.total, total));
    }
    all
}

fn table(what: &str, rows: &[DiffRow], total: &DiffRow, delta: f64) -> Table {
    let header = [what, "first µs/tok", "second µs/tok", "difference", "of total", "ratio [95 %]", "verdict"];
    let cells = |r: &DiffRow| -> Vec<Cell> {
        let us = |x: Option<f64>| x.map_or_else(Cell::none, |x| number(x).into());
        let ratio =
            r.ratio.map_or_else(Cell::none, |q| format!("{:.3} [{:.3}, {:.3}]", q.estimate, q.low, q.high).into());
        let of_total = if delta == 0.0 { Cell::none() } else { percent(r.delta_us / delta).into() };
        vec![
            clean(&r.name).into(),
            us(r.a_us),
            us(r.b_us),
            signed(r.delta_us).into(),
            of_total,
            ratio,
            Cell::new(r.verdict.name(), tone(r.verdict)),
        ]
    };
    Table {
        header: header.map(str::to_owned).to_vec(),
        left: 1,
        rows: rows.iter().map(cells).collect(),
        totals: vec![cells(total)],
    }
}

fn signed(x: f64) -> String {
    if x > 0.0 { format!("+{}", number(x)) } else { number(x) }
}
