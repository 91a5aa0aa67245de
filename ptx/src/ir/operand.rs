//! What instructions read: registers and immediates.

/// Index of a register of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegId(pub u32);

/// A number in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Imm {
    /// An integer: wide enough for every signed and unsigned value of 64 bits.
    Int(i128),
    /// Bits of an f32.
    F32(u32),
    /// Bits of an f64.
    F64(u64),
}

/// What an instruction reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A register.
    Reg(RegId),
    /// A number in the text.
    Imm(Imm),
}

impl Operand {
    /// An integer.
    pub const fn int(value: i128) -> Self {
        Self::Imm(Imm::Int(value))
    }

    /// The register, if it is one.
    pub fn reg(self) -> Option<RegId> {
        match self {
            Self::Reg(reg) => Some(reg),
            Self::Imm(_) => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(self) -> Option<i128> {
        match self {
            Self::Imm(Imm::Int(value)) => Some(value),
            _ => None,
        }
    }
}

impl From<RegId> for Operand {
    fn from(reg: RegId) -> Self {
        Self::Reg(reg)
    }
}
