//! Matrix times a few vectors: `y = W x` for 1 to 8 tokens, bound by the bytes of `W`.
//!
//! # Shapes and buffers
//! `W`: `[rows][columns]`, in the planes of [`pack`](super::pack): parameters `codes`, `high` (Q5_K, Q6_K), `scales`, `supers` (Q6_K).
//! Activations `x` of `T` tokens: for quantised weights the tiles of [`activation`]; for F16 `[T][columns]` f32; for
//! BF16 `[T][columns]` bfloat16. `T` is part of the kernel: a bucket.
//!
//! | [`Epilogue`] | result |
//! | --- | --- |
//! | `Store` | `y`: `[T][rows]` f32, plus `bias` (`[rows]`) and `residual` (`[T][rows]`) where these are not null; `y` may be `residual` |
//! | `SwiGlu` | `y`: `[T][rows / 2]` f32, `silu(gate) · up`: rows of `W` are gate and up in turn ([`Packed::gated`](super::pack::Packed::gated)) |
//! | `ArgMax` | `tokens`: `[T]` u32, the row of the largest value, the first of equals; [`NO_TOKEN`](super::argmax::NO_TOKEN) if all are NaN |
//!
//! # Who does what
//! A warp takes `R` rows: 2, or 4 of F16 beyond four tokens. Lane `l` takes blocks `l`, `l + 32`, … of them, 16 bytes of codes each, and
//! uses a block of activations for all `R` rows. Four loads of 16 bytes are under way before the first is used: `R` rows of `4 / R`
//! chunks of 32 blocks. Sums over lanes pair lanes 16, 8, 4, 2 and 1 apart.
//!
//! So an output is a sum in one fixed order (32 sums, one per lane, along the row; then a tree), and does not depend on how
//! many tokens there are, nor on which kernel of this family made it.
//!
//! # The ceiling
//! Bandwidth, until dp4a or issue binds: 16 bytes per lane cost about 40 instructions with one token, of the 124 cycles that a
//! sub-partition of an H200 has per such load at 4.3 TB/s; each further token adds eight dp4a (16 cycles) for four-bit weights. Bytes
//! in flight: a warp has 4 × 512 B of codes under way; [`min_blocks`](Gemv::min_blocks) leaves room for 12 warps or more, which is 24 KiB
//! per multiprocessor, against the 24.4 kB that 4.3 TB/s times 0.75 µs of latency ask for. See [`ceiling`](super::ceiling).
//!
//! With [`Target::Sm90`], kernels prefetch their rows before they wait for the kernel that makes the activations.

mod entries;
mod epilogue;
mod float;
pub mod mma;
mod reduce;
mod weights;

use super::activation;
use super::format::Format;
use super::launch::{Dims, ShapeError};
use crate::build::{B32, F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, U32, Var};
use crate::ir::{Access, Cache, Kernel, Target, Threads};
use epilogue::Sink;
use weights::{Activation, Lane, Moving, Planes};

pub(super) use entries::entries;

/// Warps of a block.
pub const WARPS: u32 = 4;
/// Most tokens of one launch.
pub const MAX_TOKENS: u32 = 8;
/// Blocks per multiprocessor that the grid of [`Epilogue::ArgMax`] is limited to.
const ARG_MAX_BLOCKS: u32 = 8;
/// Bytes of a tile of activations.
const TILE: u32 = activation::TILE as u32;
/// Loads of 16 bytes that a lane has under way.
const LOADS: u32 = 4;

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// They are stored, with bias and residual if there are such.
    Store,
    /// Pairs of them become `silu(gate) · up`.
    SwiGlu,
    /// Only the row of the largest is kept.
    ArgMax,
}

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gemv {
    format: Format,
    tokens: u32,
    epilogue: Epilogue,
}

/// What is the same for all parts of a kernel.
struct Shape {
    rows: Reg<U32>,
    columns: Reg<U32>,
}

impl Gemv {
    /// The kernel for weights of a format and a bucket of tokens.
    ///
    /// # Errors
    /// [`ShapeError`] unless there are 1 to [`MAX_TOKENS`] tokens.
    pub fn new(format: Format, tokens: usize, epilogue: Epilogue) -> Result<Self, ShapeError> {
        let family = Self { format, tokens: MAX_TOKENS, epilogue };
        let tokens = ShapeError::check(&format!("gemv_{}", format.name()), "tokens", tokens, 1, MAX_TOKENS)?;
        Ok(Self { tokens, ..family })
    }

    /// Format of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Tokens of a launch.
    pub fn tokens(&self) -> usize {
        self.tokens as usize
    }

    /// What becomes of the sums.
    pub fn epilogue(&self) -> Epilogue {
        self.epilogue
    }

