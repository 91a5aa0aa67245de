//! Token embedding.

use super::{Activations, BudgetTable, ELEMENT_TOLERANCE, Stream, promises};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::op::{Op, PortType};
use crate::reference::{self, Weight};

/// [`Embedding`] as a brick.
pub type EmbedBrick = Brick<Embedding>;

/// Rows of the embedding table times a scale: token ids `[T]` to [`Stream`] `[T, hidden]`.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Weight<'static>,
    scale: f32,
}

impl Brick<Embedding> {
    /// `table`: `[vocab, hidden]`; `scale` is 1 for most models.
    ///
    /// # Errors
    /// [`BrickError::Parameter`] if the scale is not finite.
    pub fn new(table: Weight<'static>, scale: f32) -> Result<Self, BrickError> {
        if !scale.is_finite() {
            return Err(BrickError::parameter(Embedding::NAME, "scale", "a finite number", scale));
        }
        Ok(Self::from_op(Embedding { table, scale }))
    }
}

impl ComputeOp for Embedding {
    type Input<'a> = &'a [u32];
    type Output = Activations<Stream>;
    const NAME: &'static str = "embed";

    fn kind(&self) -> BrickKind {
        BrickKind::Embed
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.get(self.kind())
    }

    fn assertions(&self) -> Assertions {
        promises(self.table.cols(), ELEMENT_TOLERANCE)
    }

    fn tokens(tokens: &Self::Input<'_>) -> usize {
        tokens.len()
    }

    fn execute(&self, tokens: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        Activations::new(self.table.cols(), reference::embed(&self.table, tokens, self.scale)?)
    }

    fn cost(&self, extent: &Extent) -> Cost {
        Op::Embed { scale: self.scale }.cost(&[PortType::tokens()], &[self.table.shape()], extent)
    }
}
