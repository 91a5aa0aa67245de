//! Sixteen lanes in two AVX registers.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use half::f16;

use super::{Kernel, LANES, Vector};

/// Token of AVX2 with FMA and F16C, and of AVX-VNNI if `VNNI`: exists only where the processor has the features of [`enter`] or
/// [`enter_vnni`].
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2<const VNNI: bool>(());

/// Runs a kernel with AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<false>(()))
}

/// Runs a kernel with AVX2 and AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(super) fn enter_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<true>(()))
}

type F = [__m256; 2];
type I = [__m256i; 2];

/// Methods that do one expression of intrinsics to each half.
macro_rules! halves {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $out {
            // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
            unsafe {
                let low = { $(let $arg = $arg[0];)* $body };
                let high = { $(let $arg = $arg[1];)* $body };
                [low, high]
            }
        }
    )*};
}

/// Sum of eight lanes: `i` with `i + 4`, then with `i + 2`, `i + 1`.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(super) unsafe fn sum(a: __m256) -> f32 {
    // SAFETY: arithmetic on registers; the caller promises the instructions.
    unsafe {
        let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
    }
}

/// Combines eight i32 lanes in a tree.
macro_rules! reduce_i {
    ($a:expr, $op:ident) => {{
        let a = $op(_mm256_castsi256_si128($a), _mm256_extracti128_si256::<1>($a));
        let a = $op(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
        _mm_cvtsi128_si32($op(a, _mm_shuffle_epi32::<0b10_11_00_01>(a)))
    }};
}

impl<const VNNI: bool> Vector for Avx2<VNNI> {
    const WIDE: bool = false;
    type F = F;
    type I = I;

    halves! {
        fn add(a: F, b: F) -> F = _mm256_add_ps(a, b);
        fn sub(a: F, b: F) -> F = _mm256_sub_ps(a, b);
        fn mul(a: F, b: F) -> F = _mm256_mul_ps(a, b);
        fn div(a: F, b: F) -> F = _mm256_div_ps(a, b);
        fn fma(a: F, b: F, c: F) -> F = _mm256_fmadd_ps(a, b, c);
        fn max(a: F, b: F) -> F = _mm256_max_ps(a, b);
        fn select_lt(a: F, b: F, x: F, y: F) -> F = _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
        fn round(a: F) -> F = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        fn exp2_int(n: F) -> F = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
            _mm256_cvtps_epi32(n),
            _mm256_set1_epi32(127),
        )));
        fn abs(a: F) -> F = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
        fn negate_even(a: F) -> F = _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi64x(0x8000_0000)));
        fn swap_pairs(a: F) -> F = _mm256_permute_ps::<0b10_11_00_01>(a);
        fn magnitude(a: F) -> I = _mm256_castps_si256(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a));
        fn max_i(a: I, b: I) -> I = _mm256_max_epi32(a, b);
        fn to_i(a: F) -> I = _mm256_cvtps_epi32(a);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> F {
        // SAFETY: 64 bytes are behind the reference; the loads need no alignment.
        unsafe { [_mm256_loadu_ps(src.as_ptr()), _mm256_loadu_ps(src.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, v: F, dst: &mut [f32; LANES]) {
        // SAFETY: 64 bytes are behind the reference; the stores need no alignment.
        unsafe {
            _mm256_storeu_ps(dst.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(dst.as_mut_ptr().add(8), v[1]);
        }
    }

    #[inline(always)]
    fn load_f16_bytes(self, src: &[u8; 32]) -> F {
        // SAFETY: 32 bytes are behind the reference; the loads need no alignment.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(src.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(src.as_ptr().add(16).cast())),
            ]
        }
    }

    #[inline(always)]
    fn load_i8_bytes(self, src: &[u8; 16]) -> F {
        // SAFETY: 16 bytes are behind the reference; the load needs no alignment.
        unsafe {
            let codes = _mm_loadu_si128(src.as_ptr().cast());
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes))),
            ]
        }
    }

    #[inline(always)]
    fn store_f16(self, v: F, dst: &mut [f16; LANES]) {
        // SAFETY: 32 bytes are behind the reference; the stores need no alignment.
        unsafe {
            _mm_storeu_si128(dst.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(dst.as_mut_ptr().add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        }
    }

    #[inline(always)]
    fn load_twice(self, src: &[f32; LANES / 2]) -> F {
        // SAFETY: 32 bytes are behind the reference; the loads need no alignment.
        unsafe {
            let a = _mm256_loadu_ps(src.as_ptr());
            [
                _mm256_permutevar8x32_ps(a, _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0)),
                _mm256_permutevar8x32_ps(a, _mm256_set_epi32(7, 7, 6, 6, 5, 5, 4, 4)),
            ]
        }
    }

    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { sum(_mm256_add_ps(a[0], a[1])) }
    }

    #[inline(always)]
    fn max_lane(self, a: F) -> f32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe {
            let a = _mm256_max_ps(a[0], a[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
        }
    }

    #[inline(always)]
    fn max_lane_i(self, a: I) -> i32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { reduce_i!(_mm256_max_epi32(a[0], a[1]), _mm_max_epi32) }
    }

    #[inline(always)]
    fn sum_i(self, a: I) -> i32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { reduce_i!(_mm256_add_epi32(a[0], a[1]), _mm_add_epi32) }
    }

    #[inline(always)]
    fn store_i8(self, v: I, dst: &mut [i8; LANES]) {
        // SAFETY: 16 bytes are behind the reference; the store needs no alignment.
        unsafe {
            // Packing works within 128-bit halves: the middle quarters have to be exchanged.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(v[0], v[1]));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(dst.as_mut_ptr().cast(), bytes);
        }
    }
}
