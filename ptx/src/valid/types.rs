//! Which operations exist for which types, and from which target on (PTX ISA 8.0, "Instruction Set").

use super::{Checked, ValidErrorKind};
use crate::ir::{AtomicOp, BinaryOp, Cmp, Inst, MatchMode, ReduceOp, Rounding, Target, TernaryOp, Type, UnaryOp};

pub(super) fn check(inst: &Inst, target: Target) -> Checked {
    match *inst {
        Inst::Mov { ty, .. } => of(ty, ty.bits() != 8),
        Inst::Select { ty, .. } => of(ty, ty.bits() >= 16),
        Inst::Pack { ty, .. } | Inst::Unpack { ty, .. } => of(ty, matches!(ty, Type::B32 | Type::B64)),
        Inst::Unary { op, ty, .. } => of(ty, unary(op, ty)),
        Inst::Binary { op, ty, .. } => {
            of(ty, binary(op, ty))?;
            let sums = matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul);
            needs_sm90(sums && matches!(ty, Type::Bf16 | Type::Bf16x2), target)
        }
        Inst::Ternary { op, ty, .. } => of(ty, ternary(op, ty)),
        Inst::Compare { cmp, ty, .. } => {
            of(ty, compare(cmp, ty))?;
            needs_sm90(ty == Type::Bf16, target)
        }
        Inst::ExtractBits { ty, .. } => of(ty, ty.is_integer() && ty.bits() >= 32),
        Inst::InsertBits { ty, .. } => of(ty, matches!(ty, Type::B32 | Type::B64)),
        Inst::Convert { to, from, rounding, saturate, .. } => convert(to, from, rounding, saturate, target),
        Inst::ConvertPair { to, .. } => of(to, to.is_pair()),
        Inst::Load(ref load) => of(load.ty, load.ty != Type::Pred),
        Inst::Store(ref store) => of(store.ty, store.ty != Type::Pred),
        Inst::Atomic(atomic) => of(atomic.ty, atomic_type(atomic.op, atomic.ty)),
        Inst::Match { mode: MatchMode::Any | MatchMode::All, ty, .. } => of(ty, matches!(ty, Type::B32 | Type::B64)),
        Inst::Reduce { op, ty, .. } => of(ty, reduce(op, ty)),
        Inst::WaitForDependencies | Inst::LaunchDependents => needs_sm90(true, target),
        _ => Ok(()),
    }
}

fn of(ty: Type, exists: bool) -> Checked {
    if exists { Ok(()) } else { Err(ValidErrorKind::NoSuchOperation { ty }) }
}

fn needs_sm90(newer: bool, target: Target) -> Checked {
    if newer && target < Target::Sm90 {
        return Err(ValidErrorKind::Target { needs: Target::Sm90, target });
    }
    Ok(())
}

/// f16, bf16 and their pairs.
fn is_half(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::Bf16) || ty.is_pair()
}

/// Integers of more than 8 bits.
fn is_number(ty: Type) -> bool {
    ty.is_integer() && ty.bits() >= 16
}

fn unary(op: UnaryOp, ty: Type) -> bool {
    match op {
        UnaryOp::Neg | UnaryOp::Abs => (ty.is_signed() && ty.bits() >= 16) || ty.is_float() || ty.is_pair(),
        UnaryOp::Not => ty == Type::Pred || (ty.is_bits() && ty.bits() >= 16),
        UnaryOp::Popc | UnaryOp::Clz | UnaryOp::Brev => matches!(ty, Type::B32 | Type::B64),
        UnaryOp::RcpRn | UnaryOp::SqrtRn => matches!(ty, Type::F32 | Type::F64),
        UnaryOp::Tanh => matches!(ty, Type::F32 | Type::F16 | Type::F16x2),
        UnaryOp::Ex2(_)
        | UnaryOp::Lg2(_)
        | UnaryOp::RcpApprox(_)
        | UnaryOp::Rsqrt(_)
        | UnaryOp::SqrtApprox(_)
        | UnaryOp::Sin
        | UnaryOp::Cos => ty == Type::F32,
    }
}

