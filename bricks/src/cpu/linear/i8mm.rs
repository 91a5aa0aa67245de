//! Quantised weights times many tokens with `smmla`, the product of two small matrices of bytes.
//!
//! One instruction multiplies eight inputs of two tokens with eight inputs of two rows: four sums of eight products, twice the
//! work of `sdot`. Its operands are pairs: the quads of an unpacked chunk are rearranged once per panel, activations once per four
//! tokens and panel. Sums of two tokens and two rows share a register until a panel is done. Integer sums are exact, and from
//! there on the arithmetic is that of the vector kernels, so the bits are the same.
//!
//! Reference: Arm Architecture Reference Manual for A-profile (DDI 0487), SMMLA (vector).

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{addr_of, addr_of_mut};

use super::format::{Chunk, Coding, Format, Sink};
use super::lanes::neon::ROWS;
use super::lanes::{MAGIC, Owned, RowLanes};
use super::layout::ROW_GROUP;
use super::quantised::Token;
use super::{Job, Q8Acts};
use crate::cpu::simd::Neon;
use crate::quant::q8::BLOCK;

/// Tokens from which on pairs pay for being made: below, the vector kernels unpack blocks in registers.
pub(super) const ENOUGH: usize = 9;
/// Chunks of a panel: 768 inputs, whole blocks of every type.
const PANEL: usize = 24;
/// Vectors of rows whose panels are unpacked together: activations are rearranged once for all of them. 48 KiB at most.
const VECTORS: usize = 4;
/// Pairs of tokens, and of rows, of a tile: 8 sums and 8 accumulators of the 32 registers.
const TOKEN_PAIRS: usize = 2;
const ROW_PAIRS: usize = ROWS / 2;
/// Tokens of a tile.
const TOKENS: usize = 2 * TOKEN_PAIRS;
/// Instructions for the inputs of a chunk.
const STEPS: usize = BLOCK / 8;

/// The unpacked chunks of a vector of rows.
#[repr(C, align(64))]
struct Panel {
    /// Eight codes of both rows of each pair; the format's offset has been subtracted.
    codes: [[[int8x16_t; ROW_PAIRS]; STEPS]; PANEL],
    /// Of the rows of each pair, twice.
    scale: [[[float32x4_t; ROW_PAIRS]; 2]; PANEL],
    minimum: [[[float32x4_t; ROW_PAIRS]; 2]; PANEL],
}

/// The activations of four tokens.
#[repr(C, align(64))]
struct Acts {
    /// Eight activations of both tokens of each pair.
    codes: [[[int8x16_t; TOKEN_PAIRS]; STEPS]; PANEL],
    /// Of the first token of each pair twice, then of the second twice.
    scale: [[float32x4_t; TOKEN_PAIRS]; PANEL],
    /// `Σ activation` of the first and the last 16 inputs of a chunk, or of all 32, likewise; only if the format has minimums.
    sum: [[[float32x4_t; TOKEN_PAIRS]; 2]; PANEL],
}

/// Computes the job.
pub(super) fn run<F: Format>(job: &Job<'_, Q8Acts<'_>>) {
    debug_assert!(job.tokens >= ENOUGH);
    // SAFETY: called at level NEON I8MM only, which implies these features.
    unsafe { enter::<F>(job) }
}

