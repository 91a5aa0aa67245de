//! Sixteen lanes in four NEON registers.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::{Kernel, LANES, Vector};

/// Token of NEON, and of its dot products of bytes if `DOT`: that one exists only where the processor has the features of
/// [`enter_dotprod`]. NEON itself is in the baseline of every target that this module is compiled for.
#[derive(Clone, Copy)]
pub(in super::super) struct Neon<const DOT: bool>(());

impl Neon<true> {
    /// # Safety
    /// The processor has the features of [`enter_dotprod`], and so has the calling function.
    #[inline(always)]
    pub(in super::super) unsafe fn new() -> Self {
        Self(())
    }
}

/// Runs a kernel with NEON.
#[inline]
pub(super) fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<false>(()))
}

/// Runs a kernel with NEON and its dot products.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn enter_dotprod<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon::<true>(()))
}

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];

/// Methods that do one expression of intrinsics to each quarter.
macro_rules! quarters {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $out {
            // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
            unsafe {
                let q0 = { $(let $arg = $arg[0];)* $body };
                let q1 = { $(let $arg = $arg[1];)* $body };
                let q2 = { $(let $arg = $arg[2];)* $body };
                let q3 = { $(let $arg = $arg[3];)* $body };
                [q0, q1, q2, q3]
            }
        }
    )*};
}

/// Eight f16, widened exactly. The intrinsics are newer than the oldest compiler that builds this crate.
///
/// # Safety
/// 16 bytes are readable from `src` on.
#[inline(always)]
pub(in super::super) unsafe fn widen_f16(src: *const u8) -> [float32x4_t; 2] {
    let (low, high);
    // SAFETY: the caller promises the bytes, which need no alignment; the rest is arithmetic on registers, and FPCR is as Rust
    // demands it: nearest even, subnormal numbers are kept.
    unsafe {
        let halves = vreinterpretq_u16_u8(vld1q_u8(src));
        asm!("fcvtl {low:v}.4s, {halves:v}.4h", "fcvtl2 {high:v}.4s, {halves:v}.8h", halves = in(vreg) halves, low = out(vreg) low,
            high = lateout(vreg) high, options(pure, nomem, nostack, preserves_flags));
    }
    [low, high]
}

/// Eight f16 of the lanes of two vectors, rounded to nearest even.
///
/// # Safety
/// None beyond the target's baseline.
#[inline(always)]
unsafe fn narrow_f16(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let halves;
    // SAFETY: arithmetic on registers, as above.
    unsafe {
        asm!("fcvtn {halves:v}.4h, {low:v}.4s", "fcvtn2 {halves:v}.8h, {high:v}.4s", halves = out(vreg) halves, low = in(vreg) low,
            high = in(vreg) high, options(pure, nomem, nostack, preserves_flags));
    }
    halves
}

impl<const DOT: bool> Vector for Neon<DOT> {
    // 32 registers, but four for a vector: as many vectors as 16 registers of half the lanes hold.
    const WIDE: bool = false;
    type F = F;
    type I = I;

    quarters! {
        fn add(a: F, b: F) -> F = vaddq_f32(a, b);
        fn sub(a: F, b: F) -> F = vsubq_f32(a, b);
        fn mul(a: F, b: F) -> F = vmulq_f32(a, b);
        fn div(a: F, b: F) -> F = vdivq_f32(a, b);
        fn fma(a: F, b: F, c: F) -> F = vfmaq_f32(c, a, b);
        // Not `fmax`, which gives a NaN if either is one.
        fn max(a: F, b: F) -> F = vbslq_f32(vcgtq_f32(a, b), a, b);
        fn select_lt(a: F, b: F, x: F, y: F) -> F = vbslq_f32(vcltq_f32(a, b), x, y);
        fn round(a: F) -> F = vrndnq_f32(a);
        fn exp2_int(n: F) -> F = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127))));
        fn abs(a: F) -> F = vabsq_f32(a);
        fn negate_even(a: F) -> F = vreinterpretq_f32_u64(veorq_u64(vreinterpretq_u64_f32(a), vdupq_n_u64(0x8000_0000)));
        fn swap_pairs(a: F) -> F = vrev64q_f32(a);
        fn magnitude(a: F) -> I = vreinterpretq_s32_f32(vabsq_f32(a));
        fn max_i(a: I, b: I) -> I = vmaxq_s32(a, b);
        fn to_i(a: F) -> I = vcvtnq_s32_f32(a);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> F {
        let src = src.as_ptr();
        // SAFETY: 64 bytes are behind the reference.
        unsafe { [vld1q_f32(src), vld1q_f32(src.add(4)), vld1q_f32(src.add(8)), vld1q_f32(src.add(12))] }
    }

    #[inline(always)]
    fn store(self, v: F, dst: &mut [f32; LANES]) {
        let dst = dst.as_mut_ptr();
        // SAFETY: 64 bytes are behind the reference.
        unsafe {
            vst1q_f32(dst, v[0]);
            vst1q_f32(dst.add(4), v[1]);
            vst1q_f32(dst.add(8), v[2]);
            vst1q_f32(dst.add(12), v[3]);
        }
    }

    #[inline(always)]
    fn load_f16_bytes(self, src: &[u8; 32]) -> F {
        // SAFETY: 32 bytes are behind the reference.
        unsafe {
            let ([a, b], [c, d]) = (widen_f16(src.as_ptr()), widen_f16(src.as_ptr().add(16)));
            [a, b, c, d]
        }
    }

    #[inline(always)]
    fn load_i8_bytes(self, src: &[u8; 16]) -> F {
        // SAFETY: 16 bytes are behind the reference; the load needs no alignment.
        unsafe {
            let codes = vreinterpretq_s8_u8(vld1q_u8(src.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    fn store_f16(self, v: F, dst: &mut [f16; LANES]) {
        let dst = dst.as_mut_ptr().cast::<u16>();
        // SAFETY: 32 bytes are behind the reference.
        unsafe {
            vst1q_u16(dst, narrow_f16(v[0], v[1]));
            vst1q_u16(dst.add(8), narrow_f16(v[2], v[3]));
        }
    }

    #[inline(always)]
    fn load_twice(self, src: &[f32; LANES / 2]) -> F {
        // SAFETY: 32 bytes are behind the reference.
        unsafe {
            let (a, b) = (vld1q_f32(src.as_ptr()), vld1q_f32(src.as_ptr().add(4)));
            [vzip1q_f32(a, a), vzip2q_f32(a, a), vzip1q_f32(b, b), vzip2q_f32(b, b)]
        }
    }

    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe {
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            vpadds_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)))
        }
    }

    #[inline(always)]
    fn max_lane(self, a: F) -> f32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(a[0], a[1]), vmaxq_f32(a[2], a[3]))) }
    }

    #[inline(always)]
    fn max_lane_i(self, a: I) -> i32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { vmaxvq_s32(vmaxq_s32(vmaxq_s32(a[0], a[1]), vmaxq_s32(a[2], a[3]))) }
    }

    #[inline(always)]
    fn sum_i(self, a: I) -> i32 {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3]))) }
    }

    #[inline(always)]
    fn store_i8(self, v: I, dst: &mut [i8; LANES]) {
        // SAFETY: 16 bytes are behind the reference.
        unsafe {
            let low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
            let high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
            vst1q_s8(dst.as_mut_ptr(), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
        }
    }
}
