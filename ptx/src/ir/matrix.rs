//! Tensor core operations: fragments of `mma.sync` and the `ldmatrix` that fills them.

use super::{Address, RegId, Type};

/// `ldmatrix.sync.aligned.m8n8`: one to four 8×8 matrices of 16-bit elements from shared memory. Lane `8·i + r` gives the
/// address of row `r` of matrix `i`; a lane receives two neighbours of one row per matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadMatrix {
    /// One `.b32` register per matrix: 1, 2 or 4.
    pub dst: Vec<RegId>,
    /// Row of 16 bytes, in shared memory.
    pub from: Address,
    /// Transposes each matrix.
    pub transposed: bool,
}

/// How 8-bit elements are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Signedness {
    Unsigned,
    Signed,
}

impl Signedness {
    /// As a type of 8 bits.
    pub fn bytes(self) -> Type {
        match self {
            Self::Unsigned => Type::U8,
            Self::Signed => Type::S8,
        }
    }

    /// As a type of 32 bits, which packs four of them in `dp4a`.
    pub fn words(self) -> Type {
        match self {
            Self::Unsigned => Type::U32,
            Self::Signed => Type::S32,
        }
    }
}

/// Shape and types of an `mma.sync`. All of them take A by rows and B by columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MmaKind {
    /// m16n8k16, f16 × f16 → f32.
    F16,
    /// m16n8k16, bf16 × bf16 → f32.
    Bf16,
    /// m16n8k32, 8-bit integers → s32.
    Int8 {
        /// Elements of A.
        a: Signedness,
        /// Elements of B.
        b: Signedness,
    },
}

impl MmaKind {
    /// Type of an accumulator: `.f32` or `.s32`.
    pub fn accumulator(self) -> Type {
        match self {
            Self::F16 | Self::Bf16 => Type::F32,
            Self::Int8 { .. } => Type::S32,
        }
    }
}

/// `mma.sync.aligned`: D = A·B + C over a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mma {
    /// Shape and types.
    pub kind: MmaKind,
    /// Accumulators of D.
    pub d: [RegId; 4],
    /// Packed fragment of A, `.b32`.
    pub a: [RegId; 4],
    /// Packed fragment of B, `.b32`.
    pub b: [RegId; 2],
    /// Accumulators of C; may be those of D.
    pub c: [RegId; 4],
}