#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn enter<F: Format>(job: &Job<'_, Q8Acts<'_>>) {
    // SAFETY: this function has the features.
    let l = unsafe { Neon::<true>::new() };
    let chunks = job.cols / BLOCK;
    #[allow(clippy::large_stack_arrays)] // 48 KB of a thread with 2 MB; not initialised, and no allocation in a step
    let mut panels = [const { MaybeUninit::<Panel>::uninit() }; VECTORS];
    let mut acts = MaybeUninit::<Acts>::uninit();
    let mut start = job.rows.start / ROWS * ROWS;
    while start < job.rows.end {
        let vectors = (job.rows.end - start).div_ceil(ROWS).min(VECTORS);
        let mut first = 0;
        while first < chunks {
            let len = (chunks - first).min(PANEL);
            for (i, panel) in panels.iter_mut().enumerate().take(vectors) {
                let row = start + i * ROWS;
                // SAFETY: the first of these rows is within the matrix, so its group exists.
                let at = unsafe { job.weight.group(row / ROW_GROUP).rows_from(row % ROW_GROUP) };
                let mut sink = Keep::<F> { panel: panel.as_mut_ptr(), first: 0, format: PhantomData };
                while sink.first < len {
                    let block = (first + sink.first) / F::CHUNKS;
                    // SAFETY: `block` is a block of the rows, as panels are whole blocks.
                    unsafe { F::unpack(l, at.skip(F::LAYOUT, block), &mut sink) };
                    sink.first += F::CHUNKS;
                }
            }
            for t in (0..job.tokens).step_by(TOKENS) {
                // SAFETY: token `t` and chunks `first..first + len` are the job's; panels of `vectors` vectors are filled.
                unsafe {
                    rearrange::<F::Coding>(job, t, first, len, acts.as_mut_ptr());
                    for (i, panel) in panels.iter().enumerate().take(vectors) {
                        let tile = Tile { job, start: start + i * ROWS, t, first, len };
                        tile.run::<F::Coding>(l, panel.as_ptr(), acts.as_ptr());
                    }
                }
            }
            first += len;
        }
        start += vectors * ROWS;
    }
}

/// Unpacks chunks to a panel.
struct Keep<F> {
    panel: *mut Panel,
    /// Chunk 0 of the block that is being unpacked.
    first: usize,
    format: PhantomData<F>,
}

impl<F: Format> Sink<Neon<true>> for Keep<F> {
    #[inline(always)]
    fn put(&mut self, _: Neon<true>, index: usize, chunk: Chunk<Neon<true>>) {
        let at = self.first + index;
        debug_assert!(at < PANEL);
        // SAFETY: `at` is a chunk of the panel, which is this call's own memory; the rest is arithmetic on registers.
        unsafe {
            let panel = self.panel;
            for (step, quads) in chunk.codes.as_chunks::<2>().0.iter().enumerate() {
                let to = addr_of_mut!((*panel).codes[at][step]).cast::<int8x16_t>();
                for (half, (a, b)) in quads[0].into_iter().zip(quads[1]).enumerate() {
                    let (a, b) = (signed::<F::Coding>(a), signed::<F::Coding>(b));
                    to.add(2 * half).write(vreinterpretq_s8_s32(vzip1q_s32(a, b)));
                    to.add(2 * half + 1).write(vreinterpretq_s8_s32(vzip2q_s32(a, b)));
                }
            }
            for sub in 0..F::Coding::SUBS {
                write_pairs(addr_of_mut!((*panel).scale[at][sub]).cast(), chunk.scale[sub]);
                if F::Coding::MINIMUM {
                    write_pairs(addr_of_mut!((*panel).minimum[at][sub]).cast(), chunk.minimum[sub]);
                }
            }
        }
    }
}

/// A quad of codes without their offset.
///
/// # Safety
/// None beyond the target's baseline.
#[inline(always)]
unsafe fn signed<C: Coding>(codes: uint32x4_t) -> int32x4_t {
    const { assert!(C::MAX <= 127 || C::OFFSET == 128) };
    // SAFETY: arithmetic on registers.
    unsafe { vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_u32(codes), vdupq_n_s8(C::OFFSET as i8))) }
}

/// Both lanes of each pair of rows, twice.
///
/// # Safety
/// [`ROW_PAIRS`] vectors are writable at `to`.
#[inline(always)]
unsafe fn write_pairs(to: *mut float32x4_t, rows: [float32x4_t; 2]) {
    for (half, rows) in rows.into_iter().enumerate() {
        // SAFETY: the caller promises room for the pairs of two halves; the rest is arithmetic on registers.
        unsafe {
            to.add(2 * half).write(low_halves(rows, rows));
            to.add(2 * half + 1).write(high_halves(rows, rows));
        }
    }
}

/// The low halves of two vectors.
///
/// # Safety
/// None beyond the target's baseline.
#[inline(always)]
unsafe fn low_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: arithmetic on registers.
    unsafe { vreinterpretq_f32_u64(vzip1q_u64(vreinterpretq_u64_f32(a), vreinterpretq_u64_f32(b))) }
}

/// The high halves of two vectors.
///
/// # Safety
/// None beyond the target's baseline.
#[inline(always)]
unsafe fn high_halves(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: arithmetic on registers.
    unsafe { vreinterpretq_f32_u64(vzip2q_u64(vreinterpretq_u64_f32(a), vreinterpretq_u64_f32(b))) }
}

