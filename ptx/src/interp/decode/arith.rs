//! Integer arithmetic and the instructions whose name integers and floats share.

use super::cursor::{Cursor, Decoded};
use super::float;
use crate::interp::op::{IntBin, IntUn, Op};
use crate::interp::ty::Ty;

/// The part of a product that is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Low,
    High,
    Wide,
}

const HALVES: [(&str, Half); 3] = [("lo", Half::Low), ("hi", Half::High), ("wide", Half::Wide)];

pub(super) fn decode(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    if ty.is_float() {
        return float::binary(c, ty);
    }
    let signed = ty.is_signed();
    match c.name() {
        "mul" => product(c, ty, 3),
        "mad" => product(c, ty, 4),
        "neg" | "abs" => {
            if !signed {
                return c.bad_type(ty);
            }
            unary(c, ty)
        }
        name => {
            let sat = c.has("sat");
            let f = match (name, signed, sat) {
                ("add", _, false) => IntBin::Add,
                ("sub", _, false) => IntBin::Sub,
                ("add", true, true) if ty == Ty::S32 => IntBin::AddSatS,
                ("sub", true, true) if ty == Ty::S32 => IntBin::SubSatS,
                ("div", true, false) => IntBin::DivS,
                ("div", false, false) => IntBin::DivU,
                ("rem", true, false) => IntBin::RemS,
                ("rem", false, false) => IntBin::RemU,
                ("min", true, false) => IntBin::MinS,
                ("min", false, false) => IntBin::MinU,
                ("max", true, false) => IntBin::MaxS,
                ("max", false, false) => IntBin::MaxU,
                _ => return c.bad_type(ty),
            };
            if !ty.is_int() {
                return c.bad_type(ty);
            }
            c.count(3)?;
            binary(c, f, ty)
        }
    }
}

/// A two-operand operation at the width of `ty`.
pub(super) fn binary(c: &mut Cursor<'_, '_>, f: IntBin, ty: Ty) -> Decoded<Op> {
    match ty.bytes() {
        2 => Ok(Op::Int16 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)? }),
        4 => Ok(Op::Int32 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)? }),
        8 => Ok(Op::Int64 { f, d: c.dst64(0, ty)?, a: c.src64(1, ty)?, b: c.src64(2, ty)? }),
        _ => c.bad_type(ty),
    }
}

fn unary(c: &mut Cursor<'_, '_>, ty: Ty) -> Decoded<Op> {
    let f = if c.name() == "neg" { IntUn::Neg } else { IntUn::Abs };
    c.count(2)?;
    match ty.bytes() {
        2 => Ok(Op::IntUn16 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)? }),
        4 => Ok(Op::IntUn32 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)? }),
        8 => Ok(Op::IntUn64 { f, d: c.dst64(0, ty)?, a: c.src64(1, ty)? }),
        _ => c.bad_type(ty),
    }
}

fn product(c: &mut Cursor<'_, '_>, ty: Ty, operands: usize) -> Decoded<Op> {
    let Some(half) = c.choose(&HALVES) else { return c.missing("`.lo`, `.hi` or `.wide`") };
    let signed = ty.is_signed();
    c.count(operands)?;
    if !ty.is_int() {
        return c.bad_type(ty);
    }
    let add = operands == 4;
    if half == Half::Wide {
        return match ty {
            Ty::U16 | Ty::S16 => {
                let wide = if signed { Ty::S32 } else { Ty::U32 };
                let (d, a, b) = (c.dst32(0, wide)?, c.src32(1, ty)?, c.src32(2, ty)?);
                let c = if add { Some(c.src32(3, wide)?) } else { None };
                Ok(Op::MulWide16 { signed, d, a, b, c })
            }
            Ty::U32 | Ty::S32 => {
                let wide = if signed { Ty::S64 } else { Ty::U64 };
                let (d, a, b) = (c.dst64(0, wide)?, c.src32(1, ty)?, c.src32(2, ty)?);
                let c = if add { Some(c.src64(3, wide)?) } else { None };
                Ok(Op::MulWide32 { signed, d, a, b, c })
            }
            _ => c.bad_type(ty),
        };
    }
    let f = match (half, signed) {
        (Half::Low, _) => IntBin::MulLo,
        (_, true) => IntBin::MulHiS,
        (_, false) => IntBin::MulHiU,
    };
    if !add {
        return binary(c, f, ty);
    }
    match ty.bytes() {
        2 => Ok(Op::Mad16 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)?, c: c.src32(3, ty)? }),
        4 => Ok(Op::Mad32 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)?, c: c.src32(3, ty)? }),
        8 => Ok(Op::Mad64 { f, d: c.dst64(0, ty)?, a: c.src64(1, ty)?, b: c.src64(2, ty)?, c: c.src64(3, ty)? }),
        _ => c.bad_type(ty),
    }
}

pub(super) fn dp4a(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let a_ty = c.ty()?;
    let b_ty = c.ty()?;
    for ty in [a_ty, b_ty] {
        if !matches!(ty, Ty::U32 | Ty::S32) {
            return c.bad_type(ty);
        }
    }
    let (a_signed, b_signed) = (a_ty.is_signed(), b_ty.is_signed());
    let sum = if a_signed || b_signed { Ty::S32 } else { Ty::U32 };
    c.count(4)?;
    Ok(Op::Dp4a {
        a_signed,
        b_signed,
        d: c.dst32(0, sum)?,
        a: c.src32(1, Ty::B32)?,
        b: c.src32(2, Ty::B32)?,
        c: c.src32(3, sum)?,
    })
}
