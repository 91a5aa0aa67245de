//! The report as lines, each figure with its origin.

use std::fmt::Write;

use brick_profiler::format::{clean, number};

use super::{BrickScore, Report};

const MEASURED: &str = "(MEASURED)";
const DERIVED: &str = "(derived)";

impl Report {
    /// The report as text. Names are made harmless for a terminal.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{key:<12} {value}");
        };
        let h = &self.hardware;
        line("model", &clean(&self.model));
        let cpu = h.cpu.as_deref().map_or_else(|| "processor not measured".into(), clean);
        let gpu = h.gpu.as_deref().map_or_else(|| "no GPU in use".into(), clean);
        line("hardware", &format!("{cpu}, {} threads, {}, {gpu}", h.threads, clean(&h.backend)));
        let kind = match self.source.kind {
            super::SourceKind::Driven => "run by this command",
            super::SourceKind::Attached => "attached to a run",
        };
        let t = &self.throughput;
        line("source", &format!("{kind}, process {}", self.source.pid));
        line("recorded", &format!("{} forward calls of {} {MEASURED}", t.forwards, self.phase));
        line("throughput", &figure(t.tokens_per_sec, "tok/s", DERIVED));
        line("first token", &figure(t.ttft_ms, "ms", MEASURED));
        line("p50", &figure(t.p50_us, "µs", MEASURED));
        line("p99", &figure(t.p99_us, "µs", MEASURED));
        line("CV", &figure(t.cv_percent, "%", MEASURED));
        out.push('\n');
        for row in &self.brick_scores {
            out.push_str(&brick(row));
        }
        out.push('\n');
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(out, "{key:<12} {value}");
        };
        let score = match (self.brick_score, self.grade) {
            (Some(score), Some(grade)) => format!("{score}* of 100, grade {} {DERIVED}", grade.name()),
            _ => "not known".into(),
        };
        line("score", &score);
        if let Some(b) = &self.bottleneck {
            let budget = b.budget_us.map_or_else(String::new, |us| format!(", budget {}* µs {DERIVED}", number(us)));
            line("bottleneck", &format!("{} {} µs {MEASURED}{budget}", clean(&b.brick), number(b.actual_us)));
        }
        for advice in &self.advice {
            line("look at", &format!("{} {DERIVED}", clean(advice)));
        }
        for outcome in &self.thresholds {
            line(if outcome.holds { "holds" } else { "FAILS" }, &outcome.to_string());
        }
        if let Some(status) = self.status {
            line("status", if status == super::Status::Pass { "PASS" } else { "FAIL" });
        }
        out
    }
}

fn figure(value: Option<f64>, unit: &str, origin: &str) -> String {
    let star = if origin == DERIVED { "*" } else { "" };
    value.map_or_else(|| "not known".to_owned(), |x| format!("{}{star} {unit} {origin}", number(x)))
}

fn brick(row: &BrickScore) -> String {
    let mut line = format!("{:<12} {:>9} µs {MEASURED}", row.name, number(row.actual_us));
    if let (Some(budget), Some(gap)) = (row.budget_us, row.gap_factor) {
        let _ = write!(line, "  budget {:>8}* µs, gap {gap:.2}×* {DERIVED}", number(budget));
    }
    match (row.score, row.grade) {
        (Some(score), Some(grade)) => {
            let _ = write!(line, "  score {score:>3}* {} {DERIVED}", grade.name());
        }
        _ => line.push_str("  no score"),
    }
    line.push('\n');
    line
}
