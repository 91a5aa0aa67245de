//! Patterns that should not be there, and patterns worth knowing.
//!
//! A rule's severity says what it means for a model that works:
//!
//! - **error**: cannot happen in a model that works.
//! - **warning**: does not happen in models that work, as far as it was looked at; `--fail-on-anomaly` counts these and errors.
//! - **note**: happens in models that work. It explains a behaviour, and a *change* of it between two versions of a model tells
//!   something.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    AttentionWeightTrace, KvCacheStateTrace, LayerActivationTrace, LogitEvolutionTrace, ModelQuantizationError, Traces,
};

/// Where rules draw their lines.
pub mod thresholds {
    /// Absolute values above this are an explosion.
    pub const EXPLOSION: f32 = 1e6;
    /// Deviations below this are vanishing.
    pub const VANISHING: f32 = 1e-6;
    /// A residual ratio above this: the layer adds next to nothing.
    pub const BYPASS: f32 = 0.99;
    /// Entropy in nats below this: a head that looks at one position only.
    pub const COLLAPSE: f32 = 0.1;
    /// Weight of position 0 above this is a sink.
    pub const SINK: f32 = 0.9;
    /// Queries that see fewer positions are not judged: with 1 position the entropy is 0 whatever the model.
    pub const MIN_VISIBLE: usize = 4;
    /// A rank that changes by this factor from one layer to the next, late.
    pub const RANK_JUMP: u32 = 10;
    /// Layers from this share of the depth on are late.
    pub const LATE: f64 = 0.75;
    /// A cosine below this is drift.
    pub const DRIFT: f32 = 0.99;
    /// A hit rate below this is thrashing.
    pub const THRASHING: f32 = 0.5;
}

/// What was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyRule {
    /// A value is not a number.
    Nan,
    /// A value is infinite.
    Infinite,
    /// An absolute value is above 1e6.
    Explosion,
    /// The values of a tensor hardly differ: a deviation below 1e-6.
    Vanishing,
    /// A layer adds next to nothing: a residual ratio above 0.99.
    Bypass,
    /// Heads look at a single position: an entropy below 0.1.
    AttentionCollapse,
    /// Heads look at position 0.
    AttentionSink,
    /// A token's rank changes much in a late layer.
    LogitRankJump,
    /// Rounding turns a vector: a cosine below 0.99.
    QuantizationDrift,
    /// Less than half of what is looked up is in the KV cache.
    KvThrashing,
}

impl AnomalyRule {
    /// Every rule.
    pub const ALL: [Self; 10] = [
        Self::Nan,
        Self::Infinite,
        Self::Explosion,
        Self::Vanishing,
        Self::Bypass,
        Self::AttentionCollapse,
        Self::AttentionSink,
        Self::LogitRankJump,
        Self::QuantizationDrift,
        Self::KvThrashing,
    ];

    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nan => "not a number",
            Self::Infinite => "infinite",
            Self::Explosion => "explosion",
            Self::Vanishing => "vanishing",
            Self::Bypass => "bypass",
            Self::AttentionCollapse => "attention collapse",
            Self::AttentionSink => "attention sink",
            Self::LogitRankJump => "rank jump",
            Self::QuantizationDrift => "quantisation drift",
            Self::KvThrashing => "KV thrashing",
        }
    }
}

/// What an anomaly means for a model that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It happens there.
    Note,
    /// It does not happen there, as far as it was looked at.
    Warning,
    /// It cannot happen there.
    Error,
}

impl Severity {
    /// The word used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One pattern at one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anomaly {
    /// What was recognised.
    pub rule: AnomalyRule,
    /// What it means for a model that works.
    pub severity: Severity,
    /// Forward call.
    pub step: Option<usize>,
    /// Layer.
    pub layer_idx: Option<u32>,
    /// What in it: a tensor, heads, a brick, a token.
    pub place: String,
    /// What was found, as a sentence.
    pub detail: String,
    /// The figure that was judged, where there is one.
    pub value: Option<f64>,
    /// The line it crossed.
    pub threshold: Option<f64>,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.severity.name(), self.rule.name(), self.location(), self.detail)
    }
}

