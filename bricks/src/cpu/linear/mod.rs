//! Matrices times activations: `out[t][r] = Σ weight[r][i] · act[t][i] (+ bias[r])`.
//!
//! Weights lie in memory in a packed layout of the file's own size ([`PackedShape`]). Quantised weights meet Q8 activations
//! ([`crate::quant::q8`]) in integer dot products; F32 and F16 weights meet f32 activations, BF16 weights activations that the
//! kernel rounds to BF16. Weights are never expanded in memory beyond a panel that stays in the first-level cache.
//!
//! # Results do not depend on company
//! The bits of one output depend on its row, its activations and its bias alone: not on the other rows or tokens of the
//! call, not on how rows are shared among threads, and not on the [`SimdLevel`].
//! * Quantised: per chunk of 32 inputs an *exact* integer dot product `n` (two for formats with a scale per 16), then in f32
//!   `v = scale · n` (plus `minimum · Σa` if there is one, fused), `acc = fma(act_scale, v, acc)`, chunks in order.
//! * F32, F16: runs of 32 inputs, each a chain of fused multiply-adds from zero, input by input; runs are added in order.
//! * BF16: the same with two chains a run, over the even inputs and over the odd ones, which are added first (`bf16` tells what
//!   becomes of numbers below 2⁻¹²⁶).
//! * The bias is added last.
//!
//! # How
//! One lane per output row (see `lanes`): no sum across lanes is ever needed. One to eight tokens: blocks are unpacked in
//! registers and used at once. More: a panel of inputs of the rows is unpacked to the stack, then all tokens pass in tiles, so
//! weights are read and unpacked once and activations come from the second-level cache. Where the processor has AMX, sixteen
//! tokens at a time meet sixteen rows in tile registers; where it has NEON's matrix products, four tokens meet eight rows in
//! pairs. The integer sums are the same numbers.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_bf16;
mod bf16;
mod float;
mod format;
mod format_k;
#[cfg(target_arch = "aarch64")]
mod i8mm;
mod lanes;
mod layout;
mod quantised;

use std::ops::Range;

pub(in crate::cpu) use lanes::RowLanes;
pub use layout::{PACKED_ALIGN, Packed, PackedMatrix, PackedShape, ROW_GROUP};

use super::error::{KernelError, at_most, same};
use super::level::SimdLevel;
use super::simd::dispatch;
use crate::DType;
use crate::quant::q8::{BLOCK, Q8Row, Q8Rows};

/// How far ahead of their use weights that stream from memory are asked for, in bytes. The processor's own prefetchers stop at
/// every page of 4 KiB, and start anew behind it.
const AHEAD: usize = 6144;

/// Q8 activations: rows of equal width, one after the other in each plane.
#[derive(Debug, Clone, Copy)]
pub struct Q8Acts<'a> {
    width: usize,
    codes: &'a [i8],
    scales: &'a [f32],
    sums: &'a [[i16; 2]],
}

impl<'a> Q8Acts<'a> {
    /// `codes.len() / width` rows of `width` values over three planes as [`crate::quant::q8`] lays them out.
    ///
    /// # Errors
    /// `width` is not a positive multiple of 32, or the planes do not have the lengths of the same whole number of rows.
    pub fn new(width: usize, codes: &'a [i8], scales: &'a [f32], sums: &'a [[i16; 2]]) -> Result<Self, KernelError> {
        if width == 0 || !width.is_multiple_of(BLOCK) {
            return Err(KernelError::Length {
                what: "width of Q8 activations",
                expected: width.next_multiple_of(BLOCK).max(BLOCK),
                found: width,
            });
        }
        same("codes of whole Q8 rows", codes.len() / width * width, codes.len())?;
        same("Q8 scales", codes.len() / BLOCK, scales.len())?;
        same("Q8 sums", codes.len() / BLOCK, sums.len())?;
        Ok(Self { width, codes, scales, sums })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.codes.len() / self.width
    }
}

impl<'a> From<&'a Q8Rows> for Q8Acts<'a> {
    fn from(rows: &'a Q8Rows) -> Self {
        // A matrix of width 0 has no codes: any width describes it.
        Self { width: rows.width().max(BLOCK), codes: rows.codes(), scales: rows.scales(), sums: rows.sums() }
    }
}

impl<'a> From<Q8Row<'a>> for Q8Acts<'a> {
    fn from(row: Q8Row<'a>) -> Self {
        Self { width: row.width().max(BLOCK), codes: row.codes(), scales: row.scales(), sums: row.sums() }
    }
}

