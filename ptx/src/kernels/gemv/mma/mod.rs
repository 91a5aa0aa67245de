//! Matrix times eight, 16 or 32 vectors on tensor cores: what dp4a is too slow for.
//!
//! # Shapes and buffers
//! Those of [`gemv`](super) for chunks of 8 tokens, with columns in multiples of 256: `W` in planes of one of [`FORMATS`], `x` in the tiles of
//! [`activation`](crate::kernels::activation), and the epilogues `Store` and `SwiGlu`. A block takes one, two or four chunks together, so that it reads `W` once for all of them;
//! the grid has a multiple of that along y.
//!
//! # Who does what
//! A block of eight warps takes 32 rows (16 of [narrow](GemvMma::narrow) kernels), and goes over the columns in groups of 32 blocks. Asynchronous copies bring the codes of
//! a group (16 KiB for four bits), its scales and the tiles of all tokens to shared memory, one or two groups ahead. Warp `w` takes
//! rows `16·(w / 4) ..` of the 32, and of every group the blocks `w % 4`, `w % 4 + 4`, … (of 16 rows all, and every eighth block): each is one `mma` of 16 rows, 8 tokens and
//! 32 columns (two of Q6_K, whose halves have scales of their own), whose integer sums are scaled and added to f32.
//!
//! Blocks `b` and `b + 32` are added one after the other, all others apart and at the end in a tree: the order in which the kernels
//! with dp4a add them. So the results are theirs, bit for bit. It also is what limits the tile: 32 sums of each of 32 × 32 results are half of
//! the registers of a multiprocessor.
//!
//! In shared memory, 16-byte chunk `c` of a row or token `r` lies at place `c ^ (r % 8)` (scales, with four chunks per row: `c ^ (r / 2 % 4)`), so
//! that the eight rows and tokens of a fragment are in different banks.
//!
//! # The ceiling
//! Bandwidth for eight tokens: 50 instructions per mma of Q4_K, two of which stand for a load of 512 bytes of codes, of 124 issue slots (with dp4a: 148,
//! and 128 cycles of its unit). One block has 45 to 60 KiB under way. Beyond, issue slots and the second-level cache: a group of 32 rows and `T` tokens
//! takes `18 + 1.5 T` KB of it for `32 · T · 1024` products, nearly twice as many per byte for 32 as for 8.

mod copy;
mod decode;
mod warp;

use super::epilogue::{Owner, Store};
use super::{Epilogue, MAX_TOKENS, Shape, TILE};
use crate::build::{B32, F32, KernelBuilder, Ptr, SharedSpace, Var};
use crate::ir::{Access, Kernel, Target, Threads};
use crate::kernels::format::Format;
use crate::kernels::launch::{Dims, ShapeError};
use copy::Copy;
use decode::Decode;
use warp::Warp;

/// Warps of a block: along the rows one for 16 of them, the others along the columns.
pub const WARPS: u32 = 8;
/// Rows of a block.
pub const ROWS: u32 = 32;
/// Rows of a warp, and of a block of a narrow kernel.
const WARP_ROWS: u32 = 16;
/// Blocks of a group.
const BLOCKS: u32 = 32;
/// Bytes of scales per row and group.
const ROW_SCALES: u32 = 64;
/// Shared memory that a block gets on every architecture.
const SHARED: u32 = 99 << 10;
/// The same where kernels for [`Target::Sm90`] run, but for the consumers' cards of compute capability 12.
const SHARED_OF_SM90: u32 = 227 << 10;

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvMma {
    format: Format,
    epilogue: Epilogue,
    tokens: u32,
    narrow: bool,
}

/// Formats that there are kernels for.
pub const FORMATS: [Format; 4] = [Format::Q4_0, Format::Q4_K, Format::Q6_K, Format::Q8_0];
/// Tokens of a block.
pub const TOKENS: [usize; 3] = [8, 16, 32];

