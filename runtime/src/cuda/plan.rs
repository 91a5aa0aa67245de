//! A graph lowered to a GPU: nodes in order, each a launch or a few; buffers placed; weights listed as the kernels take them.
//!
//! A plan knows no device. How many rows a call has is decided per call ([`Extent`]); launches follow from both
//! (in the module `launch`).

use brick_cuda::Place;
use brick_graphs::{BrickId, WeightId};
use brick_profiler::StepInfo;
use brick_ptx::kernels::Format;
use brick_ptx::kernels::rope_kv::RopeStyle;
use bricks::{ActKind, AttentionSpec, Rows};

/// A buffer of activations: an index into [`GpuPlan::buffers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buf(pub(crate) usize);

/// Columns of an f32 buffer of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The buffer.
    pub buffer: Buf,
    /// First column.
    pub column: usize,
    /// Columns.
    pub width: usize,
    /// Columns from row to row.
    pub stride: usize,
}

impl View {
    /// All columns of a buffer.
    pub(crate) fn whole(buffer: Buf, width: usize) -> Self {
        Self { buffer, column: 0, width, stride: width }
    }

    /// Whether rows follow each other without gaps.
    pub(crate) fn is_whole(self) -> bool {
        self.column == 0 && self.width == self.stride
    }
}

/// A matrix as a kernel takes it: an index into [`GpuPlan::matrices`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixId(pub(crate) usize);

/// A vector of f32: an index into [`GpuPlan::vectors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorId(pub(crate) usize);

/// Rows of a weight in a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The weight.
    pub weight: WeightId,
    /// Its rows.
    pub rows: usize,
    /// Heads of so many rows become heads of so many, filled up with zeros.
    pub heads: Option<(usize, usize)>,
}

impl Part {
    /// Rows it takes in the matrix.
    pub fn padded_rows(&self) -> usize {
        self.heads.map_or(self.rows, |(from, to)| self.rows / from * to)
    }
}

/// A matrix to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixPlan {
    /// Name: of the brick, or of the weight.
    pub name: String,
    /// Format.
    pub format: Format,
    /// Columns.
    pub columns: usize,
    /// What it is made of, one after the other; or gate and up, row by row in turn.
    pub sources: Vec<Part>,
    /// Whether there are two sources that are taken in turn.
    pub gated: bool,
}

impl MatrixPlan {
    /// Rows of all sources.
    pub fn rows(&self) -> usize {
        self.sources.iter().map(Part::padded_rows).sum()
    }

    /// The source of a row, and which of its rows it is; `None` for zeros that fill a head up, and beyond the end.
    pub fn find(&self, row: usize) -> Option<(usize, usize)> {
        if self.gated {
            return Some((row % 2, row / 2));
        }
        let mut at = row;
        for (i, source) in self.sources.iter().enumerate() {
            if at < source.padded_rows() {
                return match source.heads {
                    None => Some((i, at)),
                    Some((from, to)) => (at % to < from).then(|| (i, at / to * from + at % to)),
                };
            }
            at -= source.padded_rows();
        }
        None
    }
}

/// A vector to be uploaded.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorPlan {
    /// Name.
    pub name: String,
    /// Its values.
    pub values: Vec<f32>,
}

/// What a matrix kernel multiplies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Tiles of 8-bit codes.
    Q8(Buf),
    /// f32 rows.
    F32(View),
    /// bfloat16 rows.
    Bf16(Buf),
}

/// What a matrix kernel reads where rows are few: f32 rows that it normalises and rounds itself, once per block of a persistent grid,
/// instead of launches that do it before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Source {
    /// The rows.
    pub x: View,
    /// Gain, and what is inside the root, if they are to be normalised.
    pub norm: Option<(VectorId, f32)>,
}

/// What attention needs to do what is before and behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FusedAttention {
    /// Queries, keys, values, not rotated.
    pub qkv: View,
    /// What [`NodeKind::Angles`] made.
    pub angles: Buf,
    /// Pairs that are rotated.
    pub pairs: usize,
    /// Which elements are rotated together.
    pub style: RopeStyle,
}