    /// Name of the kernel: `gemv_q4_k_b1`, `gemv_swiglu_q4_k_b1`, `gemv_argmax_q6_k_b1`.
    pub fn name(&self) -> String {
        let epilogue = match self.epilogue {
            Epilogue::Store => "",
            Epilogue::SwiGlu => "swiglu_",
            Epilogue::ArgMax => "argmax_",
        };
        format!("gemv_{epilogue}{}_b{}", self.format.name(), self.tokens)
    }

    /// Rows per warp. Activations of F16 are wide: with many tokens, only four rows pay for loading them.
    pub fn rows_per_warp(&self) -> u32 {
        if self.format == Format::F16 && self.tokens > 4 { 4 } else { 2 }
    }

    /// Blocks per multiprocessor that registers leave room for. A lane of Q8_0 loads twice as much at once, so fewer are enough.
    pub fn min_blocks(&self) -> u32 {
        match self.tokens {
            1 => 6,
            2 => 4,
            5.. if self.format == Format::Q8_0 => 2,
            _ => 3,
        }
    }

    /// The launch. `processors` is the number of multiprocessors, which sizes the grid of [`Epilogue::ArgMax`] only.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are whole blocks of the format, there are at most 2^24 rows (an even number of them for
    /// [`Epilogue::SwiGlu`]).
    pub fn dims(&self, rows: usize, columns: usize, processors: u32) -> Result<Dims, ShapeError> {
        let name = self.name();
        let pairs = if self.epilogue == Epilogue::SwiGlu { 2 } else { 1 };
        let rows = ShapeError::check(&name, "rows", rows, pairs, 1 << 24)?;
        ShapeError::check(&name, "columns", columns, self.format.column_multiple(), 1 << 24)?;
        let blocks = rows.div_ceil(self.rows_per_warp() * WARPS);
        let most = match self.epilogue {
            Epilogue::ArgMax => ARG_MAX_BLOCKS * processors.max(1),
            _ => u32::MAX,
        };
        Ok(Dims::linear(blocks.min(most), 32 * WARPS))
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        k.about(&self.about());
        k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
        k.min_blocks(self.min_blocks());
        let matrix = Matrix::params(&k, *self);
        let sink = Sink::params(&k, *self);
        let shape = Shape {
            rows: k.param_u32_multiple_of("rows", if self.epilogue == Epilogue::SwiGlu { 2 } else { 1 }),
            columns: k.param_u32_multiple_of("columns", self.format.column_multiple() as u32),
        };

        let per_warp = self.rows_per_warp();
        let first = k.mul(k.mad(k.ctaid(), WARPS, k.warp()), per_warp);
        let rows_at = |first: Reg<U32>| -> Vec<Reg<U32>> {
            let last = k.sub(shape.rows, 1);
            (0..per_warp).map(|r| k.min(k.add(first, r), last)).collect()
        };
        if target >= Target::Sm90 {
            k.comment("weights do not depend on the kernel before; activations do");
            for row in rows_at(k.min(first, k.sub(shape.rows, 1))) {
                matrix.prefetch(&k, row, &shape);
            }
            k.wait_for_dependencies();
            k.launch_dependents();
        }
        let sums = |first: Reg<U32>| {
            let acc: Vec<Var<F32>> = (0..self.tokens * per_warp).map(|_| k.var(0.0)).collect();
            matrix.multiply(&k, &rows_at(first), &shape, &acc);
            reduce::over_lanes(&k, acc.iter().map(|a| a.get()).collect())
        };
        match sink {
            Sink::ArgMax(sink) => sink.largest(&k, *self, first, &shape, sums),
            Sink::Store(sink) => {
                k.return_if(k.ge(first, shape.rows));
                sink.store(&k, *self, first, &shape, &sums(first));
            }
        }
        k.finish()
    }

    fn about(self) -> String {
        let Self { format, tokens, epilogue } = self;
        let result = match epilogue {
            Epilogue::Store => "y = W x (+ bias) (+ residual)",
            Epilogue::SwiGlu => "y = silu(gate x) * (up x), rows of gate and up in turn",
            Epilogue::ArgMax => "tokens = argmax(W x)",
        };
        format!(
            "{result}, W in {} planes, {tokens} token(s).\n\
             A warp takes {} rows, a lane every 32nd block of 16 bytes of them.",
            format.name(),
            self.rows_per_warp()
        )
    }
}

/// Weights and activations.
enum Matrix {
    Quantised(Quantised),
    Float(float::Float),
}

struct Quantised {
    gemv: Gemv,
    planes: Planes,
    x: Ptr<B32>,
}

impl Matrix {
    fn params(k: &KernelBuilder, gemv: Gemv) -> Self {
        if gemv.format.is_float() {
            return Self::Float(float::Float::params(k, gemv));
        }
        Self::Quantised(Quantised {
            gemv,
            planes: Planes::params(k, gemv.format),
            x: k.param_ptr("x", Access::Read, 16),
        })
    }

