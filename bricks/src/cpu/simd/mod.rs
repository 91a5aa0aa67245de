//! One vector type for every kernel: sixteen lanes, whatever the registers' width, and dispatch to the instruction set.
//!
//! A kernel is written once, generic over [`Vector`], and instantiated for each [`SimdLevel`]. Sixteen lanes are one AVX-512
//! register, two AVX registers, four NEON registers, or an array. Because the lanes, the order of operations and the reduction trees are the same
//! everywhere, and every operation used is exactly rounded (add, multiply, divide, fused multiply-add), **all levels give
//! the same bits** (only the payload of a NaN may differ).
//!
//! The implementors are tokens: whoever holds one knows that the processor has its instructions, so the methods are safe.
//! Everything between [`dispatch`] and the intrinsics is `#[inline(always)]`: a function that is not inlined into the
//! `#[target_feature]` entry would be compiled without the features and call every intrinsic.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::{Neon, widen_f16};
pub(super) use portable::Portable;

use half::f16;

use super::level::SimdLevel;
use super::linear::RowLanes;

/// Lanes of a [`Vector`].
pub(super) const LANES: usize = 16;

/// Sixteen lanes of f32, and of i32, of one instruction set.
pub(super) trait Vector: Copy {
    /// Whether a vector is one register of 32: tiles of 16 vectors stay in registers.
    const WIDE: bool;
    /// 16 × f32.
    type F: Copy;
    /// 16 × i32.
    type I: Copy;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, src: &[f32; LANES]) -> Self::F;
    fn store(self, v: Self::F, dst: &mut [f32; LANES]);
    /// Sixteen f16 at any address, widened exactly.
    fn load_f16_bytes(self, src: &[u8; 32]) -> Self::F;
    /// Sixteen signed bytes at any address, widened exactly.
    fn load_i8_bytes(self, src: &[u8; 16]) -> Self::F;
    /// Rounded to f16, nearest even; beyond the range infinite.
    fn store_f16(self, v: Self::F, dst: &mut [f16; LANES]);
    /// Lanes `2i` and `2i + 1` are `src[i]`.
    fn load_twice(self, src: &[f32; LANES / 2]) -> Self::F;

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b` (`b` if either is a NaN).
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? x : y` (`y` if `a` or `b` is a NaN).
    fn select_lt(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for integers `-126 <= n <= 127`; anything for other values.
    fn exp2_int(self, n: Self::F) -> Self::F;
    /// `p · 2^n` for an integer `n <= 0` and `1/2 <= p <= 2`; 0 for `n < -125`, so that nothing subnormal comes out; NaN if `n` is.
    #[inline(always)]
    fn mul_exp2_int(self, p: Self::F, n: Self::F) -> Self::F {
        self.select_lt(n, self.splat(-125.0), self.splat(0.0), self.mul(p, self.exp2_int(n)))
    }
    /// `|a|`.
    fn abs(self, a: Self::F) -> Self::F;
    /// Changes the sign of even lanes.
    fn negate_even(self, a: Self::F) -> Self::F;
    /// Exchanges lanes `2i` and `2i + 1`.
    fn swap_pairs(self, a: Self::F) -> Self::F;
    /// Sum of the lanes: `i` with `i + 8`, then with `i + 4`, `i + 2`, `i + 1`.
    fn sum(self, a: Self::F) -> f32;

    /// The largest lane. No lane is a NaN; of zeros of both signs either.
    fn max_lane(self, a: Self::F) -> f32;

    /// The bits of `|a|`.
    fn magnitude(self, a: Self::F) -> Self::I;
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_lane_i(self, a: Self::I) -> i32;
    fn sum_i(self, a: Self::I) -> i32;
    /// To the nearest integer, ties to even, for values within the range of i8.
    fn to_i(self, a: Self::F) -> Self::I;
    /// Stores lanes that are within the range of i8.
    fn store_i8(self, v: Self::I, dst: &mut [i8; LANES]);

    /// Loads up to 16 values, zeros after them.
    #[inline(always)]
    fn load_part(self, src: &[f32]) -> Self::F {
        let mut lanes = [0.0; LANES];
        for (lane, x) in lanes.iter_mut().zip(src) {
            *lane = *x;
        }
        self.load(&lanes)
    }

    /// Sixteen f16 of this computer's memory (its kernels exist for little-endian targets only).
    #[inline(always)]
    fn load_f16(self, src: &[f16; LANES]) -> Self::F {
        // SAFETY: sixteen f16 are 32 initialised bytes, and bytes need no alignment.
        self.load_f16_bytes(unsafe { &*src.as_ptr().cast() })
    }

    /// Loads up to 16 f16, zeros after them.
    #[inline(always)]
    fn load_f16_part(self, src: &[f16]) -> Self::F {
        let mut lanes = [f16::ZERO; LANES];
        for (lane, x) in lanes.iter_mut().zip(src) {
            *lane = *x;
        }
        self.load_f16(&lanes)
    }

    /// Stores the first `dst.len()` (up to 16) lanes.
    #[inline(always)]
    fn store_part(self, v: Self::F, dst: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        for (x, lane) in dst.iter_mut().zip(&lanes) {
            *x = *lane;
        }
    }
}

/// An instruction set: everything kernels are generic over.
pub(super) trait Simd: Vector + RowLanes {}
impl<T: Vector + RowLanes> Simd for T {}

/// A computation, generic over the instruction set. `run` must be `#[inline(always)]`.
pub(super) trait Kernel {
    /// Whether it multiplies bytes ([`RowLanes::dots`]). Levels that differ in nothing else share the code of other kernels.
    const DOTS: bool = false;
    type Output;
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Runs `kernel` at `level`, or at the highest level the processor has if that is lower.
#[inline]
pub(super) fn dispatch<K: Kernel>(level: SimdLevel, kernel: K) -> K::Output {
    match level.usable() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `usable` has seen every feature of the level on this processor.
        SimdLevel::Avx512Vnni | SimdLevel::Amx => unsafe { avx512::enter(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::AvxVnni if K::DOTS => unsafe { avx2::enter_vnni(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::Avx2 | SimdLevel::AvxVnni => unsafe { avx2::enter(kernel) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        SimdLevel::NeonDotprod | SimdLevel::NeonI8mm if K::DOTS => unsafe { neon::enter_dotprod(kernel) },
        #[cfg(target_arch = "aarch64")]
        SimdLevel::Neon | SimdLevel::NeonDotprod | SimdLevel::NeonI8mm => neon::enter(kernel),
        _ => kernel.run(Portable),
    }
}
