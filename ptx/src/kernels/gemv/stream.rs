//! Matrix times one or two vectors of f32, which every block rounds for itself: no kernel in between.
//!
//! # Shapes and buffers
//! As of [`gemv`](super) with quantised weights, one chunk of `T` tokens, but `x` is `[T][columns]` f32. With [`Source::Norm`], `gain` (`[columns]` f32) is behind
//! it and `eps` at the end, and RMSNorm comes first. `y` may be `residual`, but not `x`: all blocks read that.
//!
//! Results are those of [`quantize_q8`](crate::kernels::quantize) or [`rms_norm_q8`](crate::kernels::norm) and then of the kernel of [`gemv`](super), bit for bit.
//! [`pair`] has two matrices of different formats in one launch.
//!
//! With [`Epilogue::SwiGluQ8`], rows are a multiple of 64.
//!
//! # Who does what
//! As many blocks of eight warps as are resident together. Each encodes all activations into shared memory; then its warps take two rows
//! at a time in steps of the whole grid, lanes as in [`gemv`](super).
//!
//! With [`Epilogue::SwiGluQ8`], a block takes 64 consecutive rows at a time, which are 32 outputs, a warp 8 of them in four steps; its
//! first warp rounds them behind a barrier. So there are at most `rows / 64` blocks, and no counters.
//!
//! The first step of a warp's rows (4 loads of 16 bytes a lane) is loaded before the kernel waits for the one that makes
//! `x`, and of the next rows before the lanes' sums of the present ones are added up. Before it waits, a warp also prefetches its first two groups of
//! rows, and the gain, and loads the bias; the residual is loaded right behind the wait.
//!
//! # The ceiling
//! Bandwidth: as of [`gemv`](super), plus the encoding, about 90 instructions (120 with a norm) per warp, 128 columns and token in every block, which
//! does not shrink with the rows of a block: so few, large blocks.

mod blocks;
mod entries;
mod held;
pub mod pair;
mod tiles;

use super::epilogue::{Added, ArgMax, Owner, Store};
use super::reduce::{self, Reduced};
use super::weights::{Lane, Planes, Raw};
use super::{Epilogue, Gemv, Shape, multiply_blocks, rows_at, steps_from};
use crate::build::{B32, F32, KernelBuilder, Pred, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::{Cache, Kernel, Target, Threads};
use crate::kernels::activation;
use crate::kernels::argmax::Best;
use crate::kernels::format::Format;
use crate::kernels::launch::{Dims, ShapeError};
use blocks::Blocks;
use held::Held;
use tiles::Tiles;

pub(super) use blocks::ROWS as BLOCK_ROWS;
pub(super) use entries::entries;

/// Warps of a block.
pub const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;
/// Tokens of a launch.
pub const TOKENS: [u32; 2] = [1, 2];
/// Most bytes of activations in a block, which all architectures have.
const MAX_SHARED: u32 = 96 << 10;
/// Shared memory of a multiprocessor (of sm_90 and sm_100), and what a block takes of it besides its activations.
const SHARED: u32 = 228 << 10;
const RESERVED: u32 = 2 << 10;

/// What the activations are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// `x`.
    Plain,
    /// `x / sqrt(mean(x²) + eps) · gain`.
    Norm,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Norm];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Norm => "_norm",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Plain => "x rounded to 8-bit codes by every block",
            Self::Norm => "x / sqrt(mean(x^2) + eps) * gain rounded to 8-bit codes by every block",
        }
    }
}

/// What takes the sums.
enum Sink {
    Store(Store),
    ArgMax(ArgMax, Best),
    /// With which of two blocks of outputs is next.
    Round(Blocks, Var<U32>),
}

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvStream {
    /// The kernel that has the same results.
    gemv: Gemv,
    source: Source,
}

/// Bytes of the activations in a block.
fn tile_bytes(tokens: u32, columns: usize) -> usize {
    activation::groups(columns) * (tokens * tiles::BYTES) as usize
}

/// Refuses activations that are too large for a block; otherwise gives their bytes.
fn check_columns(name: &str, tokens: u32, columns: usize) -> Result<u32, ShapeError> {
    let most = MAX_SHARED / (tokens * tiles::BYTES) * activation::GROUP as u32;
    ShapeError::check(name, "columns", columns, 1, most)?;
    Ok(tile_bytes(tokens, columns) as u32)
}

/// Blocks that are resident on a multiprocessor together.
fn resident(min_blocks: u32, shared: u32) -> u32 {
    (SHARED / (shared + RESERVED)).clamp(1, min_blocks)
}