impl GemvMma {
    /// The kernel for weights of one of [`FORMATS`] and one of [`TOKENS`]; there is none for others. If it is `gated`, rows are gate and up in turn,
    /// and the result is `silu(gate) · up`.
    pub fn new(format: Format, tokens: usize, gated: bool) -> Option<Self> {
        let epilogue = if gated { Epilogue::SwiGlu } else { Epilogue::Store };
        let known = FORMATS.contains(&format) && TOKENS.contains(&tokens);
        known.then_some(Self { format, epilogue, tokens: tokens as u32, narrow: false })
    }

    /// The variant for matrices of few rows: blocks of 16, so that twice as many multiprocessors have one, with the same bits. There is one for up to 16
    /// tokens that is not gated; other kernels stay as they are.
    #[must_use]
    pub fn narrow(self) -> Self {
        Self { narrow: self.tokens <= 16 && self.epilogue == Epilogue::Store, ..self }
    }

    /// Rows of a block.
    pub fn rows(&self) -> u32 {
        if self.narrow { WARP_ROWS } else { ROWS }
    }

    /// Name of the kernel: `gemv_mma_q4_k_b8`, `gemv_mma_swiglu_q4_k_b32`, `gemv_mma_q4_k_b8_r16` (narrow).
    pub fn name(&self) -> String {
        let (epilogue, format, tokens) = (self.epilogue.name(), self.format.name(), self.tokens);
        format!("gemv_mma_{epilogue}{format}_b{tokens}{}", if self.narrow { "_r16" } else { "" })
    }

    /// Format of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The epilogue.
    pub fn epilogue(&self) -> Epilogue {
        self.epilogue
    }

    /// Tokens of a block.
    pub fn tokens(&self) -> usize {
        self.tokens as usize
    }

    /// The oldest target that has the shared memory.
    pub fn oldest(&self) -> Target {
        if self.shared() <= SHARED { Target::Sm80 } else { Target::Sm90 }
    }

    /// Bytes of shared memory of a block.
    pub fn shared(&self) -> u32 {
        self.stages() * self.stage_bytes() + self.decoded_bytes()
    }

    /// Chunks of eight tokens of a block.
    fn chunks(self) -> u32 {
        self.tokens / MAX_TOKENS
    }

    /// Warps along the columns: a warp takes blocks that are so many apart.
    fn columns_of_warps(self) -> u32 {
        WARPS * WARP_ROWS / self.rows()
    }

    /// Blocks of a group that a warp takes.
    fn blocks_of_warp(self) -> u32 {
        BLOCKS / self.columns_of_warps()
    }

    /// Bytes of codes per row and group.
    fn row_codes(self) -> u32 {
        if self.format == Format::Q8_0 { 1024 } else { 512 }
    }

    /// Bytes of high bits of codes per row and group.
    fn row_high(self) -> u32 {
        if self.format == Format::Q6_K { 256 } else { 0 }
    }

    /// Whether scales are decoded once for all warps.
    fn decodes(self) -> bool {
        matches!(self.format, Format::Q4_K | Format::Q6_K)
    }

    /// Bytes of shared memory besides the ring.
    fn decoded_bytes(self) -> u32 {
        if self.decodes() { 8 * self.rows() * BLOCKS + decode::supers_bytes(self.format) } else { 0 }
    }

    /// Where in a stage the high bits begin.
    fn high_at(self) -> u32 {
        self.rows() * self.row_codes()
    }

    /// Where in a stage the scales begin.
    fn scales_at(self) -> u32 {
        self.high_at() + self.rows() * self.row_high()
    }

    /// Where in a stage the activations begin.
    fn activations_at(self) -> u32 {
        self.scales_at() + self.rows() * ROW_SCALES
    }

    fn stage_bytes(self) -> u32 {
        self.activations_at() + self.tokens * TILE
    }

