//! Matrix times a few vectors: `y = W x` for 1 to 8 tokens, bound by the bytes of `W`.
//!
//! # Shapes and buffers
//! `W`: `[rows][columns]`, in the planes of [`pack`](super::pack): parameters `codes`, `high` (Q5_K, Q6_K), `scales`, `supers` (Q6_K).
//! Activations `x` of `T` tokens: for quantised weights the tiles of [`activation`]; for F16 `[T][columns]` f32; for
//! BF16 `[T][columns]` bfloat16. `T` is part of the kernel: a bucket. More tokens than a bucket are several *chunks* of `T` in one
//! launch, along y of the grid: their activations follow one another, and so do the rows of their results.
//!
//! | [`Epilogue`] | result |
//! | --- | --- |
//! | `Store` | `y`: `[chunks · T][stride]` f32, `rows` of each are written, plus `bias` (`[rows]`) and `residual` (as `y`) where these are not null; `y` may be `residual` |
//! | `SwiGlu` | `y`: `[chunks · T][rows / 2]` f32, `silu(gate) · up`: rows of `W` are gate and up in turn ([`Packed::gated`](super::pack::Packed::gated)) |
//! | `ArgMax` | `tokens`: `[T]` u32, the row of the largest value, the first of equals; [`NO_TOKEN`](super::argmax::NO_TOKEN) if all are NaN. One chunk |
//! | `SwiGluQ8` | of [`stream`] only: `y` as of `SwiGlu`, and `tiles`: the tiles of [`activation`] of `y`, for `T` tokens and `rows / 2` columns |
//!
//! `stride` is at least `rows`; where it is more, several matrices write one buffer.
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
//! [`pair`] has two matrices of different formats in one launch, [`mma`] takes 8, 16 and 32 tokens to tensor cores.
//!
//! With [`Target::Sm90`], kernels prefetch their rows before they wait for the kernel that makes the activations.

mod entries;
mod epilogue;
mod float;
pub mod mma;
pub mod pair;
mod reduce;
pub mod stream;
mod weights;

use super::activation;
use super::format::Format;
use super::launch::{Dims, ShapeError};
use crate::build::{B32, F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, U32, Var};
use crate::ir::{Access, Cache, Kernel, Target, Threads};
use epilogue::Sink;
use reduce::Reduced;
use weights::{Activation, Lane, Moving, Planes, Raw};

pub(super) use entries::{entries, planes};

/// Warps of a block.
pub const WARPS: u32 = 4;
/// Most tokens of one launch.
pub const MAX_TOKENS: u32 = 8;
/// Most chunks of tokens in a launch of all but [`Epilogue::ArgMax`].
pub const MAX_CHUNKS: u32 = 65535;
/// Blocks per multiprocessor that the grid of [`Epilogue::ArgMax`] is limited to.
const ARG_MAX_BLOCKS: u32 = 8;
/// Bytes of a tile of activations.
const TILE: u32 = activation::TILE as u32;
/// Loads of 16 bytes that a lane has under way.
const LOADS: u32 = 4;
/// The same of a narrow kernel.
const NARROW_LOADS: u32 = 8;
/// Warps per multiprocessor from which on [`LOADS`] are enough.
const WIDE_WARPS: usize = 12;

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// They are stored, with bias and residual if there are such.
    Store,
    /// Pairs of them become `silu(gate) · up`.
    SwiGlu,
    /// Only the row of the largest is kept.
    ArgMax,
    /// Pairs of them become `silu(gate) · up`, which is stored and rounded to tiles: of [`stream`] only.
    SwiGluQ8,
}

impl Epilogue {
    /// What the number of rows is a multiple of: gate and up, blocks that are rounded.
    fn row_multiple(self) -> u32 {
        match self {
            Self::Store | Self::ArgMax => 1,
            Self::SwiGlu => 2,
            Self::SwiGluQ8 => stream::BLOCK_ROWS,
        }
    }

    /// Whether results are rounded, too.
    fn rounds(self) -> bool {
        self == Self::SwiGluQ8
    }

