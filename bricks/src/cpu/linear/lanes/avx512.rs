//! Sixteen rows in AVX-512 registers; dot products by VNNI.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use super::avx2::{four_dwords, pair};
use super::{Owned, RowLanes, RowsAt};
use crate::cpu::linear::format::Format;
use crate::cpu::simd::Avx512;

const ROWS: usize = 16;

/// Lanes `owned` as a mask.
#[inline(always)]
fn mask(owned: Owned) -> __mmask16 {
    debug_assert!(owned.first <= owned.end && owned.end <= ROWS);
    (((1u32 << owned.end) - 1) & !((1u32 << owned.first) - 1)) as __mmask16
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

impl RowLanes for Avx512 {
    const ROWS: usize = ROWS;
    type U = __m512i;
    type R = __m512;

    registers! {
        fn splat_u(bits: u32) -> __m512i = _mm512_set1_epi32(bits as i32);
        fn and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn xor(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        fn shl(a: __m512i, bits: u32) -> __m512i = _mm512_sll_epi32(a, _mm_cvtsi32_si128(bits as i32));
        fn shr(a: __m512i, bits: u32) -> __m512i = _mm512_srl_epi32(a, _mm_cvtsi32_si128(bits as i32));
        fn sar(a: __m512i, bits: u32) -> __m512i = _mm512_sra_epi32(a, _mm_cvtsi32_si128(bits as i32));
        fn add_i(a: __m512i, x: i32) -> __m512i = _mm512_add_epi32(a, _mm512_set1_epi32(x));
        fn splat_r(x: f32) -> __m512 = _mm512_set1_ps(x);
        fn f16_low(a: __m512i) -> __m512 = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a));
        fn to_r(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        fn mul_r(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn fma_r(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn add_r(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn weigh_sums(sums: [i16; 2], w0: i16, w1: i16) -> __m512i = _mm512_dpwssd_epi32(
            _mm512_setzero_si512(),
            _mm512_set1_epi32(pair(sums)),
            _mm512_set1_epi32(pair([w0, w1])),
        );
    }

    #[inline(always)]
    unsafe fn load_quad(self, rows: RowsAt) -> __m512i {
        // SAFETY: the caller promises four bytes per row; the loads need no alignment.
        unsafe {
            let v = _mm512_castsi128_si512(four_dwords(rows, 0));
            let v = _mm512_inserti32x4::<1>(v, four_dwords(rows, 4));
            let v = _mm512_inserti32x4::<2>(v, four_dwords(rows, 8));
            _mm512_inserti32x4::<3>(v, four_dwords(rows, 12))
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: prefetching never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn load_4_quads(self, rows: RowsAt) -> [__m512i; 4] {
        // SAFETY: the caller promises 16 bytes per row; the loads need no alignment.
        unsafe {
            // Transposing 4 × 4 within the quarters of the registers gives row order.
            let (a, b) = (every_fourth_row(rows, 0), every_fourth_row(rows, 1));
            let (c, d) = (every_fourth_row(rows, 2), every_fourth_row(rows, 3));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], bytes: __m512i) -> __m512i {
        // SAFETY: the table is 16 bytes; the load needs no alignment; the rest is arithmetic on registers.
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), bytes) }
    }

    #[inline(always)]
    fn spread_bits(self, bits: __m512i, quad: usize) -> __m512i {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe {
            // Byte `quad / 2` of each lane to all four of its bytes; then one bit of it for each byte.
            let byte = (quad / 2) as i32 * 0x0101_0101;
            let from = _mm_add_epi32(_mm_set1_epi32(byte), _mm_set_epi32(0x0c0c_0c0c, 0x0808_0808, 0x0404_0404, 0));
            let spread = _mm512_shuffle_epi8(bits, _mm512_broadcast_i32x4(from));
            let bit = if quad.is_multiple_of(2) { 0x0804_0201u32 } else { 0x8040_2010 };
            let set = _mm512_test_epi8_mask(spread, _mm512_set1_epi32(bit as i32));
            _mm512_maskz_set1_epi8(set, 16)
        }
    }

    #[inline(always)]
    unsafe fn load_r(self, src: *const f32, owned: Owned) -> __m512 {
        // SAFETY: only lanes in `owned` are read, which the caller promises to be readable.
        unsafe { _mm512_maskz_loadu_ps(mask(owned), src) }
    }

    #[inline(always)]
    unsafe fn store_r(self, v: __m512, dst: *mut f32, owned: Owned) {
        // SAFETY: only lanes in `owned` are written, which the caller promises to be writable and exclusive.
        unsafe { _mm512_mask_storeu_ps(dst, mask(owned), v) }
    }

    #[inline(always)]
    unsafe fn dot<F: Format>(self, codes: &[__m512i; 8], acts: *const i8, sums: [i16; 2]) -> [__m512i; 2] {
        // SAFETY: the caller promises 32 activations; the loads need no alignment. Codes are unsigned, activations signed.
        unsafe {
            let (mut a, mut b) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            if F::SUBS == 2 {
                if F::OFFSET != 0 {
                    a = self.weigh_sums(sums, -F::OFFSET, 0);
                    b = self.weigh_sums(sums, 0, -F::OFFSET);
                }
                for q in 0..4 {
                    a = _mm512_dpbusd_epi32(a, codes[q], broadcast(acts, q));
                    b = _mm512_dpbusd_epi32(b, codes[q + 4], broadcast(acts, q + 4));
                }
            } else {
                if F::OFFSET != 0 {
                    a = self.weigh_sums(sums, -F::OFFSET, -F::OFFSET);
                }
                for (q, codes) in codes.iter().enumerate() {
                    a = _mm512_dpbusd_epi32(a, *codes, broadcast(acts, q));
                }
            }
            [a, b]
        }
    }
}

/// Sixteen bytes each of rows `first`, `first + 4`, `first + 8`, `first + 12`, in the quarters of a register.
///
/// # Safety
/// The processor has AVX-512 F; sixteen bytes are readable from the address of each of these rows on.
#[inline(always)]
unsafe fn every_fourth_row(rows: RowsAt, first: usize) -> __m512i {
    // SAFETY: as the caller promises; the loads need no alignment.
    unsafe {
        let at = rows.base.add(first * rows.stride);
        let v = _mm512_castsi128_si512(_mm_loadu_si128(at.cast()));
        let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(at.add(4 * rows.stride).cast()));
        let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(at.add(8 * rows.stride).cast()));
        _mm512_inserti32x4::<3>(v, _mm_loadu_si128(at.add(12 * rows.stride).cast()))
    }
}

/// Activations `4 q .. 4 q + 4` in every lane.
///
/// # Safety
/// The processor has AVX-512 F; these activations are readable.
#[inline(always)]
unsafe fn broadcast(acts: *const i8, q: usize) -> __m512i {
    // SAFETY: as the caller promises; the load needs no alignment.
    unsafe { _mm512_set1_epi32(i32::from_le_bytes(*acts.add(4 * q).cast::<[u8; 4]>())) }
}
