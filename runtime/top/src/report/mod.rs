//! The headless report: a snapshot as JSON and as text, held against thresholds.
//!
//! Every figure says whether it is measured or derived: in JSON through `origin`, which has an entry for each, in text with
//! `(MEASURED)` or `*` and `(derived)`. What is not known is `null`, and never made up.
//!
//! | module | content |
//! | --- | --- |
//! | `threshold` | what is asked of a report, and whether it holds |
//! | `text` | the report as lines |

mod text;
mod threshold;

use std::collections::BTreeMap;

use brick_profiler::Phase;
use brick_profiler::score::Grade;
use serde::Serialize;

pub use threshold::{Outcome, Thresholds};

use crate::advice::advice;
use crate::snapshot::Snapshot;

/// The report. Its JSON Schema is `docs/schema/top.schema.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`Report::SCHEMA`].
    pub schema: &'static str,
    /// Name of the model.
    pub model: String,
    /// When, ISO 8601 in UTC.
    pub timestamp: Option<String>,
    /// The computer.
    pub hardware: Hardware,
    /// Where the figures come from.
    pub source: Source,
    /// Phase that all figures are of.
    pub phase: Phase,
    /// Speed.
    pub throughput: Throughput,
    /// Kinds of bricks of the graph.
    pub brick_scores: Vec<BrickScore>,
    /// Scores of whole projects. Those of other programs are `null`.
    pub pmat_scores: PmatScores,
    /// Counts of claims; `null`, since a report tests none (`brick falsify` does).
    pub falsification: Falsification,
    /// Mean of the bricks' scores.
    pub brick_score: Option<u32>,
    /// Its grade.
    pub grade: Option<Grade>,
    /// Whether every threshold holds; `null` when none was asked for.
    pub status: Option<Status>,
    /// The same as a colour.
    pub ci_result: Option<CiResult>,
    /// The thresholds and what was found.
    pub thresholds: Vec<Outcome>,
    /// The kind that takes most time.
    pub bottleneck: Option<Bottleneck>,
    /// What to look at next.
    pub advice: Vec<String>,
    /// For every figure above, by its path (`[]` for each row): how it came about.
    pub origin: BTreeMap<&'static str, Origin>,
}

/// How a figure came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Read from a clock or counted.
    Measured,
    /// Computed from shapes, limits of the machine and measured figures.
    Derived,
    /// As the operating system reports it.
    Reported,
    /// Not known here; the figure is `null`.
    Unknown,
}

/// The computer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hardware {
    /// `null` on the CPU backend.
    pub gpu: Option<String>,
    /// Processor.
    pub cpu: Option<String>,
    /// Memory that the process could use when the machine was measured, in 10⁹ bytes.
    pub memory_gb: Option<f64>,
    /// Backend and instruction set.
    pub backend: String,
    /// Threads.
    pub threads: usize,
}

/// Where the figures come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Whether this program ran the model, or watched another.
    pub kind: SourceKind,
    /// Process that recorded.
    pub pid: u32,
}

/// Who ran the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// This program.
    Driven,
    /// Another process, which was watched.
    Attached,
}

/// Speed of the phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    /// Tokens ÷ time, with the time between forward calls.
    pub tokens_per_sec: Option<f64>,
    /// Time to the first token, without loading.
    pub ttft_ms: Option<f64>,
    /// Median wall time of a token.
    pub p50_us: Option<f64>,
    /// 99th percentile of it.
    pub p99_us: Option<f64>,
    /// Its coefficient of variation in per cent.
    pub cv_percent: Option<f64>,
    /// Forward calls behind these.
    pub forwards: u64,
    /// Their tokens.
    pub tokens: u64,
}

/// A kind of brick.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BrickScore {
    /// Its name.
    pub name: &'static str,
    /// Median time per token of all bricks of the kind.
    pub actual_us: f64,
    /// Their budget.
    pub budget_us: Option<f64>,
    /// `actual_us / budget_us`.
    pub gap_factor: Option<f64>,
    /// Points of the category score, as `brick score` gives them.
    pub score: Option<u32>,
    /// Its grade.
    pub grade: Option<Grade>,
    /// Points for the distance to the budget alone.
    pub gap_score: Option<u32>,
    /// Fraction of the phase's time.
    pub share: f64,
}

