//! What a recorder knew at one moment.

use brick_profiler::profile::{
    BottleneckReport, BudgetShare, BuildInfo, LayerRow, ModelInfo, PhaseProfile, RowDerived, RowMeasured, RunInfo,
    ThreadRow, Verdict,
};
use brick_profiler::score::{Grade, ModelScore};
use brick_profiler::{Phase, Profile, Summary};
use bricks::BrickKind;
use serde::{Deserialize, Serialize};

/// Calls whose wall times a snapshot lists one by one.
pub const RECENT: usize = 64;

/// One frame: all that a view or a report shows. Deserialised from another process it may say anything but nonsense JSON; readers
/// must not trust indices or sums in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// [`Snapshot::SCHEMA`].
    pub schema: String,
    /// Process that records.
    pub pid: u32,
    /// What runs.
    pub model: ModelInfo,
    /// Which program.
    pub build: BuildInfo,
    /// How it is run.
    pub run: RunInfo,
    /// The computer.
    pub hardware: Hardware,
    /// Where budgets come from; `None` without budgets.
    pub budgets: Option<String>,
    /// The phase that all figures below are of: decode once a token was decoded, prefill before.
    pub phase: Phase,
    /// Counted and timed.
    pub measured: Measured,
    /// Computed.
    pub derived: Derived,
    /// Kinds of bricks that ran, in the order of [`BrickKind`].
    pub bricks: Vec<BrickRow>,
    /// Single bricks, in the order of the plan.
    pub steps: Vec<StepCell>,
    /// Layers, in the order of the plan.
    pub layers: Vec<LayerRow>,
    /// Threads of the gang.
    pub threads: Vec<ThreadRow>,
    /// The kind that takes most time.
    pub bottleneck: Option<BottleneckReport>,
    /// The single brick that takes most time.
    pub slowest_step: Option<BottleneckReport>,
}

/// The computer, as far as it is known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Processor; `None` before `brick machine` has measured it.
    pub cpu: Option<String>,
    /// Graphics processor; always `None` on the CPU backend.
    pub gpu: Option<String>,
    /// Memory this process could use when the machine was measured, in 10⁹ bytes.
    pub memory_gb: Option<f64>,
    /// Measured read bandwidth with the threads of the run, fastest level first.
    pub bandwidth: Vec<LevelBandwidth>,
    /// Name of the level that weights come from.
    pub weights_from: Option<String>,
}

/// Read bandwidth of one level of memory. Measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelBandwidth {
    /// `L1`, `L2`, `L3`, `DRAM`.
    pub level: String,
    /// 10⁹ bytes per second.
    pub gb_s: f64,
}

/// Counted and timed, of one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Forward calls.
    pub forwards: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their wall time.
    pub wall_us: f64,
    /// From the beginning of the last prompt's first forward call until its first token was sampled.
    pub ttft_ms: Option<f64>,
    /// Wall time per token of the last forward calls.
    pub us_per_token: Option<Summary>,
    /// Wall time per token of at most [`RECENT`] forward calls, oldest first.
    pub recent_us_per_token: Vec<f64>,
    /// Positions in the KV cache after the last of them.
    pub context: u64,
    /// Forward calls that began and never ended.
    pub aborted_forwards: u64,
    /// Calls of the recorder that made no sense.
    pub ignored_calls: u64,
    /// What making the frame before this one cost the run.
    pub frame_us: Option<f64>,
    /// Frames that were not sent, since the one before had not been taken yet.
    pub frames_dropped: u64,
}

/// Figures that follow from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derived {
    /// Tokens per second of the last forward calls since the last prompt, with the time between them.
    pub tokens_per_s: Option<f64>,
    /// Tokens of all forward calls ÷ their wall time, without the time between them.
    pub tokens_per_s_overall: Option<f64>,
    /// Budget of all bricks together.
    pub budget: Option<BudgetShare>,
    /// Whether it is kept.
    pub verdict: Verdict,
    /// Fraction of the wall time of forward calls that is charged to bricks.
    pub coverage: Option<f64>,
    /// Least time the machine allows ÷ measured mean.
    pub of_limit: Option<f64>,
    /// Fraction of the time of [`tokens_per_s`](Self::tokens_per_s) that lies between forward calls: sampling, output.
    pub between_calls: Option<f64>,
    /// Fraction of the wall time that went into reading the clock.
    pub clock_overhead: Option<f64>,
    /// Mean score of the kinds of bricks.
    pub score: Option<u32>,
}

