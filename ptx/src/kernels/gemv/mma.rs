//! Matrix times eight vectors on tensor cores: what dp4a is too slow for.
//!
//! # Shapes and buffers
//! Those of [`gemv`](super) for 8 tokens, with columns in multiples of 256: `W` in planes of Q4_K, Q4_0 or Q8_0, `x` in the tiles of
//! [`activation`](crate::kernels::activation), and the epilogues `Store` and `SwiGlu`.
//!
//! # Who does what
//! A block of eight warps takes 32 rows, and goes over the columns in groups of 32 blocks. Asynchronous copies bring the codes of
//! a group (16 KiB for four bits), its scales and the tiles of all tokens to shared memory, two or three groups ahead. Warp `w` takes
//! rows `16·(w / 4) ..` of the 32, and of every group the blocks `w % 4`, `w % 4 + 4`, …: each is one `mma` of 16 rows, 8 tokens and
//! 32 columns, whose integer sums are scaled and added to f32.
//!
//! Blocks `b` and `b + 32` are added one after the other, all others apart and at the end in a tree: the order in which the kernels
//! with dp4a add them. So the results are theirs, bit for bit.
//!
//! In shared memory, 16-byte chunk `c` of a row or token `r` lies at place `c ^ (r % 8)` (scales, with four chunks per row: `c ^ (r / 2 % 4)`), so
//! that the eight rows and tokens of a fragment are in different banks.
//!
//! # The ceiling
//! Bandwidth: about 40 instructions per mma, two of which stand for a load of 512 bytes of four-bit codes, of 124 issue slots. One
//! block has 32 to 60 KiB under way.

use super::epilogue::{Owner, Store};
use super::weights::{Lane, MIN_UNIT};
use super::{Epilogue, MAX_TOKENS, Shape, TILE};
use crate::build::{B32, F16, F16x2, F32, KernelBuilder, Ptr, Reg, S32, SharedSpace, U32, Var};
use crate::ir::{Access, Kernel, Signedness, Target, Threads};
use crate::kernels::activation;
use crate::kernels::format::Format;
use crate::kernels::launch::{Dims, ShapeError};

/// Warps of a block: four along the columns, two along the rows.
pub const WARPS: u32 = 8;
/// Rows of a block.
pub const ROWS: u32 = 32;
/// Bytes of scales per row and group.
const ROW_SCALES: u32 = 64;

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvMma {
    /// Format of the weights: one of [`FORMATS`].
    pub format: Format,
    /// Whether rows are gate and up in turn, and the result is `silu(gate) · up`.
    pub gated: bool,
}

/// Formats that there are kernels for.
pub const FORMATS: [Format; 3] = [Format::Q4_0, Format::Q4_K, Format::Q8_0];

impl GemvMma {
    /// Name of the kernel: `gemv_mma_q4_k_b8`, `gemv_mma_swiglu_q4_k_b8`.
    pub fn name(&self) -> String {
        format!("gemv_mma_{}{}_b{MAX_TOKENS}", if self.gated { "swiglu_" } else { "" }, self.format.name())
    }

    /// The epilogue.
    pub fn epilogue(&self) -> Epilogue {
        if self.gated { Epilogue::SwiGlu } else { Epilogue::Store }
    }

    /// Bytes of codes per row and group.
    fn row_codes(&self) -> u32 {
        if self.format == Format::Q8_0 { 1024 } else { 512 }
    }

    /// Groups that are in shared memory at once: as many as fit the 99 KiB of the smallest architectures.
    fn stages(&self) -> u32 {
        if self.format == Format::Q8_0 { 2 } else { 3 }
    }

    fn stage_bytes(&self) -> u32 {
        ROWS * (self.row_codes() + ROW_SCALES) + MAX_TOKENS * TILE
    }

    /// The launch.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are a multiple of 256, and there are at most 2^24 rows (an even number of them if they are gated).
    pub fn dims(&self, rows: usize, columns: usize) -> Result<Dims, ShapeError> {
        let name = self.name();
        let rows = ShapeError::check(&name, "rows", rows, if self.gated { 2 } else { 1 }, 1 << 24)?;
        ShapeError::check(&name, "columns", columns, 256, 1 << 24)?;
        let dynamic_shared = self.stages() * self.stage_bytes();
        Ok(Dims { grid: [rows.div_ceil(ROWS), 1, 1], block: [32 * WARPS, 1, 1], dynamic_shared })
    }

