//! What is asked of a report.

use brick_profiler::format::number;
use serde::Serialize;

use super::Throughput;

/// What a report must reach; nothing by default.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Thresholds {
    /// Tokens per second, at least.
    pub min_tok_s: Option<f64>,
    /// Coefficient of variation of the wall time of a token in per cent, below.
    pub max_cv_percent: Option<f64>,
    /// Score of the model, at least.
    pub min_score: Option<u32>,
}

/// A threshold and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name, as the option: `min-tok-s`.
    pub name: &'static str,
    /// What was asked.
    pub limit: f64,
    /// What was found; `null` if that is not known, which holds no threshold.
    pub actual: Option<f64>,
    /// Whether it holds.
    pub holds: bool,
}

impl Thresholds {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn judge(&self, found: &Throughput, score: Option<u32>) -> Vec<Outcome> {
        let outcome = |name, limit: Option<f64>, actual: Option<f64>, holds: fn(f64, f64) -> bool| {
            let limit = limit?;
            Some(Outcome { name, limit, actual, holds: actual.is_some_and(|actual| holds(actual, limit)) })
        };
        let at_least: fn(f64, f64) -> bool = |actual, limit| actual >= limit;
        let below: fn(f64, f64) -> bool = |actual, limit| actual < limit;
        let all = [
            outcome("min-tok-s", self.min_tok_s, found.tokens_per_sec, at_least),
            outcome("max-cv", self.max_cv_percent, found.cv_percent, below),
            outcome("min-score", self.min_score.map(f64::from), score.map(f64::from), at_least),
        ];
        all.into_iter().flatten().collect()
    }
}

/// `min-tok-s: 195.5, asked for at least 200.0`.
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let actual = self.actual.map_or_else(|| "not known".to_owned(), number);
        let relation = if self.name.starts_with("max") { "below" } else { "at least" };
        write!(f, "{}: {actual}, asked for {relation} {}", self.name, number(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tokens_per_sec: Option<f64>, cv_percent: Option<f64>) -> Throughput {
        Throughput { tokens_per_sec, ttft_ms: None, p50_us: None, p99_us: None, cv_percent, forwards: 1, tokens: 1 }
    }

    #[test]
    fn the_limit_itself() {
        let asked = Thresholds { min_tok_s: Some(100.0), max_cv_percent: Some(5.0), min_score: Some(80) };
        let holds = |tok_s, cv, score| -> Vec<bool> {
            asked.judge(&found(Some(tok_s), Some(cv)), Some(score)).iter().map(|o| o.holds).collect()
        };
        assert_eq!(holds(100.0, 4.999, 80), [true, true, true]);
        assert_eq!(holds(99.999, 5.0, 79), [false, false, false], "5.0 % is not below 5 %");
        assert_eq!(holds(f64::NAN, f64::NAN, 100), [false, false, true]);
    }

    #[test]
    fn what_is_not_known_holds_nothing() {
        let asked = Thresholds { min_tok_s: Some(0.0), max_cv_percent: Some(100.0), min_score: Some(0) };
        let all = asked.judge(&found(None, None), None);
        assert!(all.iter().all(|o| !o.holds && o.actual.is_none()), "{all:?}");
        assert_eq!(all[0].to_string(), "min-tok-s: not known, asked for at least 0.000");
        assert!(Thresholds::default().judge(&found(None, None), None).is_empty() && !asked.is_empty());
    }
}