/// What a node computes.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// Cosines and sines of all rows' positions.
    Angles {
        /// Radians per position of each pair.
        inv_freq: VectorId,
        /// Pairs.
        pairs: usize,
        /// Factor.
        magnitude: f32,
        /// `[rows][pairs]` pairs.
        dst: Buf,
    },
    /// Rows of the embedding table.
    Embed {
        /// The table.
        table: MatrixId,
        /// Factor.
        scale: f32,
        /// Output.
        dst: View,
    },
    /// `RMSNorm`, to f32 or to tiles of 8-bit codes.
    Norm {
        /// Input.
        src: View,
        /// Gain.
        gain: VectorId,
        /// Inside the root.
        eps: f32,
        /// Where wanted rows are gathered, if not all are wanted.
        gathered: Option<View>,
        /// Whether those who read it normalise it themselves where rows are few.
        streamed: bool,
        /// Output.
        dst: Input,
    },
    /// f32 rows to tiles of 8-bit codes, or to bfloat16.
    Round {
        /// Input.
        src: View,
        /// Output.
        dst: Input,
        /// Rows up to which those who read it round it themselves, or who made it has rounded it.
        until: usize,
    },
    /// A matrix.
    Linear {
        /// The matrix.
        matrix: MatrixId,
        /// Another matrix of another format in the same launch, whose outputs follow.
        second: Option<MatrixId>,
        /// What it multiplies with.
        x: Input,
        /// What it multiplies with instead where rows are few.
        source: Option<Source>,
        /// Added to each output.
        bias: Option<VectorId>,
        /// Added to each output.
        residual: Option<View>,
        /// Output.
        y: View,
        /// Where the output of up to [`ROUNDED_BY_MAKER`] rows is rounded to, too.
        codes: Option<Buf>,
        /// Whether rows of the matrix are gate and up in turn, and the output `silu(gate) · up`.
        gated: bool,
        /// Whether these are the logits, of which a greedy step wants the largest only.
        logits: bool,
    },
    /// Rotation of queries and keys, keys and values to the cache.
    RopeKv {
        /// Layer.
        layer: usize,
        /// Queries, keys, values.
        qkv: View,
        /// Rotated queries.
        q: View,
        /// What [`NodeKind::Angles`] made.
        angles: Buf,
        /// Pairs that are rotated.
        pairs: usize,
        /// Which elements are rotated together.
        style: RopeStyle,
        /// Whether attention does it where every row has a sequence of its own.
        fused: bool,
    },
    /// Attention over the cache.
    Attention {
        /// Layer.
        layer: usize,
        /// Heads, scale, cap, window.
        spec: AttentionSpec,
        /// Queries.
        q: View,
        /// Output.
        dst: View,
        /// What it reads and writes instead where every row has a sequence of its own: rotation and the cache's write in the same launch.
        fused: Option<FusedAttention>,
    },
    /// Heads without the zeros they were filled up with.
    Compact {
        /// Padded heads.
        src: View,
        /// Heads.
        dst: View,
        /// Number of heads.
        heads: usize,
        /// Elements of a padded head and of a head.
        dims: (usize, usize),
    },
    /// `act(gate) · up`.
    Gate {
        /// The gate.
        gate: View,
        /// What is gated.
        up: View,
        /// Function of the gate.
        act: ActKind,
        /// Output.
        dst: View,
    },
    /// `a + b`.
    Add {
        /// First.
        a: View,
        /// Second.
        b: View,
        /// Output.
        dst: View,
    },
}

/// A step of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it computes.
    pub kind: NodeKind,
    /// The rows it computes it for.
    pub rows: Rows,
    /// The brick it belongs to.
    pub brick: BrickId,
}

