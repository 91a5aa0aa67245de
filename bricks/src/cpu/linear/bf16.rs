//! BF16 weights times activations rounded to BF16, generic over the instruction set.
//!
//! Lanes are output rows. Inputs come in pairs, whose weights share a lane: the low half of its bits is the even input's. Per run
//! of 32 inputs there are two chains of fused multiply-adds from zero, one over the even inputs and one over the odd ones; their
//! sum is added to the output's. That is what a tile product does ([`super::amx_bf16`]), so both give the same bits.
//! Products of two BF16 are exact in f32: each step rounds once, whether it is called fused or not.
//!
//! Numbers whose exponent is zero (below 2⁻¹²⁶) count as zeros, in weights when they are packed and in activations when they are
//! rounded, because the tile unit takes them so. Sums that small are zero there and are not here: outputs below about 2⁻¹⁰⁰ are the
//! one exception to equal bits.

use std::mem::MaybeUninit;

use super::lanes::{RowLanes, Rows};
use super::layout::{Layout, PACKED_ALIGN, PLANE, PackedAt};
use super::{AHEAD, Job};
use crate::DType;
use crate::cpu::SimdLevel;
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::quant::float::round_bf16;

/// Inputs of a run.
pub(super) const RUN: usize = 32;
/// Inputs of a panel, where weights are widened once for several tokens: 16 KiB of two vectors of rows.
const PANEL: usize = 4 * RUN;
/// Tokens that are rounded together.
const BLOCK: usize = 64;
/// Rounded activations: a panel of a block of tokens, or as many inputs of a single one. 32 KiB.
const ROUNDED: usize = BLOCK * PANEL;
/// Vectors of rows that are computed together.
const VECTORS: usize = 2;
/// Tokens of a tile where registers are few, and where there are 32.
const NARROW: usize = 2;
const WIDE: usize = 4;

/// Some tokens and a panel of inputs, with the rounded activations: `n` rows of `stride` values, zeros behind the `len` inputs.
#[derive(Clone, Copy)]
struct Part {
    acts: *const f32,
    stride: usize,
    t: usize,
    n: usize,
    first: usize,
    len: usize,
}

/// Computes a call with BF16 weights.
pub(super) fn run(level: SimdLevel, job: &Job<'_, &[f32]>) {
    debug_assert_eq!(job.weight.shape().dtype, DType::BF16);
    // Not initialised: a decode step makes many small calls. 32 KB of a thread with 2 MB, and no allocation in a step.
    #[allow(clippy::large_stack_arrays)]
    let mut rounded = [const { MaybeUninit::<f32>::uninit() }; ROUNDED];
    let mut t = 0;
    while t < job.tokens {
        let n = (job.tokens - t).min(BLOCK);
        let stride = if n == 1 { ROUNDED } else { PANEL };
        let mut first = 0;
        while first < job.cols {
            let len = (job.cols - first).min(stride);
            for (i, to) in rounded.chunks_exact_mut(stride).enumerate().take(n) {
                dispatch(level, Round { from: &job.acts[(t + i) * job.cols + first..][..len], to });
            }
            // Of every row that is read, the part's inputs have been written.
            let acts = rounded.as_ptr().cast();
            dispatch(level, Product { job, part: Part { acts, stride, t, n, first, len } });
            first += len;
        }
        t += n;
    }
}

/// Rounds activations. A kernel of its own: within [`Product`], its constants would take registers from the innermost loop.
struct Round<'a> {
    from: &'a [f32],
    to: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (to, x) in self.to.iter_mut().zip(self.from) {
            to.write(round_bf16(*x));
        }
        // An odd number of inputs is packed with a zero behind it.
        if let Some(to) = self.to.get_mut(self.from.len()) {
            to.write(0.0);
        }
    }
}

/// The job's rows times a part of its tokens and inputs.
struct Product<'a, 'b> {
    job: &'a Job<'b, &'b [f32]>,
    part: Part,
}

impl Kernel for Product<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { job, part } = self;
        let lanes = <S as RowLanes>::ROWS;
        let mut start = job.rows.start / lanes * lanes;
        while start < job.rows.end {
            let next = start + lanes;
            // SAFETY: rows, tokens and inputs are the job's; the activations have been rounded.
            unsafe {
                if next < job.rows.end {
                    rows::<S, VECTORS>(
                        s,
                        job,
                        [Rows::at::<S>(&job.weight, &job.rows, start), Rows::at::<S>(&job.weight, &job.rows, next)],
                        part,
                    );
                    start = next + lanes;
                } else {
                    rows::<S, 1>(s, job, [Rows::at::<S>(&job.weight, &job.rows, start)], part);
                    start = next;
                }
            }
        }
    }
}

/// The weights of a pair of inputs, widened exactly.
///
/// # Safety
/// `at` is a packed pair, at the first row of the vector.
#[inline(always)]
unsafe fn load<L: RowLanes>(l: L, at: PackedAt) -> [L::R; 2] {
    // SAFETY: a pair is a plane.
    let pair = unsafe { l.load_u(at.planes) };
    [l.as_r(l.shl(pair, 16)), l.as_r(l.and(pair, l.splat_u(0xffff_0000)))]
}

