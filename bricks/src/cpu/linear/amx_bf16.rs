//! BF16 weights times several tokens in AMX tile registers.
//!
//! A product takes sixteen tokens × 32 inputs (tile A) and 32 inputs × sixteen rows (tile B) and adds them to sixteen vectors of f32
//! sums. Packed weights are tile B as they lie in memory; activations are rounded and laid out here. Two tiles of tokens meet two
//! of rows, so that four products follow four loads, and the sums stay in their tiles for all inputs.
//!
//! `TDPBF16PS` adds the products of even inputs and of odd ones in two chains from zero and then their sum to the tile's:
//! the arithmetic that [`super::bf16`] does in lanes, bit for bit (down to 2⁻¹²⁶, see there).
//!
//! References: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and `TDPBF16PS` in volume 2.

use std::arch::asm;
#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ptr::{addr_of, addr_of_mut};
use std::sync::OnceLock;

use super::amx::Release;
use super::bf16::RUN;
use super::lanes::Owned;
use super::layout::{PLANE, ROW_GROUP};
use super::{AHEAD, Job};
use crate::cpu::tiles::TileConfig;

/// Tokens of a tile.
const TOKENS: usize = 16;
/// Tokens from which on tiles are used: below it, and for inputs that are not whole runs, the vector kernel is as fast.
const ENOUGH: usize = 4;
/// Most inputs that are rounded at once.
const PANEL: usize = 2048;

/// Rounded activations of two tiles of tokens. Rows are a cache line longer than needed: at a distance of 4 KiB they would compete
/// for the same places in the cache.
#[repr(C, align(64))]
struct Acts([[u16; PANEL + RUN]; 2 * TOKENS]);

/// Sums of two tiles of tokens times two groups of rows.
#[repr(C, align(64))]
struct Sums([[[[f32; ROW_GROUP]; TOKENS]; 2]; 2]);

/// Tiles 0 to 3 are sums, 4 and 5 tokens, 6 and 7 weights: all of sixteen rows of 64 bytes.
static CONFIG: TileConfig = TileConfig::new([(16, 64); 8]);

/// Whether this call is one for tiles. The level must be AMX, which implies integer tiles only.
pub(super) fn takes(job: &Job<'_, &[f32]>) -> bool {
    job.tokens >= ENOUGH && job.cols.is_multiple_of(RUN) && has_tiles()
}

fn has_tiles() -> bool {
    const BF16: u32 = 1 << 22;
    // A virtual machine traps the instruction that asks.
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| is_x86_feature_detected!("avx512bf16") && __cpuid_count(7, 0).edx & BF16 != 0)
}

/// Computes the job.
pub(super) fn run(job: &Job<'_, &[f32]>) {
    debug_assert!(takes(job));
    // SAFETY: called at level AMX, and `takes` has seen the rest.
    unsafe { enter(job) }
}

/// # Safety
/// The processor has these features and AMX's BF16 products, and the system has granted tiles.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn enter(job: &Job<'_, &[f32]>) {
    // Not initialised: 140 KB of a thread with 2 MB, and no allocation in a step.
    let mut acts = MaybeUninit::<Acts>::uninit();
    let mut sums = MaybeUninit::<Sums>::uninit();
    // SAFETY: tiles are granted, and no other code of this thread uses them.
    unsafe { CONFIG.load() };
    let _release = Release;
    let groups = job.rows.start / ROW_GROUP..job.rows.end.div_ceil(ROW_GROUP);
    let mut t = 0;
    while t < job.tokens {
        let n = (job.tokens - t).min(2 * TOKENS);
        let mut first = 0;
        while first < job.cols {
            let len = (job.cols - first).min(PANEL);
            let part = Part { job, t, n, first, len };
            // SAFETY: tokens and inputs are the job's, groups the matrix's; the activations are rounded before they are used.
            unsafe {
                part.round(acts.as_mut_ptr());
                let mut group = groups.start;
                while group < groups.end {
                    let two = group + 1 < groups.end;
                    match (n > TOKENS, two) {
                        (false, false) => part.multiply::<1, 1>(group, acts.as_ptr(), sums.as_mut_ptr()),
                        (false, true) => part.multiply::<1, 2>(group, acts.as_ptr(), sums.as_mut_ptr()),
                        (true, false) => part.multiply::<2, 1>(group, acts.as_ptr(), sums.as_mut_ptr()),
                        (true, true) => part.multiply::<2, 2>(group, acts.as_ptr(), sums.as_mut_ptr()),
                    }
                    group += 1 + usize::from(two);
                }
            }
            first += len;
        }
        t += n;
    }
}