impl GemvStream {
    /// The kernel for weights of a quantised format and one of [`TOKENS`]; there is none for others.
    pub fn new(format: Format, tokens: usize, epilogue: Epilogue, source: Source) -> Option<Self> {
        let tokens = u32::try_from(tokens).ok().filter(|tokens| TOKENS.contains(tokens))?;
        let gemv = Gemv { format, tokens, epilogue, narrow: false };
        (!format.is_float()).then_some(Self { gemv, source })
    }

    /// Whether activations of so many columns fit a block.
    pub fn fits(&self, columns: usize) -> bool {
        check_columns("", self.gemv.tokens, columns).is_ok()
    }

    /// Format of the weights.
    pub fn format(&self) -> Format {
        self.gemv.format
    }

    /// Tokens of a launch.
    pub fn tokens(&self) -> usize {
        self.gemv.tokens()
    }

    /// What becomes of the sums.
    pub fn epilogue(&self) -> Epilogue {
        self.gemv.epilogue
    }

    /// What the activations are.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Name of the kernel: `gemv_stream_q4_k_b1`, `gemv_stream_swiglu_q4_k_b1_norm`.
    pub fn name(&self) -> String {
        let Gemv { format, tokens, epilogue, .. } = self.gemv;
        format!("gemv_stream_{}{}_b{tokens}{}", epilogue.name(), format.name(), self.source.name())
    }

    /// The launch. `processors` is the number of multiprocessors.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are whole blocks of the format and [fit](Self::fits), and there are at most 2^24 rows (an even number of them
    /// for [`Epilogue::SwiGlu`], a multiple of 64 for [`Epilogue::SwiGluQ8`]).
    pub fn dims(&self, rows: usize, columns: usize, processors: u32) -> Result<Dims, ShapeError> {
        let name = self.name();
        let rows = ShapeError::check(&name, "rows", rows, self.gemv.epilogue.row_multiple() as usize, 1 << 24)?;
        ShapeError::check(&name, "columns", columns, self.gemv.format.column_multiple(), 1 << 24)?;
        let dynamic_shared = check_columns(&name, self.gemv.tokens, columns)?;
        let most = processors.max(1) * resident(min_blocks(self.gemv), dynamic_shared);
        let blocks = rows.div_ceil(run_of_rows(self.gemv) * WARPS).min(most);
        Ok(Dims { grid: [blocks, 1, 1], block: [THREADS, 1, 1], dynamic_shared })
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let Gemv { format, tokens, epilogue, .. } = self.gemv;
        let k = KernelBuilder::new(&self.name());
        k.about(&format!(
            "{}, W in {} planes, {tokens} token(s), {}.\n\
             A warp takes {} row(s) at a time, a lane every 32nd block of 16 bytes of each.",
            epilogue.formula(),
            format.name(),
            self.source.about(),
            self.gemv.rows_per_warp(),
        ));
        k.threads(Threads::Exactly([THREADS, 1, 1]));
        k.min_blocks(min_blocks(self.gemv));
        let planes = Planes::params(&k, format, "");
        let tiles = Tiles::params(&k, tokens, self.source, MAX_SHARED);
        let sink = match epilogue {
            Epilogue::ArgMax => Sink::ArgMax(ArgMax::params(&k, tokens, WARPS), Best::new(&k)),
            Epilogue::SwiGluQ8 => Sink::Round(Blocks::params(&k, tokens), k.var(0)),
            _ => Sink::Store(Store::params(&k, tokens, epilogue).early(&k)),
        };
        let shape = Shape::params(&k, epilogue, format.column_multiple() as u32);
        let eps = (self.source == Source::Norm).then(|| k.param_f32("eps"));
        let mut copies = 1;
        let stream = Stream { k: &k, gemv: self.gemv, planes, tiles: &tiles, shape: &shape, eps };
        let added = |what: Added, first: Reg<U32>| {
            if let Sink::Store(store) = &sink {
                store.load(&k, what, &Owner::of(&k, self.gemv, first, &shape), &shape);
            }
        };
        stream.run(target, k.ctaid(), k.nctaid(), added, |first, reduced| {
            copies = reduced.copies;
            match &sink {
                Sink::Store(store) => store.store(&k, self.gemv, first, &shape, &reduced),
                Sink::ArgMax(_, best) => ArgMax::take(&k, best, self.gemv, first, &shape, &reduced),
                Sink::Round(blocks, turn) => blocks.take(&k, self.gemv, first, &shape, &reduced, *turn),
            }
        });
        if let Sink::ArgMax(sink, best) = &sink {
            sink.of_grid(&k, self.gemv, best, copies);
        }
        k.finish()
    }
}