/// Activations of a linear brick: `tokens` rows of the matrix's number of columns.
#[derive(Debug, Clone, Copy)]
pub enum Acts<'a> {
    /// For quantised weights.
    Q8(Q8Acts<'a>),
    /// For float weights: rows one after the other.
    F32(&'a [f32]),
}

impl Acts<'_> {
    fn name(&self) -> &'static str {
        match self {
            Acts::Q8(_) => "Q8",
            Acts::F32(_) => "f32",
        }
    }
}

/// A matrix, and what is added to its outputs.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// The weights.
    pub weight: PackedMatrix<'a>,
    /// One value per row, added last.
    pub bias: Option<&'a [f32]>,
}

/// Where a gang writes: output `(t, r)` at `ptr + t · stride + r`.
#[derive(Debug, Clone, Copy)]
pub struct RawOut {
    /// Where the output of token 0, row 0 of the matrix is, or would be: only outputs of the range that a thread handles need
    /// to exist.
    pub ptr: *mut f32,
    /// Elements from one token to the next; at least the number of rows of the range.
    pub stride: usize,
}

/// A checked call: what the instruction-set code relies on.
///
/// Invariants, established by [`LinearKernel::rows`]: `rows` is within the matrix; `bias`, if any, has a value for each of the
/// matrix's rows; there are `tokens` rows of `cols` activations; `out` is valid for `rows` of all tokens and nobody else
/// touches them.
#[derive(Clone)]
pub(in crate::cpu) struct Job<'a, A> {
    weight: PackedMatrix<'a>,
    cols: usize,
    rows: Range<usize>,
    bias: Option<&'a [f32]>,
    acts: A,
    tokens: usize,
    out: RawOut,
}

type QuantisedFn = fn(SimdLevel, Job<'_, Q8Acts<'_>>);
type FloatFn = fn(SimdLevel, Job<'_, &[f32]>);

#[derive(Clone, Copy)]
enum Entry {
    Quantised(QuantisedFn),
    Float(FloatFn),
}

fn quantised<F: format::Format>(level: SimdLevel, job: Job<'_, Q8Acts<'_>>) {
    debug_assert_eq!(job.weight.shape().dtype, F::DTYPE);
    #[cfg(target_arch = "x86_64")]
    if level.usable() == SimdLevel::Amx && job.tokens >= amx::ENOUGH {
        return amx::run::<F>(&job);
    }
    #[cfg(target_arch = "aarch64")]
    if level.usable() == SimdLevel::NeonI8mm && job.tokens >= i8mm::ENOUGH {
        return i8mm::run::<F>(&job);
    }
    dispatch(level, quantised::Quantised::<F>::new(job));
}

fn float<E: float::Element>(level: SimdLevel, job: Job<'_, &[f32]>) {
    debug_assert_eq!(job.weight.shape().dtype, E::DTYPE);
    dispatch(level, float::Float::<E>::new(job));
}

#[allow(clippy::needless_pass_by_value)] // a function of the table of kernels
fn bfloat(level: SimdLevel, job: Job<'_, &[f32]>) {
    #[cfg(target_arch = "x86_64")]
    if level.usable() == SimdLevel::Amx && amx_bf16::takes(&job) {
        return amx_bf16::run(&job);
    }
    bf16::run(level, &job);
}

/// The kernel for weights of one type at one level; chosen once, when a graph is lowered.
///
/// ```
/// use bricks::cpu::SimdLevel;
/// use bricks::cpu::linear::{Acts, LinearKernel, Matrix, Packed, PackedShape};
/// use bricks::quant::{encode_row, q8::Q8Rows};
/// use bricks::DType;
///
/// // Three rows of 64 ones, two tokens.
/// let mut weight = vec![0; 3 * DType::Q8_0.row_bytes(64).unwrap()];
/// encode_row(DType::Q8_0, &[1.0; 3 * 64], &mut weight)?;
/// let acts = Q8Rows::from_values(64, &[0.5; 2 * 64])?;
///
/// let kernel = LinearKernel::new(DType::Q8_0, SimdLevel::detect());
/// let mut out = [0.0; 2 * 3];
/// let packed = Packed::new(PackedShape { dtype: DType::Q8_0, rows: 3, cols: 64 }, &weight)?;
/// let matrix = Matrix { weight: packed.matrix(), bias: None };
/// kernel.apply(&matrix, Acts::Q8((&acts).into()), &mut out)?;
/// assert!(out.iter().all(|y| (y - 32.0).abs() < 0.01));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct LinearKernel {
    dtype: DType,
    level: SimdLevel,
    entry: Entry,
}

impl std::fmt::Debug for LinearKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinearKernel").field("dtype", &self.dtype).field("level", &self.level).finish_non_exhaustive()
    }
}

