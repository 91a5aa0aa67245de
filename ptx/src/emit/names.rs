//! Names in the text.

use super::EmitErrorKind;
use crate::ir::{Class, Imm, Kernel, Operand, RegId, Shared};

/// Names of the registers of a kernel: `%r3` is the third of its class.
pub(super) struct Names {
    registers: Vec<(Class, u32)>,
}

impl Names {
    pub(super) fn of(kernel: &Kernel) -> Self {
        let mut counts = [0_u32; Class::ALL.len()];
        let registers = kernel.registers.iter().map(|&class| {
            let count = &mut counts[class as usize];
            *count += 1;
            (class, *count)
        });
        Self { registers: registers.collect() }
    }

    pub(super) fn register(&self, opcode: &'static str, reg: RegId) -> Result<String, EmitErrorKind> {
        let (class, number) = self.registers.get(reg.0 as usize).ok_or(EmitErrorKind::Register { opcode, reg })?;
        Ok(format!("%{}{number}", class.prefix()))
    }

    pub(super) fn operand(&self, opcode: &'static str, operand: Operand) -> Result<String, EmitErrorKind> {
        Ok(match operand {
            Operand::Reg(reg) => self.register(opcode, reg)?,
            Operand::Imm(Imm::F32(bits)) => format!("0f{bits:08X}"),
            Operand::Imm(Imm::F64(bits)) => format!("0d{bits:016X}"),
            // A decimal literal above the range of s64 would be read as u64 only with its suffix; hexadecimal always is.
            Operand::Imm(Imm::Int(value)) if value > i64::MAX.into() => format!("0x{value:X}U"),
            Operand::Imm(Imm::Int(value)) => value.to_string(),
        })
    }
}

/// Name of dynamic shared memory. It is declared outside of the entry, so it has to differ between kernels.
pub(super) fn dynamic_shared(kernel: &Kernel, shared: &Shared) -> String {
    format!("{}_{}", kernel.name, shared.name)
}
