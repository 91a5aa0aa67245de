//! A graph lowered to the CPU: a flat list of steps with kernels chosen and buffers placed; nothing is left to decide.
//!
//! The plan is made once ([`lower`]) for the largest batch it must serve. A step says where its inputs and outputs lie in the
//! arena; the number of rows comes from the batch.

mod lower;

use brick_graphs::{BrickId, WeightId};
use brick_profiler::StepInfo;
use bricks::cpu::SimdLevel;
use bricks::{ActKind, AttentionSpec, RopeStyle, Rows};

pub use lower::{LowerError, LowerOptions, lower};

/// A buffer of f32 rows in the arena: row `t` starts at byte `offset + 4 · t · width`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Byte offset.
    pub offset: usize,
    /// Elements per row.
    pub width: usize,
}

/// A buffer of Q8 activation rows (see [`bricks::quant::q8`]): three planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Q8Slot {
    /// Byte offset of the codes, `width` bytes per row.
    pub codes: usize,
    /// Byte offset of the scales, `width / 32` f32 per row.
    pub scales: usize,
    /// Byte offset of the code sums, `width / 32` pairs of i16 per row.
    pub sums: usize,
    /// Values per row.
    pub width: usize,
}

/// Cosines and sines of one rotary embedding, computed once per forward call for every row.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// The embedding's parameters.
    pub spec: bricks::RopeSpec,
    /// `f32[rows, dims / 2]` cosines.
    pub cos: Slot,
    /// `f32[rows, dims / 2]` sines.
    pub sin: Slot,
    pub(crate) frequencies: bricks::rope::RopeFrequencies,
}

/// One matrix of a linear step.
#[derive(Debug, Clone)]
pub struct LinearMatrix {
    /// The weights; packed for the kernels (see [`crate::weights::PackedWeights`]).
    pub weight: WeightId,
    /// What it multiplies with.
    pub src: LinearInput,
    /// Bias per output.
    pub bias: Option<Box<[f32]>>,
    /// Output features.
    pub rows: usize,
    /// Where the outputs go.
    pub dst: Slot,
    pub(crate) kernel: bricks::cpu::linear::LinearKernel,
}

/// What a linear step multiplies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearInput {
    /// f32 rows (float weights).
    F32(Slot),
    /// Q8 rows (quantised weights).
    Q8(Q8Slot),
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum StepKind {
    /// Computes the rotary tables from the batch's positions.
    Input,
    /// Gathers and decodes embedding rows.
    Embed {
        /// Embedding table.
        table: WeightId,
        /// Storage type.
        dtype: bricks::DType,
        /// Multiplies the row.
        scale: f32,
        /// Output.
        dst: Slot,
    },
    /// Normalises rows.
    RmsNorm {
        /// Input.
        src: Slot,
        /// Gain.
        gain: Box<[f32]>,
        /// Inside the root.
        eps: f32,
        /// All rows, or the wanted ones gathered.
        rows: Rows,
        /// Output.
        dst: Slot,
        /// Also wanted as Q8.
        q8: Option<Q8Slot>,
    },
    /// `sum = a + b`, then its norm.
    AddRmsNorm {
        /// Residual.
        a: Slot,
        /// What is added to it.
        b: Slot,
        /// Gain.
        gain: Box<[f32]>,
        /// Inside the root.
        eps: f32,
        /// The sum.
        sum: Slot,
        /// The norm.
        dst: Slot,
        /// The norm as Q8.
        q8: Option<Q8Slot>,
    },
    /// Rounds rows to Q8; only where the producer cannot.
    Quantize {
        /// Input.
        src: Slot,
        /// All rows or the wanted ones (already gathered).
        rows: Rows,
        /// Output.
        q8: Q8Slot,
    },
    /// Matrices on the same input.
    Linear {
        /// The input as f32 rows (what [`LinearMatrix::src`] was rounded from).
        source: Slot,
        /// Matrices, each with its own output.
        matrices: Vec<LinearMatrix>,
        /// All rows or the wanted ones (already gathered).
        rows: Rows,
    },
    /// Gate and up on the same input, and `act(gate) · up`.
    GatedLinear {
        /// The input as f32 rows.
        source: Slot,
        /// Gate and up; their outputs go to scratch memory, [`LinearMatrix::dst`] is the step's own.
        matrices: Box<[LinearMatrix; 2]>,
        /// Function of the gate.
        act: ActKind,
        /// Output.
        dst: Slot,
        /// Whether anybody reads the output as f32.
        keep: bool,
        /// Also wanted as Q8.
        q8: Option<Q8Slot>,
    },
    /// Rotates heads.
    Rope {
        /// Input.
        src: Slot,
        /// Output.
        dst: Slot,
        /// Elements per head.
        head_dim: usize,
        /// Pairing.
        style: RopeStyle,
        /// Index of the table.
        table: usize,
    },
    /// Stores keys and values; rotates keys (and queries into `q_out`) if a table is given.
    KvWrite {
        /// Layer.
        layer: usize,
        /// Keys.
        k: Slot,
        /// Values.
        v: Slot,
        /// Key/value heads.
        n_kv_heads: usize,
        /// Elements per head.
        head_dim: usize,
        /// Rotation fused into the write.
        rope: Option<FusedRope>,
    },
    /// Attention over the cache.
    Attention {
        /// Layer.
        layer: usize,
        /// Queries.
        q: Slot,
        /// Shape.
        spec: AttentionSpec,
        /// Output.
        dst: Slot,
        /// Also wanted as Q8.
        q8: Option<Q8Slot>,
        /// Byte offset of the records of splits that wait to be put together ([`AttentionLimits::records`]).
        records: usize,
    },
    /// `a + b`.
    Add {
        /// First input.
        a: Slot,
        /// Second input.
        b: Slot,
        /// Output.
        dst: Slot,
    },
    /// `act(gate) · up`.
    GatedActivation {
        /// Gate.
        gate: Slot,
        /// Up.
        up: Slot,
        /// Function.
        act: ActKind,
        /// Output.
        dst: Slot,
        /// Also wanted as Q8.
        q8: Option<Q8Slot>,
    },
}

/// Rotation fused into a KV write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FusedRope {
    /// Queries in.
    pub q: Slot,
    /// Queries out.
    pub q_out: Slot,
    /// Pairing.
    pub style: RopeStyle,
    /// Index of the table.
    pub table: usize,
}

/// One kernel call of a plan.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// The brick it computes.
    pub brick: BrickId,
}

/// What the attention steps of a plan have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionLimits {
    /// Rows per tile.
    pub tile_rows: usize,
    /// Most `rows × splits` of tiles whose splits are shared out to threads; 0 if none are.
    pub records: usize,
}

/// A graph lowered to the CPU.
#[derive(Debug)]
pub struct Plan {
    /// Steps in order.
    pub steps: Vec<Step>,
    /// The steps as the profiler sees them, by step index.
    pub info: Vec<StepInfo>,
    /// Rotary tables.
    pub rope_tables: Vec<RopeTable>,
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// Wanted rows of the largest batch.
    pub max_wanted: usize,
    /// Where the logits are.
    pub logits: Slot,
    /// Byte offset and floats of scratch memory per thread.
    pub scratch: (usize, usize),
    /// Threads the scratch memory is for.
    pub threads: usize,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// SIMD level of the kernels.
    pub simd: SimdLevel,
    /// What the attention steps have room for.
    pub attention: AttentionLimits,
    /// Layers of KV cache the plan writes.
    pub kv_layers: usize,
}
