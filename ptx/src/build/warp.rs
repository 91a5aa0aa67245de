//! Operations of a warp. Those without a mask are of all 32 lanes.

use super::types::{Bits, Word};
use super::{B32, KernelBuilder, Pred, Reg, S32, Source, Ty, U32};
use crate::ir::{FULL_MASK, Inst, MatchMode, Operand, ReduceOp, Shuffle, ShuffleMode, Type, VoteMode};

/// Integers that a warp reduces in one instruction.
pub trait Redux: Word + Bits {}
impl Redux for U32 {}
impl Redux for S32 {}

macro_rules! shuffles {
    ($($(#[$doc:meta])* $name:ident = $mode:ident;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name<T: Word>(&self, value: impl Source<T>, lane: impl Source<U32>) -> Reg<T> {
            self.shuffle(ShuffleMode::$mode, value, lane, 32, FULL_MASK)
        }
    )*};
}

impl KernelBuilder {
    shuffles! {
        /// Value of lane `lane`.
        shfl_idx = Idx;
        /// Value of the lane that many before; the own where there is none.
        shfl_up = Up;
        /// Value of the lane that many after; the own where there is none.
        shfl_down = Down;
        /// Value of the lane whose number is the own XOR `lane`.
        shfl_bfly = Bfly;
    }

    /// A shuffle among segments of `width` lanes, of the lanes of `mask`.
    #[track_caller]
    pub fn shuffle<T: Word>(
        &self,
        mode: ShuffleMode,
        value: impl Source<T>,
        lane: impl Source<U32>,
        width: u32,
        mask: impl Source<U32>,
    ) -> Reg<T> {
        let (value, lane, mask) = (value.operand(), lane.operand(), mask.operand());
        self.op(|dst| Inst::Shuffle(Shuffle { mode, dst, in_range: None, value, lane, width, mask }))
    }

    /// The same, and whether the source was inside the segment.
    #[track_caller]
    pub fn shuffle_in_range<T: Word>(
        &self,
        mode: ShuffleMode,
        value: impl Source<T>,
        lane: impl Source<U32>,
        width: u32,
        mask: impl Source<U32>,
    ) -> (Reg<T>, Reg<Pred>) {
        let (value, lane, mask) = (value.operand(), lane.operand(), mask.operand());
        let in_range = self.fresh::<Pred>();
        let shuffled = self
            .op(|dst| Inst::Shuffle(Shuffle { mode, dst, in_range: Some(in_range.id()), value, lane, width, mask }));
        (shuffled, in_range)
    }

    /// One bit per lane.
    #[track_caller]
    pub fn ballot(&self, pred: Reg<Pred>) -> Reg<U32> {
        self.vote(VoteMode::Ballot, pred)
    }

    /// Whether it is true in any lane.
    #[track_caller]
    pub fn any(&self, pred: Reg<Pred>) -> Reg<Pred> {
        self.vote(VoteMode::Any, pred)
    }

    /// Whether it is true in all lanes.
    #[track_caller]
    pub fn all(&self, pred: Reg<Pred>) -> Reg<Pred> {
        self.vote(VoteMode::All, pred)
    }

    #[track_caller]
    fn vote<T: Ty>(&self, mode: VoteMode, pred: Reg<Pred>) -> Reg<T> {
        let pred = pred.id();
        self.op(|dst| Inst::Vote { mode, dst, pred, mask: full() })
    }

    /// Lanes that hold the own value.
    #[track_caller]
    pub fn match_any<T: Word>(&self, value: impl Source<T>) -> Reg<U32> {
        let value = value.operand();
        self.op(|dst| Inst::Match { mode: MatchMode::Any, ty: Type::B32, dst, value, mask: full() })
    }

    /// All lanes if they hold one value, else none.
    #[track_caller]
    pub fn match_all<T: Word>(&self, value: impl Source<T>) -> Reg<U32> {
        let value = value.operand();
        self.op(|dst| Inst::Match { mode: MatchMode::All, ty: Type::B32, dst, value, mask: full() })
    }

    /// Sum, minimum, maximum, AND, OR or XOR over the warp; every lane receives it.
    #[track_caller]
    pub fn redux<T: Redux>(&self, op: ReduceOp, value: impl Source<T>) -> Reg<T> {
        let ty = if op.is_bitwise() { T::BITS } else { T::TYPE };
        let value = value.operand();
        self.op(|dst| Inst::Reduce { op, ty, dst, value, mask: full() })
    }

    /// Lanes that run this instruction together.
    #[track_caller]
    pub fn activemask(&self) -> Reg<B32> {
        self.op(|dst| Inst::ActiveMask { dst })
    }
}

fn full() -> Operand {
    Operand::int(FULL_MASK.into())
}