    /// Groups that are in shared memory at once. Of 32 rows and 16 tokens, two blocks share a multiprocessor, so two are enough; of 16 rows, a group is
    /// multiplied in less time than its copies take.
    fn stages(self) -> u32 {
        let most = match (self.narrow, self.tokens) {
            (true, _) => 4,
            (false, 16) => 2,
            (false, _) => 3,
        };
        // Of one alone, copies would not be ahead: then only larger architectures run it.
        let fit = |shared: u32| (shared - self.decoded_bytes()) / self.stage_bytes();
        match fit(SHARED) {
            0 | 1 => fit(SHARED_OF_SM90).min(most),
            fit => fit.min(most),
        }
    }

    /// The launch, for `chunks` times eight tokens.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are a multiple of 256, there are at most 2^24 rows (an even number of them if they are gated),
    /// and 1 to [`MAX_CHUNKS`](super::MAX_CHUNKS) chunks, whole blocks of them.
    pub fn dims(&self, rows: usize, columns: usize, chunks: usize) -> Result<Dims, ShapeError> {
        let name = self.name();
        let rows = ShapeError::check(&name, "rows", rows, self.epilogue.row_multiple() as usize, 1 << 24)?;
        let chunks = ShapeError::check(&name, "chunks", chunks, self.chunks() as usize, self.epilogue.max_chunks())?;
        ShapeError::check(&name, "columns", columns, 256, 1 << 24)?;
        let dynamic_shared = self.stages() * self.stage_bytes();
        let grid = [rows.div_ceil(self.rows()), chunks / self.chunks(), 1];
        Ok(Dims { grid, block: [32 * WARPS, 1, 1], dynamic_shared })
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        let (tokens, chunks) = (self.tokens, self.chunks());
        k.about(&format!(
            "{}, W in {} planes, {tokens} tokens, by mma of 8-bit integers.\n\
             A block takes {} rows; a warp 16 of them, and every block of columns that is {} further.",
            self.epilogue.formula(),
            self.format.name(),
            self.rows(),
            self.columns_of_warps(),
        ));
        k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
        if tokens == 16 || self.narrow {
            k.min_blocks(2);
        }
        let plane = |name: &str| k.param_ptr::<B32>(name, Access::Read, 16);
        let codes = plane("codes");
        let high = (self.row_high() > 0).then(|| plane("high"));
        let scales = plane("scales");
        let supers = (self.format == Format::Q6_K).then(|| plane("supers").cast());
        let x = plane("x");
        let store = Store::params(&k, tokens, self.epilogue);
        let shape = Shape::params(&k, self.epilogue, 256);
        let x = shape.tiles_of_chunk(&k, x, tokens);
        let ring = k.dynamic_shared::<B32>("ring", self.stages() * self.stage_bytes());
        let decoded = self.decodes().then(|| k.shared::<F32>("decoded", 2 * self.rows() * BLOCKS));

        let first_row = k.mul(k.ctaid(), self.rows());
        let blocks = k.shr(shape.columns, 5);
        let groups = k.shr(k.add(blocks, 31), 5);
        let last_row = k.sub(shape.rows, 1);
        let copy = Copy { gemv: *self, codes, high, scales, x, first_row, last_row, blocks, groups };
        let decode = decoded.map(|to| Decode::new(&k, *self, supers, &copy, to));
        if target >= Target::Sm90 {
            k.comment("weights do not depend on the kernel before; activations do");
            k.if_(k.gt(groups, 0), || copy.weights(&k, ring, k.value(0)));
            k.wait_for_dependencies();
            k.launch_dependents();
        }
        for step in 0..self.stages() - 1 {
            k.if_(k.gt(groups, step), || {
                let stage = ring.offset((step * self.stage_bytes()) as i32);
                if step > 0 || target < Target::Sm90 {
                    copy.weights(&k, stage, k.value(step));
                }
                copy.activations(&k, stage, k.value(step));
            });
            k.cp_async_commit();
        }

        // While the first copies are under way.
        let of_block = || std::array::from_fn(|_| k.var(0.0));
        let acc: Sums = (0..chunks).map(|_| (0..self.blocks_of_warp()).map(|_| of_block()).collect()).collect();
        let warp = Warp::new(&k, *self);
        let bytes = self.stages() * self.stage_bytes();
        let (now, ahead) = (k.var(0), k.var((self.stages() - 1) * self.stage_bytes()));
        let next = |stage: Var<_>| {
            let next = k.add(stage, self.stage_bytes());
            k.set(stage, k.select(k.eq(next, bytes), 0, next));
        };
        k.for_rolled(0, groups, 1, |step| {
            if let Some(decode) = &decode {
                decode.before(&k, step);
            }
            k.cp_async_wait(self.stages() - 2);
            k.barrier();
            k.comment("begin the copies that go where everybody has read");
            let later = k.add(step, self.stages() - 1);
            k.if_(k.lt(later, groups), || {
                let stage = k.displace(ring, ahead.get());
                copy.weights(&k, stage, later);
                copy.activations(&k, stage, later);
            });
            k.cp_async_commit();
            let stage = k.displace(ring, now.get());
            if let Some(decode) = &decode {
                decode.group(&k, stage, step);
                k.barrier();
            }
            warp.multiply(&k, stage, decoded, &acc);
            next(now);
            next(ahead);
        });
        self.store(&k, &store, &shape, ring.cast(), &acc);
        k.finish()
    }

