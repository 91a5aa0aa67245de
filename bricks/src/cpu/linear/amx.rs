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
use super::lanes::{MAGIC, Owned};
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
/// Most chunks of a panel of one group: 768 inputs, whole blocks of every type.
const PANEL: usize = 24;
/// Chunks that are unpacked at once, of several groups of rows: what is read and prepared of the activations serves all of them.
const ROOM: usize = 6 * PANEL;
/// Bytes of the codes of a chunk.
const CHUNK: usize = BLOCK * ROW_GROUP;

/// The unpacked chunks of some groups of rows, one group after the other.
#[repr(C, align(64))]
struct Panels {
    /// Tile B of each chunk: quad by quad, sixteen rows each; the format's offset has been subtracted. Behind the last chunk there
    /// is room for a batch of products that nobody wants.
    codes: [[u8; CHUNK]; ROOM + BATCH],
    scale: [[[f32; ROW_GROUP]; 2]; ROOM],
    minimum: [[[f32; ROW_GROUP]; 2]; ROOM],
}

/// What the inner loop needs of sixteen tokens, at addresses with constant distances.
#[repr(C, align(64))]
struct Factors {
    scale: [[f32; PANEL]; TOKENS],
    /// `Σ activation` of the first and the last 16 inputs of a chunk, or of all 32; only if the format has minimums.
    sum: [[[f32; PANEL]; 2]; TOKENS],
}

/// Products that are started together: their loads, multiplications and stores overlap.
const BATCH: usize = 4;

/// Integer sums of two batches, so that the tile unit fills one while the other is used. Where they come from is a ring: a batch
/// may end in one group of rows and begin in the one before.
#[repr(C, align(64))]
struct Sums([[[i32; ROW_GROUP]; TOKENS]; 2 * BATCH]);

/// Tiles 0 to 3 are sums (`tokens` rows × 64 bytes), 4 and 5 tokens (`tokens` rows × `inputs` bytes), 6 and 7 weights
/// (`inputs / 4` quads × 64 bytes).
fn config(tokens: usize, inputs: usize) -> TileConfig {
    let (sums, acts, codes) = ((tokens, 64), (tokens, inputs), (inputs / 4, 64));
    TileConfig::new([sums, sums, sums, sums, acts, acts, codes, codes])
}

/// Returns the tile registers to their initial state when the call ends.
pub(super) struct Release;

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

/// Unpacks chunks to panels.
struct Keep<F> {
    panels: *mut Panels,
    /// Where chunk 0 of the block that is being unpacked belongs.
    first: usize,
    format: PhantomData<F>,
}