/// Scores of whole projects, of which this program knows its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PmatScores {
    /// Of another program.
    pub rust_project_score: Option<u32>,
    /// Of another program.
    pub tdg_score: Option<u32>,
    /// Of another program.
    pub cuda_tdg_score: Option<u32>,
    /// [`Report::brick_score`].
    pub brick_score: Option<u32>,
    /// Of another program.
    pub perfection_score: Option<u32>,
}

/// Counts of claims.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Falsification {
    /// Claims.
    pub total_points: Option<u32>,
    /// Corroborated.
    pub passed: Option<u32>,
    /// Falsified.
    pub failed: Option<u32>,
    /// Not testable.
    pub blocked: Option<u32>,
}

/// The verdict in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Every threshold holds.
    Pass,
    /// One does not.
    Fail,
}

/// The verdict as a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CiResult {
    /// Every threshold holds.
    Green,
    /// One does not.
    Red,
}

/// The kind that takes most time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bottleneck {
    /// Its name.
    pub brick: String,
    /// Median time per token.
    pub actual_us: f64,
    /// Budget.
    pub budget_us: Option<f64>,
}

impl Report {
    /// Name and version of the JSON.
    pub const SCHEMA: &'static str = "brick.top/1";

    /// The report of a snapshot.
    pub fn new(s: &Snapshot, kind: SourceKind, thresholds: &Thresholds, timestamp: Option<String>) -> Self {
        let throughput = throughput(s);
        let brick_score = s.derived.score;
        let outcomes = thresholds.judge(&throughput, brick_score);
        let holds = (!outcomes.is_empty()).then(|| outcomes.iter().all(|o| o.holds));
        Self {
            schema: Self::SCHEMA,
            model: s.model.name.clone(),
            timestamp,
            hardware: Hardware {
                gpu: s.hardware.gpu.clone(),
                cpu: s.hardware.cpu.clone(),
                memory_gb: s.hardware.memory_gb,
                backend: s.run.backend.clone(),
                threads: s.run.threads,
            },
            source: Source { kind, pid: s.pid },
            phase: s.phase,
            throughput,
            brick_scores: brick_scores(s),
            pmat_scores: PmatScores {
                rust_project_score: None,
                tdg_score: None,
                cuda_tdg_score: None,
                brick_score,
                perfection_score: None,
            },
            falsification: Falsification::default(),
            brick_score,
            grade: brick_score.map(Grade::of),
            status: holds.map(|h| if h { Status::Pass } else { Status::Fail }),
            ci_result: holds.map(|h| if h { CiResult::Green } else { CiResult::Red }),
            thresholds: outcomes,
            bottleneck: s.bottleneck.as_ref().map(|b| Bottleneck {
                brick: b.brick_name.clone(),
                actual_us: b.actual_us,
                budget_us: b.budget_us,
            }),
            advice: advice(s).into_iter().map(|a| format!("{}: {}", a.seen, a.then)).collect(),
            origin: ORIGINS.iter().copied().collect(),
        }
    }

    /// Thresholds that do not hold.
    pub fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.thresholds.iter().filter(|o| !o.holds)
    }
}

/// Where every figure of a report comes from.
const ORIGINS: [(&str, Origin); 31] = [
    ("hardware.memory_gb", Origin::Reported),
    ("hardware.threads", Origin::Reported),
    ("source.pid", Origin::Reported),
    ("throughput.tokens_per_sec", Origin::Derived),
    ("throughput.ttft_ms", Origin::Measured),
    ("throughput.p50_us", Origin::Measured),
    ("throughput.p99_us", Origin::Measured),
    ("throughput.cv_percent", Origin::Measured),
    ("throughput.forwards", Origin::Measured),
    ("throughput.tokens", Origin::Measured),
    ("brick_scores[].actual_us", Origin::Measured),
    ("brick_scores[].budget_us", Origin::Derived),
    ("brick_scores[].gap_factor", Origin::Derived),
    ("brick_scores[].score", Origin::Derived),
    ("brick_scores[].gap_score", Origin::Derived),
    ("brick_scores[].share", Origin::Derived),
    ("pmat_scores.rust_project_score", Origin::Unknown),
    ("pmat_scores.tdg_score", Origin::Unknown),
    ("pmat_scores.cuda_tdg_score", Origin::Unknown),
    ("pmat_scores.brick_score", Origin::Derived),
    ("pmat_scores.perfection_score", Origin::Unknown),
    ("falsification.total_points", Origin::Unknown),
    ("falsification.passed", Origin::Unknown),
    ("falsification.failed", Origin::Unknown),
    ("falsification.blocked", Origin::Unknown),
    ("brick_score", Origin::Derived),
    ("thresholds[].limit", Origin::Reported),
    ("thresholds[].actual", Origin::Derived),
    ("bottleneck.actual_us", Origin::Measured),
    ("bottleneck.budget_us", Origin::Derived),
    ("advice[]", Origin::Derived),
];

