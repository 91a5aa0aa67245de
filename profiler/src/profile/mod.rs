//! What a recording says, as data: the documented JSON of `brick profile --json`.
//!
//! Every figure sits in a group named `measured` (read from a clock or counted) or `derived` (computed from shapes, the
//! machine's limits and measured figures). The two are never mixed. The JSON Schema is `docs/schema/profile.schema.json`.
//!
//! | module | content |
//! | --- | --- |
//! | `build` | from recorder to profile |
//! | `parts` | timeline, threads, batch sizes, distance from the roofline |
//! | `stamps` | inside a GPU's decode step: what its blocks noted |
//! | `json` | JSON with one line per object, and back |
//! | `verdict` | budgets kept and exceeded, bottlenecks, figures that cannot be true |

mod build;
mod json;
mod load;
mod parts;
mod stamps;
mod verdict;

#[cfg(test)]
mod tests;

use bricks::{BrickCategory, BrickKind, BudgetOrigin, BudgetPolicy, Extent};
use serde::{Deserialize, Serialize};

pub use build::ProfileInputs;
pub use load::ProfileError;
pub use parts::{BatchRow, BoundShare, Counters, ForwardRow, Histogram, ThreadRow, ThreadsMeasured};
pub use stamps::{DeviceStamps, LaunchPart, LaunchTimes, StampsDerived, StampsMeasured, StampsRow, launch_parts};

use crate::clock::ClockPrecision;
use crate::machine::Machine;
use crate::record::SyncMode;
use crate::stats::Summary;
use crate::step::Phase;

/// One recording, complete: what ran, where, how long everything took and how that compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Version of this structure, [`Profile::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What ran.
    pub model: ModelInfo,
    /// Which program.
    pub build: BuildInfo,
    /// How it was run.
    pub run: RunInfo,
    /// Limits of the machine, if known.
    pub machine: Option<Machine>,
    /// Where budgets come from, if there are any.
    pub budget: Option<BudgetInfo>,
    /// What the recorder says about itself.
    pub recorder: RecorderInfo,
    /// The phases in which forward calls were recorded.
    pub phases: Vec<PhaseProfile>,
    /// On a GPU: the launches of a decode step, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launches: Vec<StepLaunch>,
    /// On a GPU, if asked for: when the blocks of decode steps ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamps: Option<DeviceStamps>,
}

/// A launch of a GPU kernel, and the step it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepLaunch {
    /// Name of the step.
    pub step: String,
    /// Name of the kernel.
    pub kernel: String,
    /// SHA-256 of its PTX text: `brick ptx KERNEL --target …` prints it.
    pub ptx_sha256: String,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory per block.
    pub shared_bytes: u32,
}

/// The model that ran.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// Name, as the file or the registry gives it.
    pub name: String,
    /// `llama`, `qwen2`, …
    pub architecture: Option<String>,
    /// Quantisation, e.g. `Q4_K_M`.
    pub quantization: Option<String>,
    /// Size of the file.
    pub file_bytes: Option<u64>,
    /// SHA-256 of the file.
    pub sha256: Option<String>,
    /// Hash of the graph that ran, after fusion, as `brick graph` shows it: equal hashes, equal bricks.
    pub graph_hash: Option<String>,
}

/// The program that ran it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildInfo {
    /// Version of brick.
    pub version: String,
    /// Architecture and operating system, e.g. `x86_64-linux`.
    pub target: String,
    /// Whether debug assertions are on; then times say little.
    pub debug_assertions: bool,
    /// Commit the program was built from.
    pub git: Option<String>,
    /// Compiler.
    pub rustc: Option<String>,
    /// Cargo features that are on.
    pub features: Vec<String>,
}

impl BuildInfo {
    /// This program, as far as this crate knows it: commit and compiler are for the program to add.
    pub fn current() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            debug_assertions: cfg!(debug_assertions),
            git: None,
            rustc: None,
            features: vec![],
        }
    }
}

/// How the model was run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    /// Backend and instruction set, e.g. `cpu avx512-vnni`.
    pub backend: String,
    /// Threads.
    pub threads: usize,
    /// Sequences in a batch.
    pub sequences: u64,
    /// Whether the prompt was a text, or tokens made up for the purpose.
    pub prompt: PromptKind,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Rows of the largest batch: a longer prompt is cut.
    pub batch_rows: u64,
    /// Positions a sequence may have.
    pub context: u64,
    /// Element type of the KV cache, e.g. `f16`.
    pub kv_type: Option<String>,
    /// Forward calls before the recording began.
    pub warmup_forwards: u64,
    /// When, ISO 8601 in UTC.
    pub timestamp: Option<String>,
}

/// What was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptKind {
    /// Tokens that stand for any: what a prompt says makes no difference to its cost.
    #[default]
    Synthetic,
    /// A text.
    Text,
}

/// Where the budgets come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetInfo {
    /// `explicit`, `roofline` or `baseline`.
    pub origin: BudgetOrigin,
    /// Source and assumptions in one line.
    pub source: String,
    /// What happens when one is exceeded.
    pub policy: BudgetPolicy,
}

