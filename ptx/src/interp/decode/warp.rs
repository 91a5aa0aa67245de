//! What the lanes of a warp, or the warps of a block, do together.

use super::cursor::{Cursor, Decoded};
use crate::interp::op::{Any, Mma, MmaTy, Op, Pin, R, ReduxFn, Shfl, ShflMode, VoteFn};
use crate::interp::ty::Ty;

fn sync(c: &mut Cursor<'_, '_>) -> Decoded<()> {
    if c.has("sync") { Ok(()) } else { c.missing("`.sync`") }
}

pub(super) fn shfl(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    sync(c)?;
    let modes = [("up", ShflMode::Up), ("down", ShflMode::Down), ("bfly", ShflMode::Bfly), ("idx", ShflMode::Idx)];
    let Some(mode) = c.choose(&modes) else { return c.missing("`.up`, `.down`, `.bfly` or `.idx`") };
    match c.ty()? {
        Ty::B32 => {}
        ty => return c.bad_type(ty),
    }
    c.count(5)?;
    let (d, p) = c.dst32_pred(0, Ty::B32)?;
    Ok(Op::Shfl(Shfl {
        mode,
        d,
        p,
        a: c.src32(1, Ty::B32)?,
        b: c.src32(2, Ty::U32)?,
        c: c.src32(3, Ty::U32)?,
        members: c.src32(4, Ty::U32)?,
    }))
}

pub(super) fn vote(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    sync(c)?;
    if c.has("ballot") {
        match c.ty()? {
            Ty::B32 => {}
            ty => return c.bad_type(ty),
        }
        c.count(3)?;
        return Ok(Op::Ballot { d: c.dst32(0, Ty::B32)?, a: c.src_pred(1)?, members: c.src32(2, Ty::U32)? });
    }
    let Some(f) = c.choose(&[("all", VoteFn::All), ("any", VoteFn::Any), ("uni", VoteFn::Uni)]) else {
        return c.missing("`.all`, `.any`, `.uni` or `.ballot`");
    };
    match c.ty()? {
        Ty::Pred => {}
        ty => return c.bad_type(ty),
    }
    c.count(3)?;
    let (d, a): (_, Pin) = (c.dst_pred(0)?, c.src_pred(1)?);
    Ok(Op::Vote { f, d, a, members: c.src32(2, Ty::U32)? })
}

pub(super) fn matching(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let Some(any) = c.choose(&[("any", true), ("all", false)]) else { return c.missing("`.any` or `.all`") };
    sync(c)?;
    let ty = c.ty()?;
    if !matches!(ty, Ty::B32 | Ty::B64) {
        return c.bad_type(ty);
    }
    c.count(3)?;
    let (d, p) = if any { (c.dst32(0, Ty::B32)?, None) } else { c.dst32_pred(0, Ty::B32)? };
    let (a, members): (Any, R) = (c.src(1, ty)?, c.src32(2, Ty::U32)?);
    Ok(if any { Op::MatchAny { d, a, members } } else { Op::MatchAll { d, p, a, members } })
}

pub(super) fn redux(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    sync(c)?;
    let names = ["add", "min", "max", "and", "or", "xor"];
    let Some(name) = names.into_iter().find(|name| c.has(name)) else { return c.missing("an operation") };
    let ty = c.ty()?;
    let f = match (name, ty) {
        ("add", Ty::U32 | Ty::S32) => ReduxFn::Add,
        ("min", Ty::U32) => ReduxFn::MinU,
        ("min", Ty::S32) => ReduxFn::MinS,
        ("max", Ty::U32) => ReduxFn::MaxU,
        ("max", Ty::S32) => ReduxFn::MaxS,
        ("and", Ty::B32) => ReduxFn::And,
        ("or", Ty::B32) => ReduxFn::Or,
        ("xor", Ty::B32) => ReduxFn::Xor,
        _ => return c.bad_type(ty),
    };
    c.count(3)?;
    Ok(Op::Redux { f, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, members: c.src32(2, Ty::U32)? })
}

pub(super) fn activemask(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    match c.ty()? {
        Ty::B32 => {}
        ty => return c.bad_type(ty),
    }
    c.count(1)?;
    Ok(Op::ActiveMask { d: c.dst32(0, Ty::B32)? })
}

pub(super) fn bar(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    if c.has("warp") {
        sync(c)?;
        c.count(1)?;
        return Ok(Op::BarWarp { members: c.src32(0, Ty::U32)? });
    }
    c.has("cta");
    let Some(arrive) = c.choose(&[("sync", false), ("arrive", true)]) else {
        return c.missing("`.sync`, `.arrive` or `.warp.sync`");
    };
    c.has("aligned");
    if c.operands() == 1 && !arrive {
        return Ok(Op::Bar { id: c.src32(0, Ty::U32)?, threads: None, arrive });
    }
    c.count(2)?;
    Ok(Op::Bar { id: c.src32(0, Ty::U32)?, threads: Some(c.src32(1, Ty::U32)?), arrive })
}

pub(super) fn mma(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    for needed in ["sync", "aligned"] {
        if !c.has(needed) {
            return c.missing("`.sync.aligned`");
        }
    }
    let Some(k) = c.choose(&[("m16n8k8", 8), ("m16n8k16", 16), ("m16n8k32", 32)]) else {
        return c.missing("a shape: `.m16n8k8`, `.m16n8k16` or `.m16n8k32`");
    };
    if !c.has("row") || !c.has("col") {
        return c.missing("`.row.col`");
    }
    let sat = c.has("satfinite");
    let (d_ty, a_ty, b_ty, c_ty) = (c.ty()?, c.ty()?, c.ty()?, c.ty()?);
    let (ty, sum) = match (a_ty, b_ty) {
        (Ty::F16, Ty::F16) => (MmaTy::F16, Ty::F32),
        (Ty::Bf16, Ty::Bf16) => (MmaTy::Bf16, Ty::F32),
        (Ty::S8 | Ty::U8, Ty::S8 | Ty::U8) => (MmaTy::Int8(a_ty.is_signed(), b_ty.is_signed()), Ty::S32),
        _ => return c.bad_type(a_ty),
    };
    if d_ty != sum || c_ty != sum {
        return c.bad_type(if d_ty == sum { c_ty } else { d_ty });
    }
    let integer = matches!(ty, MmaTy::Int8(..));
    // One register of B covers 8 rows of K for halves and 16 for bytes.
    let blocks = match (integer, k) {
        (false, 8) | (true, 16) => 1,
        (false, 16) | (true, 32) => 2,
        _ => return c.missing("a shape its types have"),
    };
    if sat && !integer {
        return c.missing("`.satfinite` only for integers");
    }
    c.count(4)?;
    let narrow = |any: Any| match any {
        Any::R8(r) | Any::R16(r) | Any::R32(r) => r,
        Any::R64(d) => R(d.0),
    };
    let input = Ty::B32;
    let (a, b) = if blocks == 1 {
        let ([a0, a1], [b0]) = (c.src_parts::<2>(1, input, false)?, c.src_parts::<1>(2, input, false)?);
        ([a0, a1, a0, a1], [b0, b0])
    } else {
        (c.src_parts::<4>(1, input, false)?, c.src_parts::<2>(2, input, false)?)
    };
    Ok(Op::Mma(Mma {
        ty,
        blocks,
        sat,
        d: c.dst_parts::<4>(0, sum, false)?.map(narrow),
        a: a.map(narrow),
        b: b.map(narrow),
        c: c.src_parts::<4>(3, sum, false)?.map(narrow),
    }))
}
