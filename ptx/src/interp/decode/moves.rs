//! `mov`, `cvta`, `selp`, `slct`: values from one place to another.

use super::cursor::{Cursor, Decoded};
use crate::interp::op::{Any, D, Op, R};
use crate::interp::text::RawOperand;
use crate::interp::ty::Ty;

/// The narrow registers of a vector of parts.
fn narrow<const N: usize>(parts: [Any; N]) -> [R; N] {
    parts.map(|part| match part {
        Any::R8(r) | Any::R16(r) | Any::R32(r) => r,
        Any::R64(D(index)) => R(index),
    })
}

pub(super) fn mov(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    c.count(2)?;
    if ty == Ty::Pred {
        return Ok(Op::MovPred { d: c.dst_pred(0)?, a: c.src_pred(1)?.p });
    }
    if let Some(parts) = c.vector(1) {
        return pack(c, ty, parts.len());
    }
    if let Some(parts) = c.vector(0) {
        return unpack(c, ty, parts.len());
    }
    if let Some(op) = clock(c, ty)? {
        return Ok(op);
    }
    if let Some(special) = c.special_register(1) {
        if ty.bytes() != 4 || ty.is_float() {
            return c.bad_type(ty);
        }
        return Ok(Op::Mov32 { d: c.dst32(0, ty)?, a: c.special_source(special)? });
    }
    if let Some(address) = c.shared_variable(1) {
        return match (c.shared_source(address, ty.bytes() == 8)?, ty.bytes()) {
            (Any::R64(a), 8) => Ok(Op::Mov64 { d: c.dst64(0, ty)?, a }),
            (Any::R32(a), 4) => Ok(Op::Mov32 { d: c.dst32(0, ty)?, a }),
            _ => c.bad_type(ty),
        };
    }
    match ty.bytes() {
        8 => Ok(Op::Mov64 { d: c.dst64(0, ty)?, a: c.src64(1, ty)? }),
        1 => c.bad_type(ty),
        _ => Ok(Op::Mov32 { d: c.dst32(0, ty)?, a: c.src32(1, ty)? }),
    }
}

fn pack(c: &mut Cursor<'_, '_>, ty: Ty, parts: usize) -> Decoded<Op> {
    match (ty.bytes(), parts) {
        (4, 2) => Ok(Op::Pack32 { d: c.dst32(0, ty)?, parts: narrow(c.src_parts::<2>(1, Ty::B16, false)?) }),
        (8, 2) => Ok(Op::Pack64 { d: c.dst64(0, ty)?, parts: narrow(c.src_parts::<2>(1, Ty::B32, false)?) }),
        (8, 4) => Ok(Op::Pack64x4 { d: c.dst64(0, ty)?, parts: narrow(c.src_parts::<4>(1, Ty::B16, false)?) }),
        _ => c.bad_type(ty),
    }
}

fn unpack(c: &mut Cursor<'_, '_>, ty: Ty, parts: usize) -> Decoded<Op> {
    match (ty.bytes(), parts) {
        (4, 2) => Ok(Op::Unpack32 { a: c.src32(1, ty)?, parts: narrow(c.dst_parts::<2>(0, Ty::B16, false)?) }),
        (8, 2) => Ok(Op::Unpack64 { a: c.src64(1, ty)?, parts: narrow(c.dst_parts::<2>(0, Ty::B32, false)?) }),
        (8, 4) => Ok(Op::Unpack64x4 { a: c.src64(1, ty)?, parts: narrow(c.dst_parts::<4>(0, Ty::B16, false)?) }),
        _ => c.bad_type(ty),
    }
}

/// The special registers that change while a kernel runs.
fn clock(c: &mut Cursor<'_, '_>, ty: Ty) -> Decoded<Option<Op>> {
    let RawOperand::Name(name) = *c.raw(1)? else { return Ok(None) };
    Ok(Some(match name {
        "%clock" => Op::Clock32 { d: c.dst32(0, ty)?, high: false },
        "%clock_hi" => Op::Clock32 { d: c.dst32(0, ty)?, high: true },
        "%clock64" | "%globaltimer" => Op::Clock64 { d: c.dst64(0, ty)? },
        _ => return Ok(None),
    }))
}

/// `cvta.to.global.u64`: a generic address of global memory is the same number.
pub(super) fn cvta(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    c.has("to");
    if !c.has("global") {
        return c.missing("`.global`: generic addresses of other spaces are not part of the subset");
    }
    match c.ty()? {
        Ty::U64 => {
            c.count(2)?;
            Ok(Op::Mov64 { d: c.dst64(0, Ty::U64)?, a: c.src64(1, Ty::U64)? })
        }
        ty => c.bad_type(ty),
    }
}

pub(super) fn selp(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let ty = c.ty()?;
    c.count(4)?;
    match ty.bytes() {
        8 => Ok(Op::Selp64 { d: c.dst64(0, ty)?, a: c.src64(1, ty)?, b: c.src64(2, ty)?, p: c.src_pred(3)? }),
        2 | 4 => Ok(Op::Selp32 { d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)?, p: c.src_pred(3)? }),
        _ => c.bad_type(ty),
    }
}

pub(super) fn slct(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    c.has("ftz");
    let ty = c.ty()?;
    let by = c.ty()?;
    c.count(4)?;
    let float = match by {
        Ty::S32 => false,
        Ty::F32 => true,
        _ => return c.bad_type(by),
    };
    match ty.bytes() {
        8 => Ok(Op::Slct64 { float, d: c.dst64(0, ty)?, a: c.src64(1, ty)?, b: c.src64(2, ty)?, c: c.src32(3, by)? }),
        2 | 4 => {
            Ok(Op::Slct32 { float, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)?, c: c.src32(3, by)? })
        }
        _ => c.bad_type(ty),
    }
}
