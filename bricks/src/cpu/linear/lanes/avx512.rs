//! Sixteen rows in AVX-512 registers; dot products by VNNI.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use super::avx2::pair;
use super::{Owned, RowLanes};
use crate::cpu::linear::format::Coding;
use crate::cpu::simd::Avx512;

const ROWS: usize = 16;

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
    const REGISTERS: usize = 32;
    type U = __m512i;
    type R = __m512;

    registers! {
        fn splat_u(bits: u32) -> __m512i = _mm512_set1_epi32(bits as i32);
        fn and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn shl(a: __m512i, bits: u32) -> __m512i = _mm512_sllv_epi32(a, _mm512_set1_epi32(bits as i32));
        fn shr(a: __m512i, bits: u32) -> __m512i = _mm512_srlv_epi32(a, _mm512_set1_epi32(bits as i32));
        fn sar(a: __m512i, bits: u32) -> __m512i = _mm512_srav_epi32(a, _mm512_set1_epi32(bits as i32));
        fn add_i(a: __m512i, x: i32) -> __m512i = _mm512_add_epi32(a, _mm512_set1_epi32(x));
        fn splat_r(x: f32) -> __m512 = _mm512_set1_ps(x);
        fn as_r(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        fn to_r(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        fn mul_r(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn fma_r(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn add_r(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn weigh(start: __m512i, pairs: __m512i, w0: i16, w1: i16) -> __m512i =
            _mm512_dpwssd_epi32(start, pairs, _mm512_set1_epi32(pair([w0, w1])));
    }

    #[inline(always)]
    unsafe fn load_u(self, src: *const u8) -> __m512i {
        // SAFETY: the caller promises 64 bytes; the load needs no alignment.
        unsafe { _mm512_loadu_si512(src.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f16s(self, src: *const u8) -> __m512 {
        // SAFETY: the caller promises 32 bytes; the load needs no alignment.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(src.cast())) }
    }

    #[inline(always)]
    unsafe fn load_u16s(self, src: *const u8) -> __m512i {
        // SAFETY: the caller promises 32 bytes; the load needs no alignment.
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(src.cast())) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch of any address is a hint without effect on memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], bytes: __m512i) -> __m512i {
        // SAFETY: the table is 16 bytes; the load needs no alignment; the rest is arithmetic on registers.
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), bytes) }
    }

    #[inline(always)]
    unsafe fn load_r(self, src: *const f32, owned: Owned) -> __m512 {
        // SAFETY: only lanes in `owned` are read, which the caller promises to be readable.
        unsafe { _mm512_maskz_loadu_ps(owned.mask(), src) }
    }

    #[inline(always)]
    unsafe fn store_r(self, v: __m512, dst: *mut f32, owned: Owned) {
        // SAFETY: only lanes in `owned` are written, which the caller promises to be writable and exclusive.
        unsafe { _mm512_mask_storeu_ps(dst, owned.mask(), v) }
    }

    #[inline(always)]
    unsafe fn dots<C: Coding, const N: usize>(
        self,
        codes: &[__m512i; 8],
        acts: [*const i8; N],
        start: [[__m512i; 2]; N],
    ) -> [[__m512i; 2]; N] {
        // SAFETY: the caller promises 32 activations; the loads need no alignment. Codes are unsigned, activations signed.
        unsafe {
            // Token by token within a quad: neighbouring instructions are independent of each other.
            let mut sums = start;
            for (q, codes) in codes.iter().enumerate() {
                for (sums, acts) in sums.iter_mut().zip(acts) {
                    let half = usize::from(C::SUBS == 2 && q >= 4);
                    sums[half] = _mm512_dpbusd_epi32(sums[half], *codes, broadcast(acts, q));
                }
            }
            sums
        }
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
