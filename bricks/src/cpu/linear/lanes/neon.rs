//! Eight rows in two NEON registers each; dot products by `sdot`, or by widening multiplications, whose 16-bit sums overflow,
//! and how that is kept from happening.
//!
//! Eight rows, as a quad of four tokens then takes 8 sums, 8 accumulators, 4 activations and 2 codes of the 32 registers.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::aarch64::*;
use std::arch::asm;

use super::{MAGIC, Owned, RowLanes};
use crate::cpu::linear::format::Coding;
use crate::cpu::simd::{Neon, widen_f16};

pub(in crate::cpu::linear) const ROWS: usize = 8;

type U = [uint32x4_t; 2];
type R = [float32x4_t; 2];

/// Methods that do one expression of intrinsics to each half; arguments before the semicolon are vectors, others are not.
macro_rules! halves {
    ($(fn $name:ident($($arg:ident: $type:ty),*; $($x:ident: $scalar:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type,)* $($x: $scalar),*) -> $out {
            // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
            unsafe {
                let low = { $(let $arg = $arg[0];)* $body };
                let high = { $(let $arg = $arg[1];)* $body };
                [low, high]
            }
        }
    )*};
}

impl<const DOT: bool> RowLanes for Neon<DOT> {
    const ROWS: usize = ROWS;
    // Of two registers.
    const REGISTERS: usize = 16;
    type U = U;
    type R = R;

