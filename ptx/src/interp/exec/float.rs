//! f32, f64 and the half formats.
//!
//! Addition, multiplication, division, square root and fused multiply-add are exact to the last bit, subnormals
//! included. The `.approx` functions are the correctly rounded value, computed in f64; a GPU may be off by some units in
//! the last place (PTX gives 2^-22 relative error for ex2 and rcp, 2^-21.5 for lg2 in its range, and so on), so compare
//! with a tolerance.

use half::{bf16, f16};

use super::regs::Regs;
use crate::interp::op::{D, FloatBin, FloatMode, FloatUn, HalfFn, HalfTy, R};

/// The NaN every f32 instruction of a GPU returns.
const NAN32: u32 = 0x7fff_ffff;
/// The same for both half formats.
const NAN16: u16 = 0x7fff;

#[inline(always)]
pub(super) fn flush(bits: u32, ftz: bool) -> u32 {
    if ftz && bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits }
}

/// `.ftz` on the way in.
#[inline(always)]
fn input(bits: u32, mode: FloatMode) -> f32 {
    f32::from_bits(flush(bits, mode.ftz))
}

/// `.sat`, `.ftz` and the one NaN on the way out.
#[inline(always)]
fn output(value: f32, mode: FloatMode) -> u32 {
    if mode.sat {
        // NaN becomes zero, too.
        return if value > 0.0 { value.min(1.0).to_bits() } else { 0 };
    }
    if value.is_nan() { NAN32 } else { flush(value.to_bits(), mode.ftz) }
}

/// Minimum or maximum of two numbers: -0 is below +0, and a NaN loses unless `.NaN` says it wins.
fn extremum(max: bool, a: f32, b: f32, nan: bool) -> f32 {
    if a.is_nan() || b.is_nan() {
        return if nan || a.is_nan() && b.is_nan() {
            f32::NAN
        } else if a.is_nan() {
            b
        } else {
            a
        };
    }
    let a_first = if a == b { a.is_sign_negative() } else { a < b };
    if a_first == max { b } else { a }
}

pub(super) fn binary32(regs: &mut Regs, mask: u32, f: FloatBin, mode: FloatMode, [d, a, b]: [R; 3]) {
    let arithmetic = |a: u32, b: u32, op: fn(f32, f32) -> f32| output(op(input(a, mode), input(b, mode)), mode);
    match f {
        FloatBin::Add => regs.map2(mask, d, a, b, |a, b| output(input(a, mode) + input(b, mode), mode)),
        FloatBin::Sub => regs.map2(mask, d, a, b, |a, b| output(input(a, mode) - input(b, mode), mode)),
        FloatBin::Mul => regs.map2(mask, d, a, b, |a, b| output(input(a, mode) * input(b, mode), mode)),
        FloatBin::Div => regs.map2(mask, d, a, b, |a, b| arithmetic(a, b, |a, b| a / b)),
        FloatBin::Min => {
            regs.map2(mask, d, a, b, |a, b| output(extremum(false, input(a, mode), input(b, mode), mode.nan), mode));
        }
        FloatBin::Max => {
            regs.map2(mask, d, a, b, |a, b| output(extremum(true, input(a, mode), input(b, mode), mode.nan), mode));
        }
    }
}

pub(super) fn binary64(regs: &mut Regs, mask: u32, f: FloatBin, [d, a, b]: [D; 3]) {
    let op: fn(f64, f64) -> f64 = match f {
        FloatBin::Add => |a, b| a + b,
        FloatBin::Sub => |a, b| a - b,
        FloatBin::Mul => |a, b| a * b,
        FloatBin::Div => |a, b| a / b,
        FloatBin::Min => f64::min,
        FloatBin::Max => f64::max,
    };
    regs.map2_64(mask, d, a, b, |a, b| op(f64::from_bits(a), f64::from_bits(b)).to_bits());
}

pub(super) fn fma32(regs: &mut Regs, mask: u32, mode: FloatMode, d: R, abc: [R; 3]) {
    regs.map3(mask, d, abc, |a, b, c| output(input(a, mode).mul_add(input(b, mode), input(c, mode)), mode));
}

pub(super) fn fma64(regs: &mut Regs, mask: u32, d: D, abc: [D; 3]) {
    regs.map3_64(mask, d, abc, |a, b, c| f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits());
}

/// A function of one number in f64. Rounding that to f32 gives the correctly rounded value but for inputs whose result
/// lies within an f64 rounding error of a tie.
fn evaluate(f: FloatUn, x: f64) -> f64 {
    match f {
        FloatUn::Neg => -x,
        FloatUn::Abs => x.abs(),
        FloatUn::Ex2 => x.exp2(),
        FloatUn::Lg2 => x.log2(),
        FloatUn::Rcp => 1.0 / x,
        FloatUn::Rsqrt if x == 0.0 => f64::INFINITY.copysign(x),
        FloatUn::Rsqrt => 1.0 / x.sqrt(),
        FloatUn::Sqrt => x.sqrt(),
        FloatUn::Sin => x.sin(),
        FloatUn::Cos => x.cos(),
        FloatUn::Tanh => x.tanh(),
    }
}

pub(super) fn unary32(regs: &mut Regs, mask: u32, f: FloatUn, mode: FloatMode, d: R, a: R) {
    match f {
        // Sign operations keep the payload of a NaN.
        FloatUn::Neg => regs.map1(mask, d, a, |a| flush(a, mode.ftz) ^ 0x8000_0000),
        FloatUn::Abs => regs.map1(mask, d, a, |a| flush(a, mode.ftz) & 0x7fff_ffff),
        _ => regs.map1(mask, d, a, |a| output(evaluate(f, input(a, mode).into()) as f32, mode)),
    }
}

