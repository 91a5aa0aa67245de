//! Matrix times many vectors, for prompts: `y = x Wᵀ` on tensor cores in bfloat16.
//!
//! # Shapes and buffers
//! `W`: `[rows][columns]` in the planes of [`pack`](super::pack), of BF16, Q4_K or Q8_0: `codes` and, where quantised, `scales`. `x`: `[T][columns]`
//! bfloat16. `y`: `[T][rows]` f32, plus `bias` (`[rows]`) and `residual` (`[T][rows]`) where these are not null; `y` may be `residual`. The number of
//! tokens is read from `tokens` in device memory, and may be less than the grid has room for. `columns` are a multiple of 32.
//!
//! # Who does what
//! A block of eight warps makes a tile of 128 tokens by 128 rows, a warp 64 by 32 of it: 4 × 4 fragments of `mma.m16n8k16`. It walks the
//! columns 32 at a time. Asynchronous copies are three steps ahead; BF16 weights go to shared memory as they are. Quantised ones are
//! copied as codes, and all threads turn them into a tile of bfloat16, half a block each, before it is multiplied. In shared memory a row has four
//! chunks of 16 bytes, and chunk `c` of row `r` lies at place `c ^ (r / 2 % 4)`, so that `ldmatrix` has no bank conflicts.
//!
//! Weights are rounded to bfloat16 and activations come in it, while the kernels of [`gemv`](super::gemv) multiply 8-bit activations with exact
//! codes: a position's bits depend on which of the two computed it.
//!
//! # The ceiling
//! Tensor cores: 256 mma per step of a block. Decoding costs about 75 instructions per thread and step beside them.

use super::Entry;
use super::format::Format;
use super::launch::{Dims, ShapeError};
use super::pack::Packed;
use super::workload::{Arg, Noise, Work, Workload, random_rows};
use crate::build::{B32, Bf16, F16, F16x2, F32, KernelBuilder, LoadOptions, Ptr, Reg, S32, SharedSpace, U32, Var};
use crate::ir::{Access, Kernel, Target, Threads};

const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;
/// Tokens and rows of a tile.
pub const TILE: u32 = 128;
/// Columns of a step.
const DEPTH: u32 = 32;
const STAGES: u32 = 4;
/// Bytes of a row of a tile of bfloat16.
const ROW: u32 = 2 * DEPTH;
const TILE_BYTES: u32 = TILE * ROW;

/// Formats that there are kernels for.
pub const FORMATS: [Format; 3] = [Format::BF16, Format::Q4_K, Format::Q8_0];

/// A kernel of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gemm {
    format: Format,
}

impl Gemm {
    /// The kernel for weights of one of [`FORMATS`]; there is none for others.
    pub fn new(format: Format) -> Option<Self> {
        FORMATS.contains(&format).then_some(Self { format })
    }

    /// Name of the kernel: `gemm_q4_k`.
    pub fn name(self) -> String {
        format!("gemm_{}", self.format.name())
    }

    /// Bytes of the copied part of the weights of a step.
    fn weight_bytes(self) -> u32 {
        match self.format {
            Format::BF16 => TILE_BYTES,
            Format::Q8_0 => 32 * TILE,
            _ => 16 * TILE,
        }
    }

    fn stage_bytes(self) -> u32 {
        TILE_BYTES + self.weight_bytes()
    }

    /// The launch for at most `tokens` tokens.
    ///
    /// # Errors
    /// [`ShapeError`] unless `columns` are a multiple of 32 and whole blocks of the format, and there are at most 2^22 tokens and 2^24 rows.
    pub fn dims(self, rows: usize, columns: usize, tokens: usize) -> Result<Dims, ShapeError> {
        let name = self.name();
        let rows = ShapeError::check(&name, "rows", rows, 1, 1 << 24)?;
        ShapeError::check(&name, "columns", columns, self.format.column_multiple().max(DEPTH as usize), 1 << 24)?;
        let tokens = ShapeError::check(&name, "tokens", tokens, 1, 1 << 22)?;
        let grid = [rows.div_ceil(TILE), tokens.div_ceil(TILE), 1];
        Ok(Dims { grid, block: [THREADS, 1, 1], dynamic_shared: STAGES * self.stage_bytes() })
    }