    halves! {
        fn and(a: U, b: U;) -> U = vandq_u32(a, b);
        fn or(a: U, b: U;) -> U = vorrq_u32(a, b);
        fn shl(a: U; bits: u32) -> U = vshlq_u32(a, vdupq_n_s32(bits as i32));
        // To the left by a negative number.
        fn shr(a: U; bits: u32) -> U = vshlq_u32(a, vdupq_n_s32(-(bits as i32)));
        fn sar(a: U; bits: u32) -> U =
            vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(a), vdupq_n_s32(-(bits as i32))));
        fn add_i(a: U; x: i32) -> U = vaddq_u32(a, vdupq_n_u32(x as u32));
        fn as_r(a: U;) -> R = vreinterpretq_f32_u32(a);
        fn to_r(a: U;) -> R = vcvtq_f32_s32(vreinterpretq_s32_u32(a));
        fn mul_r(a: R, b: R;) -> R = vmulq_f32(a, b);
        fn fma_r(a: R, b: R, c: R;) -> R = vfmaq_f32(c, a, b);
        fn add_r(a: R, b: R;) -> R = vaddq_f32(a, b);
        fn weigh(start: U, pairs: U; w0: i16, w1: i16) -> U = {
            let pairs = vreinterpretq_s32_u32(pairs);
            let (first, second) = (vshrq_n_s32::<16>(vshlq_n_s32::<16>(pairs)), vshrq_n_s32::<16>(pairs));
            let sum = vmlaq_n_s32(vreinterpretq_s32_u32(start), first, i32::from(w0));
            vreinterpretq_u32_s32(vmlaq_n_s32(sum, second, i32::from(w1)))
        };
    }

    #[inline(always)]
    fn splat_u(self, bits: u32) -> U {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { [vdupq_n_u32(bits); 2] }
    }

    #[inline(always)]
    fn splat_r(self, x: f32) -> R {
        // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
        unsafe { [vdupq_n_f32(x); 2] }
    }

    #[inline(always)]
    unsafe fn load_u(self, src: *const u8) -> U {
        // SAFETY: the caller promises 32 bytes; loads of bytes need no alignment.
        unsafe { [vreinterpretq_u32_u8(vld1q_u8(src)), vreinterpretq_u32_u8(vld1q_u8(src.add(16)))] }
    }

    #[inline(always)]
    unsafe fn load_f16s(self, src: *const u8) -> R {
        // SAFETY: the caller promises 16 bytes.
        unsafe { widen_f16(src) }
    }

    #[inline(always)]
    unsafe fn load_u16s(self, src: *const u8) -> U {
        // SAFETY: the caller promises 16 bytes; loads of bytes need no alignment.
        unsafe {
            let halves = vreinterpretq_u16_u8(vld1q_u8(src));
            [vmovl_u16(vget_low_u16(halves)), vmovl_high_u16(halves)]
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a prefetch of any address is a hint without effect on memory. The intrinsic is unstable.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) at, options(readonly, nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], bytes: U) -> U {
        // SAFETY: the table is 16 bytes; the rest is arithmetic on registers.
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            let low = vqtbl1q_u8(table, vreinterpretq_u8_u32(bytes[0]));
            let high = vqtbl1q_u8(table, vreinterpretq_u8_u32(bytes[1]));
            [vreinterpretq_u32_u8(low), vreinterpretq_u32_u8(high)]
        }
    }

    #[inline(always)]
    unsafe fn load_r(self, src: *const f32, owned: Owned) -> R {
        debug_assert!(owned.first <= owned.end && owned.end <= ROWS);
        // SAFETY: only lanes in `owned` are read, which the caller promises to be readable; then loads from an own array.
        unsafe {
            if owned == ALL {
                return [vld1q_f32(src), vld1q_f32(src.add(4))];
            }
            let mut lanes = [0.0f32; ROWS];
            for (i, lane) in lanes.iter_mut().enumerate().take(owned.end).skip(owned.first) {
                *lane = *src.wrapping_add(i);
            }
            [vld1q_f32(lanes.as_ptr()), vld1q_f32(lanes.as_ptr().add(4))]
        }
    }

    #[inline(always)]
    unsafe fn store_r(self, v: R, dst: *mut f32, owned: Owned) {
        debug_assert!(owned.first <= owned.end && owned.end <= ROWS);
        // SAFETY: only lanes in `owned` are written, which the caller promises to be writable and exclusive.
        unsafe {
            if owned == ALL {
                vst1q_f32(dst, v[0]);
                vst1q_f32(dst.add(4), v[1]);
                return;
            }
            let mut lanes = [0.0f32; ROWS];
            vst1q_f32(lanes.as_mut_ptr(), v[0]);
            vst1q_f32(lanes.as_mut_ptr().add(4), v[1]);
            for (i, lane) in lanes.iter().enumerate().take(owned.end).skip(owned.first) {
                *dst.wrapping_add(i) = *lane;
            }
        }
    }

    #[inline(always)]
    fn ready<C: Coding>(self, mut codes: [U; 8]) -> [U; 8] {
        // Both kinds of dot products want signed codes. Only those of 8 bits are not yet; their offset is subtracted.
        if C::OFFSET == 128 {
            for code in &mut codes {
                // SAFETY: arithmetic on registers; `self` proves that the processor has the instructions.
                *code = unsafe {
                    [veorq_u32(code[0], vdupq_n_u32(0x8080_8080)), veorq_u32(code[1], vdupq_n_u32(0x8080_8080))]
                };
            }
        }
        codes
    }

    #[inline(always)]
    unsafe fn dots<C: Coding, const N: usize>(
        self,
        codes: &[U; 8],
        acts: [*const i8; N],
        start: [[U; 2]; N],
    ) -> [[U; 2]; N] {
        const { assert!(C::MAX <= 127 || C::OFFSET == 128) };
        let mut sums = start;
        if C::OFFSET == 128 {
            // What the start begins with has been subtracted.
            sums = [[self.splat_u(MAGIC.to_bits()); 2]; N];
        }
        // SAFETY: the caller promises 32 activations of every token; a token with `DOT` proves that there is `sdot`.
        unsafe {
            if DOT {
                for half in 0..2 {
                    let mut a = [vdupq_n_s8(0); N];
                    for (a, acts) in a.iter_mut().zip(acts) {
                        *a = vld1q_s8(acts.add(16 * half));
                    }
                    let sub = usize::from(C::SUBS == 2 && half == 1);
                    quad::<0, N>(codes[4 * half], &a, &mut sums, sub);
                    quad::<1, N>(codes[4 * half + 1], &a, &mut sums, sub);
                    quad::<2, N>(codes[4 * half + 2], &a, &mut sums, sub);
                    quad::<3, N>(codes[4 * half + 3], &a, &mut sums, sub);
                }
            } else {
                for (sums, acts) in sums.iter_mut().zip(acts) {
                    if C::SUBS == 2 {
                        sums[0] = add(sums[0], sum_of_quads::<C>(codes, acts, 0, 4));
                        sums[1] = add(sums[1], sum_of_quads::<C>(codes, acts, 4, 8));
                    } else {
                        sums[0] = add(sums[0], sum_of_quads::<C>(codes, acts, 0, 8));
                    }
                }
            }
        }
        sums
    }
}

/// Every lane.
const ALL: Owned = Owned { first: 0, end: ROWS };

