//! Float arithmetic, halves included.

use super::cursor::{Cursor, Decoded};
use crate::interp::op::{FloatBin, FloatMode, FloatUn, HalfFn, HalfTy, Op, R};
use crate::interp::ty::Ty;

/// The half format of a type, and whether a register holds two.
fn half(ty: Ty) -> Option<(HalfTy, bool)> {
    match ty {
        Ty::F16 => Some((HalfTy::F16, false)),
        Ty::F16x2 => Some((HalfTy::F16, true)),
        Ty::Bf16 => Some((HalfTy::Bf16, false)),
        Ty::Bf16x2 => Some((HalfTy::Bf16, true)),
        _ => None,
    }
}

/// `bf16` values live in `.b16` registers, `bf16x2` in `.b32`: PTX has no registers of those types.
fn register_ty(ty: Ty) -> Ty {
    match ty {
        Ty::Bf16 => Ty::B16,
        Ty::Bf16x2 => Ty::B32,
        ty => ty,
    }
}

/// `add`, `sub`, `mul`, `div`, `min`, `max`, `neg`, `abs`, `fma` and `mad` of floats.
pub(super) fn binary(c: &mut Cursor<'_, '_>, ty: Ty) -> Decoded<Op> {
    let name = c.name();
    let mode = FloatMode { ftz: c.has("ftz"), sat: c.has("sat"), nan: c.has("NaN") };
    if mode.nan && !matches!(name, "min" | "max") || mode.sat && matches!(name, "min" | "max" | "neg" | "abs") {
        return c.missing("`.NaN` only on min and max, `.sat` only on arithmetic");
    }
    let rounded = c.has("rn");
    let approximate = c.has("approx") || c.has("full");
    if name == "div" && !rounded && !approximate || matches!(name, "fma" | "mad") && !rounded {
        return c.missing("a rounding such as `.rn`");
    }
    if approximate && (name != "div" || ty != Ty::F32 || rounded) {
        return c.missing("`.approx` and `.full` only on `div.f32`, without a rounding");
    }
    let f = match name {
        "add" => FloatBin::Add,
        "sub" => FloatBin::Sub,
        "mul" => FloatBin::Mul,
        "div" => FloatBin::Div,
        "min" => FloatBin::Min,
        "max" => FloatBin::Max,
        "neg" | "abs" => {
            c.count(2)?;
            let f = if name == "neg" { FloatUn::Neg } else { FloatUn::Abs };
            return one_operand(c, f, ty, mode);
        }
        _ => return fma(c, ty, mode),
    };
    c.count(3)?;
    match ty {
        Ty::F32 => Ok(Op::Float32 { f, mode, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)? }),
        Ty::F64 => Ok(Op::Float64 { f, d: c.dst64(0, ty)?, a: c.src64(1, ty)?, b: c.src64(2, ty)? }),
        _ => {
            let Some((half, packed)) = half(ty).filter(|_| f != FloatBin::Div) else { return c.bad_type(ty) };
            let reg = register_ty(ty);
            let (d, a, b) = (c.dst32(0, reg)?, c.src32(1, reg)?, c.src32(2, reg)?);
            Ok(Op::Half { f: HalfFn::Bin(f), ty: half, packed, mode, d, a, b, c: a })
        }
    }
}

fn fma(c: &mut Cursor<'_, '_>, ty: Ty, mode: FloatMode) -> Decoded<Op> {
    c.count(4)?;
    match ty {
        Ty::F32 => {
            Ok(Op::Fma32 { mode, d: c.dst32(0, ty)?, a: c.src32(1, ty)?, b: c.src32(2, ty)?, c: c.src32(3, ty)? })
        }
        Ty::F64 => Ok(Op::Fma64 { d: c.dst64(0, ty)?, a: c.src64(1, ty)?, b: c.src64(2, ty)?, c: c.src64(3, ty)? }),
        _ => {
            let Some((half, packed)) = half(ty) else { return c.bad_type(ty) };
            let reg = register_ty(ty);
            let (d, a, b) = (c.dst32(0, reg)?, c.src32(1, reg)?, c.src32(2, reg)?);
            Ok(Op::Half { f: HalfFn::Fma, ty: half, packed, mode, d, a, b, c: c.src32(3, reg)? })
        }
    }
}

fn one_operand(c: &mut Cursor<'_, '_>, f: FloatUn, ty: Ty, mode: FloatMode) -> Decoded<Op> {
    match ty {
        Ty::F32 => Ok(Op::FloatUn32 { f, mode, d: c.dst32(0, ty)?, a: c.src32(1, ty)? }),
        Ty::F64 => Ok(Op::FloatUn64 { f, d: c.dst64(0, ty)?, a: c.src64(1, ty)? }),
        _ => {
            let Some((half, packed)) = half(ty) else { return c.bad_type(ty) };
            let reg = register_ty(ty);
            let (d, a): (R, R) = (c.dst32(0, reg)?, c.src32(1, reg)?);
            Ok(Op::Half { f: HalfFn::Un(f), ty: half, packed, mode, d, a, b: a, c: a })
        }
    }
}

/// `ex2`, `lg2`, `rcp`, `rsqrt`, `sqrt`, `sin`, `cos`, `tanh`.
pub(super) fn unary(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let f = match c.name() {
        "ex2" => FloatUn::Ex2,
        "lg2" => FloatUn::Lg2,
        "rcp" => FloatUn::Rcp,
        "rsqrt" => FloatUn::Rsqrt,
        "sqrt" => FloatUn::Sqrt,
        "sin" => FloatUn::Sin,
        "cos" => FloatUn::Cos,
        _ => FloatUn::Tanh,
    };
    let approximate = c.has("approx");
    let rounded = c.has("rn");
    let exact_exists = matches!(f, FloatUn::Rcp | FloatUn::Sqrt);
    if approximate == rounded || rounded && !exact_exists {
        return c.missing(if exact_exists { "`.approx` or `.rn`" } else { "`.approx`" });
    }
    let mode = FloatMode { ftz: c.has("ftz"), ..FloatMode::default() };
    let ty = c.ty()?;
    c.count(2)?;
    let known = match ty {
        Ty::F32 => true,
        Ty::F64 => rounded,
        _ => matches!(f, FloatUn::Ex2 | FloatUn::Tanh),
    };
    if known { one_operand(c, f, ty, mode) } else { c.bad_type(ty) }
}