    /// Adds the sums of blocks up, and stores the results. The ring is where warps meet: nothing else is read there any more.
    fn store(self, k: &KernelBuilder, store: &Store, shape: &Shape, parts: Ptr<F32, SharedSpace>, acc: &Sums) {
        const PARTS: u32 = WARPS * 4 * 32;
        k.barrier();
        k.comment("the tree over blocks that a warp has is in registers, over the others in other warps");
        for (chunk, acc) in (0..).zip(acc) {
            for i in 0..4 {
                let mut sums: Vec<_> = acc.iter().map(|of_block| of_block[i].get()).collect();
                while sums.len() > 1 {
                    let (low, high) = sums.split_at(sums.len() / 2);
                    sums = low.iter().zip(high).map(|(&low, &high)| k.add(low, high)).collect();
                }
                let of_warp = k.index(parts, k.mad(k.warp(), 4 * 32, k.laneid()));
                k.st(of_warp.at((PARTS * chunk + 32 * i as u32) as i32), sums[0]);
            }
        }
        k.barrier();
        // Four warps have the results of 16 rows.
        let (of_rows, i) = (k.shr(k.tid(), 7), k.and(k.warp(), 3));
        let row_of_warp = k.mad(k.shr(i, 1), 8, k.shr(k.laneid(), 2));
        let row = k.mad(k.ctaid(), self.rows(), k.mad(of_rows, WARP_ROWS, row_of_warp));
        let token = k.mad(k.and(k.laneid(), 3), 2, k.and(i, 1));
        let store = || {
            for chunk in 0..self.chunks() {
                let part = |column: u32| {
                    let warp = k.mad(of_rows, self.columns_of_warps(), column);
                    let at = k.index(parts, k.mad(k.mad(warp, 4, i), 32, k.laneid()));
                    k.ld(at.at((PARTS * chunk) as i32))
                };
                let mut sums: Vec<_> = (0..self.columns_of_warps()).map(part).collect();
                while sums.len() > 1 {
                    let (low, high) = sums.split_at(sums.len() / 2);
                    sums = low.iter().zip(high).map(|(&low, &high)| k.add(low, high)).collect();
                }
                // Rows next to each other are four lanes apart.
                let token = k.add(token, MAX_TOKENS * chunk);
                let owner = Owner { row, token, owns: k.lt(row, shape.rows) };
                store.write(k, &owner, shape, sums[0], 4);
            }
        };
        match self.rows() {
            ROWS => store(),
            _ => k.if_(k.lt(k.warp(), 4), store),
        }
    }
}

/// Sums of a warp: of each chunk of eight tokens, and of each of its blocks of a group, those of a fragment.
type Sums = Vec<Vec<[Var<F32>; 4]>>;
