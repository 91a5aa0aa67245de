//! Operands: registers exist and have the class that is needed, immediates are in range.

use super::{Checked, ValidErrorKind};
use crate::ir::{Address, Base, Imm, Inst, Kernel, Need, Operand, RegId, Slot, Type};

pub(super) fn check(inst: &Inst, kernel: &Kernel) -> Checked {
    let mut result = Ok(());
    inst.slots(kernel, &mut |slot| {
        if result.is_ok() {
            result = match slot {
                Slot::Def(reg, need) | Slot::Use(Operand::Reg(reg), need) => register(reg, need, kernel),
                Slot::Use(Operand::Imm(imm), need) => immediate(imm, need.ty),
            };
        }
    });
    result?;
    match *inst {
        Inst::LoadParam { param, .. } if param.0 as usize >= kernel.params.len() => {
            Err(ValidErrorKind::UnknownParam { index: param.0, count: kernel.params.len() })
        }
        Inst::AddressOf { shared, .. } => known_shared(Base::Shared(shared), kernel),
        Inst::Load(ref load) => known(load.from, kernel),
        Inst::Store(ref store) => known(store.to, kernel),
        Inst::Atomic(atomic) => known(atomic.at, kernel),
        Inst::Prefetch { at, .. } => known(at, kernel),
        Inst::LoadMatrix(ref load) => known(load.from, kernel),
        Inst::CopyAsync(copy) => known(copy.to, kernel).and_then(|()| known(copy.from, kernel)),
        Inst::ExtractBits { start, len, .. } | Inst::InsertBits { start, len, .. } => {
            range("start of a bit field", start, 0, 255, "0 to 255")?;
            range("length of a bit field", len, 0, 255, "0 to 255")
        }
        Inst::Shuffle(shuffle) => range("lane of a shuffle", shuffle.lane, 0, 31, "0 to 31"),
        Inst::Nanosleep { ns } => range("sleep", ns, 0, 1_000_000, "0 to 1000000 ns"),
        Inst::AssumeMultiple { of, .. } if !of.is_power_of_two() => {
            Err(ValidErrorKind::Range { what: "assumed divisor", expected: "a power of two", found: of.into() })
        }
        _ => Ok(()),
    }
}

fn known(address: Address, kernel: &Kernel) -> Checked {
    known_shared(address.base, kernel)
}

fn known_shared(base: Base, kernel: &Kernel) -> Checked {
    match base {
        Base::Shared(shared) if shared.0 as usize >= kernel.shared.len() => {
            Err(ValidErrorKind::UnknownShared { index: shared.0, count: kernel.shared.len() })
        }
        _ => Ok(()),
    }
}

fn register(reg: RegId, need: Need, kernel: &Kernel) -> Checked {
    match kernel.registers.get(reg.0 as usize) {
        None => Err(ValidErrorKind::UnknownRegister { reg, count: kernel.registers.len() }),
        Some(&found) if need.takes(found) => Ok(()),
        Some(&found) => Err(ValidErrorKind::Mistyped { reg, expected: need.ty, found }),
    }
}

/// The assembler would cut a number that does not fit; f16, bf16 and predicates have no immediates.
fn immediate(imm: Imm, ty: Type) -> Checked {
    let fits = match imm {
        Imm::F32(_) => ty == Type::F32,
        Imm::F64(_) => ty == Type::F64,
        Imm::Int(value) if ty.is_integer() || ty.is_bits() => {
            let bits = ty.bits();
            let least = if ty.is_signed() { -(1_i128 << (bits - 1)) } else { 0 };
            let most = if ty.is_signed() { (1_i128 << (bits - 1)) - 1 } else { (1_i128 << bits) - 1 };
            (least..=most).contains(&value)
        }
        Imm::Int(_) => false,
    };
    if fits {
        return Ok(());
    }
    let value = match imm {
        Imm::Int(value) => value.to_string(),
        Imm::F32(bits) => format!("{:?} (f32)", f32::from_bits(bits)),
        Imm::F64(bits) => format!("{:?} (f64)", f64::from_bits(bits)),
    };
    Err(ValidErrorKind::Immediate { value, expected: ty })
}

fn range(what: &'static str, operand: Operand, least: i128, most: i128, expected: &'static str) -> Checked {
    match operand.as_int() {
        Some(found) if !(least..=most).contains(&found) => Err(ValidErrorKind::Range { what, expected, found }),
        _ => Ok(()),
    }
}
