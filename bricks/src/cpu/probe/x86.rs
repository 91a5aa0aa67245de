//! The probes in x86-64 intrinsics.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;
use std::hint::black_box;

use super::xor_words;

// Latency 4-5 cycles on two ports: ten independent chains keep both busy, and AVX2 has 16 registers.
const CHAINS: usize = 10;

/// Probes that repeat one instruction on independent chains: features, operands, what an accumulator begins with and becomes, and
/// the operations of an instruction.
macro_rules! probes {
    ($($name:ident: $features:literal, ($x:expr, $y:expr), |$acc:ident, $a:ident, $b:ident| $zero:expr => $step:expr, $ops:literal;)*) => {$(
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(iters: u64) -> u64 {
            let ($a, $b) = (black_box($x), black_box($y));
            let mut chains = [$zero; CHAINS];
            for _ in 0..iters {
                for chain in &mut chains {
                    let $acc = *chain;
                    *chain = $step;
                }
            }
            black_box(chains);
            iters * CHAINS as u64 * $ops
        }
    )*};
}

probes! {
    int8_avx512: "avx512f,avx512vnni", (_mm512_set1_epi8(3), _mm512_set1_epi8(-5)),
        |acc, a, b| _mm512_setzero_si512() => _mm512_dpbusd_epi32(acc, a, b), 128;
    int8_avx_vnni: "avx2,avxvnni", (_mm256_set1_epi8(3), _mm256_set1_epi8(-5)),
        |acc, a, b| _mm256_setzero_si256() => _mm256_dpbusd_avx_epi32(acc, a, b), 64;
    f32_avx512: "avx512f", (_mm512_set1_ps(0.5), _mm512_set1_ps(1.5)),
        |acc, a, b| _mm512_setzero_ps() => _mm512_fmadd_ps(acc, a, b), 32;
    f32_avx2: "avx2,fma", (_mm256_set1_ps(0.5), _mm256_set1_ps(1.5)),
        |acc, a, b| _mm256_setzero_ps() => _mm256_fmadd_ps(acc, a, b), 16;
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn int8_avx2(iters: u64) -> u64 {
    let (codes, acts) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(-5)));
    // As the kernels for 4-bit codes do: eight products are summed in 16 bits, then widened.
    let (ones, mut acc) = (_mm256_set1_epi16(1), [_mm256_setzero_si256(); CHAINS / 2]);
    for _ in 0..iters {
        for a in &mut acc {
            let mut sum = _mm256_setzero_si256();
            for _ in 0..8 {
                sum = _mm256_add_epi16(sum, black_box_product(codes, acts));
            }
            *a = _mm256_add_epi32(*a, _mm256_madd_epi16(sum, ones));
        }
    }
    black_box(acc);
    iters * (CHAINS as u64 / 2) * 8 * 64
}

/// One `vpmaddubsw` the optimiser cannot hoist or merge with its equals.
#[target_feature(enable = "avx2")]
fn black_box_product(codes: __m256i, acts: __m256i) -> __m256i {
    let product: __m256i;
    // SAFETY: pure register arithmetic; AVX2 is enabled for this function.
    unsafe {
        std::arch::asm!("vpmaddubsw {p}, {c}, {a}", p = lateout(ymm_reg) product, c = in(ymm_reg) codes,
            a = in(ymm_reg) acts, options(nomem, nostack, preserves_flags));
    }
    product
}

#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn bf16_avx512(iters: u64) -> u64 {
    // SAFETY: both are 512 plain bits.
    let (x, y) = unsafe {
        // 0.5 and 1.5 as bf16, twice each.
        (
            std::mem::transmute::<__m512i, __m512bh>(black_box(_mm512_set1_epi16(0x3f00))),
            std::mem::transmute::<__m512i, __m512bh>(black_box(_mm512_set1_epi16(0x3fc0))),
        )
    };
    let mut acc = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..iters {
        for a in &mut acc {
            *a = _mm512_dpbf16_ps(*a, x, y);
        }
    }
    black_box(acc);
    iters * CHAINS as u64 * 64
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn read_avx512(data: &[u8]) -> u64 {
    let (lines, tail) = data.as_chunks::<256>();
    let mut acc = [_mm512_setzero_si512(); 4];
    for line in lines {
        for (i, a) in acc.iter_mut().enumerate() {
            // SAFETY: `line` has 256 bytes and `i < 4`; the load needs no alignment.
            let v = unsafe { _mm512_loadu_si512(line.as_ptr().add(64 * i).cast()) };
            *a = _mm512_xor_si512(*a, v);
        }
    }
    let all = _mm512_xor_si512(_mm512_xor_si512(acc[0], acc[1]), _mm512_xor_si512(acc[2], acc[3]));
    let mut words = [0u64; 8];
    // SAFETY: eight words are 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), all) };
    words.iter().fold(xor_words(tail), |sum, &w| sum ^ u64::from_le(w))
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn read_avx2(data: &[u8]) -> u64 {
    let (lines, tail) = data.as_chunks::<128>();
    let mut acc = [_mm256_setzero_si256(); 4];
    for line in lines {
        for (i, a) in acc.iter_mut().enumerate() {
            // SAFETY: `line` has 128 bytes and `i < 4`; the load needs no alignment.
            let v = unsafe { _mm256_loadu_si256(line.as_ptr().add(32 * i).cast()) };
            *a = _mm256_xor_si256(*a, v);
        }
    }
    let all = _mm256_xor_si256(_mm256_xor_si256(acc[0], acc[1]), _mm256_xor_si256(acc[2], acc[3]));
    let mut words = [0u64; 4];
    // SAFETY: four words are 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), all) };
    words.iter().fold(xor_words(tail), |sum, &w| sum ^ u64::from_le(w))
}
