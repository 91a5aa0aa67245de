//! Quantised weights times many tokens in AMX tile registers.
//!
//! A tile multiplication takes sixteen tokens × 32 inputs (tile A, straight from the activations) and 32 inputs × sixteen rows
//! (tile B, the quads of an unpacked chunk, just as the vector kernels keep them) to sixteen vectors of sums: vector `t` has the
//! dot products of token `t` with sixteen rows. From there on the arithmetic is that of the vector kernels, so the bits are
//! the same; the processor's tile unit replaces eight dot instructions per token and chunk.
//!
//! Rust's AMX intrinsics are unstable, so the tile instructions are inline assembly. The compiler never uses tile registers
//! itself, and a tile's content is not kept from one `asm!` block to the next.
//!
//! Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18 (Programming with Intel AMX).

use std::arch::asm;
#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{addr_of, addr_of_mut};

use super::format::{Chunk, Coding, Format, Sink};
use super::lanes::MAGIC;
use super::layout::ROW_GROUP;
use super::quantised::{Quantised, Token};
use super::{Job, Q8Acts};
use crate::cpu::simd::{Avx512, Kernel};
use crate::cpu::tiles::TileConfig;
use crate::quant::q8::BLOCK;

/// Tokens of a full tile.
const TOKENS: usize = 16;
/// Tokens from which on tiles are used at all: below it, and for a rest of fewer, the vector kernels are as fast.
pub(super) const ENOUGH: usize = 9;
/// Chunks of a panel: 1,024 inputs, a multiple of every block.
const PANEL: usize = 32;
/// Groups of rows whose panels are unpacked together: activations are read from the outer caches once for all of them.
const GROUPS: usize = 4;
/// Bytes of the codes of a chunk.
const CHUNK: usize = BLOCK * ROW_GROUP;

/// The unpacked chunks of one group of rows.
#[repr(C, align(64))]
struct Panel {
    /// Tile B of each chunk: quad by quad, sixteen rows each; the format's offset has been subtracted.
    codes: [[u8; CHUNK]; PANEL],
    scale: [[[f32; ROW_GROUP]; 2]; PANEL],
    minimum: [[[f32; ROW_GROUP]; 2]; PANEL],
}

/// What the inner loop needs of sixteen tokens, at addresses with constant distances.
#[repr(C, align(64))]
struct Factors {
    scale: [[f32; PANEL]; TOKENS],
    /// `Σ activation` of the first and the last 16 inputs of a chunk, or of all 32; only if the format has minimums.
    sum: [[[f32; PANEL]; 2]; TOKENS],
}

/// Tile multiplications that are started together: their loads, products and stores overlap.
const BATCH: usize = 4;

/// Integer sums of two batches, so that the tile unit fills one while the other is used.
#[repr(C, align(64))]
struct Sums([[[i32; ROW_GROUP]; TOKENS]; 2 * BATCH]);

/// Tiles 0 to 3 are sums (`tokens` rows × 64 bytes), 4 and 5 tokens (`tokens` rows × `inputs` bytes), 6 and 7 weights
/// (`inputs / 4` quads × 64 bytes).
fn config(tokens: usize, inputs: usize) -> TileConfig {
    let (sums, acts, codes) = ((tokens, 64), (tokens, inputs), (inputs / 4, 64));
    TileConfig::new([sums, sums, sums, sums, acts, acts, codes, codes])
}