impl<F: Format> Sink<Avx512> for Keep<F> {
    #[inline(always)]
    fn put(&mut self, _: Avx512, index: usize, chunk: Chunk<Avx512>) {
        let at = self.first + index;
        debug_assert!(at < ROOM);
        // SAFETY: `at` is a chunk of the panels, which are this call's own memory; stores of whole vectors into it.
        unsafe {
            let panels = self.panels;
            let codes = addr_of_mut!((*panels).codes[at]).cast::<u8>();
            for (q, code) in chunk.codes.into_iter().enumerate() {
                let code = _mm512_sub_epi8(code, _mm512_set1_epi8(F::Coding::OFFSET as i8));
                _mm512_store_si512(codes.add(64 * q).cast(), code);
            }
            for sub in 0..F::Coding::SUBS {
                _mm512_store_ps(addr_of_mut!((*panels).scale[at][sub]).cast(), chunk.scale[sub]);
                if F::Coding::MINIMUM {
                    _mm512_store_ps(addr_of_mut!((*panels).minimum[at][sub]).cast(), chunk.minimum[sub]);
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
    // Not initialised: 100 KB of a thread with 2 MB, and no allocation in a step.
    let mut panels = MaybeUninit::<Panels>::uninit();
    let mut factors = MaybeUninit::<Factors>::uninit();
    // Sums of tokens that a partial tile lacks are read (and not used): they must be numbers.
    let mut sums = MaybeUninit::<Sums>::zeroed();
    let inputs = BLOCK / F::Coding::SUBS;
    let full = config(TOKENS, inputs);
    let part = config(tokens % TOKENS, inputs);
    let _release = Release;
    // Panels of nearly equal length, in whole blocks.
    let most = chunks.div_ceil(chunks.div_ceil(PANEL)).next_multiple_of(F::CHUNKS);
    let mut group = job.rows.start / ROW_GROUP;
    let end = job.rows.end.div_ceil(ROW_GROUP);
    while group < end {
        let groups = (end - group).min(ROOM / most);
        let mut first = 0;
        while first < chunks {
            let len = (chunks - first).min(most);
            for i in 0..groups {
                let mut sink = Keep::<F> { panels: panels.as_mut_ptr(), first: i * len, format: PhantomData };
                for block in first / F::CHUNKS..(first + len) / F::CHUNKS {
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
                    let tile = Tile { job, group, groups, t, n, first, len };
                    tile.run::<F::Coding>(panels.as_ptr(), factors.as_ptr(), sums.as_mut_ptr());
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

/// Sixteen tokens (or the first `n` of them) and some groups of rows.
struct Tile<'a, 'b> {
    job: &'a Job<'b, Q8Acts<'b>>,
    group: usize,
    groups: usize,
    t: usize,
    n: usize,
    first: usize,
    len: usize,
}

/// The tile unit's work on a tile: one product after the other, without a pause from one group of rows to the next.
struct Products<C> {
    /// Activations of the tile's tokens, at the panel's first input.
    acts: *const i8,
    /// Bytes from one token's to the next one's.
    stride: usize,
    codes: *const u8,
    sums: *mut i32,
    /// What one product covers, a *unit*: a chunk, or half of one. Units of a group.
    units: usize,
    /// Unit of its group that the next batch begins with.
    unit: usize,
    /// Unit of all groups that the next batch begins with.
    next: usize,
    coding: PhantomData<C>,
}

impl<C: Coding> Products<C> {
    /// Where the sums of a unit (counted over all groups) are kept.
    #[inline(always)]
    fn slot(&self, unit: usize) -> *mut i32 {
        self.sums.wrapping_add(unit % (2 * BATCH) * TOKENS * ROW_GROUP)
    }

    /// Starts the next [`BATCH`] products.
    ///
    /// # Safety
    /// There is at least one more; the tokens' activations and the panels' codes (with the room behind them) are readable, the
    /// sums writable; tiles are configured for the tokens.
    #[inline(always)]
    unsafe fn start(&mut self) {
        let inputs = BLOCK / C::SUBS;
        let mut acts = [self.acts; BATCH];
        for acts in &mut acts {
            *acts = self.acts.wrapping_add(inputs * self.unit);
            self.unit += 1;
            if self.unit == self.units {
                self.unit = 0;
            }
        }
        // SAFETY: as the caller promises. Products beyond the last are of some group's activations and of whatever lies in the
        // room behind the codes; their sums are not used.
        unsafe {
            dot_batch::<C>(acts, self.stride, self.codes.add(ROW_GROUP * inputs * self.next), self.slot(self.next));
        }
        self.next += BATCH;
    }
}

impl Tile<'_, '_> {
    /// # Safety
    /// Tiles are configured for `n` tokens; panels and factors are filled for `len` chunks; tokens, chunks and groups are
    /// the job's; the processor has AVX-512.
    #[inline(always)]
    unsafe fn run<C: Coding>(&self, panels: *const Panels, factors: *const Factors, sums: *mut Sums) {
        let job = self.job;
        // SAFETY: only owned rows of the job's tokens are read and written; there are as many products as the panels have units.
        unsafe {
            let mut products = Products::<C> {
                acts: Token::new(&job.acts, self.t).codes.add(BLOCK * self.first),
                stride: job.cols,
                codes: panels.cast(),
                sums: sums.cast(),
                units: self.len * C::SUBS,
                unit: 0,
                next: 0,
                coding: PhantomData,
            };
            let all = self.groups * self.len * C::SUBS;
            products.start();
            for group in 0..self.groups {
                let start = (self.group + group) * ROW_GROUP;
                let owned = Owned::of(&job.rows, start, ROW_GROUP).mask();
                let out = job.out.ptr.wrapping_add(self.t * job.out.stride + start);
                let mut acc = [_mm512_setzero_ps(); TOKENS];
                if self.first > 0 {
                    for (i, acc) in acc.iter_mut().enumerate().take(self.n) {
                        *acc = _mm512_maskz_loadu_ps(owned, out.wrapping_add(i * job.out.stride));
                    }
                }
                for chunk in 0..self.len {
                    let at = group * self.len + chunk;
                    // The batch that `at` begins has been started before; the next one runs while it is used.
                    if (at * C::SUBS).is_multiple_of(BATCH) && products.next < all {
                        products.start();
                    }
                    let (mut scale, mut minimum) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
                    for sub in 0..C::SUBS {
                        scale[sub] = _mm512_load_ps(addr_of!((*panels).scale[at][sub]).cast());
                        if C::MINIMUM {
                            minimum[sub] = _mm512_load_ps(addr_of!((*panels).minimum[at][sub]).cast());
                        }
                    }
                    // As `quantised::accumulate` does it: a scale that is not finite gives the same there and here.
                    let magic = _mm512_set1_epi32(MAGIC.to_bits() as i32);
                    let shift = _mm512_mul_ps(scale[0], _mm512_set1_ps(-MAGIC));
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let dots = |sub| _mm512_load_si512(products.slot(at * C::SUBS + sub).add(i * ROW_GROUP).cast());
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
}

/// Picks the instruction of a coding: activations are signed; so are codes whose offset has been subtracted.
macro_rules! by_sign {
    ($coding:ty, $macro:ident) => {
        if <$coding>::OFFSET == 0 { $macro!("tdpbsud") } else { $macro!("tdpbssd") }
    };
}

/// `sums[u][t][r] = Σ acts[u][t][i] · codes[u][i][r]` for [`BATCH`] units and the tokens and inputs of the configuration.
///
/// # Safety
/// AMX is granted and configured (see [`config`]); each of `acts` has as many rows of `stride` bytes as there are tokens; `codes`
/// has, unit after unit, a vector for every quad, and `sums` one for every token.
#[inline(always)]
unsafe fn dot_batch<C: Coding>(acts: [*const i8; BATCH], stride: usize, codes: *const u8, sums: *mut i32) {
    macro_rules! dot {
        ($instruction:literal) => {
            // SAFETY: as the caller promises.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm4, [{a0} + {stride}]",
                    "tileloadd tmm6, [{codes} + {line}]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    "tilezero tmm1",
                    "tileloadd tmm5, [{a1} + {stride}]",
                    "tileloadd tmm7, [{codes} + {line} + 16 * {unit}]",
                    concat!($instruction, " tmm1, tmm5, tmm7"),
                    "tilezero tmm2",
                    "tileloadd tmm4, [{a2} + {stride}]",
                    "tileloadd tmm6, [{codes} + {line} + 32 * {unit}]",
                    concat!($instruction, " tmm2, tmm4, tmm6"),
                    "tilezero tmm3",
                    "tileloadd tmm5, [{a3} + {stride}]",
                    "tileloadd tmm7, [{codes} + {line} + 48 * {unit}]",
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + {tile}], tmm1",
                    "tilestored [{sums} + {line} + 2 * {tile}], tmm2",
                    "tilestored [{sums} + {line} + 3 * {tile}], tmm3",
                    a0 = in(reg) acts[0],
                    a1 = in(reg) acts[1],
                    a2 = in(reg) acts[2],
                    a3 = in(reg) acts[3],
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