/// Consecutive rows that a warp takes before it goes on in steps of the whole grid.
fn run_of_rows(gemv: Gemv) -> u32 {
    if gemv.epilogue.rounds() { blocks::WARP_ROWS } else { gemv.rows_per_warp() }
}

/// Blocks per multiprocessor that registers leave room for.
fn min_blocks(gemv: Gemv) -> u32 {
    match gemv.tokens {
        1 if matches!(gemv.format, Format::Q4_0 | Format::Q4_1 | Format::Q4_K) => 3,
        _ => 2,
    }
}

/// A matrix and its activations.
struct Stream<'a> {
    k: &'a KernelBuilder,
    gemv: Gemv,
    planes: Planes,
    tiles: &'a Tiles,
    shape: &'a Shape,
    eps: Option<Reg<F32>>,
}

/// Constants of a warp.
struct Constants {
    lane: Lane,
    /// The planes at the first block of this lane in row 0.
    planes: Planes,
    /// The activations of that block.
    x: Ptr<B32, SharedSpace>,
    /// Blocks of a row.
    blocks: Reg<U32>,
    /// Whether each block of this lane in the first step is one.
    inside: Vec<Reg<Pred>>,
}

impl Stream<'_> {
    /// Chunks of 32 blocks of a step.
    fn chunks(&self) -> u32 {
        self.gemv.chunks()
    }

    /// All of it, for block `cta` of `ctas`: `sink` receives the sums of the rows from its first number on, which is that
    /// of the block's first warp if the epilogue rounds. Long before, `added` is asked to load what is added to them. All threads of the block take part.
    fn run(
        &self,
        target: Target,
        cta: Reg<U32>,
        ctas: Reg<U32>,
        added: impl Fn(Added, Reg<U32>),
        sink: impl FnOnce(Reg<U32>, Reduced),
    ) {
        let (k, per_warp, rows) = (self.k, self.gemv.rows_per_warp(), self.shape.rows);
        let format = self.gemv.format;
        let blocks = k.shr(self.shape.columns, 5);
        let constants = Constants {
            lane: Lane::new(k, format),
            planes: self.planes.at(k, k.laneid()),
            x: self.tiles.of_lane(k),
            blocks,
            inside: (0..self.chunks()).map(|c| k.lt(k.add(k.laneid(), 32 * c), blocks)).collect(),
        };
        let run = run_of_rows(self.gemv);
        let rounds = self.gemv.epilogue.rounds();
        let first = k.var(k.mul(if rounds { k.mul(cta, WARPS) } else { k.mad(cta, WARPS, k.warp()) }, run));
        // Where there is a barrier in the loop, it is a loop of the block: its rows, of which a warp has some.
        let of_warp = |first: Reg<U32>| if rounds { blocks::of_warp(k, first) } else { first };
        let step = k.mul(ctas, WARPS * run);
        // Rows of a warp are several steps of consecutive rows, and then those of its next run.
        let step_from = |first: Reg<U32>| match run - per_warp {
            0 => step,
            last => k.select(k.eq(k.and(first, run - 1), last), k.sub(step, last), per_warp),
        };
        let held: Vec<Vec<Held>> =
            (0..self.chunks()).map(|_| (0..per_warp).map(|_| Held::new(k, format)).collect()).collect();

        k.comment("weights and gain do not depend on the kernel before; activations do");
        k.if_(k.lt(first, rows), || self.load_first(&constants, of_warp(first.get()), &held));
        if target >= Target::Sm90 {
            let codes = 512 * self.chunks();
            for (group, from) in [(first.get(), codes), (k.add(first, step_from(first.get())), 0)] {
                k.if_(k.lt(group, rows), || {
                    for row in rows_at(k, of_warp(group), per_warp, self.shape) {
                        self.prefetch(row, from);
                    }
                });
            }
        }
        let gain = self.tiles.gain(k, self.shape.columns);
        added(Added::Bias, first.get());
        if target >= Target::Sm90 {
            k.wait_for_dependencies();
            k.launch_dependents();
        }
        added(Added::Residual, first.get());
        self.tiles.make(k, self.shape.columns, self.eps, gain.as_ref());

        k.while_rolled(
            || k.lt(first, rows),
            || {
                let acc: Vec<Var<F32>> = (0..self.gemv.tokens * per_warp).map(|_| k.var(0.0)).collect();
                self.each_chunk(&constants, |c| {
                    let raw: Vec<Raw> = held[c].iter().map(Held::get).collect();
                    self.chunk(constants.lane, &raw, self.x_of_chunk(constants.x, c), &acc);
                });
                let present = k.value(first);
                k.if_(k.gt(blocks, 32 * self.chunks()), || {
                    self.rest(&constants, of_warp(present), &acc);
                    // So that no register has to be kept for what only some lanes load again.
                    held.iter().flatten().for_each(|held| held.clear(k));
                });
                k.add_into(first, step_from(present));
                k.if_(k.lt(first, rows), || self.load_first(&constants, of_warp(first.get()), &held));
                sink(present, reduce::over_lanes(k, acc.iter().map(|a| a.get()).collect()));
                added(Added::Bias, first.get());
                added(Added::Residual, first.get());
            },
        );
    }

    /// Fetches up to 4 KiB of the codes of a row into the second-level cache, from a byte on: a line per lane.
    fn prefetch(&self, row: Reg<U32>, from: u32) {
        let k = self.k;
        let (codes, bytes) = self.planes.codes(k, self.shape.columns);
        let at = k.add(k.shl(k.laneid(), 7), from);
        k.if_(k.lt(at, bytes), || k.prefetch(Cache::L2, k.index_by(k.row(codes, row, bytes), at, 1)));
    }

    /// The planes of the rows from `first` on, at the first block of this lane.
    fn rows(&self, constants: &Constants, first: Reg<U32>) -> Vec<Planes> {
        let rows = rows_at(self.k, first, self.gemv.rows_per_warp(), self.shape);
        rows.into_iter().map(|row| constants.planes.row(self.k, row, constants.blocks)).collect()
    }

    /// Runs `body` for the chunks of the first step, in the lanes that have a block there.
    fn each_chunk(&self, constants: &Constants, body: impl Fn(usize)) {
        for (c, inside) in constants.inside.iter().enumerate() {
            self.k.if_(*inside, || body(c));
        }
    }

    /// Begins to load the first step of the rows from `first` on.
    fn load_first(&self, constants: &Constants, first: Reg<U32>, held: &[Vec<Held>]) {
        let rows = self.rows(constants, first);
        self.each_chunk(constants, |c| {
            for (row, held) in rows.iter().zip(&held[c]) {
                held.set(self.k, row.load(self.k, c as i32));
            }
        });
    }

    /// All steps but the first.
    fn rest(&self, constants: &Constants, first: Reg<U32>, acc: &[Var<F32>]) {
        let (k, chunks) = (self.k, self.chunks());
        let mut moving = super::Moving::default();
        let rows: Vec<Planes> = self.rows(constants, first).iter().map(|row| row.moving(k, &mut moving)).collect();
        let x = k.ptr_var(self.x_of_chunk(constants.x, chunks as usize));
        let load = |row: &Planes, c: u32| row.load(k, (chunks + c) as i32);
        let step = || {
            let raw: Vec<Vec<Raw>> = (0..chunks).map(|c| rows.iter().map(|row| load(row, c)).collect()).collect();
            for (c, raw) in raw.iter().enumerate() {
                self.chunk(constants.lane, raw, self.x_of_chunk(x.ptr(), c), acc);
            }
            moving.step(k, chunks);
            k.step(x, tiles::BYTES * self.gemv.tokens * chunks);
        };
        let last = |first: Reg<U32>, chunks: u32| {
            let inside: Vec<_> = (0..chunks).map(|c| k.lt(k.add(first, 32 * c), constants.blocks)).collect();
            let held: Vec<Vec<Held>> =
                (0..chunks).map(|_| rows.iter().map(|_| Held::new(k, self.gemv.format)).collect()).collect();
            for (c, held) in (0..).zip(&held) {
                k.if_(inside[c as usize], || {
                    rows.iter().zip(held).for_each(|(row, held)| held.set(k, load(row, c)));
                });
            }
            for (c, held) in held.iter().enumerate() {
                k.if_(inside[c], || {
                    let raw: Vec<Raw> = held.iter().map(Held::get).collect();
                    self.chunk(constants.lane, &raw, self.x_of_chunk(x.ptr(), c), acc);
                });
            }
        };
        steps_from(k, 32 * chunks, constants.blocks, chunks, step, last);
    }

    /// The activations of a block that is `chunk` groups further.
    fn x_of_chunk(&self, x: Ptr<B32, SharedSpace>, chunk: usize) -> Ptr<B32, SharedSpace> {
        x.offset((tiles::BYTES * self.gemv.tokens) as i32 * chunk as i32)
    }

    /// Adds the products of a block of each row with all tokens.
    fn chunk(&self, lane: Lane, raw: &[Raw], x: Ptr<B32, SharedSpace>, acc: &[Var<F32>]) {
        let x = |token: u32| Tiles::activation(self.k, self.gemv.format, x, token);
        multiply_blocks(self.k, self.gemv, (&self.planes, lane, raw), x, None, acc);
    }
}