/// Returns the tile registers to their initial state when the call ends.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        // SAFETY: exists only while tiles are configured, which the processor must be able to do.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Computes the job: full tiles of sixteen tokens and a partial one here, a rest of few tokens with the vector kernels.
pub(super) fn run<F: Format>(job: &Job<'_, Q8Acts<'_>>) {
    debug_assert!(job.tokens >= ENOUGH);
    // SAFETY: called at level AMX only, which implies these features.
    unsafe { enter::<F>(job) }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn enter<F: Format>(job: &Job<'_, Q8Acts<'_>>) {
    // SAFETY: this function has the features.
    let l = unsafe { Avx512::new() };
    let rest = job.tokens % TOKENS;
    let tiled = if rest >= ENOUGH { job.tokens } else { job.tokens - rest };
    // SAFETY: the job's invariants hold for all of its tokens.
    unsafe { tiles::<F>(l, job, tiled) };
    if tiled < job.tokens {
        let acts = Q8Acts {
            width: job.acts.width,
            codes: &job.acts.codes[tiled * job.cols..],
            scales: &job.acts.scales[tiled * job.cols / BLOCK..],
            sums: &job.acts.sums[tiled * job.cols / BLOCK..],
        };
        let out = super::RawOut { ptr: job.out.ptr.wrapping_add(tiled * job.out.stride), stride: job.out.stride };
        let few = Job { acts, tokens: job.tokens - tiled, out, ..job.clone() };
        Quantised::<F>::new(few).run(l);
    }
}

/// Unpacks chunks to a panel.
struct Keep<F> {
    panel: *mut Panel,
    /// Chunk 0 of the block that is being unpacked.
    first: usize,
    format: PhantomData<F>,
}

impl<F: Format> Sink<Avx512> for Keep<F> {
    #[inline(always)]
    fn put(&mut self, _: Avx512, index: usize, chunk: Chunk<Avx512>) {
        let at = self.first + index;
        debug_assert!(at < PANEL);
        // SAFETY: `at` is a chunk of the panel, which is this call's own memory; stores of whole vectors into it.
        unsafe {
            let panel = self.panel;
            let codes = addr_of_mut!((*panel).codes[at]).cast::<u8>();
            for (q, code) in chunk.codes.into_iter().enumerate() {
                let code = _mm512_sub_epi8(code, _mm512_set1_epi8(F::Coding::OFFSET as i8));
                _mm512_store_si512(codes.add(64 * q).cast(), code);
            }
            for sub in 0..F::Coding::SUBS {
                _mm512_store_ps(addr_of_mut!((*panel).scale[at][sub]).cast(), chunk.scale[sub]);
                if F::Coding::MINIMUM {
                    _mm512_store_ps(addr_of_mut!((*panel).minimum[at][sub]).cast(), chunk.minimum[sub]);
                }
            }
        }
    }
}

/// # Safety
/// The processor has the features of [`enter`], and AMX is granted; `tokens` is at most the job's.
#[inline(always)]
unsafe fn tiles<F: Format>(l: Avx512, job: &Job<'_, Q8Acts<'_>>, tokens: usize) {
    let chunks = job.cols / BLOCK;
    #[allow(clippy::large_stack_arrays)] // 100 KB of a thread with 2 MB; not initialised, and no allocation in a step
    let mut panels = [const { MaybeUninit::<Panel>::uninit() }; GROUPS];
    let mut factors = MaybeUninit::<Factors>::uninit();
    // Sums of tokens that a partial tile lacks are read (and not used): they must be numbers.
    let mut sums = MaybeUninit::<Sums>::zeroed();
    let inputs = BLOCK / F::Coding::SUBS;
    let full = config(TOKENS, inputs);
    let part = config(tokens % TOKENS, inputs);
    let _release = Release;
    let mut group = job.rows.start / ROW_GROUP;
    let end = job.rows.end.div_ceil(ROW_GROUP);
    while group < end {
        let groups = (end - group).min(GROUPS);
        let mut first = 0;
        while first < chunks {
            let len = (chunks - first).min(PANEL);
            for (i, panel) in panels.iter_mut().enumerate().take(groups) {
                let mut sink = Keep::<F> { panel: panel.as_mut_ptr(), first: 0, format: PhantomData };
                while sink.first < len {
                    let block = (first + sink.first) / F::CHUNKS;
                    // SAFETY: the group and its block are within the packed matrix, as panels are whole blocks.
                    unsafe { F::unpack(l, job.weight.group(group + i).skip(F::LAYOUT, block), &mut sink) };
                    sink.first += F::CHUNKS;
                }
            }
            let mut t = 0;
            while t < tokens {
                let n = (tokens - t).min(TOKENS);
                // SAFETY: AMX is granted; tokens `t..t + n` and chunks `first..first + len` are the job's; panels of `groups`
                // groups are filled.
                unsafe {
                    if n == TOKENS {
                        full.load();
                    } else {
                        part.load();
                    }
                    load_factors::<F::Coding>(job, t, n, first, len, factors.as_mut_ptr());
                    for (i, panel) in panels.iter().enumerate().take(groups) {
                        let tile = Tile { job, group: group + i, t, n, first, len };
                        tile.run::<F::Coding>(panel.as_ptr(), factors.as_ptr(), sums.as_mut_ptr());
                    }
                }
                t += n;
            }
            first += len;
        }
        group += groups;
    }
}

/// Scales and sums of tokens `t..t + n`, chunks `first..first + len`; tokens beyond `n` get those of the last, unused.
///
/// # Safety
/// These are tokens and chunks of the job; the processor has AVX-512.
#[inline(always)]
unsafe fn load_factors<C: Coding>(
    job: &Job<'_, Q8Acts<'_>>,
    t: usize,
    n: usize,
    first: usize,
    len: usize,
    factors: *mut Factors,
) {
    debug_assert!(n >= 1 && t + n <= job.tokens && first + len <= job.cols / BLOCK && len <= PANEL);
    for i in 0..TOKENS {
        // SAFETY: the token exists, and has these chunks; masked lanes are not touched.
        unsafe {
            let token = Token::new(&job.acts, t + i.min(n - 1));
            for part in (0..len).step_by(16) {
                let lanes = (((1u32 << (len - part).min(16)) - 1) & 0xffff) as __mmask16;
                let at = first + part;
                let scale = _mm512_maskz_loadu_ps(lanes, token.scales.add(at));
                _mm512_mask_storeu_ps(addr_of_mut!((*factors).scale[i]).cast::<f32>().add(part), lanes, scale);
                if C::MINIMUM {
                    let pairs = _mm512_maskz_loadu_epi32(lanes, token.sums.add(at).cast());
                    for sub in 0..C::SUBS {
                        // Both sums together, or the low or the high one.
                        let weights = if C::SUBS == 1 { 0x0001_0001 } else { 1 << (16 * sub) };
                        let sum = _mm512_cvtepi32_ps(_mm512_madd_epi16(pairs, _mm512_set1_epi32(weights)));
                        let to = addr_of_mut!((*factors).sum[i][sub]).cast::<f32>().add(part);
                        _mm512_mask_storeu_ps(to, lanes, sum);
                    }
                }
            }
        }
    }
}

/// Sixteen tokens (or the first `n` of them) and one group of rows.
struct Tile<'a, 'b> {
    job: &'a Job<'b, Q8Acts<'b>>,
    group: usize,
    t: usize,
    n: usize,
    first: usize,
    len: usize,
}

impl Tile<'_, '_> {
    /// # Safety
    /// Tiles are configured for `n` tokens; panel and factors are filled for `len` chunks; tokens, chunks and the group are
    /// the job's; the processor has AVX-512.
    #[inline(always)]
    unsafe fn run<C: Coding>(&self, panel: *const Panel, factors: *const Factors, sums: *mut Sums) {
        let job = self.job;
        let start = self.group * ROW_GROUP;
        let owned = {
            let first = job.rows.start.clamp(start, start + ROW_GROUP) - start;
            let end = job.rows.end.clamp(start, start + ROW_GROUP) - start;
            (((1u32 << end) - 1) & !((1u32 << first) - 1)) as __mmask16
        };
        // SAFETY: only owned rows of the job's tokens are read and written.
        unsafe {
            let out = job.out.ptr.wrapping_add(self.t * job.out.stride + start);
            let mut acc = [_mm512_setzero_ps(); TOKENS];
            if self.first > 0 {
                for (i, acc) in acc.iter_mut().enumerate().take(self.n) {
                    *acc = _mm512_maskz_loadu_ps(owned, out.wrapping_add(i * job.out.stride));
                }
            }
            let acts = Token::new(&job.acts, self.t).codes.add(BLOCK * self.first);
            let panel_codes = panel.cast::<u8>();
            // A unit is what one tile multiplication covers: a chunk, or half of one.
            let (units, inputs) = (self.len * C::SUBS, BLOCK / C::SUBS);
            let slot = |unit: usize| sums.cast::<i32>().add(unit % (2 * BATCH) * TOKENS * ROW_GROUP);
            let multiply = |first: usize| {
                let (acts, codes) = (acts.add(inputs * first), panel_codes.add(ROW_GROUP * inputs * first));
                if first + BATCH <= units {
                    dot_batch::<C>(acts, job.cols, codes, slot(first));
                } else {
                    for unit in 0..units.saturating_sub(first) {
                        let codes = codes.add(ROW_GROUP * inputs * unit);
                        dot::<C>(acts.add(inputs * unit), job.cols, codes, slot(first + unit));
                    }
                }
            };
            multiply(0);
            for chunk in 0..self.len {
                if chunk % (BATCH / C::SUBS) == 0 {
                    multiply(chunk * C::SUBS + BATCH);
                }
                let (mut scale, mut minimum) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
                for sub in 0..C::SUBS {
                    scale[sub] = _mm512_load_ps(addr_of!((*panel).scale[chunk][sub]).cast());
                    if C::MINIMUM {
                        minimum[sub] = _mm512_load_ps(addr_of!((*panel).minimum[chunk][sub]).cast());
                    }
                }
                // As `quantised::accumulate` does it: a scale that is not finite gives the same there and here.
                let magic = _mm512_set1_epi32(MAGIC.to_bits() as i32);
                let shift = _mm512_mul_ps(scale[0], _mm512_set1_ps(-MAGIC));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let dots = |sub| _mm512_load_si512(slot(chunk * C::SUBS + sub).add(i * ROW_GROUP).cast());
                    let sum = |sub: usize| _mm512_set1_ps((*factors).sum[i][sub][chunk]);
                    let first = _mm512_castsi512_ps(_mm512_add_epi32(dots(0), magic));
                    let mut v = _mm512_fmadd_ps(scale[0], first, shift);
                    if C::SUBS == 2 {
                        v = _mm512_fmadd_ps(scale[1], _mm512_cvtepi32_ps(dots(1)), v);
                    }
                    if C::MINIMUM {
                        v = _mm512_fmadd_ps(minimum[0], sum(0), v);
                        if C::SUBS == 2 {
                            v = _mm512_fmadd_ps(minimum[1], sum(1), v);
                        }
                    }
                    *acc = _mm512_fmadd_ps(_mm512_set1_ps((*factors).scale[i][chunk]), v, *acc);
                }
            }
            let last = self.first + self.len == job.cols / BLOCK;
            let bias = match job.bias {
                Some(bias) if last => Some(_mm512_maskz_loadu_ps(owned, bias.as_ptr().wrapping_add(start))),
                _ => None,
            };
            for (i, mut acc) in acc.into_iter().enumerate() {
                if i < self.n {
                    if let Some(bias) = bias {
                        acc = _mm512_add_ps(acc, bias);
                    }
                    _mm512_mask_storeu_ps(out.wrapping_add(i * job.out.stride), owned, acc);
                }
            }
        }
    }
}