fn throughput(s: &Snapshot) -> Throughput {
    let wall = s.measured.us_per_token;
    Throughput {
        tokens_per_sec: s.derived.tokens_per_s,
        ttft_ms: s.measured.ttft_ms,
        p50_us: wall.map(|w| w.p50),
        p99_us: wall.map(|w| w.p99),
        cv_percent: wall.map(|w| 100.0 * w.cv),
        forwards: s.measured.forwards,
        tokens: s.measured.tokens,
    }
}

fn brick_scores(s: &Snapshot) -> Vec<BrickScore> {
    let row = |row: &crate::snapshot::BrickRow| BrickScore {
        name: row.kind.name(),
        actual_us: row.actual_us(),
        budget_us: row.derived.budget.map(|b| b.us_per_token),
        gap_factor: row.derived.budget.map(|b| b.gap_factor),
        score: row.score,
        grade: row.grade(),
        gap_score: row.gap_score,
        share: row.derived.share,
    };
    s.bricks.iter().filter(|r| r.in_graph).map(row).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing;

    fn report(thresholds: &Thresholds) -> Report {
        Report::new(&testing::snapshot(), SourceKind::Driven, thresholds, Some("2026-01-02T03:04:05Z".into()))
    }

    /// Paths of all numbers, and of nulls, with `[]` for the rows of an array.
    fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    leaves(value, &path, out);
                }
            }
            Value::Array(rows) => rows.iter().for_each(|row| leaves(row, &format!("{path}[]"), out)),
            Value::Number(_) => out.push(path.to_owned()),
            Value::Null if !path.ends_with("gpu") => out.push(path.to_owned()),
            _ => {}
        }
    }

    #[test]
    fn every_figure_says_how_it_came_about() {
        let thresholds = Thresholds { min_tok_s: Some(1.0), ..Thresholds::default() };
        let value = serde_json::to_value(report(&thresholds)).unwrap();
        let mut found = Vec::new();
        leaves(&value, "", &mut found);
        assert!(found.len() > 30, "{found:?}");
        for path in found {
            assert!(value["origin"].get(&path).is_some(), "{path} has no origin");
        }
        // And the other way round: nothing is promised that is not there.
        for path in value["origin"].as_object().unwrap().keys() {
            let mut at = &value;
            for key in path.trim_end_matches("[]").split('.') {
                at = match key.strip_suffix("[]") {
                    Some(key) => &at[key][0],
                    None => at.get(key).unwrap_or_else(|| panic!("{path}: no {key}")),
                };
            }
        }
    }

    #[test]
    fn json() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&report(&Thresholds::default())).unwrap());
    }

    #[test]
    fn text() {
        insta::assert_snapshot!(report(&Thresholds::default()).to_text());
        let thresholds = Thresholds { min_tok_s: Some(1e9), max_cv_percent: Some(99.0), min_score: Some(10) };
        insta::assert_snapshot!(report(&thresholds).to_text());
    }

    #[test]
    fn host_work_is_no_brick_of_the_graph() {
        let report = report(&Thresholds::default());
        assert!(testing::snapshot().bricks.iter().any(|b| b.kind.name() == "Sample"));
        assert!(report.brick_scores.iter().all(|b| b.name != "Sample" && b.score.is_some()), "{report:?}");
    }
}