pub(super) fn unary64(regs: &mut Regs, mask: u32, f: FloatUn, d: D, a: D) {
    regs.map1_64(mask, d, a, |a| evaluate(f, f64::from_bits(a)).to_bits());
}

/// `a * b + c` rounded to odd: rounding the result to a format of at most 50 bits is then exact.
fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    // Halves have at most 11 bits: the product is exact.
    let product = a * b;
    let sum = product + c;
    if !sum.is_finite() {
        return sum;
    }
    let back = sum - product;
    let error = (product - (sum - back)) + (c - back);
    if error == 0.0 || sum.to_bits() & 1 == 1 {
        return sum;
    }
    if (error > 0.0) == (sum > 0.0) { f64::from_bits(sum.to_bits() + 1) } else { f64::from_bits(sum.to_bits() - 1) }
}

fn to_f64(ty: HalfTy, bits: u16) -> f64 {
    match ty {
        HalfTy::F16 => f16::from_bits(bits).to_f64(),
        HalfTy::Bf16 => bf16::from_bits(bits).to_f64(),
    }
}

fn from_f64(ty: HalfTy, value: f64) -> u16 {
    if value.is_nan() {
        return NAN16;
    }
    match ty {
        HalfTy::F16 => f16::from_f64(value).to_bits(),
        HalfTy::Bf16 => bf16::from_f64(value).to_bits(),
    }
}

fn half_one(f: HalfFn, ty: HalfTy, mode: FloatMode, [a, b, c]: [u16; 3]) -> u16 {
    let exponent = match ty {
        HalfTy::F16 => 0x7c00,
        HalfTy::Bf16 => 0x7f80,
    };
    let flush = |bits: u16| if mode.ftz && bits & exponent == 0 { bits & 0x8000 } else { bits };
    let (a, b, c) = (flush(a), flush(b), flush(c));
    match f {
        HalfFn::Un(FloatUn::Neg) => return a ^ 0x8000,
        HalfFn::Un(FloatUn::Abs) => return a & 0x7fff,
        _ => {}
    }
    let (x, y, z) = (to_f64(ty, a), to_f64(ty, b), to_f64(ty, c));
    let value = match f {
        // Sums and products of halves are fused multiply-adds with a one or a zero; the sign of zero needs care.
        HalfFn::Bin(FloatBin::Add) => fma_odd(x, 1.0, y),
        HalfFn::Bin(FloatBin::Sub) => fma_odd(x, 1.0, -y),
        HalfFn::Bin(FloatBin::Mul | FloatBin::Div) => x * y,
        HalfFn::Bin(FloatBin::Min) => extremum(false, x as f32, y as f32, mode.nan).into(),
        HalfFn::Bin(FloatBin::Max) => extremum(true, x as f32, y as f32, mode.nan).into(),
        HalfFn::Fma => fma_odd(x, y, z),
        HalfFn::Un(f) => evaluate(f, x),
    };
    if mode.sat {
        return from_f64(ty, if value > 0.0 { value.min(1.0) } else { 0.0 });
    }
    flush(from_f64(ty, value))
}

pub(super) fn half(
    regs: &mut Regs,
    mask: u32,
    (f, ty, packed, mode): (HalfFn, HalfTy, bool, FloatMode),
    d: R,
    abc: [R; 3],
) {
    regs.map3(mask, d, abc, |a, b, c| {
        let low = u32::from(half_one(f, ty, mode, [a as u16, b as u16, c as u16]));
        if !packed {
            return low;
        }
        let high = half_one(f, ty, mode, [a, b, c].map(|v| (v >> 16) as u16));
        low | u32::from(high) << 16
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremum_orders_zeros_and_loses_nans() {
        assert!(extremum(false, 0.0, -0.0, false).is_sign_negative());
        assert!(extremum(true, -0.0, 0.0, false).is_sign_positive());
        assert_eq!(extremum(false, f32::NAN, 3.0, false), 3.0);
        assert!(extremum(true, 1.0, f32::NAN, true).is_nan());
        assert_eq!(extremum(true, 1.0, 2.0, true), 2.0);
    }

    #[test]
    fn modes_flush_and_saturate() {
        let tiny = f32::from_bits(1);
        let ftz = FloatMode { ftz: true, ..FloatMode::default() };
        let sat = FloatMode { sat: true, ..FloatMode::default() };
        assert_eq!(output(tiny, ftz), 0);
        assert_eq!(output(-tiny, ftz), 0x8000_0000);
        assert_eq!(output(tiny, FloatMode::default()), 1);
        assert_eq!(output(f32::NAN, sat), 0);
        assert_eq!(f32::from_bits(output(7.0, sat)), 1.0);
        assert_eq!(output(-f32::NAN, FloatMode::default()), NAN32);
    }

    #[test]
    fn half_fma_rounds_once() {
        // 1 + 2^-11 is a tie that rounds to even; a speck of 2^-24 in the addend must break it.
        let (one, x) = (f16::ONE, f16::from_f64(1.0 + 1.0 / 1024.0));
        let c = f16::from_f64(2.0_f64.powi(-24));
        let tie = f16::from_f64(1.0 / 2048.0);
        let got = half_one(HalfFn::Fma, HalfTy::F16, FloatMode::default(), [x.to_bits(), tie.to_bits(), one.to_bits()]);
        let exact = 1.0 + (1.0 + 1.0 / 1024.0) / 2048.0;
        assert_eq!(got, f16::from_f64(exact).to_bits());
        let sum =
            half_one(HalfFn::Bin(FloatBin::Add), HalfTy::F16, FloatMode::default(), [x.to_bits(), c.to_bits(), 0]);
        assert_eq!(sum, x.to_bits());
    }
}
