//! What was measured, as table and as document.

use std::fmt::Write as _;

use brick_profiler::Summary;
use brick_profiler::paired::{Bootstrap, Pair, Ratio};
use brick_profiler::profile::{BuildInfo, ModelInfo};
use serde::Serialize;

use super::limits::{Disturbance, TOLERANCE};
use super::measure::Test;
use super::vs::About;
use crate::output;

/// Scaled median absolute deviations from which on a sample counts as an outlier (Iglewicz and Hoaglin 1993 take 3.5).
const OUTLIER: f64 = 3.5;
/// What makes the median absolute deviation of a normal distribution its standard deviation.
const SCALE: f64 = 1.4826;
/// Processor time in other hands above which a remark says so.
const NOISY: f64 = 0.05;

/// The document of `--json`; times in ms, speeds in tokens per second of all sequences together.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    pub(super) model: ModelInfo,
    pub(super) build: BuildInfo,
    pub(super) timestamp: Option<String>,
    /// Backend and instruction set.
    pub(super) backend: String,
    /// Most rows of a forward call.
    pub(super) batch: usize,
    pub(super) repeat: u32,
    /// Opening the file: metadata, graph, vocabulary.
    pub(super) load_ms: f64,
    /// The other program, if one was measured in turn.
    pub(super) peer: Option<About>,
    /// What else the machine did; `None` where the system does not say, or the run was too short.
    pub(super) disturbance: Option<Disturbance>,
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
    pub(super) test: String,
    #[serde(flatten)]
    pub(super) what: Test,
    pub(super) threads: usize,
    /// By repetition.
    pub(super) tok_s: Vec<f64>,
    /// Statistics; `None` when the figure was refused.
    pub(super) summary: Option<Summary>,
    /// Samples further from the median than 3.5 scaled median absolute deviations. They stay in: the median does not mind.
    outliers: usize,
    /// Most that physics allows, from `brick machine`; `None` if the machine has not been measured.
    ceiling_tok_s: Option<f64>,
    /// Why there is no figure.
    refused: Option<String>,
    /// The other program's speed, by repetition.
    peer_tok_s: Vec<f64>,
    /// Median of it.
    peer_median: Option<f64>,
    /// Our speed ÷ the other program's, within rounds; `None` without one, or with fewer than five rounds.
    ratio: Option<Ratio>,
}

impl Row {
    /// `None` without samples, or with one that is not finite.
    pub(super) fn new(
        what: Test,
        threads: usize,
        tok_s: Vec<f64>,
        peer_tok_s: Vec<f64>,
        ceiling_tok_s: Option<f64>,
    ) -> Option<Self> {
        let summary = Summary::of(&mut tok_s.clone())?;
        let refused = ceiling_tok_s.filter(|c| summary.p50 > c * TOLERANCE).map(|c| {
            format!(
                "{} tok/s is more than physics allows ({}): the machine was busy when `brick machine` measured it, or something is wrong",
                speed(summary.p50),
                speed(c)
            )
        });
        let pairs = tok_s.iter().zip(&peer_tok_s).map(|(&candidate, &base)| Pair { base, candidate });
        let ratio = Bootstrap::default().ratio(&pairs.collect::<Vec<_>>()).ok().filter(|_| refused.is_none());
        Some(Self {
            test: what.to_string(),
            what,
            threads,
            outliers: outliers(&tok_s, summary.p50),
            tok_s,
            summary: Some(summary).filter(|_| refused.is_none()),
            ceiling_tok_s,
            refused,
            peer_median: Summary::of(&mut peer_tok_s.clone()).map(|s| s.p50),
            peer_tok_s,
            ratio,
        })
    }