/// Up to 32 tokens and a panel of inputs.
struct Part<'a, 'b> {
    job: &'a Job<'b, &'b [f32]>,
    t: usize,
    n: usize,
    first: usize,
    len: usize,
}

impl Part<'_, '_> {
    /// Rounds the activations; tokens that a tile lacks become zeros.
    ///
    /// # Safety
    /// Tokens and inputs are the job's; the processor has AVX512-BF16.
    #[inline(always)]
    unsafe fn round(&self, acts: *mut Acts) {
        for i in 0..self.n.next_multiple_of(TOKENS) {
            // SAFETY: the row has room for a panel; the inputs are whole runs, 32 values each.
            unsafe {
                let to = addr_of_mut!((*acts).0[i]).cast::<u16>();
                for k in (0..self.len).step_by(RUN) {
                    let run = if i < self.n {
                        let from = self.job.acts.as_ptr().add((self.t + i) * self.job.cols + self.first + k);
                        // Numbers with a zero exponent become zeros, as `round_bf16` has it.
                        let rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(16)), _mm512_loadu_ps(from));
                        std::mem::transmute::<__m512bh, __m512i>(rounded)
                    } else {
                        _mm512_setzero_si512()
                    };
                    _mm512_store_si512(to.add(k).cast(), run);
                }
            }
        }
    }

    /// `A` tiles of tokens times `B` groups of rows from `group` on.
    ///
    /// # Safety
    /// Tiles are configured; the activations are rounded for `A` tiles; the groups are the matrix's, and have some of the job's rows.
    #[inline(always)]
    unsafe fn multiply<const A: usize, const B: usize>(&self, group: usize, acts: *const Acts, sums: *mut Sums) {
        let job = self.job;
        let mask = |b: usize| Owned::of(&job.rows, (group + b) * ROW_GROUP, ROW_GROUP).mask();
        let out =
            |i: usize, b: usize| job.out.ptr.wrapping_add((self.t + i) * job.out.stride + (group + b) * ROW_GROUP);
        // SAFETY: only owned rows of the job's tokens are read and written; sums and activations are this call's own memory.
        unsafe {
            let sum = |i: usize, b: usize| addr_of_mut!((*sums).0[i / TOKENS][b][i % TOKENS]).cast::<f32>();
            for b in 0..B {
                for i in 0..A * TOKENS {
                    let v = if self.first > 0 && i < self.n {
                        _mm512_maskz_loadu_ps(mask(b), out(i, b))
                    } else {
                        _mm512_setzero_ps()
                    };
                    _mm512_store_ps(sum(i, b), v);
                }
            }
            let weights = |b: usize| job.weight.group(group + b).planes.add(self.first / 2 * PLANE);
            let tokens = |a: usize| addr_of!((*acts).0[a * TOKENS]).cast::<u8>();
            let places = [weights(0), weights(B - 1), tokens(0), tokens(A - 1)];
            products::<A, B>(places, self.len / RUN, sums);
            let last = self.first + self.len == job.cols;
            for b in 0..B {
                let start = (group + b) * ROW_GROUP;
                let bias = match job.bias {
                    Some(bias) if last => Some(_mm512_maskz_loadu_ps(mask(b), bias.as_ptr().wrapping_add(start))),
                    _ => None,
                };
                for i in 0..self.n {
                    let mut v = _mm512_load_ps(sum(i, b));
                    if let Some(bias) = bias {
                        v = _mm512_add_ps(v, bias);
                    }
                    _mm512_mask_storeu_ps(out(i, b), mask(b), v);
                }
            }
        }
    }
}