    /// Fetches the first 4 KiB of a row into the second-level cache: a line per lane.
    fn prefetch(&self, k: &KernelBuilder, row: Reg<U32>, shape: &Shape) {
        let (codes, bytes) = match self {
            Self::Quantised(q) => q.planes.codes(k, shape.columns),
            Self::Float(f) => (f.weights(), k.shl(shape.columns, 1)),
        };
        let at = k.shl(k.laneid(), 7);
        let codes = k.row(codes, row, bytes);
        k.if_(k.lt(at, bytes), || k.prefetch(Cache::L2, k.index_by(codes, at, 1)));
    }

    /// Adds to `acc[t · R + r]` what this lane has of the product of row `r` with token `t`.
    fn multiply(&self, k: &KernelBuilder, rows: &[Reg<U32>], shape: &Shape, acc: &[Var<F32>]) {
        match self {
            Self::Quantised(q) => q.multiply(k, rows, shape, acc),
            Self::Float(f) => f.multiply(k, rows, shape, acc),
        }
    }
}

impl Quantised {
    fn multiply(&self, k: &KernelBuilder, rows: &[Reg<U32>], shape: &Shape, acc: &[Var<F32>]) {
        let blocks = k.shr(shape.columns, 5);
        let rows: Vec<Planes> = rows.iter().map(|&row| self.planes.row(k, row, blocks)).collect();
        let lane = Lane::new(k, self.gemv.format);
        let (chunks, tokens) = (LOADS / self.gemv.rows_per_warp(), self.gemv.tokens);
        let mut moving = Moving::default();
        let at: Vec<Planes> = rows.iter().map(|row| row.at(k, k.laneid()).moving(k, &mut moving)).collect();
        let x = self.activations(k, k.laneid());
        let x = moving.ptr(k, x, u64::from(TILE * tokens));
        let step = || {
            let raw: Vec<Vec<_>> = (0..chunks as i32).map(|c| at.iter().map(|row| row.load(k, c)).collect()).collect();
            for (c, raw) in raw.into_iter().enumerate() {
                self.chunk(k, lane, &raw, x.offset((TILE * tokens * c as u32) as i32), None, acc);
            }
            moving.step(k, chunks);
        };
        let last = |first: Reg<U32>| {
            let at: Vec<_> = (0..chunks).map(|c| Bounded::new(k, k.add(first, 32 * c), blocks)).collect();
            let raw: Vec<Vec<_>> =
                at.iter().map(|at| rows.iter().map(|row| row.at(k, at.index).load(k, 0)).collect()).collect();
            for (at, raw) in at.into_iter().zip(raw) {
                self.chunk(k, lane, &raw, self.activations(k, at.index), Some(at.inside), acc);
            }
        };
        steps(k, blocks, chunks, step, last);
    }

    /// Where token 0 has a block.
    fn activations(&self, k: &KernelBuilder, block: Reg<U32>) -> Ptr<B32> {
        let (group, lane) = (k.shr(block, 5), k.and(block, 31));
        let tile = k.index_by(self.x, group, TILE * self.gemv.tokens);
        k.index_by(tile, lane, 16)
    }

    fn chunk(
        &self,
        k: &KernelBuilder,
        lane: Lane,
        raw: &[weights::Raw],
        x: Ptr<B32>,
        inside: Option<Reg<Pred>>,
        acc: &[Var<F32>],
    ) {
        let format = self.gemv.format;
        let blocks: Vec<_> = raw.iter().map(|&raw| self.planes.block(k, lane, raw, self.gemv.tokens == 1)).collect();
        for (t, acc) in acc.chunks(blocks.len()).enumerate() {
            let x = Activation::load(k, format, x.offset(TILE as i32 * t as i32));
            for (block, acc) in blocks.iter().zip(acc) {
                block.dot(k, format, &x, *acc, inside);
            }
        }
    }
}

/// An index that is inside, or the last one where it would not be.
struct Bounded {
    index: Reg<U32>,
    inside: Reg<Pred>,
}

impl Bounded {
    fn new(k: &KernelBuilder, index: Reg<U32>, end: Reg<U32>) -> Self {
        Self { index: k.min(index, k.sub(end, 1)), inside: k.lt(index, end) }
    }
}

/// Walks `0..end` in steps of `chunks` times 32. `step` is for steps that are wholly inside, so it needs no checks; `last` receives
/// the lane's first index of a step that is not.
fn steps(k: &KernelBuilder, end: Reg<U32>, chunks: u32, step: impl FnOnce(), last: impl FnOnce(Reg<U32>)) {
    let size = 32 * chunks;
    let next = k.var(size);
    k.while_rolled(
        || k.le(next, end),
        || {
            step();
            k.add_into(next, size);
        },
    );
    let first = k.sub(next, size);
    k.if_(k.lt(first, end), || last(k.add(first, k.laneid())));
}

/// For what few threads read and other kernels wrote.
const PLAIN: LoadOptions = LoadOptions::READ_ONLY;
