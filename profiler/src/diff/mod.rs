//! Two profiles side by side: what became faster, what slower, and where the difference of a token's time comes from.
//!
//! Bricks are matched by their path (`blk.3.attn_qkv`), kinds by their name. The forward calls of both timelines are **paired** by size:
//! the n-th call of a number of tokens and a context in one with the n-th of the same in the other, since they are the same work. The
//! ratio within a pair is the observation, the median of all pairs the estimate, and its interval that of `stats::paired`.
//!
//! The two recordings were made one after the other, and a machine drifts in between: a difference of all bricks alike is more likely
//! the machine's than the program's. `brick gate --base` measures two programs in turn, and is what a verdict should come from.

use bricks::BrickKind;
use serde::Serialize;

use crate::paired::{Bootstrap, MIN_PAIRS, Pair, Ratio};
use crate::profile::{PhaseProfile, Profile};
use crate::step::Phase;

/// What the pairs say about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is below 1 by more than the threshold.
    Faster,
    /// The whole interval is above 1 by more than the threshold.
    Slower,
    /// Neither can be said.
    NoEvidence,
    /// There are no pairs: the row exists in one profile only, or the calls are of different sizes.
    NotCompared,
}

impl Verdict {
    /// The words used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoEvidence => "no evidence",
            Self::NotCompared => "not compared",
        }
    }
}

/// How profiles are compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DiffOptions {
    /// Differences up to this fraction are none.
    pub threshold: f64,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self { threshold: 0.02 }
    }
}

/// One row of a comparison. Everything is derived from the times of both profiles.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffRow {
    /// Path of the brick, or name of the kind.
    pub name: String,
    /// Its kind.
    pub kind: Option<BrickKind>,
    /// Layer, if it belongs to one.
    pub layer: Option<u32>,
    /// Mean µs per token in the first profile; `None` if it is not in it.
    pub a_us: Option<f64>,
    /// The same in the second.
    pub b_us: Option<f64>,
    /// `b_us − a_us`: what the row contributes to the difference of a token's time. A brick that is missing counts as 0.
    pub delta_us: f64,
    /// Second ÷ first, within pairs, with a 95 % interval for all rows of its table together (Bonferroni).
    pub ratio: Option<Ratio>,
    /// What the pairs say.
    pub verdict: Verdict,
}

/// A phase of two profiles.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PhaseDiff {
    /// Which.
    pub phase: Phase,
    /// Pairs of forward calls of the same size.
    pub pairs: usize,
    /// Whole forward calls.
    pub total: DiffRow,
    /// Kinds, largest contribution first.
    pub kinds: Vec<DiffRow>,
    /// Bricks, largest contribution first.
    pub steps: Vec<DiffRow>,
}

/// Two profiles compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileDiff {
    /// Version of this structure.
    pub schema_version: u32,
    /// Names of the two models.
    pub models: [String; 2],
    /// Whether both ran the same graph: `None` if a profile does not say.
    pub same_graph: Option<bool>,
    /// What makes the comparison doubtful, in words.
    pub notes: Vec<String>,
    /// How it was done.
    pub options: DiffOptions,
    /// Phases that both profiles have.
    pub phases: Vec<PhaseDiff>,
}

/// Two profiles have nothing in common.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// No phase was recorded in both.
    #[error("expected a phase that both profiles have, found {a} in the first and {b} in the second")]
    NoCommonPhase {
        /// Phases of the first.
        a: String,
        /// Phases of the second.
        b: String,
    },
}

impl ProfileDiff {
    /// Version of the JSON.
    pub const SCHEMA_VERSION: u32 = 1;