    /// The kernel; for [`Target::Sm90`], with dependent launch.
    pub fn kernel(self, target: Target) -> Kernel {
        let k = KernelBuilder::new(&self.name());
        k.about(&format!(
            "y = x W^T (+ bias) (+ residual), W in {} planes, x in bfloat16.\n\
             A block of eight warps makes a tile of 128 tokens by 128 rows; copies of three steps of 32 columns are under way.",
            self.format.name()
        ));
        k.threads(Threads::Exactly([THREADS, 1, 1]));
        let codes = k.param_ptr::<B32>("codes", Access::Read, 16);
        let scales = (self.format != Format::BF16).then(|| k.param_ptr::<B32>("scales", Access::Read, 16));
        let x = k.param_ptr::<Bf16>("x", Access::Read, 16);
        let [bias, residual] = ["bias", "residual"].map(|name| k.param_ptr::<F32>(name, Access::Read, 4));
        let y = k.param_ptr::<F32>("y", Access::Write, 4);
        let tokens = k.param_ptr::<U32>("tokens", Access::Read, 4);
        let rows = k.param_u32("rows");
        let columns = k.param_u32_multiple_of("columns", DEPTH.max(self.format.column_multiple() as u32));
        let ring = k.dynamic_shared::<B32>("ring", STAGES * self.stage_bytes());
        let decoded = scales.map(|_| k.shared::<B32>("decoded", TILE_BYTES / 4));
        if target >= Target::Sm90 {
            k.wait_for_dependencies();
            k.launch_dependents();
        }

        let tokens = k.ld_with(tokens, LoadOptions::READ_ONLY.uniform());
        let (first_token, first_row) = (k.mul(k.ctaid_y(), TILE), k.mul(k.ctaid(), TILE));
        k.return_if(k.ge(first_token, tokens));
        let tile = Tile { gemm: self, codes, x: x.cast(), rows, columns, tokens, first_row, first_token };
        let steps = k.shr(columns, 5);
        let stage_at = |step: Reg<U32>| k.index_by(ring, k.rem(step, STAGES), self.stage_bytes());
        for step in 0..STAGES - 1 {
            k.if_(k.gt(steps, step), || {
                tile.copy(&k, ring.offset((step * self.stage_bytes()) as i32), k.value(step));
            });
            k.cp_async_commit();
        }
        let acc: [[[Var<F32>; 4]; 4]; 4] =
            std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| k.var(0.0))));
        let warp_token = k.mul(k.and(k.warp(), 1), 64);
        let warp_row = k.mul(k.shr(k.warp(), 1), 32);
        k.for_rolled(0, steps, 1, |step| {
            let scales = scales.map(|scales| tile.scales(&k, scales, step));
            k.cp_async_wait(STAGES - 2);
            k.barrier();
            k.comment("begin the copy that goes where everybody has read");
            let ahead = k.add(step, STAGES - 1);
            k.if_(k.lt(ahead, steps), || tile.copy(&k, stage_at(ahead), ahead));
            k.cp_async_commit();
            let stage = stage_at(step);
            let weights = stage.offset(TILE_BYTES as i32);
            let weights = match (decoded, scales) {
                (Some(decoded), Some(scales)) => {
                    tile.decode(&k, weights, scales, decoded);
                    k.barrier();
                    decoded
                }
                _ => weights,
            };
            for half in 0..2 {
                let a: [[Reg<B32>; 4]; 4] = std::array::from_fn(|i| {
                    let row = k.add(warp_token, 16 * i as u32);
                    k.ldmatrix(place(&k, stage, k.add(row, k.and(k.laneid(), 15)), half, k.shr(k.laneid(), 4)))
                });
                let b: [[Reg<B32>; 4]; 2] = std::array::from_fn(|j| {
                    let row = k.add(warp_row, 16 * j as u32);
                    let in_tile = k.add(k.and(k.laneid(), 7), k.shl(k.shr(k.laneid(), 4), 3));
                    k.ldmatrix(place(&k, weights, k.add(row, in_tile), half, k.and(k.shr(k.laneid(), 3), 1)))
                });
                for (a, acc) in a.iter().zip(&acc) {
                    for (j, acc) in acc.iter().enumerate() {
                        k.mma_bf16_into(*acc, *a, [b[j / 2][2 * (j % 2)], b[j / 2][2 * (j % 2) + 1]]);
                    }
                }
            }
        });

        k.comment("store");
        let token = k.add(k.add(first_token, warp_token), k.shr(k.laneid(), 2));
        let row = k.add(k.add(first_row, warp_row), k.shl(k.and(k.laneid(), 3), 1));
        let [with_bias, with_residual] = [bias, residual].map(|ptr| k.ne(k.address_of(ptr), 0_u64));
        for (i, acc) in acc.iter().enumerate() {
            for half in 0..2 {
                let token = k.add(token, 16 * i as u32 + 8 * half);
                k.if_(k.lt(token, tokens), || {
                    let of_token = |ptr: Ptr<F32>| k.row(ptr, token, k.shl(rows, 2));
                    for (j, acc) in acc.iter().enumerate() {
                        for odd in 0..2 {
                            let row = k.add(row, 8 * j as u32 + odd);
                            k.if_(k.lt(row, rows), || {
                                let sum = acc[(2 * half + odd) as usize];
                                k.if_(with_bias, || k.add_into(sum, k.ld(k.index(bias, row))));
                                k.if_(with_residual, || k.add_into(sum, k.ld(k.index(of_token(residual), row))));
                                k.st(k.index(of_token(y), row), sum);
                            });
                        }
                    }
                });
            }
        }
        k.finish()
    }
}

