//! Matrix times eight vectors on tensor cores: what dp4a is too slow for.
//!
//! # Shapes and buffers
//! Those of [`gemv`](super) for chunks of 8 tokens, with columns in multiples of 256: `W` in planes of Q4_K, Q4_0 or Q8_0, `x` in the tiles of
//! [`activation`], and the epilogues `Store` and `SwiGlu`.
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
//! Bandwidth: 50 instructions per mma of Q4_K, two of which stand for a load of 512 bytes of codes, of 124 issue slots (with dp4a: 148,
//! and 128 cycles of its unit). One block has 45 to 60 KiB under way.

use super::epilogue::{Owner, Store};
use super::weights::MIN_UNIT;
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
/// Blocks of a group.
const BLOCKS: u32 = 32;
/// Bytes of scales per row and group.
const ROW_SCALES: u32 = 64;

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GemvMma {
    format: Format,
    epilogue: Epilogue,
}

/// Formats that there are kernels for.
pub const FORMATS: [Format; 3] = [Format::Q4_0, Format::Q4_K, Format::Q8_0];

impl GemvMma {
    /// The kernel for weights of one of [`FORMATS`]; there is none for others. If it is `gated`, rows are gate and up in turn, and the result is
    /// `silu(gate) · up`.
    pub fn new(format: Format, gated: bool) -> Option<Self> {
        let epilogue = if gated { Epilogue::SwiGlu } else { Epilogue::Store };
        FORMATS.contains(&format).then_some(Self { format, epilogue })
    }

    /// Name of the kernel: `gemv_mma_q4_k_b8`, `gemv_mma_swiglu_q4_k_b8`.
    pub fn name(&self) -> String {
        let (epilogue, format) = (self.epilogue.name(), self.format.name());
        format!("gemv_mma_{epilogue}{format}_b{MAX_TOKENS}")
    }

    /// Format of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The epilogue.
    pub fn epilogue(&self) -> Epilogue {
        self.epilogue
    }

    /// Bytes of codes per row and group.
    fn row_codes(self) -> u32 {
        if self.format == Format::Q8_0 { 1024 } else { 512 }
    }

    /// Groups that are in shared memory at once: as many as fit the 99 KiB of the smallest architectures.
    fn stages(self) -> u32 {
        if self.format == Format::Q8_0 { 2 } else { 3 }
    }

    fn stage_bytes(self) -> u32 {
        ROWS * (self.row_codes() + ROW_SCALES) + MAX_TOKENS * TILE
    }