/// Adds the products of `runs` runs to the sums: `A` tiles of tokens times `B` groups of rows. The weights of the runs to come
/// are asked for: with few tokens they stream from memory.
///
/// # Safety
/// Tiles are configured. `weights` (of the first and of the last group) have a tile for each run, `tokens` (of the first and of the
/// last tile) sixteen rows of [`Acts`].
#[inline(always)]
unsafe fn products<const A: usize, const B: usize>([w0, w1, t0, t1]: [*const u8; 4], runs: usize, sums: *mut Sums) {
    macro_rules! products {
        ($($load:literal),*; $($step:expr),*; $($store:literal),*) => {
            // SAFETY: as the caller promises; a prefetch touches nothing.
            unsafe {
                asm!(
                    $($load,)*
                    "2: /* prefetching, if at all, {ahead} bytes ahead */",
                    $($step,)*
                    "add {w0}, 1024",
                    "add {w1}, 1024",
                    "add {t0}, 64",
                    "add {t1}, 64",
                    "dec {runs}",
                    "jnz 2b",
                    $($store,)*
                    w0 = inout(reg) w0 => _,
                    w1 = inout(reg) w1 => _,
                    t0 = inout(reg) t0 => _,
                    t1 = inout(reg) t1 => _,
                    runs = inout(reg) runs => _,
                    sums = in(reg) sums,
                    line = in(reg) 64usize,
                    row = in(reg) 2 * (PANEL + RUN),
                    ahead = const AHEAD,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            }
        };
    }
    /// Asks for the sixteen cache lines of a tile.
    macro_rules! ahead {
        ($weights:literal) => {
            concat!(
                ".irp at, 0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960\n",
                "prefetcht0 [{",
                $weights,
                "} + {ahead} + \\at]\n",
                ".endr"
            )
        };
    }
    debug_assert!(runs > 0);
    // Sums lie `[tile of tokens][group]`, 1 KiB each.
    match (A, B) {
        (1, 1) => products!(
            "tileloadd tmm0, [{sums} + {line}]";
            ahead!("w0"),
            "tileloadd tmm4, [{t0} + {row}]", "tileloadd tmm6, [{w0} + {line}]", "tdpbf16ps tmm0, tmm4, tmm6";
            "tilestored [{sums} + {line}], tmm0"
        ),
        (1, _) => products!(
            "tileloadd tmm0, [{sums} + {line}]", "tileloadd tmm1, [{sums} + {line} + 1024]";
            ahead!("w0"),
            ahead!("w1"),
            "tileloadd tmm4, [{t0} + {row}]", "tileloadd tmm6, [{w0} + {line}]", "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {line}]", "tdpbf16ps tmm1, tmm4, tmm7";
            "tilestored [{sums} + {line}], tmm0", "tilestored [{sums} + {line} + 1024], tmm1"
        ),
        // From 17 tokens on weights are used often enough to come from the caches.
        (_, 1) => products!(
            "tileloadd tmm0, [{sums} + {line}]", "tileloadd tmm2, [{sums} + {line} + 2048]";
            "tileloadd tmm6, [{w0} + {line}]", "tileloadd tmm4, [{t0} + {row}]", "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{t1} + {row}]", "tdpbf16ps tmm2, tmm5, tmm6";
            "tilestored [{sums} + {line}], tmm0", "tilestored [{sums} + {line} + 2048], tmm2"
        ),
        _ => products!(
            "tileloadd tmm0, [{sums} + {line}]", "tileloadd tmm1, [{sums} + {line} + 1024]",
            "tileloadd tmm2, [{sums} + {line} + 2048]", "tileloadd tmm3, [{sums} + {line} + 3072]";
            "tileloadd tmm6, [{w0} + {line}]", "tileloadd tmm4, [{t0} + {row}]", "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {line}]", "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{t1} + {row}]", "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7";
            "tilestored [{sums} + {line}], tmm0", "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2", "tilestored [{sums} + {line} + 3072], tmm3"
        ),
    }
}