    /// The kernel, of one of [`FORMATS`]; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        k.about(&format!(
            "y = W x{}, W in {} planes, {MAX_TOKENS} tokens, by mma of 8-bit integers.\n\
             A block takes {ROWS} rows; a warp 16 of them, and every fourth block of columns.",
            if self.gated { ", silu(gate) * up" } else { " (+ bias) (+ residual)" },
            self.format.name(),
        ));
        k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
        let codes = k.param_ptr::<B32>("codes", Access::Read, 16);
        let scales = k.param_ptr::<B32>("scales", Access::Read, 16);
        let x = k.param_ptr::<B32>("x", Access::Read, 16);
        let store = Store::params(&k, self.gated);
        let shape = Shape {
            rows: k.param_u32_multiple_of("rows", if self.gated { 2 } else { 1 }),
            columns: k.param_u32_multiple_of("columns", 256),
        };
        let ring = k.dynamic_shared::<B32>("ring", self.stages() * self.stage_bytes());
        let parts = k.shared::<F32>("parts", WARPS * 4 * 32);

        let first_row = k.mul(k.ctaid(), ROWS);
        let blocks = k.shr(shape.columns, 5);
        let last_row = k.sub(shape.rows, 1);
        let copy = Copy { gemv: *self, codes, scales, x, first_row, last_row, blocks };
        let groups = k.shr(k.add(blocks, 31), 5);
        let stage_at = |step: Reg<U32>| k.index_by(ring, k.rem(step, self.stages()), self.stage_bytes());
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

        let acc: [[Var<F32>; 4]; 8] = std::array::from_fn(|_| std::array::from_fn(|_| k.var(0.0)));
        let warp = Warp::new(&k, *self);
        k.for_rolled(0, groups, 1, |step| {
            k.cp_async_wait(self.stages() - 2);
            k.barrier();
            k.comment("begin the copies that go where everybody has read");
            let ahead = k.add(step, self.stages() - 1);
            k.if_(k.lt(ahead, groups), || {
                copy.weights(&k, stage_at(ahead), ahead);
                copy.activations(&k, stage_at(ahead), ahead);
            });
            k.cp_async_commit();
            warp.multiply(&k, stage_at(step), &acc);
        });

        k.comment("the tree over blocks 16, 8 and 4 apart is in registers, over 2 and 1 in other warps");
        for i in 0..4 {
            let of_j = |j: usize| acc[j][i].get();
            let by16: [_; 4] = std::array::from_fn(|j| k.add(of_j(j), of_j(j + 4)));
            let by8: [_; 2] = std::array::from_fn(|j| k.add(by16[j], by16[j + 2]));
            let by4 = k.add(by8[0], by8[1]);
            k.st(k.index(parts, k.mad(k.warp(), 4 * 32, k.laneid())).at(32 * i as i32), by4);
        }
        k.barrier();
        let (half, i) = (k.shr(k.tid(), 7), k.and(k.warp(), 3));
        let part = |quarter: u32| {
            let warp = k.mad(half, 4, quarter);
            k.ld(k.index(parts, k.mad(k.mad(warp, 4, i), 32, k.laneid())))
        };
        let sum = k.add(k.add(part(0), part(2)), k.add(part(1), part(3)));
        let row_in_half = k.mad(k.shr(i, 1), 8, k.shr(k.laneid(), 2));
        let row = k.add(first_row, k.mad(half, 16, row_in_half));
        let token = k.mad(k.and(k.laneid(), 3), 2, k.and(i, 1));
        // Rows next to each other are four lanes apart.
        store.write(&k, &Owner { row, token, owns: k.lt(row, shape.rows) }, &shape, sum, 4);
        k.finish()
    }
}

/// What all copies share.
struct Copy {
    gemv: GemvMma,
    codes: Ptr<B32>,
    scales: Ptr<B32>,
    x: Ptr<B32>,
    first_row: Reg<U32>,
    last_row: Reg<U32>,
    blocks: Reg<U32>,
}