/// Chunks `first..first + len` of tokens `t..t + TOKENS`. Where the job has fewer tokens, the last takes their places, unused.
///
/// # Safety
/// Token `t` and the chunks are the job's; `acts` is writable.
#[inline(always)]
unsafe fn rearrange<C: Coding>(job: &Job<'_, Q8Acts<'_>>, t: usize, first: usize, len: usize, acts: *mut Acts) {
    debug_assert!(t < job.tokens && first + len <= job.cols / BLOCK && len <= PANEL);
    for pair in 0..TOKEN_PAIRS {
        // SAFETY: the tokens exist and have these chunks; those are within a panel; the loads need no alignment.
        unsafe {
            let a = Token::new(&job.acts, (t + 2 * pair).min(job.tokens - 1));
            let b = Token::new(&job.acts, (t + 2 * pair + 1).min(job.tokens - 1));
            for chunk in 0..len {
                let at = first + chunk;
                for half in 0..2 {
                    let from = BLOCK * at + 16 * half;
                    let (x, y) = (vld1q_s8(a.codes.add(from)), vld1q_s8(b.codes.add(from)));
                    let (x, y) = (vreinterpretq_s64_s8(x), vreinterpretq_s64_s8(y));
                    (*acts).codes[chunk][2 * half][pair] = vreinterpretq_s8_s64(vzip1q_s64(x, y));
                    (*acts).codes[chunk][2 * half + 1][pair] = vreinterpretq_s8_s64(vzip2q_s64(x, y));
                }
                (*acts).scale[chunk][pair] = twice(*a.scales.add(at), *b.scales.add(at));
                if C::MINIMUM {
                    let (a, b) = ((*a.sums.add(at)).map(i32::from), (*b.sums.add(at)).map(i32::from));
                    if C::SUBS == 1 {
                        (*acts).sum[chunk][0][pair] = twice((a[0] + a[1]) as f32, (b[0] + b[1]) as f32);
                    } else {
                        (*acts).sum[chunk][0][pair] = twice(a[0] as f32, b[0] as f32);
                        (*acts).sum[chunk][1][pair] = twice(a[1] as f32, b[1] as f32);
                    }
                }
            }
        }
    }
}

/// `[a, a, b, b]`.
///
/// # Safety
/// None beyond the target's baseline.
#[inline(always)]
unsafe fn twice(a: f32, b: f32) -> float32x4_t {
    // SAFETY: arithmetic on registers.
    unsafe { vcombine_f32(vdup_n_f32(a), vdup_n_f32(b)) }
}

/// Four tokens (or fewer, at the end) and a vector of rows.
struct Tile<'a, 'b> {
    job: &'a Job<'b, Q8Acts<'b>>,
    /// Row of lane 0.
    start: usize,
    t: usize,
    first: usize,
    len: usize,
}

