//! Residual addition.

use super::{Activations, BudgetTable, ELEMENT_TOLERANCE, Stream, Update, promises};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::op::{Op, PortType, Rows};
use crate::reference;

/// [`ResidualSum`] as a brick.
pub type ResidualBrick = Brick<ResidualSum>;

/// `stream + update`: [`Stream`] and [`Update`] to [`Stream`], all `[T, hidden]`.
#[derive(Debug, Clone, Copy)]
pub struct ResidualSum {
    width: usize,
}

/// What a [`ResidualBrick`] takes.
#[derive(Debug, Clone, Copy)]
pub struct Sum<'a> {
    /// The residual stream.
    pub stream: &'a Activations<Stream>,
    /// What is added to it.
    pub update: &'a Activations<Update>,
}

impl Brick<ResidualSum> {
    /// A sum of rows of `width` values.
    ///
    /// # Errors
    /// [`BrickError::Parameter`] if the width is 0.
    pub fn new(width: usize) -> Result<Self, BrickError> {
        reference::width_of(ResidualSum::NAME, "width", &[width])?;
        Ok(Self::from_op(ResidualSum { width }))
    }
}

impl ComputeOp for ResidualSum {
    type Input<'a> = Sum<'a>;
    type Output = Activations<Stream>;
    const NAME: &'static str = "residual_add";

    fn kind(&self) -> BrickKind {
        BrickKind::Residual
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.get(self.kind())
    }

    fn assertions(&self) -> Assertions {
        promises(self.width, ELEMENT_TOLERANCE)
    }

    fn tokens(input: &Self::Input<'_>) -> usize {
        input.stream.rows()
    }

    fn execute(&self, Sum { stream, update }: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        stream.expect_width(Self::NAME, self.width)?;
        update.expect_width(Self::NAME, self.width)?;
        Activations::new(self.width, reference::add(stream.values(), update.values())?)
    }

    fn cost(&self, extent: &Extent) -> Cost {
        let port = PortType::rows(Rows::All, self.width);
        Op::Add.cost(&[port.clone(), port], &[], extent)
    }
}