impl Copy {
    /// Begins to copy codes and scales of a group. Blocks beyond the end become zeros.
    fn weights(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, group: Reg<U32>) {
        let first_block = k.shl(group, 5);
        let lane = k.laneid();
        let halves = self.gemv.row_codes() / 512;
        let row_bytes = k.mul(self.blocks, 16 * halves);
        let block = k.add(first_block, lane);
        let read = k.select::<U32>(k.lt(block, self.blocks), 16, 0);
        // A warp copies a row of codes, a chunk per lane, and goes on with the row eight further.
        for pass in 0..ROWS / WARPS {
            let row = k.add(k.warp(), WARPS * pass);
            let from = k.index_by(k.row(self.codes, self.row(k, row), row_bytes), block, 16);
            let to = k.index_by(stage, row, self.gemv.row_codes());
            for half in 0..halves {
                let from = if half == 0 { from } else { k.index_by(from, self.blocks, 16) };
                let place = k.xor(lane, k.and(row, 7));
                k.cp_async_zfill(k.index_by(to, place, 16).offset(512 * half as i32), from, read);
            }
        }
        k.if_(k.lt(k.warp(), 4), || {
            let (row, chunk) = (k.shr(k.tid(), 2), k.and(k.tid(), 3));
            let first = k.mad(chunk, 8, first_block);
            let read = k.select::<U32>(k.lt(first, self.blocks), 16, 0);
            let from = k.row(self.scales, self.row(k, row), k.shl(self.blocks, 1));
            let to = k.index_by(stage, row, ROW_SCALES).offset((ROWS * self.gemv.row_codes()) as i32);
            k.cp_async_zfill(k.index_by(to, scale_place(k, row, chunk), 16), k.index_by(from, first, 2), read);
        });
    }

    /// Begins to copy the tiles of a group.
    fn activations(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, group: Reg<U32>) {
        let from = k.index_by(k.index_by(self.x, group, MAX_TOKENS * TILE), k.warp(), TILE);
        let to = k.index_by(activations_of(self.gemv, stage), k.warp(), TILE);
        // A warp copies the tile of a token: 32 chunks of each half of codes, and 32 of scales.
        let place = k.xor(k.laneid(), k.warp());
        for part in 0..3 {
            k.cp_async_bypass(
                k.index_by(to, place, 16).offset(512 * part),
                k.index_by(from, k.laneid(), 16).offset(512 * part),
            );
        }
    }

    fn row(&self, k: &KernelBuilder, row: Reg<U32>) -> Reg<U32> {
        k.min(k.add(self.first_row, row), self.last_row)
    }
}

fn activations_of(gemv: GemvMma, stage: Ptr<B32, SharedSpace>) -> Ptr<B32, SharedSpace> {
    stage.offset((ROWS * (gemv.row_codes() + ROW_SCALES)) as i32)
}

/// Where a chunk of the scales of a row is.
fn scale_place(k: &KernelBuilder, row: Reg<U32>, chunk: Reg<U32>) -> Reg<U32> {
    k.xor(chunk, k.and(k.shr(row, 1), 3))
}

/// What a lane knows of its fragments: `g` is a row and a token of them, `t` a word of a half of a block.
struct Warp {
    gemv: GemvMma,
    g: Reg<U32>,
    t: Reg<U32>,
    first_row: Reg<U32>,
    /// Which of four blocks.
    quarter: Reg<U32>,
    /// Of the two blocks of a super-block that this warp takes.
    fields: [Lane; 2],
}

/// Scale and minimum of a row.
#[derive(Clone, Copy)]
struct RowScales {
    scale: Reg<F32>,
    min: Option<Reg<F32>>,
}

impl Warp {
    fn new(k: &KernelBuilder, gemv: GemvMma) -> Self {
        let quarter = k.and(k.warp(), 3);
        Self {
            gemv,
            g: k.shr(k.laneid(), 2),
            t: k.and(k.laneid(), 3),
            first_row: k.shl(k.shr(k.warp(), 2), 4),
            quarter,
            fields: [0, 4].map(|block| Lane::of_block(k, k.add(quarter, block))),
        }
    }