impl Anomaly {
    /// Where it is: `layer 3, FFN output, step 0`.
    pub fn location(&self) -> String {
        let layer = self.layer_idx.map(|l| format!("layer {l}"));
        let step = self.step.map(|s| format!("step {s}"));
        let place = Some(self.place.clone()).filter(|p| !p.is_empty());
        [layer, place, step].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Everything that is to be said about `traces`: errors first, then warnings, then notes; within each in the order in which it
/// came about, so that the first error is where it began.
pub(super) fn detect(traces: &Traces) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let mut before: Option<&LayerActivationTrace> = None;
    for t in &traces.activation {
        // The output of the layer before is the same tensor.
        let skip_input = before.is_some_and(|b| b.step == t.step && b.layer_idx + 1 == t.layer_idx);
        activation(t, skip_input, &mut found);
        before = Some(t);
    }
    let same_layer = |a: &AttentionWeightTrace, b: &AttentionWeightTrace| {
        (a.step, a.layer_idx, a.query_pos) == (b.step, b.layer_idx, b.query_pos)
    };
    for heads in traces.attention.chunk_by(same_layer) {
        attention(heads, &mut found);
    }
    traces.logit.iter().for_each(|t| logits(t, &mut found));
    traces.quant.iter().for_each(|t| quantization(t, &mut found));
    traces.kv.iter().for_each(|t| kv(t, &mut found));
    // What belongs to no call or layer comes last.
    let at = |a: &Anomaly| (a.step.unwrap_or(usize::MAX), a.layer_idx.unwrap_or(u32::MAX));
    found.sort_by_key(|a| (std::cmp::Reverse(a.severity), a.rule, at(a)));
    found
}

fn activation(t: &LayerActivationTrace, skip_input: bool, found: &mut Vec<Anomaly>) {
    let mut add = |rule, severity, place: &str, detail: String, value: f64, threshold: f64| {
        found.push(Anomaly {
            rule,
            severity,
            step: Some(t.step),
            layer_idx: Some(t.layer_idx),
            place: place.to_owned(),
            detail,
            value: Some(value),
            threshold: Some(threshold),
        });
    };
    for (name, s) in t.tensors().into_iter().skip(usize::from(skip_input)) {
        let share = |n: u64, what: &str| {
            let total = s.total_count;
            format!("{n} of {total} values {} {what}", if n == 1 { "is" } else { "are" })
        };
        if s.nan_count > 0 {
            let n = s.nan_count;
            add(AnomalyRule::Nan, Severity::Error, name, share(n, "NaN"), n as f64, 0.0);
        }
        if s.inf_count > 0 {
            let n = s.inf_count;
            add(AnomalyRule::Infinite, Severity::Error, name, share(n, "infinite"), n as f64, 0.0);
        }
        if let Some(max) = s.abs_max().filter(|m| *m > thresholds::EXPLOSION) {
            let detail = format!("the largest absolute value is {max:.3e}, above {:.0e}", thresholds::EXPLOSION);
            add(
                AnomalyRule::Explosion,
                Severity::Warning,
                name,
                detail,
                f64::from(max),
                f64::from(thresholds::EXPLOSION),
            );
        }
        // A single value differs from nothing.
        if let Some(std) = s.std.filter(|d| *d < thresholds::VANISHING && s.finite_count() > 1) {
            let detail = format!("the standard deviation is {std:.3e}, below {:.0e}", thresholds::VANISHING);
            add(
                AnomalyRule::Vanishing,
                Severity::Warning,
                name,
                detail,
                f64::from(std),
                f64::from(thresholds::VANISHING),
            );
        }
    }
    if let Some(r) = t.residual_ratio.filter(|r| *r > thresholds::BYPASS) {
        let detail =
            format!("the layer adds next to nothing: the residual ratio is {r:.4}, above {:.2}", thresholds::BYPASS);
        add(AnomalyRule::Bypass, Severity::Warning, "", detail, f64::from(r), f64::from(thresholds::BYPASS));
    }
}

/// All traced heads of one layer at one query.
fn attention(heads: &[AttentionWeightTrace], found: &mut Vec<Anomaly>) {
    let Some(first) = heads.first() else { return };
    let list = |of: &[u32]| {
        let n = format!("{} of {} heads", of.len(), heads.len());
        let shown: Vec<String> = of.iter().take(8).map(ToString::to_string).collect();
        format!("{n} ({}{})", shown.join(", "), if of.len() > shown.len() { ", …" } else { "" })
    };
    let mut add = |rule, severity, of: &[u32], what: &str, value: Option<f64>, threshold: Option<f32>| {
        found.push(Anomaly {
            rule,
            severity,
            step: Some(first.step),
            layer_idx: Some(first.layer_idx),
            place: format!("position {}", first.query_pos),
            detail: format!("{} {what}", list(of)),
            value,
            threshold: threshold.map(f64::from),
        });
    };
    let which = |f: &dyn Fn(&AttentionWeightTrace) -> bool| -> Vec<u32> {
        heads.iter().filter(|h| f(h)).map(|h| h.head_idx).collect()
    };
    let broken = which(&|h| h.entropy.is_none());
    if !broken.is_empty() {
        add(AnomalyRule::Nan, Severity::Error, &broken, "have weights that are not numbers", None, None);
    }
    if first.visible() < thresholds::MIN_VISIBLE {
        return;
    }
    let is_sink = |h: &AttentionWeightTrace| h.sink_weight.is_some_and(|w| w > thresholds::SINK);
    let sinks = which(&is_sink);
    if !sinks.is_empty() {
        let most = heads.iter().filter_map(|h| h.sink_weight).fold(0.0, f32::max);
        add(
            AnomalyRule::AttentionSink,
            Severity::Note,
            &sinks,
            &format!("put more than {} of their weight on position 0", thresholds::SINK),
            Some(f64::from(most)),
            Some(thresholds::SINK),
        );
    }
    // A head that rests on position 0 is a sink, which is how heads that have nothing to do look.
    let collapsed = which(&|h| !is_sink(h) && h.entropy.is_some_and(|e| e < thresholds::COLLAPSE));
    if !collapsed.is_empty() {
        let all = collapsed.len() == heads.len() && heads.len() > 1;
        let least = heads.iter().filter(|h| !is_sink(h)).filter_map(|h| h.entropy).fold(f32::INFINITY, f32::min);
        add(
            AnomalyRule::AttentionCollapse,
            if all { Severity::Warning } else { Severity::Note },
            &collapsed,
            &format!("look at a single position: entropy below {}", thresholds::COLLAPSE),
            Some(f64::from(least)),
            Some(thresholds::COLLAPSE),
        );
    }
}

fn logits(t: &LogitEvolutionTrace, found: &mut Vec<Anomaly>) {
    let mut add = |rule, severity, layer_idx, place: String, detail: String, value: Option<f64>| {
        let threshold = value.map(|_| f64::from(thresholds::RANK_JUMP));
        found.push(Anomaly { rule, severity, step: Some(t.step), layer_idx, place, detail, value, threshold });
    };
    let place = |id: u32| format!("token {id} after position {}", t.position);
    let broken =
        |token: &&super::TokenLogitEvolution| token.final_prob.is_none() || token.per_layer_ranks.contains(&None);
    if let Some(token) = t.tracked_tokens.iter().find(broken) {
        let at = token.per_layer_ranks.iter().position(Option::is_none);
        let layer = at.and_then(|i| t.layers.get(i).copied());
        let detail = "its logit, or the probabilities, are not numbers".to_owned();
        add(AnomalyRule::Nan, Severity::Error, layer, place(token.token_id), detail, None);
        return;
    }
    let Some(&last) = t.layers.last() else { return };
    let is_late = |layer: u32| f64::from(layer) >= thresholds::LATE * f64::from(last);
    for (n, token) in t.tracked_tokens.iter().enumerate() {
        let ranks: Vec<(u32, u32)> =
            t.layers.iter().copied().zip(token.per_layer_ranks.iter().flatten().copied()).collect();
        for pair in ranks.windows(2) {
            let [(before, from), (layer, to)] = *pair else { continue };
            let factor = f64::from(from.max(to)) / f64::from(from.min(to));
            // The chosen token when it jumps, others when they had the lead and lose it.
            let jumps = n == 0 && factor >= f64::from(thresholds::RANK_JUMP);
            let overtaken = n > 0 && from == 1 && to > 1;
            if is_late(before) && (jumps || overtaken) {
                let what = if overtaken { "led and is overtaken" } else { "jumps" };
                let detail = format!("{what}: rank {from} after layer {before}, rank {to} after layer {layer}");
                add(
                    AnomalyRule::LogitRankJump,
                    Severity::Note,
                    Some(layer),
                    place(token.token_id),
                    detail,
                    Some(factor),
                );
            }
        }
    }
}

fn quantization(t: &ModelQuantizationError, found: &mut Vec<Anomaly>) {
    for b in &t.bricks {
        let mut add = |rule, severity, detail: String, value: f64, threshold: f64| {
            found.push(Anomaly {
                rule,
                severity,
                step: None,
                layer_idx: b.layer_idx,
                place: b.brick_name.clone(),
                detail,
                value: Some(value),
                threshold: Some(threshold),
            });
        };
        if b.nonfinite > 0 {
            let detail = format!("{} of {} pairs have a value that is not finite", b.nonfinite, b.values + b.nonfinite);
            add(AnomalyRule::Nan, Severity::Error, detail, b.nonfinite as f64, 0.0);
        }
        if let Some(c) = b.cosine_similarity.filter(|c| *c < thresholds::DRIFT) {
            let detail = format!("the cosine to {} is {c:.5}, below {:.2}", t.against, thresholds::DRIFT);
            add(AnomalyRule::QuantizationDrift, Severity::Warning, detail, f64::from(c), f64::from(thresholds::DRIFT));
        }
    }
}

fn kv(t: &KvCacheStateTrace, found: &mut Vec<Anomaly>) {
    if let Some(rate) = t.hit_rate.filter(|r| *r < thresholds::THRASHING) {
        found.push(Anomaly {
            rule: AnomalyRule::KvThrashing,
            severity: Severity::Warning,
            step: Some(t.step),
            layer_idx: None,
            place: "KV cache".into(),
            detail: format!("{:.0} % of what was looked up was there, below 50 %", rate * 100.0),
            value: Some(f64::from(rate)),
            threshold: Some(f64::from(thresholds::THRASHING)),
        });
    }
}
