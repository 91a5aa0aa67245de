//! What was measured, as table and as document.

use std::fmt::Write as _;

use brick_profiler::Summary;
use brick_profiler::profile::{BuildInfo, ModelInfo};
use serde::Serialize;

use super::measure::Test;
use crate::output;

/// The document of `--json`; times in ms, speeds in tokens per second of all sequences together.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    pub(super) model: ModelInfo,
    pub(super) build: BuildInfo,
    /// Backend and instruction set.
    pub(super) backend: String,
    /// Most rows of a forward call.
    pub(super) batch: usize,
    pub(super) repeat: u32,
    /// Opening the file: metadata, graph, vocabulary.
    pub(super) load_ms: f64,
    pub(super) engines: Vec<EngineTimes>,
    pub(super) rows: Vec<Row>,
}

/// What happened once per engine.
#[derive(Debug, Serialize)]
pub(super) struct EngineTimes {
    pub(super) threads: usize,
    /// Plan, packed weights, memory, threads.
    pub(super) setup_ms: f64,
    /// The first forward call, of the first test's warm-up.
    pub(super) first_forward_ms: Option<f64>,
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Name of the test.
    test: String,
    #[serde(flatten)]
    what: Test,
    threads: usize,
    /// By repetition.
    tok_s: Vec<f64>,
    summary: Summary,
}

impl Row {
    /// `None` without samples, or with one that is not finite.
    pub(super) fn new(what: Test, threads: usize, tok_s: Vec<f64>) -> Option<Self> {
        let summary = Summary::of(&mut tok_s.clone())?;
        Some(Self { test: what.to_string(), what, threads, tok_s, summary })
    }

    fn cells(&self) -> [String; 6] {
        let s = &self.summary;
        [
            self.test.clone(),
            self.threads.to_string(),
            speed(s.p50),
            format!("{} – {}", speed(s.median_ci_low), speed(s.median_ci_high)),
            speed(s.mean),
            s.samples.to_string(),
        ]
    }
}

const HEADER: [&str; 6] = ["test", "threads", "median tok/s", "95 % interval", "mean tok/s", "n"];

impl Report {
    /// Model and machine on a line, then a table in columns.
    pub(super) fn to_text(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(Row::cells).collect();
        let header = HEADER.map(str::to_owned);
        let lines = || std::iter::once(&header).chain(&rows);
        let width = |i: usize| lines().map(|r| r[i].chars().count()).max().unwrap_or(0);
        let mut text = format!("{}\n\n", self.heading());
        for line in lines() {
            // Writing to a string does not fail.
            let _ = write!(text, "{:<w$}", line[0], w = width(0));
            for (i, cell) in line.iter().enumerate().skip(1) {
                let _ = write!(text, "  {cell:>w$}", w = width(i));
            }
            text.push('\n');
        }
        text
    }

    /// The same as Markdown.
    pub(super) fn to_markdown(&self) -> String {
        let mut text = format!("{}\n\n| {} |\n| --- |{}\n", self.heading(), HEADER.join(" | "), " ---: |".repeat(5));
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.cells().join(" | "));
        }
        text
    }

    fn heading(&self) -> String {
        let m = &self.model;
        let mut parts = vec![m.name.clone()];
        parts.extend(m.quantization.clone());
        parts.extend(m.file_bytes.map(output::bytes));
        parts.push(self.backend.clone());
        parts.push(format!("batch {}", self.batch));
        parts.join(", ")
    }
}

/// Four significant digits or so.
fn speed(tok_s: f64) -> String {
    match tok_s {
        s if s >= 1000.0 => format!("{s:.0}"),
        s if s >= 100.0 => format!("{s:.1}"),
        s => format!("{s:.2}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::measure::Kind;
    use super::*;

    fn report() -> Report {
        let test = |kind, tokens, depth, sequences| Test { kind, tokens, depth, sequences };
        let samples = |x: f64| (0..7).map(|i| x * (1.0 + 0.01 * f64::from(i * 3 % 7))).collect();
        Report {
            schema: "brick.bench/1",
            model: ModelInfo {
                name: "SmolLM2 135M".into(),
                architecture: Some("llama".into()),
                quantization: Some("Q4_1 + Q6_K".into()),
                file_bytes: Some(98_400_000),
                sha256: None,
            },
            build: BuildInfo { version: "1.2.3".into(), target: "x86_64-linux".into(), debug_assertions: false },
            backend: "cpu avx512-vnni".into(),
            batch: 512,
            repeat: 7,
            load_ms: 31.5,
            engines: vec![EngineTimes { threads: 2, setup_ms: 12.25, first_forward_ms: Some(3.5) }],
            rows: vec![
                Row::new(test(Kind::Prefill, 512, 0, 1), 2, samples(1700.0)).unwrap(),
                Row::new(test(Kind::Decode, 128, 4096, 1), 2, samples(98.7)).unwrap(),
                Row::new(test(Kind::Decode, 64, 0, 8), 16, vec![812.5]).unwrap(),
            ],
        }
    }

    #[test]
    fn the_table() {
        insta::assert_snapshot!("bench_text", report().to_text());
        insta::assert_snapshot!("bench_markdown", report().to_markdown());
    }

    #[test]
    fn the_document() {
        insta::assert_snapshot!("bench_json", serde_json::to_string_pretty(&report()).unwrap());
    }

    #[test]
    fn no_samples_are_no_row() {
        let test = Test { kind: Kind::Decode, tokens: 1, depth: 0, sequences: 1 };
        assert!(Row::new(test, 1, Vec::new()).is_none());
        assert!(Row::new(test, 1, vec![1.0, f64::INFINITY]).is_none());
    }
}