    fn cells(&self, peer: bool) -> Vec<String> {
        let none = || "–".to_owned();
        let of = |f: &dyn Fn(&Summary) -> String| self.summary.as_ref().map_or_else(none, f);
        let ceiling =
            self.summary.zip(self.ceiling_tok_s).map_or_else(none, |(s, c)| format!("{:.0} %", s.p50 / c * 100.0));
        let mut cells = vec![
            self.test.clone(),
            self.threads.to_string(),
            self.summary.as_ref().map_or_else(|| "refused".to_owned(), |s| speed(s.p50)),
            of(&|s| format!("{} – {}", speed(s.median_ci_low), speed(s.median_ci_high))),
            of(&|s| format!("{:.1} %", s.cv * 100.0)),
            self.outliers.to_string(),
            self.tok_s.len().to_string(),
            ceiling,
        ];
        if peer {
            let ratio = |r: &Ratio| format!("{:.2} [{:.2}, {:.2}]", r.estimate, r.low, r.high);
            cells.push(self.peer_median.map_or_else(none, speed));
            cells.push(self.ratio.as_ref().map_or_else(none, ratio));
        }
        cells
    }
}

/// Samples far from the median, by the median absolute deviation.
fn outliers(samples: &[f64], median: f64) -> usize {
    let mut deviations: Vec<f64> = samples.iter().map(|x| (x - median).abs()).collect();
    let mad = SCALE * brick_profiler::paired::median(&mut deviations.clone());
    deviations.retain(|d| *d > OUTLIER * mad);
    // More than half of the samples alike: the deviation is 0, and says nothing of the others.
    if mad > 0.0 { deviations.len() } else { 0 }
}

const HEADER: [&str; 8] = ["test", "threads", "median tok/s", "95 % interval", "CV", "outliers", "n", "of ceiling"];
const PEER_HEADER: [&str; 2] = ["other tok/s", "ratio [95 %]"];

impl Report {
    fn header(&self) -> Vec<String> {
        let peer: &[&str] = if self.peer.is_some() { &PEER_HEADER } else { &[] };
        HEADER.iter().chain(peer).map(|s| (*s).to_owned()).collect()
    }

    /// Model and machine on a line, then a table in columns.
    pub(super) fn to_text(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(|r| r.cells(self.peer.is_some())).collect();
        let header = self.header();
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
        for remark in self.remarks() {
            let _ = write!(text, "\n{remark}");
        }
        text
    }

