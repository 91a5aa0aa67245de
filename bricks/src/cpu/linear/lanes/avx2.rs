//! Eight rows in AVX2 registers; dot products by AVX-VNNI, or by `vpmaddubsw`, whose 16-bit sums saturate, and how
//! that is kept from happening.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use super::{MAGIC, Owned, RowLanes};
use crate::cpu::linear::format::Coding;
use crate::cpu::simd::Avx2;

const ROWS: usize = 8;

/// Lanes `owned` as a mask for `vmaskmov`.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn mask(owned: Owned) -> __m256i {
    debug_assert!(owned.first <= owned.end && owned.end <= ROWS);
    // SAFETY: arithmetic on registers; the caller promises the instructions.
    unsafe {
        let lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
        _mm256_andnot_si256(
            _mm256_cmpgt_epi32(_mm256_set1_epi32(owned.first as i32), lane),
            _mm256_cmpgt_epi32(_mm256_set1_epi32(owned.end as i32), lane),
        )
    }
}

/// Methods that are one expression of intrinsics on registers.
macro_rules! registers {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $out {
            // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
            unsafe { $body }
        }
    )*};
}

impl<const VNNI: bool> RowLanes for Avx2<VNNI> {
    const ROWS: usize = ROWS;
    const REGISTERS: usize = 16;
    type U = __m256i;
    type R = __m256;