/// What the recorder says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecorderInfo {
    /// How finely time was taken.
    pub sync_mode: SyncMode,
    /// Counted and timed.
    pub measured: RecorderMeasured,
    /// Computed.
    pub derived: RecorderDerived,
}

/// Counters of the recorder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecorderMeasured {
    /// The clock.
    pub clock: ClockPrecision,
    /// How often it was read.
    pub clock_reads: u64,
    /// Forward calls that began and never ended.
    pub aborted_forwards: u64,
    /// Calls that made no sense; 0 unless the scheduler has a bug.
    pub ignored_calls: u64,
    /// What the processor counted over everything recorded, and over the time between; `None` if it was not asked.
    pub counters: Option<Counters>,
}

/// What recording cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecorderDerived {
    /// Clock reads × cost of one, as a fraction of the wall time of all forwards.
    pub clock_overhead: Option<f64>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseProfile {
    /// Which.
    pub phase: Phase,
    /// Counted and timed.
    pub measured: PhaseMeasured,
    /// Computed.
    pub derived: PhaseDerived,
    /// The kind of brick that takes most time.
    pub slowest_kind: Option<BottleneckReport>,
    /// The single brick that takes most time.
    pub slowest_step: Option<BottleneckReport>,
    /// Groups of kinds, in report order.
    pub categories: Vec<CategoryRow>,
    /// Kinds that ran, in the order of [`BrickKind`]. Empty if steps were not timed.
    pub kinds: Vec<KindRow>,
    /// Runs of steps of one layer, in the order of the plan.
    pub layers: Vec<LayerRow>,
    /// Steps, in the order of the plan. Empty if steps were not timed.
    pub steps: Vec<StepRow>,
    /// Threads of the gang. Empty if their arrivals were not recorded.
    pub threads: Vec<ThreadRow>,
    /// Batch sizes, ascending.
    pub batches: Vec<BatchRow>,
    /// The last forward calls, oldest first.
    pub timeline: Vec<ForwardRow>,
}

/// Totals of a phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseMeasured {
    /// Forward calls.
    pub forwards: u64,
    /// Tokens they processed.
    pub tokens: u64,
    /// Wall time of the forward calls.
    pub wall_us: f64,
    /// Time charged to steps.
    pub steps_us: f64,
    /// Host work recorded between forward calls (sampling).
    pub external_us: f64,
    /// All time between a forward call of this phase and the next one; contains `external_us`.
    pub gap_us: f64,
    /// Wall time per token of the last forward calls.
    pub us_per_token: Option<Summary>,
}

/// Figures of a phase that follow from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseDerived {
    /// Mean size of a forward call, rounded.
    pub mean_extent: Extent,
    /// Tokens ÷ wall time of the forward calls.
    pub tokens_per_s: Option<f64>,
    /// Tokens ÷ (wall time and gaps).
    pub tokens_per_s_with_gaps: Option<f64>,
    /// Fraction of the wall time of forward calls that is charged to steps.
    pub coverage: Option<f64>,
    /// Steps run per second.
    pub bricks_per_s: Option<f64>,
    /// Work and rates.
    pub work: WorkRates,
    /// Distance of all steps together from the roofline.
    pub bound: Option<BoundShare>,
    /// Budget of all steps together.
    pub budget: Option<BudgetShare>,
    /// Whether it was kept.
    pub verdict: Verdict,
    /// What is wrong with these figures, if anything.
    pub flags: Vec<Flag>,
}

/// Bytes and operations per token, and how fast they went. All derived from shapes; rates use measured time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkRates {
    /// Bytes of weights per token.
    pub weight_bytes_per_token: f64,
    /// All bytes per token: weights, activations, KV cache.
    pub bytes_per_token: f64,
    /// Integer operations per token.
    pub int_ops_per_token: f64,
    /// Floating-point operations per token.
    pub flops_per_token: f64,
    /// Bytes moved in 10⁹ per second.
    pub gb_per_s: Option<f64>,
    /// Integer operations in 10⁹ per second.
    pub int_gop_per_s: Option<f64>,
    /// Floating-point operations in 10⁹ per second.
    pub gflop_per_s: Option<f64>,
}

/// Measured figures of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowMeasured {
    /// Calls.
    pub calls: u64,
    /// Their time together.
    pub total_us: f64,
    /// The shortest call.
    pub min_us: f64,
    /// The longest call.
    pub max_us: f64,
    /// Total time ÷ tokens of the phase, over everything recorded.
    pub mean_us_per_token: f64,
    /// Per token of the last forward calls. For a kind: the sum of its bricks in each forward.
    pub us_per_token: Option<Summary>,
    /// Time of every forward call; kinds only.
    pub histogram: Option<Histogram>,
    /// By thread, if arrivals were recorded.
    pub threads: Option<ThreadsMeasured>,
}