/// Picks the instruction of a coding: activations are signed; so are codes whose offset has been subtracted.
macro_rules! by_sign {
    ($coding:ty, $macro:ident) => {
        if <$coding>::OFFSET == 0 { $macro!("tdpbsud") } else { $macro!("tdpbssd") }
    };
}

/// `sums[t][r] = Σ acts[t][i] · codes[i][r]` for the tokens and inputs of the configuration.
///
/// # Safety
/// AMX is granted and configured (see [`config`]); `acts` has as many rows of `stride` bytes as there are tokens, `codes` a
/// vector for every quad, and `sums` one for every token.
#[inline(always)]
unsafe fn dot<C: Coding>(acts: *const i8, stride: usize, codes: *const u8, sums: *mut i32) {
    macro_rules! dot {
        ($instruction:literal) => {
            // SAFETY: as the caller promises.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm4, [{acts} + {stride}]",
                    "tileloadd tmm6, [{codes} + {line}]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    "tilestored [{sums} + {line}], tmm0",
                    acts = in(reg) acts,
                    stride = in(reg) stride,
                    codes = in(reg) codes,
                    sums = in(reg) sums,
                    line = in(reg) 64usize,
                    out("tmm0") _, out("tmm4") _, out("tmm6") _,
                    options(nostack),
                )
            }
        };
    }
    by_sign!(C, dot);
}