impl Tile<'_, '_> {
    /// # Safety
    /// Panel and activations are filled for `len` chunks; tokens, chunks and the first row are the job's; this function is
    /// inlined where `smmla` is a feature.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // the compiler unrolls this form at every level of optimisation
    unsafe fn run<C: Coding>(&self, l: Neon<true>, panel: *const Panel, acts: *const Acts) {
        let job = self.job;
        let owned = Owned::of(&job.rows, self.start, ROWS);
        let tokens = (job.tokens - self.t).min(TOKENS);
        let out = |t: usize| job.out.ptr.wrapping_add((self.t + t) * job.out.stride + self.start);
        // SAFETY: only owned rows of the job's tokens are read and written; chunks below `len` are filled.
        unsafe {
            let mut acc = [[vdupq_n_f32(0.0); TOKEN_PAIRS]; ROW_PAIRS];
            if self.first > 0 {
                for pair in 0..TOKEN_PAIRS.min(tokens.div_ceil(2)) {
                    let a = l.load_r(out(2 * pair), owned);
                    let b = if 2 * pair + 1 < tokens { l.load_r(out(2 * pair + 1), owned) } else { a };
                    for half in 0..2 {
                        acc[2 * half][pair] = low_halves(a[half], b[half]);
                        acc[2 * half + 1][pair] = high_halves(a[half], b[half]);
                    }
                }
            }
            for chunk in 0..self.len {
                let codes = addr_of!((*panel).codes[chunk]).cast::<[int8x16_t; ROW_PAIRS]>();
                let inputs = addr_of!((*acts).codes[chunk]).cast::<[int8x16_t; TOKEN_PAIRS]>();
                let (scale, minimum) = (addr_of!((*panel).scale[chunk]), addr_of!((*panel).minimum[chunk]));
                let (scale, minimum) = (scale.cast::<float32x4_t>(), minimum.cast::<float32x4_t>());
                let sum = |sub: usize, pair: usize| (*acts).sum[chunk][sub][pair];
                // As `quantised::accumulate` does it.
                let dots = multiply(codes, inputs, STEPS / C::SUBS, MAGIC.to_bits());
                let mut v = [[vdupq_n_f32(0.0); TOKEN_PAIRS]; ROW_PAIRS];
                for r in 0..ROW_PAIRS {
                    let scale = *scale.add(r);
                    let shift = vmulq_n_f32(scale, -MAGIC);
                    for t in 0..TOKEN_PAIRS {
                        v[r][t] = vfmaq_f32(shift, scale, vreinterpretq_f32_s32(dots[r][t]));
                    }
                }
                if C::SUBS == 2 {
                    let dots = multiply(codes.add(STEPS / 2), inputs.add(STEPS / 2), STEPS / 2, 0);
                    for r in 0..ROW_PAIRS {
                        let scale = *scale.add(ROW_PAIRS + r);
                        for t in 0..TOKEN_PAIRS {
                            v[r][t] = vfmaq_f32(v[r][t], scale, vcvtq_f32_s32(dots[r][t]));
                        }
                    }
                }
                for r in 0..ROW_PAIRS {
                    for t in 0..TOKEN_PAIRS {
                        if C::MINIMUM {
                            v[r][t] = vfmaq_f32(v[r][t], *minimum.add(r), sum(0, t));
                            if C::SUBS == 2 {
                                v[r][t] = vfmaq_f32(v[r][t], *minimum.add(ROW_PAIRS + r), sum(1, t));
                            }
                        }
                        acc[r][t] = vfmaq_f32(acc[r][t], (*acts).scale[chunk][t], v[r][t]);
                    }
                }
            }
            let last = self.first + self.len == job.cols / BLOCK;
            for t in 0..tokens {
                let of = |half: usize| {
                    let (a, b) = (acc[2 * half][t / 2], acc[2 * half + 1][t / 2]);
                    if t % 2 == 0 { low_halves(a, b) } else { high_halves(a, b) }
                };
                let mut sums = [of(0), of(1)];
                if let (true, Some(bias)) = (last, job.bias) {
                    sums = l.add_r(sums, l.load_r(bias.as_ptr().wrapping_add(self.start), owned));
                }
                l.store_r(sums, out(t), owned);
            }
        }
    }
}

/// Dot products over `8 · steps` inputs of the pairs of rows with the pairs of tokens, beginning with `start`: of two rows with the
/// first token, then with the second.
///
/// # Safety
/// `steps` elements are readable behind both; the processor has `smmla`, and the function this is inlined into has the feature.
#[inline(always)]
unsafe fn multiply(
    codes: *const [int8x16_t; ROW_PAIRS],
    inputs: *const [int8x16_t; TOKEN_PAIRS],
    steps: usize,
    start: u32,
) -> [[int32x4_t; TOKEN_PAIRS]; ROW_PAIRS] {
    debug_assert!(steps <= STEPS);
    // SAFETY: as the caller promises; the rest is arithmetic on registers.
    unsafe {
        let mut sums = [[vdupq_n_s32(start as i32); TOKEN_PAIRS]; ROW_PAIRS];
        for step in 0..steps {
            let (codes, inputs) = (*codes.add(step), *inputs.add(step));
            for (sums, codes) in sums.iter_mut().zip(codes) {
                for (sum, inputs) in sums.iter_mut().zip(inputs) {
                    *sum = smmla(*sum, inputs, codes);
                }
            }
        }
        sums
    }
}

/// Lane `2 i + j`: `sum` plus eight signed bytes of half `i` of `a` times those of half `j` of `b`.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn smmla(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers; the caller promises the instruction. The intrinsic is unstable.
    unsafe {
        asm!("smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}