    /// As part of the name of a kernel.
    fn name(self) -> &'static str {
        match self {
            Self::Store => "",
            Self::SwiGlu => "swiglu_",
            Self::ArgMax => "argmax_",
            Self::SwiGluQ8 => "swiglu_q8_",
        }
    }

    /// What it computes, of the products with a matrix.
    fn formula(self) -> &'static str {
        match self {
            Self::Store => "y = W x (+ bias) (+ residual)",
            Self::SwiGlu => "y = silu(gate x) * (up x), rows of gate and up in turn",
            Self::ArgMax => "tokens = argmax(W x)",
            Self::SwiGluQ8 => "y = silu(gate x) * (up x), rows of gate and up in turn, and y in 8-bit codes",
        }
    }

    /// Most chunks of tokens in a launch: blocks along y.
    fn max_chunks(self) -> u32 {
        if self == Self::ArgMax { 1 } else { MAX_CHUNKS }
    }
}

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gemv {
    format: Format,
    tokens: u32,
    epilogue: Epilogue,
    narrow: bool,
}

/// What is the same for all parts of a kernel.
struct Shape {
    rows: Reg<U32>,
    columns: Reg<U32>,
    /// Elements from a token's result to the next: of [`Epilogue::Store`] only.
    stride: Option<Reg<U32>>,
}

impl Shape {
    fn params(k: &KernelBuilder, epilogue: Epilogue, column_multiple: u32) -> Self {
        Self {
            rows: k.param_u32_multiple_of("rows", epilogue.row_multiple()),
            columns: k.param_u32_multiple_of("columns", column_multiple),
            stride: (epilogue == Epilogue::Store).then(|| k.param_u32("stride")),
        }
    }

    /// Where the tiles of the launch's chunk begin.
    fn tiles_of_chunk(&self, k: &KernelBuilder, x: Ptr<B32>, tokens: u32) -> Ptr<B32> {
        let groups = k.shr(k.add(self.columns, activation::GROUP as u32 - 1), activation::GROUP.trailing_zeros());
        k.index_by(x, k.mul(k.ctaid_y(), groups), TILE * tokens)
    }
}

/// The rows of a warp; the last one of the matrix where there are fewer.
fn rows_at(k: &KernelBuilder, first: Reg<U32>, per_warp: u32, shape: &Shape) -> Vec<Reg<U32>> {
    let last = k.sub(shape.rows, 1);
    (0..per_warp).map(|r| k.min(k.add(first, r), last)).collect()
}

impl Gemv {
    /// The kernel for weights of a format and a bucket of tokens.
    ///
    /// # Errors
    /// [`ShapeError`] unless there are 1 to [`MAX_TOKENS`] tokens, and for [`Epilogue::SwiGluQ8`], which is of [`stream`] only.
    pub fn new(format: Format, tokens: usize, epilogue: Epilogue) -> Result<Self, ShapeError> {
        let name = format!("gemv_{}", format.name());
        if epilogue.rounds() {
            let (what, expected) = ("tokens", "0, as only `gemv_stream` rounds results".to_owned());
            return Err(ShapeError { kernel: name, what, expected, found: tokens as u64 });
        }
        let tokens = ShapeError::check(&name, "tokens", tokens, 1, MAX_TOKENS)?;
        Ok(Self { format, tokens, epilogue, narrow: false })
    }

    /// The variant for matrices of few rows: one row per warp and eight loads under way, with the same bits. There is one for one token
    /// and [`Epilogue::Store`]; other kernels stay as they are.
    #[must_use]
    pub fn narrow(self) -> Self {
        Self { narrow: self.has_narrow(), ..self }
    }

    fn has_narrow(self) -> bool {
        self.tokens == 1 && self.epilogue == Epilogue::Store
    }

