//! `setp` and `cvt`.

use super::cursor::{Cursor, Decoded};
use crate::interp::op::{Cmp, Cvt, HalfTy, Op, PredFn, Round};
use crate::interp::ty::Ty;

const COMPARISONS: [(&str, Cmp); 18] = [
    ("eq", Cmp::Eq),
    ("ne", Cmp::Ne),
    ("lt", Cmp::Lt),
    ("le", Cmp::Le),
    ("gt", Cmp::Gt),
    ("ge", Cmp::Ge),
    ("lo", Cmp::Lt),
    ("ls", Cmp::Le),
    ("hi", Cmp::Gt),
    ("hs", Cmp::Ge),
    ("equ", Cmp::Equ),
    ("neu", Cmp::Neu),
    ("ltu", Cmp::Ltu),
    ("leu", Cmp::Leu),
    ("gtu", Cmp::Gtu),
    ("geu", Cmp::Geu),
    ("num", Cmp::Num),
    ("nan", Cmp::Nan),
];

pub(super) fn setp(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let Some(cmp) = c.choose(&COMPARISONS) else { return c.missing("a comparison") };
    let combine = c.choose(&[("and", PredFn::And), ("or", PredFn::Or), ("xor", PredFn::Xor)]);
    let ftz = c.has("ftz");
    let ty = c.ty()?;
    let unordered =
        matches!(cmp, Cmp::Equ | Cmp::Neu | Cmp::Ltu | Cmp::Leu | Cmp::Gtu | Cmp::Geu | Cmp::Num | Cmp::Nan);
    let ordered_bits = ty.is_bits() && !matches!(cmp, Cmp::Eq | Cmp::Ne);
    if unordered && !ty.is_float()
        || ordered_bits
        || matches!(ty.bytes(), 0 | 1)
        || matches!(ty, Ty::F16x2 | Ty::Bf16x2)
    {
        return c.bad_type(ty);
    }
    c.count(if combine.is_some() { 4 } else { 3 })?;
    let (p, q) = c.dst_pred_pair(0)?;
    let reg = if ty == Ty::Bf16 { Ty::B16 } else { ty };
    let (a, b) = (c.src(1, reg)?, c.src(2, reg)?);
    let with = match combine {
        Some(f) => Some((f, c.src_pred(3)?)),
        None => None,
    };
    Ok(Op::Setp { ty, cmp, ftz, p, q, a, b, with })
}

/// A rounding modifier: its direction, and whether it rounds to a whole number.
const ROUNDINGS: [(&str, (Round, bool)); 8] = [
    ("rn", (Round::Nearest, false)),
    ("rz", (Round::Zero, false)),
    ("rm", (Round::Down, false)),
    ("rp", (Round::Up, false)),
    ("rni", (Round::Nearest, true)),
    ("rzi", (Round::Zero, true)),
    ("rmi", (Round::Down, true)),
    ("rpi", (Round::Up, true)),
];

pub(super) fn cvt(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let rounding = c.choose(&ROUNDINGS);
    let (ftz, sat) = (c.has("ftz"), c.has("sat"));
    let (to, from) = (c.ty()?, c.ty()?);
    if let Some(ty) = packed(to) {
        if from != Ty::F32 {
            return c.bad_type(from);
        }
        let Some((round @ (Round::Nearest | Round::Zero), false)) = rounding else {
            return c.missing("`.rn` or `.rz`");
        };
        c.count(3)?;
        return Ok(Op::CvtPack { ty, round, sat, d: c.dst32(0, Ty::B32)?, a: c.src32(1, from)?, b: c.src32(2, from)? });
    }
    for ty in [to, from] {
        if packed(ty).is_some() || ty == Ty::Pred || ty.is_bits() {
            return c.bad_type(ty);
        }
    }
    let whole = needed_rounding(c, to, from, rounding)?;
    c.count(2)?;
    let register = |ty| if ty == Ty::Bf16 { Ty::B16 } else { ty };
    // Integers may live in wider registers on both sides; floats may not.
    let d = if to.is_float() { c.dst(0, register(to))? } else { c.dst_wide(0, to)? };
    let a = if from.is_float() { c.src(1, register(from))? } else { c.src_wide(1, from)? };
    let round = rounding.map_or(Round::Nearest, |(round, _)| round);
    Ok(Op::Cvt(Cvt { from, to, round, whole, sat, ftz, a, d }))
}

/// The half format of a packed type.
fn packed(ty: Ty) -> Option<HalfTy> {
    match ty {
        Ty::F16x2 => Some(HalfTy::F16),
        Ty::Bf16x2 => Some(HalfTy::Bf16),
        _ => None,
    }
}

/// Checks that a rounding is there exactly where one is needed; says whether it is to a whole number.
fn needed_rounding(c: &Cursor<'_, '_>, to: Ty, from: Ty, rounding: Option<(Round, bool)>) -> Decoded<bool> {
    let narrows = match (from.is_float(), to.is_float()) {
        (true, true) => to.bytes() < from.bytes() || to.bytes() == 2 && from.bytes() == 2 && to != from,
        (from_float, to_float) => from_float || to_float,
    };
    match (rounding, to.is_float(), from.is_float()) {
        (None, _, _) if narrows => c.missing("a rounding"),
        (None, _, _) => Ok(false),
        (Some((_, true)), false, true) => Ok(true),
        // `cvt.rni.f32.f32` rounds to a whole number without leaving its format.
        (Some((_, true)), true, true) if to == from => Ok(true),
        (Some((_, false)), true, _) if narrows => Ok(false),
        _ => c.missing("a rounding that fits its types"),
    }
}
