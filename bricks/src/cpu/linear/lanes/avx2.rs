//! Eight rows in AVX2 registers; dot products by `vpmaddubsw`, whose 16-bit sums saturate, and how that is kept from happening.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use super::{Owned, RowLanes, RowsAt};
use crate::cpu::linear::format::Format;
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

impl RowLanes for Avx2 {
    const ROWS: usize = ROWS;
    type U = __m256i;
    type R = __m256;

    registers! {
        fn splat_u(bits: u32) -> __m256i = _mm256_set1_epi32(bits as i32);
        fn and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        fn or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        fn xor(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        fn shl(a: __m256i, bits: u32) -> __m256i = _mm256_sll_epi32(a, _mm_cvtsi32_si128(bits as i32));
        fn shr(a: __m256i, bits: u32) -> __m256i = _mm256_srl_epi32(a, _mm_cvtsi32_si128(bits as i32));
        fn sar(a: __m256i, bits: u32) -> __m256i = _mm256_sra_epi32(a, _mm_cvtsi32_si128(bits as i32));
        fn add_i(a: __m256i, x: i32) -> __m256i = _mm256_add_epi32(a, _mm256_set1_epi32(x));
        fn splat_r(x: f32) -> __m256 = _mm256_set1_ps(x);
        fn to_r(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        fn mul_r(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fn fma_r(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn add_r(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        fn weigh_sums(sums: [i16; 2], w0: i16, w1: i16) -> __m256i =
            _mm256_madd_epi16(_mm256_set1_epi32(pair(sums)), _mm256_set1_epi32(pair([w0, w1])));
    }

    #[inline(always)]
    fn f16_low(self, a: __m256i) -> __m256 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe {
            let low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
            _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low)))
        }
    }

    #[inline(always)]
    unsafe fn load_quad(self, rows: RowsAt) -> __m256i {
        // SAFETY: the caller promises four bytes per row; the loads need no alignment.
        unsafe { _mm256_set_m128i(four_dwords(rows, 4), four_dwords(rows, 0)) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: prefetching never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn load_4_quads(self, rows: RowsAt) -> [__m256i; 4] {
        // SAFETY: the caller promises 16 bytes per row; the loads need no alignment.
        unsafe {
            // Transposing 4 × 4 within the halves of the registers gives row order.
            let (a, b) = (every_fourth_row(rows, 0), every_fourth_row(rows, 1));
            let (c, d) = (every_fourth_row(rows, 2), every_fourth_row(rows, 3));
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], bytes: __m256i) -> __m256i {
        // SAFETY: the table is 16 bytes; the load needs no alignment; the rest is arithmetic on registers.
        unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), bytes) }
    }

    #[inline(always)]
    fn spread_bits(self, bits: __m256i, quad: usize) -> __m256i {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe {
            // Byte `quad / 2` of each lane to all four of its bytes; then one bit of it for each byte.
            let byte = (quad / 2) as i32 * 0x0101_0101;
            let from = _mm_add_epi32(_mm_set1_epi32(byte), _mm_set_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0));
            let spread = _mm256_shuffle_epi8(bits, _mm256_broadcastsi128_si256(from));
            let bit = _mm256_set1_epi32(if quad.is_multiple_of(2) { 0x0804_0201u32 } else { 0x8040_2010 } as i32);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
            _mm256_and_si256(set, _mm256_set1_epi8(16))
        }
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
    unsafe fn dot<F: Format>(self, codes: &[__m256i; 8], acts: *const i8, sums: [i16; 2]) -> [__m256i; 2] {
        // SAFETY: the caller promises 32 activations; the loads need no alignment; `self` proves the instructions.
        unsafe {
            if F::SUBS == 2 {
                let mut a = sum_of_quads::<F>(codes, acts, 0, 4);
                let mut b = sum_of_quads::<F>(codes, acts, 4, 8);
                if F::OFFSET != 0 && F::MAX <= SMALL {
                    a = _mm256_sub_epi32(a, self.weigh_sums(sums, F::OFFSET, 0));
                    b = _mm256_sub_epi32(b, self.weigh_sums(sums, 0, F::OFFSET));
                }
                [a, b]
            } else {
                let mut a = sum_of_quads::<F>(codes, acts, 0, 8);
                if F::OFFSET != 0 && F::MAX <= SMALL {
                    a = _mm256_sub_epi32(a, self.weigh_sums(sums, F::OFFSET, F::OFFSET));
                }
                [a, _mm256_setzero_si256()]
            }
        }
    }
}

/// Largest code whose pair of products with activations (at most 127) fits in 16 bits at least twice.
const SMALL: u8 = 63;

/// `Σ code · activation` over quads `first..end`; `Σ (code − 128) · activation` for 8-bit codes.
///
/// # Safety
/// The processor has AVX2; 32 activations are readable from `acts` on; `end <= 8`.
#[inline(always)]
unsafe fn sum_of_quads<F: Format>(codes: &[__m256i; 8], acts: *const i8, first: usize, end: usize) -> __m256i {
    debug_assert!(F::MAX <= SMALL || F::OFFSET == 128);
    // SAFETY: quads below 8 are within 32 activations; the loads need no alignment; the rest is arithmetic on registers.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut total = _mm256_setzero_si256();
        if F::MAX > SMALL {
            // |w| · (a with the sign of w): two products of at most 128 · 127 fit in 16 bits, once.
            for (q, codes) in codes.iter().enumerate().take(end).skip(first) {
                let w = _mm256_xor_si256(*codes, _mm256_set1_epi8(-128));
                let products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(broadcast(acts, q), w));
                total = _mm256_add_epi32(total, _mm256_madd_epi16(products, ones));
            }
            return total;
        }
        // Pairs of products that can be added in 16 bits before widening: 8 for 4-bit codes, 4 for 5 bits, 2 for 6 bits.
        let run = 32767 / (2 * 127 * F::MAX as usize);
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

/// Sixteen bytes each of rows `first` and `first + 4`, in the halves of a register.
///
/// # Safety
/// The processor has AVX2; sixteen bytes are readable from the address of both rows on.
#[inline(always)]
unsafe fn every_fourth_row(rows: RowsAt, first: usize) -> __m256i {
    // SAFETY: as the caller promises; the loads need no alignment.
    unsafe {
        let at = rows.base.add(first * rows.stride);
        _mm256_set_m128i(_mm_loadu_si128(at.add(4 * rows.stride).cast()), _mm_loadu_si128(at.cast()))
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

/// Four bytes each of rows `first..first + 4`.
///
/// # Safety
/// The processor has SSE4.1; four bytes are readable from the address of each of these rows on.
#[inline(always)]
pub(super) unsafe fn four_dwords(rows: RowsAt, first: usize) -> __m128i {
    // SAFETY: as the caller promises; the loads need no alignment.
    unsafe {
        let at = rows.base.add(first * rows.stride).cast::<[u8; 4]>();
        let a = i32::from_le_bytes(*at);
        let b = i32::from_le_bytes(*at.byte_add(rows.stride));
        let c = i32::from_le_bytes(*at.byte_add(2 * rows.stride));
        let d = i32::from_le_bytes(*at.byte_add(3 * rows.stride));
        _mm_set_epi32(d, c, b, a)
    }
}

/// Two 16-bit numbers in 32 bits.
#[inline(always)]
pub(super) fn pair([low, high]: [i16; 2]) -> i32 {
    i32::from(low) & 0xffff | i32::from(high) << 16
}
