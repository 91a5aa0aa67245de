//! Sixteen lanes in plain Rust.

use half::f16;

use super::{LANES, Vector};

/// Token of the portable level.
#[derive(Clone, Copy)]
pub(in super::super) struct Portable;

type F = [f32; LANES];
type I = [i32; LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> F {
    let mut out = [0.0; LANES];
    for (i, lane) in out.iter_mut().enumerate() {
        *lane = f(i);
    }
    out
}

impl Vector for Portable {
    const WIDE: bool = false;
    type F = F;
    type I = I;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, src: &[f32; LANES]) -> F {
        *src
    }

    #[inline(always)]
    fn store(self, v: F, dst: &mut [f32; LANES]) {
        *dst = v;
    }

    #[inline(always)]
    fn load_f16_bytes(self, src: &[u8; 32]) -> F {
        let (lanes, _) = src.as_chunks::<2>();
        each(|i| f16::from_le_bytes(lanes[i]).to_f32())
    }

    #[inline(always)]
    fn load_i8_bytes(self, src: &[u8; 16]) -> F {
        each(|i| f32::from(src[i] as i8))
    }

    #[inline(always)]
    fn store_f16(self, v: F, dst: &mut [f16; LANES]) {
        *dst = v.map(f16::from_f32);
    }

    #[inline(always)]
    fn load_twice(self, src: &[f32; LANES / 2]) -> F {
        each(|i| src[i / 2])
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        each(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        each(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        each(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn select_lt(self, a: F, b: F, x: F, y: F) -> F {
        each(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }

    #[inline(always)]
    fn round(self, a: F) -> F {
        each(|i| a[i].round_ties_even())
    }

    #[inline(always)]
    fn exp2_int(self, n: F) -> F {
        each(|i| f32::from_bits((n[i] as i32).wrapping_add(127).wrapping_shl(23) as u32))
    }

    #[inline(always)]
    fn abs(self, a: F) -> F {
        each(|i| a[i].abs())
    }

    #[inline(always)]
    fn negate_even(self, a: F) -> F {
        each(|i| if i % 2 == 0 { -a[i] } else { a[i] })
    }

    #[inline(always)]
    fn swap_pairs(self, a: F) -> F {
        each(|i| a[i ^ 1])
    }

    #[inline(always)]
    fn sum(self, mut a: F) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] += a[i + half];
            }
        }
        a[0]
    }

    #[inline(always)]
    fn max_lane(self, a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |top, x| if x > top { x } else { top })
    }

    #[inline(always)]
    fn magnitude(self, a: F) -> I {
        a.map(|x| (x.to_bits() & 0x7fff_ffff) as i32)
    }

    #[inline(always)]
    fn max_i(self, mut a: I, b: I) -> I {
        for (a, b) in a.iter_mut().zip(b) {
            *a = (*a).max(b);
        }
        a
    }

    #[inline(always)]
    fn max_lane_i(self, a: I) -> i32 {
        a.into_iter().fold(i32::MIN, i32::max)
    }

    #[inline(always)]
    fn sum_i(self, a: I) -> i32 {
        a.iter().sum()
    }

    #[inline(always)]
    fn to_i(self, a: F) -> I {
        a.map(|x| x.round_ties_even() as i32)
    }

    #[inline(always)]
    fn store_i8(self, v: I, dst: &mut [i8; LANES]) {
        *dst = v.map(|x| x as i8);
    }
}