const LAYOUT: Layout = Layout::of(DType::BF16);

/// All tokens of a part times `V` vectors of rows.
///
/// # Safety
/// The rows are within the matrix, those owned within the job's; the part is the job's.
#[inline(always)]
unsafe fn rows<L: RowLanes, const V: usize>(l: L, job: &Job<'_, &[f32]>, rows: [Rows; V], part: Part) {
    let mut panel = [[const { MaybeUninit::<[L::R; 2]>::uninit() }; V]; PANEL / 2];
    // SAFETY: the part's inputs are packed, and the panel has room for those of several tokens; the tokens are the job's.
    unsafe {
        if part.n == 1 {
            return tile::<L, V, 1, true>(l, job, &rows, &panel, part, 0);
        }
        for (i, pair) in panel.iter_mut().enumerate().take(part.len.div_ceil(2)) {
            for (pair, rows) in pair.iter_mut().zip(&rows) {
                pair.write(load(l, rows.at.skip(LAYOUT, part.first / 2 + i)));
            }
        }
        let mut i = 0;
        while i < part.n {
            let n = (part.n - i).min(if L::REGISTERS >= 32 { WIDE } else { NARROW });
            match n {
                1 => tile::<L, V, 1, false>(l, job, &rows, &panel, part, i),
                2 => tile::<L, V, NARROW, false>(l, job, &rows, &panel, part, i),
                3 => tile::<L, V, 3, false>(l, job, &rows, &panel, part, i),
                _ => tile::<L, V, WIDE, false>(l, job, &rows, &panel, part, i),
            }
            i += n;
        }
    }
}

/// Tokens `i..i + N` of a part; between panels the sums rest in the output. With `STREAM`, weights come straight from the packed
/// matrix instead of the panel.
///
/// # Safety
/// The part is the job's and has these tokens; unless `STREAM`, the panel has been filled with its inputs.
#[inline(always)]
unsafe fn tile<L: RowLanes, const V: usize, const N: usize, const STREAM: bool>(
    l: L,
    job: &Job<'_, &[f32]>,
    rows: &[Rows; V],
    panel: &[[MaybeUninit<[L::R; 2]>; V]; PANEL / 2],
    part: Part,
    i: usize,
) {
    let Part { stride, first, len, .. } = part;
    debug_assert!(i + N <= part.n && part.t + part.n <= job.tokens && first + len <= job.cols && len <= stride);
    debug_assert!(part.n * stride <= ROUNDED && first % RUN == 0);
    let zero = l.splat_r(0.0);
    let mut acc = [[zero; V]; N];
    // SAFETY: as the caller promises; lanes that are not owned are neither read nor written.
    unsafe {
        let out = |n: usize, v: usize| job.out.ptr.wrapping_add((part.t + i + n) * job.out.stride + rows[v].start);
        if first > 0 {
            for (n, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = l.load_r(out(n, v), rows[v].owned);
                }
            }
        }
        let acts = part.acts.add(i * stride);
        let pairs = len.div_ceil(2);
        let mut k = 0;
        while k < pairs {
            let end = pairs.min(k + RUN / 2);
            let mut chains = [[[zero; V]; N]; 2];
            if STREAM {
                for rows in rows {
                    let at = rows.at.skip(LAYOUT, first / 2 + k).planes;
                    for line in (0..RUN / 2 * PLANE).step_by(PACKED_ALIGN) {
                        l.prefetch(at.wrapping_add(AHEAD + line));
                    }
                }
            }
            while k < end {
                let mut weights = [[zero; V]; 2];
                for (v, rows) in rows.iter().enumerate() {
                    let pair =
                        if STREAM { load(l, rows.at.skip(LAYOUT, first / 2 + k)) } else { panel[k][v].assume_init() };
                    (weights[0][v], weights[1][v]) = (pair[0], pair[1]);
                }
                for (half, (chains, weights)) in chains.iter_mut().zip(weights).enumerate() {
                    for (n, chains) in chains.iter_mut().enumerate() {
                        let x = l.splat_r(*acts.add(n * stride + 2 * k + half));
                        for (chain, w) in chains.iter_mut().zip(weights) {
                            *chain = l.fma_r(w, x, *chain);
                        }
                    }
                }
                k += 1;
            }
            for (n, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = l.add_r(*acc, l.add_r(chains[0][n][v], chains[1][n][v]));
                }
            }
        }
        let last = first + len == job.cols;
        for (n, acc) in acc.into_iter().enumerate() {
            for (v, mut acc) in acc.into_iter().enumerate() {
                if let (true, Some(bias)) = (last, job.bias) {
                    acc = l.add_r(acc, l.load_r(bias.as_ptr().wrapping_add(rows[v].start), rows[v].owned));
                }
                l.store_r(acc, out(n, v), rows[v].owned);
            }
        }
    }
}
