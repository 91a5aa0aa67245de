//! The scalar types of PTX, as registers are declared and instructions are qualified with them.

use std::fmt;

/// A fundamental type of PTX, or one of the packed half types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
}

/// Every type with the name it has in the text, without the dot.
const NAMES: [(&str, Ty); 19] = [
    ("pred", Ty::Pred),
    ("b8", Ty::B8),
    ("b16", Ty::B16),
    ("b32", Ty::B32),
    ("b64", Ty::B64),
    ("u8", Ty::U8),
    ("u16", Ty::U16),
    ("u32", Ty::U32),
    ("u64", Ty::U64),
    ("s8", Ty::S8),
    ("s16", Ty::S16),
    ("s32", Ty::S32),
    ("s64", Ty::S64),
    ("f16", Ty::F16),
    ("f16x2", Ty::F16x2),
    ("bf16", Ty::Bf16),
    ("bf16x2", Ty::Bf16x2),
    ("f32", Ty::F32),
    ("f64", Ty::F64),
];

/// What kind of value a type holds: decides which registers an instruction may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Pred,
    Bits,
    Int,
    Float,
}

impl Ty {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, _)| *n == name).map(|&(_, ty)| ty)
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, ty)| *ty == self).map_or("?", |&(name, _)| name)
    }

    /// Size in bytes; a predicate has none.
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Self::Pred => 0,
            Self::B8 | Self::U8 | Self::S8 => 1,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 => 2,
            Self::B32 | Self::U32 | Self::S32 | Self::F32 | Self::F16x2 | Self::Bf16x2 => 4,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 8,
        }
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    pub(crate) fn is_float(self) -> bool {
        self.family() == Family::Float
    }

    pub(crate) fn is_int(self) -> bool {
        self.family() == Family::Int
    }

    pub(crate) fn is_bits(self) -> bool {
        self.family() == Family::Bits
    }

    pub(crate) fn family(self) -> Family {
        match self {
            Self::Pred => Family::Pred,
            Self::B8 | Self::B16 | Self::B32 | Self::B64 => Family::Bits,
            Self::F16 | Self::F16x2 | Self::Bf16 | Self::Bf16x2 | Self::F32 | Self::F64 => Family::Float,
            _ => Family::Int,
        }
    }

    /// Whether a register declared `self` may stand where an instruction of type `instr` asks for exactly its width.
    pub(crate) fn matches(self, instr: Self) -> bool {
        self.bytes() == instr.bytes() && self.family_matches(instr)
    }

    /// Whether a register declared `self` may hold a value of `instr` in its low bits (loads, stores, conversions).
    pub(crate) fn holds(self, instr: Self) -> bool {
        self.bytes() >= instr.bytes() && self.bytes() > 0 && self.family_matches(instr)
    }

    fn family_matches(self, instr: Self) -> bool {
        match (self.family(), instr.family()) {
            (Family::Pred, other) | (other, Family::Pred) => other == Family::Pred,
            (Family::Bits, _) | (_, Family::Bits) | (Family::Int, Family::Int) => true,
            (Family::Float, Family::Float) => self == instr,
            _ => false,
        }
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}", self.name())
    }
}
