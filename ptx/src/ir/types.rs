//! Types of instructions and classes of registers.

use std::fmt;

/// What a register is declared as. PTX tells no more registers apart than these: a signed and an unsigned number of 32
/// bits, a pair of f16 and four packed int8 all live in `.b32` registers, and the instruction says how to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// One bit: `%p`.
    Pred,
    /// 16 bits: integers, f16, bf16: `%h`.
    B16,
    /// 32 bits: integers and packed pairs: `%r`.
    B32,
    /// 64 bits: integers and addresses: `%rd`.
    B64,
    /// f32: `%f`.
    F32,
    /// f64: `%fd`.
    F64,
}

impl Class {
    /// All classes, in the order in which a text declares them.
    pub const ALL: [Self; 6] = [Self::Pred, Self::B16, Self::B32, Self::B64, Self::F32, Self::F64];

    /// Type in the declaration.
    pub fn declared(self) -> Type {
        match self {
            Self::Pred => Type::Pred,
            Self::B16 => Type::B16,
            Self::B32 => Type::B32,
            Self::B64 => Type::B64,
            Self::F32 => Type::F32,
            Self::F64 => Type::F64,
        }
    }

    /// What the names of its registers begin with, without `%`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Pred => "p",
            Self::B16 => "h",
            Self::B32 => "r",
            Self::B64 => "rd",
            Self::F32 => "f",
            Self::F64 => "fd",
        }
    }
}

/// How an instruction reads or writes the bits of a register or of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the names say it all
pub enum Type {
    Pred,
    B8,
    U8,
    S8,
    B16,
    U16,
    S16,
    F16,
    Bf16,
    B32,
    U32,
    S32,
    F32,
    F16x2,
    Bf16x2,
    B64,
    U64,
    S64,
    F64,
}

impl Type {
    /// All types.
    pub const ALL: [Self; 19] = [
        Self::Pred,
        Self::B8,
        Self::U8,
        Self::S8,
        Self::B16,
        Self::U16,
        Self::S16,
        Self::F16,
        Self::Bf16,
        Self::B32,
        Self::U32,
        Self::S32,
        Self::F32,
        Self::F16x2,
        Self::Bf16x2,
        Self::B64,
        Self::U64,
        Self::S64,
        Self::F64,
    ];

    /// Name in the text, without the dot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pred => "pred",
            Self::B8 => "b8",
            Self::U8 => "u8",
            Self::S8 => "s8",
            Self::B16 => "b16",
            Self::U16 => "u16",
            Self::S16 => "s16",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::B32 => "b32",
            Self::U32 => "u32",
            Self::S32 => "s32",
            Self::F32 => "f32",
            Self::F16x2 => "f16x2",
            Self::Bf16x2 => "bf16x2",
            Self::B64 => "b64",
            Self::U64 => "u64",
            Self::S64 => "s64",
            Self::F64 => "f64",
        }
    }

    /// Width in bits; 1 for predicates.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Pred => 1,
            Self::B8 | Self::U8 | Self::S8 => 8,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 16,
            Self::B32 | Self::U32 | Self::S32 | Self::F32 | Self::F16x2 | Self::Bf16x2 => 32,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 64,
        }
    }

    /// Width in memory, in bytes. Predicates have none there: 0.
    pub const fn bytes(self) -> u32 {
        self.bits() / 8
    }

    /// `u8` … `u64`, `s8` … `s64`.
    pub fn is_integer(self) -> bool {
        self.is_signed() || matches!(self, Self::U8 | Self::U16 | Self::U32 | Self::U64)
    }

    /// `s8` … `s64`.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    /// One float: not a packed pair.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// Two floats in 32 bits.
    pub fn is_pair(self) -> bool {
        matches!(self, Self::F16x2 | Self::Bf16x2)
    }

    /// `b8` … `b64`: bits without a meaning.
    pub fn is_bits(self) -> bool {
        matches!(self, Self::B8 | Self::B16 | Self::B32 | Self::B64)
    }

    /// Whether an instruction of this type may name a register of `class`. As in PTX, `.bN` takes every register of its
    /// width; the other types take their own class.
    pub fn fits(self, class: Class) -> bool {
        match class {
            Class::Pred => self == Self::Pred,
            Class::B16 => self.bits() == 16,
            Class::B32 => self.bits() == 32 && self != Self::F32,
            Class::B64 => self.bits() == 64 && self != Self::F64,
            Class::F32 => matches!(self, Self::F32 | Self::B32),
            Class::F64 => matches!(self, Self::F64 | Self::B64),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}", self.name())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.declared().fmt(f)
    }
}
