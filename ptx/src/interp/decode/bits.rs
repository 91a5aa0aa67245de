//! Bits: logic, shifts, fields, permutations and counts.

use super::arith;
use super::cursor::{Cursor, Decoded};
use crate::interp::op::{IntBin, IntUn, Op, PredFn, PrmtMode, Shift};
use crate::interp::ty::Ty;

pub(super) fn logic(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    let name = c.name();
    if ty != Ty::Pred && !ty.is_bits() {
        return c.bad_type(ty);
    }
    if name == "not" {
        c.count(2)?;
        let f = IntUn::Not;
        return match ty.bytes() {
            0 => Ok(Op::PredNot { d: c.dst_pred(0)?, a: c.src_pred(1)?.p }),
            2 => Ok(Op::IntUn16 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)? }),
            4 => Ok(Op::IntUn32 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)? }),
            8 => Ok(Op::IntUn64 { f, d: c.dst64(0, ty)?, a: c.src64(1, ty)? }),
            _ => c.bad_type(ty),
        };
    }
    c.count(3)?;
    let (pred, int) = match name {
        "and" => (PredFn::And, IntBin::And),
        "or" => (PredFn::Or, IntBin::Or),
        _ => (PredFn::Xor, IntBin::Xor),
    };
    if ty == Ty::Pred {
        return Ok(Op::PredBin { f: pred, d: c.dst_pred(0)?, a: c.src_pred(1)?, b: c.src_pred(2)? });
    }
    arith::binary(c, int, ty)
}

pub(super) fn shift(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    c.count(3)?;
    let f = match (c.name(), ty.is_signed()) {
        ("shl", _) if !ty.is_bits() => return c.bad_type(ty),
        ("shl", _) => Shift::Left,
        (_, true) => Shift::RightS,
        (_, false) => Shift::RightU,
    };
    if ty.is_float() {
        return c.bad_type(ty);
    }
    let amount = Ty::U32;
    match ty.bytes() {
        2 => Ok(Op::Shift16 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, n: c.src32(2, amount)? }),
        4 => Ok(Op::Shift32 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, n: c.src32(2, amount)? }),
        8 => Ok(Op::Shift64 { f, d: c.dst64(0, ty)?, a: c.src64(1, ty)?, n: c.src32(2, amount)? }),
        _ => c.bad_type(ty),
    }
}

pub(super) fn funnel(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let Some(left) = c.choose(&[("l", true), ("r", false)]) else { return c.missing("`.l` or `.r`") };
    let Some(wrap) = c.choose(&[("wrap", true), ("clamp", false)]) else { return c.missing("`.wrap` or `.clamp`") };
    let ty = c.ty()?;
    if ty != Ty::B32 {
        return c.bad_type(ty);
    }
    c.count(4)?;
    Ok(Op::Shf { left, wrap, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)?, c: c.src32(3, Ty::U32)? })
}

pub(super) fn field(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    if c.name() == "bfe" {
        let signed = ty.is_signed();
        c.count(4)?;
        return match ty {
            Ty::U32 | Ty::S32 => Ok(Op::Bfe32 {
                signed,
                d: c.dst32(0, ty)?,
                a: c.src32(1, ty)?,
                b: c.src32(2, Ty::U32)?,
                c: c.src32(3, Ty::U32)?,
            }),
            Ty::U64 | Ty::S64 => Ok(Op::Bfe64 {
                signed,
                d: c.dst64(0, ty)?,
                a: c.src64(1, ty)?,
                b: c.src32(2, Ty::U32)?,
                c: c.src32(3, Ty::U32)?,
            }),
            _ => c.bad_type(ty),
        };
    }
    c.count(5)?;
    match ty {
        Ty::B32 => Ok(Op::Bfi32 {
            d: c.dst32(0, ty)?,
            a: c.src32(1, ty)?,
            b: c.src32(2, ty)?,
            c: c.src32(3, Ty::U32)?,
            len: c.src32(4, Ty::U32)?,
        }),
        Ty::B64 => Ok(Op::Bfi64 {
            d: c.dst64(0, ty)?,
            a: c.src64(1, ty)?,
            b: c.src64(2, ty)?,
            c: c.src32(3, Ty::U32)?,
            len: c.src32(4, Ty::U32)?,
        }),
        _ => c.bad_type(ty),
    }
}

pub(super) fn prmt(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    if ty != Ty::B32 {
        return c.bad_type(ty);
    }
    let mode = c
        .choose(&[
            ("f4e", PrmtMode::F4e),
            ("b4e", PrmtMode::B4e),
            ("rc8", PrmtMode::Rc8),
            ("ecl", PrmtMode::Ecl),
            ("ecr", PrmtMode::Ecr),
            ("rc16", PrmtMode::Rc16),
        ])
        .unwrap_or(PrmtMode::Index);
    c.count(4)?;
    Ok(Op::Prmt { mode, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)?, c: c.src32(3, ty)? })
}

pub(super) fn lop3(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    if ty != Ty::B32 {
        return c.bad_type(ty);
    }
    c.count(5)?;
    let lut = c.literal(4, 0xff)? as u8;
    Ok(Op::Lop3 { lut, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)?, c: c.src32(3, ty)? })
}

pub(super) fn count(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    c.count(2)?;
    let f = match c.name() {
        "popc" => IntUn::Popc,
        "clz" => IntUn::Clz,
        _ => IntUn::Brev,
    };
    match (f, ty) {
        (_, Ty::B32) => Ok(Op::IntUn32 { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)? }),
        (IntUn::Brev, Ty::B64) => Ok(Op::IntUn64 { f, d: c.dst64(0, ty)?, a: c.src64(1, ty)? }),
        (_, Ty::B64) => Ok(Op::Count64 { f, d: c.dst32(0, Ty::U32)?, a: c.src64(1, ty)? }),
        _ => c.bad_type(ty),
    }
}