/// # Safety
/// None beyond the target's baseline.
#[inline(always)]
unsafe fn add(a: U, b: U) -> U {
    // SAFETY: arithmetic on registers.
    unsafe { [vaddq_u32(a[0], b[0]), vaddq_u32(a[1], b[1])] }
}

/// A quad of codes times quad `Q` of four of each token's activations: neighbouring instructions are independent of each other.
///
/// # Safety
/// The processor has `sdot`, and the function this is inlined into has the feature.
#[inline(always)]
unsafe fn quad<const Q: usize, const N: usize>(codes: U, acts: &[int8x16_t; N], sums: &mut [[U; 2]; N], sub: usize) {
    for (sums, acts) in sums.iter_mut().zip(acts) {
        for (sum, codes) in sums[sub].iter_mut().zip(codes) {
            // SAFETY: arithmetic on registers; the caller promises the instruction.
            *sum = unsafe { sdot::<Q>(*sum, codes, *acts) };
        }
    }
}

/// In each lane, `sum` plus four signed codes times the activations of quad `Q`.
///
/// # Safety
/// As for [`quad`].
#[inline(always)]
unsafe fn sdot<const Q: usize>(mut sum: uint32x4_t, codes: uint32x4_t, acts: int8x16_t) -> uint32x4_t {
    // SAFETY: arithmetic on registers; the caller promises the instruction. The intrinsic is unstable.
    unsafe {
        asm!("sdot {sum:v}.4s, {codes:v}.16b, {acts:v}.4b[{q}]", sum = inout(vreg) sum, codes = in(vreg) codes, acts = in(vreg) acts,
            q = const Q, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `Σ code · activation` over quads `first..end`, by multiplications that widen to 16 bits.
///
/// # Safety
/// 32 activations are readable from `acts` on; `end <= 8`.
#[inline(always)]
unsafe fn sum_of_quads<C: Coding>(codes: &[U; 8], acts: *const i8, first: usize, end: usize) -> U {
    // Products with activations (at most 127) that can be added in 16 bits: 8 and more for codes up to 5 bits, 4 for 6 bits, 2 for
    // 8 bits, which are at most 128 when they have been made signed.
    let largest = if C::OFFSET == 128 { 128 } else { C::MAX as usize };
    let run = 32767 / (127 * largest);
    debug_assert!(run >= 2);
    // SAFETY: quads below 8 are within 32 activations; the rest is arithmetic on registers.
    unsafe {
        // Lane `2 r + i` of both rows of a half register: inputs `2 i` and `2 i + 1` of row `r`.
        let mut total = [vdupq_n_s32(0); 4];
        let mut q = first;
        while q < end {
            let stop = if q + run < end { q + run } else { end };
            let a = broadcast(acts, q);
            let [low, high] = codes[q];
            let (low, high) = (vreinterpretq_s8_u32(low), vreinterpretq_s8_u32(high));
            let mut sums = [
                vmull_s8(vget_low_s8(low), vget_low_s8(a)),
                vmull_high_s8(low, a),
                vmull_s8(vget_low_s8(high), vget_low_s8(a)),
                vmull_high_s8(high, a),
            ];
            #[allow(clippy::needless_range_loop)] // as for AVX2: the compiler unrolls this form
            for q in q + 1..stop {
                let a = broadcast(acts, q);
                let [low, high] = codes[q];
                let (low, high) = (vreinterpretq_s8_u32(low), vreinterpretq_s8_u32(high));
                sums = [
                    vmlal_s8(sums[0], vget_low_s8(low), vget_low_s8(a)),
                    vmlal_high_s8(sums[1], low, a),
                    vmlal_s8(sums[2], vget_low_s8(high), vget_low_s8(a)),
                    vmlal_high_s8(sums[3], high, a),
                ];
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total = vpadalq_s16(*total, sum);
            }
            q = stop;
        }
        [vreinterpretq_u32_s32(vpaddq_s32(total[0], total[1])), vreinterpretq_u32_s32(vpaddq_s32(total[2], total[3]))]
    }
}

/// Activations `4 q .. 4 q + 4` in every lane.
///
/// # Safety
/// These activations are readable.
#[inline(always)]
unsafe fn broadcast(acts: *const i8, q: usize) -> int8x16_t {
    // SAFETY: as the caller promises; the load needs no alignment.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(acts.add(4 * q).cast::<i32>().read_unaligned())) }
}