    /// Whether there is a [`narrow`](Self::narrow) variant and it is the better one: two rows a warp would give each of `processors`
    /// multiprocessors fewer than 12 warps, whose loads are too few for its bandwidth.
    pub fn prefers_narrow(self, rows: usize, processors: u32) -> bool {
        let warps = rows.div_ceil(Self { narrow: false, ..self }.rows_per_warp() as usize);
        self.has_narrow() && warps < WIDE_WARPS * processors as usize
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

    /// Name of the kernel: `gemv_q4_k_b1`, `gemv_swiglu_q4_k_b1`, `gemv_argmax_q6_k_b1`, `gemv_q4_k_b1_r1` (narrow).
    pub fn name(&self) -> String {
        let (epilogue, narrow) = (self.epilogue.name(), if self.narrow { "_r1" } else { "" });
        format!("gemv_{epilogue}{}_b{}{narrow}", self.format.name(), self.tokens)
    }

    /// Rows per warp. Activations of F16 are wide: with many tokens, only four rows pay for loading them.
    pub fn rows_per_warp(&self) -> u32 {
        match self.tokens {
            _ if self.narrow => 1,
            5.. if self.format == Format::F16 => 4,
            _ => 2,
        }
    }

    /// Chunks of 32 blocks of a row that are loaded before the first is used.
    fn chunks(self) -> u32 {
        if self.narrow { NARROW_LOADS } else { LOADS / self.rows_per_warp() }
    }

    /// Blocks per multiprocessor that registers leave room for. A lane of Q8_0 loads twice as much at once, so fewer are enough.
    pub fn min_blocks(&self) -> u32 {
        match self.tokens {
            _ if self.narrow => 3,
            1 => 6,
            2 => 4,
            5.. if self.format == Format::Q8_0 => 2,
            _ => 3,
        }
    }

    /// The launch, for `chunks` times as many tokens as the kernel has. `processors` is the number of multiprocessors, which sizes the grid of [`Epilogue::ArgMax`] only.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are whole blocks of the format, there are at most 2^24 rows (an even number of them for
    /// [`Epilogue::SwiGlu`]), and 1 to [`MAX_CHUNKS`] chunks (one of [`Epilogue::ArgMax`]).
    pub fn dims(&self, rows: usize, columns: usize, chunks: usize, processors: u32) -> Result<Dims, ShapeError> {
        let name = self.name();
        let rows = ShapeError::check(&name, "rows", rows, self.epilogue.row_multiple() as usize, 1 << 24)?;
        let chunks = ShapeError::check(&name, "chunks", chunks, 1, self.epilogue.max_chunks())?;
        ShapeError::check(&name, "columns", columns, self.format.column_multiple(), 1 << 24)?;
        let blocks = rows.div_ceil(self.rows_per_warp() * WARPS);
        let most = match self.epilogue {
            Epilogue::ArgMax => ARG_MAX_BLOCKS * processors.max(1),
            _ => u32::MAX,
        };
        Ok(Dims { grid: [blocks.min(most), chunks, 1], ..Dims::linear(1, 32 * WARPS) })
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        k.about(&self.about());
        k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
        k.min_blocks(self.min_blocks());
        let matrix = Matrix::params(&k, *self);
        let sink = Sink::params(&k, *self);
        let shape = Shape::params(&k, self.epilogue, self.format.column_multiple() as u32);
        let matrix = if self.epilogue == Epilogue::ArgMax { matrix } else { matrix.of_chunk(&k, &shape) };

        let per_warp = self.rows_per_warp();
        let first = k.mul(k.mad(k.ctaid(), WARPS, k.warp()), per_warp);
        self.wait(&k, target, &matrix, first, &shape);
        let sums = |first: Reg<U32>| self.sums(&k, &matrix, first, &shape);
        match sink {
            Sink::ArgMax(sink) => sink.largest(&k, *self, first, &shape, sums),
            Sink::Store(sink) => {
                k.return_if(k.ge(first, shape.rows));
                sink.store(&k, *self, first, &shape, &sums(first));
            }
        }
        k.finish()
    }

    /// Waits for the kernel that makes the activations, and fetches the beginnings of a warp's rows meanwhile.
    fn wait(self, k: &KernelBuilder, target: Target, matrix: &Matrix, first: Reg<U32>, shape: &Shape) {
        if target >= Target::Sm90 {
            k.comment("weights do not depend on the kernel before; activations do");
            for row in rows_at(k, k.min(first, k.sub(shape.rows, 1)), self.rows_per_warp(), shape) {
                matrix.prefetch(k, row, shape);
            }
            k.wait_for_dependencies();
            k.launch_dependents();
        }
    }

    /// The products of a warp's rows, from `first` on, with all tokens.
    fn sums(self, k: &KernelBuilder, matrix: &Matrix, first: Reg<U32>, shape: &Shape) -> Reduced {
        let per_warp = self.rows_per_warp();
        let acc: Vec<Var<F32>> = (0..self.tokens * per_warp).map(|_| k.var(0.0)).collect();
        matrix.multiply(k, &rows_at(k, first, per_warp, shape), shape, &acc);
        reduce::over_lanes(k, acc.iter().map(|a| a.get()).collect())
    }

    fn about(self) -> String {
        let Self { format, tokens, epilogue, .. } = self;
        format!(
            "{}, W in {} planes, {tokens} token(s).\n\
             A warp takes {}, a lane every 32nd block of 16 bytes of {}.",
            epilogue.formula(),
            format.name(),
            if self.narrow { "a row".to_owned() } else { format!("{} rows", self.rows_per_warp()) },
            if self.narrow { "it" } else { "them" },
        )
    }
}

/// Weights and activations.
enum Matrix {
    Quantised(Quantised),
    Float(float::Float),
}

#[derive(Clone, Copy)]
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
            planes: Planes::params(k, gemv.format, ""),
            x: k.param_ptr("x", Access::Read, 16),
        })
    }

    /// The same weights, and the activations of the launch's chunk.
    fn of_chunk(self, k: &KernelBuilder, shape: &Shape) -> Self {
        match self {
            Self::Quantised(q) => Self::Quantised(Quantised { x: shape.tiles_of_chunk(k, q.x, q.gemv.tokens), ..q }),
            Self::Float(f) => Self::Float(f.of_chunk(k, shape)),
        }
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
        let (chunks, tokens) = (self.gemv.chunks(), self.gemv.tokens);
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
        let last = |first: Reg<U32>, chunks: u32| {
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
        raw: &[Raw],
        x: Ptr<B32>,
        inside: Option<Reg<Pred>>,
        acc: &[Var<F32>],
    ) {
        let x = |token: u32| Activation::load(k, self.gemv.format, x.offset((TILE * token) as i32));
        multiply_blocks(k, self.gemv, (&self.planes, lane, raw), x, inside, acc);
    }
}