    /// Compares `b` with `a`.
    ///
    /// # Errors
    /// [`DiffError`] when no phase was recorded in both.
    pub fn new(a: &Profile, b: &Profile, options: DiffOptions) -> Result<Self, DiffError> {
        let common = Phase::ALL.into_iter().filter_map(|p| Some((a.phase(p)?, b.phase(p)?)));
        let phases: Vec<_> = common.map(|(pa, pb)| phase(pa, pb, options)).collect();
        if phases.is_empty() {
            return Err(DiffError::NoCommonPhase { a: phase_names(a), b: phase_names(b) });
        }
        let same_graph = match (&a.model.graph_hash, &b.model.graph_hash) {
            (Some(a), Some(b)) => Some(a == b),
            _ => None,
        };
        Ok(Self {
            schema_version: Self::SCHEMA_VERSION,
            models: [a.model.name.clone(), b.model.name.clone()],
            same_graph,
            notes: notes(a, b, same_graph),
            options,
            phases,
        })
    }
}

fn phase_names(p: &Profile) -> String {
    let names: Vec<&str> = p.phases.iter().map(|p| p.phase.name()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Everything that differs besides the times.
fn notes(a: &Profile, b: &Profile, same_graph: Option<bool>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differs = |what: &str, a: &str, b: &str| {
        if a != b {
            notes.push(format!("{what}: {a} and {b}"));
        }
    };
    let machine = |p: &Profile| p.machine.as_ref().map_or_else(|| "not measured".into(), |m| m.fingerprint.to_string());
    differs("models", &a.model.name, &b.model.name);
    differs("machines", &machine(a), &machine(b));
    differs("backends", &a.run.backend, &b.run.backend);
    differs("threads", &a.run.threads.to_string(), &b.run.threads.to_string());
    differs("prompts", &prompt(a), &prompt(b));
    differs("sync modes", a.recorder.sync_mode.name(), b.recorder.sync_mode.name());
    let kv = |p: &Profile| p.run.kv_type.clone().unwrap_or_else(|| "unknown".into());
    differs("KV caches", &kv(a), &kv(b));
    if same_graph == Some(false) {
        notes.push("the graphs differ: bricks are matched by name".into());
    }
    if a.build.debug_assertions || b.build.debug_assertions {
        notes.push("a build with debug assertions is among them".into());
    }
    notes
}

fn prompt(p: &Profile) -> String {
    format!("{} tokens and {} generated", p.run.prompt_tokens, p.run.generated_tokens)
}

/// Indices of forward calls of the same size, in order.
fn pair_up(a: &PhaseProfile, b: &PhaseProfile) -> Vec<(usize, usize)> {
    let mut taken = vec![false; b.timeline.len()];
    let mut pairs = Vec::new();
    let mut from = 0;
    for (i, x) in a.timeline.iter().enumerate() {
        let same = |j: &usize| !taken[*j] && b.timeline[*j].tokens == x.tokens && b.timeline[*j].context == x.context;
        // Calls of one size mostly come in the same order: the search goes on behind the last match, and then from the start.
        if let Some(j) = (from..taken.len()).chain(0..from).find(same) {
            taken[j] = true;
            from = j + 1;
            pairs.push((i, j));
        }
    }
    pairs
}

/// A row before it is compared: its identity, mean times, and how to find its time in a forward call.
struct Subject {
    name: String,
    kind: Option<BrickKind>,
    layer: Option<u32>,
    us: [Option<f64>; 2],
    /// Columns of `steps_us` in both profiles.
    columns: [Vec<usize>; 2],
}

fn phase(a: &PhaseProfile, b: &PhaseProfile, options: DiffOptions) -> PhaseDiff {
    let pairs = pair_up(a, b);
    let total = {
        let times = pairs.iter().map(|&(i, j)| (a.timeline[i].wall_us, b.timeline[j].wall_us));
        let mean = |p: &PhaseProfile| Some(p.measured.wall_us / p.measured.tokens.max(1) as f64);
        let subject = Subject {
            name: "forward".into(),
            kind: None,
            layer: None,
            us: [mean(a), mean(b)],
            columns: [vec![], vec![]],
        };
        row(subject, times, 1, options)
    };
    let timed = |p: &PhaseProfile, t: usize, columns: &[usize]| -> Option<f64> {
        let ran: Vec<f64> = columns.iter().filter_map(|&c| p.timeline[t].steps_us.get(c).copied().flatten()).collect();
        (!ran.is_empty()).then(|| ran.iter().sum())
    };
    let compare = |subjects: Vec<Subject>| {
        let tests = subjects.len();
        let rows = subjects.into_iter().map(|s| {
            let columns = s.columns.clone();
            let times = pairs.iter().filter_map(|&(i, j)| Some((timed(a, i, &columns[0])?, timed(b, j, &columns[1])?)));
            row(s, times, tests, options)
        });
        let mut rows: Vec<DiffRow> = rows.collect();
        rows.sort_by(|x, y| y.delta_us.abs().total_cmp(&x.delta_us.abs()).then_with(|| x.name.cmp(&y.name)));
        rows
    };
    PhaseDiff { phase: a.phase, pairs: pairs.len(), total, kinds: compare(kinds(a, b)), steps: compare(steps(a, b)) }
}

fn kinds(a: &PhaseProfile, b: &PhaseProfile) -> Vec<Subject> {
    let of = |p: &PhaseProfile, kind| p.kind(kind).map(|r| r.measured.mean_us_per_token);
    let columns = |p: &PhaseProfile, kind| -> Vec<usize> {
        p.steps.iter().enumerate().filter(|(_, s)| s.kind == kind).map(|(i, _)| i).collect()
    };
    let all = BrickKind::ALL.into_iter().filter(|k| a.kind(*k).is_some() || b.kind(*k).is_some());
    all.map(|kind| Subject {
        name: kind.name().into(),
        kind: Some(kind),
        layer: None,
        us: [of(a, kind), of(b, kind)],
        columns: [columns(a, kind), columns(b, kind)],
    })
    .collect()
}

fn steps(a: &PhaseProfile, b: &PhaseProfile) -> Vec<Subject> {
    let place = |p: &PhaseProfile, name: &str| p.steps.iter().position(|s| s.name == name);
    let in_b = |s: &crate::profile::StepRow| place(a, &s.name).is_none();
    a.steps
        .iter()
        .chain(b.steps.iter().filter(|s| in_b(s)))
        .map(|s| {
            let at = [place(a, &s.name), place(b, &s.name)];
            let us = |p: &PhaseProfile, i: Option<usize>| Some(p.steps[i?].measured.mean_us_per_token);
            Subject {
                name: s.name.clone(),
                kind: Some(s.kind),
                layer: s.layer,
                us: [us(a, at[0]), us(b, at[1])],
                columns: at.map(|i| i.into_iter().collect()),
            }
        })
        .collect()
}

/// Compares one row; `tests` rows are looked at together.
fn row(s: Subject, times: impl Iterator<Item = (f64, f64)>, tests: usize, options: DiffOptions) -> DiffRow {
    // A time of 0 is one below what the clock resolves, and has no ratio.
    let positive = times.filter(|&(a, b)| a > 0.0 && b > 0.0);
    let pairs: Vec<Pair> = positive.map(|(base, candidate)| Pair { base, candidate }).collect();
    // An interval of 95 % for all rows together: of a hundred bricks five would "differ" otherwise.
    let alpha = 0.05 / tests.max(1) as f64;
    let ratio = if pairs.len() < MIN_PAIRS { None } else { Bootstrap::default().ratio_at(&pairs, alpha).ok() };
    let verdict = match &ratio {
        None => Verdict::NotCompared,
        Some(r) if r.high < 1.0 - options.threshold => Verdict::Faster,
        Some(r) if r.low > 1.0 + options.threshold => Verdict::Slower,
        Some(_) => Verdict::NoEvidence,
    };
    let delta_us = s.us[1].unwrap_or(0.0) - s.us[0].unwrap_or(0.0);
    DiffRow { name: s.name, kind: s.kind, layer: s.layer, a_us: s.us[0], b_us: s.us[1], delta_us, ratio, verdict }
}

#[cfg(test)]
mod tests;
