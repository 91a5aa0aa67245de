//! Scores as a table.

use std::fmt::Write;

use super::Style;
use super::format::{clean, percent};
use super::table::{Cell, Table, Tone, escape, paint};
use crate::score::{BrickScore, Grade, ModelScore};

const LEGEND: &str = "All scores are derived. Points: performance of 40 (budget ÷ median), efficiency of 25 (fraction of the roofline), correctness of 20 \
                      (ran, and no figure above what the machine can do), stability of 15 (CV 5 % or less; none from 15 %). core: 30 compute, 25 \
                      bandwidth, 25 budget, 20 stability.";

impl ModelScore {
    /// The scores as aligned text.
    pub fn to_text(&self, style: &Style) -> String {
        let plain = |s: &str| style.plain(s);
        let mut out = String::new();
        let title = format!("{} · {}", clean(&self.model), self.phase);
        let _ = writeln!(out, "{}", paint(&plain(&title), Tone::Bold, *style));
        out.push_str(&self.table().to_text(*style));
        let _ = writeln!(out, "{}", paint(&plain(&self.verdict()), self.grade.map_or(Tone::Dim, tone), *style));
        let _ = writeln!(out, "\n{}", paint(&plain(LEGEND), Tone::Dim, *style));
        out
    }

    /// The scores in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut out = format!("### {} · {}\n\n", escape(&clean(&self.model)), self.phase);
        out.push_str(&self.table().to_markdown());
        let _ = writeln!(out, "\n**{}**\n\n{}", escape(&self.verdict()), escape(LEGEND));
        out
    }

    /// Score and grade in one line.
    pub fn verdict(&self) -> String {
        match (self.score, self.grade, self.core_score) {
            (Some(s), Some(g), Some(core)) => {
                format!("score {s} of 100, grade {}: {}; core score {core}", g.name(), g.meaning())
            }
            (Some(s), Some(g), None) => format!("score {s} of 100, grade {}: {}", g.name(), g.meaning()),
            _ => "no score: it needs budgets and the limits of the machine".into(),
        }
    }

    fn table(&self) -> Table {
        let header = [
            "brick",
            "share",
            "performance",
            "efficiency",
            "correctness",
            "stability",
            "score",
            "grade",
            "core",
            "budget",
        ];
        let row = |b: &BrickScore| -> Vec<Cell> {
            let points = |x: Option<f64>| x.map_or_else(Cell::none, |x| format!("{x:.1}").into());
            let whole = |x: Option<u32>| x.map_or_else(Cell::none, |x| x.to_string().into());
            let p = b.parts;
            vec![
                b.kind.name().into(),
                percent(b.share).into(),
                points(p.map(|p| p.performance)),
                points(p.map(|p| p.efficiency)),
                points(p.map(|p| p.correctness)),
                points(p.map(|p| p.stability)),
                whole(b.score),
                b.grade.map_or_else(
                    || Cell::new(b.missing.unwrap_or_default(), Tone::Dim),
                    |g| Cell::new(g.name(), tone(g)),
                ),
                whole(b.core_score),
                whole(b.gap_score),
            ]
        };
        Table {
            header: header.map(str::to_owned).to_vec(),
            left: 1,
            rows: self.bricks.iter().map(row).collect(),
            totals: vec![],
        }
    }
}

fn tone(g: Grade) -> Tone {
    match g {
        Grade::A | Grade::B => Tone::Good,
        Grade::C => Tone::Plain,
        Grade::D | Grade::F => Tone::Bad,
    }
}