/// Adds the products of a block of each row, as it was loaded, with all tokens, whose activations `x` loads.
fn multiply_blocks(
    k: &KernelBuilder,
    Gemv { format, tokens, .. }: Gemv,
    (planes, lane, raw): (&Planes, Lane, &[Raw]),
    x: impl Fn(u32) -> Activation,
    inside: Option<Reg<Pred>>,
    acc: &[Var<F32>],
) {
    let blocks: Vec<_> = raw.iter().map(|&raw| planes.block(k, lane, raw, tokens == 1)).collect();
    for (token, acc) in (0..).zip(acc.chunks(blocks.len())) {
        let x = x(token);
        for (block, acc) in blocks.iter().zip(acc) {
            block.dot(k, format, &x, *acc, inside);
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
/// the lane's first index of a step that is not, and of how many chunks it is.
fn steps(k: &KernelBuilder, end: Reg<U32>, chunks: u32, step: impl FnOnce(), last: impl Fn(Reg<U32>, u32)) {
    steps_from(k, 0, end, chunks, step, last);
}

/// Walks `start..end` in the same way, where there is such.
fn steps_from(
    k: &KernelBuilder,
    start: u32,
    end: Reg<U32>,
    chunks: u32,
    step: impl FnOnce(),
    last: impl Fn(Reg<U32>, u32),
) {
    let size = 32 * chunks;
    let next = k.var(start + size);
    k.while_rolled(
        || k.le(next, end),
        || {
            step();
            k.add_into(next, size);
        },
    );
    let first = k.sub(next, size);
    let (lane, left) = (|| k.add(first, k.laneid()), || k.sub(end, first));
    k.if_(k.lt(first, end), || match chunks {
        ..=2 => last(lane(), chunks),
        _ => shortest(k, left(), lane(), chunks, &last),
    });
}

/// As few chunks as hold what is `left`, a power of two.
fn shortest(k: &KernelBuilder, left: Reg<U32>, first: Reg<U32>, chunks: u32, last: &impl Fn(Reg<U32>, u32)) {
    if chunks == 1 {
        return last(first, 1);
    }
    let half = chunks / 2;
    k.if_else(k.le(left, 32 * half), || shortest(k, left, first, half, last), || last(first, chunks));
}

/// For what few threads read and other kernels wrote.
const PLAIN: LoadOptions = LoadOptions::READ_ONLY;