/// What all steps of a tile share.
struct Tile {
    gemm: Gemm,
    codes: Ptr<B32>,
    x: Ptr<B32>,
    rows: Reg<U32>,
    columns: Reg<U32>,
    tokens: Reg<U32>,
    first_row: Reg<U32>,
    first_token: Reg<U32>,
}

/// Scale and minimum of the half of a block that a thread decodes.
#[derive(Clone, Copy)]
struct Scale {
    scale: Reg<F32>,
    min: Option<Reg<F32>>,
}

impl Tile {
    /// Row `row` of the tile, or the last one of the matrix.
    fn row(&self, k: &KernelBuilder, row: Reg<U32>) -> Reg<U32> {
        k.min(k.add(self.first_row, row), k.sub(self.rows, 1))
    }

    /// Begins to copy a step: 128 rows of four chunks of activations, and codes.
    fn copy(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, step: Reg<U32>) {
        let (row, column) = (k.shr(k.tid(), 2), k.and(k.tid(), 3));
        let at = k.widen(k.mad(step, ROW, k.mul(column, 16)));
        let row_bytes = k.shl(self.columns, 1);
        for pass in 0..TILE / (THREADS / 4) {
            let row = k.add(row, THREADS / 4 * pass);
            let token = k.min(k.add(self.first_token, row), k.sub(self.tokens, 1));
            k.cp_async_bypass(place(k, stage, row, 0, column), k.displace(k.row(self.x, token, row_bytes), at));
            if self.gemm.format == Format::BF16 {
                let to = place(k, stage.offset(TILE_BYTES as i32), row, 0, column);
                k.cp_async_bypass(to, k.displace(k.row(self.codes, self.row(k, row), row_bytes), at));
            }
        }
        if self.gemm.format == Format::BF16 {
            return;
        }
        // Half 0 of all rows, then half 1, as chunks of 16 bytes.
        let to = k.index_by(stage, k.tid(), 16).offset(TILE_BYTES as i32);
        let row = self.row(k, k.and(k.tid(), TILE - 1));
        if self.gemm.format == Format::Q8_0 {
            let blocks = k.mad(k.shr(k.tid(), 7), k.shr(self.columns, 5), step);
            k.cp_async_bypass(to, k.index_by(k.row(self.codes, row, self.columns), blocks, 16));
        } else {
            k.if_(k.lt(k.warp(), TILE / 32), || {
                k.cp_async_bypass(to, k.index_by(k.row(self.codes, row, k.shr(self.columns, 1)), step, 16));
            });
        }
    }

    /// Loads scale and minimum of the block that this thread decodes: of row `tid % 128`.
    fn scales(&self, k: &KernelBuilder, scales: Ptr<B32>, step: Reg<U32>) -> Scale {
        let row = self.row(k, k.and(k.tid(), TILE - 1));
        let of_row = k.row(scales, row, k.shr(self.columns, 4));
        if self.gemm.format == Format::Q8_0 {
            let scale = k.ld_with(k.index_by(of_row, step, 2).cast::<F16>(), LoadOptions::READ_ONLY);
            return Scale { scale: k.f16_to_f32(scale), min: None };
        }
        let at = k.index_by(of_row, k.shr(step, 3), 16);
        let [d, a, b, c] = k.ld_vec::<_, _, 4>(at, LoadOptions::READ_ONLY);
        let [d, dmin] = k.f16x2_to_f32(d.as_ty::<F16x2>());
        let bit = k.mul(k.and(step, 7), 12);
        let (first, second) = (k.lt(bit, 32), k.lt(bit, 64));
        let (low, high) = (k.select(first, a, k.select(second, b, c)), k.select(first, b, c));
        let field = k.shf_right(low, high, k.and(bit, 31)).as_ty::<U32>();
        let min = k.neg(k.mul(dmin, k.to_f32(k.bfe(field, 6, 6))));
        Scale { scale: k.mul(d, k.to_f32(k.and(field, 63))), min: Some(min) }
    }