    /// Multiplies a group: `acc[j]` belongs to its block `4j + quarter`.
    fn multiply(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, acc: &[[Var<F32>; 4]; 8]) {
        let rows = [0, 8].map(|half| k.add(self.first_row, k.add(self.g, half)));
        let x = activations_of(self.gemv, stage);
        for (super_block, acc) in acc.chunks_exact(2).enumerate() {
            let loaded = rows.map(|row| self.load_scales(k, stage, row, super_block as u32));
            for (odd, acc) in acc.iter().enumerate() {
                let block = k.add(self.quarter, 8 * super_block as u32 + 4 * odd as u32);
                let scales: [RowScales; 2] = loaded.map(|of_row| of_row.of(k, self, odd));
                self.block(k, stage, x, block, rows, scales, acc);
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of a fragment
    fn block(
        &self,
        k: &KernelBuilder,
        stage: Ptr<B32, SharedSpace>,
        x: Ptr<B32, SharedSpace>,
        block: Reg<U32>,
        rows: [Reg<U32>; 2],
        scales: [RowScales; 2],
        acc: &[Var<F32>; 4],
    ) {
        // All rows and tokens of a lane's words have the same remainder by eight, but for the tokens of its sums.
        let chunk = k.xor(block, self.g);
        let word = |row: Ptr<B32, SharedSpace>| k.index(k.index_by(row, chunk, 16), self.t);
        let codes = rows.map(|row| word(k.index_by(stage, row, self.gemv.row_codes())));
        let (a, sign) = if self.gemv.format == Format::Q8_0 {
            let [first, second] = [0, 512].map(|half| codes.map(|row| k.ld(row.offset(half))));
            ([first[0], first[1], second[0], second[1]], Signedness::Signed)
        } else {
            let both = codes.map(|row| k.ld(row));
            let low = both.map(|word| k.and(word, 0x0f0f_0f0f));
            let high = both.map(|word| k.and(k.shr(word, 4), 0x0f0f_0f0f));
            ([low[0], low[1], high[0], high[1]], Signedness::Unsigned)
        };
        let of_token = word(k.index_by(x, self.g, TILE));
        let b = [0, 512].map(|half| k.ld(of_token.offset(half)));

        // The sums are of tokens 2t and 2t + 1.
        let tokens = [0, 1].map(|odd| {
            let token = k.mad(self.t, 2, odd);
            let at = k.index_by(k.index_by(x, token, TILE), k.xor(block, token), 16);
            k.ld4(at.offset(activation::SCALES as i32))
        });
        let start = tokens.map(|[_, _, _, whole]| match self.gemv.format {
            Format::Q4_0 => k.mul(whole.as_ty::<S32>(), -8),
            _ => k.value(0),
        });
        let sums = k.mma_int8((sign, Signedness::Signed), a, b, [start[0], start[1], start[0], start[1]]);
        for (i, (sum, acc)) in sums.into_iter().zip(acc).enumerate() {
            let [scale, scaled, _, _] = tokens[i % 2].map(|word| k.bitcast::<B32, F32>(word));
            let of_row = scales[i / 2];
            k.fma_into(*acc, k.to_f32(sum), k.mul(of_row.scale, scale));
            if let Some(min) = of_row.min {
                k.fma_into(*acc, min, k.mul(scaled, 1.0 / MIN_UNIT));
            }
        }
    }

    fn load_scales(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, row: Reg<U32>, chunk: u32) -> Loaded {
        let of_row = k.index_by(stage, row, ROW_SCALES).offset((ROWS * self.gemv.row_codes()) as i32);
        let at = k.index_by(of_row, scale_place(k, row, k.value(chunk)), 16);
        if self.gemv.format == Format::Q4_K { Loaded::Fields(k.ld4(at)) } else { Loaded::Halves(at.cast()) }
    }
}

/// The scales of a row for eight blocks.
#[derive(Clone, Copy)]
enum Loaded {
    Fields([Reg<B32>; 4]),
    Halves(Ptr<F16, SharedSpace>),
}

impl Loaded {
    /// Of block `quarter + 4 · odd`.
    fn of(self, k: &KernelBuilder, warp: &Warp, odd: usize) -> RowScales {
        match self {
            Self::Halves(scales) => {
                RowScales { scale: k.f16_to_f32(k.ld(k.index(scales.at(4 * odd as i32), warp.quarter))), min: None }
            }
            Self::Fields([d, a, b, c]) => {
                let [d, dmin] = k.f16x2_to_f32(d.as_ty::<F16x2>());
                let [scale, min] = warp.fields[odd]
                    .fields(k, [a, b, c])
                    .expect("invariant: lanes made for a block know where its fields are");
                let min = k.neg(k.mul(dmin, k.to_f32(min)));
                RowScales { scale: k.mul(d, k.to_f32(scale)), min: Some(min) }
            }
        }
    }
}