/// A kind of brick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrickRow {
    /// Which.
    pub kind: BrickKind,
    /// Whether it is a brick of the graph, and not host work such as sampling.
    pub in_graph: bool,
    /// Counted and timed.
    pub measured: RowMeasured,
    /// Computed.
    pub derived: RowDerived,
    /// Points of the category score. Derived.
    pub score: Option<u32>,
    /// Points for the distance to the budget. Derived.
    pub gap_score: Option<u32>,
    /// Why there is no score.
    pub missing: Option<String>,
}

impl BrickRow {
    /// Measured median in µs per token, or the mean where no call is kept.
    pub fn actual_us(&self) -> f64 {
        self.measured.us_per_token.map_or(self.measured.mean_us_per_token, |s| s.p50)
    }

    /// Grade of the score. Derived.
    pub fn grade(&self) -> Option<Grade> {
        self.score.map(Grade::of)
    }
}

/// A single brick, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepCell {
    /// Path, e.g. `blk.3.attn_qkv`.
    pub name: String,
    /// Kind.
    pub kind: BrickKind,
    /// Layer, if it belongs to one.
    pub layer: Option<u32>,
    /// Kernel.
    pub kernel: String,
    /// Mean over everything recorded. Measured.
    pub mean_us_per_token: f64,
    /// Median of the last forward calls. Measured.
    pub p50_us_per_token: Option<f64>,
    /// Budget. Derived.
    pub budget_us_per_token: Option<f64>,
    /// Least time the machine allows ÷ measured mean. Derived.
    pub of_limit: Option<f64>,
}

/// What a profile does not know about a live run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// Process that records.
    pub pid: u32,
    /// Level that weights come from.
    pub weights_from: Option<String>,
    /// See [`Measured::ttft_ms`].
    pub ttft_ms: Option<f64>,
    /// See [`Measured::frame_us`].
    pub frame_us: Option<f64>,
    /// See [`Measured::frames_dropped`].
    pub frames_dropped: u64,
}

/// A profile says nothing: there is no frame to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected profile data of at least one forward call, found none: the recorder saw nothing")]
pub struct NoData;

impl Snapshot {
    /// Name and version of this structure. Readers refuse others.
    pub const SCHEMA: &'static str = "brick.top.frame/1";

    /// The frame of a profile: of decoding, if a token was decoded, else of what was recorded.
    ///
    /// # Errors
    /// [`NoData`] if no forward call was recorded, or its bricks were not timed.
    pub fn of(profile: &Profile, facts: &Facts) -> Result<Self, NoData> {
        let recorded = |phase: Phase| profile.phase(phase).filter(|p| !p.kinds.is_empty());
        let order = [Phase::Decode, Phase::Prefill, Phase::Mixed];
        let p = order.into_iter().find_map(recorded).ok_or(NoData)?;
        let score = ModelScore::of(profile, p.phase);
        Ok(Self {
            schema: Self::SCHEMA.to_owned(),
            pid: facts.pid,
            model: profile.model.clone(),
            build: profile.build.clone(),
            run: profile.run.clone(),
            hardware: hardware(profile, facts),
            budgets: profile.budget.as_ref().map(|b| b.source.clone()),
            phase: p.phase,
            measured: measured(profile, p, facts),
            derived: derived(profile, p, score.as_ref()),
            bricks: bricks(p, score.as_ref()),
            steps: steps(p),
            layers: p.layers.clone(),
            threads: p.threads.clone(),
            bottleneck: p.slowest_kind.clone(),
            slowest_step: p.slowest_step.clone(),
        })
    }

    /// Single bricks of a kind, in the order of the plan.
    pub fn steps_of(&self, kind: BrickKind) -> impl Iterator<Item = &StepCell> {
        self.steps.iter().filter(move |s| s.kind == kind)
    }

    /// Sum of the mean times of all bricks of the graph, in µs per token. Measured.
    pub fn bricks_us(&self) -> f64 {
        self.steps.iter().map(|s| s.mean_us_per_token).sum()
    }

    /// Mean time of the layers alone and how many there are. Measured.
    pub fn layer_us(&self) -> Option<(f64, usize)> {
        let layers: Vec<f64> =
            self.layers.iter().filter(|l| l.layer.is_some()).map(|l| l.measured.mean_us_per_token).collect();
        (!layers.is_empty()).then(|| (layers.iter().sum::<f64>() / layers.len() as f64, layers.len()))
    }