    registers! {
        fn splat_u(bits: u32) -> __m256i = _mm256_set1_epi32(bits as i32);
        fn and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        fn or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        fn shl(a: __m256i, bits: u32) -> __m256i = _mm256_sllv_epi32(a, _mm256_set1_epi32(bits as i32));
        fn shr(a: __m256i, bits: u32) -> __m256i = _mm256_srlv_epi32(a, _mm256_set1_epi32(bits as i32));
        fn sar(a: __m256i, bits: u32) -> __m256i = _mm256_srav_epi32(a, _mm256_set1_epi32(bits as i32));
        fn add_i(a: __m256i, x: i32) -> __m256i = _mm256_add_epi32(a, _mm256_set1_epi32(x));
        fn splat_r(x: f32) -> __m256 = _mm256_set1_ps(x);
        fn as_r(a: __m256i) -> __m256 = _mm256_castsi256_ps(a);
        fn to_r(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        fn mul_r(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fn fma_r(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn add_r(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        fn weigh(start: __m256i, pairs: __m256i, w0: i16, w1: i16) -> __m256i =
            _mm256_add_epi32(start, _mm256_madd_epi16(pairs, _mm256_set1_epi32(pair([w0, w1]))));
    }

    #[inline(always)]
    unsafe fn load_u(self, src: *const u8) -> __m256i {
        // SAFETY: the caller promises 32 bytes; the load needs no alignment.
        unsafe { _mm256_loadu_si256(src.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f16s(self, src: *const u8) -> __m256 {
        // SAFETY: the caller promises 16 bytes; the load needs no alignment.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(src.cast())) }
    }

    #[inline(always)]
    unsafe fn load_u16s(self, src: *const u8) -> __m256i {
        // SAFETY: the caller promises 16 bytes; the load needs no alignment.
        unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(src.cast())) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch of any address is a hint without effect on memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], bytes: __m256i) -> __m256i {
        // SAFETY: the table is 16 bytes; the load needs no alignment; the rest is arithmetic on registers.
        unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), bytes) }
    }

    #[inline(always)]
    unsafe fn load_r(self, src: *const f32, owned: Owned) -> __m256 {
        // SAFETY: only lanes in `owned` are read, which the caller promises to be readable.
        unsafe { _mm256_maskload_ps(src, mask(owned)) }
    }

    #[inline(always)]
    unsafe fn store_r(self, v: __m256, dst: *mut f32, owned: Owned) {
        // SAFETY: only lanes in `owned` are written, which the caller promises to be writable and exclusive.
        unsafe { _mm256_maskstore_ps(dst, mask(owned), v) }
    }

    #[inline(always)]
    unsafe fn dots<C: Coding, const N: usize>(
        self,
        codes: &[__m256i; 8],
        acts: [*const i8; N],
        start: [[__m256i; 2]; N],
    ) -> [[__m256i; 2]; N] {
        let mut sums = start;
        if VNNI {
            // Token by token within a quad: neighbouring instructions are independent of each other.
            for (q, codes) in codes.iter().enumerate() {
                for (sums, acts) in sums.iter_mut().zip(acts) {
                    let half = usize::from(C::SUBS == 2 && q >= 4);
                    // SAFETY: the caller promises 32 activations; the token that there is the instruction.
                    sums[half] = unsafe { _mm256_dpbusd_avx_epi32(sums[half], *codes, broadcast(acts, q)) };
                }
            }
            return sums;
        }
        for (sums, acts) in sums.iter_mut().zip(acts) {
            // SAFETY: the caller promises this token's activations.
            *sums = unsafe { dot::<C>(codes, acts, *sums) };
        }
        sums
    }
}

/// One token of [`RowLanes::dots`].
///
/// # Safety
/// 32 activations are readable from `acts` on.
#[inline(always)]
unsafe fn dot<C: Coding>(codes: &[__m256i; 8], acts: *const i8, start: [__m256i; 2]) -> [__m256i; 2] {
    // SAFETY: the caller promises 32 activations; the loads need no alignment; the caller has the instructions.
    unsafe {
        let mut sums = if C::SUBS == 2 {
            [sum_of_quads::<C>(codes, acts, 0, 4), sum_of_quads::<C>(codes, acts, 4, 8)]
        } else {
            [sum_of_quads::<C>(codes, acts, 0, 8), _mm256_setzero_si256()]
        };
        if C::MAX > SMALL {
            // Codes of 8 bits were made signed: what the start begins with has been subtracted.
            sums[0] = _mm256_add_epi32(sums[0], _mm256_set1_epi32(MAGIC.to_bits() as i32));
            return sums;
        }
        sums[0] = _mm256_add_epi32(sums[0], start[0]);
        if C::OFFSET != 0 && C::SUBS == 2 {
            sums[1] = _mm256_add_epi32(sums[1], start[1]);
        }
        sums
    }
}

/// Largest code whose pair of products with activations (at most 127) fits in 16 bits at least twice.
const SMALL: u8 = 63;

/// `Σ code · activation` over quads `first..end`; `Σ (code − 128) · activation` for 8-bit codes.
///
/// # Safety
/// The processor has AVX2; 32 activations are readable from `acts` on; `end <= 8`.
#[inline(always)]
unsafe fn sum_of_quads<C: Coding>(codes: &[__m256i; 8], acts: *const i8, first: usize, end: usize) -> __m256i {
    debug_assert!(C::MAX <= SMALL || C::OFFSET == 128);
    // SAFETY: quads below 8 are within 32 activations; the loads need no alignment; the rest is arithmetic on registers.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut total = _mm256_setzero_si256();
        if C::MAX > SMALL {
            // |w| · (a with the sign of w): two products of at most 128 · 127 fit in 16 bits, once.
            for (q, codes) in codes.iter().enumerate().take(end).skip(first) {
                let w = _mm256_xor_si256(*codes, _mm256_set1_epi8(-128));
                let products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(broadcast(acts, q), w));
                total = _mm256_add_epi32(total, _mm256_madd_epi16(products, ones));
            }
            return total;
        }
        // Pairs of products that can be added in 16 bits before widening: 8 for 4-bit codes, 4 for 5 bits, 2 for 6 bits.
        let run = 32767 / (2 * 127 * C::MAX as usize);
        debug_assert!(run >= 2);
        let mut q = first;
        while q < end {
            let stop = if q + run < end { q + run } else { end };
            let mut sum = _mm256_maddubs_epi16(codes[q], broadcast(acts, q));
            #[allow(clippy::needless_range_loop)] // the compiler unrolls this form only, and that is half of the speed
            for q in q + 1..stop {
                sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes[q], broadcast(acts, q)));
            }
            total = _mm256_add_epi32(total, _mm256_madd_epi16(sum, ones));
            q = stop;
        }
        total
    }
}

/// Activations `4 q .. 4 q + 4` in every lane.
///
/// # Safety
/// The processor has AVX2; these activations are readable.
#[inline(always)]
unsafe fn broadcast(acts: *const i8, q: usize) -> __m256i {
    // SAFETY: as the caller promises; the load needs no alignment.
    unsafe { _mm256_set1_epi32(i32::from_le_bytes(*acts.add(4 * q).cast::<[u8; 4]>())) }
}

/// Two 16-bit numbers in 32 bits.
#[inline(always)]
pub(super) fn pair([low, high]: [i16; 2]) -> i32 {
    i32::from(low) & 0xffff | i32::from(high) << 16
}
