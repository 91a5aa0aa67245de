//! Static facts about the steps of a plan, as the profiler sees them.

use bricks::{BrickKind, Cost, Extent, Op, PortType, WeightShape};
use serde::{Deserialize, Serialize};

/// One step of a plan. Its index in the plan is its identity while recording; its `name` is its identity across runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepInfo {
    /// Path of the brick, e.g. `blk.3.attn_qkv`. Stable across runs: profiles are compared by it.
    pub name: String,
    /// Accounting category.
    pub kind: BrickKind,
    /// Transformer layer, if the step belongs to one.
    pub layer: Option<u32>,
    /// Kernel that runs the step, e.g. `linear_q4_1_avx512-vnni`.
    pub kernel: String,
    /// Ids of the graph's bricks this step stands for (several after fusion).
    pub bricks: Vec<u32>,
    /// What is computed; gives the static cost.
    pub op: Op,
    /// Types of the input ports.
    pub inputs: Vec<PortType>,
    /// Shapes and storage types of the weights.
    pub weights: Vec<WeightShape>,
}

impl StepInfo {
    /// Bytes and operations of one call of this step. Derived from shapes, never measured.
    pub fn cost(&self, extent: &Extent) -> Cost {
        self.op.cost(&self.inputs, &self.weights, extent)
    }
}

/// What a forward call is for. Statistics are kept per phase, because µs/token of a prompt and of a decoded token are
/// different quantities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Prompt tokens only.
    Prefill = 0,
    /// One new token per sequence.
    Decode,
    /// Prompt chunks and decoded tokens in one batch.
    Mixed,
}

impl Phase {
    /// Number of phases.
    pub const COUNT: usize = 3;

    /// Every phase, in the order of its index.
    pub const ALL: [Phase; Self::COUNT] = [Self::Prefill, Self::Decode, Self::Mixed];

    /// Dense index, `0..COUNT`.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Mixed => "mixed",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
