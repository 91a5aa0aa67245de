//! Sixteen lanes in one AVX-512 register.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use half::f16;

use super::{Kernel, LANES, Vector};

/// Token of AVX-512: exists only where the processor has the features of [`enter`].
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor has the features of [`enter`], and so has the calling function.
    #[inline(always)]
    pub(in super::super) unsafe fn new() -> Self {
        Self(())
    }
}

/// Runs a kernel with AVX-512.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
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

impl Vector for Avx512 {
    const WIDE: bool = true;
    type F = __m512;
    type I = __m512i;

    registers! {
        fn splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        fn add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn select_lt(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x);
        fn round(a: __m512) -> __m512 = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        fn exp2_int(n: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(
            _mm512_cvtps_epi32(n),
            _mm512_set1_epi32(127),
        )));
        // Not less than, or unordered: a NaN stays one.
        fn mul_exp2_int(p: __m512, n: __m512) -> __m512 =
            _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(n, _mm512_set1_ps(-125.0)), p, n);
        fn abs(a: __m512) -> __m512 = _mm512_abs_ps(a);
        fn negate_even(a: __m512) -> __m512 = _mm512_xor_ps(
            a,
            _mm512_castsi512_ps(_mm512_set1_epi64(0x8000_0000)),
        );
        fn swap_pairs(a: __m512) -> __m512 = _mm512_permute_ps::<0b10_11_00_01>(a);
        fn magnitude(a: __m512) -> __m512i = _mm512_castps_si512(_mm512_abs_ps(a));
        fn max_i(a: __m512i, b: __m512i) -> __m512i = _mm512_max_epi32(a, b);
        fn max_lane(a: __m512) -> f32 = _mm512_reduce_max_ps(a);
        fn max_lane_i(a: __m512i) -> i32 = _mm512_reduce_max_epi32(a);
        fn sum_i(a: __m512i) -> i32 = _mm512_reduce_add_epi32(a);
        fn to_i(a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> __m512 {
        // SAFETY: 64 bytes are behind the reference; the load needs no alignment.
        unsafe { _mm512_loadu_ps(src.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m512, dst: &mut [f32; LANES]) {
        // SAFETY: 64 bytes are behind the reference; the store needs no alignment.
        unsafe { _mm512_storeu_ps(dst.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load_f16_bytes(self, src: &[u8; 32]) -> __m512 {
        // SAFETY: 32 bytes are behind the reference; the load needs no alignment.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(src.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_i8_bytes(self, src: &[u8; 16]) -> __m512 {
        // SAFETY: 16 bytes are behind the reference; the load needs no alignment.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(src.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn store_f16(self, v: __m512, dst: &mut [f16; LANES]) {
        // SAFETY: 32 bytes are behind the reference; the store needs no alignment.
        unsafe { _mm256_storeu_si256(dst.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    fn load_twice(self, src: &[f32; LANES / 2]) -> __m512 {
        // SAFETY: 32 bytes are behind the reference; the load needs no alignment.
        unsafe {
            let wide = _mm512_castps256_ps512(_mm256_loadu_ps(src.as_ptr()));
            let twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
            _mm512_permutexvar_ps(twice, wide)
        }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { super::avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a))) }
    }

    #[inline(always)]
    fn store_i8(self, v: __m512i, dst: &mut [i8; LANES]) {
        // SAFETY: 16 bytes are behind the reference; the store needs no alignment.
        unsafe { _mm_storeu_si128(dst.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(v)) }
    }
}