    /// The launch, for `chunks` times eight tokens.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are a multiple of 256, there are at most 2^24 rows (an even number of them if they are gated),
    /// and 1 to [`MAX_CHUNKS`](super::MAX_CHUNKS) chunks.
    pub fn dims(&self, rows: usize, columns: usize, chunks: usize) -> Result<Dims, ShapeError> {
        let name = self.name();
        let rows = ShapeError::check(&name, "rows", rows, self.epilogue.row_multiple() as usize, 1 << 24)?;
        let chunks = ShapeError::check(&name, "chunks", chunks, 1, self.epilogue.max_chunks())?;
        ShapeError::check(&name, "columns", columns, 256, 1 << 24)?;
        let dynamic_shared = self.stages() * self.stage_bytes();
        Ok(Dims { grid: [rows.div_ceil(ROWS), chunks, 1], block: [32 * WARPS, 1, 1], dynamic_shared })
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(&self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        k.about(&format!(
            "{}, W in {} planes, {MAX_TOKENS} tokens, by mma of 8-bit integers.\n\
             A block takes {ROWS} rows; a warp 16 of them, and every fourth block of columns.",
            self.epilogue.formula(),
            self.format.name(),
        ));
        k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
        let codes = k.param_ptr::<B32>("codes", Access::Read, 16);
        let scales = k.param_ptr::<B32>("scales", Access::Read, 16);
        let x = k.param_ptr::<B32>("x", Access::Read, 16);
        let store = Store::params(&k, MAX_TOKENS, self.epilogue);
        let shape = Shape::params(&k, self.epilogue, 256);
        let x = shape.tiles_of_chunk(&k, x, MAX_TOKENS);
        let ring = k.dynamic_shared::<B32>("ring", self.stages() * self.stage_bytes());
        let decoded = (self.format == Format::Q4_K).then(|| k.shared::<F32>("decoded", 2 * ROWS * BLOCKS));

        let first_row = k.mul(k.ctaid(), ROWS);
        let blocks = k.shr(shape.columns, 5);
        let last_row = k.sub(shape.rows, 1);
        let copy = Copy { gemv: *self, codes, scales, x, first_row, last_row, blocks };
        let groups = k.shr(k.add(blocks, 31), 5);
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
        let acc: [[Var<F32>; 4]; 8] = std::array::from_fn(|_| std::array::from_fn(|_| k.var(0.0)));
        let warp = Warp::new(&k, *self);
        let bytes = self.stages() * self.stage_bytes();
        let (now, ahead) = (k.var(0), k.var((self.stages() - 1) * self.stage_bytes()));
        let next = |stage: Var<U32>| {
            let next = k.add(stage, self.stage_bytes());
            k.set(stage, k.select(k.eq(next, bytes), 0, next));
        };
        k.for_rolled(0, groups, 1, |step| {
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
            if let Some(decoded) = decoded {
                self.decode(&k, stage, decoded);
                k.barrier();
            }
            warp.multiply(&k, stage, decoded, &acc);
            next(now);
            next(ahead);
        });

        // 99 KiB have no room for both: the partial sums take the place of the scales.
        let parts = decoded.unwrap_or_else(|| k.shared::<F32>("parts", WARPS * 4 * 32));
        k.barrier();
        k.comment("the tree over blocks 16, 8 and 4 apart is in registers, over 2 and 1 in other warps");
        for i in 0..4 {
            let of_j = acc.map(|of_block| of_block[i].get());
            let by16: [_; 4] = std::array::from_fn(|j| k.add(of_j[j], of_j[j + 4]));
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
        let owner = Owner { row, token, owns: k.lt(row, shape.rows) };
        store.write(&k, &owner, &shape, sum, 4);
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
        // A warp copies a row of codes, a chunk per lane, and goes on with the row eight further: its place has the same remainder.
        let place = k.mad(k.xor(lane, k.warp()), 16, k.mul(k.warp(), self.gemv.row_codes()));
        let to = k.displace(stage, place);
        for pass in 0..ROWS / WARPS {
            let row = self.row(k, k.add(k.warp(), WARPS * pass));
            let from = k.index_by(k.row(self.codes, row, row_bytes), block, 16);
            let to = to.offset((WARPS * pass * self.gemv.row_codes()) as i32);
            for half in 0..halves {
                let from = if half == 0 { from } else { k.index_by(from, self.blocks, 16) };
                k.cp_async_zfill(to.offset(512 * half as i32), from, read);
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

impl GemvMma {
    /// Decodes scale and minimum of every row and block of a group: pairs of floats, `[32 blocks][32 rows]`. What eight warps would do
    /// four times over is done once.
    fn decode(self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, to: Ptr<F32, SharedSpace>) {
        k.comment("scales and minimums of the group");
        // A lane has a row, a warp has four blocks: one half of a super-block.
        let (row, warp) = (k.laneid(), k.warp());
        let of_row = k.index_by(stage, row, ROW_SCALES).offset((ROWS * self.row_codes()) as i32);
        let [d, a, b, c] = k.ld4(k.index_by(of_row, scale_place(k, row, k.shr(warp, 1)), 16));
        let [d, dmin] = k.f16x2_to_f32(d.as_ty::<F16x2>());
        let second_half = k.ne(k.and(warp, 1), 0);
        // Four fields are 48 bits, from bit 0 or from bit 48.
        let low = k.select(second_half, k.shf_right(b, c, 16), a);
        let high = k.select(second_half, k.shr(c, 16), b);
        let to = k.index_by(k.index_by(to, warp, 4 * 8 * ROWS), row, 8);
        for block in 0..4 {
            let field = match block {
                3 => k.shr(high, 4),
                _ => k.shf_right(low, high, 12 * block),
            };
            let (scale, min) = (k.and(field.as_ty::<U32>(), 63), k.and(field.as_ty::<U32>(), 0xfc0));
            let min = k.mul(k.mul(dmin, k.to_f32(min)), -1.0 / MIN_UNIT);
            k.st2(to.at(2 * (ROWS * block) as i32), [k.mul(d, k.to_f32(scale)), min]);
        }
    }
}

/// Where a lane finds its parts of a stage. `g` is a row and a token of its fragments, `t` a word of a half of a block.
///
/// A warp takes blocks `q`, `q + 4`, …: of each super-block two, whose places differ in a bit that the swizzle may turn. So there are two
/// addresses of everything, and super-blocks are constant distances.
struct Warp {
    gemv: GemvMma,
    /// Words of codes and of activations, from their rows' or tokens' beginning.
    words: [Reg<U32>; 2],
    /// Codes of row `g`.
    row: Reg<U32>,
    /// Codes of token `g`.
    token: Reg<U32>,
    /// Scale and sums of tokens `2t` and `2t + 1`.
    sums: [[Reg<U32>; 2]; 2],
    /// Scales of row `g`: of the first super-block, or of block `q` where they are decoded.
    scales: Reg<U32>,
    /// Byte of block `q` in the scales of a super-block, where they are not decoded.
    scale: Reg<U32>,
}

/// Scale and minimum of a row.
#[derive(Clone, Copy)]
struct RowScales {
    scale: Reg<F32>,
    min: Option<Reg<F32>>,
}

impl Warp {
    fn new(k: &KernelBuilder, gemv: GemvMma) -> Self {
        let (g, t, q) = (k.shr(k.laneid(), 2), k.and(k.laneid(), 3), k.and(k.warp(), 3));
        let row = k.mad(k.shr(k.warp(), 2), 16, g);
        let blocks = [0, 4].map(|odd| k.add(q, odd));
        let scales = if gemv.format == Format::Q4_K {
            k.mad(q, 8 * ROWS, k.mul(row, 8))
        } else {
            let first = k.mad(scale_place(k, row, k.value(0)), 16, k.mul(row, ROW_SCALES));
            k.add(first, ROWS * gemv.row_codes())
        };
        Self {
            gemv,
            words: blocks.map(|block| k.mad(k.xor(block, g), 16, k.mul(t, 4))),
            row: k.mul(row, gemv.row_codes()),
            token: k.mul(g, TILE),
            sums: blocks.map(|block| {
                [0, 1].map(|odd| {
                    let token = k.mad(t, 2, odd);
                    k.mad(token, TILE, k.mul(k.xor(block, token), 16))
                })
            }),
            scales,
            scale: k.shl(q, 1),
        }
    }

    /// Multiplies a group: `acc[j]` belongs to its block `4j + q`.
    fn multiply(
        &self,
        k: &KernelBuilder,
        stage: Ptr<B32, SharedSpace>,
        decoded: Option<Ptr<F32, SharedSpace>>,
        acc: &[[Var<F32>; 4]; 8],
    ) {
        let x = activations_of(self.gemv, stage);
        let fragments: [Fragment; 2] = std::array::from_fn(|odd| Fragment {
            codes: k.displace(k.displace(stage, self.words[odd]), self.row),
            x: k.displace(k.displace(x, self.words[odd]), self.token),
            sums: self.sums[odd].map(|sums| k.displace(x, sums).offset(activation::SCALES as i32)),
        });
        let scales = decoded.map(|decoded| k.displace(decoded, self.scales));
        let halves = k.displace(stage, self.scales);
        for (j, acc) in acc.iter().enumerate() {
            let (super_block, odd) = (j as u32 / 2, j as u32 % 2);
            let scales = match scales {
                Some(scales) => [0, 8].map(|row| {
                    let [scale, min] = k.ld2(scales.at((2 * (ROWS * 4 * j as u32 + row)) as i32));
                    RowScales { scale, min: Some(min) }
                }),
                None => [0, 8].map(|row| {
                    // The place of a chunk is its number XOR a constant of the lane, and rows are aligned to four chunks.
                    let chunk = k.xor(k.address_of(halves), 16 * super_block);
                    let at = Ptr::<F16, SharedSpace>::from_address(k.add(chunk, self.scale));
                    let scale = k.ld(at.at(4 * odd as i32).offset((ROW_SCALES * row) as i32));
                    RowScales { scale: k.f16_to_f32(scale), min: None }
                }),
            };
            self.block(k, fragments[j % 2].at(super_block), scales, acc);
        }
    }

    fn block(&self, k: &KernelBuilder, at: Fragment, scales: [RowScales; 2], acc: &[Var<F32>; 4]) {
        let codes = [0, 8].map(|row| at.codes.offset((row * self.gemv.row_codes()) as i32));
        let (a, sign) = if self.gemv.format == Format::Q8_0 {
            let [first, second] = [0, 512].map(|half| codes.map(|row| k.ld(row.offset(half))));
            ([first[0], first[1], second[0], second[1]], Signedness::Signed)
        } else {
            let both = codes.map(|row| k.ld(row));
            let low = both.map(|word| k.and(word, 0x0f0f_0f0f));
            let high = both.map(|word| k.and(k.shr(word, 4), 0x0f0f_0f0f));
            ([low[0], low[1], high[0], high[1]], Signedness::Unsigned)
        };
        let b = [0, 512].map(|half| k.ld(at.x.offset(half)));
        let tokens = at.sums.map(|sums| k.ld4(sums));
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
                k.fma_into(*acc, min, scaled);
            }
        }
    }
}

/// Where the parts of a block's fragments are.
#[derive(Clone, Copy)]
struct Fragment {
    codes: Ptr<B32, SharedSpace>,
    x: Ptr<B32, SharedSpace>,
    sums: [Ptr<B32, SharedSpace>; 2],
}

impl Fragment {
    /// That many super-blocks further: eight chunks.
    fn at(self, super_block: u32) -> Self {
        let further = |ptr: Ptr<B32, SharedSpace>| ptr.offset((128 * super_block) as i32);
        Self { codes: further(self.codes), x: further(self.x), sums: self.sums.map(further) }
    }
}