/// [`dot`] for [`BATCH`] consecutive units of inputs, whose sums follow each other.
///
/// # Safety
/// As for [`dot`], for each unit.
#[inline(always)]
unsafe fn dot_batch<C: Coding>(acts: *const i8, stride: usize, codes: *const u8, sums: *mut i32) {
    macro_rules! dot {
        ($instruction:literal) => {
            // SAFETY: as the caller promises.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm4, [{acts} + {stride}]",
                    "tileloadd tmm6, [{codes} + {line}]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    "tilezero tmm1",
                    "tileloadd tmm5, [{acts} + {stride} + {unit}]",
                    "tileloadd tmm7, [{codes} + {line} + 16 * {unit}]",
                    concat!($instruction, " tmm1, tmm5, tmm7"),
                    "tilezero tmm2",
                    "tileloadd tmm4, [{acts} + {stride} + 2 * {unit}]",
                    "tileloadd tmm6, [{codes} + {line} + 32 * {unit}]",
                    concat!($instruction, " tmm2, tmm4, tmm6"),
                    "tilezero tmm3",
                    "tileloadd tmm5, [{acts} + {stride} + 3 * {unit}]",
                    "tileloadd tmm7, [{codes} + {line} + 48 * {unit}]",
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + {tile}], tmm1",
                    "tilestored [{sums} + {line} + 2 * {tile}], tmm2",
                    "tilestored [{sums} + {line} + 3 * {tile}], tmm3",
                    acts = in(reg) acts,
                    stride = in(reg) stride,
                    codes = in(reg) codes,
                    sums = in(reg) sums,
                    line = in(reg) 64usize,
                    unit = const BLOCK / C::SUBS,
                    tile = const 4 * TOKENS * ROW_GROUP,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            }
        };
    }
    by_sign!(C, dot);
}
