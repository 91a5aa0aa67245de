//! Vectorised elementary functions.

use super::simd::Vector;

/// Below: `exp` is 0 (the result would be subnormal).
const EXP_LOW: f32 = -87.336_54;
/// Above: `exp` is infinite. Kept below `ln(f32::MAX)` = 88.72 so that `2^n` needs no exponent of 128.
const EXP_HIGH: f32 = 88.376_26;

/// `e^x`, relative error below 3e-7; 0 below -87.33, infinite above 88.37, NaN for NaN.
///
/// `x = n · ln 2 + r` with `|r| <= ln 2 / 2`, `ln 2` in two parts so that `r` is exact enough; the Taylor polynomial of degree 7
/// for `e^r` (the rest is below `(ln 2 / 2)⁸ / 8!` = 5e-9), and `2^n` by its exponent.
#[inline(always)]
pub(super) fn exp<V: Vector>(s: V, x: V::F) -> V::F {
    // Nine bits of ln 2, so that its product with an integer n is exact, and the rest.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let mut p = s.splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.fma(p, r, s.splat(c));
    }
    let y = s.mul(p, s.exp2_int(n));
    let y = s.select_lt(s.splat(EXP_HIGH), x, s.splat(f32::INFINITY), y);
    s.select_lt(x, s.splat(EXP_LOW), s.splat(0.0), y)
}

/// `2^x` for `x <= 0`, relative error below 2e-7; 1 for 0, 0 below -125.5, NaN for NaN.
///
/// `x = n + r` with `|r| <= 1 / 2`, and the polynomial of degree 5 for `2^r` that begins with `1 + r ln 2` and whose largest relative
/// error is smallest (1.05e-7 before rounding).
#[inline(always)]
pub(super) fn exp2_weight<V: Vector>(s: V, x: V::F) -> V::F {
    let n = s.round(x);
    let r = s.sub(x, n);
    let mut p = s.splat(0.001_330_061_2);
    for c in [0.009_669_693, 0.055_505_585, 0.240_222_83, std::f32::consts::LN_2, 1.0] {
        p = s.fma(p, r, s.splat(c));
    }
    s.mul_exp2_int(p, n)
}

/// `x / (1 + e^-x)`: SiLU. Relative error at most 1e-6; `-0` below -88.4, where the result is below 4e-37.
#[inline(always)]
pub(super) fn silu<V: Vector>(s: V, x: V::F) -> V::F {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(x, s.add(s.splat(1.0), e))
}

/// `x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`: GELU, tanh approximation.
///
/// Computed as `x / (1 + e^(-2u))`, the same function without the cancellation of `1 + tanh u` for negative `x`. Relative error
/// at most 1e-6 down to -3, where the function is -4e-3; below, it grows with the exponent (1e-5 at -9, where it is -1e-28).
#[inline(always)]
pub(super) fn gelu_tanh<V: Vector>(s: V, x: V::F) -> V::F {
    const MINUS_2_SQRT_2_BY_PI: f32 = -1.595_769;
    const CUBIC: f32 = 0.044_715 * MINUS_2_SQRT_2_BY_PI;
    let slope = s.fma(s.mul(x, x), s.splat(CUBIC), s.splat(MINUS_2_SQRT_2_BY_PI));
    let e = exp(s, s.mul(x, slope));
    s.div(x, s.add(s.splat(1.0), e))
}

/// `cap · tanh(x / cap)`, absolute error at most `cap · 3e-7`.
#[inline(always)]
pub(super) fn softcap<V: Vector>(s: V, x: V::F, cap: V::F) -> V::F {
    let scaled = s.div(x, cap);
    // e^(-2|u|) is at most 1: no overflow; the sign is put back at the end.
    let e = exp(s, s.mul(s.abs(scaled), s.splat(-2.0)));
    let one = s.splat(1.0);
    let tanh = s.div(s.sub(one, e), s.add(one, e));
    let minus = s.sub(s.splat(0.0), tanh);
    s.mul(cap, s.select_lt(scaled, s.splat(0.0), minus, tanh))
}