    /// Decodes half a block per thread: half `tid / 128` of row `tid % 128`.
    fn decode(&self, k: &KernelBuilder, codes: Ptr<B32, SharedSpace>, scale: Scale, to: Ptr<B32, SharedSpace>) {
        k.comment("codes to bfloat16");
        let (row, half) = (k.and(k.tid(), TILE - 1), k.shr(k.tid(), 7));
        let value = |code: Reg<F32>| match scale.min {
            Some(min) => k.fma(code, scale.scale, min),
            None => k.mul(code, scale.scale),
        };
        let bytes: Vec<Reg<F32>> = if self.gemm.format == Format::Q8_0 {
            let words = k.ld4(k.index_by(codes, k.tid(), 16));
            let byte = |word: Reg<B32>, i: u32| k.to_f32(k.bfe(word.as_ty::<S32>(), 8 * i, 8));
            words.into_iter().flat_map(|word| (0..4).map(move |i| (word, i))).map(|(w, i)| byte(w, i)).collect()
        } else {
            let words = k.ld4(k.index_by(codes, row, 16));
            let shift = k.shl(half, 2);
            let nibbles = words.map(|word| k.and(k.shr(word, shift), 0x0f0f_0f0f).as_ty::<U32>());
            let byte = |word: Reg<U32>, i: u32| k.to_f32(k.bfe(word, 8 * i, 8));
            nibbles.into_iter().flat_map(|word| (0..4).map(move |i| (word, i))).map(|(w, i)| byte(w, i)).collect()
        };
        for (i, bytes) in bytes.chunks_exact(8).enumerate() {
            let pairs: [Reg<B32>; 4] =
                std::array::from_fn(|p| k.to_bf16x2(value(bytes[2 * p]), value(bytes[2 * p + 1])).as_ty());
            k.st4(place(k, to, row, 0, k.add(k.shl(half, 1), i as u32)), pairs);
        }
    }
}

/// Chunk `2·half + column` of a row of a tile, in the place that keeps eight rows of one column in different banks.
fn place(
    k: &KernelBuilder,
    tile: Ptr<B32, SharedSpace>,
    row: Reg<U32>,
    half: u32,
    column: Reg<U32>,
) -> Ptr<B32, SharedSpace> {
    let chunk = k.xor(k.add(column, 2 * half), k.and(k.shr(row, 1), 3));
    k.index_by(k.index_by(tile, row, ROW), chunk, 16)
}

impl Gemm {
    /// A launch with weights and activations that follow from a seed.
    ///
    /// # Errors
    /// As [`dims`](Self::dims).
    pub fn workload(self, rows: usize, columns: usize, tokens: usize, seed: u64) -> Result<Workload, ShapeError> {
        let dims = self.dims(rows, columns, tokens)?;
        let mut noise = Noise::new(seed);
        let weights = random_rows(self.format, rows, columns, &mut noise);
        let packed = Packed::matrix(self.format, columns, &weights)
            .expect("invariant: the rows of a workload have the size of their format");
        let x = noise.floats(tokens * columns);
        let x: Vec<u8> = x.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
        let weight_bytes = packed.bytes() as u64;
        let activation_bytes = x.len() as u64;
        let mut args = vec![Arg::read("codes", packed.codes)];
        if self.format != Format::BF16 {
            args.push(Arg::read("scales", packed.scales));
        }
        args.extend([
            Arg::read("x", x),
            Arg::U64(0),
            Arg::U64(0),
            Arg::write("y", 4 * tokens * rows),
            Arg::read("tokens", (tokens as u32).to_le_bytes().to_vec()),
            Arg::U32(rows as u32),
            Arg::U32(columns as u32),
        ]);
        let work = Work {
            weight_bytes,
            activation_bytes,
            output_bytes: 4 * (tokens * rows) as u64,
            int_ops: 0,
            float_ops: 2 * (tokens * rows * columns) as u64,
        };
        Ok(Workload { dims, args, work })
    }
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    FORMATS
        .map(|format| {
            let gemm = Gemm { format };
            Entry {
                name: gemm.name(),
                about: "matrix times many vectors on tensor cores, with bias and residual if there are such",
                oldest: Target::Sm80,
                build: Box::new(move |target| gemm.kernel(target)),
                workload: super::known(gemm.workload(128, 256, 128, 1)),
            }
        })
        .into()
}
