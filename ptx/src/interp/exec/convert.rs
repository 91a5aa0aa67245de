//! Conversions between formats and comparisons.

use half::{bf16, f16};

use super::float::flush;
use super::regs::{Lanes64, Regs};
use crate::interp::op::{Cmp, Cvt, HalfTy, Round};
use crate::interp::ty::Ty;

/// A binary float format: bits of the significand, exponents of the smallest and largest normal numbers.
#[derive(Clone, Copy)]
struct Format {
    precision: i32,
    min: i32,
    max: i32,
}

const F16: Format = Format { precision: 11, min: -14, max: 15 };
const BF16: Format = Format { precision: 8, min: -126, max: 127 };
const F32: Format = Format { precision: 24, min: -126, max: 127 };

fn whole(value: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => value.round_ties_even(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

/// 2^e for any exponent a normal f64 has.
fn power(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// The value of `format` that `value` rounds to.
fn quantise(value: f64, format: Format, round: Round) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let exponent = ((value.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(format.min);
    if exponent <= format.max {
        let unit = power(exponent - format.precision + 1);
        // Scaling by a power of two is exact, so this rounds once.
        let rounded = whole(value / unit, round) * unit;
        if rounded.abs() < power(format.max) * 2.0 {
            return if rounded == 0.0 { 0.0_f64.copysign(value) } else { rounded };
        }
    }
    let largest = (2.0 - power(1 - format.precision)) * power(format.max);
    let toward_zero = match round {
        Round::Nearest => false,
        Round::Zero => true,
        Round::Down => value > 0.0,
        Round::Up => value < 0.0,
    };
    if toward_zero { largest.copysign(value) } else { f64::INFINITY.copysign(value) }
}

/// The bits of a float type for a value, rounded.
fn encode(value: f64, ty: Ty, round: Round) -> u64 {
    match ty {
        Ty::F64 => value.to_bits(),
        _ if value.is_nan() && ty == Ty::F32 => 0x7fff_ffff,
        _ if value.is_nan() => 0x7fff,
        Ty::F32 => (quantise(value, F32, round) as f32).to_bits().into(),
        Ty::Bf16 => bf16::from_f64(quantise(value, BF16, round)).to_bits().into(),
        _ => f16::from_f64(quantise(value, F16, round)).to_bits().into(),
    }
}

/// The value of the bits of a float type: every format fits f64.
fn decode(bits: u64, ty: Ty, ftz: bool) -> f64 {
    match ty {
        Ty::F64 => f64::from_bits(bits),
        Ty::F32 => f32::from_bits(flush(bits as u32, ftz)).into(),
        Ty::Bf16 => bf16::from_bits(bits as u16).to_f64(),
        _ => f16::from_bits(bits as u16).to_f64(),
    }
}

/// The value of the low bits of a register as an integer type.
fn integer(bits: u64, ty: Ty) -> i128 {
    match ty {
        Ty::U8 => i128::from(bits as u8),
        Ty::S8 => i128::from(bits as i8),
        Ty::U16 => i128::from(bits as u16),
        Ty::S16 => i128::from(bits as i16),
        Ty::U32 => i128::from(bits as u32),
        Ty::S32 => i128::from(bits as i32),
        Ty::S64 => i128::from(bits as i64),
        _ => i128::from(bits),
    }
}

/// Smallest and largest value of an integer type.
fn range(ty: Ty) -> (i128, i128) {
    let bits = ty.bytes() * 8;
    if ty.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// An integer as a float of `ty`, rounded once. Integers beyond 2^53 do not fit f64, so their tail is folded into the
/// lowest bit first: rounding to odd, which any later rounding to fewer bits sees through.
fn from_integer(value: i128, ty: Ty, round: Round) -> u64 {
    let magnitude = value.unsigned_abs();
    let excess = (128 - magnitude.leading_zeros()).saturating_sub(54);
    let tail = magnitude & ((1 << excess) - 1) != 0;
    if ty == Ty::F64 && (tail || magnitude >> excess >= 1 << 53) {
        return wide_from_integer(value, round);
    }
    let folded = (magnitude >> excess | u128::from(tail)) << excess;
    // Up to 54 bits; f32 and the halves keep at most 24 of them. One more fold makes them fit f64 exactly.
    let fold = if folded >> excess >= 1 << 53 {
        (folded >> (excess + 1) | folded >> excess & 1) << (excess + 1)
    } else {
        folded
    };
    let value = if value < 0 { -(fold as f64) } else { fold as f64 };
    encode(value, ty, round)
}

/// An integer of more than 53 bits as an f64.
fn wide_from_integer(value: i128, round: Round) -> u64 {
    let nearest = value as f64;
    let exact = nearest as i128;
    let out = match round {
        Round::Zero if exact.unsigned_abs() > value.unsigned_abs() => {
            if value < 0 {
                nearest.next_up()
            } else {
                nearest.next_down()
            }
        }
        Round::Down if exact > value => nearest.next_down(),
        Round::Up if exact < value => nearest.next_up(),
        _ => nearest,
    };
    out.to_bits()
}

fn to_integer(value: f64, ty: Ty, round: Round) -> u64 {
    // Out of range saturates, NaN is zero.
    let (low, high) = range(ty);
    (whole(value, round) as i128).clamp(low, high) as u64
}

fn convert(how: &Cvt, bits: u64) -> u64 {
    let Cvt { from, to, round, whole: to_whole, sat, ftz, .. } = *how;
    match (from.is_float(), to.is_float()) {
        (false, false) => {
            let value = integer(bits, from);
            if sat {
                let (low, high) = range(to);
                return value.clamp(low, high) as u64;
            }
            // Cut to the type, then extended by its sign to the register.
            integer(value as u64, to) as u64
        }
        (false, true) => from_integer(integer(bits, from), to, round),
        (true, false) => to_integer(decode(bits, from, ftz), to, round),
        (true, true) => {
            let mut value = decode(bits, from, ftz);
            if to_whole {
                value = whole(value, round);
            }
            if sat {
                value = if value > 0.0 { value.min(1.0) } else { 0.0 };
            }
            let bits = encode(value, to, round);
            if to == Ty::F32 { flush(bits as u32, ftz).into() } else { bits }
        }
    }
}

pub(super) fn cvt(regs: &mut Regs, mask: u32, how: &Cvt) {
    let a = regs.get_any(how.a);
    // The conversions of inner loops, with the type fixed outside the lane loop.
    let out: Lanes64 = match (how.from, how.to) {
        (Ty::S32, Ty::F32) if how.round == Round::Nearest => a.map(|v| (v as i32 as f32).to_bits().into()),
        (Ty::U32, Ty::F32) if how.round == Round::Nearest => a.map(|v| (v as u32 as f32).to_bits().into()),
        (Ty::F16, Ty::F32) if !how.sat && !how.ftz => a.map(|v| {
            let value = f16::from_bits(v as u16).to_f32();
            if value.is_nan() { 0x7fff_ffff } else { value.to_bits().into() }
        }),
        _ => a.map(|v| convert(how, v)),
    };
    regs.set_any(how.d, mask, &out);
}

/// Two f32 as one register of halves, the first in the upper half.
pub(super) fn pack(ty: HalfTy, round: Round, sat: bool, a: u32, b: u32) -> u32 {
    let ty = match ty {
        HalfTy::F16 => Ty::F16,
        HalfTy::Bf16 => Ty::Bf16,
    };
    let one = |bits: u32| {
        let mut value = f64::from(f32::from_bits(bits));
        if sat {
            value = if value > 0.0 { value.min(1.0) } else { 0.0 };
        }
        encode(value, ty, round) as u32
    };
    one(a) << 16 | one(b)
}

/// The lanes in which a comparison holds.
pub(super) fn compare(ty: Ty, cmp: Cmp, ftz: bool, a: &Lanes64, b: &Lanes64) -> u32 {
    fn mask(f: impl Fn(usize) -> bool) -> u32 {
        (0..32).fold(0, |bits, lane| bits | u32::from(f(lane)) << lane)
    }
    if ty.is_float() {
        return mask(|l| compare_floats(cmp, decode(a[l], ty, ftz), decode(b[l], ty, ftz)));
    }
    // Unsigned order after flipping the sign bit is signed order.
    let flip = if ty.is_signed() { 1 << (ty.bytes() * 8 - 1) } else { 0 };
    match cmp {
        Cmp::Eq => mask(|l| a[l] == b[l]),
        Cmp::Ne => mask(|l| a[l] != b[l]),
        Cmp::Lt => mask(|l| a[l] ^ flip < b[l] ^ flip),
        Cmp::Le => mask(|l| a[l] ^ flip <= b[l] ^ flip),
        Cmp::Gt => mask(|l| a[l] ^ flip > b[l] ^ flip),
        _ => mask(|l| a[l] ^ flip >= b[l] ^ flip),
    }
}

fn compare_floats(cmp: Cmp, a: f64, b: f64) -> bool {
    let unordered = a.is_nan() || b.is_nan();
    match cmp {
        Cmp::Eq => a == b,
        // The ordered `ne` is false for NaN, unlike `!=`.
        Cmp::Ne => !unordered && a != b,
        Cmp::Lt => a < b,
        Cmp::Le => a <= b,
        Cmp::Gt => a > b,
        Cmp::Ge => a >= b,
        Cmp::Equ => unordered || a == b,
        Cmp::Neu => unordered || a != b,
        Cmp::Ltu => unordered || a < b,
        Cmp::Leu => unordered || a <= b,
        Cmp::Gtu => unordered || a > b,
        Cmp::Geu => unordered || a >= b,
        Cmp::Num => !unordered,
        Cmp::Nan => unordered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_what_the_formats_do_themselves() {
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = f64::from_bits(seed);
            if value.is_nan() {
                continue;
            }
            assert_eq!(quantise(value, F32, Round::Nearest) as f32, value as f32, "{value:e}");
            let small = f64::from(f32::from_bits((seed >> 32) as u32));
            if !small.is_nan() {
                assert_eq!(
                    encode(small, Ty::F16, Round::Nearest),
                    u64::from(f16::from_f64(small).to_bits()),
                    "{small:e}"
                );
                assert_eq!(encode(small, Ty::Bf16, Round::Nearest), u64::from(bf16::from_f64(small).to_bits()));
            }
            let int = i128::from(seed as i64);
            assert_eq!(from_integer(int, Ty::F32, Round::Nearest) as u32, (seed as i64 as f32).to_bits());
            assert_eq!(from_integer(int, Ty::F64, Round::Nearest), (seed as i64 as f64).to_bits());
            let shifted = seed >> (seed & 63);
            assert_eq!(from_integer(shifted.into(), Ty::F32, Round::Nearest) as u32, (shifted as f32).to_bits());
            assert_eq!(from_integer(shifted.into(), Ty::F64, Round::Nearest), (shifted as f64).to_bits());
        }
    }

    #[test]
    fn directed_roundings_bracket_the_value() {
        let third = 1.0 / 3.0;
        let down = quantise(third, F32, Round::Down);
        let up = quantise(third, F32, Round::Up);
        assert!(down < third && third < up && (up as f32) == (down as f32).next_up());
        assert_eq!(quantise(1e300, F16, Round::Zero), 65504.0);
        assert_eq!(quantise(-1e300, F16, Round::Up), -65504.0);
        assert_eq!(quantise(1e-30, F16, Round::Up), 2.0_f64.powi(-24));
        assert_eq!(f32::from_bits(from_integer((1 << 24) + 1, Ty::F32, Round::Up) as u32), 16_777_218.0);
        assert_eq!(f32::from_bits(from_integer((1 << 24) + 1, Ty::F32, Round::Zero) as u32), 16_777_216.0);
        assert_eq!(f64::from_bits(from_integer((1 << 60) + 1, Ty::F64, Round::Up)), 2.0_f64.powi(60).next_up());
    }

    #[test]
    fn floats_saturate_to_integers() {
        assert_eq!(to_integer(2.5, Ty::S32, Round::Nearest), 2);
        assert_eq!(to_integer(-2.7, Ty::S32, Round::Zero) as i32, -2);
        assert_eq!(to_integer(300.0, Ty::S8, Round::Nearest) as i8, 127);
        assert_eq!(to_integer(f64::NAN, Ty::U32, Round::Zero), 0);
        assert_eq!(to_integer(-1.0, Ty::U32, Round::Zero), 0);
        assert_eq!(to_integer(f64::INFINITY, Ty::U64, Round::Zero), u64::MAX);
    }
}
