//! Classes of instructions.

use crate::interp::op::{FloatUn, IntBin, Op, Space};

/// What an instruction mainly uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Class {
    /// Moves, packing, selection.
    Move,
    /// Integer arithmetic.
    Integer,
    /// Logic, shifts, fields, permutations.
    Bits,
    /// f32 and f64 arithmetic.
    Float,
    /// f16 and bf16 arithmetic.
    Half,
    /// ex2, lg2, rcp, rsqrt, sqrt, sin, cos, tanh.
    Special,
    /// Conversions between types.
    Convert,
    /// Comparisons and predicate logic.
    Predicate,
    /// dp4a.
    Dot,
    /// mma.
    Matrix,
    /// Loads of kernel parameters.
    LoadParam,
    /// Loads from global memory.
    LoadGlobal,
    /// Stores to global memory.
    StoreGlobal,
    /// Loads from shared memory, ldmatrix included.
    LoadShared,
    /// Stores to shared memory.
    StoreShared,
    /// Atomics and reductions in memory.
    Atomic,
    /// cp.async, its commits and waits.
    AsyncCopy,
    /// Shuffles, votes, matches, redux.
    Warp,
    /// Barriers and fences.
    Sync,
    /// Branches and returns.
    Branch,
    /// Everything else.
    Other,
}

/// All classes with their names, in the order of reports.
pub(super) const CLASSES: [(Class, &str); 21] = [
    (Class::Move, "move"),
    (Class::Integer, "integer"),
    (Class::Bits, "bits"),
    (Class::Float, "float"),
    (Class::Half, "half"),
    (Class::Special, "special"),
    (Class::Convert, "convert"),
    (Class::Predicate, "predicate"),
    (Class::Dot, "dot"),
    (Class::Matrix, "matrix"),
    (Class::LoadParam, "load.param"),
    (Class::LoadGlobal, "load.global"),
    (Class::StoreGlobal, "store.global"),
    (Class::LoadShared, "load.shared"),
    (Class::StoreShared, "store.shared"),
    (Class::Atomic, "atomic"),
    (Class::AsyncCopy, "async_copy"),
    (Class::Warp, "warp"),
    (Class::Sync, "sync"),
    (Class::Branch, "branch"),
    (Class::Other, "other"),
];

impl Class {
    /// Every class, in the order of reports.
    pub fn all() -> impl Iterator<Item = Self> {
        CLASSES.into_iter().map(|(class, _)| class)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        CLASSES[self as usize].1
    }
}

impl Op {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Mov32 { .. }
            | Self::Mov64 { .. }
            | Self::MovPred { .. }
            | Self::Pack32 { .. }
            | Self::Unpack32 { .. }
            | Self::Pack64 { .. }
            | Self::Unpack64 { .. }
            | Self::Pack64x4 { .. }
            | Self::Unpack64x4 { .. }
            | Self::Clock32 { .. }
            | Self::Clock64 { .. }
            | Self::Selp32 { .. }
            | Self::Selp64 { .. }
            | Self::Slct32 { .. }
            | Self::Slct64 { .. } => Class::Move,
            Self::Int16 { f, .. } | Self::Int32 { f, .. } | Self::Int64 { f, .. } => {
                if matches!(f, IntBin::And | IntBin::Or | IntBin::Xor) { Class::Bits } else { Class::Integer }
            }
            Self::IntUn16 { .. }
            | Self::IntUn32 { .. }
            | Self::IntUn64 { .. }
            | Self::Mad16 { .. }
            | Self::Mad32 { .. }
            | Self::Mad64 { .. }
            | Self::MulWide16 { .. }
            | Self::MulWide32 { .. } => Class::Integer,
            Self::Shift16 { .. }
            | Self::Shift32 { .. }
            | Self::Shift64 { .. }
            | Self::Count64 { .. }
            | Self::Lop3 { .. }
            | Self::Prmt { .. }
            | Self::Shf { .. }
            | Self::Bfe32 { .. }
            | Self::Bfe64 { .. }
            | Self::Bfi32 { .. }
            | Self::Bfi64 { .. } => Class::Bits,
            Self::Float32 { .. } | Self::Float64 { .. } | Self::Fma32 { .. } | Self::Fma64 { .. } => Class::Float,
            Self::FloatUn32 { f, .. } | Self::FloatUn64 { f, .. } => {
                if matches!(f, FloatUn::Abs | FloatUn::Neg) {
                    Class::Float
                } else {
                    Class::Special
                }
            }
            Self::Half { .. } => Class::Half,
            Self::Cvt(_) | Self::CvtPack { .. } => Class::Convert,
            Self::Setp { .. } | Self::PredBin { .. } | Self::PredNot { .. } => Class::Predicate,
            Self::Dp4a { .. } => Class::Dot,
            Self::Mma(_) => Class::Matrix,
            Self::LdParam { .. } => Class::LoadParam,
            Self::Ld(a) if a.space == Space::Global => Class::LoadGlobal,
            Self::Ld(_) | Self::LdMatrix { .. } => Class::LoadShared,
            Self::St(a) if a.space == Space::Global => Class::StoreGlobal,
            Self::St(_) => Class::StoreShared,
            Self::Atom(_) => Class::Atomic,
            Self::CpAsync { .. } | Self::CpCommit | Self::CpWait { .. } => Class::AsyncCopy,
            Self::Shfl(_)
            | Self::Vote { .. }
            | Self::Ballot { .. }
            | Self::MatchAny { .. }
            | Self::MatchAll { .. }
            | Self::Redux { .. }
            | Self::ActiveMask { .. } => Class::Warp,
            Self::Fence { .. } | Self::Bar { .. } | Self::BarWarp { .. } => Class::Sync,
            Self::Bra { .. } | Self::Exit => Class::Branch,
            Self::Nop | Self::Trap | Self::Nanosleep => Class::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_classes_is_in_the_order_of_the_enum() {
        assert!(CLASSES.iter().enumerate().all(|(i, &(class, _))| class as usize == i));
    }
}