    /// Budget of a layer in µs per token, where every brick of it has one: the mean of the layers. Derived.
    pub fn layer_budget_us(&self) -> Option<f64> {
        let (_, layers) = self.layer_us()?;
        let budgets = self.steps.iter().filter(|s| s.layer.is_some()).map(|s| s.budget_us_per_token);
        let all: Option<Vec<f64>> = budgets.collect();
        all.filter(|a| !a.is_empty()).map(|a| a.iter().sum::<f64>() / layers as f64)
    }
}

fn hardware(profile: &Profile, facts: &Facts) -> Hardware {
    let Some(machine) = &profile.machine else { return Hardware::default() };
    let limits = &machine.measured;
    let level = |b: &brick_profiler::machine::Bandwidth| LevelBandwidth {
        level: b.level.name().to_owned(),
        gb_s: b.gb_s.at(profile.run.threads, limits.threads),
    };
    Hardware {
        cpu: Some(machine.fingerprint.cpu_model.clone()),
        gpu: None,
        memory_gb: machine.reported.memory_available_bytes.map(|b| b as f64 / 1e9),
        bandwidth: limits.read.iter().map(level).collect(),
        weights_from: facts.weights_from.clone(),
    }
}

fn measured(profile: &Profile, p: &PhaseProfile, facts: &Facts) -> Measured {
    let recent = &p.timeline[p.timeline.len().saturating_sub(RECENT)..];
    let recorder = &profile.recorder.measured;
    Measured {
        forwards: p.measured.forwards,
        tokens: p.measured.tokens,
        wall_us: p.measured.wall_us,
        ttft_ms: facts.ttft_ms,
        us_per_token: p.measured.us_per_token,
        recent_us_per_token: recent.iter().map(|f| f.wall_us / f.tokens.max(1) as f64).collect(),
        context: recent.last().map_or(0, |f| f.context),
        aborted_forwards: recorder.aborted_forwards,
        ignored_calls: recorder.ignored_calls,
        frame_us: facts.frame_us,
        frames_dropped: facts.frames_dropped,
    }
}

fn derived(profile: &Profile, p: &PhaseProfile, score: Option<&ModelScore>) -> Derived {
    // Since the last prompt: between two answers of a chat, a person thinks.
    let prompt_us = match p.phase {
        Phase::Prefill => None,
        _ => profile.phase(Phase::Prefill).and_then(|prefill| prefill.timeline.last()).map(|f| f.begin_us),
    };
    let answer = p.timeline.iter().filter(|f| prompt_us.is_none_or(|us| f.begin_us >= us));
    let (mut tokens, mut wall_us, mut gap_us) = (0u64, 0.0, 0.0);
    for f in answer {
        tokens = tokens.saturating_add(f.tokens);
        wall_us += f.wall_us;
        gap_us += f.gap_us;
    }
    let ratio = |a: f64, b: f64| (b > 0.0).then_some(a / b).filter(|x| x.is_finite());
    Derived {
        tokens_per_s: ratio(tokens as f64 * 1e6, wall_us + gap_us),
        tokens_per_s_overall: p.derived.tokens_per_s,
        budget: p.derived.budget,
        verdict: p.derived.verdict,
        coverage: p.derived.coverage,
        of_limit: p.derived.bound.map(|b| b.fraction),
        between_calls: ratio(gap_us, wall_us + gap_us),
        clock_overhead: profile.recorder.derived.clock_overhead,
        score: score.and_then(|s| s.score),
    }
}

fn bricks(p: &PhaseProfile, score: Option<&ModelScore>) -> Vec<BrickRow> {
    let rows = p.kinds.iter().map(|row| {
        let points = score.and_then(|s| s.bricks.iter().find(|b| b.kind == row.kind));
        BrickRow {
            kind: row.kind,
            in_graph: p.steps.iter().any(|s| s.kind == row.kind),
            measured: row.measured.clone(),
            derived: row.derived.clone(),
            score: points.and_then(|b| b.score),
            gap_score: points.and_then(|b| b.gap_score),
            missing: points.and_then(|b| b.missing).map(str::to_owned),
        }
    });
    rows.collect()
}

fn steps(p: &PhaseProfile) -> Vec<StepCell> {
    let cell = |s: &brick_profiler::profile::StepRow| StepCell {
        name: s.name.clone(),
        kind: s.kind,
        layer: s.layer,
        kernel: s.kernel.clone(),
        mean_us_per_token: s.measured.mean_us_per_token,
        p50_us_per_token: s.measured.us_per_token.map(|x| x.p50),
        budget_us_per_token: s.derived.budget.map(|b| b.us_per_token),
        of_limit: s.derived.bound.map(|b| b.fraction),
    };
    p.steps.iter().map(cell).collect()
}
