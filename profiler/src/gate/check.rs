//! One verdict, and all of them together.

use serde::Serialize;

use crate::profile::BuildInfo;

/// What kind of evidence a check rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Tier {
    /// Exact facts.
    #[serde(rename = "T0")]
    Facts,
    /// Instruction counts.
    #[serde(rename = "T1")]
    Instructions,
    /// Paired ratios of times.
    #[serde(rename = "T2")]
    Ratio,
    /// Fraction of the roofline.
    #[serde(rename = "T3")]
    Roofline,
}

impl Tier {
    /// `T0` to `T3`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Facts => "T0",
            Self::Instructions => "T1",
            Self::Ratio => "T2",
            Self::Roofline => "T3",
        }
    }

    /// What it compares, in words.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Facts => "exact facts",
            Self::Instructions => "instructions",
            Self::Ratio => "paired ratio",
            Self::Roofline => "roofline",
        }
    }
}

/// What a check comes to. Only [`Fail`](Self::Fail) blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// The machine was too unsteady, or the value too near the limit, to say.
    Inconclusive,
    /// Measured and said, not judged.
    Advisory,
    /// Not looked at; the check says why.
    Skipped,
}

impl Verdict {
    /// The word used in every report.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
            Self::Advisory => "advisory",
            Self::Skipped => "skipped",
        }
    }
}

/// The figures behind a verdict that rests on a measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The value: a ratio, a count, a fraction.
    pub value: f64,
    /// Its interval, with the confidence that the check's text tells.
    pub interval: Option<[f64; 2]>,
    /// What it must not exceed (or, for a fraction of the roofline, not fall below).
    pub limit: Option<f64>,
    /// How far from 1 the interval of the control reaches: what could not be resolved.
    pub control: Option<f64>,
    /// Pairs behind the interval.
    pub pairs: Option<usize>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Kind of evidence.
    pub tier: Tier,
    /// What was looked at: a fact, or a brick.
    pub name: String,
    /// What it came to.
    pub verdict: Verdict,
    /// Why: recorded and found, or what the figures mean. One sentence.
    pub why: String,
    /// The figures, where something was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

impl Check {
    /// A check without figures.
    pub fn new(tier: Tier, name: impl Into<String>, verdict: Verdict, why: impl Into<String>) -> Self {
        Self { tier, name: name.into(), verdict, why: why.into(), measured: None }
    }

    /// The same with figures.
    #[must_use]
    pub fn with(self, measured: Measured) -> Self {
        Self { measured: Some(measured), ..self }
    }
}

/// The result of `brick gate check`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `brick.gate/1`.
    pub schema: &'static str,
    /// The file that was compared with.
    pub file: String,
    /// The model.
    pub model: String,
    /// Processor, cores, SIMD level: what the measured figures belong to.
    pub machine: String,
    /// This program.
    pub build: BuildInfo,
    /// The worst of all checks.
    pub verdict: Verdict,
    /// In order of tiers.
    pub checks: Vec<Check>,
}

impl Report {
    /// Version of the JSON document.
    pub const SCHEMA: &'static str = "brick.gate/1";

    /// Puts checks together.
    pub fn new(
        file: impl Into<String>,
        model: impl Into<String>,
        machine: impl Into<String>,
        checks: Vec<Check>,
    ) -> Self {
        let any = |verdict| checks.iter().any(|c| c.verdict == verdict);
        let order = [Verdict::Fail, Verdict::Inconclusive, Verdict::Pass, Verdict::Advisory];
        let verdict = order.into_iter().find(|v| any(*v)).unwrap_or(Verdict::Skipped);
        let (file, model, machine) = (file.into(), model.into(), machine.into());
        Self { schema: Self::SCHEMA, file, model, machine, build: BuildInfo::current(), verdict, checks }
    }

    /// Checks with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|c| c.verdict == verdict).count()
    }

    /// Whether anything failed: what decides the exit status.
    pub fn fails(&self) -> bool {
        self.verdict == Verdict::Fail
    }

    /// One line for the history of a project (T4): a JSON object without line ends, one per check.
    ///
    /// # Errors
    /// Never for a report of [`Report::new`]; serde's signature.
    pub fn history(&self, unix_seconds: u64) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Line<'a> {
            schema: &'static str,
            unix_seconds: u64,
            model: &'a str,
            machine: &'a str,
            version: &'a str,
            #[serde(flatten)]
            check: &'a Check,
        }
        let mut out = String::new();
        for check in &self.checks {
            let (model, machine, version) = (&*self.model, &*self.machine, &*self.build.version);
            let line = Line { schema: "brick.gate.history/1", unix_seconds, model, machine, version, check };
            out.push_str(&serde_json::to_string(&line)?);
            out.push('\n');
        }
        Ok(out)
    }
}