/// Shape of the KV cache on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuKv {
    /// Layers.
    pub layers: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Elements of a head, as the kernels have it.
    pub head_dim: u32,
    /// Blocks in the pool.
    pub blocks: usize,
    /// Entries of a sequence in the block table.
    pub table_width: usize,
    /// Sequences.
    pub sequences: usize,
    /// Positions of the longest context.
    pub context: usize,
}

/// A graph lowered to a GPU.
#[derive(Debug)]
pub struct GpuPlan {
    /// Nodes in order.
    pub nodes: Vec<Node>,
    /// The nodes as the profiler sees them, by index.
    pub info: Vec<StepInfo>,
    /// Matrices.
    pub matrices: Vec<MatrixPlan>,
    /// Vectors.
    pub vectors: Vec<VectorPlan>,
    /// Buffers of activations, placed.
    pub buffers: Vec<Place>,
    /// Splits of attention and what waits to be put together: `parts`, `part_sums`, `arrivals`.
    pub attention: [Buf; 3],
    /// Scratch of the LM head's arg-max: `best`, `arrivals`.
    pub argmax: [Buf; 2],
    /// The step structure, the tokens that a step chose, and those that end a sequence.
    pub step: [Buf; 3],
    /// Tokens that were produced, the last [`RING`] of each row.
    pub ring: Buf,
    /// Rows whose logits are wanted.
    pub wanted: Buf,
    /// The logits.
    pub logits: View,
    /// Rows of the largest piece of a batch that runs at once.
    pub max_rows: usize,
    /// Rows of logits that there is room for.
    pub max_wanted: usize,
    /// The KV cache.
    pub kv: GpuKv,
    /// Whether the blocks of captured steps note when they ran ([`stamps`](super::stamps)).
    pub stamps: bool,
}

/// Most rows that a captured step has.
pub const MAX_CAPTURED: usize = 32;
/// Most tokens that end a sequence.
pub const MAX_STOPS: usize = 8;
/// Places per row in the ring of produced tokens.
pub const RING: usize = 16;
/// Rows that one launch of a matrix kernel takes side by side.
pub const CHUNK: usize = 8;

/// Rows as kernels take them: chunks of 1, 2, 4 or 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chunks {
    /// Rows of a chunk.
    pub size: usize,
    /// Chunks.
    pub count: usize,
}

impl Chunks {
    /// For `rows` rows: the least that holds them, a power of two up to 32, whole chunks beyond; none for none.
    pub fn of(rows: usize) -> Self {
        match rows {
            0 => Self { size: 1, count: 0 },
            1..=CHUNK => Self { size: rows.next_power_of_two(), count: 1 },
            _ if rows <= MAX_CAPTURED => Self { size: CHUNK, count: rows.next_power_of_two() / CHUNK },
            _ => Self { size: CHUNK, count: rows.div_ceil(CHUNK) },
        }
    }

    /// Rows with those that fill up.
    pub fn rows(self) -> usize {
        self.size * self.count
    }
}

/// What a call asks of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Rows.
    pub rows: Chunks,
    /// Rows whose logits are wanted; `None` for all, in order.
    pub wanted: Option<Chunks>,
    /// Positions that attention has to reach.
    pub context: usize,
    /// Whether every row has a sequence of its own.
    pub apart: bool,
    /// Whether the largest logit is enough, and the next step follows from it.
    pub greedy: bool,
    /// Whether the device notes the time behind every node.
    pub timed: bool,
}

/// Most rows that kernels read as f32 and round themselves: beyond, rounding once for all is cheaper.
pub const FEW: usize = 2;

/// Most rows whose gated activations are rounded where they are made: blocks of 64 rows of weights, which that takes, are uneven, and
/// cost more than a launch from two rows on (H200: 2274 tokens per second against 2401).
pub const ROUNDED_BY_MAKER: usize = 1;

impl Extent {
    /// Whether rows are few enough for matrix kernels to normalise and round them themselves.
    pub fn few(&self) -> bool {
        self.rows.count == 1 && self.rows.size <= FEW
    }
}