impl LinearKernel {
    /// The kernel for `dtype` at `level`, or at the highest level the processor has if that is lower.
    pub fn new(dtype: DType, level: SimdLevel) -> Self {
        use format::{Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
        use format_k::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K};
        let entry = match dtype {
            DType::F32 => Entry::Float(float::<float::F32>),
            DType::F16 => Entry::Float(float::<float::F16>),
            DType::BF16 => Entry::Float(bfloat),
            DType::Q4_0 => Entry::Quantised(quantised::<Q4_0>),
            DType::Q4_1 => Entry::Quantised(quantised::<Q4_1>),
            DType::Q5_0 => Entry::Quantised(quantised::<Q5_0>),
            DType::Q5_1 => Entry::Quantised(quantised::<Q5_1>),
            DType::Q8_0 => Entry::Quantised(quantised::<Q8_0>),
            DType::Q2_K => Entry::Quantised(quantised::<Q2K>),
            DType::Q3_K => Entry::Quantised(quantised::<Q3K>),
            DType::Q4_K => Entry::Quantised(quantised::<Q4K>),
            DType::Q5_K => Entry::Quantised(quantised::<Q5K>),
            DType::Q6_K => Entry::Quantised(quantised::<Q6K>),
            DType::IQ4_NL => Entry::Quantised(quantised::<Iq4Nl>),
            DType::IQ4_XS => Entry::Quantised(quantised::<Iq4Xs>),
        };
        Self { dtype, level: level.usable(), entry }
    }

    /// Type of the weights.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Level it runs at.
    pub fn level(&self) -> SimdLevel {
        self.level
    }

    /// Whether it takes [`Acts::Q8`] rather than [`Acts::F32`].
    pub fn takes_q8(&self) -> bool {
        matches!(self.entry, Entry::Quantised(_))
    }

    /// Computes `rows` of the matrix for all tokens.
    ///
    /// # Errors
    /// [`KernelError`] if the arguments contradict each other; nothing is written then.
    ///
    /// # Safety
    /// `out` must be valid for writes *and reads* of the outputs `(t, r)` of every token `t` of `acts` and every `r` in
    /// `rows`, and nobody else may access these until the call returns. Calls with disjoint `rows` may run at the same time.
    pub unsafe fn rows(
        &self,
        matrix: &Matrix<'_>,
        rows: Range<usize>,
        acts: Acts<'_>,
        out: RawOut,
    ) -> Result<(), KernelError> {
        let Matrix { weight, bias } = *matrix;
        let PackedShape { dtype, rows: matrix_rows, cols } = weight.shape();
        if dtype != self.dtype {
            return Err(KernelError::Type { expected: self.dtype, found: dtype });
        }
        if let Some(bias) = bias {
            same("values of the bias", matrix_rows, bias.len())?;
        }
        at_most("last row of the range", matrix_rows, rows.end)?;
        let found = acts.name();
        match (self.entry, acts) {
            (Entry::Quantised(run), Acts::Q8(acts)) => {
                let tokens = acts.rows();
                if tokens > 0 {
                    same("width of the activations", cols, acts.width)?;
                }
                check_stride(tokens, rows.len(), out)?;
                run(self.level, Job { weight, cols, rows, bias, acts, tokens, out });
                Ok(())
            }
            (Entry::Float(run), Acts::F32(acts)) => {
                let tokens = acts.len() / cols;
                same("activations of whole rows", tokens * cols, acts.len())?;
                check_stride(tokens, rows.len(), out)?;
                run(self.level, Job { weight, cols, rows, bias, acts, tokens, out });
                Ok(())
            }
            (entry, _) => Err(KernelError::Activations {
                dtype: self.dtype,
                expected: if matches!(entry, Entry::Quantised(_)) { "Q8" } else { "f32" },
                found,
            }),
        }
    }

    /// Computes the whole matrix for all tokens, on this thread: `out` is `[tokens][matrix.rows]`.
    ///
    /// # Errors
    /// [`KernelError`] if the arguments contradict each other; nothing is written then.
    pub fn apply(&self, matrix: &Matrix<'_>, acts: Acts<'_>, out: &mut [f32]) -> Result<(), KernelError> {
        let PackedShape { rows, cols, .. } = matrix.weight.shape();
        let tokens = match acts {
            Acts::Q8(a) => a.rows(),
            Acts::F32(a) => a.len().checked_div(cols).unwrap_or(0),
        };
        same("outputs", tokens.saturating_mul(rows), out.len())?;
        let raw = RawOut { ptr: out.as_mut_ptr(), stride: rows };
        // SAFETY: `out` is borrowed exclusively and has an element for every row of every token.
        unsafe { self.rows(matrix, 0..rows, acts, raw) }
    }
}

/// Outputs of different tokens must not overlap.
fn check_stride(tokens: usize, rows: usize, out: RawOut) -> Result<(), KernelError> {
    if tokens > 1 { at_most("rows of the range, for the stride of the output", out.stride, rows) } else { Ok(()) }
}