/// Derived figures of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowDerived {
    /// Fraction of the time of all steps and external work of the phase.
    pub share: f64,
    /// Work and rates.
    pub work: WorkRates,
    /// Distance from the roofline; `None` without a machine, and for host work.
    pub bound: Option<BoundShare>,
    /// Budget.
    pub budget: Option<BudgetShare>,
    /// Whether it was kept.
    pub verdict: Verdict,
    /// What is wrong with these figures, if anything.
    pub flags: Vec<Flag>,
}

/// A budget and how a measured time compares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetShare {
    /// Budget in µs per token.
    pub us_per_token: f64,
    /// Where it comes from.
    pub origin: BudgetOrigin,
    /// Measured median ÷ budget: above 1 the budget is exceeded by that factor.
    pub gap_factor: f64,
}

/// Whether a budget was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The median kept the budget.
    Within,
    /// The median exceeded the budget.
    Over,
    /// There is no budget.
    NoBudget,
    /// There is a budget and nothing was measured to hold against it.
    NotMeasured,
}

impl Verdict {
    /// The word used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Within => "within",
            Self::Over => "OVER",
            Self::NoBudget => "no budget",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A figure that should not be believed as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// More bytes per second than this machine was measured to read from where they must come from.
    AboveMeasuredBandwidth,
    /// More integer operations per second than measured as this machine's peak.
    AboveMeasuredInt8Peak,
    /// More floating-point operations per second than measured as this machine's peak.
    AboveMeasuredF32Peak,
    /// The mean call lasted less than ten times what the clock resolves.
    NearClockResolution,
}

impl Flag {
    /// What the flag means, for footnotes.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::AboveMeasuredBandwidth => {
                "more GB/s than measured on this machine: served from a nearer cache, or not read"
            }
            Self::AboveMeasuredInt8Peak => "more int8 GOP/s than measured on this machine: count or clock is wrong",
            Self::AboveMeasuredF32Peak => "more f32 GFLOP/s than measured on this machine: count or clock is wrong",
            Self::NearClockResolution => "calls last less than ten clock ticks: the time is a rough one",
        }
    }
}

/// Time per category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryRow {
    /// Which.
    pub category: BrickCategory,
    /// Counted and timed.
    pub measured: TimeMeasured,
    /// Computed.
    pub derived: TimeDerived,
}

/// Time per run of steps of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRow {
    /// Layer, or `None` for the steps before and after the layers.
    pub layer: Option<u32>,
    /// Counted and timed.
    pub measured: TimeMeasured,
    /// Computed.
    pub derived: TimeDerived,
}

/// Calls and time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeMeasured {
    /// Calls (of a layer: forward calls).
    pub calls: u64,
    /// Their time together.
    pub total_us: f64,
    /// Total time ÷ tokens of the phase.
    pub mean_us_per_token: f64,
}

/// Share of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeDerived {
    /// Fraction of the time of all steps and external work of the phase.
    pub share: f64,
}

/// A kind of brick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindRow {
    /// Which.
    pub kind: BrickKind,
    /// Counted and timed.
    pub measured: RowMeasured,
    /// Computed.
    pub derived: RowDerived,
}

/// A step of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRow {
    /// Path of the brick; profiles are compared by it.
    pub name: String,
    /// Kind.
    pub kind: BrickKind,
    /// Layer, if it belongs to one.
    pub layer: Option<u32>,
    /// Kernel that ran it.
    pub kernel: String,
    /// Bricks of the graph it stands for.
    pub bricks: Vec<u32>,
    /// Counted and timed.
    pub measured: RowMeasured,
    /// Computed.
    pub derived: RowDerived,
}

/// Where the time goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BottleneckReport {
    /// Layer, if the bottleneck is one brick of a layer.
    pub layer_idx: Option<u32>,
    /// Name of the brick or of the kind.
    pub brick_name: String,
    /// Measured median in µs per token.
    pub actual_us: f64,
    /// Fraction of the time of the phase. Derived.
    pub share: f64,
    /// Budget in µs per token, if there is one.
    pub budget_us: Option<f64>,
    /// `actual_us / budget_us`.
    pub gap_factor: Option<f64>,
}

impl Profile {
    /// Version of the JSON. Readers refuse others.
    pub const SCHEMA_VERSION: u32 = 2;

    /// Forward calls of each phase that a timeline has by default: a few hundred KB of JSON for a small model.
    pub const TIMELINE: usize = 64;

    /// The JSON Schema of [`to_json`](Self::to_json) (draft 2020-12).
    pub const JSON_SCHEMA: &'static str = include_str!("../../../docs/schema/profile.schema.json");

    /// A phase, if forward calls of it were recorded.
    pub fn phase(&self, phase: Phase) -> Option<&PhaseProfile> {
        self.phases.iter().find(|p| p.phase == phase)
    }
}

impl PhaseProfile {
    /// The row of a kind, if it ran.
    pub fn kind(&self, kind: BrickKind) -> Option<&KindRow> {
        self.kinds.iter().find(|r| r.kind == kind)
    }
}
