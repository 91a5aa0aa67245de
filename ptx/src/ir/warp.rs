//! Operations of a warp: shuffles, votes, matches, reductions.

use super::{Operand, RegId};

/// All 32 lanes.
pub const FULL_MASK: u32 = u32::MAX;

/// From where a lane receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShuffleMode {
    /// The named lane.
    Idx,
    /// That many lanes before the own.
    Up,
    /// That many lanes after the own.
    Down,
    /// The own lane, XOR the operand.
    Bfly,
}

impl ShuffleMode {
    /// Name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idx => "idx",
            Self::Up => "up",
            Self::Down => "down",
            Self::Bfly => "bfly",
        }
    }
}

/// `shfl.sync`: exchange of 32 bits between lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shuffle {
    /// From where.
    pub mode: ShuffleMode,
    /// What is received. A lane whose source is outside its segment receives its own value.
    pub dst: RegId,
    /// Predicate: whether the source was inside the segment.
    pub in_range: Option<RegId>,
    /// What is given.
    pub value: Operand,
    /// Lane, distance or XOR mask.
    pub lane: Operand,
    /// Lanes per segment: a power of two up to 32.
    pub width: u32,
    /// Lanes that take part.
    pub mask: Operand,
}

/// What a vote answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VoteMode {
    /// One bit per lane, as `.b32`.
    Ballot,
    /// Whether it is true in any lane.
    Any,
    /// Whether it is true in all lanes.
    All,
}

/// What a match answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchMode {
    /// Lanes with the own value.
    Any,
    /// The mask if all lanes have one value, else 0.
    All,
}

/// Reductions over a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ReduceOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

impl ReduceOp {
    /// Name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Min => "min",
            Self::Max => "max",
            Self::And => "and",
            Self::Or => "or",
            Self::Xor => "xor",
        }
    }

    /// Whether it is an operation on bits (`.b32`) rather than on numbers.
    pub fn is_bitwise(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Xor)
    }
}