fn binary(op: BinaryOp, ty: Type) -> bool {
    match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Min | BinaryOp::Max => {
            is_number(ty) || ty.is_float() || ty.is_pair()
        }
        BinaryOp::MulHi | BinaryOp::Div | BinaryOp::Rem => is_number(ty),
        BinaryOp::MulWide => is_number(ty) && ty.bits() <= 32,
        BinaryOp::DivApprox | BinaryOp::DivFull => ty == Type::F32,
        BinaryOp::DivRn => matches!(ty, Type::F32 | Type::F64),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => ty == Type::Pred || (ty.is_bits() && ty.bits() >= 16),
        BinaryOp::Shl => ty.is_bits() && ty.bits() >= 16,
        BinaryOp::Shr => (ty.is_bits() || ty.is_integer()) && ty.bits() >= 16,
    }
}

fn ternary(op: TernaryOp, ty: Type) -> bool {
    match op {
        TernaryOp::Mad | TernaryOp::MadHi => is_number(ty),
        TernaryOp::MadWide => is_number(ty) && ty.bits() <= 32,
        TernaryOp::Fma => is_half(ty) || matches!(ty, Type::F32 | Type::F64),
    }
}

fn compare(cmp: Cmp, ty: Type) -> bool {
    let equality = matches!(cmp, Cmp::Eq | Cmp::Ne);
    if ty.is_float() {
        return true;
    }
    (is_number(ty) && !cmp.is_float_only()) || (ty.is_bits() && ty.bits() >= 16 && equality)
}

fn atomic_type(op: AtomicOp, ty: Type) -> bool {
    match op {
        AtomicOp::Add => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::F32 | Type::F64),
        AtomicOp::Min | AtomicOp::Max => matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64),
        AtomicOp::Inc => ty == Type::U32,
        AtomicOp::And | AtomicOp::Or | AtomicOp::Xor | AtomicOp::Exch | AtomicOp::Cas => {
            matches!(ty, Type::B32 | Type::B64)
        }
    }
}

fn reduce(op: ReduceOp, ty: Type) -> bool {
    if op.is_bitwise() { ty == Type::B32 } else { matches!(ty, Type::U32 | Type::S32) }
}

fn convert(to: Type, from: Type, rounding: Option<Rounding>, saturate: bool, target: Target) -> Checked {
    let scalar = |ty: Type| ty.is_integer() || ty.is_float();
    let error = |why| {
        let rounding = rounding.map_or_else(|| "without rounding".to_owned(), |r| format!("with .{}", r.name()));
        Err(ValidErrorKind::Conversion { from, to, rounding, why })
    };
    if !scalar(to) || !scalar(from) {
        return error("both have to be one integer or float");
    }
    let bf16 = to == Type::Bf16 || from == Type::Bf16;
    if bf16 && !matches!((to, from), (Type::Bf16, Type::F32) | (Type::F32, Type::Bf16)) {
        return error("bf16 converts from and to f32 only");
    }
    needs_sm90(from == Type::Bf16, target)?;
    let whole = rounding.is_some_and(Rounding::is_whole);
    let narrows = to.bits() < from.bits();
    match (to.is_float(), from.is_float()) {
        (false, false) if rounding.is_some() => error("integers are not rounded"),
        (false, false) if saturate && holds_all(to, from) => error("nothing to saturate"),
        (false, true) if !whole => error("an integer takes .rni, .rzi, .rmi or .rpi"),
        (true, false) if rounding.is_none_or(Rounding::is_whole) => {
            error("a float from an integer takes .rn, .rz, .rm or .rp")
        }
        (true, true) if narrows && rounding.is_none_or(Rounding::is_whole) => {
            error("a narrower float takes .rn, .rz, .rm or .rp")
        }
        (true, true) if bf16 && narrows && !matches!(rounding, Some(Rounding::Rn | Rounding::Rz)) => {
            error("bf16 takes .rn or .rz")
        }
        (true, true) if to.bits() > from.bits() && rounding.is_some() => error("a wider float is exact"),
        (true, true) if to.bits() == from.bits() && !whole => error("the same type takes .rni, .rzi, .rmi or .rpi"),
        (true, _) if saturate && bf16 => error("bf16 does not saturate"),
        _ => Ok(()),
    }
}

/// Whether every value of the integer type `from` is one of `to`.
fn holds_all(to: Type, from: Type) -> bool {
    match (to.is_signed(), from.is_signed()) {
        (true, false) => to.bits() > from.bits(),
        (false, true) => false,
        _ => to.bits() >= from.bits(),
    }
}