    /// The same as Markdown.
    pub(super) fn to_markdown(&self) -> String {
        let header = self.header();
        let rule = " ---: |".repeat(header.len() - 1);
        let mut text = format!("{}\n\n| {} |\n| --- |{rule}\n", self.heading(), header.join(" | "));
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.cells(self.peer.is_some()).join(" | "));
        }
        for remark in self.remarks() {
            let _ = write!(text, "\n- {remark}");
        }
        text
    }

    /// What a reader of the table has to know.
    fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> =
            self.rows.iter().filter_map(|r| Some(format!("{}: {}", r.test, r.refused.as_ref()?))).collect();
        if let Some(p) = &self.peer {
            remarks.push(format!("other: {} ({}); {}", p.what, p.kind, p.note));
        }
        let fewest = self.rows.iter().map(|r| r.tok_s.len()).min().unwrap_or(0);
        if fewest < self.repeat as usize {
            remarks.push(format!("some tests ran {fewest} times only: --seconds was over"));
        }
        if let Some(d) = self.disturbance.filter(|d| d.others > NOISY || d.steal > NOISY || d.throttled > Some(0)) {
            remarks.push(format!("the machine was not quiet: {d}"));
        }
        if self.rows.iter().all(|r| r.ceiling_tok_s.is_none()) {
            remarks.push("ceiling: unknown until `brick machine` has measured this machine".to_owned());
        }
        remarks
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
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::measure::Kind;
    use super::*;

    pub(in super::super) fn report() -> Report {
        let test = |kind, tokens, depth, sequences| Test { kind, tokens, depth, sequences };
        let samples = |x: f64| (0..7).map(|i| x * (1.0 + 0.01 * f64::from(i * 3 % 7))).collect::<Vec<_>>();
        Report {
            schema: "brick.bench/2",
            model: ModelInfo {
                name: "SmolLM2 135M".into(),
                architecture: Some("llama".into()),
                quantization: Some("Q4_1 + Q6_K".into()),
                file_bytes: Some(98_400_000),
                ..ModelInfo::default()
            },
            build: BuildInfo {
                version: "1.2.3".into(),
                target: "x86_64-linux".into(),
                debug_assertions: false,
                git: Some("0123abcd".into()),
                rustc: Some("1.90.0".into()),
                features: vec![],
            },
            timestamp: Some("2026-01-02T03:04:05Z".into()),
            backend: "cpu avx512-vnni".into(),
            batch: 512,
            repeat: 7,
            load_ms: 31.5,
            peer: None,
            disturbance: Some(Disturbance { steal: 0.001, others: 0.002, throttled: None }),
            engines: vec![EngineTimes { threads: 2, setup_ms: 12.25, first_forward_ms: Some(3.5) }],
            rows: vec![
                Row::new(test(Kind::Prefill, 512, 0, 1), 2, samples(1700.0), vec![], Some(3270.0)).unwrap(),
                Row::new(test(Kind::Decode, 128, 4096, 1), 2, samples(98.7), vec![], Some(150.0)).unwrap(),
                Row::new(test(Kind::Decode, 64, 0, 8), 16, [samples(812.5), vec![300.0]].concat(), vec![], None)
                    .unwrap(),
            ],
        }
    }

    /// The same in turn with another program, on a busy machine, with a figure that cannot be.
    fn side_by_side() -> Report {
        let mut r = report();
        r.peer = Some(About {
            kind: "command",
            what: "llama-bench -m x.gguf".into(),
            note: "both sides: forward calls only",
        });
        r.disturbance = Some(Disturbance { steal: 0.02, others: 0.25, throttled: Some(3) });
        r.repeat = 30;
        let (pp, tg) = (r.rows[0].what, r.rows[1].what);
        let theirs = |x: f64| (0..7).map(|i| x * (1.0 + 0.01 * f64::from(i * 2 % 7))).collect::<Vec<_>>();
        r.rows = vec![
            Row::new(pp, 2, r.rows[0].tok_s.clone(), theirs(800.0), Some(3270.0)).unwrap(),
            Row::new(tg, 2, r.rows[1].tok_s.clone(), theirs(50.0), Some(60.0)).unwrap(),
        ];
        r
    }

    #[test]
    fn the_table() {
        insta::assert_snapshot!("bench_text", report().to_text());
        insta::assert_snapshot!("bench_markdown", report().to_markdown());
        insta::assert_snapshot!("bench_vs_text", side_by_side().to_text());
        insta::assert_snapshot!("bench_vs_markdown", side_by_side().to_markdown());
    }

    #[test]
    fn the_document() {
        insta::assert_snapshot!("bench_json", serde_json::to_string_pretty(&report()).unwrap());
    }

    #[test]
    fn a_figure_above_the_ceiling_is_refused() {
        let r = side_by_side();
        assert!(r.rows[0].refused.is_none() && r.rows[0].ratio.is_some());
        assert!(r.rows[1].refused.is_some() && r.rows[1].summary.is_none() && r.rows[1].ratio.is_none());
    }

    #[test]
    fn outliers_are_far_from_the_median() {
        assert_eq!(outliers(&[10.0, 10.1, 9.9, 10.0, 10.2, 5.0], 10.0), 1);
        assert_eq!(outliers(&[10.0, 10.0, 10.0, 11.0], 10.0), 0, "no spread to compare with");
        assert_eq!(outliers(&[1.0], 1.0), 0);
    }

    #[test]
    fn no_samples_are_no_row() {
        let test = Test { kind: Kind::Decode, tokens: 1, depth: 0, sequences: 1 };
        assert!(Row::new(test, 1, Vec::new(), vec![], None).is_none());
        assert!(Row::new(test, 1, vec![1.0, f64::INFINITY], vec![], None).is_none());
    }
}
